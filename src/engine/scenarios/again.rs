//! What people take back of lists, groups and what runs at the end: what runs again with it, and what must not.

use super::*;
use crate::api::ActionState::{Applied, Rejected};

/// How often a step's attempts were started.
fn started(case: &Case, step: &str) -> usize {
    let event = format!("AttemptStarted {step}");
    case.events().iter().filter(|e| **e == event).count()
}

fn has(case: &Case, step: &str) -> bool {
    case.status.steps.iter().any(|entry| entry.name == step)
}

#[test]
fn what_was_ended_in_a_list_or_group_that_is_skipped_stays_ended() {
    for (whole, failed, ended, spec) in [
        (
            "l",
            "l[0]",
            "l[1]",
            "forEach: '[1, 2]', http: {method: POST, url: 'http://x'}",
        ),
        (
            "g",
            "g/a",
            "g/b",
            "order: Graph, steps: [{name: a, http: {url: 'http://x'}}, {name: b, http: {url: 'http://x'}}]",
        ),
    ] {
        let mut case = case(&format!(
            "steps: [{{name: {whole}, {spec}}}, {{name: after, http: {{url: 'http://y'}}}}]"
        ));
        let uncertain = AttemptFailure::unknown("HttpStatus", "503");
        case.visit().fail(ended, uncertain).fail(failed, refused());
        case.assert_state(Failed).assert_step(ended, StepState::Cancelled, 1);
        assert_eq!(case.asks(json!({"skip": {"step": whole}})).0, Applied);
        case.assert_step(whole, StepState::Skipped, 0)
            .assert_step(ended, StepState::Cancelled, 1)
            .assert_step("after", StepState::Running, 1);
        assert!(case.step(whole).end_seq.is_some());
        case.succeed("after", nothing()).assert_state(Succeeded);
    }
}

#[test]
fn a_part_of_what_succeeded_without_it_is_not_taken_back() {
    let list = "{name: w, forEach: '[1, 2]', maxFailures: 1, http: {url: 'http://x'}}";
    let group = "{name: w, order: Graph, steps: [{name: a, onFailure: Continue, http: {url: 'http://x'}}, {name: b, http: {url: 'http://x'}}]}";
    let items = "{name: w, forEach: '[1, 2]', maxFailures: 1, steps: [{name: a, http: {url: 'http://x'}}]}";
    for (spec, failed, other) in [
        (list, "w[0]", "w[1]"),
        (group, "w/a", "w/b"),
        (items, "w[0]/a", "w[1]/a"),
    ] {
        let mut case = case(&format!("steps: [{spec}, {{name: c, http: {{url: 'http://x'}}}}]"));
        case.visit().fail(failed, refused()).succeed(other, nothing());
        case.assert_step("w", StepState::Succeeded, 0)
            .assert_step("c", StepState::Running, 1);
        let before = case.status.steps.clone();
        for word in ["retry", "skip"] {
            let (state, message) = case.asks(json!({word: {"step": failed}}));
            assert_eq!(
                (state, &*message),
                (Rejected, "step w ended without it, as Succeeded: reset goes back to it"),
                "{word} {failed}"
            );
        }
        assert_eq!(case.status.steps, before);
    }
}

#[test]
fn what_a_later_step_of_its_item_has_read_is_not_taken_back() {
    let mut case = case(
        "steps: [{name: w, forEach: '[1, 2]', steps: [{name: a, onFailure: Continue, http: {url: 'http://x'}}, {name: b, http: {url: 'http://${steps.a.state}'}}]}]",
    );
    case.visit().fail("w[0]/a", refused()).succeed("w[1]/a", nothing());
    case.assert_step("w[0]/b", StepState::Running, 1);
    let (state, message) = case.asks(json!({"retry": {"step": "w[0]/a"}}));
    assert_eq!(state, Rejected);
    assert!(message.starts_with("what follows has read"), "{message}");
}

