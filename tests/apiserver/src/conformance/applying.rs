//! Server-side apply.

use serde_json::{Value, json};

use super::cluster::{Cluster, version, widget};

pub async fn an_apply_creates(cluster: Cluster) {
    let path = cluster.widget("applied");
    let created = cluster
        .apply(&path, "one", &widget("applied", json!({"size": 1})))
        .await
        .expect(201);
    assert_eq!(created["spec"], json!({"size": 1, "mode": "Fast"}));
    let changed = cluster
        .apply(&path, "one", &widget("applied", json!({"size": 2})))
        .await
        .expect(200);
    assert_eq!(
        (&changed["spec"]["size"], &changed["metadata"]["generation"]),
        (&json!(2), &json!(2))
    );
    let mut stale = widget("applied", json!({"size": 3}));
    stale["metadata"]["resourceVersion"] = created["metadata"]["resourceVersion"].clone();
    cluster
        .apply(&path, "one", &stale)
        .await
        .refuses(409, "Conflict", "the object has been modified");
    let mut other = widget("applied", json!({"size": 3}));
    other["metadata"]["uid"] = "x".into();
    let words = "metadata.uid: Invalid value: \"x\": field is immutable";
    cluster.apply(&path, "one", &other).await.refuses(422, "Invalid", words);
    let mut absent = widget("unapplied", json!({"size": 3}));
    absent["metadata"]["uid"] = "x".into();
    let words = "uid mismatch: the provided object specified uid x, and no existing object was found";
    cluster
        .apply(&cluster.widget("unapplied"), "one", &absent)
        .await
        .refuses(409, "Conflict", words);
}

pub async fn an_apply_needs_a_manager(cluster: Cluster) {
    let path = cluster.widget("unmanaged");
    let body = widget("unmanaged", json!({"size": 1})).to_string();
    cluster
        .send(http::Method::PATCH, &path, "application/apply-patch+yaml", &body)
        .await
        .refuses(
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        );
    let reply = cluster.apply(&path, "one", &json!({})).await;
    reply.refuses(400, "BadRequest", "invalid object type");
}

pub async fn owned_fields_conflict(cluster: Cluster) {
    let path = cluster.widget("conflict");
    cluster
        .apply(&path, "one", &widget("conflict", json!({"size": 1, "color": "red"})))
        .await
        .expect(201);
    let reply = cluster
        .apply(&path, "two", &widget("conflict", json!({"size": 2, "color": "red"})))
        .await;
    reply.refuses(
        409,
        "Conflict",
        "Apply failed with 1 conflict: conflict with \"one\": .spec.size",
    );
    let causes = json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.size"}]);
    assert_eq!(reply.body["details"], json!({"causes": causes}));
    let reply = cluster
        .apply(&path, "two", &widget("conflict", json!({"size": 2, "color": "green"})))
        .await;
    reply.refuses(
        409,
        "Conflict",
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.color\n- .spec.size",
    );
    // The same value is no conflict.
    cluster
        .apply(&path, "two", &widget("conflict", json!({"size": 1})))
        .await
        .expect(200);
}

pub async fn force_takes_fields(cluster: Cluster) {
    let path = cluster.widget("forced");
    cluster
        .apply(&path, "one", &widget("forced", json!({"size": 1, "color": "red"})))
        .await
        .expect(201);
    let forced = cluster
        .force_apply(&path, "two", &widget("forced", json!({"size": 2})))
        .await
        .expect(200);
    assert_eq!(forced["spec"], json!({"size": 2, "color": "red", "mode": "Fast"}));
    let reply = cluster
        .apply(&path, "one", &widget("forced", json!({"size": 1, "color": "red"})))
        .await;
    reply.refuses(
        409,
        "Conflict",
        "Apply failed with 1 conflict: conflict with \"two\": .spec.size",
    );
}

pub async fn what_is_no_longer_applied_goes(cluster: Cluster) {
    let path = cluster.widget("dropped");
    let mut full = widget(
        "dropped",
        json!({"size": 1, "color": "red", "numbers": {"a": 1}, "tags": ["x"]}),
    );
    full["metadata"]["labels"] = json!({"a": "b"});
    cluster.apply(&path, "one", &full).await.expect(201);
    cluster
        .merge(
            &path,
            &json!({"metadata": {"labels": {"theirs": "1"}}, "spec": {"word": "abc"}}),
        )
        .await
        .expect(200);
    let mut shared = widget("dropped", json!({"size": 1}));
    shared["spec"]["color"] = "red".into();
    cluster.apply(&path, "two", &shared).await.expect(200);

    let left = cluster
        .apply(&path, "one", &widget("dropped", json!({"size": 1})))
        .await
        .expect(200);
    // The second manager's color, the editor's word and label stay.
    assert_eq!(
        left["spec"],
        json!({"size": 1, "color": "red", "word": "abc", "mode": "Fast"})
    );
    assert_eq!(left["metadata"]["labels"], json!({"theirs": "1"}));
}

