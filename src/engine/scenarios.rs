//! The engine as a table of scenarios: given this history, when this happens, then that is decided.

use std::time::Duration;

use serde_json::json;

use super::fixtures::*;
use super::*;
use crate::api::{Cancel, OperationState::*, StepState};

mod groups;
pub mod lists;
mod people;
mod saga;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn three_calls_in_a_row_cost_four_writes() {
    let mut case = case(THREE_CALLS);
    case.visit().assert_step("describe", StepState::Running, 1);
    case.succeed("describe", json!({"size": 3}))
        .assert_step("resize", StepState::Running, 1);
    case.succeed("resize", nothing());
    case.succeed("check", nothing()).assert_state(Succeeded);
    assert_eq!(case.writes, 4);
    assert_eq!(case.status.progress.as_deref(), Some("3/3"));
    assert_eq!(case.condition("Finished").0, "True");
    assert_eq!(case.condition("Succeeded").0, "True");
    assert_eq!(case.condition("Reconciling").0, "False");
    assert_eq!(case.condition("Stalled").0, "False");
    assert_eq!(
        case.events(),
        [
            "Started",
            "AttemptStarted describe",
            "StepSucceeded describe",
            "AttemptStarted resize",
            "StepSucceeded resize",
            "AttemptStarted check",
            "StepSucceeded check",
            "Finished"
        ]
    );
    assert!(
        case.work.is_empty() && case.wake.is_none(),
        "a finished operation costs nothing"
    );
}

#[test]
fn an_attempt_is_work_only_once_its_intent_is_in_the_status() {
    let mut case = case(THREE_CALLS);
    let decision = case.decision(&[]);
    let work = &decision.work[0];
    assert_eq!(
        (work.step.as_str(), work.attempt, &work.kind),
        ("describe", 1, &WorkKind::Attempt)
    );
    assert_eq!(decision.status.steps[0].runner.as_deref(), Some("a"));
    assert!(decision.status.steps[0].request_digest.is_some());
    case.visit();
    assert_eq!(
        case.decision(&[]).status,
        case.status,
        "nothing new to decide: nothing to write"
    );
    assert_eq!(case.decision(&[]).work, case.work, "work is a function of the status");
}

#[test]
fn another_process_does_not_execute_the_attempt_but_closes_it_as_lost() {
    let mut case = case(THREE_CALLS);
    case.visit().crash().visit();
    case.assert_step("describe", StepState::Running, 2);
    assert_eq!(case.step("describe").runner.as_deref(), Some("a'"));
    assert_eq!(
        (case.step("describe").lost, case.step("describe").epoch),
        (1, 0),
        "the same key, and no failure of the user's"
    );
    assert!(case.events().contains(&"AttemptLost describe".into()));
    assert_eq!(case.work[0].attempt, 2);
}

#[test]
fn a_result_of_a_lost_attempt_comes_too_late() {
    let mut case = case(THREE_CALLS);
    let late = case
        .visit()
        .result("describe", AttemptOutcome::Succeeded { output: None });
    case.crash()
        .visit()
        .visit_with(&[late])
        .assert_step("describe", StepState::Running, 2);
}

#[test]
fn a_failure_of_the_engine_is_retried_and_seen_from_the_first() {
    let mut case = case(THREE_CALLS);
    case.visit()
        .fail("describe", busy())
        .assert_state(BackingOff)
        .assert_step("describe", StepState::BackingOff, 1);
    assert!(case.message().contains("503 Service Unavailable"), "{}", case.message());
    let at = case.step("describe").next_attempt_time.unwrap();
    assert!(at.since(case.now) <= SECOND && at.since(case.now) >= Duration::from_millis(900));
    assert_eq!(case.wake, Some(at));
    assert!(case.work.is_empty());
    case.later(SECOND)
        .assert_step("describe", StepState::Running, 2)
        .assert_state(Running);
    assert!(
        case.message().contains("503"),
        "the last failure stays visible: {}",
        case.message()
    );
    case.succeed("describe", nothing());
    assert_eq!(case.step("describe").failure, None);
}

