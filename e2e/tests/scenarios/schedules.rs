//! Schedules: docs/schedules.md, on a real API server. Backfills run at once, so that no test waits for a minute.

use std::time::Duration;

use holdfast::api::{CloudOperation, OperationSchedule, OperationState, Time};
use holdfast_e2e::kubectl::kubectl_with;
use holdfast_e2e::world::{PATIENCE, World};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::{Value, json};

fn manifest(fields: &Value) -> Value {
    named("nightly", fields)
}

fn named(name: &str, fields: &Value) -> Value {
    let mut spec = json!({
        "schedule": "0 3 * * *", "timeZone": "Europe/Berlin",
        "operation": {"spec": {"steps": [{"name": "a", "set": {"v": 1}}]}},
    });
    for (field, value) in fields.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "OperationSchedule", "metadata": {"name": name}, "spec": spec,
    })
}

fn is_done(schedule: &OperationSchedule) -> bool {
    let backfills = schedule.status.iter().flat_map(|status| &status.backfills);
    backfills.into_iter().all(|backfill| backfill.done) && schedule.status.as_ref().is_some_and(|s| s.active.is_empty())
}

#[tokio::test]
async fn a_backfill_runs_one_operation_for_each_due_time_across_a_crash() {
    let world = World::new("schedules-backfill").await;
    let operator = world.operator();
    let url = world.inventory.url("");
    let template = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "OperationTemplate", "metadata": {"name": "report"},
        "spec": {"steps": [{"name": "call", "http": {"method": "POST", "url": format!("{url}/gate/report")}}]},
    });
    world.apply(&template.to_string()).await;
    let schedule = manifest(&json!({
        "concurrencyPolicy": "BufferAll", "successfulHistoryLimit": 2,
        "operation": {"metadata": {"labels": {"team": "web"}}, "spec": {"templateRef": {"name": "report"}}},
        // 2026-03-29 has no 02:30 in Berlin: it is run when the clocks jump.
        "schedule": "30 2 * * *",
        "backfill": [{"from": "2026-03-28T00:00:00Z", "to": "2026-03-30T23:00:00Z"}],
    }));
    world.apply(&schedule.to_string()).await;
    world.until_called("/gate/report").await;
    // It creates first, and then says so.
    let is_scheduled = |schedule: &OperationSchedule| {
        let conditions = schedule.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.reason == "Scheduled")
    };
    world
        .until_object::<OperationSchedule>("nightly", "scheduled", is_scheduled)
        .await;
    let columns = world.prints(&["get", "opsched"]).await;
    let rows: Vec<Vec<&str>> = columns.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "SCHEDULE", "READY", "LAST", "NEXT", "ACTIVE", "AGE"]);
    assert!(
        columns.contains("30 2 * * *") && columns.contains("Scheduled"),
        "{columns}"
    );
    operator.kill().await;
    let _operator = world.operator();
    world.inventory.open("report");
    let done: OperationSchedule = world.until_object("nightly", "done", is_done).await;
    assert_eq!(done.status.unwrap().backfills[0].started, 3);
    assert_eq!(world.inventory.effects("/gate/report").len(), 3, "one each");
    let list = |what: &'static str| async {
        world
            .prints(&["get", "cop", "-l", "team=web,holdfast.dev/schedule=nightly", "-o", what])
            .await
    };
    let mut due =
        list(r#"jsonpath={range .items[*]}{.metadata.annotations.holdfast\.dev/scheduled-at}{"\n"}{end}"#).await;
    let started = std::time::Instant::now();
    while due.lines().count() > 2 {
        assert!(started.elapsed() < PATIENCE, "successfulHistoryLimit: {due}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        due = list(r#"jsonpath={range .items[*]}{.metadata.annotations.holdfast\.dev/scheduled-at}{"\n"}{end}"#).await;
    }
    assert_eq!(
        due.lines().collect::<Vec<_>>(),
        ["2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z"]
    );
    // The range is done: nothing runs it again, and the operations go with their schedule.
    world.prints(&["annotate", "opsched", "nightly", "seen=yes"]).await;
    let kept = list("name").await;
    let name = kept.lines().next().unwrap().rsplit('/').next().unwrap().to_owned();
    world.prints(&["delete", "opsched", "nightly"]).await;
    world.until_gone::<CloudOperation>(&name).await;
    assert_eq!(world.inventory.effects("/gate/report").len(), 3);
}

#[tokio::test]
async fn cancel_other_cancels_as_the_operator_may() {
    let world = World::new("schedules-cancel").await;
    let _operator = world.operator();
    // Every minute is due: the first that comes cancels what the backfill started.
    let schedule = manifest(&json!({
        "schedule": "* * * * *", "concurrencyPolicy": "CancelOther", "failedHistoryLimit": 10,
        "operation": {"spec": {"steps": [{"name": "nap", "wait": {"duration": "1h"}}]}},
        "backfill": [{"from": "2026-03-28T00:00:00Z", "to": "2026-03-28T00:00:30Z"}],
    }));
    world.apply(&schedule.to_string()).await;
    let first = "nightly-29577600";
    let cancelled = world.ends(first, OperationState::Cancelled).await;
    assert!(
        cancelled
            .spec
            .cancel
            .unwrap()
            .reason
            .unwrap()
            .contains("OperationSchedule nightly")
    );
    let next: OperationSchedule = world
        .until_object("nightly", "at the next", |schedule: &OperationSchedule| {
            schedule
                .status
                .as_ref()
                .is_some_and(|s| s.active.iter().any(|active| active.name != first))
        })
        .await;
    let active = next.status.unwrap().active;
    let operation = world.operations().get(&active[0].name).await.unwrap();
    assert_eq!(operation.owner_references()[0].name, "nightly");
}

/// How often it was due while no operator ran: once an hour, the last time an hour ago.
const OUTAGE: usize = 5;

/// Schedules that no operator saw for hours, and what they did with what was due meanwhile. Oldest first, by its number.
#[tokio::test]
async fn what_was_due_in_an_outage_is_started_kept_skipped_or_missed_as_each_schedule_says() {
    let world = World::new("schedules-outage").await;
    let minute = Timestamp::now().as_second() / 60 * 60;
    let due: Vec<Timestamp> = (1..=OUTAGE as i64)
        .rev()
        .map(|hours| Timestamp::from_second(minute - hours * 3600).unwrap())
        .collect();
    // As they are due at these hours of a day, it is tomorrow that they are due again.
    let hour = |due: &Timestamp| (due.as_second() / 3600 % 24).to_string();
    let hours: Vec<String> = due.iter().map(hour).collect();
    let cron = format!("{} {} * * *", minute / 60 % 60, hours.join(","));
    let schedule = async |name: &str, fields: Value| {
        let call =
            json!({"http": {"method": "POST", "url": world.inventory.url(&format!("/gate/{name}"))}, "name": "call"});
        let mut all = json!({
            "schedule": cron, "timeZone": "UTC", "successfulHistoryLimit": 10, "operation": {"spec": {"steps": [call]}},
        });
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        world.apply(&named(name, &all).to_string()).await;
    };
    // Between the third time and the fourth.
    let some = "150m";
    let all = "24h";
    schedule("skips", json!({"catchUpWindow": all})).await;
    schedule("one", json!({"catchUpWindow": all, "concurrencyPolicy": "BufferOne"})).await;
    schedule(
        "buffers",
        json!({"catchUpWindow": all, "concurrencyPolicy": "BufferAll"}),
    )
    .await;
    schedule(
        "allows",
        json!({"catchUpWindow": all, "concurrencyPolicy": "AllowAll", "startDeadline": all, "jitter": "10m"}),
    )
    .await;
    schedule(
        "window",
        json!({"catchUpWindow": some, "concurrencyPolicy": "AllowAll"}),
    )
    .await;
    schedule(
        "deadline",
        json!({"catchUpWindow": all, "startDeadline": some, "concurrencyPolicy": "AllowAll"}),
    )
    .await;
    schedule("forgets", json!({"concurrencyPolicy": "AllowAll"})).await;
    let names = ["skips", "one", "buffers", "allows", "window", "deadline", "forgets"];

    // Each is seen by an operator, which then goes away; and its status is made as old as if that was before all of this.
    let decided_until = |schedule: &OperationSchedule| schedule.status.as_ref().and_then(|status| status.decided_until);
    let first = world.operator();
    for name in names {
        let seen = |schedule: &OperationSchedule| decided_until(schedule).is_some();
        world.until_object(name, "seen", seen).await;
    }
    first.stop().await;
    let before = Time::new(due[0] - SignedDuration::from_mins(30));
    let old = json!({"status": {"decidedUntil": before}}).to_string();
    for name in names {
        world
            .prints(&[
                "patch",
                "opsched",
                name,
                "--subresource=status",
                "--type=merge",
                "-p",
                &old,
            ])
            .await;
    }
    let _second = world.operator();
    let last = Time::new(due[OUTAGE - 1]);
    // Of each: which are under way, which wait, and how many were skipped and missed.
    let are = |these: &[usize]| these.iter().map(|n| Time::new(due[*n])).collect::<Vec<_>>();
    for (name, active, waiting, skipped, missed) in [
        ("skips", are(&[0]), are(&[]), 4, 0),
        ("one", are(&[0]), are(&[1]), 3, 0),
        ("buffers", are(&[0]), are(&[1, 2, 3, 4]), 0, 0),
        ("allows", are(&[0, 1, 2, 3, 4]), are(&[]), 0, 0),
        ("window", are(&[3, 4]), are(&[]), 0, 3),
        ("deadline", are(&[3, 4]), are(&[]), 0, 3),
        ("forgets", are(&[]), are(&[]), 0, 5),
    ] {
        let decided = |schedule: &OperationSchedule| decided_until(schedule) == Some(last);
        let schedule: OperationSchedule = world.until_object(name, "at the last due time", decided).await;
        let status = schedule.status.unwrap();
        let under_way: Vec<Time> = status.active.iter().map(|active| active.due).collect();
        assert_eq!(
            (under_way, status.waiting, status.skipped, status.missed),
            (active, waiting, skipped, missed),
            "{name}"
        );
    }
    let started = std::time::Instant::now();
    let noted = ["get", "events.v1.events.k8s.io", "--field-selector"];
    let noted = [
        &noted[..],
        &["regarding.name=window,reason=Missed", "-o", "jsonpath={.items[*].note}"],
    ]
    .concat();
    while !world.prints(&noted).await.contains("spec.catchUpWindow") {
        assert!(started.elapsed() < PATIENCE, "there is no Event");
    }

    // Until when each may start says how long it was put off by jitter: less than ten minutes, and not all alike.
    let latest = async |name: &str, numbers: &[usize]| {
        let mut put_off = vec![];
        for n in numbers {
            let operation = format!("{name}-{}", due[*n].as_second() / 60);
            let operation = world.operations().get(&operation).await.unwrap();
            put_off.push(operation.spec.start_deadline.unwrap().since(Time::new(due[*n])));
        }
        put_off
    };
    let (minutes, day) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
    let mut put_off = latest("allows", &[0, 1, 2, 3, 4]).await;
    assert!(
        put_off.iter().all(|by| (day..day + 10 * minutes).contains(by)),
        "{put_off:?}"
    );
    put_off.dedup();
    assert!(put_off.len() > 1, "{put_off:?}");
    assert_eq!(latest("deadline", &[3, 4]).await, [150 * minutes; 2], "without jitter");

    // One that waits longer than it may is missed, too.
    world
        .prints(&[
            "patch",
            "opsched",
            "buffers",
            "--type=merge",
            "-p",
            &json!({"spec": {"startDeadline": some}}).to_string(),
        ])
        .await;
    let fewer = |schedule: &OperationSchedule| schedule.status.as_ref().is_some_and(|status| status.missed > 0);
    let buffers: OperationSchedule = world.until_object("buffers", "at fewer", fewer).await;
    let status = buffers.status.unwrap();
    assert_eq!((status.missed, status.waiting), (2, are(&[3, 4])));

    for name in names {
        world.inventory.open(name);
    }
    for (name, runs) in [
        ("skips", 1),
        ("one", 2),
        ("buffers", 3),
        ("allows", 5),
        ("window", 2),
        ("deadline", 2),
        ("forgets", 0),
    ] {
        let at_rest = |schedule: &OperationSchedule| {
            let status = schedule.status.as_ref();
            status.is_some_and(|status| status.active.is_empty() && status.waiting.is_empty())
        };
        world.until_object(name, "at rest", at_rest).await;
        assert_eq!(world.inventory.effects(&format!("/gate/{name}")).len(), runs, "{name}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_at_once() {
    let world = World::new("schedules-wrong").await;
    let _operator = world.operator();
    let operation = json!({"spec": {"steps": [{"name": "a", "set": {"v": 1}}]}});
    let mut with_ttl = operation.clone();
    with_ttl["spec"]["ttlSecondsAfterFinished"] = json!(1);
    let mut with_deadline = operation.clone();
    with_deadline["spec"]["startDeadline"] = json!("2026-11-24T03:00:00Z");
    for (fields, says) in [
        (json!({"schedule": "every night"}), "spec.schedule"),
        (json!({"schedule": "0 3 * * 5L"}), "spec.schedule"),
        (json!({"catchUpWindow": "1d"}), "must be a duration"),
        (
            json!({"operation": with_ttl}),
            "successfulHistoryLimit and failedHistoryLimit",
        ),
        (json!({"operation": with_deadline}), "spec.startDeadline says how late"),
        (
            json!({"operation": {"spec": {}}}),
            "spec has exactly one of steps and templateRef",
        ),
        (
            json!({"backfill": [{"from": "2026-03-30T00:00:00Z", "to": "2026-03-28T00:00:00Z"}]}),
            "to is before from",
        ),
    ] {
        let tried = manifest(&fields).to_string();
        let refused = kubectl_with(
            &tried,
            &["-n", &world.namespace, "create", "--dry-run=server", "-f", "-"],
        )
        .await;
        assert!(
            !refused.ok && refused.err.contains(says),
            "{says}: {}{}",
            refused.out,
            refused.err
        );
    }
    let is = |reason: &'static str| {
        move |schedule: &OperationSchedule| {
            let conditions = schedule.status.iter().flat_map(|status| &status.conditions);
            conditions
                .into_iter()
                .any(|condition| condition.type_ == "Ready" && condition.reason == reason)
        }
    };
    world
        .apply(&manifest(&json!({"timeZone": "Europe/Berlinn"})).to_string())
        .await;
    world.until_object("nightly", "invalid", is("Invalid")).await;
    let wide = world.prints(&["get", "opsched", "-o", "wide"]).await;
    assert!(wide.contains("there is no time zone \"Europe/Berlinn\""), "{wide}");
    // It may be changed: also its operation.
    let other = json!({"spec": {"steps": [{"name": "b", "set": {"v": 2}}]}});
    let paused = manifest(&json!({"paused": true, "note": "holidays", "operation": other}));
    world.apply(&paused.to_string()).await;
    let paused: OperationSchedule = world.until_object("nightly", "paused", is("Paused")).await;
    let conditions = paused.status.unwrap().conditions;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!((&*ready.status, &*ready.message), ("True", "holidays"));
    let wide = world.prints(&["get", "opsched", "-o", "wide"]).await;
    assert!(wide.contains("Paused") && wide.contains("holidays"), "{wide}");
    world.apply(&manifest(&json!({"paused": false})).to_string()).await;
    world.until_object("nightly", "scheduled", is("Scheduled")).await;
}
