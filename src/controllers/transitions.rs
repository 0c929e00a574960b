//! What goes on across objects: every state and every legal transition, as the writes show them that the API server accepted.
//!
//! Nothing is decided from these tables. Each is what a file promises, and the simulation holds every accepted write against
//! it, whatever crashes meanwhile.

/// How an operation stands to its concurrency key (`locks.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    /// It isn't in the OperationLock.
    Outside,
    /// It is.
    Holder,
}

/// What happens to it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyEvent {
    /// It is put in: it is about to start, or to go on after its end.
    Take,
    /// It is put in anew before it starts, so that nobody takes it out who looked before.
    TakeAnew,
    /// Another takes it out, as it has ended.
    Ended,
    /// Another takes it out, as it is gone.
    Gone,
    /// Another takes it out, as it was held before its start.
    Unstarted,
    /// The lock is deleted, as nobody counts who is in it.
    Tidy,
    /// The lock goes with the last operation that was in it.
    Collect,
}

/// Every legal transition of an operation that wants a key.
pub const KEYS: &[(KeyState, KeyEvent, KeyState)] = {
    use KeyEvent::*;
    use KeyState::*;
    &[
        (Outside, Take, Holder),
        (Holder, TakeAnew, Holder),
        (Holder, Ended, Outside),
        (Holder, Gone, Outside),
        (Holder, Unstarted, Outside),
        (Holder, Tidy, Outside),
        (Holder, Collect, Outside),
    ]
};

/// Whose the Lease is (`leadership.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseState {
    /// There is none.
    Absent,
    /// Nobody's.
    Free,
    /// A process's.
    Held,
}

/// What happens to the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseEvent {
    /// A process takes it, and leads.
    Acquire,
    /// Its holder goes on leading.
    Renew,
    /// Its holder gives it back: it ends, or its clock is wrong.
    Release,
    /// Another takes it, as long after its last renewal as it lasts.
    TakeOver,
    /// A person deletes it.
    Delete,
}

/// Every legal transition of the Lease.
pub const LEASES: &[(LeaseState, LeaseEvent, LeaseState)] = {
    use LeaseEvent::*;
    use LeaseState::*;
    &[
        (Absent, Acquire, Held),
        (Free, Acquire, Held),
        (Held, Renew, Held),
        (Held, Release, Free),
        (Held, TakeOver, Held),
        (Held, Delete, Absent),
    ]
};

/// How far an OperationAction is (`actions.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AskState {
    /// It was created.
    Asked,
    /// Its operation's status says what came of it.
    Decided,
    /// It says so itself, too.
    Answered,
    /// It says so, and its operation's status no longer does.
    Settled,
    /// It is gone.
    Gone,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AskEvent {
    /// It is applied or rejected, in the write that does what it asks.
    Decide,
    /// It is told what came of it.
    Answer,
    /// Its operation's status forgets it, as it says so itself.
    Forget,
    /// There is no such operation.
    Refuse,
    /// Its operation is deleted before it was told.
    Lose,
    /// It is deleted: by a person, or with its operation.
    Delete,
}

/// Every legal transition of an OperationAction.
pub const ASKS: &[(AskState, AskEvent, AskState)] = {
    use AskEvent::*;
    use AskState::*;
    &[
        (Asked, Decide, Decided),
        (Asked, Refuse, Settled),
        (Asked, Delete, Gone),
        (Decided, Answer, Answered),
        (Decided, Lose, Asked),
        (Decided, Delete, Gone),
        (Answered, Forget, Settled),
        (Answered, Delete, Gone),
        (Settled, Delete, Gone),
    ]
};

/// Where the template is that an operation runs (`templates.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PinState {
    /// Nothing is pinned.
    Unpinned,
    /// It is pinned, in an OperationHistory.
    Pinned,
    /// The OperationHistory is gone of an operation that has started.
    Lost,
    /// It is no longer needed.
    Gone,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PinEvent {
    /// The operator pins what the template is, before the operation starts.
    Pin,
    /// Somebody deletes it.
    Lose,
    /// Somebody puts it back.
    Restore,
    /// Somebody changes it.
    Change,
    /// It is deleted, as the operation was compacted.
    Prune,
    /// It goes with its operation.
    Collect,
}

/// Every legal transition of what is pinned.
pub const PINS: &[(PinState, PinEvent, PinState)] = {
    use PinEvent::*;
    use PinState::*;
    &[
        (Unpinned, Pin, Pinned),
        (Pinned, Lose, Unpinned),
        (Pinned, Lose, Lost),
        (Pinned, Change, Pinned),
        (Pinned, Prune, Gone),
        (Pinned, Collect, Gone),
        (Lost, Restore, Pinned),
    ]
};

/// Where a part of an operation's history is (`histories.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartState {
    /// In the status.
    InStatus,
    /// In the status and in an OperationHistory.
    InBoth,
    /// In an OperationHistory.
    Moved,
    /// It is no longer needed.
    Gone,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartEvent {
    /// An OperationHistory is created for it.
    Spill,
    /// It leaves the status.
    Trim,
    /// It is deleted, as the operation was compacted.
    Prune,
    /// It goes with its operation.
    Collect,
}

/// Every legal transition of a part of a history that has no room in the status.
pub const PARTS: &[(PartState, PartEvent, PartState)] = {
    use PartEvent::*;
    use PartState::*;
    &[
        (InStatus, Spill, InBoth),
        (InBoth, Trim, Moved),
        (InBoth, Collect, Gone),
        (Moved, Prune, Gone),
        (Moved, Collect, Gone),
    ]
};
