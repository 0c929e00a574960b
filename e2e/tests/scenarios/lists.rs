//! `forEach` on the real API server: many items, a crash in between, one that fails.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use holdfast::api::{OperationState, StepState};
use holdfast_e2e::world::{PATIENCE, World, message_of, output, step};
use serde_json::json;

#[tokio::test]
async fn each_of_two_hundred_items_has_its_effect_once_though_the_operator_is_killed() {
    let world = World::new("lists-many").await;
    let first = world.operator();
    world
        .run(
            "many",
            r#"
            steps:
            - name: deploy
              forEach: lists.range(200)
              maxParallel: 20
              http: {method: POST, url: "INVENTORY/item/${string(item)}", body: {index: "${index}"}}
              output: {n: "${item}"}
            - {name: sum, set: {sum: "${steps.deploy.output.items.map(i, i.n).sum()}"}}
            "#,
        )
        .await;
    let started = Instant::now();
    while world.inventory.requests("/item").len() < 50 {
        assert!(started.elapsed() < PATIENCE, "the items don't get on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    first.kill().await;
    let _second = world.operator();
    let ended = world.ends("many", OperationState::Succeeded).await;

    assert_eq!(output(&ended, "sum"), json!({"sum": 199 * 200 / 2}));
    let effects = world.inventory.effects("/item");
    assert_eq!(effects.len(), 200, "one a key");
    let keys: BTreeSet<&str> = effects.iter().map(|seen| seen.key.as_str()).collect();
    let paths: BTreeSet<&str> = effects.iter().map(|seen| seen.path.as_str()).collect();
    assert_eq!((keys.len(), paths.len()), (200, 200), "each item has its own key");
    let status = ended.status.as_ref().unwrap();
    assert_eq!(status.steps.len(), 2, "what is done is folded into the list");
    assert_eq!(step(&ended, "deploy").items.as_ref().unwrap().total, 200);
}

#[tokio::test]
async fn a_failing_item_names_its_index_and_is_retried_alone() {
    let world = World::new("lists-failing").await;
    let _operator = world.operator();
    world
        .run(
            "fails",
            r#"
            input: {paths: [a, status/422, b]}
            steps:
            - {name: call, forEach: input.paths, maxParallel: 1, http: {method: POST, url: "INVENTORY/${item}"}}
            "#,
        )
        .await;
    let ended = world.ends("fails", OperationState::Failed).await;
    assert!(
        message_of(&ended).starts_with("step call: HttpStatus: item 1: "),
        "{}",
        message_of(&ended)
    );
    assert_eq!(step(&ended, "call[1]").state, StepState::Failed);
    assert!(world.inventory.requests("/b").is_empty(), "no other item is started");

    world.asked("fails", "skip: {step: 'call[1]'}").await;
    world.until_state("fails", OperationState::Succeeded).await;
    assert_eq!(world.inventory.requests("/a").len(), 1, "what was done stays done");
    assert_eq!(world.inventory.requests("/status").len(), 1);
    assert_eq!(world.inventory.requests("/b").len(), 1);
}

#[tokio::test]
async fn as_many_items_may_fail_as_the_step_says() {
    let world = World::new("lists-some").await;
    let _operator = world.operator();
    world
        .run(
            "some",
            r#"
            input: {paths: [status/422, a, b]}
            steps:
            - {name: call, forEach: input.paths, maxFailures: 1, http: {method: POST, url: "INVENTORY/${item}"}, output: {ok: "${result.body.ok}"}}
            "#,
        )
        .await;
    let ended = world.ends("some", OperationState::Succeeded).await;
    assert_eq!(
        output(&ended, "call"),
        json!({"items": [null, {"ok": true}, {"ok": true}]})
    );
    assert_eq!(step(&ended, "call[0]").state, StepState::Failed);
}