#[test]
fn with_a_part_of_an_operation_that_runs_what_was_ended_with_it_runs_again() {
    for word in ["retry", "skip"] {
        // The item of a list that bears that it failed.
        let mut item = case(
            "
steps:
- name: r
  forEach: '[1, 2]'
  maxFailures: 1
  order: Graph
  steps: [{name: a, http: {url: 'http://x'}}, {name: b, http: {url: 'http://x'}}]
",
        );
        item.visit().fail("r[0]/b", busy()).fail("r[0]/a", refused());
        item.assert_step("r[0]", StepState::Failed, 0)
            .assert_step("r[0]/b", StepState::Cancelled, 1);
        assert_eq!(item.asks(json!({word: {"step": "r[0]/a"}})).0, Applied);
        if word == "retry" {
            item.succeed("r[0]/a", nothing());
        }
        item.assert_step("r[0]/b", StepState::Running, 1);
        for step in ["r[0]/b", "r[1]/a", "r[1]/b"] {
            item.succeed(step, nothing());
        }
        item.assert_state(Succeeded);

        // A list that ended, beside a step that still runs.
        let mut list = case(
            "
order: Graph
timeout: 1h
steps:
- {name: l, onFailure: Continue, forEach: '[1, 2]', http: {url: 'http://x'}}
- {name: other, http: {url: 'http://x'}}
",
        );
        list.visit().fail("l[1]", busy()).fail("l[0]", refused());
        list.assert_step("l", StepState::Failed, 0)
            .assert_step("l[1]", StepState::Cancelled, 1);
        let deadline = list.status.deadline;
        list.now = list.now.plus(SECOND);
        assert_eq!(list.asks(json!({word: {"step": "l[0]"}})).0, Applied);
        assert_eq!(list.status.deadline, deadline, "it had not ended");
        if word == "retry" {
            list.succeed("l[0]", nothing());
        }
        list.assert_step("l", StepState::Waiting, 0)
            .assert_step("l[1]", StepState::Running, 1);
        list.succeed("l[1]", nothing())
            .assert_step("l", StepState::Succeeded, 0);
        list.succeed("other", nothing()).assert_state(Succeeded);
    }
}

#[test]
fn a_list_of_which_an_item_was_ended_did_not_succeed() {
    let mut case = case(
        "
steps:
- name: g
  order: Graph
  onFailure: Continue
  steps:
  - {name: l, forEach: '[1, 2]', http: {url: 'http://x'}}
  - {name: b, http: {url: 'http://x'}}
",
    );
    case.visit().fail("g/l[1]", busy()).fail("g/b", refused());
    case.assert_step("g/l[1]", StepState::Cancelled, 1);
    case.succeed("g/l[0]", nothing())
        .assert_step("g/l", StepState::Cancelled, 0);
    case.assert_state(Succeeded);
}

#[test]
fn a_list_starts_no_other_item_once_its_group_fails_or_its_time_is_up() {
    for times_out in [false, true] {
        let mut case = case(
            "
steps:
- name: g
  order: Graph
  timeouts: {scheduleToClose: 5m}
  steps:
  - {name: l, forEach: 'lists.range(1000)', maxParallel: 2, http: {url: 'http://x'}}
  - {name: b, http: {url: 'http://x'}}
",
        );
        case.visit();
        if times_out {
            case.later(300 * SECOND);
        } else {
            case.fail("g/b", refused());
        }
        case.succeed("g/l[0]", nothing());
        assert!(!has(&case, "g/l[2]"), "no other item is started");
        case.succeed("g/l[1]", nothing());
        if times_out {
            case.succeed("g/b", nothing());
        }
        case.assert_step("g/l", StepState::Cancelled, 0).assert_state(Failed);
    }
}

#[test]
fn what_runs_at_the_end_runs_again_alone_and_under_its_key() {
    let spec = "
steps: [{name: a, http: {url: 'http://x'}}]
finally:
- {name: tidy, retry: {maximumAttempts: 1}, http: {method: POST, url: 'http://tidy'}}
- {name: tell, http: {url: 'http://tell'}}
";
    let ended = |failure: fn() -> AttemptFailure| {
        let mut case = case(spec);
        case.visit().succeed("a", nothing()).fail("tidy", failure());
        case.succeed("tell", nothing()).assert_state(Failed);
        case
    };
    for asked in [json!({"retry": {}}), json!({"retry": {"step": "tidy"}})] {
        let mut unknown = ended(no_answer);
        assert_eq!(unknown.asks(asked.clone()).1, "tidy runs again, under the same key");
        unknown.assert_step("tidy", StepState::Running, 2);
        assert_eq!(unknown.step("tidy").epoch, 0);
        unknown.succeed("tidy", nothing()).assert_state(Succeeded);
        assert_eq!(started(&unknown, "tell"), 1);

        let mut definite = ended(refused);
        assert_eq!(definite.asks(asked).1, "tidy runs again, under a new key");
        definite.assert_step("tidy", StepState::Running, 1);
        assert_eq!(definite.step("tidy").epoch, 1);
        definite.succeed("tidy", nothing()).assert_state(Succeeded);
        assert_eq!(started(&definite, "tell"), 1);
    }
    let mut skipped = ended(refused);
    assert_eq!(skipped.asks(json!({"skip": {"step": "tidy"}})).0, Applied);
    skipped
        .assert_step("tidy", StepState::Skipped, 1)
        .assert_state(Succeeded);
    assert_eq!((started(&skipped, "tidy"), started(&skipped, "tell")), (1, 1));
}

