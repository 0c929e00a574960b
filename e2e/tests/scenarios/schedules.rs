//! Schedules: docs/schedules.md, on a real API server. Backfills run at once, so that no test waits for a minute.

use holdfast::api::{CloudOperation, OperationSchedule, OperationState};
use holdfast_e2e::kubectl::kubectl_with;
use holdfast_e2e::world::World;
use kube::ResourceExt;
use serde_json::{Value, json};

fn manifest(fields: &Value) -> Value {
    let mut spec = json!({
        "schedule": "0 3 * * *", "timeZone": "Europe/Berlin",
        "operation": {"spec": {"steps": [{"name": "a", "set": {"v": 1}}]}},
    });
    for (field, value) in fields.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "OperationSchedule", "metadata": {"name": "nightly"}, "spec": spec,
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
        assert!(
            started.elapsed() < holdfast_e2e::world::PATIENCE,
            "successfulHistoryLimit: {due}"
        );
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
    world.until_object("nightly", "paused", is("Paused")).await;
    world.apply(&manifest(&json!({"paused": false})).to_string()).await;
    world.until_object("nightly", "scheduled", is("Scheduled")).await;
}
