//! Steps with `local: true`.

use super::*;

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
