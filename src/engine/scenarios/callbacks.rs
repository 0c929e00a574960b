//! Work that the other side does later: it says how it went by a callback, whatever became of the request.

use super::*;
use crate::engine::{Callback, Said, Standing, standing};

const ASYNC: &str = "
steps:
- name: resize
  http: {method: POST, url: 'http://inventory/resize', async: true}
  output: {size: '${result.body.size}'}
- {name: check, http: {url: 'http://inventory'}}
";

fn completed(digest: &str) -> AttemptOutcome {
    AttemptOutcome::CalledBack(Callback {
        run: 0,
        completes: Some(digest.into()),
        said: Ok(json!({"size": 3}).as_object().cloned()),
    })
}

fn failed(run: i64, failure: AttemptFailure) -> AttemptOutcome {
    AttemptOutcome::CalledBack(Callback {
        run,
        completes: None,
        said: Err(failure),
    })
}

fn silent() -> AttemptFailure {
    AttemptFailure::unknown("HeartbeatTimeout", "no heartbeat within timeouts.heartbeat (10s)")
}

/// The other side has taken the work.
fn accepted(spec: &str) -> Case {
    let mut case = case(spec);
    case.visit().accept("resize");
    case
}

fn stands(case: &Case, run: i64, said: Said<'_>) -> Standing {
    standing(&case.status, "resize", case.step("resize").epoch, run, said)
}

#[test]
fn what_was_accepted_waits_for_its_callback_and_says_so() {
    let mut case = accepted(ASYNC);
    case.assert_step("resize", StepState::Waiting, 1);
    case.assert_state(Waiting);
    assert_eq!(case.message(), "step resize: accepted; waiting for its callback");
    assert!(matches!(case.work[0].kind, WorkKind::Follow(_)));
    assert_eq!(stands(&case, 0, Said::Completed("d1")), Standing::Open);
    case.crash().visit();
    case.assert_step("resize", StepState::Waiting, 1);
    assert_eq!(case.work.len(), 1, "the next leader waits in its place");
    case.answer("resize", completed("d1"));
    case.assert_step("resize", StepState::Succeeded, 1);
    case.assert_step("check", StepState::Running, 1);
    assert_eq!(case.step("resize").output, json!({"size": 3}).as_object().cloned());
}

#[test]
fn a_callback_that_is_repeated_is_known_by_what_it_says_and_another_comes_too_late() {
    let mut case = accepted(ASYNC);
    case.answer("resize", completed("d1"));
    let before = case.status.clone();
    let again = AttemptResult {
        step: "resize".into(),
        epoch: 0,
        attempt: 1,
        outcome: completed("d1"),
    };
    case.visit_with(&[again]);
    assert_eq!(case.status, before);
    assert_eq!(
        stands(&case, 0, Said::Completed("d1")),
        Standing::Recorded(StepState::Succeeded)
    );
    for other in [Said::Completed("d2"), Said::Failed, Said::Heartbeat] {
        assert!(matches!(stands(&case, 0, other), Standing::Closed(_)), "{other:?}");
    }
    assert_eq!(
        stands(&case, 1, Said::Failed),
        Standing::Unknown,
        "there was no such run"
    );
}

#[test]
fn a_callback_counts_before_the_answer_and_after_it_was_lost() {
    let mut early = case(ASYNC);
    early.visit().answer("resize", completed("d1"));
    early.assert_step("resize", StepState::Succeeded, 1);
    let late = early.result("check", AttemptOutcome::Accepted { external: external() });
    let late = AttemptResult {
        step: "resize".into(),
        ..late
    };
    early.visit_with(&[late]);
    early.assert_step("resize", StepState::Succeeded, 1);

    let mut lost = case(ASYNC);
    lost.visit().fail("resize", no_answer());
    lost.assert_step("resize", StepState::BackingOff, 1);
    lost.answer("resize", completed("d1"));
    lost.assert_step("resize", StepState::Succeeded, 1);
    assert_eq!(lost.step("resize").failure, None);
}

