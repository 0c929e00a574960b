//! Attempts that take too long are given up, whatever they are; and what was done though nothing can be recorded of it.

use std::time::Duration;

use holdfast::api::OperationState;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{NAMESPACE, World};

/// Runs one step whose attempt may take five seconds, for ten.
async fn given_up(step: Value) {
    let mut world = World::new(1);
    world.start();
    let mut step = step;
    step["name"] = json!("slow");
    step["timeouts"] = json!({"startToClose": "5s"});
    step["retry"] = json!({"maximumAttempts": 1});
    let operation = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": "late", "namespace": NAMESPACE}, "spec": {"steps": [step]},
    });
    world.apply(&operation).await;
    sleep(Duration::from_secs(4)).await;
    assert!(!world.finished("late"), "{}", world.message("late"));
    sleep(Duration::from_secs(6)).await;
    assert_eq!(world.state("late"), Some(OperationState::Failed));
    assert!(
        world.message("late").contains("StartToClose"),
        "{}",
        world.message("late")
    );
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_is_given_up() {
    given_up(json!({"http": {"method": "POST", "url": "http://inventory.prod/slow/60000"}})).await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_an_object_is_given_up() {
    let never = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "never"});
    given_up(json!({"kubernetes": {"wait": {"resource": never, "for": "Current"}}})).await;
}

/// A call did its work, and its output can't be recorded: it is undone, and nothing of a sensitive answer is told.
#[tokio::test(start_paused = true)]
async fn what_was_done_is_undone_though_its_output_cannot_be_recorded() {
    let mut world = World::new(1);
    world.start();
    let post = |path: &str| json!({"method": "POST", "url": format!("http://inventory.prod/{path}")});
    let operation = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": "done", "namespace": NAMESPACE},
        "spec": {"failurePolicy": "Compensate", "steps": [{
            "name": "call", "http": post("call"), "sensitive": true, "output": {"n": "${int(result.body.path)}"},
            "compensate": {"http": post("undo")},
        }]},
    });
    world.apply(&operation).await;
    world.until("it ends", |world| world.finished("done")).await;
    assert_eq!(world.state("done"), Some(OperationState::Failed));
    let message = world.message("done");
    assert!(
        message.contains("spec.steps[0].output.n") && !message.contains("/call"),
        "{message}"
    );
    assert_eq!(world.service.effects()["/undo"], 1);
    world.check();
    world.kill_all().await;
}