#[test]
fn a_backoff_goes_on_after_a_crash_as_if_there_had_been_none() {
    let mut case = case("{retry: {initialInterval: 1h}, steps: [{name: call, http: {url: 'http://x'}}]}");
    case.visit().fail("call", busy());
    let at = case.step("call").next_attempt_time;
    case.crash()
        .later(Duration::from_secs(1800))
        .assert_step("call", StepState::BackingOff, 1);
    assert_eq!(case.step("call").next_attempt_time, at);
    case.later(Duration::from_secs(1800))
        .assert_step("call", StepState::Running, 2);
    assert_eq!(case.step("call").lost, 0);
}

#[test]
fn retry_after_wins_over_the_policy() {
    let mut case = case(THREE_CALLS);
    let busy = AttemptFailure {
        retry: RetryAdvice::After(Duration::from_secs(40)),
        ..busy()
    };
    case.visit().fail("describe", busy);
    assert_eq!(
        case.step("describe").next_attempt_time,
        Some(case.now.plus(Duration::from_secs(40)))
    );
}

#[test]
fn a_definite_no_fails_at_once_with_the_other_sides_reason() {
    let mut case = case(THREE_CALLS);
    case.visit()
        .fail("describe", refused())
        .assert_state(Failed)
        .assert_step("describe", StepState::Failed, 1);
    let failure = case.status.failure.clone().unwrap();
    assert_eq!(
        (failure.reason.as_str(), failure.step.as_deref()),
        ("HttpStatus", Some("describe"))
    );
    assert!(case.message().contains("the group is frozen"));
    assert_eq!(
        (
            case.condition("Stalled").0.as_str(),
            case.condition("Succeeded").0.as_str()
        ),
        ("True", "False")
    );
}

#[test]
fn maximum_attempts_counts_failures_and_not_lost_processes() {
    let mut case = case("{retry: {maximumAttempts: 2}, steps: [{name: call, http: {url: 'http://x'}}]}");
    case.visit()
        .crash()
        .visit()
        .crash()
        .visit()
        .assert_step("call", StepState::Running, 3);
    case.fail("call", busy()).assert_step("call", StepState::BackingOff, 3);
    case.later(SECOND).fail("call", busy()).assert_state(Failed);
    assert!(case.message().contains("after 2 attempts"), "{}", case.message());
}

#[test]
fn a_reason_that_is_named_as_not_retryable_is_not_retried() {
    let mut case = case("{retry: {nonRetryableErrors: [HttpStatus]}, steps: [{name: call, http: {url: 'http://x'}}]}");
    case.visit().fail("call", busy()).assert_state(Failed);
}

#[test]
fn a_call_that_may_not_be_repeated_waits_for_a_person_when_nobody_answered() {
    let spec = "steps: [{name: pay, idempotent: false, http: {url: 'http://x'}}]";
    let mut case = case(spec);
    case.visit()
        .fail("pay", no_answer())
        .assert_state(Stuck)
        .assert_step("pay", StepState::Undecided, 1);
    assert!(case.work.is_empty());
    let mut lost = super::fixtures::case(spec);
    lost.visit().crash().visit().assert_state(Stuck);
    let mut nothing_sent = super::fixtures::case(spec);
    nothing_sent
        .visit()
        .fail("pay", AttemptFailure::retryable("ConnectionFailed", "refused"))
        .assert_state(BackingOff);
}

#[test]
pub(super) fn a_request_that_changed_under_its_key_is_not_sent() {
    let mut case = case(THREE_CALLS);
    case.visit().fail("describe", busy());
    case.status.steps[0].request_digest = Some("sha256:other".into());
    case.later(SECOND).assert_state(Failed);
    assert_eq!(case.step("describe").failure.as_ref().unwrap().reason, "InputChanged");
}

#[test]
fn a_step_times_out_when_no_attempt_fits_any_more() {
    let mut case = case(
        "steps: [{name: call, http: {url: 'http://x'}, timeouts: {scheduleToClose: 10s}, retry: {initialInterval: 8s}}]",
    );
    case.visit().fail("call", busy()).assert_state(BackingOff);
    case.later(8 * SECOND)
        .fail("call", busy())
        .assert_step("call", StepState::TimedOut, 2)
        .assert_state(Failed);
    assert!(
        case.message().contains("503"),
        "the last failure is told: {}",
        case.message()
    );
}

