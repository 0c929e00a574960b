//! Actions whose answers get lost on the way: each is decided on once, and says what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use holdfast::api::{ActionState, CloudOperation, OperationState, StepState};
use holdfast_apiserver::{Fault, RequestInfo, Verb};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::samples::{all_answered, sample};
use crate::sniper::{Crash, Seen, Sniper};
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

/// One action can't be told what came of it, and none can be owned. The next operation waits for this one's key.
#[tokio::test(start_paused = true)]
async fn an_action_that_can_not_be_told_holds_up_nothing_else() {
    let mut world = World::new(1);
    let untold = Arc::new(AtomicBool::new(true));
    let is_untold = untold.clone();
    world.server.set_faults(move |info| {
        let first = info.is(Verb::Patch, "operationactions/status") && info.name == "asking-1";
        match info.is(Verb::Patch, "operationactions") || first && is_untold.load(Ordering::Relaxed) {
            true => Fault::Fail {
                code: 403,
                retry_after: None,
            },
            false => Fault::None,
        }
    });
    world.start();
    let mut asking = asking();
    asking["spec"]["concurrency"] = json!({"key": "'eu'"});
    world.apply(&asking).await;
    world
        .until("it waits", |world| step(world, "go") == Some(StepState::Waiting))
        .await;
    let mut next = sample("calls").manifest;
    next["metadata"]["name"] = json!("next");
    next["spec"]["concurrency"] = json!({"key": "'eu'"});
    world.apply(&next).await;
    world.ask("asking", 1, &json!({"signal": {"name": "go"}})).await;
    world.ask("asking", 2, &json!({"signal": {"name": "go"}})).await;
    world
        .until("both end", |world| world.finished("asking") && world.finished("next"))
        .await;
    let applied = Some(ActionState::Applied);
    assert_eq!(
        world.came_of_it(),
        [("asking-1".to_owned(), None), ("asking-2".to_owned(), applied)]
    );
    untold.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(5)).await;
    assert!(world.came_of_it().iter().all(|(_, state)| *state == applied));
    world.check();
    world.kill_all().await;
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
            true => Fault::Hang,
            false => Fault::None,
        });
    world.start();
    sleep(Duration::from_secs(90)).await;
    world.server.clear_faults();
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
            true if info.verb == Verb::List => Fault::Hang,
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

/// The watch is slow: it shows that the action has an owner when the action says long since what came of it, and the
/// operation's status has forgotten it.
#[tokio::test(start_paused = true)]
async fn what_a_slow_watch_shows_of_an_action_that_was_told_is_not_decided_on_again() {
    let mut world = World::new(1);
    world
        .server
        .set_faults(|info| match info.is(Verb::Patch, "operationactions") {
            true => Fault::Delay(Duration::from_secs(10)),
            false => Fault::None,
        });
    sent(&mut world).await;
    let actions = |info: &RequestInfo| info.resource == "operationactions";
    world.server.hold_watches_at(world.server.revision(), actions);
    world
        .until("the nap is over", |world| {
            step(world, "nap") == Some(StepState::Succeeded)
        })
        .await;
    let told = [("asking-1".to_owned(), Some(ActionState::Applied))];
    assert_eq!(world.came_of_it(), told);
    assert_eq!(world.operation("asking").status.unwrap().actions, vec![]);
    let mut writes = world.server.writes().into_iter().map(|write| write.change);
    let owned = writes.find(|change| change.key.resource == "operationactions" && change.before.is_some());
    world.server.hold_watches_at(owned.unwrap().revision, actions);
    sleep(Duration::from_secs(10)).await;
    world.server.release_watches();
    taken_once(world).await;
}

/// An operation is deleted while the write that decides on an action is on its way, and then it can't be looked up.
#[tokio::test(start_paused = true)]
async fn an_action_whose_operation_is_deleted_before_it_is_decided_on_is_rejected() {
    let mut world = World::new(1);
    world.start();
    world.apply(&asking()).await;
    world
        .until("it waits", |world| step(world, "go") == Some(StepState::Waiting))
        .await;
    let looked_up = AtomicUsize::new(0);
    world.server.set_faults(move |info| {
        if info.is(Verb::Update, "cloudoperations/status") {
            return Fault::Delay(Duration::from_secs(5));
        }
        match info.is(Verb::Get, "cloudoperations") && looked_up.fetch_add(1, Ordering::Relaxed) < 4 {
            true => Fault::Fail {
                code: 500,
                retry_after: None,
            },
            false => Fault::None,
        }
    });
    world.ask("asking", 1, &json!({"signal": {"name": "go"}})).await;
    sleep(Duration::from_secs(2)).await;
    world.delete::<CloudOperation>("asking").await;
    sleep(Duration::from_secs(300)).await;
    let rejected = [("asking-1".to_owned(), Some(ActionState::Rejected))];
    assert_eq!(world.came_of_it(), rejected);
    world.kill_all().await;
}

/// An action on an operation that isn't there is rejected, and does nothing to one of that name that comes later.
async fn rejected(crash: Crash) -> Seen {
    let mut world = World::new(1);
    let sniper = Sniper::aim(&world, crash, |info| info.resource != "leases");
    world.ask("asking", 1, &json!({"signal": {"name": "go"}})).await;
    let mut operator = world.start();
    let a_minute = async |_: &World| sleep(Duration::from_secs(60)).await;
    sniper.watch(&mut world, &mut operator, a_minute).await;
    world.until("it is rejected", all_answered).await;
    let rejected = [("asking-1".to_owned(), Some(ActionState::Rejected))];
    assert_eq!(world.came_of_it(), rejected, "{crash:?}");
    let seen = sniper.seen();
    world.apply(&asking()).await;
    world
        .until("it waits", |world| step(world, "go") == Some(StepState::Waiting))
        .await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.state("asking"), Some(OperationState::Waiting), "{crash:?}");
    world.check();
    world.kill_all().await;
    seen
}

#[tokio::test(start_paused = true)]
async fn an_action_on_what_is_not_there_is_rejected_wherever_the_operator_dies() {
    let seen = rejected(Crash::Never).await;
    assert!(seen.requests > 10, "only {seen:?}");
    for crash in seen.crashes() {
        rejected(crash).await;
    }
}