#[test]
fn what_runs_at_the_end_of_one_that_failed_runs_again_without_the_rest() {
    let mut case = case(
        "
order: Graph
steps: [{name: a, http: {url: 'http://x'}}, {name: b, wait: {duration: 1h}}]
finally: [{name: tidy, retry: {maximumAttempts: 1}, http: {method: POST, url: 'http://tidy'}}]
",
    );
    case.visit().fail("a", refused()).fail("tidy", no_answer());
    case.assert_state(Failed).assert_step("b", StepState::Cancelled, 0);
    assert_eq!(
        case.asks(json!({"retry": {"step": "tidy"}})),
        (Applied, "tidy runs again, under the same key".to_owned())
    );
    case.assert_step("tidy", StepState::Running, 2)
        .assert_step("a", StepState::Failed, 1)
        .assert_step("b", StepState::Cancelled, 0);
    case.succeed("tidy", nothing()).assert_state(Failed);
    assert_eq!(case.message(), "step a: HttpStatus: 422: the group is frozen");
    // With the rest it is another end, with a request of its own.
    assert_eq!(case.asks(json!({"retry": {}})).1, "a runs again, under a new key");
    case.assert_step("a", StepState::Running, 1)
        .assert_step("b", StepState::Waiting, 0);
    assert!(!has(&case, "tidy"));
    case.later(3600 * SECOND).succeed("a", nothing());
    case.assert_step("tidy", StepState::Running, 1);
    case.succeed("tidy", nothing()).assert_state(Succeeded);
}

#[test]
fn nothing_is_taken_back_while_something_of_the_end_is_under_way() {
    for (tidy, answer) in [
        (
            "job: {image: x}",
            Some(AttemptOutcome::Accepted { external: external() }),
        ),
        ("job: {image: x}", None),
        ("job: {image: x}", Some(AttemptOutcome::Failed(no_answer()))),
        (
            "idempotent: false, http: {method: POST, url: 'http://x'}",
            Some(AttemptOutcome::Failed(no_answer())),
        ),
    ] {
        let mut case = case(&format!(
            "{{steps: [{{name: a, http: {{url: 'http://x'}}}}], finally: [{{name: tidy, {tidy}}}]}}"
        ));
        case.visit().fail("a", refused());
        if let Some(answer) = answer {
            case.answer("tidy", answer);
        }
        let before = case.status.steps.clone();
        for asked in [json!({"retry": {"step": "a"}}), json!({"skip": {"step": "a"}})] {
            let (state, message) = case.asks(asked);
            assert_eq!(
                (state, &*message),
                (
                    Rejected,
                    "step tidy of finally is under way: ask again once it has ended"
                )
            );
        }
        assert_eq!(case.status.steps, before);
        case.succeed("tidy", nothing());
        assert_eq!(case.asks(json!({"retry": {}})).0, Applied);
    }
}

#[test]
fn what_needs_a_person_at_the_end_of_one_that_failed_is_retried() {
    let mut case = case(
        "{steps: [{name: a, http: {url: 'http://x'}}], finally: [{name: tidy, idempotent: false, http: {method: POST, url: 'http://x'}}]}",
    );
    case.visit().fail("a", refused());
    for asked in [json!({"retry": {}}), json!({"retry": {"step": "tidy"}})] {
        case.fail("tidy", no_answer()).assert_state(Stuck);
        assert_eq!(case.asks(asked).1, "tidy runs again, under the same key");
        case.assert_step("a", StepState::Failed, 1);
    }
    case.assert_step("tidy", StepState::Running, 3);
    case.succeed("tidy", nothing()).assert_state(Failed);
}

