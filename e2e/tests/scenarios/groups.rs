//! Groups on the real API server: steps that run as one, for each item of a list, through a crash and a retry.

use holdfast::api::{OperationState, StepState};
use holdfast_e2e::world::{World, message_of, output, step};
use serde_json::json;

#[tokio::test]
async fn for_each_item_its_steps_run_in_turn_though_the_operator_is_killed() {
    let world = World::new("groups-items").await;
    let first = world.operator();
    world
        .run(
            "regions",
            r#"
            steps:
            - name: region
              forEach: lists.range(20)
              maxParallel: 4
              output: {n: "${item}", verified: "${steps.verify.state}"}
              steps:
              - {name: deploy, http: {method: POST, url: "INVENTORY/deploy/${string(item)}"}}
              - {name: verify, http: {method: POST, url: "INVENTORY/verify/${string(item)}", body: {deployed: "${steps.deploy.state}"}}}
            - {name: sum, set: {sum: "${steps.region.output.items.map(i, i.n).sum()}"}}
            "#,
        )
        .await;
    world.until_called("/verify/3").await;
    first.kill().await;
    let _second = world.operator();
    let ended = world.ends("regions", OperationState::Succeeded).await;
    assert_eq!(output(&ended, "sum"), json!({"sum": 190}));
    for path in ["/deploy", "/verify"] {
        assert_eq!(world.inventory.effects(path).len(), 20, "{path}: one a key");
    }
    assert_eq!(ended.status.unwrap().steps.len(), 2, "what is done is folded");
}

#[tokio::test]
async fn a_group_that_failed_says_where_and_goes_on_from_there() {
    let world = World::new("groups-failing").await;
    let _operator = world.operator();
    world
        .run(
            "release",
            r#"
            steps:
            - name: release
              steps:
              - {name: deploy, http: {method: POST, url: "INVENTORY/deploy"}}
              - {name: verify, http: {method: POST, url: "INVENTORY/status/422"}}
            - {name: tell, http: {method: POST, url: "INVENTORY/tell"}}
            "#,
        )
        .await;
    let failed = world.ends("release", OperationState::Failed).await;
    assert!(
        message_of(&failed).contains("step release/verify"),
        "{}",
        message_of(&failed)
    );
    world.asked("release", "skip: {step: release/verify}").await;
    let ended = world.ends("release", OperationState::Succeeded).await;
    assert_eq!(step(&ended, "release").state, StepState::Succeeded);
    assert_eq!(
        world.inventory.effects("/deploy").len(),
        1,
        "what was done isn't done again"
    );
}
