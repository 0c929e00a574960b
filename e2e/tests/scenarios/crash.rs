//! One operator that dies: what it was doing goes on where it was, under the next one.

use std::time::Duration;

use holdfast::api::{HistoryEvent, OperationState, StepState};
use holdfast_e2e::world::{World, events, message_of, step};
use kube::ResourceExt;

#[tokio::test]
async fn a_call_in_the_middle_of_which_the_operator_is_killed_is_made_again_under_the_same_key() {
    let world = World::new("crash-call").await;
    let first = world.operator();
    world
        .run(
            "resize",
            r#"
            steps:
            - {name: before, http: {method: POST, url: INVENTORY/before}}
            - {name: resize, http: {method: POST, url: INVENTORY/gate/resize, body: {size: 12}}}
            - {name: after, http: {method: POST, url: INVENTORY/after}}
            "#,
        )
        .await;
    world.until_called("/gate").await;
    first.kill().await;
    let orphaned = world.operations().get("resize").await.unwrap();
    let lost = step(&orphaned, "resize").clone();
    assert_eq!((lost.state, lost.attempt), (StepState::Running, 1));

    world.inventory.open("resize");
    let second = world.operator();
    let ended = world.ends("resize", OperationState::Succeeded).await;

    let resize = step(&ended, "resize");
    assert_eq!((resize.attempt, resize.lost), (2, 1));
    use HistoryEvent::{AttemptLost, AttemptStarted, StepSucceeded};
    assert_eq!(
        events(&ended, "resize"),
        [AttemptStarted, AttemptLost, AttemptStarted, StepSucceeded]
    );
    let history = ended.status.iter().flat_map(|status| &status.history);
    let said: Vec<_> = history
        .filter(|entry| entry.event == AttemptLost)
        .filter_map(|entry| entry.message.clone())
        .collect();
    let runner = lost.runner.unwrap();
    assert_eq!(said, [format!("its process {runner} is gone")]);
    assert_ne!(runner, second.leads().await);

    let sent = world.inventory.requests("/gate");
    assert_eq!(sent.len(), 2);
    assert_eq!((&sent[0].key, &sent[0].body), (&sent[1].key, &sent[1].body));
    assert_eq!(world.inventory.effects("/gate").len(), 1, "done once");
    assert_eq!(world.inventory.requests("/before").len(), 1, "what was done stays done");
    assert_eq!(world.inventory.requests("/after").len(), 1);
}

#[tokio::test]
async fn a_call_that_may_not_be_made_twice_is_not_made_again_after_a_crash() {
    let world = World::new("crash-once").await;
    let first = world.operator();
    world
        .run(
            "pay",
            "steps: [{name: pay, idempotent: false, http: {method: POST, url: INVENTORY/gate/pay}}]",
        )
        .await;
    world.until_called("/gate").await;
    first.kill().await;

    let _second = world.operator();
    let stuck = world.until_state("pay", OperationState::Stuck).await;
    assert_eq!(step(&stuck, "pay").state, StepState::Undecided);
    assert!(
        message_of(&stuck).contains("look at the other side"),
        "{}",
        message_of(&stuck)
    );
    assert_eq!(world.inventory.requests("/gate").len(), 1);
}

#[tokio::test]
async fn a_backoff_of_an_hour_and_a_timer_survive_a_crash() {
    let world = World::new("crash-timers").await;
    let first = world.operator();
    world
        .run(
            "backoff",
            "steps: [{name: call, http: {url: INVENTORY/status/503}, retry: {initialInterval: 1h}, timeouts: {scheduleToClose: 12h}}]",
        )
        .await;
    world
        .run("timer", "steps: [{name: pause, wait: {duration: 20s}}]")
        .await;
    let backing_off = world.until_state("backoff", OperationState::BackingOff).await;
    let waiting = world.until_state("timer", OperationState::Waiting).await;
    first.kill().await;

    let _second = world.operator();
    let fired = world.ends("timer", OperationState::Succeeded).await;
    let due = step(&waiting, "pause").next_attempt_time.unwrap();
    let late = step(&fired, "pause").end_time.unwrap().since(due);
    assert!(late < Duration::from_secs(30), "{late:?} late");
    assert_eq!(step(&fired, "pause").start_time, step(&waiting, "pause").start_time);
    // The second operator has looked at all operations by now.
    let now = world.operations().get("backoff").await.unwrap();
    assert_eq!(
        now.resource_version(),
        backing_off.resource_version(),
        "there was nothing to write"
    );
    let call = step(&now, "call");
    assert_eq!((call.state, call.attempt), (StepState::BackingOff, 1));
    let wait = call.next_attempt_time.unwrap().since(call.start_time);
    assert!(wait > Duration::from_secs(50 * 60), "{wait:?}");
    assert_eq!(world.inventory.requests("/status").len(), 1);
}

#[tokio::test]
async fn sigterm_lets_the_running_attempt_end_and_hands_over() {
    let world = World::new("crash-term").await;
    let lease = ["--allow-http", "127.0.0.1", "--lease-duration", "60s"];
    let first = world.operator_with(&lease);
    first.leads().await;
    let second = world.operator_with(&lease);
    second.logs("standing by: another process leads").await;
    world
        .run(
            "handed-over",
            r#"
            steps:
            - {name: slow, http: {method: POST, url: INVENTORY/gate/slow}}
            - {name: after, http: {method: POST, url: INVENTORY/after}}
            "#,
        )
        .await;
    world.until_called("/gate").await;
    first.signal("TERM").await;
    first.logs("shutting down: nothing more is started").await;
    world.inventory.open("slow");
    first.ends().await;
    let stopped = std::time::Instant::now();

    second.leads().await;
    let took = stopped.elapsed();
    assert!(
        took < Duration::from_secs(20),
        "it is handed over, long before the lease runs out: {took:?}"
    );
    let ended = world.ends("handed-over", OperationState::Succeeded).await;
    use HistoryEvent::{AttemptStarted, StepSucceeded};
    assert_eq!(events(&ended, "slow"), [AttemptStarted, StepSucceeded]);
    assert_eq!(events(&ended, "after"), [AttemptStarted, StepSucceeded]);
    assert_eq!(world.inventory.requests("/").len(), 2);
}
