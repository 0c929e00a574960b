//! Actions: bad ones are refused, and none can be changed.

use serde_json::{Value, json};

use crate::place::Place;

/// An action's manifest, from what it asks.
pub fn action(spec: &str) -> String {
    let mut spec: Value = serde_yaml::from_str(spec).unwrap_or_else(|error| panic!("{error}\n{spec}"));
    if spec.get("operationRef").is_none() {
        spec["operationRef"] = json!({"name": "operation"});
    }
    json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "OperationAction", "metadata": {"name": "asked"}, "spec": spec})
        .to_string()
}

#[tokio::test]
async fn bad_actions_are_refused_and_an_action_is_immutable() {
    let place = Place::new("actions").await;
    const ONE: &str =
        "an action has exactly one of signal, approve, reject, retry, retryNow, skip, complete, fail, reset";
    for (spec, expected) in [
        ("{}", ONE),
        ("{retry: {}, skip: {step: a}}", ONE),
        ("{approve: {step: a}, reject: {step: a}}", ONE),
        ("{pause: {}}", "unknown field \"spec.pause\""),
        (
            "{operationRef: {name: ''}, retry: {}}",
            "spec.operationRef.name in body should be at least 1 chars long",
        ),
        (
            "{operationRef: {}, retry: {}}",
            "spec.operationRef.name: Required value",
        ),
        ("{signal: {}}", "spec.signal.name: Required value"),
        (
            "{signal: {name: go, payload: [1]}}",
            "spec.signal.payload in body must be of type object",
        ),
        ("{approve: {}}", "spec.approve.step: Required value"),
        (
            "{approve: {step: a, epoch: -1}}",
            "spec.approve.epoch in body should be greater than or equal to 0",
        ),
        ("{retryNow: {}}", "spec.retryNow.step: Required value"),
        ("{skip: {}}", "spec.skip.step: Required value"),
        ("{complete: {output: {}}}", "spec.complete.step: Required value"),
        ("{fail: {message: x}}", "spec.fail.step: Required value"),
        ("{reset: {}}", "spec.reset.step: Required value"),
        (
            "{retry: {newKey: perhaps}}",
            "spec.retry.newKey in body must be of type boolean",
        ),
    ] {
        let refused = place
            .kubectl(&["create", "--dry-run=server", "-f", "-"], &action(spec))
            .await;
        assert!(!refused.ok, "accepted: {spec}");
        assert!(
            refused.err.contains(expected),
            "{spec}\n  expected: {expected}\n  said: {}",
            refused.err
        );
    }
    let created = place.kubectl(&["create", "-f", "-"], &action("retry: {}")).await;
    assert!(created.ok, "{}", created.err);
    for patch in [
        r#"{"spec": {"retry": {"step": "a"}}}"#,
        r#"{"spec": {"operationRef": {"name": "other"}}}"#,
        r#"{"spec": {"requestedBy": {"user": "alice"}}}"#,
    ] {
        let refused = place
            .kubectl(&["patch", "opact", "asked", "--type=merge", "--patch", patch], "")
            .await;
        assert!(
            refused.err.contains("an OperationAction is immutable: create another"),
            "{patch}: {}{}",
            refused.out,
            refused.err
        );
    }
    let columns = place.columns("opact").await;
    assert_eq!(columns, ["NAME", "OPERATION", "STATE", "BY", "MESSAGE", "AGE"]);
    place.end().await;
}
