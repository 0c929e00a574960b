//! Schedules: exactly one operation for each due time, whatever crashes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use holdfast::api::{CloudOperation, OperationSchedule, OperationState, SCHEDULED_AT_ANNOTATION};
use holdfast_apiserver::{Fault, RequestInfo, Verb};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::sniper::{Crash, Seen, Sniper, but_renewals};
use crate::world::{NAMESPACE, World, of_operator};

const QUICK: &str = "{steps: [{name: call, http: {method: POST, url: 'http://inventory.prod/called'}}]}";
const SLOW: &str = "{steps: [{name: nap, wait: {duration: 25m}}]}";

fn put(world: &World, fields: &str, operation: &str) {
    put_every("*/10", world, fields, operation);
}

fn put_every(minutes: &str, world: &World, fields: &str, operation: &str) {
    let text = format!("{{schedule: '{minutes} * * * *', operation: {{spec: {operation}}}, {fields}}}");
    let spec = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut schedule = OperationSchedule::new("often", spec);
    schedule.metadata.namespace = Some(NAMESPACE.into());
    world.server.put(&schedule);
}

fn schedule(world: &World) -> OperationSchedule {
    world.server.get(NAMESPACE, "often").unwrap()
}

/// How often an operation was created for each due time, as hours and minutes.
fn created(world: &World) -> BTreeMap<String, usize> {
    let mut created = BTreeMap::new();
    for write in world.server.writes() {
        if write.change.key.resource == "cloudoperations"
            && write.change.before.is_none()
            && let Some(after) = &write.change.after
            && let Some(due) = after.object["metadata"]["annotations"][SCHEDULED_AT_ANNOTATION].as_str()
        {
            *created.entry(due[11..16].to_owned()).or_insert(0) += 1;
        }
    }
    created
}

fn once(times: &[&str]) -> BTreeMap<String, usize> {
    times.iter().map(|time| ((*time).to_owned(), 1)).collect()
}

async fn patch(world: &World, patch: Value) {
    let api: Api<OperationSchedule> = Api::namespaced(world.server.client("user"), NAMESPACE);
    let patched = api.patch("often", &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.unwrap();
}

/// Until so many minutes after midnight, when every world begins.
async fn until_minute(world: &World, minute: u64) {
    let begin = "2026-11-24T00:00:00Z".parse().map(holdfast::api::Time::new).unwrap();
    let then = begin.plus(Duration::from_secs(minute * 60));
    sleep(then.since(holdfast::controllers::Clock::now(&world.clock))).await;
}

#[tokio::test(start_paused = true)]
async fn it_starts_an_operation_at_each_due_time_and_costs_nothing_between() {
    let mut world = World::new(1);
    world.start();
    put(&world, "", QUICK);
    until_minute(&world, 35).await;
    assert_eq!(created(&world), once(&["00:10", "00:20", "00:30"]));
    assert_eq!(world.service.effects()["/called"], 3);
    let operation = world.operation("often-29924660");
    assert_eq!(operation.owner_references()[0].name, "often");
    assert_eq!(operation.labels()["holdfast.dev/schedule"], "often");
    let status = schedule(&world).status.unwrap();
    assert_eq!(
        status.last_schedule_time.unwrap().to_string(),
        "2026-11-24T00:30:00.000Z"
    );
    assert_eq!(status.next_times.len(), 5);
    assert_eq!((status.active.len(), status.missed, status.skipped), (0, 0, 0));
    let requests = |world: &World| {
        let all = world.server.requests().into_iter().filter(of_operator);
        all.filter(|info| info.resource != "leases" && info.verb != Verb::Watch)
            .count()
    };
    let before = requests(&world);
    until_minute(&world, 39).await;
    assert_eq!(requests(&world), before, "it sleeps until the next");
    until_minute(&world, 125).await;
    let kept = world.server.list::<CloudOperation>();
    assert_eq!(kept.len(), 3, "successfulHistoryLimit");
    world.delete::<OperationSchedule>("often").await;
    world
        .until("its operations go with it", |world| {
            world.server.list::<CloudOperation>().is_empty()
        })
        .await;
    world.check();
    world.kill_all().await;
}

/// What came of a schedule.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// How often an operation was created for each due time.
    created: BTreeMap<String, usize>,
    /// What became of it.
    ended: BTreeMap<String, OperationState>,
    effects: BTreeMap<String, usize>,
    missed: i64,
    skipped: i64,
    under_way: usize,
    /// How many operations are still there.
    kept: usize,
}