#[test]
fn a_failure_that_may_pass_is_retried_under_the_same_key_and_its_repeat_fails_nothing_more() {
    let mut case = accepted(ASYNC);
    case.answer("resize", failed(0, busy()));
    case.assert_step("resize", StepState::BackingOff, 1);
    assert!(
        !case.step("resize").maybe_done,
        "the other side says that it was not done"
    );
    assert_eq!(case.step("resize").external, None);
    case.answer("resize", failed(0, busy()));
    assert_eq!(case.step("resize").failures, 1, "the same report again");
    case.later(Duration::from_secs(2))
        .assert_step("resize", StepState::Running, 2);
    assert_eq!(case.step("resize").epoch, 0, "the key is the same");
    case.answer("resize", failed(0, busy()));
    case.assert_step("resize", StepState::Running, 2);
    assert_eq!(stands(&case, 0, Said::Failed), Standing::Recorded(StepState::Running));
    assert!(matches!(stands(&case, 0, Said::Heartbeat), Standing::Closed(_)));
    case.accept("resize").answer("resize", failed(1, refused()));
    case.assert_step("resize", StepState::Failed, 2);
    case.assert_state(Failed);
    assert_eq!(stands(&case, 1, Said::Failed), Standing::Recorded(StepState::Failed));
}

#[test]
fn an_answer_that_comes_with_the_report_of_its_failure_changes_nothing_more() {
    for answer in [
        AttemptOutcome::Accepted { external: external() },
        AttemptOutcome::Failed(no_answer()),
    ] {
        let mut case = case(ASYNC);
        case.visit();
        let results = [case.result("resize", failed(0, busy())), case.result("resize", answer)];
        case.visit_with(&results);
        case.assert_step("resize", StepState::BackingOff, 1);
        let step = case.step("resize");
        assert_eq!(
            (step.external.as_ref(), step.maybe_done, step.failures),
            (None, false, 1)
        );
    }
}

#[test]
fn a_failure_may_be_reported_while_another_attempt_is_waited_for() {
    let mut case = case(ASYNC);
    case.visit().fail("resize", no_answer());
    case.answer("resize", failed(0, busy()));
    case.assert_step("resize", StepState::BackingOff, 1);
    assert_eq!(case.step("resize").failures, 1);
    case.answer("resize", failed(1, refused()));
    case.assert_step("resize", StepState::Failed, 1);
}

#[test]
fn silence_is_unknown_and_is_asked_about_under_the_same_key() {
    let mut case = accepted(ASYNC);
    case.fail("resize", silent());
    case.assert_step("resize", StepState::BackingOff, 1);
    assert!(case.step("resize").maybe_done);
    assert_eq!(case.step("resize").failures, 0, "the run may go on");
    case.later(Duration::from_secs(2))
        .assert_step("resize", StepState::Running, 2);
    case.answer("resize", completed("d1"));
    case.assert_step("resize", StepState::Succeeded, 2);
}

#[test]
fn silence_after_a_call_that_may_not_be_repeated_is_for_a_person_or_a_callback_to_end() {
    let once = ASYNC.replace("async: true}", "async: true}\n  idempotent: false");
    let mut case = accepted(&once);
    case.fail("resize", silent());
    case.assert_step("resize", StepState::Undecided, 1);
    case.answer("resize", completed("d1"));
    case.assert_step("resize", StepState::Succeeded, 1);

    let mut case = accepted(&once);
    case.fail("resize", silent()).answer("resize", failed(0, busy()));
    case.assert_step("resize", StepState::BackingOff, 1);
}

#[test]
fn a_person_may_end_what_nobody_calls_back_for() {
    for (what, ends) in [
        (
            json!({"complete": {"step": "resize", "output": {"size": 2}}}),
            StepState::Succeeded,
        ),
        (json!({"skip": {"step": "resize"}}), StepState::Skipped),
        (json!({"fail": {"step": "resize"}}), StepState::Failed),
    ] {
        let mut case = accepted(ASYNC);
        assert_eq!(case.asks(what).0, crate::api::ActionState::Applied);
        case.assert_step("resize", ends, 1);
        assert!(matches!(stands(&case, 0, Said::Completed("d1")), Standing::Closed(_)));
    }
}

