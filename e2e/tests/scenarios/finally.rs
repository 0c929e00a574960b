//! What runs at the end, whatever happened before.

use holdfast::api::OperationState;
use holdfast_e2e::world::{World, message_of, step};

/// An operation with this work, that tells at its end how it went.
fn spec(work: &str) -> String {
    format!(
        r#"
        {work}
        finally:
        - {{name: tell, http: {{method: POST, url: "INVENTORY/tell/${{operation.name}}", body: {{state: "${{operation.state}}", work: "${{steps.work.state}}"}}}}}}
        - {{name: tidy, http: {{method: POST, url: "INVENTORY/tidy/${{operation.name}}"}}}}
        "#
    )
}

#[tokio::test]
async fn what_is_at_the_end_runs_on_success_failure_cancel_and_timeout() {
    let world = World::new("finally-ends").await;
    let _operator = world.operator();
    let cases = [
        (
            "succeeds",
            "steps: [{name: work, http: {url: INVENTORY/work}}]",
            OperationState::Succeeded,
            "Succeeded",
        ),
        (
            "fails",
            "steps: [{name: work, http: {url: INVENTORY/status/422}}]",
            OperationState::Failed,
            "Failed",
        ),
        (
            "cancelled",
            "steps: [{name: work, wait: {duration: 1h}}]",
            OperationState::Cancelled,
            "Cancelled",
        ),
        (
            "times-out",
            "timeout: 1s\n        steps: [{name: work, wait: {duration: 1h}}]",
            OperationState::TimedOut,
            "Cancelled",
        ),
        (
            "never-starts",
            "steps: [{name: first, assert: 'false'}, {name: work, http: {url: INVENTORY/never}}]",
            OperationState::Failed,
            "NotStarted",
        ),
    ];
    for (name, work, ..) in cases {
        world.run(name, &spec(work)).await;
    }
    world.until_state("cancelled", OperationState::Waiting).await;
    world.patch("cancelled", r#"{"spec": {"cancel": {}}}"#).await;
    for (name, _, state, work) in cases {
        world.ends(name, state).await;
        let told = world.inventory.effects(&format!("/tell/{name}"));
        assert_eq!(told.len(), 1, "{name}");
        assert_eq!(told[0].body["state"], state.to_string(), "{name}");
        assert_eq!(told[0].body["work"], work, "{name}");
        assert_eq!(world.inventory.effects(&format!("/tidy/{name}")).len(), 1, "{name}");
    }
    assert!(world.inventory.requests("/never").is_empty());
}

#[tokio::test]
async fn a_failure_at_the_end_fails_the_operation_and_the_rest_of_the_end_runs() {
    let world = World::new("finally-fails").await;
    let _operator = world.operator();
    world
        .run(
            "fails",
            r#"
            failurePolicy: Compensate
            steps:
            - {name: work, http: {method: POST, url: INVENTORY/work}, compensate: {http: {method: DELETE, url: INVENTORY/undo}}}
            finally:
            - {name: tell, http: {url: INVENTORY/status/422}}
            - {name: tidy, http: {method: POST, url: INVENTORY/tidy}}
            "#,
        )
        .await;
    let ended = world.ends("fails", OperationState::Failed).await;
    assert!(
        message_of(&ended).starts_with("step tell: HttpStatus"),
        "{}",
        message_of(&ended)
    );
    assert_eq!(world.inventory.effects("/tidy").len(), 1);
    assert!(world.inventory.requests("/undo").is_empty(), "everything had succeeded");
}

#[tokio::test]
async fn what_is_undone_is_undone_before_the_end_and_the_end_survives_a_crash() {
    let world = World::new("finally-crash").await;
    let first = world.operator();
    world
        .run(
            "move",
            r#"
            failurePolicy: Compensate
            steps:
            - {name: a, http: {method: POST, url: INVENTORY/a}, compensate: {http: {method: DELETE, url: INVENTORY/a}}}
            - {name: b, assert: "false"}
            finally:
            - {name: tell, http: {method: POST, url: INVENTORY/gate/tell}}
            "#,
        )
        .await;
    world.until_called("/gate").await;
    first.kill().await;
    world.inventory.open("tell");
    let _second = world.operator();
    let ended = world.ends("move", OperationState::Failed).await;
    assert_eq!(step(&ended, "tell").attempt, 2);
    let order: Vec<String> = world
        .inventory
        .effects("/")
        .iter()
        .map(|seen| format!("{} {}", seen.method, seen.path))
        .collect();
    assert_eq!(order, ["POST /a", "DELETE /a", "POST /gate/tell"]);
}