/// The last state of the operation of each due time, also of those that were deleted.
fn ended(world: &World) -> BTreeMap<String, OperationState> {
    let after = world.server.writes().into_iter().filter_map(|write| write.change.after);
    after
        .filter_map(|after| {
            let due = after.object["metadata"]["annotations"][SCHEDULED_AT_ANNOTATION].as_str()?;
            let state = serde_json::from_value(after.object["status"]["state"].clone()).ok()?;
            Some((due[11..16].to_owned(), state))
        })
        .collect()
}

/// A schedule that is due at some minutes, and until when everything has come of it.
#[derive(Clone, Copy)]
struct Plan {
    minutes: &'static str,
    fields: &'static str,
    /// How long each operation takes, in seconds, between a call and another.
    nap: u64,
    until: u64,
}

async fn crash_at(crash: Crash, plan: Plan) -> (Outcome, Seen) {
    let mut world = World::new(1);
    let but_renewals = but_renewals();
    let counts = move |info: &RequestInfo| info.resource != "events" && but_renewals(info); // Events decide nothing
    let sniper = Sniper::aim(&world, crash, counts);
    sleep(Duration::from_secs(40)).await; // there is nothing to be seen before the first minute
    let nap = plan.nap;
    let operation = format!(
        "{{steps: [
            {{name: first, http: {{method: POST, url: 'http://inventory.prod/first'}}}},
            {{name: nap, wait: {{duration: {nap}s}}}},
            {{name: last, http: {{method: POST, url: 'http://inventory.prod/last'}}}}]}}"
    );
    put_every(plan.minutes, &world, plan.fields, &operation);
    let mut operator = world.start();
    let all = async |world: &World| until_minute(world, plan.until).await;
    sniper.watch(&mut world, &mut operator, all).await;
    let status = schedule(&world).status.unwrap();
    assert!(status.backfills.iter().all(|backfill| backfill.done), "{status:?}");
    let outcome = Outcome {
        created: created(&world),
        ended: ended(&world),
        effects: world.service.effects(),
        missed: status.missed,
        skipped: status.skipped,
        under_way: status.active.len() + status.waiting.len(),
        kept: world.server.list::<CloudOperation>().len(),
    };
    world.check();
    world.kill_all().await;
    (outcome, sniper.seen())
}

/// What comes of a schedule, wherever the operator dies.
async fn crashed_everywhere(plan: Plan) -> Outcome {
    let (expected, seen) = crash_at(Crash::Never, plan).await;
    assert!(seen.requests > 30 && seen.calls > 1, "only {seen:?}");
    assert_eq!((expected.missed, expected.under_way), (0, 0), "{expected:?}");
    for crash in seen.crashes() {
        let (outcome, _) = crash_at(crash, plan).await;
        assert_eq!(outcome, expected, "{crash:?}");
    }
    println!("before and after each of {seen:?}");
    expected
}

fn called(first: usize, last: usize) -> BTreeMap<String, usize> {
    [("/first".to_owned(), first), ("/last".to_owned(), last)].into()
}

/// With a policy that waits, a backfill, and a limit that deletes.
#[tokio::test(start_paused = true)]
async fn crashed_everywhere_each_due_time_has_exactly_one_operation() {
    let outcome = crashed_everywhere(Plan {
        minutes: "1-3",
        fields: "concurrencyPolicy: BufferAll, catchUpWindow: 5m, successfulHistoryLimit: 0,
            backfill: [{from: '2026-11-23T10:00:00Z', to: '2026-11-23T10:01:00Z'}]",
        nap: 1,
        until: 4,
    })
    .await;
    assert_eq!(outcome.created, once(&["00:01", "00:02", "00:03", "10:01"]));
    assert_eq!((outcome.effects, outcome.skipped, outcome.kept), (called(4, 4), 0, 0));
}

