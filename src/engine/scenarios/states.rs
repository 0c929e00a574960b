//! Which state of an operation follows which: what random histories don't bring about.

use super::*;
use crate::api::ActionState::Applied;

const CALL: &str = "http: {method: POST, url: 'http://x'}";
const ONCE: &str = "idempotent: false, http: {method: POST, url: 'http://x'}";
const UNDONE: &str = "http: {method: POST, url: 'http://x'}, compensate: {http: {method: POST, url: 'http://undo'}}";

/// For the report on transitions.
pub fn all() {
    the_first_decision_may_lead_to_any_state();
    a_spec_that_changes_ends_it_whatever_it_does();
    what_waits_times_out();
    what_a_person_decides_lets_the_next_step_ask();
    what_failed_is_skipped_before_anything_was_undone();
    what_ended_fails_or_asks_at_once_when_it_runs_again();
    what_runs_again_while_its_process_ends_waits_for_the_next();
    what_timed_out_runs_again();
}

#[track_caller]
fn applied(case: &mut Case, what: serde_json::Value) {
    let (state, message) = case.asks(what);
    assert_eq!(state, Applied, "{message}");
}

#[test]
fn the_first_decision_may_lead_to_any_state() {
    let mut held = case(&format!("steps: [{{name: a, {CALL}}}]"));
    held.spec.suspend = Some(true);
    held.visit().assert_state(Suspended);
    let mut cancelled = case(&format!("steps: [{{name: a, {CALL}}}]"));
    cancelled.spec.cancel = Some(Cancel::default());
    cancelled.visit().assert_state(Cancelled);
    assert!(held.work.is_empty() && cancelled.work.is_empty());
    let no = "name: no, assert: 'false'";
    case(&format!("{{failurePolicy: Pause, steps: [{{{no}}}]}}"))
        .visit()
        .assert_state(Stuck);
    case("steps: [{name: yes, assert: 'true'}]")
        .visit()
        .assert_state(Succeeded);
    case(&format!("steps: [{{{no}}}]")).visit().assert_state(Failed);
    case(&format!("{{timeout: 0s, steps: [{{name: a, {CALL}}}]}}"))
        .visit()
        .assert_state(TimedOut);
    let undoes = format!("{{order: Graph, failurePolicy: Compensate, steps: [{{name: a, {UNDONE}}}, {{{no}}}]}}");
    case(&undoes)
        .visit()
        .assert_state(Compensating)
        .assert_step("a", StepState::Running, 1);
}

#[test]
fn a_spec_that_changes_ends_it_whatever_it_does() {
    let mut waits = case("steps: [{name: a, wait: {duration: 1h}}]");
    waits.visit().assert_state(Waiting);
    let mut held = case("steps: [{name: a, wait: {duration: 1h}}]");
    held.visit().spec.suspend = Some(true);
    held.visit().assert_state(Suspended);
    let mut asks = case("steps: [{name: a, approval: {message: '?'}}]");
    asks.visit().assert_state(AwaitingApproval);
    let mut fails = case(&format!("steps: [{{name: a, {CALL}}}]"));
    fails.visit().fail("a", busy()).assert_state(BackingOff);
    let mut unknown = case(&format!("steps: [{{name: a, {ONCE}}}]"));
    unknown.visit().fail("a", no_answer()).assert_state(Stuck);
    let undoes = format!("{{failurePolicy: Compensate, steps: [{{name: a, {UNDONE}}}, {{name: b, {CALL}}}]}}");
    let mut undoes = case(&undoes);
    undoes
        .visit()
        .succeed("a", nothing())
        .fail("b", refused())
        .assert_state(Compensating);
    let mut succeeded = case(&format!("steps: [{{name: a, {CALL}}}]"));
    succeeded.visit().succeed("a", nothing()).assert_state(Succeeded);
    succeeded.ask(json!({"reset": {"step": "a"}}));
    let mut failed = case(&format!("steps: [{{name: a, {CALL}}}]"));
    failed.visit().fail("a", refused()).assert_state(Failed);
    failed.ask(json!({"retry": {}}));
    let mut timed_out = case(&format!("{{timeout: 1m, steps: [{{name: a, {CALL}}}]}}"));
    timed_out.visit().later(61 * SECOND).assert_state(TimedOut);
    timed_out.ask(json!({"retry": {}}));
    for mut case in [waits, held, asks, fails, unknown, undoes, succeeded, failed, timed_out] {
        case.spec.input.insert("other".into(), json!(1));
        case.visit().assert_state(SpecChanged);
        assert!(case.work.is_empty() && case.status.completion_time.is_some());
    }
}

#[test]
fn what_waits_times_out() {
    let mut waits = case("{timeout: 1m, steps: [{name: a, wait: {duration: 1h}}]}");
    waits.visit().later(60 * SECOND).assert_state(TimedOut);
    let mut fails = case(&format!(
        "{{timeout: 1m, steps: [{{name: a, {CALL}, retry: {{initialInterval: 1h}}}}]}}"
    ));
    fails.visit().fail("a", busy()).assert_state(BackingOff);
    fails.later(60 * SECOND).assert_state(TimedOut);
    // Its time had passed when it was held.
    let mut held = case("{timeout: 1m, steps: [{name: a, wait: {duration: 1h}}]}");
    held.visit().spec.suspend = Some(true);
    held.later(60 * SECOND).assert_state(Suspended);
    held.spec.suspend = None;
    held.later(60 * SECOND).assert_state(TimedOut);
}

#[test]
fn what_a_person_decides_lets_the_next_step_ask() {
    let mut case = case(&format!(
        "steps: [{{name: a, {ONCE}}}, {{name: b, approval: {{message: '?'}}}}]"
    ));
    case.visit().fail("a", no_answer()).assert_state(Stuck);
    applied(&mut case, json!({"complete": {"step": "a"}}));
    case.assert_state(AwaitingApproval);
}

