//! What is below objects: scale, logs, evictions, tokens.

use http::Method;
use serde_json::json;

use super::cluster::{Cluster, status_of, version};

pub async fn a_custom_scale_changes_replicas(cluster: Cluster) {
    let live = cluster.create_widget("scaled", json!({"size": 1})).await;
    let (path, scale) = (cluster.widget("scaled"), format!("{}/scale", cluster.widget("scaled")));
    let words = "the spec replicas field \".spec.replicas\" does not exist";
    cluster.get(&scale).await.refuses(500, "InternalError", words);
    let status = status_of(&live, json!({"replicas": 2, "selector": "a=b"}));
    cluster.put(&format!("{path}/status"), &status).await.expect(200);

    let patched = cluster
        .merge(&scale, &json!({"spec": {"replicas": 3}}))
        .await
        .expect(200);
    assert_eq!(
        (&patched["kind"], &patched["apiVersion"]),
        (&json!("Scale"), &json!("autoscaling/v1"))
    );
    assert_eq!(
        (&patched["spec"], &patched["status"]),
        (&json!({"replicas": 3}), &json!({"replicas": 2, "selector": "a=b"}))
    );
    assert_eq!(cluster.get(&scale).await.expect(200), patched);
    let object = cluster.get(&path).await.expect(200);
    assert_eq!(
        (&object["spec"]["replicas"], version(&object)),
        (&json!(3), version(&patched))
    );
    assert_eq!(object["metadata"]["generation"], 2);

    let mut put = patched.clone();
    put["spec"]["replicas"] = 4.into();
    cluster.put(&scale, &put).await.expect(200);
    let reply = cluster.put(&scale, &put).await;
    reply.refuses(409, "Conflict", "the object has been modified");
    put["metadata"].as_object_mut().map(|m| m.remove("resourceVersion"));
    put["spec"]["replicas"] = 5.into();
    assert_eq!(cluster.put(&scale, &put).await.expect(200)["spec"]["replicas"], 5);
    let absent = cluster.get(&format!("{}/scale", cluster.widget("no-scale"))).await;
    absent.refuses(
        404,
        "NotFound",
        "widgets.conformance.holdfast.dev \"no-scale\" not found",
    );
}

pub async fn a_deployment_scales(cluster: Cluster) {
    let deployment = json!({"metadata": {"name": "scaled"}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "paused": true,
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    cluster
        .post(&cluster.path("apps/v1:deployments"), &deployment)
        .await
        .expect(201);
    let path = cluster.path("apps/v1:deployments/scaled");
    let scale = cluster.get(&format!("{path}/scale")).await.expect(200);
    assert_eq!(
        (&scale["spec"], &scale["status"]["selector"]),
        (&json!({}), &json!("a=b"))
    );
    let patch = json!({"spec": {"replicas": 2}});
    let scaled = cluster.merge(&format!("{path}/scale"), &patch).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 2);
    assert_eq!(cluster.get(&path).await.expect(200)["spec"]["replicas"], 2);
}

pub async fn a_missing_pod_has_no_log(cluster: Cluster) {
    let reply = cluster.get(&cluster.path("pods/nobody/log")).await;
    reply.refuses(404, "NotFound", "pods \"nobody\" not found");
}

pub async fn evictions_respect_budgets(cluster: Cluster) {
    let pod = |name: &str| {
        json!({"metadata": {"name": name, "labels": {"evict": name}},
            // No scheduler's: on a node, the kubelet would say how it really is.
            "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}]}})
    };
    let eviction = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let evict = async |name: &str| {
        let path = cluster.path(&format!("pods/{name}/eviction"));
        cluster
            .send(Method::POST, &path, "application/json", &eviction(name).to_string())
            .await
    };
    evict("nobody")
        .await
        .refuses(404, "NotFound", "pods \"nobody\" not found");

    let budget = json!({"metadata": {"name": "budget"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"evict": "kept"}}}});
    cluster
        .post(&cluster.path("policy/v1:poddisruptionbudgets"), &budget)
        .await
        .expect(201);
    for name in ["kept", "free"] {
        cluster.post(&cluster.path("pods"), &pod(name)).await.expect(201);
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        cluster
            .merge(&cluster.path(&format!("pods/{name}/status")), &status)
            .await
            .expect(200);
    }
    let refused = evict("kept").await;
    refused.refuses(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "DisruptionBudget");
    assert_eq!(cluster.get(&cluster.path("pods/kept")).await.code, 200);

    let done = evict("free").await.expect(201);
    assert_eq!((&done["kind"], &done["status"]), (&json!("Status"), &json!("Success")));
    let free = cluster.path("pods/free");
    cluster
        .eventually("the pod goes", async || cluster.get(&free).await.code == 404)
        .await;
}

pub async fn a_service_account_has_tokens(cluster: Cluster) {
    let request = json!({"spec": {"audiences": ["conformance"], "expirationSeconds": 600}});
    let path = cluster.path("serviceaccounts/default/token");
    let answer = cluster.post(&path, &request).await.expect(201);
    assert_eq!(
        (&answer["kind"], &answer["apiVersion"]),
        (&json!("TokenRequest"), &json!("authentication.k8s.io/v1"))
    );
    assert!(
        answer["status"]["token"]
            .as_str()
            .is_some_and(|token| !token.is_empty())
    );
    assert!(answer["status"]["expirationTimestamp"].is_string());
    let nobody = cluster
        .post(&cluster.path("serviceaccounts/nobody/token"), &request)
        .await;
    nobody.refuses(404, "NotFound", "serviceaccounts \"nobody\" not found");
}