pub async fn lists_merge_by_key(cluster: Cluster) {
    let path = cluster.widget("lists");
    let steps = |steps: Value| widget("lists", json!({"size": 1, "steps": steps}));
    cluster
        .apply(
            &path,
            "one",
            &steps(json!([{"name": "a", "wait": "1"}, {"name": "b", "wait": "1"}])),
        )
        .await
        .expect(201);
    let merged = cluster
        .apply(&path, "two", &steps(json!([{"name": "c", "call": "x"}])))
        .await
        .expect(200);
    let names = |object: &Value| -> Vec<String> {
        let steps = object["spec"]["steps"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> = steps
            .iter()
            .map(|s| s["name"].as_str().unwrap_or_default().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&merged), ["a", "b", "c"]);
    let reply = cluster
        .apply(&path, "two", &steps(json!([{"name": "a", "wait": "2"}])))
        .await;
    reply.refuses(409, "Conflict", "conflict with \"one\": .spec.steps[name=\"a\"].wait");
    let left = cluster
        .apply(&path, "one", &steps(json!([{"name": "b", "wait": "1"}])))
        .await
        .expect(200);
    assert_eq!(names(&left), ["b", "c"]);

    let deployment = |containers: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "lists"}, "spec": {
            "replicas": 0, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}}})
    };
    let path = cluster.path("apps/v1:deployments/lists");
    cluster
        .apply(&path, "one", &deployment(json!([{"name": "a", "image": "1"}])))
        .await
        .expect(201);
    let both = cluster
        .apply(&path, "two", &deployment(json!([{"name": "b", "image": "1"}])))
        .await
        .expect(200);
    assert_eq!(
        both["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len),
        Some(2)
    );
    let reply = cluster
        .apply(&path, "two", &deployment(json!([{"name": "a", "image": "2"}])))
        .await;
    reply.refuses(409, "Conflict", "conflict with \"one\"");
    assert!(reply.text.contains("image"), "{}", reply.text);
}

pub async fn an_equal_apply_changes_nothing(cluster: Cluster) {
    let path = cluster.widget("equal");
    let body = widget("equal", json!({"size": 1, "steps": [{"name": "a", "wait": "1"}]}));
    let first = cluster.apply(&path, "one", &body).await.expect(201);
    let second = cluster.apply(&path, "one", &body).await.expect(200);
    assert_eq!(version(&first), version(&second));
    // A manager more is a change, though the object stays the same.
    let third = cluster.apply(&path, "two", &body).await.expect(200);
    assert!(version(&third) > version(&second));
}

pub async fn an_update_takes_fields_over(cluster: Cluster) {
    let path = cluster.widget("taken");
    cluster
        .apply(&path, "one", &widget("taken", json!({"size": 1, "color": "red"})))
        .await
        .expect(201);
    let edit = json!({"spec": {"size": 5}});
    cluster
        .merge(&format!("{path}?fieldManager=editor"), &edit)
        .await
        .expect(200);
    let reply = cluster
        .apply(&path, "one", &widget("taken", json!({"size": 1, "color": "red"})))
        .await;
    // The real server adds how the editor wrote.
    reply.refuses(
        409,
        "Conflict",
        "Apply failed with 1 conflict: conflict with \"editor\"",
    );
    assert_eq!(reply.fields(), [".spec.size"]);
}

pub async fn a_status_can_be_applied(cluster: Cluster) {
    let live = cluster.create_widget("applied-status", json!({"size": 1})).await;
    let path = format!("{}/status", cluster.widget("applied-status"));
    let status = |status: Value| json!({"apiVersion": "conformance.holdfast.dev/v1", "kind": "Widget", "metadata": {"name": "applied-status"}, "status": status});
    let written = cluster
        .apply(&path, "one", &status(json!({"state": "A", "steps": [{"id": 1}]})))
        .await
        .expect(200);
    assert_eq!(
        (&written["spec"], &written["status"]["state"]),
        (&live["spec"], &json!("A"))
    );
    let written = cluster
        .apply(&path, "one", &status(json!({"steps": [{"id": 2}]})))
        .await
        .expect(200);
    assert_eq!(written["status"], json!({"steps": [{"id": 2}]}));
    let absent = format!("{}/status", cluster.widget("no-such-status"));
    let mut body = status(json!({"state": "A"}));
    body["metadata"]["name"] = "no-such-status".into();
    cluster
        .apply(&absent, "one", &body)
        .await
        .refuses(404, "NotFound", "not found");
}

pub async fn what_does_not_fit_the_schema_is_an_error(cluster: Cluster) {
    let path = cluster.widget("unfit");
    for (spec, words) in [
        (json!({"bogus": 2}), ".spec.bogus: field not declared in schema"),
        (
            json!({"size": "x"}),
            ".spec.size: expected numeric (int or float), got string",
        ),
        (
            json!({"color": 5}),
            ".spec.color: expected string, got &value.valueUnstructured{Value:5}",
        ),
        (json!({"free": 5}), ".spec.free: expected map, got &{5}"),
        (json!({"tags": "x"}), ".spec.tags: expected list, got &{x}"),
        (
            json!({"tags": ["x", "x"]}),
            ".spec.tags: duplicate entries for key [=\"x\"]",
        ),
        (
            json!({"steps": [{"name": "a"}, {"name": "a"}]}),
            ".spec.steps: duplicate entries for key [name=\"a\"]",
        ),
        (
            json!({"steps": [{"wait": "1"}]}),
            ".spec.steps: element 0: associative list with keys has an element that omits",
        ),
    ] {
        let reply = cluster.apply(&path, "one", &widget("unfit", spec)).await;
        let of = "failed to create typed patch object (/unfit; conformance.holdfast.dev/v1, Kind=Widget): ";
        reply.refuses(500, "", &format!("{of}{words}"));
    }
}
