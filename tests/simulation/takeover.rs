//! Who leads, and what becomes of work when that changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast::api::{CloudOperation, HistoryEvent, OperationState};
use holdfast::controllers::HOLD_ALL_ANNOTATION;
use holdfast_apiserver::{Fault, RequestInfo, Verb};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::samples::sample;
use crate::world::{LEASE, NAMESPACE, World, of_operator};

fn events(world: &World, name: &str) -> Vec<HistoryEvent> {
    world
        .operation(name)
        .status
        .unwrap()
        .history
        .iter()
        .map(|e| e.event)
        .collect()
}

/// A world whose operation waits for its timer.
pub async fn napping() -> World {
    let mut world = World::new(1);
    world.start();
    world.apply(&sample("timer").manifest).await;
    let begun = |world: &World| world.state("timer") == Some(OperationState::Waiting);
    world.until("the nap has begun", begun).await;
    world
}

#[tokio::test(start_paused = true)]
async fn the_second_takes_over_from_a_dead_leader_and_no_attempt_runs_in_both() {
    let mut world = World::new(1);
    let first = world.start();
    world.apply(&sample("slow").manifest).await;
    world
        .until("the call is under way", |world| world.service.calls() == 1)
        .await;
    world.start();
    sleep(Duration::from_secs(3)).await;
    world.kill(first).await;
    let died = Instant::now();
    world
        .until("the second makes the call", |world| world.service.calls() == 2)
        .await;
    assert!(
        died.elapsed() <= Duration::from_secs(15),
        "it took {:?}",
        died.elapsed()
    );
    world.until("the operation ends", |world| world.finished("slow")).await;
    assert_eq!(world.state("slow"), Some(OperationState::Succeeded));
    assert!(events(&world, "slow").contains(&HistoryEvent::AttemptLost));
    assert_eq!(world.service.answered(first), 0, "a dead process waits for no answer");
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_by_itself_before_another_begins() {
    let mut world = World::new(1);
    world.start();
    for n in 0..4 {
        let mut manifest = sample("slow").manifest;
        manifest["metadata"]["name"] = json!(format!("slow{n}"));
        world.apply(&manifest).await;
    }
    world
        .until("the calls are under way", |world| world.service.calls() == 4)
        .await;
    world.start();
    // Whatever the first sends from now on arrives much later, when it no longer leads, and also what it gave up on.
    world.server.set_faults(|info| {
        if info.user == "operator0" {
            Fault::Delay(Duration::from_secs(30))
        } else {
            Fault::None
        }
    });
    world
        .until("all operations end", |world| {
            (0..4).all(|n| world.finished(&format!("slow{n}")))
        })
        .await;
    sleep(Duration::from_secs(120)).await;
    for n in 0..4 {
        assert_eq!(world.state(&format!("slow{n}")), Some(OperationState::Succeeded));
    }
    assert_eq!(
        world.service.answered(0),
        0,
        "its calls were aborted when its claim ended"
    );
    world.check();
    world.kill_all().await;
}

/// As by SIGSTOP and SIGCONT, in each part of its work: for a little longer than its Lease, or until all is done. It
/// believes in itself until it looks at its clock.
#[tokio::test(start_paused = true)]
async fn a_leader_that_stands_still_beyond_its_lease_does_nothing_more_once_it_goes_on() {
    for number in 0..12 {
        let extra = [0, 9000, 120_000][number % 3];
        stands_still(
            Duration::from_millis(10 + 80 * number as u64),
            Duration::from_millis(extra),
        )
        .await;
    }
}

/// Nothing but what says who leads, and what was seen.
fn changes_by(world: &World, operator: &str) -> Vec<RequestInfo> {
    let requests = world.server.requests().into_iter();
    let changes = requests.filter(|request| request.client == operator && request.is_write());
    changes
        .filter(|request| !["leases", "events"].contains(&request.resource.as_str()))
        .collect()
}

async fn stands_still(after: Duration, extra: Duration) {
    let mut world = World::new(1);
    let names = ["slow", "flaky", "calls", "objects", "job", "parent"];
    world.server.set_faults(|info| match of_operator(info) {
        true => Fault::DelayAnswer(Duration::from_millis(50)),
        false => Fault::None,
    });
    let first = world.start();
    world.until("it leads", |world| leads(world, first)).await;
    for name in names {
        world.apply(&sample(name).manifest).await;
    }
    let second = world.start();
    let cluster = tokio::spawn(crate::cluster::serve(world.server.clone()));
    sleep(after).await;
    let gate = world.pause(first).await;
    world.until("the other leads", |world| leads(world, second)).await;
    sleep(extra).await;
    let (sent, changes) = (world.service.sent_by(first), changes_by(&world, "operator0"));
    assert!(!changes.is_empty());
    gate.open();
    for name in names {
        world.until("the operation ends", |world| world.finished(name)).await;
        assert_eq!(world.state(name), Some(sample(name).expect), "{name}");
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        world.service.sent_by(first),
        sent,
        "it called after its claim had ended"
    );
    let since = changes_by(&world, "operator0").split_off(changes.len());
    assert!(since.is_empty(), "it was at work after its claim had ended: {since:?}");
    // It is well, and leads again where the other ends.
    world.kill(second).await;
    world.until("it leads again", |world| leads(world, first)).await;
    cluster.abort();
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_asked_to_stop_finishes_its_calls_and_hands_over_at_once() {
    let mut world = World::new(1);
    let first = world.start();
    world.apply(&sample("slow").manifest).await;
    world
        .until("the call is under way", |world| world.service.calls() == 1)
        .await;
    world.start();
    world.stop(first).await;
    let lease: Lease = world.server.get("holdfast-system", "holdfast").unwrap();
    assert_eq!(
        lease.spec.unwrap().holder_identity.as_deref(),
        Some(""),
        "the Lease is given back"
    );
    let stopped = Instant::now();
    world.until("the operation ends", |world| world.finished("slow")).await;
    assert!(stopped.elapsed() < LEASE, "the second waited for the Lease to run out");
    assert_eq!(world.service.calls(), 1, "the call that was under way was recorded");
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_clock_is_off_gives_up_and_comes_back_with_it() {
    let mut world = napping().await;
    world.clock.jump(3_600_000);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        world.state("timer"),
        Some(OperationState::Waiting),
        "an hour of a wrong clock ends no nap"
    );
    world.clock.jump(-3_600_000);
    world.until("the operation ends", |world| world.finished("timer")).await;
    assert_eq!(world.state("timer"), Some(OperationState::Succeeded));
    world.check();
    world.kill_all().await;
}

fn leads(world: &World, number: usize) -> bool {
    crate::service::leads(&world.server, number)
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_can_not_be_written_is_tried_at_a_pace() {
    let mut world = World::new(1);
    let tried = Arc::new(AtomicUsize::new(0));
    let count = tried.clone();
    world.server.set_faults(move |info| {
        if info.resource == "leases" && info.verb != Verb::Get {
            count.fetch_add(1, Ordering::SeqCst);
            let (code, retry_after) = (500, None);
            return Fault::Fail { code, retry_after };
        }
        Fault::None
    });
    let first = world.start();
    sleep(60 * LEASE / 10).await;
    let tried = tried.load(Ordering::SeqCst);
    assert!((10..=61).contains(&tried), "{tried}: every tenth of a lease");
    world.server.set_faults(|_| Fault::None);
    world.until("it leads", |world| leads(world, first)).await;
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_asked_to_stop_waits_for_so_long_and_leaves_the_rest_to_the_next() {
    let mut world = World::new(1);
    let first = world.start();
    let mut manifest = sample("slow").manifest;
    manifest["spec"]["steps"][0]["http"]["url"] = json!("http://inventory.prod/slow/55000");
    world.apply(&manifest).await;
    world
        .until("the call is under way", |world| world.service.calls() == 1)
        .await;
    let asked = Instant::now();
    world.stop(first).await;
    let took = asked.elapsed();
    assert!(
        (Duration::from_secs(25)..Duration::from_secs(27)).contains(&took),
        "{took:?}"
    );
    assert!(!leads(&world, first), "the Lease is given back");
    world.start();
    world.until("the operation ends", |world| world.finished("slow")).await;
    assert_eq!(world.state("slow"), Some(OperationState::Succeeded));
    assert!(events(&world, "slow").contains(&HistoryEvent::AttemptLost));
    assert_eq!(
        world.service.answered(first),
        0,
        "a process that ended waits for no answer"
    );
    world.check();
    world.kill_all().await;
}

/// A read of the Lease is on its way for long: what it shows may be as young as its answer.
#[tokio::test(start_paused = true)]
async fn a_lease_counts_from_the_answer_that_showed_it() {
    let mut world = World::new(1);
    let (first, second) = (world.start(), 1);
    world.until("it leads", |world| leads(world, first)).await;
    let (cut_off, reads) = (Instant::now() + Duration::from_millis(4400), AtomicUsize::new(0));
    world.server.set_faults(move |info| {
        let late = info.verb == Verb::Get && info.user == "operator1";
        match info.resource == "leases" {
            true if info.user == "operator0" && Instant::now() >= cut_off => Fault::Hang,
            true if late && reads.fetch_add(1, Ordering::SeqCst) == 0 => Fault::Delay(Duration::from_millis(4500)),
            _ => Fault::None,
        }
    });
    assert_eq!(world.start(), second);
    world.until("the other leads", |world| leads(world, second)).await;
    let of = |number: usize| {
        let writes = world.server.writes().into_iter();
        writes
            .filter(move |write| write.change.key.resource == "leases" && write.user == format!("operator{number}"))
            .map(|write| write.time)
    };
    let (last, next) = (of(first).max().unwrap(), of(second).min().unwrap());
    let between = Duration::try_from(next.duration_since(last)).unwrap();
    assert!((LEASE..2 * LEASE).contains(&between), "{between:?}");
    world.kill_all().await;
}

/// Lists that begin a term stay silent: whoever stops the process need not wait for them.
#[tokio::test(start_paused = true)]
async fn a_leader_that_has_not_begun_yet_ends_when_it_is_asked_to() {
    for resource in ["operationactions", "namespaces"] {
        let mut world = World::new(1);
        world.server.set_faults(move |info| match info.resource == resource {
            true => Fault::Hang,
            false => Fault::None,
        });
        let first = world.start();
        world.until("it leads", |world| leads(world, first)).await;
        let asked = Instant::now();
        world.stop(first).await;
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        assert!(!leads(&world, first), "the Lease is given back");
    }
}

#[tokio::test(start_paused = true)]
async fn one_whose_clock_is_off_takes_no_lease_and_holds_up_no_other() {
    for off in [3_600_000, -3_600_000] {
        let mut world = World::new(1);
        world.start_off(off);
        world.apply(&sample("timer").manifest).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(world.server.get::<Lease>("holdfast-system", "holdfast"), None);
        let healthy = world.start();
        world.until("the operation ends", |world| world.finished("timer")).await;
        assert!(leads(&world, healthy));
        world.check();
        world.kill_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_clock_goes_wrong_hands_over_and_never_takes_the_lease_back() {
    let mut world = World::new(1);
    let (first, clock) = world.start_off(0);
    world.apply(&sample("slow").manifest).await;
    world
        .until("the call is under way", |world| world.service.calls() == 1)
        .await;
    let second = world.start();
    clock.jump(60_000);
    let wrong = Instant::now();
    world.until("the other leads", |world| leads(world, second)).await;
    assert!(
        wrong.elapsed() < LEASE,
        "the Lease is given back: {:?}",
        wrong.elapsed()
    );
    world.until("the operation ends", |world| world.finished("slow")).await;
    assert_eq!(world.service.answered(first), 0, "its call was aborted");
    world.kill(second).await;
    sleep(3 * LEASE).await;
    assert!(!leads(&world, first), "its clock is still wrong");
    clock.jump(-60_000);
    world.until("it leads again", |world| leads(world, first)).await;
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_goes_wrong_while_the_lease_is_taken_gives_it_back() {
    let mut world = World::new(1);
    let (_, clock) = world.start_off(0);
    let (first, wrong) = (std::sync::atomic::AtomicBool::new(true), clock.clone());
    world.server.set_faults(move |info| {
        if info.is(Verb::Create, "leases") && first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            wrong.jump(60_000);
        }
        Fault::None
    });
    sleep(Duration::from_secs(30)).await;
    let lease: Lease = world.server.get("holdfast-system", "holdfast").unwrap();
    assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some(""));
    clock.jump(-60_000);
    world.until("it leads", |world| leads(world, 0)).await;
    world.kill_all().await;
}

/// The wall clock jumps between two renewals of the Lease, and before the next one shows that it is wrong something has
/// to be decided.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ends_no_deadline_and_takes_no_operations_time_with_it() {
    for by in [3_600_000, -3_600_000] {
        let mut world = World::new(1);
        let (first, clock) = world.start_off(0);
        world.until("it leads", |world| leads(world, first)).await;
        let mut manifest = sample("slow").manifest;
        manifest["spec"] = json!({"timeout": "5m", "steps": [
            {"name": "call", "http": {"url": "http://inventory.prod/slow/200"}, "timeouts": {"scheduleToClose": "1m"}},
            {"name": "nap", "wait": {"duration": "10s"}},
        ]});
        let begin = Instant::now();
        world.apply(&manifest).await;
        sleep(Duration::from_millis(100)).await;
        assert_eq!(world.service.calls(), 1);
        clock.jump(by);
        sleep(Duration::from_millis(200)).await;
        assert!(leads(&world, first), "it doesn't know yet");
        assert_eq!(world.state("slow"), Some(OperationState::Waiting));
        sleep(Duration::from_secs(5)).await;
        assert!(!leads(&world, first), "it gave the Lease back");
        clock.correct();
        world.until("the operation ends", |world| world.finished("slow")).await;
        assert_eq!(world.state("slow"), Some(OperationState::Succeeded));
        let took = begin.elapsed();
        assert!(
            (Duration::from_secs(10)..Duration::from_secs(30)).contains(&took),
            "{took:?}"
        );
        world.check();
        world.kill_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_cache_decides_nothing() {
    let mut world = World::new(1);
    world.start();
    let mut manifest = sample("slow").manifest;
    let never = json!({"name": "never", "http": {"url": "http://inventory.prod/never"}});
    manifest["spec"]["steps"].as_array_mut().unwrap().push(never);
    world.apply(&manifest).await;
    world
        .until("the call is under way", |world| world.service.calls() == 1)
        .await;
    world.server.hold_watches();
    // A person cancels; the operator doesn't hear of it, but its next write does.
    let api: Api<CloudOperation> = Api::namespaced(world.server.client("user"), NAMESPACE);
    api.patch(
        "slow",
        &PatchParams::default(),
        &Patch::Merge(json!({"spec": {"cancel": {"reason": "stop"}}})),
    )
    .await
    .unwrap();
    world.until("the operation ends", |world| world.finished("slow")).await;
    assert_eq!(world.state("slow"), Some(OperationState::Cancelled));
    assert_eq!(world.service.calls(), 1);
    world.server.release_watches();
    sleep(Duration::from_secs(10)).await;
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_held_namespace_costs_one_write_and_its_release_wakes() {
    let mut world = napping().await;
    let label = async |value: Option<&str>| {
        let api: Api<Namespace> = Api::all(world.server.client("admin"));
        let patch = Patch::Merge(json!({"metadata": {"labels": {"holdfast.dev/suspended": value}}}));
        api.patch(NAMESPACE, &PatchParams::default(), &patch).await.unwrap();
    };
    let writes = |world: &World| {
        let requests = world.server.requests().into_iter();
        requests
            .filter(|request| request.resource == "cloudoperations" && request.is_write())
            .count()
    };
    let before = writes(&world);
    label(Some("true")).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.state("timer"), Some(OperationState::Suspended));
    assert_eq!(writes(&world), before + 1, "it says once that it is held");
    label(None).await;
    world.until("the operation ends", |world| world.finished("timer")).await;
    assert_eq!(world.state("timer"), Some(OperationState::Succeeded));
    world.check();
    world.kill_all().await;
}

/// Everything is held for longer than the operation may take, and neither the leader of the second part nor that of the
/// time after it knows how long.
#[tokio::test(start_paused = true)]
async fn a_hold_of_everything_takes_no_time_though_leaders_change_in_it() {
    let mut world = World::new(1);
    let first = world.start();
    let mut manifest = sample("timer").manifest;
    manifest["spec"]["timeout"] = json!("20m");
    world.apply(&manifest).await;
    let napping = |world: &World| world.state("timer") == Some(OperationState::Waiting);
    world.until("the nap has begun", napping).await;
    let leases: Api<Lease> = Api::namespaced(world.server.client("admin"), "holdfast-system");
    let annotate = async |why: Option<&str>| {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {HOLD_ALL_ANNOTATION: why}}}));
        leases.patch("holdfast", &PatchParams::default(), &patch).await.unwrap();
    };
    annotate(Some("a look")).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.state("timer"), Some(OperationState::Suspended));
    world.kill(first).await;
    let second = world.start();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.state("timer"), Some(OperationState::Suspended));
    world.kill(second).await;
    annotate(None).await;
    world.start();
    world.until("the operation ends", |world| world.finished("timer")).await;
    assert_eq!(world.state("timer"), Some(OperationState::Succeeded));
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_was_created_held_holds_its_first_operation() {
    let mut world = napping().await;
    world
        .server
        .set_faults(|info| match info.is(Verb::Watch, "namespaces") {
            true => Fault::RefuseConnection,
            false => Fault::None,
        });
    world.server.drop_watches(|info| info.resource == "namespaces");
    let namespaces: Api<Namespace> = Api::all(world.server.client("admin"));
    let held = json!({"metadata": {"name": "fresh", "labels": {"holdfast.dev/suspended": "true"}}});
    let held: Namespace = serde_json::from_value(held).unwrap();
    namespaces.create(&PostParams::default(), &held).await.unwrap();
    let mut operation: CloudOperation = serde_json::from_value(sample("slow").manifest).unwrap();
    operation.metadata.namespace = Some("fresh".into());
    let operations: Api<CloudOperation> = Api::namespaced(world.server.client("user"), "fresh");
    operations.create(&PostParams::default(), &operation).await.unwrap();
    let state = |world: &World| {
        let operation: CloudOperation = world.server.get("fresh", "slow").unwrap();
        operation.status.and_then(|status| status.state)
    };
    world.until("it is looked at", |world| state(world).is_some()).await;
    assert_eq!(state(&world), Some(OperationState::Suspended));
    world.server.set_faults(|_| Fault::None);
    let release = Patch::Merge(json!({"metadata": {"labels": {"holdfast.dev/suspended": null}}}));
    namespaces
        .patch("fresh", &PatchParams::default(), &release)
        .await
        .unwrap();
    let ended = |world: &World| state(world) == Some(OperationState::Succeeded);
    world.until("it ends", ended).await;
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_operation_costs_no_request() {
    let mut world = napping().await;
    sleep(Duration::from_secs(20)).await;
    let before = world.server.requests().len();
    sleep(Duration::from_secs(120)).await;
    let idle: Vec<_> = world.server.requests()[before..]
        .iter()
        .filter(|r| r.resource != "leases" && r.verb != Verb::Watch)
        .cloned()
        .collect();
    assert!(idle.is_empty(), "{idle:?}");
    world.kill_all().await;
}