#[tokio::test(start_paused = true)]
async fn crashed_everywhere_what_is_due_while_another_is_under_way_is_skipped() {
    let outcome = crashed_everywhere(Plan {
        minutes: "1-2",
        fields: "concurrencyPolicy: Skip, catchUpWindow: 5m",
        nap: 90,
        until: 3,
    })
    .await;
    assert_eq!(outcome.created, once(&["00:01"]));
    assert_eq!((outcome.effects, outcome.skipped), (called(1, 1), 1));
}

#[tokio::test(start_paused = true)]
async fn crashed_everywhere_one_waits_and_the_next_is_skipped() {
    let outcome = crashed_everywhere(Plan {
        minutes: "1-3",
        fields: "concurrencyPolicy: BufferOne, catchUpWindow: 5m",
        nap: 140,
        until: 6,
    })
    .await;
    assert_eq!(outcome.created, once(&["00:01", "00:02"]));
    assert_eq!((outcome.effects, outcome.skipped), (called(2, 2), 1));
}

#[tokio::test(start_paused = true)]
async fn crashed_everywhere_the_next_cancels_the_one_before() {
    let outcome = crashed_everywhere(Plan {
        minutes: "1-2",
        fields: "concurrencyPolicy: CancelOther, catchUpWindow: 5m",
        nap: 80,
        until: 4,
    })
    .await;
    assert_eq!(outcome.created, once(&["00:01", "00:02"]));
    let states: Vec<_> = outcome.ended.into_values().collect();
    assert_eq!(states, [OperationState::Cancelled, OperationState::Succeeded]);
    assert_eq!((outcome.effects, outcome.skipped), (called(2, 1), 0));
}

#[tokio::test(start_paused = true)]
async fn crashed_everywhere_all_run_side_by_side() {
    let outcome = crashed_everywhere(Plan {
        minutes: "1-2",
        fields: "concurrencyPolicy: AllowAll, jitter: 20s, startDeadline: 5m, catchUpWindow: 5m",
        nap: 90,
        until: 5,
    })
    .await;
    assert_eq!(outcome.created, once(&["00:01", "00:02"]));
    assert_eq!((outcome.effects, outcome.skipped), (called(2, 2), 0));
}

#[tokio::test(start_paused = true)]
async fn two_operators_and_lost_answers_start_no_due_time_twice() {
    let mut world = World::new(1);
    world.set_unreliable(7, 25);
    let first = world.start();
    world.start();
    put(
        &world,
        "concurrencyPolicy: AllowAll, catchUpWindow: 9m, successfulHistoryLimit: 100",
        QUICK,
    );
    until_minute(&world, 23).await;
    world.kill(first).await;
    until_minute(&world, 58).await;
    world.server.clear_faults();
    until_minute(&world, 59).await;
    assert_eq!(created(&world), once(&["00:10", "00:20", "00:30", "00:40", "00:50"]));
    world.check();
    world.kill_all().await;
}

/// What Events say of the schedule: type, reason, note, and which operation they are about.
fn events(world: &World) -> Vec<(String, String, String, Option<String>)> {
    let events = world.server.list::<Event>().into_iter();
    let of_schedules = events.filter(|event| {
        let regarding = event.regarding.clone().unwrap_or_default();
        (regarding.kind.as_deref(), regarding.name.as_deref()) == (Some("OperationSchedule"), Some("often"))
    });
    let text = |text: Option<String>| text.unwrap_or_default();
    let mut said: Vec<_> = of_schedules
        .map(|event| {
            let about = event.related.and_then(|related| related.name);
            (text(event.type_), text(event.reason), text(event.note), about)
        })
        .collect();
    said.sort();
    said
}

