//! Specs that can't be executed, that changed, and what other versions wrote.

use super::*;

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
pub fn what_is_nested_too_deeply_is_refused() {
    let deep = (0..200).fold(json!(1), |value, _| json!([value]));
    let mut case = case(THREE_CALLS);
    case.visit()
        .succeed("describe", json!({"size": deep}))
        .assert_state(Failed);
    assert_eq!(case.step("describe").failure.as_ref().unwrap().reason, "OutputTooLarge");
    let mut case = super::case(THREE_CALLS);
    case.spec.input.insert("deep".into(), deep);
    case.visit().assert_state(InvalidSpec);
    assert!(case.message().contains("64 levels"), "{}", case.message());
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
fn what_an_older_version_started_and_this_one_refuses_waits_for_another() {
    let mut case = case(THREE_CALLS);
    case.visit().is_refused(Some("it is too large")).crash().visit();
    case.assert_state(Stuck).assert_step("describe", StepState::Running, 1);
    assert!(
        case.message().contains("refuses") && case.message().contains("spec.input: it is too large"),
        "{}",
        case.message()
    );
    let writes = case.writes;
    case.later(3600 * SECOND).assert_state(Stuck);
    assert_eq!((case.writes, case.work.len()), (writes, 0), "nothing is done of it");
    case.is_refused(None)
        .visit()
        .assert_step("describe", StepState::Running, 2);
    case.succeed("describe", json!({"size": 1}))
        .assert_step("resize", StepState::Running, 1);

    case.is_refused(Some("it is too large"));
    case.spec.cancel = Some(Cancel::default());
    case.visit()
        .assert_state(Cancelled)
        .assert_step("resize", StepState::Cancelled, 1);
    assert!(case.step("resize").maybe_done);
}