#[test]
fn a_retry_of_all_leaves_out_what_was_borne() {
    // At the top, and in a group.
    for (whole, path) in [("", ""), ("w", "w/")] {
        let steps =
            "[{name: try, onFailure: Continue, http: {url: 'http://x'}}, {name: resize, http: {url: 'http://x'}}]";
        let steps = match whole {
            "" => steps.to_owned(),
            name => format!("[{{name: {name}, steps: {steps}}}]"),
        };
        let mut case = case(&format!("steps: {steps}"));
        let path = |name: &str| format!("{path}{name}");
        case.visit()
            .fail(&path("try"), refused())
            .fail(&path("resize"), refused());
        case.assert_state(Failed);
        let (state, message) = case.asks(json!({"retry": {}}));
        assert_eq!(state, Applied, "{message}");
        case.assert_step(&path("resize"), StepState::Running, 1)
            .assert_step(&path("try"), StepState::Failed, 1);
        assert_eq!(started(&case, &path("try")), 1);
        case.succeed(&path("resize"), nothing()).assert_state(Succeeded);
    }
}

#[test]
fn a_part_that_the_others_would_end_is_not_retried_alone() {
    let group =
        "{name: w, order: Graph, steps: [{name: a, http: {url: 'http://x'}}, {name: b, http: {url: 'http://x'}}]}";
    let items = "{name: w, forEach: '[1, 2]', steps: [{name: a, http: {url: 'http://x'}}]}";
    let in_item = "{name: w, forEach: '[1, 2]', maxFailures: 1, order: Graph, steps: [{name: a, http: {url: 'http://x'}}, {name: b, http: {url: 'http://x'}}]}";
    let in_group = "{name: w, order: Graph, steps: [{name: l, forEach: '[1]', http: {url: 'http://x'}}, {name: b, http: {url: 'http://x'}}]}";
    let list = "{name: w, onFailure: Continue, forEach: '[1, 2]', http: {url: 'http://x'}}";
    let steps = "step w/b ended badly, too: retry w as a whole, or skip w/b first";
    let of_item = "step w[0]/b ended badly, too: retry w[0] as a whole, or skip w[0]/b first";
    let of_list = "more items of w failed than may: retry w as a whole, or skip the others first";
    for (spec, failed, other, why) in [
        (group, "w/a", "w/b", steps),
        (items, "w[0]/a", "w[1]/a", of_list),
        (in_item, "w[0]/a", "w[0]/b", of_item),
        (in_group, "w/l[0]", "w/b", steps),
        (list, "w[0]", "w[1]", of_list),
    ] {
        // Of an operation that has ended, or beside a step that still runs.
        let mut case = case(&format!(
            "{{order: Graph, steps: [{spec}, {{name: beside, http: {{url: 'http://x'}}}}]}}"
        ));
        case.visit();
        let both = [failed, other].map(|step| case.result(step, AttemptOutcome::Failed(refused())));
        case.visit_with(&both);
        let before = case.status.steps.clone();
        let (state, message) = case.asks(json!({"retry": {"step": failed}}));
        assert_eq!((state, &*message), (Rejected, why), "{failed}");
        assert_eq!(case.status.steps, before);
        let (whole, _) = why.split_once(" as a whole").unwrap();
        let (_, whole) = whole.rsplit_once(' ').unwrap();
        assert_eq!(case.asks(json!({"retry": {"step": whole}})).0, Applied);
        for step in [failed, other] {
            if !has(&case, step) {
                continue; // of a list in sequence: its turn comes
            }
            case.assert_step(step, StepState::Running, 1);
        }
    }
}

#[test]
fn what_is_skipped_beside_others_that_ended_badly_lets_nothing_run_again() {
    let call = "http: {url: 'http://x'}";
    let steps = format!("{{order: Graph, steps: [{{name: a, {call}}}, {{name: b, {call}}}, {{name: c, {call}}}]}}");
    let list = format!("steps: [{{name: l, forEach: '[1, 2, 3]', {call}}}]");
    for (spec, [one, other, ended]) in [(steps, ["a", "b", "c"]), (list, ["l[0]", "l[1]", "l[2]"])] {
        let mut case = case(&spec);
        case.visit().fail(ended, no_answer());
        let failed = [one, other].map(|step| case.result(step, AttemptOutcome::Failed(refused())));
        case.visit_with(&failed).assert_state(Failed);
        assert_eq!(case.asks(json!({"skip": {"step": one}})).0, Applied);
        case.assert_state(Failed).assert_step(ended, StepState::Cancelled, 1);
        assert_eq!(case.asks(json!({"skip": {"step": other}})).0, Applied);
        case.assert_state(Running).assert_step(ended, StepState::Running, 2);
        case.succeed(ended, nothing()).assert_state(Succeeded);
    }
}