/// One step failed, and what another did is to be undone once that has ended: until then a person may go on without the first.
#[test]
fn what_failed_is_skipped_before_anything_was_undone() {
    let spec = |a: &str, more: &str| {
        case(&format!(
            "{{order: Graph, failurePolicy: Compensate, steps: [{{name: a, {a}}}, {{name: b, {CALL}}}{more}]}}"
        ))
    };
    let skip = json!({"skip": {"step": "b"}});
    let mut retries = spec(UNDONE, "");
    retries
        .visit()
        .fail("a", no_answer())
        .fail("b", refused())
        .assert_state(Compensating);
    applied(&mut retries, skip.clone());
    retries.assert_state(BackingOff);

    let accepted =
        "http: {method: POST, url: 'http://x', async: true}, compensate: {http: {method: POST, url: 'http://undo'}}";
    for (more, state) in [
        ("", Waiting),
        (", {name: c, approval: {message: '?'}}", AwaitingApproval),
    ] {
        let mut waits = spec(accepted, more);
        waits
            .visit()
            .accept("a")
            .fail("b", refused())
            .assert_state(Compensating);
        applied(&mut waits, skip.clone());
        waits.assert_state(state);
    }

    let mut ends = spec(UNDONE, "");
    ends.visit().fail("b", refused()).assert_state(Compensating);
    ends.ask(skip).succeed("a", nothing()).assert_state(Succeeded);
}

/// What is computed fails again as it did before; a person had gone on without it.
#[test]
fn what_ended_fails_or_asks_at_once_when_it_runs_again() {
    let no = "{name: no, assert: 'false'}";
    let reset = json!({"reset": {"step": "no"}});
    // It failed, was skipped, and is gone back to.
    let mut stops = case(&format!("steps: [{no}]"));
    stops.visit().assert_state(Failed);
    applied(&mut stops, json!({"skip": {"step": "no"}}));
    stops.assert_state(Succeeded);
    applied(&mut stops, reset.clone());
    stops.assert_state(Failed);
    // It asked a person, who failed it, or went on without it.
    let mut asks = case(&format!("{{failurePolicy: Pause, steps: [{no}]}}"));
    asks.visit().assert_state(Stuck);
    applied(&mut asks, json!({"fail": {"step": "no"}}));
    asks.assert_state(Failed);
    applied(&mut asks, json!({"retry": {}}));
    asks.assert_state(Stuck);
    applied(&mut asks, json!({"skip": {"step": "no"}}));
    asks.assert_state(Succeeded);
    applied(&mut asks, reset.clone());
    asks.assert_state(Stuck);
    // And what was done beside it is undone now.
    for (output, state) in [("", Succeeded), (", output: {x: '${1 / 0}'}", Failed)] {
        let mut undoes = case(&format!(
            "{{order: Graph, failurePolicy: Compensate, steps: [{{name: a, {UNDONE}}}, {no}]{output}}}"
        ));
        undoes.visit().assert_state(Compensating);
        applied(&mut undoes, json!({"skip": {"step": "no"}}));
        undoes.succeed("a", nothing()).assert_state(state);
        applied(&mut undoes, reset.clone());
        undoes
            .assert_state(Compensating)
            .assert_step("a:undo", StepState::Running, 1);
    }
}

/// A process that ends starts nothing: what a person lets run again under its key waits for the next process.
#[test]
fn what_runs_again_while_its_process_ends_waits_for_the_next() {
    let once = |fields: &str| {
        case(&format!(
            "{{{fields} steps: [{{name: a, {CALL}, retry: {{maximumAttempts: 1}}}}]}}"
        ))
    };
    let mut failed = once("");
    failed.visit().fail("a", no_answer()).assert_state(Failed);
    let mut timed_out = once("timeout: 1m,");
    timed_out.visit().later(61 * SECOND).assert_state(TimedOut);
    let mut succeeded = case(&format!(
        "steps: [{{name: a, {CALL}, onFailure: Continue, retry: {{maximumAttempts: 1}}}}]"
    ));
    succeeded.visit().fail("a", no_answer()).assert_state(Succeeded);
    for mut case in [failed, timed_out, succeeded] {
        case.draining = true;
        applied(&mut case, json!({"retry": {"step": "a"}}));
        case.assert_state(BackingOff);
        case.draining = false;
        case.crash()
            .visit()
            .assert_state(Running)
            .assert_step("a", StepState::Running, 2);
    }
}

#[test]
fn what_timed_out_runs_again() {
    let one = |step: &str| {
        let mut case = case(&format!("{{timeout: 1m, steps: [{{name: a, {step}}}]}}"));
        case.visit().later(61 * SECOND).assert_state(TimedOut);
        case
    };
    let again = json!({"retry": {}});
    for (step, state) in [
        (CALL, Running),
        ("wait: {duration: 1h}", Waiting),
        ("approval: {message: '?'}", AwaitingApproval),
    ] {
        let mut case = one(step);
        applied(&mut case, again.clone());
        case.assert_state(state);
    }
    let mut held = one(CALL);
    held.spec.suspend = Some(true);
    applied(&mut held, again.clone());
    held.assert_state(Suspended);
    let mut skipped = one(CALL);
    applied(&mut skipped, json!({"skip": {"step": "a"}}));
    skipped.assert_state(Succeeded);
    let mut asks = case("{timeout: 1m, failurePolicy: Pause, steps: [{name: a, assert: 'false'}]}");
    asks.visit().assert_state(Stuck);
    asks.later(60 * SECOND).assert_state(TimedOut);
    applied(&mut asks, again);
    asks.assert_state(Stuck);
}
