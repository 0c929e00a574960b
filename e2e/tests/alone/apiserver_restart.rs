//! The API server goes away in the middle, and comes back.

use std::time::Duration;

use holdfast::api::{HistoryEvent, OperationState};
use holdfast_e2e::kubectl::{project, run};
use holdfast_e2e::world::{World, events, step};

/// Restarts the API server of a local cluster. None of any other kind is ours to restart.
async fn restart_api_server() -> bool {
    if holdfast_e2e::cluster() != "local" {
        holdfast_e2e::skipped("only a local cluster's API server can be restarted");
        return false;
    }
    let name = std::env::var("NAME").unwrap_or_else(|_| "holdfast".into());
    let restarted = run(
        &project("e2e/cluster/run"),
        "",
        &["restart-apiserver", "--name", &name, "--down-for", "4s"],
    )
    .await;
    assert!(restarted.ok, "{}", restarted.err);
    true
}

#[tokio::test]
async fn what_ends_and_begins_while_the_api_server_is_away_is_recorded_and_done_once() {
    let _alone = crate::turn().await;
    let world = World::new("apiserver-restart").await;
    let operator = world.operator();
    operator.leads().await;
    // A call that ends while nothing can be recorded, a timer that fires then, a wait by watch, and many calls.
    world
        .run(
            "call",
            "steps: [{name: slow, http: {method: POST, url: INVENTORY/slow/3000/call}}, {name: after, http: {method: POST, url: INVENTORY/after}}]",
        )
        .await;
    world
        .run(
            "watch",
            "{serviceAccountName: runner, steps: [{name: w, kubernetes: {wait: {resource: {apiVersion: v1, kind: ConfigMap, name: late}, until: 'true'}}}]}",
        )
        .await;
    world.run("timer", "steps: [{name: pause, wait: {duration: 4s}}]").await;
    let steps: Vec<_> = (0..10)
        .map(|n| format!("{{name: s{n}, http: {{method: POST, url: INVENTORY/slow/300/{n}}}}}"))
        .collect();
    world.run("many", &format!("steps: [{}]", steps.join(", "))).await;
    world.until_state("watch", OperationState::Waiting).await;
    world.until_called("/slow").await;
    if !restart_api_server().await {
        return;
    }

    for name in ["call", "timer", "many"] {
        world.ends(name, OperationState::Succeeded).await;
    }
    let calls = world.inventory.requests("/");
    let effects = world.inventory.effects("/");
    assert_eq!(effects.len(), 12, "every effect is there once");
    let call = world.operations().get("call").await.unwrap();
    if step(&call, "slow").attempt == 1 {
        use HistoryEvent::{AttemptStarted, StepSucceeded};
        assert_eq!(events(&call, "slow"), [AttemptStarted, StepSucceeded]);
        assert_eq!(world.inventory.requests("/slow/3000").len(), 1);
    }
    // Leadership may have been lost on the way; then calls under way were made again, under their keys.
    let lost = operator.logged("the claim to leadership ended");
    assert!(lost > 0 || calls.len() == effects.len(), "{} calls", calls.len());
    world.prints(&["create", "configmap", "late"]).await;
    world.ends("watch", OperationState::Succeeded).await;
    let status = operator.get("/readyz").await;
    assert_eq!(status.0, 200);
    tokio::time::timeout(Duration::from_secs(60), operator.stop())
        .await
        .unwrap();
    // For the tests after this one: the API server learns of all kinds and policies anew.
    holdfast_e2e::install::install().await;
}
