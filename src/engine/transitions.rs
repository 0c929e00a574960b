//! The life of a step: every state and every legal transition, in one table.
//!
//! ```text
//!  (start) ─→ Running ──── FailRetryably ───→ BackingOff ── Retry ─→ Running
//!     │        │  │ └───── Doubt ──→ Undecided    └─ Observe ─→ Waiting
//!     │        │  └ Accept ─→ Waiting ── Stop ─→ Cancelling
//!     ▼        ▼                │                    │
//!  Waiting    Succeed / Fail / Expire / Cancel / Skip: the ends
//! ```
//!
//! `Undecided` is where a person is needed: Retry, Postpone, Succeed, Fail and Skip lead out of it. A person may also take an end
//! back that nothing has read (Retry, Observe, Postpone, Skip). A callback may come in any state but an end: it says how the work
//! went of which nothing, or nothing certain, was known.

use crate::api::StepState::{self, *};

/// What happens to a step that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StepEvent {
    /// It did what it should, or the time it waited for came.
    Succeed,
    /// The attempt failed, and another will follow.
    FailRetryably,
    /// The attempt was lost with its process, and this process takes over at once.
    TakeOver,
    /// It failed for good.
    Fail,
    /// It isn't known whether the attempt had its effect, and it may not be repeated.
    Doubt,
    /// The other side took the work.
    Accept,
    /// The next attempt is due, or a person asks for it.
    Retry,
    /// A person asks for another attempt, which may not start yet.
    Postpone,
    /// The next attempt to wait for an object is due; or a person lets a list or group go on.
    Observe,
    /// Its `scheduleToClose` passed.
    Expire,
    /// It is ended before its time, with nothing left to stop.
    Cancel,
    /// It is ended before its time; what it started is to be stopped first.
    Stop,
    /// What it started could not be stopped yet.
    StopAgain,
    /// A person says to go on without it.
    Skip,
}

use StepEvent::*;

/// Every legal transition.
pub const TRANSITIONS: &[(StepState, StepEvent, StepState)] = &[
    (Running, Succeed, Succeeded),
    (Running, FailRetryably, BackingOff),
    (Running, TakeOver, Running),
    (Running, Fail, Failed),
    (Running, Doubt, Undecided),
    (Running, Accept, Waiting),
    (Running, Expire, TimedOut),
    (Running, Cancel, Cancelled),
    (Running, Stop, Cancelling),
    (Waiting, Succeed, Succeeded),
    (Waiting, FailRetryably, BackingOff),
    (Waiting, Fail, Failed),
    (Waiting, Doubt, Undecided),
    (Waiting, Expire, TimedOut),
    (Waiting, Cancel, Cancelled),
    (Waiting, Stop, Cancelling),
    (BackingOff, Retry, Running),
    (BackingOff, Observe, Waiting),
    (BackingOff, Stop, Cancelling),
    (BackingOff, Fail, Failed),
    (BackingOff, Expire, TimedOut),
    (BackingOff, Cancel, Cancelled),
    (Waiting, Skip, Skipped),
    (BackingOff, Succeed, Succeeded),
    // A callback says how it went after all.
    (BackingOff, FailRetryably, BackingOff),
    (Undecided, FailRetryably, BackingOff),
    (BackingOff, Doubt, Undecided),
    (BackingOff, Skip, Skipped),
    (Undecided, Succeed, Succeeded),
    (Undecided, Fail, Failed),
    (Undecided, Retry, Running),
    (Undecided, Observe, Waiting),
    (Undecided, Postpone, BackingOff),
    (Undecided, Skip, Skipped),
    (Undecided, Expire, TimedOut),
    (Undecided, Cancel, Cancelled),
    (Cancelling, StopAgain, Cancelling),
    (Cancelling, Expire, TimedOut),
    (Cancelling, Fail, Failed),
    (Cancelling, Cancel, Cancelled),
    (Cancelling, Doubt, Undecided),
    // By a person alone, and as long as nothing has read how it ended.
    (Failed, Retry, Running),
    (Failed, Observe, Waiting),
    (Failed, Postpone, BackingOff),
    (Failed, Skip, Skipped),
    (TimedOut, Retry, Running),
    (TimedOut, Observe, Waiting),
    (TimedOut, Postpone, BackingOff),
    (TimedOut, Skip, Skipped),
    (Cancelled, Retry, Running),
    (Cancelled, Observe, Waiting),
    (Cancelled, Postpone, BackingOff),
    (Cancelled, Skip, Skipped),
];

/// The state that follows, if the transition is legal.
pub fn next(state: StepState, event: StepEvent) -> Option<StepState> {
    #[cfg(test)]
    coverage::record(state, event);
    TRANSITIONS
        .iter()
        .find(|(from, on, _)| (*from, *on) == (state, event))
        .map(|(_, _, to)| *to)
}

/// What the tests of this thread have taken: transitions of steps, states of operations one after the other, and what came
/// of actions.
#[cfg(test)]
pub mod coverage {
    use std::{cell::RefCell, collections::BTreeSet};

    use super::{StepEvent, StepState};
    use crate::api::{ActionState, OperationActionSpec, OperationState, OperationStatus};
    use crate::engine::Inputs;

    #[derive(Clone, Default)]
    pub struct Taken {
        pub steps: BTreeSet<(StepState, StepEvent)>,
        /// `None` is before the first visit.
        pub operations: BTreeSet<(Option<OperationState>, OperationState)>,
        /// The verb, and whether it was applied.
        pub actions: BTreeSet<(&'static str, bool)>,
    }

    thread_local!(static TAKEN: RefCell<Taken> = RefCell::default());

    pub fn record(state: StepState, event: StepEvent) {
        TAKEN.with_borrow_mut(|taken| taken.steps.insert((state, event)));
    }

    /// Records a decision that was accepted.
    pub fn decided(before: &OperationStatus, inputs: &Inputs<'_>, after: &OperationStatus) {
        TAKEN.with_borrow_mut(|taken| {
            taken.operations.extend(after.state.map(|state| (before.state, state)));
            for action in inputs.actions {
                let decided = after.actions.iter().find(|decided| decided.uid == action.uid);
                taken
                    .actions
                    .extend(decided.map(|decided| (verb(&action.spec), decided.state == ActionState::Applied)));
            }
        });
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

    pub fn taken() -> Taken {
        TAKEN.with_borrow(Clone::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_final_but_for_a_person_and_every_other_state_leads_to_one() {
        for (from, event, _) in TRANSITIONS {
            let by_a_person =
                matches!(event, Retry | Observe | Postpone | Skip) && !matches!(from, Succeeded | Skipped);
            assert!(
                !from.is_closed() || by_a_person,
                "{from:?} is an end but {event:?} leads on"
            );
        }
        for state in [Running, Waiting, BackingOff, Undecided, Cancelling] {
            assert!(
                TRANSITIONS.iter().any(|(from, _, to)| *from == state && to.is_closed()),
                "{state:?} never ends"
            );
        }
    }

    #[test]
    fn no_transition_is_listed_twice() {
        for (i, (from, event, _)) in TRANSITIONS.iter().enumerate() {
            assert!(
                !TRANSITIONS[i + 1..].iter().any(|(f, e, _)| (f, e) == (from, event)),
                "{from:?} on {event:?}"
            );
        }
    }
}
