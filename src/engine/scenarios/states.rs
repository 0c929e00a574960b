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
    what_ended_runs_again_as_it_did();
    what_is_most_urgent_is_what_it_says();
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
fn what_is_most_urgent_is_what_it_says() {
    let mut unknown = case(&format!(
        "{{order: Graph, steps: [{{name: a, {ONCE}}}, {{name: b, {CALL}}}]}}"
    ));
    unknown
        .visit()
        .fail("a", no_answer())
        .fail("b", busy())
        .assert_state(Stuck);
    applied(&mut unknown, json!({"complete": {"step": "a"}}));
    unknown.assert_state(BackingOff);
    let mut asks = case("steps: [{name: a, approval: {message: '?'}}, {name: b, wait: {duration: 1h}}]");
    asks.visit().assert_state(AwaitingApproval);
    applied(&mut asks, json!({"approve": {"step": "a"}}));
    asks.assert_state(Waiting);
    // The first that is written of a local step is that it failed.
    let mut local = case(&format!("steps: [{{name: a, local: true, {CALL}}}]"));
    local.pass_with(&[]);
    let failed = AttemptResult {
        step: "a".into(),
        epoch: 0,
        attempt: 1,
        outcome: AttemptOutcome::Failed(busy()),
    };
    local.pass_with(&[failed]).assert_state(BackingOff);
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

    let mut goes_on = spec(UNDONE, "");
    goes_on.visit().fail("b", refused()).assert_state(Compensating);
    applied(&mut goes_on, skip.clone());
    goes_on.assert_state(Running);

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

/// Three that ended, each in another way, and what a person asks of them: that their step runs again.
fn ended(step: &str) -> [(Case, serde_json::Value); 3] {
    let one = || case(&format!("{{timeout: 1m, steps: [{{name: a, {step}}}]}}"));
    let (mut timed_out, mut failed, mut succeeded) = (one(), one(), one());
    timed_out.visit().later(61 * SECOND).assert_state(TimedOut);
    if step == CALL {
        failed.visit().fail("a", refused());
        succeeded.visit().succeed("a", nothing());
    } else {
        applied(failed.visit(), json!({"fail": {"step": "a"}}));
        applied(succeeded.visit(), json!({"complete": {"step": "a"}}));
    }
    failed.assert_state(Failed);
    succeeded.assert_state(Succeeded);
    let retry = json!({"retry": {}});
    [
        (timed_out, retry.clone()),
        (failed, retry),
        (succeeded, json!({"reset": {"step": "a"}})),
    ]
}

#[test]
fn what_ended_runs_again_as_it_did() {
    for (step, state) in [
        (CALL, Running),
        ("wait: {duration: 1h}", Waiting),
        ("approval: {message: '?'}", AwaitingApproval),
    ] {
        for (mut case, again) in ended(step) {
            applied(&mut case, again);
            case.assert_state(state);
        }
    }
    for (mut case, again) in ended(CALL) {
        case.spec.suspend = Some(true);
        applied(&mut case, again);
        case.assert_state(Suspended);
    }
    let [(mut timed_out, _), (mut failed, _), _] = ended(CALL);
    for case in [&mut timed_out, &mut failed] {
        applied(case, json!({"skip": {"step": "a"}}));
        case.assert_state(Succeeded);
    }
    // What it asked a person, it asks again.
    let mut asks = case("{timeout: 1m, failurePolicy: Pause, steps: [{name: a, assert: 'false'}]}");
    asks.visit().assert_state(Stuck);
    asks.later(60 * SECOND).assert_state(TimedOut);
    applied(&mut asks, json!({"retry": {}}));
    asks.assert_state(Stuck);
}
