//! Local steps: what they did may stay unwritten, but not for long, and not while anything else happens.

use std::time::Duration;

use holdfast::api::{
    ActionState, CloudOperation, HistoryEvent, MAX_OPERATIONS_ANNOTATION, OperationState, OperationStatus, StepState,
    StepStatus,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::samples::sample;
use crate::world::{NAMESPACE, World};

const NAME: &str = "reads";

/// An operation of these steps.
fn of(steps: &Value) -> Value {
    json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": {"steps": steps},
    })
}

/// One whose first call takes so long, and its second no time.
fn slow(ms: u32) -> Value {
    of(&json!([
        {"name": "slow", "local": true, "http": {"url": format!("http://inventory.prod/slow/a/{ms}?local=1")}},
        {"name": "after", "local": true, "http": {"url": "http://inventory.prod/local/after"}},
    ]))
}

/// A world in which an operation's first call was just made.
async fn calling(manifest: &Value) -> World {
    let mut world = World::new(1);
    world.start();
    world.apply(manifest).await;
    until_called(&world, 1).await;
    world
}

async fn until_called(world: &World, times: usize) {
    let begin = Instant::now();
    while world.service.calls() < times {
        assert!(begin.elapsed() < Duration::from_secs(60), "call {times} is never made");
        sleep(Duration::from_millis(5)).await;
    }
}

fn status(world: &World) -> OperationStatus {
    world.operation(NAME).status.unwrap_or_default()
}

fn step(world: &World, name: &str) -> StepStatus {
    let steps = status(world).steps;
    steps.into_iter().find(|step| step.name == name).unwrap()
}

async fn patch(world: &World, spec: Value) {
    let api: Api<CloudOperation> = Api::namespaced(world.server.client("user"), NAMESPACE);
    let patch = Patch::Merge(json!({"spec": spec}));
    api.patch(NAME, &PatchParams::default(), &patch).await.unwrap();
}

