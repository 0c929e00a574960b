//! Deadlines and timers.

use super::*;

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
