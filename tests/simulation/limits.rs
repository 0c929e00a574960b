//! So much is done at once, and no more: what is left waits for its turn, and has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast::api::OperationState;
use holdfast_apiserver::Fault;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{NAMESPACE, World};

async fn apply(world: &World, number: usize, name: &str, step: &Value) -> Vec<String> {
    let names: Vec<String> = (0..number).map(|n| format!("{name}{n:02}")).collect();
    for name in &names {
        let operation = json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"input": {"items": (0..30).collect::<Vec<_>>()}, "steps": [step]}});
        world.apply(&operation).await;
    }
    names
}

async fn all_succeed(world: &World, names: &[String]) {
    let succeeded = |name: &String| world.state(name) == Some(OperationState::Succeeded);
    world.until("all succeed", |_| names.iter().all(succeeded)).await;
    world.check();
}

#[tokio::test(start_paused = true)]
async fn no_more_than_256_calls_are_under_way_at_once_and_all_are_made() {
    let mut world = World::new(1);
    let slow = json!({"name": "slow", "forEach": "input.items", "maxParallel": 30,
        "http": {"method": "POST", "url": "http://inventory.prod/slow/20000?n=${index}"}});
    let names = apply(&world, 10, "slow", &slow).await;
    world.start();
    world.until("calls are made", |world| world.service.calls() > 0).await;
    sleep(Duration::from_secs(10)).await; // none is answered yet
    assert_eq!(world.service.calls(), 256);
    all_succeed(&world, &names).await;
    assert_eq!(world.service.calls(), 300);
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_than_16_operations_are_decided_on_at_once_and_all_are() {
    let mut world = World::new(1);
    let names = apply(&world, 40, "quick", &json!({"name": "nap", "wait": {"duration": "1s"}})).await;
    let written = Arc::new(AtomicUsize::new(0));
    let seen = written.clone();
    world.server.set_faults(move |info| {
        if info.resource != "cloudoperations" || info.subresource != "status" {
            return Fault::None;
        }
        seen.fetch_add(1, Ordering::Relaxed);
        Fault::DelayAnswer(Duration::from_secs(10))
    });
    world.start();
    world
        .until("statuses are written", |_| written.load(Ordering::Relaxed) > 0)
        .await;
    sleep(Duration::from_secs(5)).await; // none is answered yet
    assert_eq!(written.load(Ordering::Relaxed), 16);
    all_succeed(&world, &names).await;
    world.kill_all().await;
}