#[tokio::test(start_paused = true)]
async fn events_say_what_was_started_skipped_and_missed_and_what_is_wrong() {
    let mut world = World::new(1);
    let operator = world.start();
    put(&world, "", SLOW);
    until_minute(&world, 22).await;
    let name = world.server.list::<CloudOperation>()[0].name_any();
    let started = (
        "Normal".to_owned(),
        "Started".to_owned(),
        format!("CloudOperation {name} was created; it was due at 2026-11-24T00:10:00.000Z"),
        Some(name),
    );
    let skipped = (
        "Normal".to_owned(),
        "Skipped".to_owned(),
        "1 of the due times up to 2026-11-24T00:20:00.000Z was skipped: another operation of the schedule was under way, or waited, and spec.concurrencyPolicy says so".to_owned(),
        None,
    );
    assert_eq!(events(&world), [skipped, started]);

    world.kill(operator).await;
    until_minute(&world, 65).await;
    world.start();
    until_minute(&world, 66).await;
    let missed = events(&world).pop().unwrap();
    assert_eq!((&*missed.0, &*missed.1), ("Warning", "Missed"));
    assert!(
        missed
            .2
            .starts_with("4 of the due times up to 2026-11-24T01:00:00.000Z were missed: "),
        "{missed:?}"
    );

    patch(&world, json!({"spec": {"schedule": "0 25 * * *"}})).await;
    until_minute(&world, 67).await;
    let mut said = events(&world);
    assert_eq!(said.len(), 4, "{said:?}");
    said.retain(|event| event.1 == "Invalid");
    assert!(
        said[0].0 == "Warning"
            && said[0]
                .2
                .starts_with("spec.schedule: \"0 25 * * *\": the hour is \"25\""),
        "{said:?}"
    );
    world.kill_all().await;
}

/// The cache of operations fills late, and both the controller of operations and the schedules wait for it.
#[tokio::test(start_paused = true)]
async fn a_slow_first_list_of_operations_holds_up_neither_them_nor_schedules() {
    for _ in 0..8 {
        let mut world = World::new(1);
        world.server.set_faults(|info| {
            if info.resource == "cloudoperations" && info.verb == Verb::List {
                return Fault::DelayAnswer(Duration::from_secs(3));
            }
            Fault::None
        });
        put(&world, "", QUICK);
        let spec = json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
            "metadata": {"name": "waiting", "namespace": NAMESPACE},
            "spec": {"steps": [{"name": "nap", "wait": {"duration": "1s"}}]}});
        world.apply(&spec).await;
        world.start();
        until_minute(&world, 9).await;
        assert!(world.finished("waiting"));
        until_minute(&world, 11).await;
        assert_eq!(created(&world), once(&["00:10"]));
        world.kill_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_what_the_window_says_is_made_up_for() {
    for (window, expected, missed) in [
        ("1m", vec!["00:10", "03:10"], 17),
        ("25m", vec!["00:10", "02:40", "02:50", "03:00", "03:10"], 14),
    ] {
        let mut world = World::new(1);
        let operator = world.start();
        put(
            &world,
            &format!("concurrencyPolicy: AllowAll, catchUpWindow: {window}"),
            QUICK,
        );
        until_minute(&world, 15).await;
        world.kill(operator).await;
        until_minute(&world, 183).await;
        world.start();
        until_minute(&world, 195).await;
        let expected = once(&expected);
        assert_eq!(created(&world), expected, "{window}");
        assert_eq!(schedule(&world).status.unwrap().missed, missed, "{window}");
        world.kill_all().await;
    }
}

/// When operations were started that take 25 minutes each, of a schedule of every 10 minutes, in an hour and a half.
async fn run_slow(policy: &str) -> (World, Vec<(String, String)>) {
    let mut world = World::new(1);
    world.start();
    put(
        &world,
        &format!("concurrencyPolicy: {policy}, successfulHistoryLimit: 100, failedHistoryLimit: 100"),
        SLOW,
    );
    until_minute(&world, 89).await;
    let mut runs: Vec<_> = world
        .server
        .list::<CloudOperation>()
        .into_iter()
        .map(|operation| {
            let due = operation.annotations()[SCHEDULED_AT_ANNOTATION][11..16].to_owned();
            let started = operation.status.unwrap().start_time.unwrap().to_string()[11..16].to_owned();
            (due, started)
        })
        .collect();
    runs.sort();
    world.check();
    (world, runs)
}

