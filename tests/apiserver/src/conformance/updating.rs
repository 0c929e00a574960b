//! Changing objects.

use http::Method;
use serde_json::{Value, json};

use super::cluster::{Cluster, status_of, version, widget};

const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

pub async fn a_put_needs_the_current_version(cluster: Cluster) {
    let live = cluster.create_widget("put", json!({"size": 1})).await;
    let path = cluster.widget("put");
    let mut new = live.clone();
    new["spec"]["size"] = 2.into();
    let changed = cluster.put(&path, &new).await.expect(200);
    assert_eq!(
        (&changed["spec"]["size"], &changed["metadata"]["uid"]),
        (&json!(2), &live["metadata"]["uid"])
    );
    assert!(version(&changed) > version(&live));

    let stale = cluster.put(&path, &new).await;
    let words = format!("Operation cannot be fulfilled on widgets.conformance.holdfast.dev \"put\": {MODIFIED}");
    stale.refuses(409, "Conflict", &words);
    assert_eq!(
        stale.body["details"],
        json!({"name": "put", "group": "conformance.holdfast.dev", "kind": "widgets"})
    );

    let unversioned = cluster.put(&path, &widget("put", json!({"size": 3}))).await;
    unversioned.refuses(
        422,
        "Invalid",
        "widgets.conformance.holdfast.dev \"put\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update",
    );
    assert_eq!(cluster.get(&path).await.expect(200), changed);
}

