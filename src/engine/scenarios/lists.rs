//! `forEach`.

use super::*;
use crate::engine::item_name;
use crate::engine::request::MAX_STEP_OUTPUT;

const LIST: &str = "
input: {zones: [a, b, c, d, e]}
steps:
- name: deploy
  forEach: input.zones
  maxParallel: 2
  http: {url: 'http://inventory/${item}/${string(index)}'}
  output: {id: '${result.id}'}
- {name: after, set: {ids: '${steps.deploy.output.items.map(i, i.id)}'}}
";

#[test]
fn items_run_so_many_at_once_and_their_outputs_are_a_list_in_order() {
    let mut case = case(LIST);
    case.visit()
        .assert_step("deploy[0]", StepState::Running, 1)
        .assert_step("deploy[1]", StepState::Running, 1);
    assert_eq!(case.work.len(), 2);
    assert_eq!(case.message(), "step deploy: 0 of 5 items are done, 2 under way");
    for n in [1, 0, 2, 4, 3] {
        case.succeed(&item_name("deploy", n), json!({"id": n}));
        assert!(case.work.len() <= 2);
    }
    case.assert_state(Succeeded);
    assert_eq!(
        case.step("after").output,
        json!({"ids": [0, 1, 2, 3, 4]}).as_object().cloned()
    );
    assert_eq!(case.status.steps.len(), 2, "what is done is folded into the list");
}

#[test]
fn a_failing_item_names_its_index_and_stops_the_list() {
    let mut case = case(LIST);
    case.visit()
        .fail("deploy[1]", refused())
        .assert_step("deploy[0]", StepState::Running, 1);
    assert_eq!(case.work.len(), 1, "no other item is started");
    case.succeed("deploy[0]", json!({"id": 0})).assert_state(Failed);
    assert_eq!(
        case.message(),
        "step deploy: HttpStatus: item 1: 422: the group is frozen"
    );
}

#[test]
fn so_many_items_may_fail() {
    let mut case = case(LIST);
    case.spec.steps[0].max_failures = Some(1);
    case.spec.steps.pop();
    case.visit().fail("deploy[0]", refused());
    for n in 1..5 {
        case.succeed(&item_name("deploy", n), json!({"id": n}));
    }
    case.assert_state(Succeeded)
        .assert_step("deploy[0]", StepState::Failed, 1);
    assert_eq!(
        case.step("deploy").output,
        json!({"items": [null, {"id": 1}, {"id": 2}, {"id": 3}, {"id": 4}]})
            .as_object()
            .cloned()
    );
}

#[test]
fn items_back_off_crash_and_are_cancelled_as_steps_are() {
    let mut case = case(LIST);
    case.visit()
        .fail("deploy[0]", busy())
        .assert_step("deploy[0]", StepState::BackingOff, 1);
    case.assert_state(BackingOff);
    case.later(5 * SECOND).assert_step("deploy[0]", StepState::Running, 2);
    case.crash().visit().assert_step("deploy[1]", StepState::Running, 2);
    case.spec.cancel = Some(Cancel::default());
    case.visit()
        .assert_state(Cancelled)
        .assert_step("deploy", StepState::Cancelled, 0);
}

#[test]
fn failed_items_are_retried_and_the_others_are_not() {
    let mut case = case(LIST);
    case.visit()
        .fail("deploy[1]", refused())
        .succeed("deploy[0]", json!({"id": 0}))
        .assert_state(Failed);
    case.asks(json!({"retry": {}}));
    case.assert_state(Running)
        .assert_step("deploy[1]", StepState::Running, 1);
    assert_eq!(case.step("deploy[1]").epoch, 1);
    for n in [1, 2, 3, 4] {
        case.succeed(&item_name("deploy", n), json!({"id": n}));
    }
    case.assert_state(Succeeded);
    assert_eq!(
        case.step("after").output,
        json!({"ids": [0, 1, 2, 3, 4]}).as_object().cloned()
    );
}

#[test]
fn an_item_is_skipped_with_an_output() {
    let mut case = case(LIST);
    case.visit()
        .fail("deploy[1]", refused())
        .succeed("deploy[0]", json!({"id": 0}));
    case.asks(json!({"skip": {"step": "deploy[1]", "output": {"id": 100}}}));
    for n in [2, 3, 4] {
        case.succeed(&item_name("deploy", n), json!({"id": n}));
    }
    case.assert_state(Succeeded);
    assert_eq!(
        case.step("after").output,
        json!({"ids": [0, 100, 2, 3, 4]}).as_object().cloned()
    );
}