#[test]
fn an_attempt_that_never_ends_is_ended_by_the_deadline() {
    let mut case = case("steps: [{name: call, http: {url: 'http://x'}, timeouts: {scheduleToClose: 10s}}]");
    case.visit();
    assert_eq!(case.wake, Some(case.now.plus(10 * SECOND)));
    case.later(10 * SECOND)
        .assert_step("call", StepState::TimedOut, 1)
        .assert_state(Failed);
    assert!(case.step("call").maybe_done && case.work.is_empty());
}

#[test]
fn the_whole_operation_times_out() {
    let mut case = case("{timeout: 1m, steps: [{name: nap, wait: {duration: 1h}}]}");
    case.visit().assert_state(Waiting);
    case.later(60 * SECOND)
        .assert_state(TimedOut)
        .assert_step("nap", StepState::Cancelled, 0);
}

#[test]
fn a_timer_fires_on_time_and_is_not_an_attempt() {
    let mut case =
        case("steps: [{name: nap, wait: {duration: 90s}}, {name: until, wait: {untilTime: '2026-11-24T03:05:00Z'}}]");
    case.visit().assert_step("nap", StepState::Waiting, 0);
    assert_eq!(case.wake, Some(case.now.plus(90 * SECOND)));
    assert!(case.message().contains("waiting until 2026-11-24T03:01:30"));
    case.later(90 * SECOND).assert_step("until", StepState::Waiting, 0);
    case.later(3600 * SECOND).assert_state(Succeeded);
}

#[test]
fn time_does_not_run_backwards() {
    let mut case = case("steps: [{name: a, wait: {duration: 10s}}, {name: b, wait: {duration: 10s}}]");
    case.visit().later(10 * SECOND);
    let last = case.status.last_time;
    case.now = Time::new("2020-01-01T00:00:00Z".parse().unwrap());
    case.spec.suspend = Some(true);
    case.visit();
    assert_eq!(case.status.last_time, last);
    assert!(case.status.history.is_sorted_by_key(|e| e.time));
}

#[test]
fn a_graph_starts_what_is_ready_and_shares_a_write() {
    let mut case = case(
        "
order: Graph
steps:
- {name: join, needs: [left], http: {url: 'http://x/${steps.right.output.id}'}}
- {name: left, http: {url: 'http://x'}}
- {name: right, http: {url: 'http://x'}, output: {id: '${result.body.id}'}}
",
    );
    case.visit();
    assert_eq!(case.work.len(), 2);
    assert_eq!(case.writes, 1);
    let both = [
        case.result(
            "right",
            AttemptOutcome::Succeeded {
                output: json!({"id": 7}).as_object().cloned(),
            },
        ),
        case.result("left", AttemptOutcome::Succeeded { output: None }),
    ];
    case.visit_with(&both).assert_step("join", StepState::Running, 1);
    assert_eq!(case.writes, 2);
    assert!(
        case.step("right").end_seq < case.step("left").end_seq,
        "results that share a write keep their order"
    );
}

#[test]
fn a_failed_branch_lets_what_runs_end_and_starts_nothing_more() {
    let mut case = case(
        "
order: Graph
steps:
- {name: bad, http: {url: 'http://x'}}
- {name: slow, http: {url: 'http://x'}}
- {name: nap, wait: {duration: 1h}}
- {name: after, needs: [slow], http: {url: 'http://x'}}
",
    );
    case.visit().fail("bad", refused());
    case.assert_state(Running)
        .assert_step("slow", StepState::Running, 1)
        .assert_step("nap", StepState::Cancelled, 0);
    case.succeed("slow", nothing())
        .assert_state(Failed)
        .assert_step("slow", StepState::Succeeded, 1);
    assert!(case.status.steps.iter().all(|s| s.name != "after"));
}

