//! What the tests of this thread have taken of each machine's transitions.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;

use super::OperationEvent;
use super::report::{Taken, Transition, of_operation, transition};
use crate::api::{ActionState, OperationActionSpec, OperationScheduleStatus, OperationStatus, StepState};
use crate::engine::Inputs;
use crate::engine::schedule::Readiness;

thread_local!(static TAKEN: RefCell<BTreeMap<&'static str, Taken>> = RefCell::default());

/// Notes a transition. What its table doesn't know leads to `None`, and was not taken.
pub fn record(machine: &'static str, from: impl Debug, event: impl Debug, to: Option<impl Debug>) {
    match to {
        Some(to) => note(machine, transition(from, event, to)),
        None => note(machine, transition(from, event, Illegal)),
    }
}

/// Where an event leads that a table doesn't know.
#[derive(Debug)]
struct Illegal;

fn note(machine: &'static str, transition: Transition) {
    TAKEN.with_borrow_mut(|taken| *taken.entry(machine).or_default().entry(transition).or_default() += 1);
}

/// Notes that a step enters the journal.
pub fn started(state: StepState) {
    note("step", start(state));
}

/// Notes a decision: how the operation's state changed, and what came of actions.
pub fn decided(before: &OperationStatus, inputs: &Inputs<'_>, after: &OperationStatus) {
    let from = before.start_time.and(before.state);
    if let Some(to) = after.state.filter(|to| from != Some(*to)) {
        note("operation", of_operation(from, OperationEvent::Decide, to));
    }
    for asked in inputs.actions {
        let decided = |status: &OperationStatus| {
            let decided = status.actions.iter().find(|decided| decided.uid == asked.uid);
            decided.map(|decided| decided.state)
        };
        if let (None, Some(state)) = (decided(before), decided(after)) {
            note("action", action(verb(&asked.spec), state));
        }
    }
}

/// Notes what a schedule says after this status.
pub fn readiness(before: &OperationScheduleStatus, to: Readiness) {
    let ready = before.conditions.iter().find(|condition| condition.type_ == "Ready");
    let from = ready.and_then(|ready| Readiness::ALL.into_iter().find(|it| it.to_string() == ready.reason));
    if from != Some(to) {
        note("schedule", schedule(from, to));
    }
}

/// A step that enters the journal, for the report.
pub fn start(state: StepState) -> Transition {
    ["(new)".into(), "Enter".into(), format!("{state:?}")]
}

/// What came of an action, for the report.
pub fn action(verb: &str, decided: ActionState) -> Transition {
    ["(asked)".into(), verb.into(), format!("{decided:?}")]
}

/// A transition of a schedule, for the report.
pub fn schedule(from: Option<Readiness>, to: Readiness) -> Transition {
    let from = from.map_or_else(|| "(new)".into(), |from| from.to_string());
    [from, "Plan".into(), to.to_string()]
}

/// All that an action can ask.
pub const VERBS: [&str; 9] = [
    "signal", "approve", "reject", "retry", "retryNow", "skip", "complete", "fail", "reset",
];

fn verb(spec: &OperationActionSpec) -> &'static str {
    let spec = serde_json::to_value(spec).unwrap();
    let asked = VERBS.into_iter().find(|verb| spec.get(verb).is_some());
    asked.expect("a verb that is not in VERBS")
}

/// How often each transition of a machine was taken.
pub fn taken(machine: &str) -> Taken {
    TAKEN.with_borrow(|taken| taken.get(machine).cloned().unwrap_or_default())
}
