//! Work that goes on by itself and is watched: Jobs, and objects that are waited for.

use super::*;
use crate::api::ActionState::{Applied, Rejected};

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
    assert_eq!(case.work[0].kind, stop(Some(external())));
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

#[test]
fn what_may_have_been_started_is_stopped_before_its_step_ends() {
    let undone = "compensate: {http: {url: 'http://undo'}}";
    let cases = [
        (
            format!("retry: {{maximumAttempts: 1}}, {undone}"),
            false,
            StepState::Failed,
            "NoAnswer",
        ),
        (
            format!("retry: {{initialInterval: 2m}}, timeouts: {{scheduleToClose: 1m}}, {undone}"),
            false,
            StepState::TimedOut,
            "TimedOut",
        ),
        (
            "retry: {maximumAttempts: 2}".to_owned(),
            true,
            StepState::Cancelled,
            "NoAnswer",
        ),
    ];
    for (how, cancelled, ends, reason) in cases {
        for what in ["job: {image: x}", "operation: {templateRef: {name: x}}"] {
            let mut case = case(&format!(
                "{{failurePolicy: Compensate, steps: [{{name: migrate, {what}, {how}}}]}}"
            ));
            case.visit();
            case.spec.cancel = cancelled.then(Cancel::default);
            case.visit().assert_step("migrate", StepState::Running, 1);
            case.fail("migrate", no_answer())
                .assert_step("migrate", StepState::Cancelling, 1);
            assert_eq!(case.work.len(), 1, "{how}: nothing is undone under it");
            let (external, undoes) = (None, !cancelled && what.starts_with("operation"));
            assert_eq!(case.work[0].kind, WorkKind::Stop { external, undoes });
            case.answer("migrate", AttemptOutcome::Stopped)
                .assert_step("migrate", ends, 1);
            let step = case.step("migrate");
            assert_eq!(
                (step.maybe_done, step.failure.as_ref().map(|f| &*f.reason)),
                (true, Some(reason)),
                "{how}"
            );
            if cancelled {
                case.assert_state(Cancelled);
            } else {
                case.assert_step("migrate:undo", StepState::Running, 1);
            }
        }
    }
}

#[test]
fn a_job_that_could_not_be_created_is_not_stopped() {
    let mut case = case("steps: [{name: migrate, job: {image: x}, retry: {maximumAttempts: 1}}]");
    case.visit().fail("migrate", busy()).assert_state(Failed);
}

#[test]
fn what_a_job_comes_to_while_it_is_stopped_changes_nothing() {
    let late = [
        AttemptOutcome::Succeeded { output: None },
        AttemptOutcome::Failed(AttemptFailure::retryable("JobFailed", "exit code 3")),
        AttemptOutcome::Failed(AttemptFailure::unknown("Vanished", "the Job is gone")),
    ];
    for late in late {
        let mut case = case("steps: [{name: migrate, job: {image: x}, timeouts: {scheduleToClose: 1m}}]");
        case.visit().accept("migrate").later(60 * SECOND);
        let before = case.status.clone();
        case.answer("migrate", late);
        assert_eq!(case.status, before);
        case.answer("migrate", AttemptOutcome::Stopped)
            .assert_step("migrate", StepState::TimedOut, 1)
            .assert_state(Failed);
    }
}

#[test]
fn one_that_is_being_stopped_says_what_that_waits_for() {
    let mut case = being_stopped();
    assert_eq!(
        case.message(),
        "step migrate is being stopped: the Pods of Job resize-1 are still being stopped; TimedOut: timeouts.scheduleToClose passed"
    );
    assert_eq!(case.work[0].kind, stop(Some(external())));
    case.answer("migrate", AttemptOutcome::Stopped)
        .assert_step("migrate", StepState::TimedOut, 1)
        .assert_state(Failed);
}

#[test]
fn a_person_who_no_longer_waits_for_its_end_is_told_that_it_may_go_on() {
    let mut case = being_stopped();
    let said = "the node is lost; Job resize-1 is no longer waited for, and may go on";
    let fail = json!({"fail": {"step": "migrate", "message": "the node is lost"}});
    assert_eq!(case.asks(fail), (Applied, format!("step migrate failed: {said}")));
    case.assert_step("migrate", StepState::Failed, 1).assert_state(Failed);
    let step = case.step("migrate");
    assert_eq!(step.failure.as_ref().map(|failure| &*failure.message), Some(said));
    assert!(step.maybe_done);
}

