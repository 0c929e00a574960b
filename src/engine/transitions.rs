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
//! back that nothing has read (Retry, Observe, Postpone, Skip; and Fail, if it can't run again). A callback may come in any
//! state but an end: it says how the work went of which nothing, or nothing certain, was known.
//!
//! And the life of an operation: which states may follow which.

use crate::api::OperationState;
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
    // What a person asked for can't be done.
    (Undecided, Doubt, Undecided),
    (Failed, Fail, Failed),
    (TimedOut, Fail, Failed),
    (Cancelled, Fail, Failed),
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

/// The states in which a step is entered into the journal.
pub const STARTS: &[StepState] = &[Running, Waiting, Succeeded, Skipped];

/// The state that follows, if the transition is legal.
pub fn next(state: StepState, event: StepEvent) -> Option<StepState> {
    TRANSITIONS
        .iter()
        .find(|(from, on, _)| (*from, *on) == (state, event))
        .map(|(_, _, to)| *to)
}

/// The states of an operation that has started and not ended. They are derived from the steps, so each may follow each.
#[rustfmt::skip]
const ACTIVE: &[OperationState] = {
    use OperationState::*;
    &[Running, Waiting, AwaitingApproval, BackingOff, Suspended, Stuck, Compensating]
};

/// What the first decision on an operation may lead to, beside [`ACTIVE`]: whatever it said while it waited for that.
#[rustfmt::skip]
const AT_ONCE: &[OperationState] = {
    use OperationState::*;
    &[Restored, Succeeded, Failed, Cancelled, TimedOut, Expired, InvalidSpec]
};

/// What further decisions may lead to: from each state on the left to each other on the right. Out of an end only a person
/// leads, who lets steps run again.
#[rustfmt::skip]
const DECIDED: &[(&[OperationState], &[OperationState])] = {
    use OperationState::*;
    &[
        (ACTIVE, ACTIVE),
        (ACTIVE, &[Succeeded, Failed, Cancelled, TimedOut, SpecChanged]),
        (&[Succeeded, Failed, TimedOut], &[Running, Waiting, AwaitingApproval, BackingOff, Suspended, Stuck, SpecChanged]),
        (&[Succeeded, Failed], &[Compensating]),
        (&[Succeeded, TimedOut], &[Failed]),
        (&[Failed, TimedOut], &[Succeeded]),
    ]
};

/// Where an operation comes to that can't be decided on, and why ([`held_up`](super::held_up)): before its start it waits for its
/// turn or its template; later, what it runs may be gone.
const HELD_UP: &[OperationState] = &[
    OperationState::Queued,
    OperationState::Waiting,
    OperationState::Suspended,
];

/// What leads an operation from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OperationEvent {
    /// It is decided on.
    Decide,
    /// It can't be decided on.
    HoldUp,
}

/// Every legal transition of an operation to another state. It comes from `None` as long as it has not started.
pub fn operations() -> impl Iterator<Item = (Option<OperationState>, OperationEvent, OperationState)> {
    use OperationEvent::{Decide, HoldUp};
    let first = ACTIVE.iter().chain(AT_ONCE).map(|to| (None, Decide, *to));
    let pairs = DECIDED
        .iter()
        .flat_map(|(from, to)| from.iter().flat_map(|from| to.iter().map(|to| (*from, *to))));
    let later = pairs
        .filter(|(from, to)| from != to)
        .map(|(from, to)| (Some(from), Decide, to));
    let held_up = HELD_UP.iter().map(|to| (None, HoldUp, *to));
    let stuck = ACTIVE.iter().filter(|from| **from != OperationState::Stuck);
    let stuck = stuck.map(|from| (Some(*from), HoldUp, OperationState::Stuck));
    first.chain(later).chain(held_up).chain(stuck)
}

#[cfg(test)]
pub mod coverage;
#[cfg(test)]
#[path = "../../tests/report/mod.rs"]
pub mod report;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_final_but_for_a_person_and_every_other_state_leads_to_one() {
        for (from, event, _) in TRANSITIONS {
            let by_a_person =
                matches!(event, Retry | Observe | Postpone | Skip | Fail) && !matches!(from, Succeeded | Skipped);
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
