//! Local steps on the real API server: several cost one write, a crash costs nothing but the call, and one that takes long
//! is seen.

use std::time::Duration;

use holdfast::api::{HistoryEvent, OperationState, StepState};
use holdfast_e2e::world::{World, events, find_step, message_of, output, step};
use serde_json::json;

#[tokio::test]
async fn an_operation_of_local_steps_is_one_write() {
    let world = World::new("local-writes").await;
    let _operator = world.operator();
    world
        .run(
            "reads",
            r#"
            steps:
            - {name: a, local: true, http: {url: INVENTORY/read/web}, output: {status: '${result.status}'}}
            - {name: b, local: true, http: {url: INVENTORY/read/db}, output: {status: '${result.status}'}}
            - {name: c, local: true, http: {url: INVENTORY/read/cache}, output: {status: '${result.status}'}}
            - {name: sum, set: {sum: '${steps.a.output.status + steps.b.output.status + steps.c.output.status}'}}
            "#,
        )
        .await;
    let ended = world.ends("reads", OperationState::Succeeded).await;
    let write = ended.status.as_ref().unwrap().write_id.clone().unwrap_or_default();
    let number: u32 = write.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap();
    // What takes longer than two seconds is written before its end.
    let took = ended
        .status
        .as_ref()
        .and_then(|status| Some(status.completion_time?.since(status.start_time?)));
    let most = if took.unwrap() < Duration::from_secs(2) { 1 } else { 2 };
    assert!(number <= most, "three calls cost {number} writes in {took:?}");
    assert_eq!(world.inventory.requests("/read").len(), 3);
    assert_eq!(output(&ended, "sum"), json!({"sum": 600}));
    for name in ["a", "b", "c"] {
        assert!(
            step(&ended, name).request_digest.is_some(),
            "it is recorded as any other"
        );
    }
}

#[tokio::test]
async fn a_local_step_whose_operator_is_killed_is_called_again_under_its_key_and_nothing_before_a_write_is() {
    let world = World::new("local-killed").await;
    let first = world.operator();
    world
        .run(
            "mixed",
            r#"
            steps:
            - {name: before, http: {method: POST, url: INVENTORY/before}}
            - {name: read, local: true, http: {url: INVENTORY/read}}
            - {name: slow, local: true, http: {url: INVENTORY/gate/local}}
            - {name: after, http: {method: POST, url: INVENTORY/after}}
            - {name: done, set: {done: true}}
            "#,
        )
        .await;
    world.until_called("/gate/local").await;
    first.kill().await;
    // What took longer than two seconds was written before its end.
    let found = world.operations().get("mixed").await.unwrap();
    let written = find_step(&found, "read").is_some_and(|step| step.state == StepState::Succeeded);
    world.inventory.open("local");
    let _second = world.operator();
    let ended = world.ends("mixed", OperationState::Succeeded).await;

    assert_eq!(output(&ended, "done"), json!({"done": true}));
    for (path, requests) in [
        ("/before", 1),
        ("/read", if written { 1 } else { 2 }),
        ("/gate/local", 2),
        ("/after", 1),
    ] {
        assert_eq!(world.inventory.requests(path).len(), requests, "{path}");
        assert_eq!(world.inventory.effects(path).len(), 1, "{path} under one key");
    }
}

#[tokio::test]
async fn a_local_step_that_takes_long_is_seen_and_taken_over_as_any_other() {
    let world = World::new("local-slow").await;
    let first = world.operator();
    world
        .run(
            "slow",
            r#"
            steps:
            - {name: slow, local: true, http: {url: INVENTORY/gate/slow}}
            - {name: after, local: true, http: {url: INVENTORY/after}}
            "#,
        )
        .await;
    world.until_called("/gate/slow").await;
    let seen = world.until_state("slow", OperationState::Running).await;
    assert_eq!(message_of(&seen), "step slow: attempt 1 is under way");
    first.kill().await;
    world.inventory.open("slow");
    let _second = world.operator();
    let ended = world.ends("slow", OperationState::Succeeded).await;
    assert_eq!(step(&ended, "slow").attempt, 2);
    assert!(events(&ended, "slow").contains(&HistoryEvent::AttemptLost));
    for (path, requests) in [("/gate/slow", 2), ("/after", 1)] {
        assert_eq!(world.inventory.requests(path).len(), requests, "{path}");
        assert_eq!(world.inventory.effects(path).len(), 1, "{path} under one key");
    }
}
