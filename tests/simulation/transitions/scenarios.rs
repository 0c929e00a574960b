//! What takes every transition.

use std::time::Duration;

use holdfast::api::{CloudOperation, OperationAction, OperationHistory, OperationLock, OperationState};
use holdfast_apiserver::{Fault, RequestInfo, Verb};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::sniper::{Crash, Sniper};
use crate::world::{LEASE, NAMESPACE, World};

/// All of them.
pub async fn all() {
    actions_are_answered_and_forgotten().await;
    actions_lose_their_operation_or_are_deleted().await;
    a_key_goes_from_hand_to_hand().await;
    a_key_is_taken_and_not_used().await;
    the_lease_changes_hands().await;
    a_template_is_pinned_and_goes_with_its_operation().await;
    what_was_pinned_is_lost_before_the_start().await;
    for state in [
        OperationState::Running,
        OperationState::Waiting,
        OperationState::AwaitingApproval,
        OperationState::BackingOff,
        OperationState::Suspended,
        OperationState::Compensating,
    ] {
        what_was_pinned_is_lost(state).await;
    }
    what_waits_for_its_start_says_so().await;
    a_history_is_moved_and_pruned().await;
    a_history_goes_with_its_operation().await;
}

fn manifest(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
    })
}

async fn patch(world: &World, name: &str, patch: Value) {
    let api: Api<CloudOperation> = Api::namespaced(world.server.client("user"), NAMESPACE);
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

async fn comes_to(world: &World, name: &str, state: OperationState) {
    world
        .until(&format!("{name} is {state}"), |world| world.state(name) == Some(state))
        .await;
}

fn refuse(code: u16) -> Fault {
    Fault::Fail {
        code,
        retry_after: None,
    }
}

/// What came of an action, once it says so.
async fn is_told(world: &World, action: &str) {
    let told = |world: &World| {
        world
            .came_of_it()
            .iter()
            .any(|(name, state)| name == action && state.is_some())
    };
    world.until(&format!("{action} is told"), told).await;
}

/// How many actions its status remembers.
fn remembered(world: &World, name: &str) -> usize {
    world.operation(name).status.map_or(0, |status| status.actions.len())
}

/// Waits for signals, and causes a write every minute.
fn listening(name: &str) -> Value {
    let nap = |name: &str, needs: Value| json!({"name": name, "needs": needs, "wait": {"duration": "1m"}});
    manifest(
        name,
        json!({"order": "Graph", "steps": [{"name": "go", "signal": {}}, nap("a", json!([])), nap("b", json!(["a"])), nap("c", json!(["b"]))]}),
    )
}

async fn actions_are_answered_and_forgotten() {
    let mut world = World::new(1);
    world.start();
    world.apply(&listening("o")).await;
    comes_to(&world, "o", OperationState::Waiting).await;
    world.ask("o", 1, &json!({"retryNow": {"step": "go"}})).await;
    is_told(&world, "o-1").await;
    world
        .until("it is forgotten", |world| remembered(world, "o") == 0)
        .await;
    // One that is deleted meanwhile.
    world.ask("o", 2, &json!({"retryNow": {"step": "go"}})).await;
    is_told(&world, "o-2").await;
    assert_eq!(remembered(&world, "o"), 1);
    world.delete::<OperationAction>("o-2").await;
    world
        .until("it is forgotten", |world| remembered(world, "o") == 0)
        .await;
    world.delete::<CloudOperation>("o").await;
    world
        .until("what was asked goes with it", |world| world.came_of_it().is_empty())
        .await;
    world.check();
    world.kill_all().await;
}

async fn actions_lose_their_operation_or_are_deleted() {
    let mut world = World::new(1);
    world.ask("o", 1, &json!({"signal": {"name": "go"}})).await;
    world.delete::<OperationAction>("o-1").await;
    world.ask("nobody", 1, &json!({"signal": {"name": "go"}})).await;
    world.start();
    is_told(&world, "nobody-1").await;
    world.apply(&listening("o")).await;
    comes_to(&world, "o", OperationState::Waiting).await;
    world
        .server
        .set_faults(|info| match info.is(Verb::Patch, "operationactions") {
            true => refuse(500),
            false => Fault::None,
        });
    world.ask("o", 2, &json!({"retryNow": {"step": "go"}})).await;
    world
        .until("it is decided on", |world| remembered(world, "o") == 1)
        .await;
    world.delete::<OperationAction>("o-2").await;
    world
        .until("it is forgotten", |world| remembered(world, "o") == 0)
        .await;
    world.ask("o", 3, &json!({"retryNow": {"step": "go"}})).await;
    world
        .until("it is decided on", |world| remembered(world, "o") == 1)
        .await;
    world.delete::<CloudOperation>("o").await;
    world.server.clear_faults();
    is_told(&world, "o-3").await;
    world.kill_all().await;
}

/// Naps for a minute with a key.
fn exclusive(name: &str) -> Value {
    manifest(
        name,
        json!({"concurrency": {"key": "'k'"}, "steps": [{"name": "nap", "wait": {"duration": "1m"}}]}),
    )
}

async fn a_key_goes_from_hand_to_hand() {
    let mut world = World::new(1);
    world.start();
    let no_lock = |world: &World| world.server.list::<OperationLock>().is_empty();
    for name in ["a", "b"] {
        world.apply(&exclusive(name)).await;
        sleep(Duration::from_secs(1)).await;
    }
    comes_to(&world, "b", OperationState::Succeeded).await;
    world.until("the lock is gone", no_lock).await;
    world.apply(&exclusive("c")).await;
    comes_to(&world, "c", OperationState::Waiting).await;
    world.delete::<CloudOperation>("c").await;
    world.until("the lock goes with it", no_lock).await;
    for name in ["d", "e", "f"] {
        let mut of_two = exclusive(name);
        of_two["spec"]["concurrency"]["max"] = json!(2);
        world.apply(&of_two).await;
        sleep(Duration::from_secs(1)).await;
    }
    comes_to(&world, "f", OperationState::Queued).await;
    world.delete::<CloudOperation>("d").await;
    comes_to(&world, "f", OperationState::Succeeded).await;
    world.check();
    world.kill_all().await;
}

/// The process dies between lock and start: whoever goes on takes the key anew, or another takes it, if that is held.
async fn a_key_is_taken_and_not_used() {
    for held in [false, true] {
        let mut world = World::new(1);
        let start = |info: &RequestInfo| info.subresource == "status" && info.name == "a";
        let sniper = Sniper::aim(&world, Crash::AtRequest(1, false), start);
        let operator = world.start();
        world.apply(&exclusive("a")).await;
        sniper.shot().await;
        world.kill(operator).await;
        if held {
            patch(&world, "a", json!({"spec": {"suspend": true}})).await;
        }
        world.start();
        world.apply(&exclusive("b")).await;
        comes_to(&world, "b", OperationState::Succeeded).await;
        if held {
            patch(&world, "a", json!({"spec": {"suspend": false}})).await;
        }
        comes_to(&world, "a", OperationState::Succeeded).await;
        world.check();
        world.kill_all().await;
    }
}

async fn the_lease_changes_hands() {
    let mut world = World::new(1);
    let holder = |world: &World| {
        let lease: Option<Lease> = world.server.get("holdfast-system", "holdfast");
        lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default()
    };
    let leads = |number: usize| move |world: &World| holder(world).starts_with(&format!("operator{number}_"));
    let first = world.start();
    world.until("the first leads", leads(first)).await;
    sleep(LEASE).await; // it renews
    world.stop(first).await;
    assert_eq!(holder(&world), "");
    let second = world.start();
    world.until("the second leads", leads(second)).await;
    let third = world.start();
    world.kill(second).await;
    world.until("the third leads", leads(third)).await;
    let before = holder(&world);
    let leases: Api<Lease> = Api::namespaced(world.server.client("user"), "holdfast-system");
    leases.delete("holdfast", &DeleteParams::default()).await.unwrap();
    world
        .until("it leads anew", |world| leads(third)(world) && holder(world) != before)
        .await;
    world.kill_all().await;
}

/// Runs a template that makes a call and naps.
fn templated(name: &str, fields: Value) -> Value {
    let mut manifest = manifest(name, fields);
    manifest["spec"]["templateRef"] = json!({"name": "t"});
    manifest
}

fn put_template(world: &World) {
    let nap = json!({"name": "nap", "wait": {"duration": "1m"}});
    world.put_template("t", &json!({"steps": [nap]}));
}

fn pin(world: &World, name: &str) -> Option<OperationHistory> {
    let mut pins = world.server.list::<OperationHistory>().into_iter();
    pins.find(|pin| pin.spec.operation_ref.name == name && pin.spec.template.is_some())
}

async fn delete_pin(world: &World, name: &str) -> OperationHistory {
    let lost = pin(world, name).unwrap();
    world.delete::<OperationHistory>(&lost.name_any()).await;
    lost
}

async fn a_template_is_pinned_and_goes_with_its_operation() {
    let mut world = World::new(1);
    let operator = world.start();
    put_template(&world);
    world
        .apply(&templated("a", json!({"ttlSecondsAfterFinished": 60})))
        .await;
    comes_to(&world, "a", OperationState::Succeeded).await;
    world.until("it is compacted", |world| pin(world, "a").is_none()).await;
    world.apply(&templated("b", json!({}))).await;
    comes_to(&world, "b", OperationState::Waiting).await;
    world.delete::<CloudOperation>("b").await;
    world
        .until("it goes with its operation", |world| pin(world, "b").is_none())
        .await;
    world.apply(&templated("c", json!({}))).await;
    comes_to(&world, "c", OperationState::Waiting).await;
    world.kill(operator).await;
    let mut changed = pin(&world, "c").unwrap();
    changed.spec.template.as_mut().unwrap().spec["steps"] = json!([{"name": "other", "set": {"x": 1}}]);
    world.server.put(&changed);
    world.start();
    comes_to(&world, "c", OperationState::SpecChanged).await;
    world.check();
    world.kill_all().await;
}

async fn what_was_pinned_is_lost_before_the_start() {
    let mut world = World::new(1);
    let operator = world.start();
    put_template(&world);
    world.apply(&exclusive("a")).await;
    comes_to(&world, "a", OperationState::Waiting).await;
    world
        .apply(&templated("b", json!({"concurrency": {"key": "'k'"}})))
        .await;
    comes_to(&world, "b", OperationState::Queued).await;
    world.kill(operator).await;
    delete_pin(&world, "b").await;
    world.start();
    comes_to(&world, "b", OperationState::Succeeded).await;
    assert!(pin(&world, "b").is_some(), "it was pinned anew");
    world.check();
    world.kill_all().await;
}

/// An operation loses what it runs while it is in a state: it is stuck until somebody puts that back.
async fn what_was_pinned_is_lost(state: OperationState) {
    let call = |url: &str| json!({"method": "POST", "url": format!("http://inventory.prod/{url}")});
    let nap = json!({"name": "nap", "wait": {"duration": "1h"}});
    let steps = match state {
        OperationState::Running => json!([{"name": "slow", "http": call("slow/60000")}]),
        OperationState::AwaitingApproval => json!([{"name": "word", "approval": {"message": "?"}}]),
        OperationState::BackingOff => {
            json!([{"name": "busy", "http": call("status/503"), "retry": {"initialInterval": "1h"}}])
        }
        OperationState::Compensating => json!([
            {"name": "done", "http": call("done"), "compensate": {"http": call("status/503"), "retry": {"initialInterval": "1h"}}},
            {"name": "no", "http": call("status/422")},
        ]),
        _ => json!([nap]),
    };
    let mut world = World::new(1);
    let operator = world.start();
    world.put_template("t", &json!({"failurePolicy": "Compensate", "steps": steps}));
    world.apply(&templated("o", json!({}))).await;
    if state == OperationState::Suspended {
        comes_to(&world, "o", OperationState::Waiting).await;
        patch(&world, "o", json!({"spec": {"suspend": true}})).await;
    }
    comes_to(&world, "o", state).await;
    world.kill(operator).await;
    let lost = delete_pin(&world, "o").await;
    world.start();
    comes_to(&world, "o", OperationState::Stuck).await;
    world.server.put(&lost);
    world
        .until("it goes on", |world| world.state("o") != Some(OperationState::Stuck))
        .await;
    world.check();
    world.kill_all().await;
}

async fn what_waits_for_its_start_says_so() {
    let mut world = World::new(1);
    world.start();
    world
        .apply(&templated("a", json!({"concurrency": {"key": "'k'"}, "suspend": true})))
        .await;
    comes_to(&world, "a", OperationState::Waiting).await; // for its template
    put_template(&world);
    comes_to(&world, "a", OperationState::Suspended).await;
    world.apply(&exclusive("b")).await;
    comes_to(&world, "b", OperationState::Waiting).await;
    patch(&world, "a", json!({"spec": {"suspend": false}})).await;
    comes_to(&world, "a", OperationState::Queued).await;
    comes_to(&world, "a", OperationState::Succeeded).await;
    world.check();
    world.kill_all().await;
}

/// Has more of a history than a status has room for.
fn long(name: &str) -> Value {
    let many = json!({"name": "many", "forEach": "lists.range(160)", "assert": "true"});
    let call =
        |name: &str| json!({"name": name, "http": {"method": "POST", "url": format!("http://inventory.prod/{name}")}});
    manifest(
        name,
        json!({"ttlSecondsAfterFinished": 60, "steps": [call("before"), many, call("last")]}),
    )
}

async fn a_history_is_moved_and_pruned() {
    let mut world = World::new(1);
    world.start();
    world.apply(&long("o")).await;
    comes_to(&world, "o", OperationState::Succeeded).await;
    let spilled = world.operation("o").status.unwrap().history_spilled;
    assert!(spilled > 0 && !world.server.list::<OperationHistory>().is_empty());
    world
        .until("it is compacted", |world| {
            world.server.list::<OperationHistory>().is_empty()
        })
        .await;
    world.check();
    world.kill_all().await;
}

async fn a_history_goes_with_its_operation() {
    for trimmed in [true, false] {
        let mut world = World::new(1);
        world.start();
        world.server.set_faults(
            move |info| match !trimmed && info.is(Verb::Create, "operationhistories") {
                true => Fault::DelayAnswer(Duration::from_secs(5)), // it leaves the status with the next write after that
                false => Fault::None,
            },
        );
        world.apply(&long("o")).await;
        let chunks = |world: &World| world.server.list::<OperationHistory>().len();
        let moved = |world: &World| {
            world
                .operation("o")
                .status
                .is_some_and(|status| status.history_spilled > 0)
        };
        world
            .until("it is moved", |world| chunks(world) > 0 && (moved(world) || !trimmed))
            .await;
        assert_eq!(moved(&world), trimmed);
        world.delete::<CloudOperation>("o").await;
        world
            .until("it goes with its operation", |world| chunks(world) == 0)
            .await;
        world.kill_all().await;
    }
}
