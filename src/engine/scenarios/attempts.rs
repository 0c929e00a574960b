//! An attempt: recorded before it is made, and retried, given up or asked about when it fails.

use super::*;

#[test]
fn three_calls_in_a_row_cost_four_writes() {
    let mut case = case(THREE_CALLS);
    case.visit().assert_step("describe", StepState::Running, 1);
    case.succeed("describe", json!({"size": 3}))
        .assert_step("resize", StepState::Running, 1);
    let under_way = "step resize: attempt 1 is under way";
    for (condition, value) in [("Succeeded", "Unknown"), ("Reconciling", "True")] {
        assert_eq!(
            case.condition(condition),
            (value.into(), under_way.into()),
            "{condition}"
        );
    }
    case.succeed("resize", nothing());
    case.succeed("check", nothing()).assert_state(Succeeded);
    assert_eq!(case.writes, 4);
    assert_eq!(case.status.progress.as_deref(), Some("3/3"));
    assert_eq!(case.condition("Finished").0, "True");
    assert_eq!(case.condition("Succeeded").0, "True");
    assert_eq!(case.condition("Reconciling"), ("False".into(), String::new()));
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
fn retry_after_wins_over_the_policy_but_for_a_wait_shorter_than_its_first() {
    for (asked, waits) in [(40, 40), (2, 2), (0, 1)] {
        let mut case = case(THREE_CALLS);
        let busy = AttemptFailure {
            retry: RetryAdvice::After(Duration::from_secs(asked)),
            ..busy()
        };
        case.visit().fail("describe", busy);
        case.assert_step("describe", StepState::BackingOff, 1);
        assert_eq!(
            case.step("describe").next_attempt_time,
            Some(case.now.plus(Duration::from_secs(waits)))
        );
    }
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
    let mut lost = super::case(spec);
    lost.visit().crash().visit().assert_state(Stuck);
    let mut nothing_sent = super::case(spec);
    nothing_sent
        .visit()
        .fail("pay", AttemptFailure::retryable("ConnectionFailed", "refused"))
        .assert_state(BackingOff);
}

#[test]
pub fn a_request_that_changed_under_its_key_is_not_sent() {
    let mut case = case(THREE_CALLS);
    case.visit().fail("describe", busy());
    case.status.steps[0].request_digest = Some("sha256:other".into());
    case.later(SECOND).assert_state(Failed);
    assert_eq!(case.step("describe").failure.as_ref().unwrap().reason, "InputChanged");
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