#[test]
fn an_empty_list_is_done_at_once_and_what_is_no_list_is_an_error() {
    let mut empty = case(LIST);
    empty.spec.input.insert("zones".into(), json!([]));
    empty.spec.steps.pop();
    empty.visit().assert_state(Succeeded);
    let mut none = case(LIST);
    none.spec.input.insert("zones".into(), json!("a"));
    none.visit().assert_state(Failed);
    assert!(
        none.message().contains("spec.steps[0].forEach: a list is needed"),
        "{}",
        none.message()
    );
}

#[test]
fn a_list_of_five_thousand_keeps_the_status_small() {
    let mut case = case(
        "
input: {n: 5000}
steps:
- {name: call, forEach: 'lists.range(input.n)', maxParallel: 50, http: {url: 'http://x/${string(item)}'}}
",
    );
    case.visit();
    let mut largest = 0;
    while !case.work.is_empty() {
        let results: Vec<_> = case
            .work
            .iter()
            .map(|work| case.result(&work.step, AttemptOutcome::Succeeded { output: None }))
            .collect();
        case.visit_with(&results);
        largest = largest.max(serde_json::to_string(&case.status).unwrap().len());
    }
    case.assert_state(Succeeded);
    assert!(largest < MAX_STATUS / 2, "{largest} bytes");
}

/// What fails stays in the journal, with all steps of its group.
#[test]
fn a_list_of_which_many_large_items_fail_ends_before_the_status_has_no_room() {
    for (steps, expected) in [(0, Succeeded), (3, Failed), (20, Failed)] {
        let call = "http: {url: 'http://x/${string(item)}'}";
        let members: Vec<_> = (0..steps).map(|n| format!("{{name: s{n}, {call}}}")).collect();
        let what = match steps {
            0 => call.to_owned(),
            _ => format!("steps: [{}]", members.join(", ")),
        };
        let mut case = case(&format!(
            "{{input: {{n: 101}}, steps: [{{name: deploy, forEach: 'lists.range(input.n)', maxFailures: 100, {what}}}]}}"
        ));
        case.visit();
        let mut largest = 0;
        while !case.work.is_empty() {
            let last = format!("/s{}", steps.max(1) - 1);
            let fails = |step: &str| steps == 0 && step != "deploy[7]" || step.ends_with(&last);
            let results = case.work.iter().map(|work| {
                let outcome = match fails(&work.step) {
                    true => AttemptOutcome::Failed(AttemptFailure::definite("Refused", "no ".repeat(300))),
                    false => AttemptOutcome::Succeeded { output: None },
                };
                case.result(&work.step, outcome)
            });
            let results: Vec<_> = results.collect();
            case.visit_with(&results);
            largest = largest.max(serde_json::to_string(&case.status).unwrap().len());
        }
        assert!(largest <= MAX_STATUS, "{steps} steps: {largest} bytes");
        case.assert_state(expected);
        if expected == Failed {
            assert_eq!(case.step("deploy").failure.as_ref().unwrap().reason, "TooManyFailures");
        }
    }
}

/// How many bytes of statuses are written for an item of a list of so many, of which five end at once.
fn bytes_per_item(items: usize, output: Option<&str>) -> usize {
    let mut case = case(&format!(
        "
input: {{n: {items}}}
steps:
- {{name: call, forEach: 'lists.range(input.n)', http: {{url: 'http://x/${{string(item)}}'}}}}
"
    ));
    let output = output.map(|text| Map::from_iter([("is".to_owned(), json!(text))]));
    let (mut bytes, mut results) = (0, vec![]);
    loop {
        let decision = case.decision(&results);
        if decision.status != case.status {
            bytes += serde_json::to_vec(&decision.status).unwrap().len();
        }
        case.status = decision.status;
        case.spilled = chunk(&case.status).map_or(case.spilled, |chunk| chunk.last().unwrap().seq);
        if decision.work.is_empty() {
            break;
        }
        let ended = decision.work.iter().take(5).map(|work| {
            let output = output.clone();
            case.result(&work.step, AttemptOutcome::Succeeded { output })
        });
        results = ended.collect();
    }
    case.assert_state(Succeeded);
    bytes / items
}

/// What is written per item is the items under way and the history's tail. The tail has a hundred entries on average
/// (50 to 150), but for the first 150 entries 75: with two entries an item, and 200 items, 91. That makes 10 percent at
/// most; longer numbers make some more.
#[test]
fn an_item_of_a_long_list_costs_as_many_bytes_as_one_of_a_short_list() {
    let (short, long) = (bytes_per_item(200, None), bytes_per_item(2000, None));
    assert!(
        long * 100 <= short * 120,
        "{short} bytes an item of 200, {long} an item of 2000"
    );
}