#[test]
fn what_was_ended_is_tried_again_once() {
    let mut case = case(
        "
order: Graph
steps:
- {name: bad, http: {url: 'http://x'}}
- {name: l, forEach: '[1]', http: {url: 'http://x'}}
- {name: g, steps: [{name: s, http: {url: 'http://x'}}]}
",
    );
    case.visit()
        .fail("l[0]", no_answer())
        .fail("g/s", no_answer())
        .fail("bad", refused());
    case.assert_state(Failed);
    for step in ["l", "l[0]", "g", "g/s"] {
        assert_eq!(case.step(step).state, StepState::Cancelled);
    }
    assert_eq!(case.asks(json!({"retry": {}})).0, Applied);
    for step in ["l[0]", "g/s"] {
        case.assert_step(step, StepState::Running, 2);
        assert_eq!(started(&case, step), 2);
    }
    for step in ["l[0]", "g/s", "bad"] {
        case.succeed(step, nothing());
    }
    case.assert_state(Succeeded);
}

#[test]
fn a_part_that_needs_a_person_is_among_those_that_a_retry_of_all_is_about() {
    let mut case = case("steps: [{name: l, forEach: '[1]', idempotent: false, http: {method: POST, url: 'http://x'}}]");
    case.visit().fail("l[0]", no_answer()).assert_state(Stuck);
    assert_eq!(case.asks(json!({"retry": {}})).1, "l[0] runs again, under the same key");
    case.succeed("l[0]", nothing()).assert_state(Succeeded);
}

#[test]
fn a_reset_beside_a_step_that_ended_badly_is_rejected() {
    let mut case = case(
        "{order: Graph, steps: [{name: a, http: {url: 'http://x'}}, {name: b, http: {url: 'http://x'}}, {name: c, needs: [b], http: {url: 'http://x'}}]}",
    );
    case.visit().succeed("a", nothing()).succeed("b", nothing());
    case.fail("c", refused()).assert_state(Failed);
    let (state, message) = case.asks(json!({"reset": {"step": "a"}}));
    assert_eq!(
        (state, &*message),
        (
            Rejected,
            "step c ended badly, too: retry all that did, naming none, or skip c first"
        )
    );
    case.assert_step("a", StepState::Succeeded, 1).assert_state(Failed);
    assert_eq!(case.asks(json!({"reset": {"step": "b"}})).0, Applied);
    case.assert_step("b", StepState::Running, 1);
}

#[test]
fn what_a_list_bears_stays_as_it_is_when_the_list_goes_on_with_its_operation() {
    let lists = [
        (
            "{name: l, forEach: '[1, 2, 3, 4]', maxParallel: 2, maxFailures: 1, http: {url: 'http://x'}}",
            "l",
            ["l[0]", "l[1]", "l[2]", "l[3]"],
        ),
        (
            "{name: l, forEach: '[1, 2, 3, 4]', maxParallel: 2, maxFailures: 1, steps: [{name: a, http: {url: 'http://x'}}]}",
            "l",
            ["l[0]/a", "l[1]/a", "l[2]/a", "l[3]/a"],
        ),
        (
            "{name: g, steps: [{name: l, forEach: '[1, 2, 3, 4]', maxParallel: 2, maxFailures: 1, http: {url: 'http://x'}}]}",
            "g/l",
            ["g/l[0]", "g/l[1]", "g/l[2]", "g/l[3]"],
        ),
    ];
    for (spec, list, [failed, ended, under_way, never]) in lists {
        for asked in [
            json!({"retry": {}}),
            json!({"retry": {"step": "bad"}}),
            json!({"skip": {"step": "bad"}}),
            json!({"reset": {"step": "bad"}}),
        ] {
            let mut case = case(&format!(
                "{{order: Graph, steps: [{{name: bad, http: {{url: 'http://x'}}}}, {spec}]}}"
            ));
            case.visit().fail(failed, refused()).fail(ended, no_answer());
            case.fail("bad", refused()).succeed(under_way, nothing());
            case.assert_state(Failed).assert_step(list, StepState::Cancelled, 0);
            assert_eq!(case.asks(asked.clone()).0, Applied, "{asked}: {:?}", case.came_of_it());
            case.assert_step(list, StepState::Waiting, 0)
                .assert_step(failed, StepState::Failed, 1)
                .assert_step(ended, StepState::Running, 2)
                .assert_step(never, StepState::Running, 1);
            assert_eq!(started(&case, failed), 1, "nobody asked for it");
            if asked.get("skip").is_none() {
                case.succeed("bad", nothing());
            }
            case.succeed(ended, nothing()).succeed(never, nothing());
            case.assert_state(Succeeded).assert_step(list, StepState::Succeeded, 0);
        }
        // Who asks for the list asks for what failed in it, too.
        let mut case = case(&format!(
            "{{order: Graph, steps: [{{name: bad, onFailure: Continue, http: {{url: 'http://x'}}}}, {{name: worse, http: {{url: 'http://x'}}}}, {spec}]}}"
        ));
        case.visit().fail(failed, refused()).fail(ended, no_answer());
        case.fail("bad", refused()).fail("worse", refused());
        case.succeed(under_way, nothing());
        assert_eq!(case.asks(json!({"skip": {"step": "worse"}})).0, Applied);
        case.fail(ended, refused()).succeed(never, nothing());
        case.assert_state(Failed);
        assert_eq!(case.asks(json!({"retry": {"step": list}})).0, Applied);
        case.assert_step(failed, StepState::Running, 1)
            .assert_step(ended, StepState::Running, 3);
    }
}

