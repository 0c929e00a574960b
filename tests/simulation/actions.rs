//! Actions whose answers get lost on the way: each is decided on once, and says what came of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast::api::{ActionState, OperationState, StepState};
use holdfast_apiserver::{Fault, Verb};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::sniper::Sniper;
use crate::world::{NAMESPACE, World, dying};

/// Two steps that wait for the same signal: one that is taken twice ends both. And one that causes a write meanwhile.
fn asking() -> Value {
    json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": "asking", "namespace": NAMESPACE},
        "spec": {"order": "Graph", "steps": [
            {"name": "go", "signal": {}},
            {"name": "again", "needs": ["go"], "signal": {"name": "go"}},
            {"name": "nap", "wait": {"duration": "1m"}},
        ]},
    })
}

fn step(world: &World, name: &str) -> Option<StepState> {
    let status = world.operation("asking").status?;
    status
        .steps
        .into_iter()
        .find(|step| step.name == name)
        .map(|step| step.state)
}

/// A world in which the signal was sent, and the first step took it.
async fn sent(world: &mut World) -> usize {
    let operator = world.start();
    world.apply(&asking()).await;
    world
        .until("it waits", |world| step(world, "go") == Some(StepState::Waiting))
        .await;
    world.ask("asking", 1, &json!({"signal": {"name": "go"}})).await;
    world
        .until("it is taken", |world| step(world, "go") == Some(StepState::Succeeded))
        .await;
    operator
}

/// The signal was taken once, and says so.
async fn taken_once(mut world: World) {
    world
        .until("the nap is over", |world| {
            step(world, "nap") == Some(StepState::Succeeded)
        })
        .await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        step(&world, "again"),
        Some(StepState::Waiting),
        "the signal was taken twice"
    );
    assert_eq!(
        world.came_of_it(),
        [("asking-1".to_owned(), Some(ActionState::Applied))]
    );
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_refused_is_given_again() {
    let mut world = World::new(1);
    let refused = AtomicUsize::new(0);
    world.server.set_faults(move |info| {
        let answer = info.is(Verb::Patch, "operationactions/status") && refused.fetch_add(1, Ordering::Relaxed) < 2;
        match answer {
            true => Fault::Fail {
                code: 409,
                retry_after: None,
            },
            false => Fault::None,
        }
    });
    let operator = sent(&mut world).await;
    sleep(Duration::from_secs(70)).await;
    world.kill(operator).await;
    world.start();
    taken_once(world).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_is_not_forgotten_before_the_next_leader_has_seen_all_actions() {
    let mut world = World::new(1);
    world
        .server
        .set_faults(|info| match info.is(Verb::Patch, "operationactions") {
            true => dying(false),
            false => Fault::None,
        });
    let operator = sent(&mut world).await;
    world.kill(operator).await;
    world
        .server
        .set_faults(|info| match info.is(Verb::List, "operationactions") {
            true => Fault::Delay(Duration::from_secs(90)),
            false => Fault::None,
        });
    world.start();
    taken_once(world).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_is_not_forgotten_while_actions_are_listed_anew() {
    let mut world = World::new(1);
    world
        .server
        .set_faults(|info| match info.is(Verb::Patch, "operationactions") {
            true => Fault::Fail {
                code: 500,
                retry_after: None,
            },
            false => Fault::None,
        });
    sent(&mut world).await;
    world
        .server
        .set_faults(|info| match info.resource == "operationactions" {
            true if info.verb == Verb::List => Fault::Delay(Duration::from_secs(90)),
            true if info.verb == Verb::Patch => Fault::Fail {
                code: 500,
                retry_after: None,
            },
            _ => Fault::None,
        });
    world.server.compact();
    world.server.drop_watches(|info| info.resource == "operationactions");
    world
        .until("the nap is over", |world| {
            step(world, "nap") == Some(StepState::Succeeded)
        })
        .await;
    sleep(Duration::from_secs(100)).await;
    world.server.clear_faults();
    sleep(Duration::from_secs(200)).await;
    taken_once(world).await;
}

/// An action on an operation that isn't there is rejected, wherever the operator dies, and does nothing to one of that name
/// that comes later.
#[tokio::test(start_paused = true)]
async fn an_action_on_what_is_not_there_is_rejected_wherever_the_operator_dies() {
    let mut last = usize::MAX;
    let mut at = 0;
    while at <= last {
        for applied in [false, true] {
            let mut world = World::new(1);
            let sniper = Sniper::aim(&world, at, applied, |info| info.resource != "leases");
            world.ask("asking", 1, &json!({"signal": {"name": "go"}})).await;
            let mut operator = world.start();
            let a_minute = async |_: &World| sleep(Duration::from_secs(60)).await;
            sniper.watch(&mut world, &mut operator, a_minute).await;
            let answered = |world: &World| world.came_of_it().iter().all(|(_, state)| state.is_some());
            world.until("it is rejected", answered).await;
            assert_eq!(
                world.came_of_it(),
                [("asking-1".to_owned(), Some(ActionState::Rejected))],
                "{at}, {applied}"
            );
            if at == 0 {
                last = sniper.seen();
                assert!(last > 10, "only {last} requests");
            }
            world.apply(&asking()).await;
            world
                .until("it waits", |world| step(world, "go") == Some(StepState::Waiting))
                .await;
            sleep(Duration::from_secs(10)).await;
            assert_eq!(world.state("asking"), Some(OperationState::Waiting), "{at}, {applied}");
            world.check();
            world.kill_all().await;
        }
        at += 1;
    }
}
