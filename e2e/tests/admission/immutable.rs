//! What of an operation can be changed once it is there.

use serde_json::json;

use crate::place::{Place, STEP};

/// The CRD's rules see all but names within values of free form; the policy sees those, too.
#[tokio::test]
async fn a_spec_is_immutable() {
    let place = Place::new("immutable").await;
    let spec = r#"
      input: {group: web, size: 3}
      order: Sequence
      timeout: 1h
      output: {done: "yes"}
      failurePolicy: Compensate
      finally: [{name: tell, http: {method: POST, url: "http://h", body: {said: "much"}}}]
      steps:
      - {name: call, http: {method: POST, url: "http://h", body: {deep: {list: [1, 2, {k: v}]}}}, compensate: {http: {url: "http://h", body: {un: "do"}}}}
      - {name: apply, kubernetes: {apply: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: web}, data: {mode: "on"}}}}}
      - {name: pause, wait: {duration: 1s}}"#;
    let applied = place.apply(spec).await;
    assert!(applied.ok, "{}", applied.err);
    until_the_policy_is_in_force(&place).await;

    for (old, new, expected) in [
        ("size: 3", "size: 4", "spec.input is immutable"),
        ("size: 3", "sise: 3", "spec.input is immutable"),
        ("group: web, ", "", "spec.input is immutable"),
        ("input: {group: web, size: 3}", "", "spec.input is immutable"),
        ("order: Sequence", "order: Graph", "spec.order is immutable"),
        ("order: Sequence", "", "spec.order is immutable"),
        ("timeout: 1h", "timeout: 2h", "spec.timeout is immutable"),
        ("timeout: 1h", "timeout: 60m", "spec.timeout is immutable"),
        (
            "timeout: 1h",
            "timeout: 1h\n      serviceAccountName: other",
            "spec.serviceAccountName is immutable",
        ),
        (
            "timeout: 1h",
            "timeout: 1h\n      retry: {maximumAttempts: 1}",
            "spec.retry is immutable",
        ),
        (
            "timeout: 1h",
            "timeout: 1h\n      startDeadline: '2026-11-24T03:00:00Z'",
            "spec.startDeadline is immutable",
        ),
        (
            "failurePolicy: Compensate",
            "failurePolicy: Pause",
            "spec.failurePolicy is immutable",
        ),
        ("failurePolicy: Compensate", "", "spec.failurePolicy is immutable"),
        ("name: tell", "name: tale", "spec.finally is immutable"),
        (r#"said: "much""#, r#"said: "little""#, "spec.finally is immutable"),
        (r#"said: "much""#, r#"sent: "much""#, "spec.finally is immutable"),
        (r#"un: "do""#, r#"un: "done""#, "spec.steps[0]"),
        (r#"un: "do""#, r#"in: "do""#, "spec.steps"),
        (r#"done: "yes""#, r#"done: "no""#, "spec.output is immutable"),
        (r#"done: "yes""#, r#"ended: "yes""#, "spec.output is immutable"),
        ("k: v", "k: w", "spec.steps[0]"),
        ("k: v", "j: v", "spec.steps[0]"),
        ("[1, 2, ", "[1, ", "spec.steps[0]"),
        (r#"mode: "on""#, r#"mode: "off""#, "spec.steps[1]"),
        (r#"mode: "on""#, r#"state: "on""#, "spec.steps[1]"),
        ("duration: 1s", "duration: 2s", "spec.steps[2]"),
        ("name: pause", "name: rest", "spec.steps is immutable"),
        ("name: pause", "name: pause, when: 'true'", "spec.steps[2]"),
    ] {
        let changed = spec.replace(old, new);
        assert_ne!(changed, spec, "{old}");
        let refused = place.apply(&changed).await;
        assert!(!refused.ok, "accepted: {old} → {new}");
        assert!(
            refused.err.contains(expected),
            "{old} → {new}\n  expected: {expected}\n  said: {}",
            refused.err
        );
        assert!(refused.err.contains("create another CloudOperation"), "{}", refused.err);
    }
    let again = place.apply(spec).await;
    assert!(
        again.ok && again.out.contains("unchanged"),
        "{}{}",
        again.out,
        again.err
    );
    place.end().await;
}

#[tokio::test]
async fn control_fields_can_be_changed_and_a_cancel_stays() {
    let place = Place::new("control").await;
    let applied = place.apply(&format!("{{{STEP}}}")).await;
    assert!(applied.ok, "{}", applied.err);
    for patch in [
        json!({"spec": {"suspend": true}}),
        json!({"spec": {"suspend": null}}),
        json!({"spec": {"ttlSecondsAfterFinished": 60}}),
        json!({"spec": {"ttlSecondsAfterFinished": null}}),
        json!({"metadata": {"labels": {"team": "web"}}}),
        json!({"spec": {"cancel": {}}}),
        json!({"spec": {"cancel": {"reason": "wrong group"}}}),
    ] {
        let changed = place.merge(&patch).await;
        assert!(changed.ok, "{patch}: {}", changed.err);
    }
    let refused = place.merge(&json!({"spec": {"cancel": null}})).await;
    assert!(
        refused
            .err
            .contains("spec.cancel can't be unset: what was cancelled stays cancelled"),
        "{}",
        refused.err
    );
    place.end().await;
}

/// A policy is in force some time after it was created: then it refuses what the CRD's rules can't see.
async fn until_the_policy_is_in_force(place: &Place) {
    let renamed = json!([{"op": "move", "from": "/spec/input/group", "path": "/spec/input/team"}]).to_string();
    let patch = [
        "patch",
        "cop",
        "operation",
        "--type=json",
        "--dry-run=server",
        "--patch",
        &renamed,
    ];
    let what = "the policy is in force (kubectl apply -k config/admission)";
    place.until(what, &patch, "", |printed| !printed.ok).await;
}