#[test]
fn a_list_that_was_ended_with_more_failures_than_it_bears_runs_them_again() {
    let mut case = case(
        "{order: Graph, steps: [{name: bad, http: {url: 'http://x'}}, {name: l, forEach: '[1, 2]', http: {url: 'http://x'}}]}",
    );
    case.visit().fail("bad", refused()).fail("l[0]", refused());
    case.fail("l[1]", no_answer())
        .assert_state(Failed)
        .assert_step("l", StepState::Cancelled, 0);
    assert_eq!(case.asks(json!({"retry": {}})).0, Applied);
    case.assert_step("l[0]", StepState::Running, 1)
        .assert_step("l[1]", StepState::Running, 2);
}

/// A person lets a step run again under its key, and it would send something else than before: it fails by that.
#[test]
pub fn what_would_send_something_else_when_it_runs_again_fails_and_says_so() {
    let call = "http: {method: POST, url: 'http://x'}";
    let once = format!("{{name: a, idempotent: false, {call}}}");
    let mut failed = case(&format!("steps: [{{name: a, {call}, retry: {{maximumAttempts: 1}}}}]"));
    failed
        .visit()
        .fail("a", no_answer())
        .assert_step("a", StepState::Failed, 1);
    let mut late = case(&format!(
        "steps: [{{name: a, {call}, timeouts: {{scheduleToClose: 1m}}}}]"
    ));
    late.visit().later(61 * SECOND).assert_step("a", StepState::TimedOut, 1);
    let mut ended = case(&format!("{{timeout: 1m, steps: [{{name: a, {call}}}]}}"));
    ended
        .visit()
        .later(61 * SECOND)
        .assert_step("a", StepState::Cancelled, 1);
    let mut unknown = case(&format!("steps: [{once}]"));
    unknown
        .visit()
        .fail("a", no_answer())
        .assert_step("a", StepState::Undecided, 1);
    for mut case in [failed, late, ended, unknown] {
        let seq = case.status.seq;
        case.status.steps[0].request_digest = Some("sha256:other".into());
        assert_eq!(case.asks(json!({"retry": {}})).0, Applied);
        case.assert_step("a", StepState::Failed, 1).assert_state(Failed);
        assert_eq!(case.step("a").failure.as_ref().unwrap().reason, "InputChanged");
        assert!(case.step("a").end_time.is_some() && case.step("a").end_seq > Some(seq));
    }
    // Where a person is asked, they are asked again.
    let mut asks = case(&format!("{{failurePolicy: Pause, steps: [{once}]}}"));
    asks.visit()
        .fail("a", no_answer())
        .assert_step("a", StepState::Undecided, 1);
    asks.status.steps[0].request_digest = Some("sha256:other".into());
    assert_eq!(asks.asks(json!({"retry": {}})).0, Applied);
    asks.assert_step("a", StepState::Undecided, 1).assert_state(Stuck);
    assert_eq!(asks.step("a").failure.as_ref().unwrap().reason, "InputChanged");
    assert_eq!(
        asks.events().iter().filter(|event| *event == "StepUndecided a").count(),
        2
    );
}
