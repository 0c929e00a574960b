//! Steps with `local: true`: what can stay unwritten, and what can't.

use super::*;

const THREE: &str = "
steps:
- {name: a, local: true, http: {url: 'http://x'}, output: {n: '${result.n}'}}
- {name: b, local: true, http: {url: 'http://x/${string(steps.a.output.n)}'}}
- {name: c, local: true, http: {url: 'http://x'}}
";

fn result(step: &str) -> AttemptResult {
    AttemptResult {
        step: step.into(),
        epoch: 0,
        attempt: 1,
        outcome: AttemptOutcome::Succeeded {
            output: json!({"n": 1}).as_object().cloned(),
        },
    }
}

fn under_way(case: &Case) -> Vec<&str> {
    case.work.iter().map(|work| work.step.as_str()).collect()
}

#[test]
fn local_steps_are_recorded_with_the_next_thing_that_has_to_be() {
    let mut case = case(THREE);
    case.status.observed_generation = Some(-1); // as the API server fills it in
    case.pass_with(&[]);
    for (arrived, next) in [("a", "b"), ("b", "c")] {
        case.pass_with(&[result(arrived)]);
        assert_eq!(under_way(&case), [next]);
    }
    assert_eq!(case.writes, 0);
    case.pass_with(&[result("c")]).assert_state(Succeeded);
    assert_eq!(case.writes, 1);
    assert_eq!(case.status.seq, 8, "it tells all, as if each had been written");
}

#[test]
fn an_operation_whose_start_was_not_written_started_when_it_was_first_decided_on() {
    let mut case = case(THREE);
    let begun = case.now;
    for step in ["a", "b", "c"] {
        case.pass_with(&[]);
        case.now = case.now.plus(SECOND / 2);
        case.pass_with(&[result(step)]);
    }
    case.assert_state(Succeeded);
    assert_eq!(case.status.start_time, Some(begun));
    assert_eq!(case.status.history[0].time, begun);
    assert_eq!(case.status.completion_time, Some(begun.plus(SECOND * 3 / 2)));
}

#[test]
fn a_crash_before_the_first_write_begins_anew_and_one_after_it_takes_over() {
    let mut case = case(THREE);
    case.pass_with(&[]).pass_with(&[result("a")]).crash();
    assert_eq!(case.status, OperationStatus::default());
    case.pass_with(&[]);
    assert_eq!(under_way(&case), ["a"]);
    assert_eq!(case.work[0].attempt, 1, "nobody knows of another");
    // It takes long.
    case.write().assert_step("a", StepState::Running, 1);
    assert_eq!(case.writes, 1);
    case.crash().pass_with(&[]);
    case.assert_step("a", StepState::Running, 2);
    assert_eq!((case.step("a").lost, case.writes), (1, 2), "this is no first attempt");
}

#[test]
fn what_was_written_as_it_took_long_goes_on_and_what_follows_is_unwritten_again() {
    let mut case = case(THREE);
    case.pass_with(&[]).write().pass_with(&[]);
    assert_eq!((under_way(&case), case.writes), (vec!["a"], 1));
    case.pass_with(&[result("a")]).pass_with(&[result("b")]);
    case.pass_with(&[result("c")]).assert_state(Succeeded);
    assert_eq!(case.writes, 2);
}

#[test]
fn a_local_step_that_fails_is_seen_from_its_first_attempt_on() {
    for first in [true, false] {
        let mut case = case(THREE);
        case.pass_with(&[]);
        let step = if first { "a" } else { "b" };
        if !first {
            case.pass_with(&[result("a")]);
        }
        let failed = AttemptResult {
            outcome: AttemptOutcome::Failed(busy()),
            ..result(step)
        };
        case.pass_with(&[failed]).assert_step(step, StepState::BackingOff, 1);
        assert_eq!(case.writes, 1);
    }
}

