//! What people do to an operation from outside: suspend and resume, one operation or a whole namespace, and cancel.

use std::time::{Duration, Instant};

use holdfast::api::{CloudOperation, HistoryEvent, OperationState, StepState};
use holdfast_e2e::world::{PATIENCE, World, condition, events, find_step, message_of, state_of, step};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

/// Waits until a moment has passed by the machine's clock.
async fn until_past(at: holdfast::api::Time, margin: Duration) {
    while Timestamp::now().as_millisecond() < at.plus(margin).millis() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn deadline(operation: &CloudOperation) -> holdfast::api::Time {
    operation.status.as_ref().and_then(|status| status.deadline).unwrap()
}

#[tokio::test]
async fn a_suspended_operation_records_what_runs_and_starts_nothing_until_it_is_resumed() {
    let world = World::new("control-suspend").await;
    let _operator = world.operator();
    world
        .run(
            "held",
            r#"
            timeout: 1h
            steps:
            - {name: slow, http: {method: POST, url: INVENTORY/gate/slow}}
            - {name: after, http: {method: POST, url: INVENTORY/after}}
            "#,
        )
        .await;
    world.until_called("/gate").await;
    world.patch("held", r#"{"spec": {"suspend": true}}"#).await;
    let held = world.until_state("held", OperationState::Suspended).await;
    assert_eq!(step(&held, "slow").state, StepState::Running);
    assert!(message_of(&held).contains("1 under way"), "{}", message_of(&held));
    world.inventory.open("slow");

    let held = world
        .until("held", "held with its call recorded", |operation| {
            state_of(operation) == Some(OperationState::Suspended)
                && find_step(operation, "slow").is_some_and(|step| step.state == StepState::Succeeded)
        })
        .await;
    assert!(
        message_of(&held).contains("held by spec.suspend"),
        "{}",
        message_of(&held)
    );
    let since = held.status.as_ref().unwrap().suspended_at.unwrap();
    until_past(since, Duration::from_secs(3)).await;
    let still = world.operations().get("held").await.unwrap();
    assert!(find_step(&still, "after").is_none());
    assert!(world.inventory.requests("/after").is_empty());

    world.patch("held", r#"{"spec": {"suspend": false}}"#).await;
    let resumed = world.ends("held", OperationState::Succeeded).await;
    let start = resumed.status.as_ref().unwrap().start_time.unwrap();
    let moved = deadline(&resumed).since(start.plus(Duration::from_secs(3600)));
    let suspended = resumed.status.as_ref().unwrap().completion_time.unwrap().since(since);
    assert!(
        moved >= Duration::from_secs(3) && moved <= suspended,
        "the deadline moved by {moved:?}, of {suspended:?} since it was suspended"
    );
    use HistoryEvent::{Finished, Resumed, Started, Suspended};
    assert_eq!(events(&resumed, ""), [Started, Suspended, Resumed, Finished]);
}

#[tokio::test]
async fn a_namespaces_label_holds_all_that_is_in_it_with_one_write_each() {
    let world = World::new("control-namespace").await;
    let _operator = world.operator();
    // Its time comes while it is held: the label is set before, also where kubectl takes long.
    world
        .run(
            "waits",
            "steps: [{name: pause, wait: {duration: 15s}}, {name: after, http: {url: INVENTORY/after}}]",
        )
        .await;
    let waiting = world.until_state("waits", OperationState::Waiting).await;
    let label = |value: &str| format!("holdfast.dev/suspended{value}");
    world
        .prints(&["label", "namespace", &world.namespace, &label("=true")])
        .await;

    let held = world.until_state("waits", OperationState::Suspended).await;
    let due = step(&waiting, "pause").next_attempt_time.unwrap();
    until_past(due, Duration::from_secs(2)).await;
    let still = world.operations().get("waits").await.unwrap();
    assert_eq!(
        still.resource_version(),
        held.resource_version(),
        "it says once that it is held"
    );
    world
        .run("new", "steps: [{name: call, http: {url: INVENTORY/new}}]")
        .await;
    let new = world.until_state("new", OperationState::Suspended).await;
    assert!(message_of(&new).contains("label"), "{}", message_of(&new));
    assert!(world.inventory.requests("/").is_empty());

    world
        .prints(&["label", "namespace", &world.namespace, &label("-")])
        .await;
    world.ends("waits", OperationState::Succeeded).await;
    world.ends("new", OperationState::Succeeded).await;
}

#[tokio::test]
async fn hold_all_holds_every_operation() {
    let world = World::new("control-hold").await;
    let operator = world.operator_with(&["--allow-http", "127.0.0.1", "--hold-all"]);
    world
        .run("held", "steps: [{name: call, http: {url: INVENTORY/call}}]")
        .await;
    world.until_state("held", OperationState::Suspended).await;
    assert!(world.inventory.requests("/").is_empty());
    operator.stop().await;
    let _operator = world.operator();
    world.ends("held", OperationState::Succeeded).await;
}

#[tokio::test]
async fn cancel_aborts_the_call_under_way_and_ends_the_operation() {
    let world = World::new("control-cancel").await;
    let _operator = world.operator();
    world
        .run(
            "cancelled",
            r#"
            order: Graph
            steps:
            - {name: call, http: {method: POST, url: INVENTORY/gate/never}}
            - {name: timer, wait: {duration: 1h}}
            - {name: backoff, http: {url: INVENTORY/status/503}, retry: {initialInterval: 1h}}
            - {name: after, needs: [call], set: {v: 1}}
            "#,
        )
        .await;
    world
        .until("cancelled", "under way", |operation| {
            find_step(operation, "backoff").is_some_and(|step| step.state == StepState::BackingOff)
        })
        .await;
    world.until_called("/gate").await;
    world
        .patch("cancelled", r#"{"spec": {"cancel": {"reason": "the wrong group"}}}"#)
        .await;

    let ended = world.ends("cancelled", OperationState::Cancelled).await;
    assert_eq!(message_of(&ended), "Cancelled: the wrong group");
    assert_eq!(condition(&ended, "Succeeded"), ("False", "Cancelled"));
    for name in ["call", "timer", "backoff"] {
        assert_eq!(step(&ended, name).state, StepState::Cancelled, "{name}");
    }
    assert!(
        step(&ended, "call").maybe_done,
        "whether the call had its effect is unknown"
    );
    assert!(find_step(&ended, "after").is_none());
    assert!(events(&ended, "").contains(&HistoryEvent::CancelRequested));
    let started = Instant::now();
    while world.inventory.abandoned().is_empty() {
        assert!(started.elapsed() < PATIENCE, "the call goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let unset = world
        .kubectl(&[
            "patch",
            "cop",
            "cancelled",
            "--type=json",
            "-p",
            r#"[{"op": "remove", "path": "/spec/cancel"}]"#,
        ])
        .await;
    assert!(unset.err.contains("spec.cancel can't be unset"), "{}", unset.err);
}

#[tokio::test]
async fn cancel_ends_what_is_suspended_too() {
    let world = World::new("control-both").await;
    let _operator = world.operator();
    world
        .run("held", "{suspend: true, steps: [{name: a, http: {url: INVENTORY/a}}]}")
        .await;
    world.until_state("held", OperationState::Suspended).await;
    world.patch("held", r#"{"spec": {"cancel": {}}}"#).await;
    world.ends("held", OperationState::Cancelled).await;
    assert!(world.inventory.requests("/").is_empty());
}
