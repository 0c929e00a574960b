//! Work that goes on by itself and is watched: Jobs, and objects that are waited for.

use super::*;

#[test]
fn a_job_is_followed_by_whoever_leads() {
    let mut case = case("steps: [{name: migrate, job: {image: x}}]");
    case.visit()
        .accept("migrate")
        .assert_state(Waiting)
        .assert_step("migrate", StepState::Waiting, 1);
    assert_eq!(case.step("migrate").runner, None);
    case.crash().visit().assert_step("migrate", StepState::Waiting, 1);
    assert_eq!(case.work[0].kind, WorkKind::Follow(external()));
    case.succeed("migrate", json!({"rows": 5})).assert_state(Succeeded);
}

#[test]
fn a_job_that_failed_is_retried_under_another_name_and_one_that_vanished_is_not() {
    let mut case = case("steps: [{name: migrate, job: {image: x}}]");
    case.visit()
        .accept("migrate")
        .fail("migrate", AttemptFailure::retryable("JobFailed", "exit code 3"));
    assert_eq!(
        (case.step("migrate").failures, &case.step("migrate").external),
        (1, &None)
    );
    case.later(SECOND).assert_step("migrate", StepState::Running, 2);
    case.accept("migrate")
        .fail("migrate", AttemptFailure::unknown("Vanished", "the Job is gone"))
        .assert_state(Stuck);
}

#[test]
fn a_cancelled_job_is_stopped_before_the_operation_ends() {
    let mut case = case("steps: [{name: migrate, job: {image: x}}]");
    case.visit().accept("migrate");
    case.spec.cancel = Some(Cancel::default());
    case.visit().assert_step("migrate", StepState::Cancelling, 1);
    assert_eq!(case.work[0].kind, WorkKind::Stop(Some(external())));
    case.answer("migrate", AttemptOutcome::StopFailed(busy()))
        .assert_step("migrate", StepState::Cancelling, 2);
    assert!(case.work.is_empty() && case.wake.is_some());
    case.later(2 * SECOND);
    case.answer("migrate", AttemptOutcome::Stopped).assert_state(Cancelled);
}

#[test]
fn a_job_that_takes_too_long_is_stopped_and_has_timed_out() {
    let mut case = case("steps: [{name: migrate, job: {image: x}, timeouts: {scheduleToClose: 1m}}]");
    case.visit()
        .accept("migrate")
        .later(60 * SECOND)
        .assert_step("migrate", StepState::Cancelling, 1);
    case.answer("migrate", AttemptOutcome::Stopped)
        .assert_step("migrate", StepState::TimedOut, 1)
        .assert_state(Failed);
}

#[test]
fn a_wait_for_an_object_is_no_attempt_with_an_effect_and_needs_no_runner() {
    let mut case = case(
        "steps: [{name: ready, kubernetes: {wait: {resource: {apiVersion: apps/v1, kind: Deployment, name: web}, for: Current}}}]",
    );
    case.visit()
        .assert_state(Waiting)
        .assert_step("ready", StepState::Waiting, 1);
    assert!(
        case.message().contains("waiting for Deployment web to be Current"),
        "{}",
        case.message()
    );
    let work = case.work.clone();
    case.crash().visit();
    assert_eq!(
        (case.work.clone(), case.writes),
        (work, 1),
        "another process observes it without a write"
    );
    case.fail("ready", AttemptFailure::retryable("AccessDenied", "may not watch"))
        .assert_state(BackingOff);
    case.later(SECOND).assert_step("ready", StepState::Waiting, 2);
    case.succeed("ready", nothing()).assert_state(Succeeded);
}