/// Each write has the outputs of all items that are done: 16 KiB at most, whatever the list. Five items share it.
#[test]
fn outputs_add_no_more_to_an_item_than_all_of_them_may_have() {
    let without = bytes_per_item(200, None);
    let with = bytes_per_item(200, Some(&"x".repeat(60)));
    assert!(
        with > without + MAX_STEP_OUTPUT / 20,
        "{without} bytes an item, {with} with outputs"
    );
    assert!(
        with < without + MAX_STEP_OUTPUT / 5,
        "{without} bytes an item, {with} with outputs"
    );
}

#[test]
pub fn a_list_that_was_ended_with_its_operation_goes_on_with_it() {
    let mut case = case(
        "
order: Graph
steps:
- {name: bad, http: {url: 'http://x'}}
- {name: calls, forEach: '[1, 2, 3]', maxParallel: 1, http: {url: 'http://y'}}
",
    );
    case.visit()
        .fail("bad", refused())
        .succeed("calls[0]", nothing())
        .assert_step("calls", StepState::Cancelled, 0);
    case.assert_state(Failed);
    case.asks(json!({"retry": {}}));
    case.assert_step("calls", StepState::Waiting, 0)
        .assert_step("calls[1]", StepState::Running, 1);
    case.succeed("bad", nothing())
        .succeed("calls[1]", nothing())
        .succeed("calls[2]", nothing());
    case.assert_state(Succeeded);
}

/// A list whose items each record so many bytes, all of them one after the other.
fn lists_outputs(count: usize, bytes: usize) -> (usize, super::Case) {
    let items: Vec<usize> = (0..count).collect();
    let mut case = case(&format!(
        "
input: {{items: {items:?}}}
steps:
- name: deploy
  forEach: input.items
  maxParallel: 2
  http: {{url: 'http://inventory/${{string(index)}}'}}
  output: {{id: '${{result.id}}'}}
"
    ));
    case.visit();
    let mut done = 0;
    while let Some(work) = case.work.first().cloned() {
        case.succeed(&work.step, json!({"id": "x".repeat(bytes)}));
        done += 1;
    }
    (done, case)
}

#[test]
fn a_list_whose_outputs_cannot_fit_ends_with_the_item_that_makes_it_certain() {
    // {"items":[{"id":"xxx"},...]}: 12 bytes, 9 and the text for each item, and what parts them.
    let fits = (16 * 1024 - 12 + 1) / (9 + 100 + 1);
    let (done, case) = lists_outputs(fits, 100);
    case.assert_state(Succeeded);
    assert_eq!(done, fits);

    let (done, case) = lists_outputs(fits + 1, 100);
    case.assert_state(Failed);
    assert_eq!(done, fits + 1, "until the last it could have been without output");

    let (done, case) = lists_outputs(1000, 100);
    case.assert_state(Failed);
    // What is not done counts as null: 5 bytes each, of which each item that is done takes the place.
    let certain = (16 * 1024 - 12 + 1 - 5 * 1000) / (9 + 100 + 1 - 5) + 1;
    assert_eq!(done, certain + 1, "one more was under way");
    let message = case.message();
    assert!(
        message.starts_with("step deploy: OutputTooLarge: no other item is started: the outputs of ")
            && message.contains("a step's may have 16384, all steps' together 32768"),
        "{message}"
    );
}

#[test]
fn a_list_without_outputs_may_be_as_long_as_it_likes() {
    let items: Vec<usize> = (0..4000).collect();
    let mut case = case(&format!(
        "
input: {{items: {items:?}}}
steps:
- {{name: check, forEach: input.items, assert: item >= 0}}
"
    ));
    case.visit().assert_state(Succeeded);
}

#[test]
fn no_more_items_are_under_way_than_the_status_has_room_for() {
    for (spec, total) in [
        ("http: {url: 'http://inventory/${string(item)}'}", 300),
        (
            "steps: [{name: a, http: {url: 'http://x'}}, {name: b, http: {url: 'http://x'}}, {name: c, http: {url: 'http://x'}}]\n  order: Graph",
            80,
        ),
    ] {
        let mut case = case(&format!(
            "steps:\n- name: deploy\n  forEach: 'lists.range({total})'\n  maxParallel: 1000\n  {spec}"
        ));
        case.visit();
        let (mut most, mut done) = (0, 0);
        while let Some(work) = case.work.last().cloned() {
            most = most.max(serde_json::to_string(&case.status).unwrap().len());
            case.succeed(&work.step, nothing());
            done += 1;
        }
        case.assert_state(Succeeded);
        assert!(done >= total && most <= 128 * 1024, "{done} calls, {most} bytes");
    }
}