async fn ends(world: &mut World, state: OperationState) {
    world.until("it ends", |world| world.finished(NAME)).await;
    assert_eq!(world.state(NAME), Some(state), "{}", world.message(NAME));
    assert!(
        world.service.effects().values().all(|keys| *keys == 1),
        "each call has one key"
    );
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn an_operation_of_local_steps_costs_one_write_and_knows_when_it_began() {
    let mut world = World::new(1);
    world.start();
    world.apply(&sample(NAME).manifest).await;
    ends(&mut world, OperationState::Succeeded).await;
    assert_eq!(world.writes_of(NAME), 1);
    let status = status(&world);
    let (start, end) = (status.start_time.unwrap(), status.completion_time.unwrap());
    assert!(
        end.since(start) >= Duration::from_millis(30),
        "three calls took no time"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_takes_long_is_seen_as_running_within_seconds() {
    let mut world = calling(&slow(30_000)).await;
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(world.writes_of(NAME), 0, "it may be over soon");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.state(NAME), Some(OperationState::Running));
    assert_eq!(world.message(NAME), "step slow: attempt 1 is under way");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(world.writes_of(NAME), 1, "once is enough");
    ends(&mut world, OperationState::Succeeded).await;
    assert_eq!((world.writes_of(NAME), world.service.calls()), (2, 2));
    let status = status(&world);
    let took = status.completion_time.unwrap().since(status.start_time.unwrap());
    assert!(took >= Duration::from_secs(30), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_one_did_is_seen_within_seconds_though_nothing_else_happens() {
    let mut manifest = of(&json!([
        {"name": "long", "http": {"url": "http://inventory.prod/slow/long/40000"}},
        {"name": "short", "local": true, "http": {"url": "http://inventory.prod/local/short"}},
        {"name": "slow", "local": true, "needs": ["short"], "http": {"url": "http://inventory.prod/slow/a/30000?local=1"}},
    ]));
    manifest["spec"]["order"] = json!("Graph");
    let mut world = calling(&manifest).await;
    until_called(&world, 3).await;
    assert_eq!(status(&world).steps.len(), 2, "the third step is not written yet");
    sleep(Duration::from_millis(2500)).await;
    assert_eq!(step(&world, "short").state, StepState::Succeeded);
    assert_eq!(step(&world, "slow").state, StepState::Running);
    ends(&mut world, OperationState::Succeeded).await;
    assert_eq!(world.service.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_first_write_begins_anew_and_one_after_it_is_a_lost_attempt() {
    for (lived, attempt) in [(1, 1), (4, 2)] {
        let mut world = calling(&slow(8000)).await;
        world.start();
        sleep(Duration::from_secs(lived)).await;
        world.kill(0).await;
        until_called(&world, 2).await;
        ends(&mut world, OperationState::Succeeded).await;
        assert_eq!(step(&world, "slow").attempt, attempt, "when it lived for {lived} s");
        let lost = |entry: &holdfast::api::HistoryEntry| entry.event == HistoryEvent::AttemptLost;
        assert_eq!(status(&world).history.iter().any(lost), attempt == 2);
        assert_eq!(world.service.calls(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_asked_to_stop_lets_it_end_and_records_it() {
    let mut world = calling(&slow(8000)).await;
    world.start();
    sleep(Duration::from_secs(1)).await;
    world.stop(0).await;
    assert_eq!(step(&world, "slow").state, StepState::Succeeded);
    assert_eq!(status(&world).steps.len(), 1, "nothing more was started");
    ends(&mut world, OperationState::Succeeded).await;
    assert_eq!(world.service.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cancelled_or_held_meanwhile_is_told_of() {
    let mut world = calling(&slow(8000)).await;
    patch(&world, json!({"cancel": {"reason": "stop"}})).await;
    ends(&mut world, OperationState::Cancelled).await;
    let slow_step = step(&world, "slow");
    assert_eq!((slow_step.state, slow_step.maybe_done), (StepState::Cancelled, true));
    assert_eq!(world.service.calls(), 1);

    let mut world = calling(&slow(8000)).await;
    patch(&world, json!({"suspend": true})).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(world.state(NAME), Some(OperationState::Suspended));
    assert_eq!(
        step(&world, "slow").state,
        StepState::Succeeded,
        "what is under way ends"
    );
    assert_eq!(world.service.calls(), 1);
    patch(&world, json!({"suspend": false})).await;
    ends(&mut world, OperationState::Succeeded).await;
    assert_eq!(world.service.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_people_ask_meanwhile_is_decided_on_what_is_so() {
    let mut world = calling(&slow(1500)).await;
    world.ask(NAME, 1, &json!({"skip": {"step": "slow"}})).await;
    ends(&mut world, OperationState::Succeeded).await;
    assert_eq!(world.came_of_it(), [(format!("{NAME}-1"), Some(ActionState::Rejected))]);
    let refused = status(&world).history.into_iter();
    let refused = refused.filter(|entry| entry.event == HistoryEvent::ActionRejected);
    let why = refused.filter_map(|entry| entry.message).collect::<String>();
    assert!(why.contains("it is Running"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_deleted_stops_and_its_namesake_is_another() {
    let mut world = calling(&slow(3000)).await;
    world.delete::<CloudOperation>(NAME).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.service.answered(0), 0, "its call was aborted");
    world.apply(&slow(100)).await;
    world.until("it ends", |world| world.finished(NAME)).await;
    assert_eq!(world.state(NAME), Some(OperationState::Succeeded));
    assert_eq!(world.service.calls(), 3);
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_spec_changed_behind_admissions_back_is_given_no_result_of_the_old_one() {
    let mut world = calling(&slow(1000)).await;
    let mut other = slow(1000)["spec"]["steps"].clone();
    other[0]["http"]["url"] = json!("http://inventory.prod/slow/other/1000?local=1");
    patch(&world, json!({"steps": other})).await;
    ends(&mut world, OperationState::SpecChanged).await;
    assert_eq!(world.service.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_for_which_others_wait_is_written_first() {
    let limit = async |world: &World| {
        let api: Api<Namespace> = Api::all(world.server.client("admin"));
        let patch = Patch::Merge(json!({"metadata": {"annotations": {MAX_OPERATIONS_ANNOTATION: "1"}}}));
        api.patch(NAMESPACE, &PatchParams::default(), &patch).await.unwrap();
    };
    let mut world = World::new(1);
    limit(&world).await;
    world.start();
    world.apply(&slow(1000)).await;
    until_called(&world, 1).await;
    assert_eq!(world.state(NAME), Some(OperationState::Running));
    ends(&mut world, OperationState::Succeeded).await;

    // It comes while the call is under way.
    let mut world = calling(&slow(1500)).await;
    limit(&world).await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(world.state(NAME), Some(OperationState::Running));
    ends(&mut world, OperationState::Succeeded).await;
    assert_eq!(world.service.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_another_process_recorded_is_given_no_result_of_what_was_not() {
    let manifest = slow(1500);
    // As another process would record its start: of a world in which somebody asks for a hold meanwhile.
    let other = calling(&manifest).await;
    patch(&other, json!({"suspend": true})).await;
    sleep(Duration::from_millis(500)).await;
    let mut recorded = status(&other);
    assert_eq!(recorded.steps[0].state, StepState::Running);
    recorded.steps[0].runner = Some("other".into());
    (recorded.suspended_at, recorded.state) = (None, Some(OperationState::Running));

    let mut world = calling(&manifest).await;
    let api: Api<CloudOperation> = Api::namespaced(world.server.client("other"), NAMESPACE);
    let written = CloudOperation {
        status: Some(recorded),
        ..world.operation(NAME)
    };
    api.replace_status(NAME, &PostParams::default(), &written)
        .await
        .unwrap();
    ends(&mut world, OperationState::Succeeded).await;
    let slow = step(&world, "slow");
    assert_eq!((slow.attempt, slow.lost), (2, 1), "the first attempt was another's");
}

#[tokio::test(start_paused = true)]
async fn what_a_process_that_is_gone_removed_without_a_trace_was_removed() {
    let remove = json!({"method": "DELETE", "url": "http://inventory.prod/remove/a?local=1"});
    let mut world = calling(&of(&json!([{"name": "remove", "local": true, "http": remove}]))).await;
    world.start();
    world.kill(0).await;
    until_called(&world, 2).await;
    ends(&mut world, OperationState::Succeeded).await;
    assert_eq!(step(&world, "remove").attempt, 1, "nobody knows of the first");
}