#[test]
fn a_cancel_ends_the_wait_unless_it_is_to_be_undone() {
    let mut case = accepted(ASYNC);
    case.spec.cancel = Some(Cancel::default());
    case.visit();
    case.assert_step("resize", StepState::Cancelled, 1);
    assert!(case.step("resize").maybe_done);
    case.assert_state(Cancelled);

    let undone = "
failurePolicy: Compensate
steps:
- name: resize
  http: {method: POST, url: 'http://inventory/resize', async: true}
  compensate: {http: {method: POST, url: 'http://inventory/back'}}
";
    let mut case = accepted(undone);
    case.spec.cancel = Some(Cancel {
        mode: Some(crate::api::CancelMode::Compensate),
        reason: None,
    });
    case.visit();
    case.assert_step("resize", StepState::Waiting, 1);
    case.answer("resize", completed("d1"));
    case.assert_step("resize", StepState::Succeeded, 1);
    case.assert_step("resize:undo", StepState::Running, 1);
}

#[test]
fn another_steps_failure_leaves_what_was_accepted_to_its_end() {
    let both = "
order: Graph
steps:
- {name: resize, http: {method: POST, url: 'http://inventory/resize', async: true}}
- {name: other, http: {url: 'http://inventory'}}
";
    let mut case = accepted(both);
    case.fail("other", refused());
    case.assert_step("resize", StepState::Waiting, 1);
    case.answer("resize", completed("d1"));
    case.assert_step("resize", StepState::Succeeded, 1);
    case.assert_state(Failed);
}

#[test]
fn a_deadline_ends_the_wait_and_what_became_of_the_work_is_unknown() {
    let mut case = accepted(ASYNC);
    case.later(Duration::from_secs(2 * 60 * 60));
    case.assert_step("resize", StepState::TimedOut, 1);
    assert!(case.step("resize").maybe_done);
}

#[test]
fn what_was_reset_is_asked_for_under_another_key_and_old_callbacks_come_too_late() {
    let mut case = accepted(ASYNC);
    case.answer("resize", completed("d1"));
    case.asks(json!({"reset": {"step": "resize"}}));
    // The check that was under way held the reset up.
    case.succeed("check", nothing())
        .asks(json!({"reset": {"step": "resize"}}));
    case.assert_step("resize", StepState::Running, 1);
    assert_eq!(case.step("resize").epoch, 1);
    let old = standing(&case.status, "resize", 0, 0, Said::Completed("d1"));
    assert!(matches!(old, Standing::Closed(_)), "{old:?}");
    let result = AttemptResult {
        epoch: 0,
        ..case.result("resize", completed("d1"))
    };
    case.visit_with(&[result]);
    case.assert_step("resize", StepState::Running, 1);
}

#[test]
fn an_item_of_a_list_that_was_folded_in_knows_its_repeated_callback() {
    let list = "
steps:
- name: resize
  forEach: '[1, 2]'
  http: {method: POST, url: 'http://inventory/${string(item)}', async: true}
";
    let mut case = case(list);
    case.visit().accept("resize[0]").answer("resize[0]", completed("d1"));
    let stands = |step: &str, said| standing(&case.status, step, 0, 0, said);
    assert_eq!(
        stands("resize[0]", Said::Completed("d1")),
        Standing::Recorded(StepState::Succeeded)
    );
    assert!(matches!(stands("resize[0]", Said::Failed), Standing::Closed(_)));
    assert_eq!(stands("resize[1]", Said::Completed("d1")), Standing::Open);
    assert_eq!(stands("resize[2]", Said::Completed("d1")), Standing::Unknown);
}

