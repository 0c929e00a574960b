//! Operations that are deleted while a write of their status is under way: nothing more of them starts, and nothing of the
//! operator ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast::api::CloudOperation;
use holdfast_apiserver::{Fault, Verb};
use serde_json::json;
use tokio::time::sleep;

use crate::samples::sample;
use crate::world::{NAMESPACE, World};

/// Deletes an operation between its status write of this number and the late answer to it. Answers how many calls were made.
async fn deleted_during(write: usize) -> usize {
    let mut world = World::new(1);
    let seen = AtomicUsize::new(0);
    world.server.set_faults(move |info| {
        let counts = info.is(Verb::Update, "cloudoperations/status");
        match counts && seen.fetch_add(1, Ordering::Relaxed) + 1 == write {
            true => Fault::DelayAnswer(Duration::from_secs(10)),
            false => Fault::None,
        }
    });
    let operator = world.start();
    let calls = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": "deleted", "namespace": NAMESPACE},
        "spec": {"steps": [
            {"name": "first", "http": {"method": "POST", "url": "http://inventory.prod/first"}},
            {"name": "second", "http": {"method": "POST", "url": "http://inventory.prod/second"}},
        ]},
    });
    world.apply(&calls).await;
    let written = |world: &World| {
        let writes = world.server.writes().into_iter().map(|write| write.change);
        let of_operation = writes.filter(|change| change.key.resource == "cloudoperations");
        of_operation.count() == write + 1 // and it was created
    };
    world.until("the write has landed", written).await;
    world.delete::<CloudOperation>("deleted").await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.service.violations(), Vec::<String>::new());
    world.server.clear_faults();
    world.apply(&sample("calls").manifest).await;
    sleep(Duration::from_secs(60)).await;
    assert!(world.finished("calls"), "another doesn't go on");
    world.kill(operator).await; // and it was alive
    let effects = world.service.effects();
    ["/first", "/second"]
        .iter()
        .map(|path| effects.get(*path).unwrap_or(&0))
        .sum()
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_during_the_write_of_its_first_intent_calls_nobody() {
    assert_eq!(deleted_during(1).await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_during_the_write_of_a_result_does_not_go_on() {
    assert_eq!(deleted_during(2).await, 1);
}
