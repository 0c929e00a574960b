//! Who asks: the name that admission writes, and the right to what is asked.

use serde_json::{Value, json};

use crate::actions::action;
use crate::place::{Place, STEP, manifest};

/// Users of this test alone may create actions and operations, and what `subresources` says.
async fn let_users(place: &Place, rules: &Value) {
    let manifests = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "users"}, "rules": rules},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "users"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "users"},
         "subjects": [
            {"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"},
            {"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}]},
    ]});
    let applied = place.kubectl(&["apply", "-f", "-"], &manifests.to_string()).await;
    assert!(applied.ok, "{}", applied.err);
}

#[tokio::test]
async fn who_asks_is_who_admission_says_it_is() {
    let place = Place::new("requester").await;
    let rules = json!([{"apiGroups": ["holdfast.dev"], "resources": ["operationactions", "cloudoperations", "cloudoperations/retry"], "verbs": ["get", "create", "patch"]}]);
    let_users(&place, &rules).await;
    let create = [
        "create",
        "--dry-run=server",
        "-o",
        "json",
        "-f",
        "-",
        "--as=alice",
        "--as-group=dev",
    ];
    // Once RBAC and the policies are in force, a forged name is overwritten by the true one.
    let forged = action("{retry: {}, requestedBy: {user: mallory, groups: [system:masters]}}");
    let stamped = place
        .until("the true name is written", &create, &forged, |printed| {
            printed.ok && printed.out.contains("alice")
        })
        .await;
    let stamped: Value = serde_json::from_str(&stamped.out).unwrap();
    let by = &stamped["spec"]["requestedBy"];
    assert_eq!(by["user"], "alice");
    assert!(by["groups"].as_array().unwrap().contains(&"dev".into()), "{by}");
    assert!(!by.to_string().contains("system:masters"), "{by}");
    let unsaid = place.kubectl(&create, &action("retry: {}")).await;
    assert!(
        unsaid.out.contains("\"user\": \"alice\""),
        "{}{}",
        unsaid.out,
        unsaid.err
    );

    // Who created an operation is recorded, whatever is said, and stays.
    let mut operation: Value = serde_json::from_str(&manifest("operation", &format!("{{{STEP}}}"))).unwrap();
    operation["metadata"]["annotations"] = json!({"holdfast.dev/created-by": "mallory"});
    let create = ["create", "-o", "json", "-f", "-", "--as=alice"];
    let created = place.kubectl(&create, &operation.to_string()).await;
    assert!(created.ok, "{}", created.err);
    let created: Value = serde_json::from_str(&created.out).unwrap();
    assert_eq!(created["metadata"]["annotations"]["holdfast.dev/created-by"], "alice");
    for said in [json!("bob"), json!(null)] {
        let patch = json!({"metadata": {"annotations": {"holdfast.dev/created-by": said}}}).to_string();
        for user in ["--as=alice", "--as=bob"] {
            let refused = place
                .kubectl(
                    &["patch", "cop", "operation", "--type=merge", "--patch", &patch, user],
                    "",
                )
                .await;
            assert!(!refused.ok, "{patch} {user}");
            assert!(
                refused
                    .err
                    .contains("the annotation holdfast.dev/created-by is not to be set"),
                "{}",
                refused.err
            );
        }
    }
    // What else is written leaves it as it is.
    let noted = place
        .kubectl(
            &[
                "patch",
                "cop",
                "operation",
                "--type=merge",
                "--patch",
                r#"{"spec": {"suspend": true}}"#,
                "--as=bob",
            ],
            "",
        )
        .await;
    assert!(noted.ok, "{}", noted.err);
    place.end().await;
}

#[tokio::test]
async fn an_action_needs_the_right_to_what_it_asks_of_that_operation() {
    let place = Place::new("rights").await;
    let verbs = [
        ("signal: {name: go}", "signal"),
        ("approve: {step: a}", "approve"),
        ("reject: {step: a}", "approve"),
        ("retry: {}", "retry"),
        ("retryNow: {step: a}", "retry"),
        ("skip: {step: a}", "skip"),
        ("complete: {step: a}", "complete"),
        ("fail: {step: a}", "complete"),
        ("reset: {step: a}", "reset"),
    ];
    let create = ["create", "--dry-run=server", "-f", "-", "--as=alice"];
    let actions = json!({"apiGroups": ["holdfast.dev"], "resources": ["operationactions"], "verbs": ["create"]});
    let_users(&place, &json!([actions])).await;
    // Before RBAC knows, the refusal is RBAC's own: after it, the policy's.
    place
        .until("the policy refuses", &create, &action("retry: {}"), |printed| {
            printed.err.contains("cloudoperations/retry")
        })
        .await;
    for (verb, subresource) in verbs {
        let refused = place.kubectl(&create, &action(verb)).await;
        let expected = format!(
            "alice may not create cloudoperations/{subresource} of operation in namespace {}",
            place.namespace
        );
        assert!(
            !refused.ok && refused.err.contains(&expected),
            "{verb}: {}{}",
            refused.out,
            refused.err
        );
    }
    // A right to one operation, by its name, is none to another; and to one thing none to another.
    let one = json!({"apiGroups": ["holdfast.dev"], "resources": ["cloudoperations/approve"], "resourceNames": ["operation"], "verbs": ["create"]});
    let_users(&place, &json!([actions, one])).await;
    let approve = action("approve: {step: a}");
    place
        .until("the right counts", &create, &approve, |printed| printed.ok)
        .await;
    let accepted = place.kubectl(&create, &action("reject: {step: a}")).await;
    assert!(accepted.ok, "{}", accepted.err);
    let other = place
        .kubectl(&create, &action("{operationRef: {name: other}, approve: {step: a}}"))
        .await;
    assert!(
        other
            .err
            .contains("alice may not create cloudoperations/approve of other in namespace"),
        "{}",
        other.err
    );
    let skip = place.kubectl(&create, &action("skip: {step: a}")).await;
    assert!(skip.err.contains("cloudoperations/skip of operation"), "{}", skip.err);
    place.end().await;
}