fn being_stopped() -> Case {
    let mut case = case("steps: [{name: migrate, job: {image: x}, timeouts: {scheduleToClose: 1m}}]");
    case.visit().accept("migrate").later(60 * SECOND);
    let message = "the Pods of Job resize-1 are still being stopped".into();
    case.answer("migrate", AttemptOutcome::Noted { message })
        .assert_step("migrate", StepState::Cancelling, 1);
    case
}

#[test]
fn a_job_whose_answer_came_late_is_stopped_by_what_it_is() {
    let mut case = case("steps: [{name: migrate, job: {image: x}, timeouts: {scheduleToClose: 1m}}]");
    case.visit()
        .later(60 * SECOND)
        .assert_step("migrate", StepState::Cancelling, 1);
    case.accept("migrate").assert_step("migrate", StepState::Cancelling, 1);
    assert_eq!(case.work[0].kind, stop(Some(external())));
}

#[test]
pub fn one_that_cannot_be_stopped_says_why_and_a_person_ends_it() {
    let mut case = case("steps: [{name: migrate, job: {image: x}}]");
    case.visit().accept("migrate");
    case.spec.cancel = Some(Cancel::default());
    case.visit();
    let fail = json!({"fail": {"step": "migrate", "message": "deleted by hand"}});
    assert_eq!(case.asks(fail.clone()).0, Rejected, "it is being stopped");
    case.answer(
        "migrate",
        AttemptOutcome::StopFailed(AttemptFailure::retryable("AccessDenied", "may not delete jobs there")),
    );
    assert_eq!(
        case.message(),
        "step migrate is being stopped: could not be stopped: AccessDenied: may not delete jobs there"
    );
    assert_eq!(case.asks(fail).0, Applied);
    case.assert_step("migrate", StepState::Failed, 2)
        .assert_state(Cancelled);
    assert!(case.step("migrate").maybe_done);
}

#[test]
fn a_job_whose_output_cannot_be_recorded_did_its_work_all_the_same() {
    let mut case = case("steps: [{name: migrate, job: {image: x}}]");
    case.visit()
        .accept("migrate")
        .fail("migrate", AttemptFailure::done("OutputTruncated", "it was cut"))
        .assert_step("migrate", StepState::Failed, 1)
        .assert_state(Failed);
    assert!(case.step("migrate").maybe_done);
    case.asks(json!({"retry": {"step": "migrate"}}));
    assert_eq!(case.step("migrate").epoch, 0, "its key stays");
}

#[test]
fn a_job_whose_creation_was_lost_once_is_stopped_as_any_other_before_it_is_undone() {
    let mut case = case(
        "
failurePolicy: Compensate
timeout: 1h
steps: [{name: migrate, job: {image: x}, compensate: {http: {url: 'http://undo'}}}]
",
    );
    case.visit().crash().visit().accept("migrate");
    assert!(case.step("migrate").maybe_done);
    case.later(3600 * SECOND)
        .assert_step("migrate", StepState::Cancelling, 2);
    case.answer("migrate", AttemptOutcome::Stopped)
        .assert_step("migrate:undo", StepState::Running, 1);
}

#[test]
fn what_may_have_been_started_is_found_before_a_person_goes_on_without_it() {
    for what in ["job: {image: x}", "operation: {templateRef: {name: x}}"] {
        let spec = format!("steps: [{{name: migrate, {what}}}, {{name: after, http: {{url: 'http://x'}}}}]");
        let mut case = case(&spec);
        case.visit().fail("migrate", no_answer());
        for ask in ["skip", "complete", "reset"] {
            let (state, message) = case.asks(json!({ask: {"step": "migrate"}}));
            assert_eq!(state, Rejected, "{ask}: {message}");
        }
        let mut failed = super::case(&spec);
        failed.visit().fail("migrate", no_answer());
        assert_eq!(failed.asks(json!({"fail": {"step": "migrate"}})).0, Applied);
        failed.assert_step("migrate", StepState::Cancelling, 1);
        assert_eq!(failed.work[0].kind, stop(None));
        failed
            .answer("migrate", AttemptOutcome::Stopped)
            .assert_step("migrate", StepState::Failed, 1)
            .assert_state(Failed);
        // It was found, and failed: nothing of it is under way.
        case.later(10 * SECOND)
            .accept("migrate")
            .fail("migrate", AttemptFailure::retryable("JobFailed", "exit code 3"));
        assert_eq!(case.asks(json!({"skip": {"step": "migrate"}})).0, Applied);
        case.assert_step("after", StepState::Running, 1);
    }
}
