//! What goes away at the end of a time to live: crashed at every request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use holdfast::api::{CloudOperation, OperationHistory, OperationState};
use holdfast_apiserver::{Fault, Verb};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::service::CallFault;
use crate::sniper::{Crash, Seen, Sniper};
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

/// Crashes between the end and a good while after the time to live.
async fn pruned(crash: Crash) -> Seen {
    let mut world = World::new(1);
    let mut operator = world.start();
    world.apply(&manifest()).await;
    world.until("it ends", |world| world.finished("pruned")).await;
    assert!(!world.server.list::<OperationHistory>().is_empty(), "it has chunks");
    let sniper = Sniper::aim(&world, crash, |info| info.resource != "leases");
    let a_while = async |_: &World| sleep(Duration::from_secs(40)).await;
    sniper.watch(&mut world, &mut operator, a_while).await;
    let status = world.operation("pruned").status.unwrap();
    assert_eq!(status.compacted, Some(true), "{crash:?}");
    assert_eq!(
        world.server.list::<OperationHistory>(),
        vec![],
        "{crash:?}: chunks are left"
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
    assert_eq!(world.service.calls(), 2, "{crash:?}: something ran again");
    assert_eq!(world.operation("pruned").status, Some(status));
    world.check();
    world.kill_all().await;
    sniper.seen()
}

#[tokio::test(start_paused = true)]
async fn what_is_compacted_loses_its_chunks_and_keeps_its_outcome_wherever_the_operator_dies() {
    let seen = pruned(Crash::Never).await;
    assert!(seen.requests > 3, "only {seen:?}");
    for crash in seen.crashes() {
        pruned(crash).await;
    }
}

/// A person retries what has failed, and something else is written, while the write is under way that would compact it:
/// the retry wins, and what the operation runs is still there, for another leader, too.
#[tokio::test(start_paused = true)]
async fn a_retry_that_overtakes_the_end_of_the_time_to_live_finds_what_the_operation_runs() {
    let mut world = World::new(1);
    let late = Arc::new(AtomicBool::new(false));
    let armed = late.clone();
    world.server.set_faults(move |info| {
        let write = info.is(Verb::Update, "cloudoperations/status");
        match write && armed.swap(false, Ordering::Relaxed) {
            true => Fault::Delay(Duration::from_secs(3)),
            false => Fault::None,
        }
    });
    world.service.set_faults(|call| match call {
        1 => CallFault::NoConnection,
        _ => CallFault::None,
    });
    let steps = json!([
        {"name": "call", "retry": {"maximumAttempts": 1}, "http": {"method": "POST", "url": "http://inventory.prod/call"}},
        {"name": "nap", "wait": {"duration": "1m"}},
    ]);
    world.put_template("naps", &json!({"steps": steps}));
    let operator = world.start();
    let retried = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": "retried", "namespace": NAMESPACE},
        "spec": {"ttlSecondsAfterFinished": 15, "templateRef": {"name": "naps"}},
    });
    world.apply(&retried).await;
    world.until("it ends", |world| world.finished("retried")).await;
    late.store(true, Ordering::Relaxed);
    let under_way = |_: &World| !late.load(Ordering::Relaxed);
    world.until("it is being compacted", under_way).await;
    let label = Patch::Merge(json!({"metadata": {"labels": {"looked": "at"}}}));
    let api: Api<CloudOperation> = Api::namespaced(world.server.client("user"), NAMESPACE);
    api.patch("retried", &PatchParams::default(), &label).await.unwrap();
    world.ask("retried", 1, &json!({"retry": {"step": "call"}})).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.state("retried"), Some(OperationState::Waiting));
    world.kill(operator).await;
    world.start();
    sleep(Duration::from_secs(70)).await;
    assert_eq!(world.state("retried"), Some(OperationState::Succeeded));
    world.kill_all().await;
}

/// A quota, say, refuses the objects that the history goes into: the operation says so, and neither it nor the operator
/// tries all the time; once there is room, it goes on.
#[tokio::test(start_paused = true)]
async fn an_operation_whose_history_cannot_be_moved_says_so_and_goes_on_once_it_can() {
    let mut world = World::new(1);
    world
        .server
        .set_faults(|info| match info.is(Verb::Create, "operationhistories") {
            true => Fault::Fail {
                code: 403,
                retry_after: None,
            },
            false => Fault::None,
        });
    world.start();
    let mut long = manifest();
    long["spec"]["steps"][1]["forEach"] = json!("lists.range(400)");
    world.apply(&long).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.state("pruned"), Some(OperationState::Stuck));
    let message = world.message("pruned");
    assert!(
        message.contains("its history can't be moved to an OperationHistory: "),
        "{message}"
    );
    let before = world.server.writes().len();
    let counts = world.server.request_counts();
    let tries = counts[&(Verb::Create, "operationhistories".to_owned())];
    assert!((2..10).contains(&tries), "{tries} tries");
    sleep(Duration::from_secs(600)).await;
    let written = world.server.writes().split_off(before).into_iter();
    let written = written.filter(|write| write.change.key.resource == "cloudoperations");
    assert_eq!(written.count(), 0, "writes of what nothing comes of");
    let counts = world.server.request_counts();
    let more = counts[&(Verb::Create, "operationhistories".to_owned())] - tries;
    assert!((5..15).contains(&more), "{more} more tries");
    world.server.clear_faults();
    sleep(Duration::from_secs(90)).await;
    assert_eq!(world.state("pruned"), Some(OperationState::Succeeded));
    world.check();
    world.kill_all().await;
}

/// The API server never answers the deletion: it is tried again, and meanwhile keeps no other from its turn for ever.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_never_answered_is_made_again() {
    let mut world = World::new(1);
    let tried = AtomicUsize::new(0);
    world.server.set_faults(move |info| {
        match info.is(Verb::Delete, "cloudoperations") && tried.fetch_add(1, Ordering::Relaxed) < 2 {
            true => Fault::Hang,
            false => Fault::None,
        }
    });
    world.start();
    let mut disposable = manifest();
    disposable["metadata"]["generateName"] = json!("pruned-");
    world.apply(&disposable).await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(world.server.list::<CloudOperation>(), vec![]);
    world.kill_all().await;
}
