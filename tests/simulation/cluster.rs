//! What other controllers of a cluster do, as far as the samples need them: Jobs run to their end, and a ConfigMap that
//! is labelled `slow: "true"` becomes ready.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_apiserver::ApiServer;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use serde_json::json;
use tokio::time::sleep;

/// Serves until it is aborted. A Job's first argument is what its container says at its end; the second how it exits.
pub async fn serve(server: ApiServer) {
    loop {
        sleep(Duration::from_secs(2)).await;
        for job in server.list::<Job>() {
            if job.status.as_ref().is_none_or(|status| status.conditions.is_none()) {
                end(&server, &job);
            }
        }
        for map in server.list::<ConfigMap>() {
            let data = map.data.clone().unwrap_or_default();
            if map.labels().get("slow").is_some_and(|v| v == "true") && !data.contains_key("ready") {
                let data: BTreeMap<_, _> = data
                    .into_iter()
                    .chain([("ready".to_owned(), "yes".to_owned())])
                    .collect();
                server.put(&ConfigMap {
                    data: Some(data),
                    ..map
                });
            }
        }
    }
}

fn end(server: &ApiServer, job: &Job) {
    let container = &job.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0];
    let args = container.args.clone().unwrap_or_default();
    let code: i32 = args.get(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let (name, namespace) = (job.name_any(), job.namespace().unwrap_or_default());
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {
            "name": format!("{name}-pod"), "namespace": namespace,
            "labels": {"batch.kubernetes.io/job-name": name, "job-name": name, "batch.kubernetes.io/controller-uid": job.uid()},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job.uid(), "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {"containers": [{"name": container.name, "image": container.image}]},
        "status": {
            "phase": if code == 0 { "Succeeded" } else { "Failed" },
            "containerStatuses": [{
                "name": container.name, "image": "x", "imageID": "x", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" }, "message": args.first()}},
            }],
        },
    }))
    .unwrap();
    server.put(&pod);
    let condition = if code == 0 { "Complete" } else { "Failed" };
    let mut ended = serde_json::to_value(job).unwrap();
    ended["status"] = json!({
        "succeeded": i32::from(code == 0), "failed": i32::from(code != 0),
        "conditions": [{"type": condition, "status": "True", "reason": "Simulated", "lastTransitionTime": "2026-11-24T00:00:00Z"}],
    });
    server.put(&serde_json::from_value::<Job>(ended).unwrap());
}
