//! What kubectl shows of operations, and takes them for.

use holdfast_e2e::kubectl::kubectl;

use crate::place::{Place, STEP};

/// kstatus, by which Helm and Flux wait, takes an object for done that has neither conditions nor an older generation.
#[tokio::test]
async fn an_operation_that_nobody_has_seen_is_not_done() {
    let place = Place::new("unseen").await;
    let applied = place.apply(&format!("{{{STEP}}}")).await;
    assert!(applied.ok, "{}", applied.err);
    // No operator serves this namespace.
    let status = place
        .kubectl(&["get", "cop", "operation", "-o", "jsonpath={.status}"], "")
        .await;
    assert_eq!(status.out, r#"{"observedGeneration":-1}"#);
    place.end().await;
}

#[tokio::test]
async fn kubectl_explains_and_lists_operations() {
    let place = Place::new("kubectl").await;
    for (field, expected) in [
        ("cops", "durable run of a workflow"),
        ("cops.spec.order", "`Sequence` (the default)"),
        ("cops.spec.steps.http.url", "`http://` or `https://`"),
        ("cops.spec.steps.kubernetes.wait.for", "kstatus"),
        ("cops.status.conditions", "`Finished`"),
    ] {
        let explained = kubectl(&["explain", field]).await;
        let text = explained.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(expected), "{field}: {}{}", explained.out, explained.err);
    }
    let applied = place.apply(&format!("{{{STEP}}}")).await;
    assert!(applied.ok, "{}", applied.err);
    for resource in ["cop", "cops", "cloudoperations", "holdfast"] {
        let columns = place.columns(resource).await;
        assert_eq!(
            columns,
            ["NAME", "STATE", "PROGRESS", "STEP", "MESSAGE", "AGE"],
            "{resource}"
        );
    }
    let selected = place
        .kubectl(
            &[
                "get",
                "cops",
                "--field-selector=spec.serviceAccountName=other,status.state=Running",
            ],
            "",
        )
        .await;
    assert!(
        selected.err.contains("No resources found"),
        "{}{}",
        selected.out,
        selected.err
    );
    place.end().await;
}
