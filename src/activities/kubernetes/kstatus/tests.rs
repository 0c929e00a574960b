use serde_json::json;

use super::*;

/// Types, statuses and reasons of conditions.
type Conditions<'a> = &'a [(&'a str, &'a str, &'a str)];

fn of(api_version: &str, kind: &str, spec: Value, status: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "generation": 2}, "spec": spec, "status": status})
}

fn conditions(list: Conditions) -> Value {
    list.iter()
        .map(|(kind, status, reason)| json!({"type": kind, "status": status, "reason": reason, "message": "m"}))
        .collect()
}

/// The status' first word, and what it says.
#[track_caller]
fn check(object: &Value, expected: &str) {
    let found = match compute(object) {
        Current => "Current".to_owned(),
        Terminating => "Terminating".to_owned(),
        InProgress(message) => format!("InProgress: {message}"),
        Failed(message) => format!("Failed: {message}"),
    };
    assert_eq!(found, expected, "{object}");
}

#[test]
fn any_kind() {
    let widget = |status| of("example.dev/v1", "Widget", json!({}), status);
    check(&widget(Value::Null), "Current");
    check(&widget(json!({"observedGeneration": 2})), "Current");
    check(
        &widget(json!({"observedGeneration": 1})),
        "InProgress: its controller has seen generation 1, not 2 yet",
    );
    let table: [(Conditions, &str); 9] = [
        (&[("Reconciling", "True", "Working")], "InProgress: Working: m"),
        (&[("Reconciling", "False", "Done")], "Current"),
        (&[("Stalled", "True", "Broken")], "Failed: Broken: m"),
        (&[("Stalled", "False", "Fine")], "Current"),
        (&[("Ready", "True", "")], "Current"),
        (&[("Ready", "False", "NotYet")], "InProgress: NotYet: m"),
        (&[("Ready", "Unknown", "")], "InProgress: m"),
        (
            &[("Ready", "True", ""), ("Reconciling", "True", "Again")],
            "InProgress: Again: m",
        ),
        (&[("Other", "False", "")], "Current"),
    ];
    for (list, expected) in table {
        check(
            &widget(json!({"observedGeneration": 2, "conditions": conditions(list)})),
            expected,
        );
    }
    let mut deleted = widget(json!({"observedGeneration": 1}));
    deleted["metadata"]["deletionTimestamp"] = "2026-11-24T00:00:00Z".into();
    check(&deleted, "Terminating");
}