fn runs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(due, start)| ((*due).to_owned(), (*start).to_owned()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn skip() {
    let (mut world, found) = run_slow("Skip").await;
    assert_eq!(
        found,
        runs(&[("00:10", "00:10"), ("00:40", "00:40"), ("01:10", "01:10")])
    );
    assert_eq!(schedule(&world).status.unwrap().skipped, 5);
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn buffer_one() {
    let (mut world, found) = run_slow("BufferOne").await;
    assert_eq!(
        found,
        runs(&[
            ("00:10", "00:10"),
            ("00:20", "00:35"),
            ("00:40", "01:00"),
            ("01:10", "01:25")
        ])
    );
    let status = schedule(&world).status.unwrap();
    assert_eq!((status.skipped, status.waiting.len()), (4, 0));
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn buffer_all() {
    let (mut world, found) = run_slow("BufferAll").await;
    assert_eq!(
        found,
        runs(&[
            ("00:10", "00:10"),
            ("00:20", "00:35"),
            ("00:30", "01:00"),
            ("00:40", "01:25")
        ])
    );
    assert_eq!(schedule(&world).status.unwrap().waiting.len(), 4);
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn cancel_other() {
    let (mut world, found) = run_slow("CancelOther").await;
    let times = ["00:10", "00:20", "00:30", "00:40", "00:50", "01:00", "01:10", "01:20"];
    assert_eq!(found, times.map(|time| (time.to_owned(), time.to_owned())));
    let operations = world.server.list::<CloudOperation>();
    let states: Vec<_> = operations
        .iter()
        .map(|o| o.status.as_ref().unwrap().state.unwrap())
        .collect();
    assert_eq!(
        states
            .iter()
            .filter(|state| **state == OperationState::Cancelled)
            .count(),
        7
    );
    world.kill_all().await;
}

/// Someone deletes a run and creates another of its name, which the operator hasn't seen when the next one is due.
#[tokio::test(start_paused = true)]
async fn cancel_other_cancels_no_namesake() {
    let mut world = World::new(1);
    world.start();
    put(&world, "concurrencyPolicy: CancelOther", SLOW);
    until_minute(&world, 15).await;
    let run = world.server.list::<CloudOperation>().remove(0);
    let of_operations = |info: &RequestInfo| info.resource == "cloudoperations";
    world.server.hold_watches_at(world.server.revision(), of_operations);
    world.delete::<CloudOperation>(&run.name_any()).await;
    let mut namesake = CloudOperation::new(&run.name_any(), run.spec.clone());
    namesake.metadata.namespace = Some(NAMESPACE.into());
    world.apply(&json!(namesake)).await;
    until_minute(&world, 21).await;
    world.server.release_watches();
    until_minute(&world, 22).await;
    assert_eq!(world.operation(&run.name_any()).spec.cancel, None);
    assert_eq!(created(&world), once(&["00:10", "00:20"]));
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn allow_all() {
    let (mut world, found) = run_slow("AllowAll").await;
    assert_eq!(found.len(), 8);
    assert!(found.iter().all(|(due, started)| due == started));
    assert_eq!(schedule(&world).status.unwrap().active.len(), 2);
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_or_held_starts_nothing() {
    let mut world = World::new(1);
    world.start();
    put(&world, "paused: true, note: holidays, catchUpWindow: 1h", QUICK);
    until_minute(&world, 25).await;
    assert_eq!(created(&world), once(&[]));
    patch(&world, json!({"spec": {"paused": null}})).await;
    until_minute(&world, 31).await;
    assert_eq!(created(&world), once(&["00:30"]));
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.server.client("user"));
    let label = |value: Value| Patch::Merge(json!({"metadata": {"labels": {"holdfast.dev/suspended": value}}}));
    let held = namespaces
        .patch(NAMESPACE, &PatchParams::default(), &label(json!("true")))
        .await;
    held.unwrap();
    until_minute(&world, 55).await;
    assert_eq!(created(&world), once(&["00:30"]));
    let released = namespaces
        .patch(NAMESPACE, &PatchParams::default(), &label(Value::Null))
        .await;
    released.unwrap();
    until_minute(&world, 56).await;
    // As after an outage. Under `Skip`, the second finds the first under way.
    assert_eq!(created(&world), once(&["00:30", "00:40"]));
    assert_eq!(schedule(&world).status.unwrap().skipped, 1);
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_refused_is_said_and_tried_again_as_long_as_the_window_lasts() {
    let mut world = World::new(1);
    world.server.set_faults(|info| {
        if info.verb == Verb::Create && info.resource == "cloudoperations" {
            Fault::Fail {
                code: 403,
                retry_after: None,
            }
        } else {
            Fault::None
        }
    });
    world.start();
    put(&world, "catchUpWindow: 5m", QUICK);
    until_minute(&world, 12).await;
    let ready = |world: &World| {
        let conditions = schedule(world).status.unwrap().conditions;
        conditions
            .into_iter()
            .find(|condition| condition.type_ == "Ready")
            .unwrap()
    };
    assert_eq!(ready(&world).reason, "Refused");
    assert!(
        ready(&world).message.contains("often-29924650"),
        "{}",
        ready(&world).message
    );
    until_minute(&world, 16).await;
    assert_eq!(schedule(&world).status.unwrap().missed, 1);
    world.server.clear_faults();
    until_minute(&world, 21).await;
    assert_eq!(created(&world), once(&["00:20"]));
    assert_eq!(ready(&world).reason, "Scheduled");
    world.kill_all().await;
}

/// Of five that are due at once, a quota takes two. Somebody makes room by deleting them, once they have ended.
#[tokio::test(start_paused = true)]
async fn what_was_created_before_another_is_refused_is_not_run_again_once_it_is_deleted() {
    for code in [403, 503] {
        let mut world = World::new(1);
        let room = Arc::new(AtomicUsize::new(2));
        let left = room.clone();
        world.server.set_faults(move |info| {
            let is_one_more = info.verb == Verb::Create && info.resource == "cloudoperations";
            let take = |left: usize| left.checked_sub(1);
            if is_one_more && left.fetch_update(SeqCst, SeqCst, take).is_err() {
                return Fault::Fail {
                    code,
                    retry_after: None,
                };
            }
            Fault::None
        });
        world.start();
        let range = "{from: '2026-11-23T10:00:00Z', to: '2026-11-23T10:40:00Z'}";
        let fields =
            format!("paused: true, concurrencyPolicy: AllowAll, successfulHistoryLimit: 9, backfill: [{range}]");
        put(&world, &fields, QUICK);
        until_minute(&world, 5).await;
        assert_eq!(created(&world), once(&["10:00", "10:10"]));
        for operation in world.server.list::<CloudOperation>() {
            world.delete::<CloudOperation>(&operation.name_any()).await;
        }
        room.store(100, SeqCst);
        until_minute(&world, 10).await;
        assert_eq!(
            created(&world),
            once(&["10:00", "10:10", "10:20", "10:30", "10:40"]),
            "{code}"
        );
        assert_eq!(world.service.effects()["/called"], 5);
        let backfill = schedule(&world).status.unwrap().backfills.remove(0);
        assert_eq!((backfill.started, backfill.done), (5, true));
        world.check();
        world.kill_all().await;
    }
}

/// Fails after five minutes. The first one's key is `eu`.
const FAILS: &str = "{concurrency: {key: \"operation.name == 'often-29924650' ? 'eu' : operation.name\"}, steps: [
    {name: nap, wait: {duration: 5m}},
    {name: call, http: {method: POST, url: 'http://inventory.prod/status/422'}}]}";
const FIRST: &str = "often-29924650";

fn is_there(world: &World, name: &str) -> bool {
    world.server.get::<CloudOperation>(NAMESPACE, name).is_some()
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_to_run_again_is_not_deleted() {
    let mut world = World::new(1);
    world.start();
    put(&world, "failedHistoryLimit: 1", FAILS);
    until_minute(&world, 16).await;
    assert_eq!(world.state(FIRST), Some(OperationState::Failed));
    let other = json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": "other", "namespace": NAMESPACE},
        "spec": {"concurrency": {"key": "'eu'"}, "steps": [{"name": "nap", "wait": {"duration": "16m"}}]}});
    world.apply(&other).await;
    until_minute(&world, 17).await;
    world.ask(FIRST, 1, &json!({"reset": {"step": "nap"}})).await;
    until_minute(&world, 29).await;
    assert_eq!(world.state("often-29924660"), Some(OperationState::Failed));
    assert_eq!(world.state(FIRST), Some(OperationState::Failed));
    assert!(
        world.message(FIRST).starts_with("to run again"),
        "{}",
        world.message(FIRST)
    );
    until_minute(&world, 33).await;
    assert_eq!(world.state(FIRST), Some(OperationState::Waiting), "it runs again");
    until_minute(&world, 39).await;
    let kept = world.server.list::<CloudOperation>();
    let kept: Vec<_> = kept.iter().map(CloudOperation::name_any).collect();
    assert_eq!(kept, ["often-29924670", "other"], "the newest that failed");
    world.check();
    world.kill_all().await;
}

/// The cache still says that it has ended.
#[tokio::test(start_paused = true)]
async fn one_that_was_just_let_run_again_is_not_deleted() {
    let mut world = World::new(1);
    world.start();
    put(&world, "failedHistoryLimit: 2", FAILS);
    until_minute(&world, 26).await;
    assert_eq!(world.state(FIRST), Some(OperationState::Failed));
    let of_operations = |info: &RequestInfo| info.resource == "cloudoperations";
    world.server.hold_watches_at(world.server.revision(), of_operations);
    world.ask(FIRST, 1, &json!({"reset": {"step": "nap"}})).await;
    until_minute(&world, 27).await;
    assert_eq!(world.state(FIRST), Some(OperationState::Waiting), "it runs again");
    patch(&world, json!({"spec": {"failedHistoryLimit": 1}})).await;
    until_minute(&world, 28).await;
    assert!(is_there(&world, FIRST));
    world.server.release_watches();
    until_minute(&world, 29).await;
    assert_eq!(world.state(FIRST), Some(OperationState::Waiting));
    until_minute(&world, 39).await;
    assert!(!is_there(&world, FIRST), "it failed again, and another did after it");
    world.check();
    world.kill_all().await;
}

/// While it is paused, a backfill's operation is refused.
#[tokio::test(start_paused = true)]
async fn what_was_due_while_it_was_paused_is_over_though_an_operation_was_refused_meanwhile() {
    let mut world = World::new(1);
    world.start();
    put(&world, "catchUpWindow: 5h", QUICK);
    until_minute(&world, 5).await;
    world.server.set_faults(|info| {
        if info.verb == Verb::Create && info.resource == "cloudoperations" {
            return Fault::Fail {
                code: 403,
                retry_after: None,
            };
        }
        Fault::None
    });
    let range = json!([{"from": "2026-11-23T10:00:00Z", "to": "2026-11-23T10:01:00Z"}]);
    patch(&world, json!({"spec": {"paused": true, "backfill": range}})).await;
    until_minute(&world, 35).await;
    let ready = &schedule(&world).status.unwrap().conditions[0];
    assert_eq!((&*ready.type_, &*ready.reason), ("Ready", "Refused"));
    patch(&world, json!({"spec": {"paused": null, "backfill": null}})).await;
    world.server.clear_faults();
    until_minute(&world, 45).await;
    assert_eq!(created(&world), once(&["00:40"]));
    world.kill_all().await;
}