#[test]
fn steps_that_only_compute_cost_no_write_and_a_skipped_one_lets_others_run() {
    let mut case = case(
        "
input: {size: 3}
steps:
- {name: plan, set: {twice: '${input.size * 2}'}}
- {name: sure, assert: 'steps.plan.output.twice == 6'}
- {name: never, when: 'input.size > 5', http: {url: 'http://x'}}
- {name: call, http: {url: 'http://x/${steps.plan.output.twice}'}}
output: {twice: '${steps.plan.output.twice}'}
",
    );
    case.visit()
        .assert_step("call", StepState::Running, 1)
        .assert_step("never", StepState::Skipped, 0);
    assert_eq!(case.writes, 1);
    case.succeed("call", nothing()).assert_state(Succeeded);
    assert_eq!(case.status.output.as_ref().unwrap()["twice"], 6);
}

#[test]
fn an_assertion_that_is_false_fails_with_its_text() {
    let mut case = case("{input: {size: 3}, steps: [{name: sure, assert: 'input.size > 5'}]}");
    case.visit().assert_state(Failed);
    assert!(case.message().contains("input.size > 5 is false"), "{}", case.message());
}

#[test]
fn an_expression_that_cannot_be_evaluated_names_step_field_and_expression() {
    let mut case = case("steps: [{name: call, http: {url: 'http://x/${input.group}'}}]");
    case.visit().assert_state(Failed);
    let message = case.message();
    assert!(
        message.contains("call") && message.contains("spec.steps[0].http.url") && message.contains("input.group"),
        "{message}"
    );
    assert!(case.work.is_empty());
}

#[test]
fn wrong_specs_are_refused_before_any_effect_and_name_the_field() {
    for (spec, field, words) in [
        (
            "steps: [{name: a, http: {url: 'http://${steps.b.output.x}'}}]",
            "spec.steps[0].http.url",
            "no step named \"b\"",
        ),
        (
            "steps: [{name: a, http: {url: 'http://x'}}, {name: b, when: 'steps[input.x].output.y', http: {url: 'http://x'}}]",
            "spec.steps[1].when",
            "only be read by name",
        ),
        (
            "{order: Graph, steps: [{name: a, needs: [b], set: {}}, {name: b, needs: [a], set: {}}]}",
            "spec.steps",
            "or for one that does: a, b",
        ),
        (
            "steps: [{name: a, needs: [a], set: {}}]",
            "spec.steps[0].needs",
            "itself",
        ),
        ("steps: [{name: a, when: 'input.', set: {}}]", "spec.steps[0].when", ""),
        (
            "steps: [{name: a, when: 'nothing.here', set: {}}]",
            "spec.steps[0].when",
            "\"nothing\" is not defined here",
        ),
        (
            "steps: [{name: a, http: {url: 'http://x', success: 'object.x'}}]",
            "spec.steps[0].http.success",
            "\"object\" is not defined",
        ),
        (
            "steps: [{name: a, http: {url: 'http://x', body: {n: '${step.attempt}'}}, output: {x: '${nope}'}}]",
            "spec.steps[0].output",
            "\"nope\"",
        ),
        (
            "steps: [{name: a, wait: {duration: 1d}}]",
            "spec.steps[0].wait.duration",
            "24h",
        ),
        (
            "steps: [{name: a, wait: {untilTime: tomorrow}}]",
            "spec.steps[0].wait.untilTime",
            "2026-11-24T03:00:00Z",
        ),
        (
            "{steps: [{name: a, set: {}}], output: {x: '${steps.b.output.x}'}}",
            "spec.output",
            "no step named \"b\"",
        ),
        ("steps: [{name: true, set: {}}]", "spec.steps[0].name", "reserved"),
        (
            "steps: [{name: a, set: {}, assert: 'true'}]",
            "spec.steps[0]",
            "exactly one",
        ),
    ] {
        let mut case = case(spec.replace("name: true", "name: 'true'").as_str());
        case.visit().assert_state(InvalidSpec);
        let message = case.message();
        assert!(
            message.starts_with(field) && message.contains(words),
            "{spec}\n  {message}"
        );
        assert!(case.work.is_empty() && case.status.steps.is_empty());
    }
}

#[test]
pub fn a_spec_changed_behind_admissions_back_executes_nothing_more() {
    let mut case = case(THREE_CALLS);
    case.visit();
    case.spec.input.insert("group".into(), json!("other"));
    case.visit()
        .assert_state(SpecChanged)
        .assert_step("describe", StepState::Cancelled, 1);
    assert!(case.work.is_empty() && case.step("describe").maybe_done);
}

