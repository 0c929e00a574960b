//! What goes away at the end of a time to live: crashed at every request.

use std::time::Duration;

use holdfast::api::{OperationHistory, OperationState};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::sniper::{NEVER, Sniper};
use crate::world::{NAMESPACE, World};

fn manifest() -> Value {
    json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": "pruned", "namespace": NAMESPACE},
        "spec": {"ttlSecondsAfterFinished": 5, "output": {"n": "${steps.call.output.n}"}, "steps": [
            {"name": "call", "http": {"method": "POST", "url": "http://inventory.prod/call"}, "output": {"n": "${result.body.size}"}},
            {"name": "many", "forEach": "lists.range(160)", "assert": "true"},
            {"name": "last", "http": {"method": "POST", "url": "http://inventory.prod/last"}},
        ]},
    })
}

/// Crashes at a request between the end and a good while after the time to live. Answers how many there are.
async fn pruned(at: usize, applied: bool) -> usize {
    let mut world = World::new(1);
    let mut operator = world.start();
    world.apply(&manifest()).await;
    world.until("it ends", |world| world.finished("pruned")).await;
    assert!(!world.server.list::<OperationHistory>().is_empty(), "it has chunks");
    let sniper = Sniper::aim(&world, at, applied, |info| info.resource != "leases");
    let a_while = async |_: &World| sleep(Duration::from_secs(40)).await;
    sniper.watch(&mut world, &mut operator, a_while).await;
    let status = world.operation("pruned").status.unwrap();
    assert_eq!(status.compacted, Some(true), "{at}, {applied}");
    assert_eq!(
        world.server.list::<OperationHistory>(),
        vec![],
        "{at}, {applied}: chunks are left"
    );
    assert_eq!(status.state, Some(OperationState::Succeeded));
    assert_eq!(
        status.output,
        json!({"n": 3}).as_object().cloned(),
        "the outcome is kept"
    );
    assert!(status.steps.is_empty() && status.history.is_empty());
    // Another leader doesn't start it again.
    world.kill(operator).await;
    world.start();
    sleep(Duration::from_secs(40)).await;
    assert_eq!(world.service.calls(), 2, "{at}, {applied}: something ran again");
    assert_eq!(world.operation("pruned").status, Some(status));
    world.check();
    world.kill_all().await;
    sniper.seen()
}

#[tokio::test(start_paused = true)]
async fn what_is_compacted_loses_its_chunks_and_keeps_its_outcome_wherever_the_operator_dies() {
    let requests = pruned(NEVER, false).await;
    assert!(requests > 3, "only {requests} requests");
    for at in 1..=requests {
        for applied in [false, true] {
            pruned(at, applied).await;
        }
    }
}
