//! Before the first step and after the last: start deadlines, backups, times to live.

use super::*;

#[test]
pub fn an_object_first_seen_after_its_start_deadline_executes_nothing() {
    let mut case = case("{startDeadline: '2026-11-24T02:59:59Z', steps: [{name: a, http: {url: 'http://x'}}]}");
    case.visit().assert_state(Expired);
    assert!(case.status.steps.is_empty());
}

#[test]
pub fn an_object_from_a_backup_waits_for_a_person() {
    let mut case = case(THREE_CALLS);
    case.identity.restored = true;
    case.visit().assert_state(Restored);
    assert!(case.work.is_empty() && case.message().contains("velero.io/restore-name"));
    case.identity.restored = false;
    case.visit().assert_state(Running);
}

#[test]
fn a_finished_operation_from_a_backup_with_its_status_stays_finished() {
    let mut case = case("steps: [{name: a, set: {}}]");
    case.visit().assert_state(Succeeded);
    case.identity.restored = true;
    case.visit().assert_state(Succeeded);
}

#[test]
fn after_its_time_to_live_what_nobody_can_apply_again_is_deleted_and_the_rest_compacted() {
    let spec = "{ttlSecondsAfterFinished: 60, steps: [{name: a, set: {x: 1}}], output: {x: '${steps.a.output.x}'}}";
    let mut disposable = case(spec);
    disposable.identity.disposable = true;
    disposable.visit().assert_state(Succeeded);
    assert_eq!(disposable.wake, Some(disposable.now.plus(60 * SECOND)));
    assert!(disposable.later(60 * SECOND).deleted);
    let mut named = case(spec);
    named.visit().later(60 * SECOND).assert_state(Succeeded);
    assert!(!named.deleted && named.status.steps.is_empty() && named.status.history.is_empty());
    assert_eq!(named.status.output.as_ref().unwrap()["x"], 1, "the outcome stays");
    let writes = named.writes;
    named.later(60 * SECOND).assert_state(Succeeded);
    assert_eq!((named.writes, named.wake), (writes, None));
}

#[test]
fn a_control_field_changed_after_the_end_is_observed_and_nothing_else() {
    let mut case = case("steps: [{name: a, set: {x: 1}}]");
    case.visit();
    let before = case.status.clone();
    case.identity.generation = Some(2);
    case.visit();
    assert_eq!(case.status.observed_generation, Some(2));
    assert_eq!(case.status.steps, before.steps);
}