#[test]
fn control_fields_are_not_part_of_what_is_pinned() {
    let mut case = case(THREE_CALLS);
    case.visit();
    case.spec.ttl_seconds_after_finished = Some(60);
    case.visit().assert_state(Running);
}

#[test]
fn suspended_no_attempt_starts_results_are_recorded_and_deadlines_stand_still() {
    let mut case =
        case("{timeout: 10m, steps: [{name: a, http: {url: 'http://x'}}, {name: b, http: {url: 'http://x'}}]}");
    case.visit();
    let (deadline, step_deadline) = (case.status.deadline.unwrap(), case.step("a").deadline.unwrap());
    case.spec.suspend = Some(true);
    case.visit()
        .assert_state(Suspended)
        .assert_step("a", StepState::Running, 1);
    assert_eq!(case.wake, None);
    case.later(3600 * SECOND).assert_state(Suspended);
    case.later(60 * SECOND).succeed("a", nothing()).assert_state(Suspended);
    assert_eq!(case.status.steps.len(), 1);
    case.spec.suspend = None;
    case.later(40 * SECOND)
        .assert_state(Running)
        .assert_step("b", StepState::Running, 1);
    assert_eq!(case.status.deadline.unwrap(), deadline.plus(3700 * SECOND));
    assert!(case.step("b").deadline.unwrap() > step_deadline);
    let events = case.events();
    assert!(events.contains(&"Suspended".into()) && events.contains(&"Resumed".into()));
}

#[test]
fn a_held_namespace_costs_no_write_and_freezes_deadlines_all_the_same() {
    let mut case =
        case("{timeout: 10m, steps: [{name: nap, wait: {duration: 1m}}, {name: b, http: {url: 'http://x'}}]}");
    case.visit();
    let (writes, deadline) = (case.writes, case.status.deadline.unwrap());
    case.hold = Some(Hold {
        since: case.now.plus(10 * SECOND),
        until: None,
    });
    case.later(10 * SECOND).later(3600 * SECOND);
    assert_eq!(case.writes, writes);
    assert_eq!(case.wake, None);
    case.hold = case.hold.map(|hold| Hold {
        until: Some(case.now),
        ..hold
    });
    case.visit().assert_step("b", StepState::Running, 1);
    assert_eq!(case.status.deadline.unwrap(), deadline.plus(3600 * SECOND));
    case.succeed("b", nothing()).assert_state(Succeeded);
    assert_eq!(
        case.status.deadline.unwrap(),
        deadline.plus(3600 * SECOND),
        "counted once"
    );
}

#[test]
fn cancel_ends_what_waits_at_once_and_says_what_is_unknown() {
    let mut case =
        case("{order: Graph, steps: [{name: a, http: {url: 'http://x'}}, {name: nap, wait: {duration: 1h}}]}");
    case.visit();
    case.spec.cancel = Some(Cancel {
        mode: None,
        reason: Some("wrong group".into()),
    });
    case.visit()
        .assert_state(Cancelled)
        .assert_step("a", StepState::Cancelled, 1)
        .assert_step("nap", StepState::Cancelled, 0);
    assert!(case.step("a").maybe_done && case.message().contains("wrong group"));
    assert!(case.work.is_empty(), "a call under way is aborted");
}

#[test]
fn a_cancel_that_comes_with_the_last_result_finds_nothing_to_cancel() {
    let mut case = case("steps: [{name: a, http: {url: 'http://x'}}]");
    case.visit();
    case.spec.cancel = Some(Cancel::default());
    case.succeed("a", nothing()).assert_state(Succeeded);
}

#[test]
fn cancel_works_while_suspended() {
    let mut case = case("steps: [{name: nap, wait: {duration: 1h}}]");
    case.spec.suspend = Some(true);
    case.visit().assert_state(Suspended);
    case.spec.cancel = Some(Cancel::default());
    case.visit().assert_state(Cancelled);
}

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
fn an_output_that_is_too_large_is_said_so_and_not_half_recorded() {
    let mut case = case(THREE_CALLS);
    case.visit()
        .succeed("describe", json!({"size": "x".repeat(20_000)}))
        .assert_state(Failed);
    assert_eq!(case.step("describe").failure.as_ref().unwrap().reason, "OutputTooLarge");
    assert_eq!(case.step("describe").output, None);
}

