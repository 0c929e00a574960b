//! The life of a due time, and that of a schedule: every state and every legal transition.
//!
//! ```text
//!  Due ──── Start, Find ────→ Started      Named ── Start, Find ──→ Started
//!   │ └──── Wait → Waiting ── Start, Find ──→ Started
//!   │                └─────── Skip ─────────→ Skipped,  Expire → Missed
//!   └────── Skip → Skipped,   Late, Expire ─→ Missed
//! ```
//!
//! What was due while the schedule was paused, or another, is never looked at.

use std::fmt;

use DueEvent::*;
use DueState::*;

/// How far a due time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DueState {
    /// Its time has come, and nothing was decided on it.
    Due,
    /// It is in the range of a backfill, and nothing was done for that.
    Named,
    /// It waits until another operation of the schedule has ended.
    Waiting,
    /// Its operation was created.
    Started,
    /// Nothing was started, as `concurrencyPolicy` says.
    Skipped,
    /// Nothing was started, as it was too late.
    Missed,
}

/// What happens to a due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DueEvent {
    /// It may start.
    Start,
    /// Its operation is there: by a process that died before it could say so, or by a backfill.
    Find,
    /// Another operation is under way, and it is to wait for its end.
    Wait,
    /// Another operation is under way; or a later due time takes its place.
    Skip,
    /// It was looked at after its `catchUpWindow`.
    Late,
    /// Its `startDeadline` passed.
    Expire,
}

/// Every legal transition of a due time.
pub const DUE_TIMES: &[(DueState, DueEvent, DueState)] = &[
    (Due, Start, Started),
    (Due, Find, Started),
    (Due, Wait, Waiting),
    (Due, Skip, Skipped),
    (Due, Late, Missed),
    (Due, Expire, Missed),
    (Waiting, Start, Started),
    (Waiting, Find, Started),
    (Waiting, Skip, Skipped),
    (Waiting, Expire, Missed),
    (Named, Start, Started),
    (Named, Find, Started),
];

/// The state that follows, if the transition is legal.
pub(super) fn next(state: DueState, event: DueEvent) -> Option<DueState> {
    let legal = DUE_TIMES.iter().find(|(from, on, _)| (*from, *on) == (state, event));
    let next = legal.map(|(_, _, to)| *to);
    #[cfg(test)]
    crate::engine::coverage::record("due time", state, event, next);
    next
}

/// Whether a schedule starts operations: the reason of its condition `Ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// It does.
    Scheduled,
    /// It is paused: it does for backfills alone.
    Paused,
    /// Its spec is wrong.
    Invalid,
    /// The API server refuses an operation of it.
    Refused,
    /// It came back from a backup: a backfill that may have run before waits for a person.
    Restored,
}

impl Readiness {
    /// All of them. Whatever a schedule is, it may become any other by a change of its spec, and of what the API server says.
    pub const ALL: [Self; 5] = [
        Self::Scheduled,
        Self::Paused,
        Self::Invalid,
        Self::Refused,
        Self::Restored,
    ];
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
