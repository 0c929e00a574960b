//! What holds an operation up or ends it: suspend, a held namespace, cancel.

use super::*;

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
fn a_held_namespace_costs_one_write_and_freezes_deadlines() {
    let mut case =
        case("{timeout: 10m, steps: [{name: nap, wait: {duration: 1m}}, {name: b, http: {url: 'http://x'}}]}");
    case.visit();
    let (writes, deadline) = (case.writes, case.status.deadline.unwrap());
    case.hold = Some(Hold {
        since: case.now.plus(10 * SECOND),
        until: None,
    });
    case.later(10 * SECOND).assert_state(Suspended);
    case.later(1800 * SECOND).later(1800 * SECOND);
    assert_eq!(case.writes, writes + 1);
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

/// The operator starts anew without `--hold-all`, or the label went while none led: who leads now knows of no hold.
#[test]
fn a_hold_that_nobody_remembers_costs_no_time_all_the_same() {
    let mut case =
        case("{timeout: 10m, steps: [{name: a, http: {url: 'http://x'}}, {name: b, http: {url: 'http://x'}}]}");
    case.visit().fail("a", busy());
    let (deadline, step_deadline) = (case.status.deadline.unwrap(), case.step("a").deadline.unwrap());
    let held_from = |now| {
        Some(Hold {
            since: now,
            until: None,
        })
    };
    case.hold = held_from(case.now);
    case.visit().assert_state(Suspended);
    case.later(5000 * SECOND);
    case.hold = held_from(case.now); // of another term, which remembers nothing of the first part
    case.later(5000 * SECOND).assert_state(Suspended);
    case.hold = None;
    case.visit().assert_step("a", StepState::Running, 2);
    assert_eq!(case.status.deadline.unwrap(), deadline.plus(10_000 * SECOND));
    assert_eq!(case.step("a").deadline.unwrap(), step_deadline.plus(10_000 * SECOND));
    case.later(SECOND).succeed("a", nothing());
    assert_eq!(
        case.status.deadline.unwrap(),
        deadline.plus(10_000 * SECOND),
        "counted once"
    );
}

#[test]
fn one_held_by_two_says_by_which_and_goes_on_once_neither_does() {
    let mut case = case("steps: [{name: nap, wait: {duration: 1h}}]");
    case.visit();
    case.hold = Some(Hold {
        since: case.now,
        until: None,
    });
    case.visit().assert_state(Suspended);
    assert!(case.message().contains("holdfast.dev/suspended"), "{}", case.message());
    case.spec.suspend = Some(true);
    case.visit().assert_state(Suspended);
    assert!(case.message().contains("spec.suspend"), "{}", case.message());
    case.hold = None;
    case.visit().assert_state(Suspended);
    case.spec.suspend = None;
    case.visit().assert_state(Waiting);
    let holds = case.events().into_iter().filter(|event| event == "Suspended").count();
    assert_eq!(holds, 1);
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
fn a_suspended_operation_costs_one_write_however_often_it_is_looked_at() {
    let mut case = case("{timeout: 10m, steps: [{name: a, http: {url: 'http://x'}}]}");
    case.visit().fail("a", busy());
    let (deadline, step_deadline) = (case.status.deadline.unwrap(), case.step("a").deadline.unwrap());
    case.spec.suspend = Some(true);
    case.visit();
    let writes = case.writes;
    case.later(SECOND).later(3600 * SECOND).later(SECOND);
    assert_eq!(case.writes, writes, "its deadlines move with the next write");
    case.asks(json!({"retryNow": {"step": "a"}}));
    assert_eq!(case.writes, writes + 1);
    case.later(98 * SECOND);
    case.spec.suspend = None;
    case.visit().assert_step("a", StepState::Running, 2);
    assert_eq!(case.status.deadline.unwrap(), deadline.plus(3700 * SECOND));
    assert_eq!(case.step("a").deadline.unwrap(), step_deadline.plus(3700 * SECOND));
}

#[test]
fn what_is_asked_in_a_held_namespace_takes_no_time_from_it() {
    let mut case = case("{timeout: 10m, steps: [{name: go, signal: {}}, {name: b, http: {url: 'http://x'}}]}");
    case.visit();
    let deadline = case.status.deadline.unwrap();
    case.hold = Some(Hold {
        since: case.now,
        until: None,
    });
    case.later(3500 * SECOND).asks(json!({"signal": {"name": "go"}}));
    case.later(100 * SECOND);
    case.hold = case.hold.map(|hold| Hold {
        until: Some(case.now),
        ..hold
    });
    case.visit().assert_step("b", StepState::Running, 1);
    assert_eq!(case.status.deadline.unwrap(), deadline.plus(3600 * SECOND));
}

#[test]
fn an_operation_that_drains_is_not_looked_at_again_for_what_starts_nothing() {
    let mut case = case("steps: [{name: a, http: {url: 'http://x'}}]");
    case.visit().fail("a", busy());
    case.draining = true;
    case.later(7200 * SECOND).assert_step("a", StepState::BackingOff, 1);
    assert_eq!(case.wake, None);
}

#[test]
fn what_fails_while_it_is_held_has_the_time_that_it_had() {
    let mut case = case("steps: [{name: a, http: {url: 'http://x', async: true}}]");
    case.visit().accept("a");
    case.spec.suspend = Some(true);
    case.visit();
    case.later(3 * 3600 * SECOND).fail("a", busy());
    case.assert_state(Suspended).assert_step("a", StepState::BackingOff, 1);
}

#[test]
fn time_counts_as_held_though_why_it_cannot_go_on_was_written_meanwhile() {
    let mut case = case("{timeout: 10m, steps: [{name: a, http: {url: 'http://x'}}]}");
    case.visit();
    let deadline = case.status.deadline.unwrap();
    case.spec.suspend = Some(true);
    case.visit();
    case.now = case.now.plus(3500 * SECOND);
    case.status = held_up(&case.status, &case.identity, Stuck, "its template is gone", case.now);
    case.assert_state(Stuck);
    case.spec.suspend = None;
    case.later(100 * SECOND);
    assert_eq!(case.status.deadline.unwrap(), deadline.plus(3600 * SECOND));
}