#[test]
pub fn what_is_nested_too_deeply_is_refused() {
    let deep = (0..200).fold(json!(1), |value, _| json!([value]));
    let mut case = case(THREE_CALLS);
    case.visit()
        .succeed("describe", json!({"size": deep}))
        .assert_state(Failed);
    assert_eq!(case.step("describe").failure.as_ref().unwrap().reason, "OutputTooLarge");
    let mut case = super::fixtures::case(THREE_CALLS);
    case.spec.input.insert("deep".into(), deep);
    case.visit().assert_state(InvalidSpec);
    assert!(case.message().contains("64 levels"), "{}", case.message());
}

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

#[test]
fn an_operation_from_a_newer_engine_is_left_alone() {
    let mut case = case(THREE_CALLS);
    case.visit();
    case.status.engine = Some(ENGINE + 1);
    let decision = case.decision(&[]);
    assert_eq!(decision.status, case.status);
    assert!(decision.work.is_empty());
}

#[test]
fn fields_of_other_versions_survive() {
    let mut case = case(THREE_CALLS);
    case.visit();
    case.status.other.insert("shiny".into(), json!({"new": true}));
    case.status.steps[0].other.insert("glow".into(), json!(1));
    case.succeed("describe", json!({"size": 1}));
    assert_eq!(
        (&case.status.other["shiny"]["new"], &case.status.steps[0].other["glow"]),
        (&json!(true), &json!(1))
    );
}

#[test]
fn a_process_that_shuts_down_records_and_starts_nothing() {
    let mut case = case(THREE_CALLS);
    case.visit().draining = true;
    case.succeed("describe", json!({"size": 1}))
        .assert_step("describe", StepState::Succeeded, 1);
    assert_eq!(case.status.steps.len(), 1);
    case.draining = false;
    case.crash().visit().assert_step("resize", StepState::Running, 1);
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
fn local_steps_are_recorded_with_the_next_thing_that_has_to_be() {
    let mut case = case(
        "
steps:
- {name: a, local: true, http: {url: 'http://x'}, output: {n: '${result.n}'}}
- {name: b, local: true, http: {url: 'http://x/${string(steps.a.output.n)}'}}
- {name: c, local: true, http: {url: 'http://x'}}
",
    );
    case.visit().assert_step("a", StepState::Running, 1);
    let result = |step: &str| AttemptResult {
        step: step.into(),
        epoch: 0,
        attempt: 1,
        outcome: AttemptOutcome::Succeeded {
            output: json!({"n": 1}).as_object().cloned(),
        },
    };
    for (arrived, next) in [(&["a"][..], "b"), (&["a", "b"], "c")] {
        let results: Vec<_> = arrived.iter().map(|step| result(step)).collect();
        let decision = case.decision(&results);
        assert!(!decision.durable, "{next} can be made again");
        assert_eq!(
            decision.work.iter().map(|work| work.step.as_str()).collect::<Vec<_>>(),
            [next]
        );
    }
    let end = case.decision(&[result("a"), result("b"), result("c")]);
    assert!(end.durable);
    case.visit_with(&[result("a"), result("b"), result("c")])
        .assert_state(Succeeded);
    assert_eq!(case.writes, 2);
}

#[test]
fn a_local_step_that_fails_is_seen_from_its_first_attempt_on() {
    let mut case = case(
        "steps: [{name: a, local: true, http: {url: 'http://x'}}, {name: b, local: true, http: {url: 'http://x'}}]",
    );
    case.visit().succeed("a", nothing());
    let failed = AttemptResult {
        step: "b".into(),
        epoch: 0,
        attempt: 1,
        outcome: AttemptOutcome::Failed(busy()),
    };
    assert!(case.decision(std::slice::from_ref(&failed)).durable);
    case.visit_with(&[failed]).assert_step("b", StepState::BackingOff, 1);
}
