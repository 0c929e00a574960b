//! Creating objects.

use serde_json::{Value, json};

use super::cluster::{Cluster, version, widget};

pub async fn the_server_sets_metadata(cluster: Cluster) {
    let mut sent = widget("meta", json!({"size": 1}));
    sent["metadata"]["uid"] = "mine".into();
    sent["metadata"]["generation"] = 7.into();
    sent["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z".into();
    sent["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    sent["status"] = json!({"state": "Mine"});
    let created = cluster.post(&cluster.widgets(), &sent).await.expect(201);
    let metadata = &created["metadata"];
    assert_eq!(metadata["uid"].as_str().map(str::len), Some(36), "{created}");
    assert_eq!(
        (&metadata["generation"], &metadata["namespace"]),
        (&json!(1), &json!(cluster.namespace))
    );
    assert!(
        metadata["creationTimestamp"]
            .as_str()
            .is_some_and(|t| t.len() == 20 && !t.starts_with("2020"))
    );
    assert!(
        metadata["deletionTimestamp"].is_null() && created["status"].is_null(),
        "{created}"
    );
    assert!(version(&created) > 0);
    let read = cluster.get(&cluster.widget("meta")).await.expect(200);
    assert_eq!(read, created);
}

pub async fn an_existing_name_is_refused(cluster: Cluster) {
    cluster.create_widget("twice", json!({"size": 1})).await;
    let again = cluster
        .post(&cluster.widgets(), &widget("twice", json!({"size": 2})))
        .await;
    again.refuses(
        409,
        "AlreadyExists",
        "widgets.conformance.holdfast.dev \"twice\" already exists",
    );
    assert_eq!(
        again.body["details"],
        json!({"name": "twice", "group": "conformance.holdfast.dev", "kind": "widgets"})
    );
    cluster.create_config_map("twice", json!({})).await;
    let again = cluster
        .post(&cluster.path("configmaps"), &json!({"metadata": {"name": "twice"}}))
        .await;
    again.refuses(409, "AlreadyExists", "configmaps \"twice\" already exists");
}

pub async fn names_are_checked(cluster: Cluster) {
    let bad = cluster
        .post(&cluster.widgets(), &widget("Not_a_name", json!({"size": 1})))
        .await;
    bad.refuses(
        422,
        "Invalid",
        "Widget.conformance.holdfast.dev \"Not_a_name\" is invalid: metadata.name: Invalid value: \"Not_a_name\": a lowercase RFC 1123 subdomain must consist of",
    );
    let none = cluster.post(&cluster.widgets(), &widget("", json!({"size": 1}))).await;
    none.refuses(
        422,
        "Invalid",
        "Widget.conformance.holdfast.dev \"\" is invalid: metadata.name: Required value: name or generateName is required",
    );
    let core = cluster
        .post(&cluster.path("configmaps"), &json!({"metadata": {"name": "A"}}))
        .await;
    core.refuses(
        422,
        "Invalid",
        "ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\"",
    );
}

pub async fn names_are_generated(cluster: Cluster) {
    let mut sent = widget("", json!({"size": 1}));
    sent["metadata"] = json!({"generateName": "made-"});
    let mut made = Vec::new();
    for _ in 0..3 {
        let created = cluster.post(&cluster.widgets(), &sent).await.expect(201);
        assert_eq!(created["metadata"]["generateName"], "made-");
        made.push(created["metadata"]["name"].as_str().unwrap_or_default().to_owned());
    }
    assert!(
        made.iter().all(|name| name.len() == 10 && name.starts_with("made-")),
        "{made:?}"
    );
    made.dedup();
    assert_eq!(made.len(), 3);
}

pub async fn namespaces_must_match_and_exist(cluster: Cluster) {
    let mut sent = widget("away", json!({"size": 1}));
    sent["metadata"]["namespace"] = "elsewhere".into();
    cluster.post(&cluster.widgets(), &sent).await.refuses(
        400,
        "BadRequest",
        "the namespace of the provided object does not match the namespace sent on the request",
    );
    let path = "/apis/conformance.holdfast.dev/v1/namespaces/nowhere/widgets";
    let reply = cluster.post(path, &widget("away", json!({"size": 1}))).await;
    reply.refuses(404, "NotFound", "namespaces \"nowhere\" not found");
}

pub async fn the_body_must_fit_the_path(cluster: Cluster) {
    let mut sent = widget("fit", json!({"size": 1}));
    sent["apiVersion"] = "other/v1".into();
    cluster.post(&cluster.widgets(), &sent).await.refuses(
        400,
        "BadRequest",
        "the API version in the data (other/v1) does not match the expected API version (conformance.holdfast.dev/v1)",
    );
    let mut sent = widget("fit", json!({"size": 1}));
    sent["kind"] = "Gadget".into();
    let reply = cluster.post(&cluster.widgets(), &sent).await;
    reply.refuses(422, "Invalid", "kind: Invalid value: \"Gadget\": must be Widget");
    let untyped = json!({"metadata": {"name": "fit"}, "spec": {"size": 1}});
    let reply = cluster.post(&cluster.widgets(), &untyped).await;
    reply.refuses(
        400,
        "BadRequest",
        "the object provided is unrecognized (must be of type Widget)",
    );
    let mut sent = widget("fit", json!({"size": 1}));
    sent["metadata"]["resourceVersion"] = "12".into();
    let reply = cluster.post(&cluster.widgets(), &sent).await;
    reply.refuses(500, "", "resourceVersion should not be set on objects to be created");
}

pub async fn unknown_fields_are_pruned(cluster: Cluster) {
    let mut sent = widget(
        "pruned",
        json!({"size": 1, "bogus": 1, "free": {"any": {"thing": [1]}}}),
    );
    sent["more"] = json!({"a": 1});
    sent["metadata"]["bogus"] = 1.into();
    let created = cluster.post(&cluster.widgets(), &sent).await.expect(201);
    assert_eq!(
        created["spec"],
        json!({"size": 1, "mode": "Fast", "free": {"any": {"thing": [1]}}})
    );
    assert!(created["more"].is_null() && created["metadata"]["bogus"].is_null());
}

pub async fn defaults_are_filled_in(cluster: Cluster) {
    let spec = json!({"size": 1.0, "mode": null, "maybe": null, "color": null, "steps": [{"name": "a", "wait": "1s"}]});
    let created = cluster.create_widget("defaulted", spec).await;
    let expected =
        json!({"size": 1, "mode": "Fast", "maybe": null, "steps": [{"name": "a", "wait": "1s", "order": "After"}]});
    assert_eq!(created["spec"].to_string().replace("1.0", "1"), expected.to_string());
}

pub async fn every_wrong_field_is_named(cluster: Cluster) {
    let spec = json!({
        "size": 1000, "color": "blue", "word": "ABCDEFG", "when": "yesterday", "port": true, "numbers": {"a": "b"},
        "tags": ["x", "y", "z"], "steps": [{"name": "a", "wait": "1s"}, {"name": "a", "call": "b"}],
    });
    let reply = cluster.post(&cluster.widgets(), &widget("wrong", spec)).await;
    reply.refuses(
        422,
        "Invalid",
        "Widget.conformance.holdfast.dev \"wrong\" is invalid: [",
    );
    let expected = [
        "spec.color",
        "spec.numbers.a",
        "spec.port",
        "spec.size",
        "spec.steps[1]",
        "spec.tags",
        "spec.when",
        "spec.word",
    ];
    assert_eq!(reply.fields(), expected, "{}", reply.text);
    let causes = reply.body["details"]["causes"].as_array().cloned().unwrap_or_default();
    let of = |field: &str| -> Vec<String> {
        let all = causes.iter().filter(|cause| cause["field"] == field);
        all.map(|c| {
            format!(
                "{} {}",
                c["reason"].as_str().unwrap_or(""),
                c["message"].as_str().unwrap_or("")
            )
        })
        .collect()
    };
    for (field, expected) in [
        (
            "spec.color",
            "FieldValueNotSupported Unsupported value: \"blue\": supported values: \"red\", \"green\"",
        ),
        (
            "spec.numbers.a",
            "FieldValueTypeInvalid Invalid value: \"string\": spec.numbers.a in body must be of type integer: \"string\"",
        ),
        (
            "spec.port",
            "FieldValueTypeInvalid Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
        ),
        (
            "spec.size",
            "FieldValueInvalid Invalid value: 1000: spec.size in body should be less than or equal to 100",
        ),
        ("spec.steps[1]", "FieldValueDuplicate Duplicate value: {\"name\":\"a\"}"),
        ("spec.tags", "FieldValueTooMany Too many: 3: must have at most 2 items"),
        (
            "spec.when",
            "FieldValueTypeInvalid Invalid value: \"yesterday\": spec.when in body must be of type date-time: \"yesterday\"",
        ),
        ("spec.word", "FieldValueTooLong Too long: may not be more than 5 bytes"),
    ] {
        assert!(
            of(field).iter().any(|text| text == expected),
            "{field}: {:?}",
            of(field)
        );
    }
    for (spec, field, words) in [
        (json!({}), "spec.size", "Required value"),
        (
            json!({"size": "x"}),
            "spec.size",
            "spec.size in body must be of type integer: \"string\"",
        ),
        (
            json!({"size": -1}),
            "spec.size",
            "spec.size in body should be greater than or equal to 0",
        ),
        (
            json!({"size": 1, "word": "a"}),
            "spec.word",
            "spec.word in body should be at least 2 chars long",
        ),
        (
            json!({"size": 1, "word": "AB"}),
            "spec.word",
            "Invalid value: \"AB\": spec.word in body should match '^[a-z]+$'",
        ),
        (
            json!({"size": 1, "tags": []}),
            "spec.tags",
            "Invalid value: 0: spec.tags in body should have at least 1 items",
        ),
        (
            json!({"size": 1, "tags": ["a", "a"]}),
            "spec.tags[1]",
            "Duplicate value: \"a\"",
        ),
        (
            json!({"size": 1, "numbers": {"a": 1, "b": 2, "c": 3}}),
            "spec.numbers",
            "Too many: 3: must have at most 2 items",
        ),
        (
            json!({"size": 1, "steps": [{"name": "a"}]}),
            "spec.steps[0].wait",
            "<nil>: Invalid value: \"\": \"spec.steps[0]\" must validate one and only one schema (oneOf). Found none valid, spec.steps[0].wait: Required value",
        ),
        (
            json!({"size": 1, "steps": [{"name": "a", "wait": "1", "call": "2"}]}),
            "<nil>",
            "\"spec.steps[0]\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
    ] {
        let reply = cluster.post(&cluster.widgets(), &widget("wrong", spec)).await;
        reply.refuses(422, "Invalid", words);
        assert!(reply.fields().contains(&field.to_owned()), "{}", reply.text);
    }
}

pub async fn metadata_is_checked(cluster: Cluster) {
    let mut sent = widget("labelled", json!({"size": 1}));
    sent["metadata"]["labels"] = json!({"a b": "c d"});
    sent["metadata"]["annotations"] = json!({"x/y/z": "1"});
    sent["metadata"]["finalizers"] = json!(["a b"]);
    sent["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "X", "name": "", "uid": ""}]);
    let reply = cluster.post(&cluster.widgets(), &sent).await;
    reply.refuses(
        422,
        "Invalid",
        "metadata.labels: Invalid value: \"a b\": name part must consist of alphanumeric",
    );
    let expected = [
        "metadata.annotations",
        "metadata.finalizers",
        "metadata.labels",
        "metadata.ownerReferences[0].name",
        "metadata.ownerReferences[0].uid",
    ];
    assert_eq!(reply.fields(), expected, "{}", reply.text);
    let mut sent = widget("labelled", json!({"size": 1}));
    sent["metadata"]["labels"] = json!({"a": 1});
    assert_eq!(cluster.post(&cluster.widgets(), &sent).await.code, 400);
}

pub async fn a_dry_run_stores_nothing(cluster: Cluster) {
    let path = format!("{}?dryRun=All", cluster.widgets());
    let shown = cluster
        .post(&path, &widget("dry", json!({"size": 1})))
        .await
        .expect(201);
    assert_eq!(
        (&shown["spec"]["mode"], &shown["metadata"]["resourceVersion"]),
        (&json!("Fast"), &Value::Null)
    );
    cluster.get(&cluster.widget("dry")).await.refuses(
        404,
        "NotFound",
        "widgets.conformance.holdfast.dev \"dry\" not found",
    );

    let live = cluster.create_widget("dry", json!({"size": 1})).await;
    let path = format!("{}?dryRun=All", cluster.widget("dry"));
    let shown = cluster.merge(&path, &json!({"spec": {"size": 2}})).await.expect(200);
    assert_eq!(
        (&shown["spec"]["size"], &shown["metadata"]["generation"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(version(&shown), version(&live));
    cluster.delete(&path).await.expect(200);
    assert_eq!(cluster.get(&cluster.widget("dry")).await.expect(200), live);
}

pub async fn secrets_encode_their_strings(cluster: Cluster) {
    let sent = json!({"metadata": {"name": "secret"}, "data": {"b": "Yg=="}, "stringData": {"a": "b"}});
    let created = cluster.post(&cluster.path("secrets"), &sent).await.expect(201);
    assert_eq!(created["data"], json!({"a": "Yg==", "b": "Yg=="}));
    assert_eq!(
        (&created["type"], &created["stringData"]),
        (&json!("Opaque"), &Value::Null)
    );
    let patch = json!({"stringData": {"c": "b"}});
    let patched = cluster.merge(&cluster.path("secrets/secret"), &patch).await.expect(200);
    assert_eq!(patched["data"], json!({"a": "Yg==", "b": "Yg==", "c": "Yg=="}));
}