/// Where the start pins what others, or a time, depend on, it is written before anything is called.
#[test]
fn a_start_that_counts_is_written_at_once() {
    let counts = |extra: &str, change: fn(&mut Case)| {
        let mut case = case(&format!("{THREE}\n{extra}"));
        change(&mut case);
        let decision = case.decision(&[]);
        (decision.durable, decision.work.len())
    };
    assert_eq!(counts("", |_| {}), (false, 1));
    for spec in [
        "startDeadline: '2026-11-24T04:00:00Z'",
        "concurrency: {key: '\"a\"'}",
        "templateRef: {name: t}",
        "timeout: 1h",
    ] {
        assert_eq!(counts(spec, |_| {}), (true, 1), "{spec}");
    }
    assert_eq!(counts("", |case| case.limited = true), (true, 1), "others wait for it");
    for (nothing_starts, change) in [
        ("draining", (|case| case.draining = true) as fn(&mut Case)),
        ("suspended", |case| case.spec.suspend = Some(true)),
        ("cancelled", |case| case.spec.cancel = Some(Cancel::default())),
        ("from a backup", |case| case.identity.restored = true),
        ("held", |case| {
            case.hold = Some(Hold {
                since: case.now,
                until: None,
            });
        }),
    ] {
        assert_eq!(counts("", change), (true, 0), "{nothing_starts}");
    }
}

#[test]
fn a_start_after_a_status_that_says_why_it_waited_is_written_at_once() {
    let mut case = case(THREE);
    case.status = held_up(&case.status, &case.identity, Queued, "waiting for its turn", case.now);
    assert!(case.decision(&[]).durable, "else it would go on to say that it waits");
    case.identity.restored = true;
    case.visit().assert_state(Restored);
    case.identity.restored = false;
    assert!(case.decision(&[]).durable);
}

#[test]
fn a_start_with_anything_but_local_steps_is_written_at_once() {
    for steps in [
        "[{name: a, http: {url: 'http://x'}}, {name: b, local: true, http: {url: 'http://x'}}]",
        "[{name: a, set: {n: 1}}, {name: b, http: {url: 'http://x'}}]",
        "[{name: a, wait: {duration: 1h}}]",
        "[{name: a, local: true, forEach: '[1]', http: {url: 'http://x'}}]",
        "[{name: a, steps: [{name: b, local: true, http: {url: 'http://x'}}]}]",
    ] {
        let case = case(&format!("steps: {steps}"));
        assert!(case.decision(&[]).durable, "{steps}");
    }
    let mut graph = case(
        "{order: Graph, steps: [{name: a, local: true, http: {url: 'http://x'}}, {name: b, http: {url: 'http://x'}}]}",
    );
    assert!(graph.decision(&[]).durable);
    // Here the same two follow each other.
    graph.spec.order = None;
    assert!(!graph.decision(&[]).durable);
}

/// A cancel must find all that is to be undone.
#[test]
fn a_local_step_that_is_to_be_undone_is_recorded_as_any_other() {
    let undo = "compensate: {http: {url: 'http://undo'}}";
    let mut one = case(&format!(
        "steps: [{{name: a, local: true, http: {{url: 'http://x'}}, {undo}}}, {{name: b, local: true, http: {{url: 'http://x'}}}}]"
    ));
    assert!(one.decision(&[]).durable);
    one.pass_with(&[]).pass_with(&[result("a")]);
    one.assert_step("a", StepState::Succeeded, 1);
    let mut group = case(&format!(
        "steps: [{{name: g, forEach: '[1]', steps: [{{name: a, local: true, http: {{url: 'http://x'}}}}, {{name: b, local: true, http: {{url: 'http://x'}}}}], {undo}}}]"
    ));
    group.pass_with(&[]).pass_with(&[result("g[0]/a")]);
    group.assert_step("g[0]/a", StepState::Succeeded, 1);
}

#[test]
fn a_local_step_whose_deadline_is_near_is_recorded_before_it_starts() {
    for (limit, durable) in [("2s", true), ("10s", false)] {
        let case = case(&format!(
            "steps: [{{name: a, local: true, http: {{url: 'http://x'}}, timeouts: {{scheduleToClose: {limit}}}}}]"
        ));
        assert_eq!(case.decision(&[]).durable, durable, "{limit}");
    }
}

/// What was not accepted can't go into an OperationHistory; and with too much history, nothing starts.
#[test]
fn many_local_steps_are_written_once_their_history_is_long() {
    let names: Vec<String> = (0..200).map(|n| format!("s{n}")).collect();
    let steps: Vec<_> = names
        .iter()
        .map(|name| json!({"name": name, "local": true, "http": {"url": "http://x"}}))
        .collect();
    let mut case = case(&json!({"steps": steps}).to_string());
    case.pass_with(&[]);
    for name in &names {
        assert_eq!(under_way(&case), [name]);
        case.pass_with(&[result(name)]);
    }
    case.assert_state(Succeeded);
    assert!(case.writes < 10, "{} writes", case.writes);
}