#[test]
fn so_does_a_step_of_a_group_whose_item_was_folded_in() {
    let list = "
steps:
- name: grow
  forEach: '[1, 2]'
  steps:
  - {name: resize, http: {method: POST, url: 'http://inventory/${string(item)}', async: true}}
";
    let mut case = case(list);
    case.visit()
        .accept("grow[0]/resize")
        .answer("grow[0]/resize", completed("d1"));
    let stands = |step: &str, said| standing(&case.status, step, 0, 0, said);
    assert_eq!(
        stands("grow[0]/resize", Said::Completed("d1")),
        Standing::Recorded(StepState::Succeeded)
    );
    assert_eq!(stands("grow[1]/resize", Said::Completed("d1")), Standing::Open);
}

#[test]
fn an_output_that_is_too_large_fails_the_step_and_the_callback_is_known_again() {
    let mut case = accepted(ASYNC);
    let large = json!({"size": "x".repeat(20_000)});
    let callback = Callback {
        run: 0,
        completes: Some("d1".into()),
        said: Ok(large.as_object().cloned()),
    };
    case.answer("resize", AttemptOutcome::CalledBack(callback));
    case.assert_step("resize", StepState::Failed, 1);
    assert!(case.step("resize").maybe_done, "the work was done");
    assert_eq!(
        stands(&case, 0, Said::Completed("d1")),
        Standing::Recorded(StepState::Failed)
    );
}

#[test]
fn a_heartbeat_is_shown_until_the_step_ends() {
    let mut case = accepted(ASYNC);
    let heartbeat = crate::api::Heartbeat {
        time: case.now,
        details: Some(json!({"done": 3})),
    };
    case.answer("resize", AttemptOutcome::Beat(heartbeat.clone()));
    assert_eq!(case.step("resize").heartbeat, Some(heartbeat));
    case.answer("resize", completed("d1"));
    assert_eq!(case.step("resize").heartbeat, None);
}

#[test]
fn heartbeats_are_said_of_steps_that_await_callbacks_alone() {
    let wrong = case(
        "steps: [{name: a, http: {url: 'http://x'}, compensate: {http: {url: 'http://x'}, timeouts: {heartbeat: 10s}}}]",
    );
    let invalid = Workflow::compile(&wrong.spec).unwrap_err();
    assert_eq!(invalid.field, "spec.steps[0].compensate.timeouts.heartbeat");
}

#[test]
fn a_callback_that_ends_the_operation_was_recorded_all_the_same() {
    let list = "
steps:
- name: resize
  forEach: '[1]'
  http: {method: POST, url: 'http://inventory/${string(item)}', async: true}
";
    let mut case = case(list);
    case.visit().accept("resize[0]").answer("resize[0]", completed("d1"));
    case.assert_state(Succeeded);
    assert_eq!(
        standing(&case.status, "resize[0]", 0, 0, Said::Completed("d1")),
        Standing::Recorded(StepState::Succeeded)
    );
}

#[test]
fn so_was_one_of_a_list_in_a_group() {
    let list = "
steps:
- name: g
  steps:
  - {name: resize, forEach: '[1, 2]', http: {method: POST, url: 'http://inventory/${string(item)}', async: true}}
";
    let mut case = case(list);
    case.visit()
        .accept("g/resize[0]")
        .answer("g/resize[0]", completed("d1"));
    let stands = |step: &str| standing(&case.status, step, 0, 0, Said::Completed("d1"));
    assert_eq!(stands("g/resize[0]"), Standing::Recorded(StepState::Succeeded));
    assert_eq!(stands("g/resize[1]"), Standing::Open);
    assert_eq!(stands("g/resize[2]"), Standing::Unknown);
}

#[test]
fn what_completed_a_step_does_so_again_once_a_person_lets_it_run_again() {
    let mut case = accepted(ASYNC);
    case.answer(
        "resize",
        AttemptOutcome::CalledBack(Callback {
            run: 0,
            completes: Some("d1".into()),
            said: Err(AttemptFailure::definite("InvalidExpression", "no such key: size")),
        }),
    );
    case.assert_step("resize", StepState::Failed, 1);
    let entry = case.status.steps.iter_mut().find(|step| step.name == "resize").unwrap();
    entry.maybe_done = true;
    case.asks(json!({"retry": {"step": "resize"}}));
    case.accept("resize");
    assert_eq!(stands(&case, 0, Said::Completed("d1")), Standing::Open);
}