#[test]
fn deployments() {
    let all = json!({"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2});
    let fine: Conditions = &[
        ("Progressing", "True", "NewReplicaSetAvailable"),
        ("Available", "True", "x"),
    ];
    let case = |change: Value, list: Conditions| {
        let mut status = all.clone();
        status["conditions"] = conditions(list);
        status
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        of(
            "apps/v1",
            "Deployment",
            json!({"replicas": 2, "progressDeadlineSeconds": 600}),
            status,
        )
    };
    check(&case(json!({}), fine), "Current");
    check(&case(json!({"replicas": 1}), fine), "InProgress: 1 of 2 replicas");
    check(
        &case(json!({"updatedReplicas": 1}), fine),
        "InProgress: 1 of 2 updated replicas",
    );
    check(
        &case(json!({"replicas": 3}), fine),
        "InProgress: 1 replicas still to end",
    );
    check(
        &case(json!({"availableReplicas": 0}), fine),
        "InProgress: 0 of 2 available replicas",
    );
    check(
        &case(json!({"readyReplicas": 1}), fine),
        "InProgress: 1 of 2 ready replicas",
    );
    check(
        &case(json!({}), &[("Available", "True", "x")]),
        "InProgress: its new ReplicaSet isn't available",
    );
    check(&case(json!({}), &fine[..1]), "InProgress: it isn't available");
    check(
        &case(json!({}), &[("Progressing", "False", "ProgressDeadlineExceeded")]),
        "Failed: ProgressDeadlineExceeded: m",
    );
    let mut no_deadline = case(json!({}), &fine[1..]);
    no_deadline["spec"]
        .as_object_mut()
        .unwrap()
        .remove("progressDeadlineSeconds");
    check(&no_deadline, "Current");
    check(
        &of("apps/v1", "Deployment", json!({}), json!({})),
        "InProgress: 0 of 1 replicas",
    );
}

#[test]
fn replica_sets() {
    let case = |change: Value| {
        let mut status = json!({"replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 2});
        status
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        of("apps/v1", "ReplicaSet", json!({"replicas": 2}), status)
    };
    check(&case(json!({})), "Current");
    check(
        &case(json!({"fullyLabeledReplicas": 1})),
        "InProgress: 1 of 2 labelled replicas",
    );
    check(
        &case(json!({"availableReplicas": 1})),
        "InProgress: 1 of 2 available replicas",
    );
    check(&case(json!({"readyReplicas": 1})), "InProgress: 1 of 2 ready replicas");
    check(&case(json!({"replicas": 3})), "InProgress: 1 replicas still to end");
    check(
        &case(json!({"conditions": conditions(&[("ReplicaFailure", "True", "Quota")])})),
        "InProgress: Quota: m",
    );
}

#[test]
fn stateful_sets() {
    let case = |spec: Value, change: Value| {
        let mut status = json!({
            "replicas": 3, "readyReplicas": 3, "currentReplicas": 3, "updatedReplicas": 3,
            "currentRevision": "a", "updateRevision": "a",
        });
        status
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let mut full = json!({"replicas": 3});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        of("apps/v1", "StatefulSet", full, status)
    };
    check(&case(json!({}), json!({})), "Current");
    check(&case(json!({}), json!({"replicas": 2})), "InProgress: 2 of 3 replicas");
    check(
        &case(json!({}), json!({"readyReplicas": 2})),
        "InProgress: 2 of 3 ready replicas",
    );
    check(
        &case(json!({}), json!({"replicas": 4})),
        "InProgress: 1 replicas still to end",
    );
    check(
        &case(json!({}), json!({"currentReplicas": 1})),
        "InProgress: 1 of 3 current replicas",
    );
    check(
        &case(json!({}), json!({"updateRevision": "b"})),
        "InProgress: not all replicas have the new revision",
    );
    let partition = json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}});
    check(
        &case(partition.clone(), json!({"updatedReplicas": 1, "updateRevision": "b"})),
        "Current",
    );
    check(
        &case(partition, json!({"updatedReplicas": 0})),
        "InProgress: 0 of 1 updated replicas",
    );
    check(
        &case(json!({"updateStrategy": {"type": "OnDelete"}}), json!({"replicas": 0})),
        "Current",
    );
}

#[test]
fn daemon_sets() {
    let case = |change: Value| {
        let mut status = json!({
            "observedGeneration": 2, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
            "updatedNumberScheduled": 2, "numberAvailable": 2, "numberReady": 2,
        });
        status
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        of("apps/v1", "DaemonSet", json!({}), status)
    };
    check(&case(json!({})), "Current");
    check(
        &case(json!({"observedGeneration": null})),
        "InProgress: its controller hasn't seen it yet",
    );
    check(
        &case(json!({"desiredNumberScheduled": null})),
        "InProgress: its controller hasn't seen it yet",
    );
    check(
        &case(json!({"currentNumberScheduled": 1})),
        "InProgress: 1 of 2 scheduled pods",
    );
    check(
        &case(json!({"updatedNumberScheduled": 1})),
        "InProgress: 1 of 2 updated pods",
    );
    check(
        &case(json!({"numberAvailable": 1})),
        "InProgress: 1 of 2 available pods",
    );
    check(&case(json!({"numberReady": 1})), "InProgress: 1 of 2 ready pods");
}

#[test]
fn pods() {
    let pod = |status| of("v1", "Pod", json!({}), status);
    check(&pod(json!({})), "InProgress: it has no phase yet");
    check(&pod(json!({"phase": "Succeeded"})), "Current");
    check(&pod(json!({"phase": "Failed"})), "Current");
    check(&pod(json!({"phase": "Pending"})), "InProgress: it is pending");
    let unschedulable = conditions(&[("PodScheduled", "False", "Unschedulable")]);
    check(
        &pod(json!({"phase": "Pending", "conditions": unschedulable})),
        "InProgress: Unschedulable: m",
    );
    check(
        &pod(json!({"phase": "Running"})),
        "InProgress: it runs, but isn't ready",
    );
    check(
        &pod(json!({"phase": "Running", "conditions": conditions(&[("Ready", "True", "")])})),
        "Current",
    );
    let crashing = json!([{"name": "a", "state": {"running": {}}}, {"name": "b", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
    check(
        &pod(json!({"phase": "Running", "containerStatuses": crashing})),
        "Failed: containers crash again and again: b",
    );
}

#[test]
fn jobs() {
    let job = |status| of("batch/v1", "Job", json!({}), status);
    check(&job(json!({})), "InProgress: it hasn't started");
    check(
        &job(json!({"startTime": "2026-11-24T00:00:00Z", "active": 1})),
        "Current",
    );
    check(
        &job(json!({"conditions": conditions(&[("Complete", "True", "")])})),
        "Current",
    );
    check(
        &job(json!({"conditions": conditions(&[("Suspended", "True", "")])})),
        "Current",
    );
    check(
        &job(json!({"conditions": conditions(&[("Failed", "True", "BackoffLimitExceeded")])})),
        "Failed: BackoffLimitExceeded: m",
    );
}

#[test]
fn the_other_built_in_kinds() {
    check(
        &of("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Pending"})),
        "InProgress: it is not bound, but Pending",
    );
    check(
        &of("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Bound"})),
        "Current",
    );
    check(
        &of("v1", "Service", json!({"type": "LoadBalancer"}), json!({})),
        "InProgress: it has no cluster IP yet",
    );
    check(
        &of(
            "v1",
            "Service",
            json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1"}),
            json!({}),
        ),
        "Current",
    );
    check(&of("v1", "Service", json!({}), json!({})), "Current");
    check(
        &of(
            "policy/v1",
            "PodDisruptionBudget",
            json!({}),
            json!({"observedGeneration": 2}),
        ),
        "Current",
    );
    check(&of("v1", "ConfigMap", Value::Null, Value::Null), "Current");
    let crd = |list: Conditions| {
        of(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            json!({}),
            json!({"conditions": conditions(list)}),
        )
    };
    check(&crd(&[]), "InProgress: it is being installed");
    check(
        &crd(&[("Established", "False", "Installing")]),
        "InProgress: it is being installed",
    );
    check(&crd(&[("NamesAccepted", "False", "Taken")]), "Failed: Taken: m");
    check(&crd(&[("Established", "False", "Broken")]), "Failed: Broken: m");
    check(
        &crd(&[("NamesAccepted", "True", ""), ("Established", "True", "")]),
        "Current",
    );
}