pub async fn a_put_of_another_uid_is_a_conflict(cluster: Cluster) {
    let live = cluster.create_widget("other", json!({"size": 1})).await;
    let mut new = live.clone();
    new["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555".into();
    let words = "Precondition failed: UID in precondition: 11111111-2222-3333-4444-555555555555, UID in object meta: ";
    cluster
        .put(&cluster.widget("other"), &new)
        .await
        .refuses(409, "Conflict", words);
    let status = status_of(&new, json!({"state": "X"}));
    let path = format!("{}/status", cluster.widget("other"));
    cluster.put(&path, &status).await.refuses(409, "Conflict", words);
}

pub async fn built_in_kinds_take_unversioned_puts(cluster: Cluster) {
    let live = cluster.create_config_map("unversioned", json!({})).await;
    let path = cluster.path("configmaps/unversioned");
    let new = json!({"metadata": {"name": "unversioned"}, "data": {"a": "2"}});
    let changed = cluster.put(&path, &new).await.expect(200);
    assert_eq!(
        (&changed["data"]["a"], &changed["metadata"]["uid"]),
        (&json!("2"), &live["metadata"]["uid"])
    );
    cluster.put(&path, &live).await.refuses(409, "Conflict", MODIFIED);
}

pub async fn a_put_of_what_is_not_there_is_not_found(cluster: Cluster) {
    let mut new = widget("absent", json!({"size": 1}));
    new["metadata"]["resourceVersion"] = "1".into();
    let path = cluster.widget("absent");
    let words = "widgets.conformance.holdfast.dev \"absent\" not found";
    let gone = cluster.put(&path, &new).await;
    gone.refuses(404, "NotFound", words);
    assert_eq!(
        gone.body["details"],
        json!({"name": "absent", "group": "conformance.holdfast.dev", "kind": "widgets"})
    );
    cluster
        .put(&format!("{path}/status"), &new)
        .await
        .refuses(404, "NotFound", words);
    cluster.merge(&path, &json!({})).await.refuses(404, "NotFound", words);
    cluster.delete(&path).await.refuses(404, "NotFound", words);
    cluster.get(&path).await.refuses(404, "NotFound", words);
    let mut other = new.clone();
    other["metadata"]["name"] = "x".into();
    let words = "the name of the object (x) does not match the name on the URL (absent)";
    cluster.put(&path, &other).await.refuses(400, "BadRequest", words);
}

pub async fn a_write_without_a_change_keeps_the_version(cluster: Cluster) {
    let mut live = cluster.create_widget("same", json!({"size": 1})).await;
    let path = cluster.widget("same");
    live["spec"]["bogus"] = 1.into();
    let same = cluster.put(&path, &live).await.expect(200);
    assert_eq!(version(&same), version(&live));
    let same = cluster.merge(&path, &json!({"spec": {"size": 1}})).await.expect(200);
    assert_eq!(version(&same), version(&live));
    let status = status_of(&live, json!({"state": "A"}));
    let first = cluster.put(&format!("{path}/status"), &status).await.expect(200);
    let second = cluster
        .put(&format!("{path}/status"), &status_of(&first, json!({"state": "A"})))
        .await
        .expect(200);
    assert_eq!(version(&second), version(&first));
    let patched = cluster
        .json_patch(&path, &json!([{"op": "replace", "path": "/spec/size", "value": 1}]))
        .await;
    assert_eq!(version(&patched.expect(200)), version(&first));
}

pub async fn generation_counts_changes_of_the_spec(cluster: Cluster) {
    cluster.create_widget("gen", json!({"size": 1})).await;
    let path = cluster.widget("gen");
    let generation = async |body: Value, path: &str| -> i64 {
        let changed = cluster.merge(path, &body).await.expect(200);
        changed["metadata"]["generation"].as_i64().expect("a generation")
    };
    assert_eq!(generation(json!({"metadata": {"labels": {"a": "b"}}}), &path).await, 1);
    assert_eq!(generation(json!({"spec": {"size": 2}}), &path).await, 2);
    assert_eq!(
        generation(json!({"status": {"state": "X"}}), &format!("{path}/status")).await,
        2
    );
    assert_eq!(generation(json!({"metadata": {"generation": 77}}), &path).await, 2);
    assert_eq!(generation(json!({"spec": {"size": 2}}), &path).await, 2);

    let deployment = json!({"metadata": {"name": "gen"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "replicas": 0,
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let created = cluster
        .post(&cluster.path("apps/v1:deployments"), &deployment)
        .await
        .expect(201);
    assert_eq!(created["metadata"]["generation"], 1);
    let path = cluster.path("apps/v1:deployments/gen");
    assert_eq!(generation(json!({"spec": {"paused": true}}), &path).await, 2);
    assert_eq!(generation(json!({"metadata": {"labels": {"a": "b"}}}), &path).await, 2);
    assert!(cluster.create_config_map("gen", json!({})).await["metadata"]["generation"].is_null());
}

pub async fn the_main_endpoint_ignores_status(cluster: Cluster) {
    let live = cluster.create_widget("main", json!({"size": 1})).await;
    let path = cluster.widget("main");
    let live = cluster
        .put(&format!("{path}/status"), &status_of(&live, json!({"state": "A"})))
        .await
        .expect(200);
    let mut new = live.clone();
    new["spec"]["size"] = 2.into();
    new["status"] = json!({"state": "B"});
    let changed = cluster.put(&path, &new).await.expect(200);
    assert_eq!(
        (&changed["spec"]["size"], &changed["status"]),
        (&json!(2), &json!({"state": "A"}))
    );
    new = changed.clone();
    new.as_object_mut().map(|fields| fields.remove("status"));
    let unchanged = cluster.put(&path, &new).await.expect(200);
    assert_eq!(unchanged, changed);
    let patched = cluster.merge(&path, &json!({"status": null})).await.expect(200);
    assert_eq!(patched, changed);
}

pub async fn the_status_endpoint_changes_nothing_else(cluster: Cluster) {
    let mut sent = widget("status", json!({"size": 1, "color": "red"}));
    sent["metadata"]["labels"] = json!({"a": "b"});
    sent["metadata"]["annotations"] = json!({"c": "d"});
    sent["metadata"]["finalizers"] = json!(["example.dev/f"]);
    let live = cluster.post(&cluster.widgets(), &sent).await.expect(201);
    let path = format!("{}/status", cluster.widget("status"));

    // Identity and version are enough.
    let written = cluster
        .put(&path, &status_of(&live, json!({"state": "A", "steps": [{"id": 1}]})))
        .await
        .expect(200);
    assert_eq!(written["status"], json!({"state": "A", "steps": [{"id": 1}]}));
    assert_eq!(written["spec"], live["spec"]);
    for field in [
        "labels",
        "annotations",
        "finalizers",
        "generation",
        "uid",
        "creationTimestamp",
    ] {
        assert_eq!(written["metadata"][field], live["metadata"][field], "{field}");
    }
    let read = cluster.get(&cluster.widget("status")).await.expect(200);
    assert_eq!(read, written);
    assert_eq!(cluster.get(&path).await.expect(200), written);

    // And whatever else is sent doesn't count.
    let mut more = written.clone();
    more["status"] = json!({"state": "B"});
    more["spec"] = json!({"size": 77});
    more["metadata"]["labels"] = json!({"x": "y"});
    more["metadata"]["finalizers"] = json!([]);
    let written = cluster.put(&path, &more).await.expect(200);
    assert_eq!(
        (&written["spec"], &written["status"]),
        (&live["spec"], &json!({"state": "B"}))
    );
    assert_eq!(written["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(written["metadata"]["finalizers"], json!(["example.dev/f"]));

    cluster
        .put(&path, &status_of(&live, json!({"state": "C"})))
        .await
        .refuses(409, "Conflict", MODIFIED);
    let mut unversioned = status_of(&live, json!({"state": "C"}));
    unversioned["metadata"]
        .as_object_mut()
        .map(|m| m.remove("resourceVersion"));
    cluster
        .put(&path, &unversioned)
        .await
        .refuses(422, "Invalid", "must be specified for an update");

    let patched = cluster
        .merge(&path, &json!({"spec": {"size": 5}, "status": {"replicas": 2}}))
        .await
        .expect(200);
    assert_eq!(
        (&patched["spec"], &patched["status"]),
        (&live["spec"], &json!({"state": "B", "replicas": 2}))
    );
    let cleared = cluster.put(&path, &status_of(&patched, Value::Null)).await.expect(200);
    assert!(cleared["status"].is_null(), "{cleared}");
    cluster
        .merge(&cluster.widget("status"), &json!({"metadata": {"finalizers": null}}))
        .await
        .expect(200);
}

pub async fn a_status_is_checked_and_pruned(cluster: Cluster) {
    let live = cluster.create_widget("checked", json!({"size": 1})).await;
    let path = format!("{}/status", cluster.widget("checked"));
    let wrong = cluster
        .put(&path, &status_of(&live, json!({"state": 5, "steps": [{"note": "n"}]})))
        .await;
    wrong.refuses(
        422,
        "Invalid",
        "status.state: Invalid value: \"integer\": state in body must be of type string: \"integer\"",
    );
    assert_eq!(wrong.fields(), ["status.state", "status.steps[0].id"]);
    let written = cluster
        .put(
            &path,
            &status_of(&live, json!({"steps": [{"id": 1, "bogus": 2}], "more": 1})),
        )
        .await;
    assert_eq!(written.expect(200)["status"], json!({"steps": [{"id": 1}]}));
}

pub async fn a_merge_patch_merges(cluster: Cluster) {
    let mut sent = widget(
        "merge",
        json!({"size": 1, "free": {"a": 1, "b": {"c": 2, "d": 3}}, "tags": ["x"]}),
    );
    sent["metadata"]["labels"] = json!({"keep": "1", "drop": "2"});
    let live = cluster.post(&cluster.widgets(), &sent).await.expect(201);
    let patch = json!({
        "metadata": {"labels": {"drop": null, "add": "3"}, "creationTimestamp": null},
        "spec": {"free": {"b": {"c": null, "e": 4}}, "tags": ["y", "z"]},
    });
    let patched = cluster.merge(&cluster.widget("merge"), &patch).await.expect(200);
    assert_eq!(patched["metadata"]["labels"], json!({"keep": "1", "add": "3"}));
    assert_eq!(
        patched["metadata"]["creationTimestamp"],
        live["metadata"]["creationTimestamp"]
    );
    let expected = json!({"size": 1, "mode": "Fast", "free": {"a": 1, "b": {"d": 3, "e": 4}}, "tags": ["y", "z"]});
    assert_eq!(patched["spec"], expected);
    let emptied = cluster
        .merge(&cluster.widget("merge"), &json!({"metadata": {"labels": null}}))
        .await
        .expect(200);
    assert!(emptied["metadata"]["labels"].is_null());
}

pub async fn a_merge_patch_can_carry_a_version(cluster: Cluster) {
    let live = cluster.create_widget("lock", json!({"size": 1})).await;
    let path = cluster.widget("lock");
    let patch = |size: i64| json!({"metadata": {"resourceVersion": live["metadata"]["resourceVersion"]}, "spec": {"size": size}});
    let patched = cluster.merge(&path, &patch(2)).await.expect(200);
    cluster.merge(&path, &patch(3)).await.refuses(409, "Conflict", MODIFIED);
    assert_eq!(cluster.get(&path).await.expect(200), patched);
    let status =
        json!({"metadata": {"resourceVersion": live["metadata"]["resourceVersion"]}, "status": {"state": "X"}});
    cluster
        .merge(&format!("{path}/status"), &status)
        .await
        .refuses(409, "Conflict", MODIFIED);
}

pub async fn a_json_patch_can_test(cluster: Cluster) {
    let live = cluster.create_widget("test", json!({"size": 1})).await;
    let path = cluster.widget("test");
    let patch = |size: i64| {
        json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
            {"op": "test", "path": "/spec/size", "value": size},
            {"op": "replace", "path": "/spec/size", "value": 2},
            {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}},
        ])
    };
    let words = "the server rejected our request due to an error in our request";
    cluster
        .json_patch(&path, &patch(7))
        .await
        .refuses(422, "Invalid", words);
    let patched = cluster.json_patch(&path, &patch(1)).await.expect(200);
    assert_eq!(
        (&patched["spec"]["size"], &patched["metadata"]["labels"]),
        (&json!(2), &json!({"a": "b"}))
    );
    cluster
        .json_patch(&path, &patch(2))
        .await
        .refuses(422, "Invalid", words);
    let nowhere = json!([{"op": "replace", "path": "/spec/nope/deeper", "value": 1}]);
    cluster.json_patch(&path, &nowhere).await.refuses(422, "Invalid", words);
    let wrong = json!([{"op": "replace", "path": "/spec/size", "value": "x"}]);
    cluster
        .json_patch(&path, &wrong)
        .await
        .refuses(422, "Invalid", "spec.size in body must be of type integer");
    cluster
        .json_patch(&path, &json!({"op": 1}))
        .await
        .refuses(400, "BadRequest", "error decoding patch");
}

pub async fn patches_must_be_of_a_known_type(cluster: Cluster) {
    cluster.create_widget("types", json!({"size": 1})).await;
    let path = cluster.widget("types");
    for content_type in ["application/json", "application/strategic-merge-patch+json"] {
        cluster.send(Method::PATCH, &path, content_type, "{}").await.refuses(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        );
    }
    cluster.create_config_map("types", json!({})).await;
    let path = cluster.path("configmaps/types");
    let reply = cluster
        .send(
            Method::PATCH,
            &path,
            "application/strategic-merge-patch+json",
            "{\"data\":{\"b\":\"2\"}}",
        )
        .await;
    assert_eq!(reply.expect(200)["data"], json!({"a": "1", "b": "2"}));
}

pub async fn identity_is_immutable(cluster: Cluster) {
    cluster.create_widget("identity", json!({"size": 1})).await;
    let path = cluster.widget("identity");
    let words = "Widget.conformance.holdfast.dev \"identity\" is invalid: metadata.uid: Invalid value: \"x\": field is immutable";
    cluster
        .merge(&path, &json!({"metadata": {"uid": "x"}}))
        .await
        .refuses(422, "Invalid", words);
    let words = "the name of the object (x) does not match the name on the URL (identity)";
    cluster
        .merge(&path, &json!({"metadata": {"name": "x"}}))
        .await
        .refuses(400, "BadRequest", words);
    let words = "the namespace of the provided object does not match the namespace sent on the request";
    cluster
        .merge(&path, &json!({"metadata": {"namespace": "x"}}))
        .await
        .refuses(400, "BadRequest", words);
}

pub async fn immutable_config_maps_stay(cluster: Cluster) {
    let sent = json!({"metadata": {"name": "fixed"}, "data": {"a": "1"}, "immutable": true});
    cluster.post(&cluster.path("configmaps"), &sent).await.expect(201);
    let path = cluster.path("configmaps/fixed");
    let words = "ConfigMap \"fixed\" is invalid: data: Forbidden: field is immutable when `immutable` is set";
    cluster
        .merge(&path, &json!({"data": {"a": "2"}}))
        .await
        .refuses(422, "Invalid", words);
    cluster
        .merge(&path, &json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .expect(200);
}

pub async fn a_lease_is_guarded_by_its_version(cluster: Cluster) {
    let leases = cluster.path("coordination.k8s.io/v1:leases");
    let lease = |holder: &str| {
        json!({"metadata": {"name": "lease"}, "spec": {
        "holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-11-24T15:00:00.000000Z"}})
    };
    let live = cluster.post(&leases, &lease("a")).await.expect(201);
    let path = format!("{leases}/lease");
    let words = "leases.coordination.k8s.io \"lease\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update";
    cluster.put(&path, &lease("b")).await.refuses(422, "Invalid", words);
    let mut mine = lease("b");
    mine["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
    cluster.put(&path, &mine).await.expect(200);
    cluster.put(&path, &mine).await.refuses(409, "Conflict", MODIFIED);
    let mut absent = lease("c");
    absent["metadata"]["name"] = "absent".into();
    let created = cluster.put(&format!("{leases}/absent"), &absent).await.expect(201);
    assert_eq!(created["spec"]["holderIdentity"], "c");
}
