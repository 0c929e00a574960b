//! Which step runs when: order, conditions, and what only computes.

use super::*;

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
fn a_secret_that_could_not_be_written_is_named_before_anything_is_sent() {
    let mut case = case(
        "{input: {zone: EU}, steps: [{name: call, http: {url: 'http://x'}, outputSecret: {name: 'token-${input.zone}', data: {t: '${result.body}'}}}]}",
    );
    case.visit().assert_state(Failed);
    let message = case.message();
    assert!(
        message.contains("spec.steps[0].outputSecret.name: \"token-EU\" is no name of an object"),
        "{message}"
    );
    assert!(case.work.is_empty());
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
