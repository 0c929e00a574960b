//! The pure core: from a spec, a journal and what arrived to the next journal. No I/O, clock, randomness or log inside.
//!
//! [`decide`] is the whole of it: the controllers call it with what they know, write the status that it answers, and
//! only once that write was accepted do the work that it names.

mod callback;
mod decide;
pub mod expression;
#[cfg(test)]
mod fixtures;
mod history;
mod key;
mod outcome;
#[cfg(test)]
mod properties;
mod request;
mod retry;
#[cfg(test)]
mod scenarios;
pub mod schedule;
mod summary;
mod template;
mod transitions;
mod workflow;

pub use callback::{Callback, Said, Standing, standing};
pub use decide::{STAYS_UNWRITTEN, decide, undoes};
pub use history::{chunk, shorten};
pub use key::IdempotencyKey;
pub use outcome::{AttemptFailure, Effect, Outcome, RetryAdvice};
pub use request::{ExpressionFailure, Request, digest, output, request, result_scope, scope};
pub use retry::start_to_close;
pub use summary::{MAX_STATUS, is_to_run_again};
pub use template::{Resolved, held_up, resolve};
#[cfg(test)]
pub(crate) use transitions::coverage;
pub use transitions::{OperationEvent, STARTS, StepEvent, TRANSITIONS, operations};
pub use workflow::{InvalidSpec, Role, Workflow, WorkflowStep, concurrency_key, item_name, spec_digest, undo_name};

use serde_json::{Map, Value};

use crate::api::{CloudOperationSpec, ExternalRef, Heartbeat, OperationActionSpec, OperationStatus, Time};

/// The number of the rules in this module. Semantics change only under a new number: an operation is decided by the
/// rules under which it was started, and one from the future is left untouched.
pub const ENGINE: i32 = 1;

/// Which operation is decided on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: what keys are made of.
    pub uid: String,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// True if nothing can apply it again: it was made by `generateName`, or another object owns it.
    pub disposable: bool,
    /// True if it came back from a backup.
    pub restored: bool,
    /// When it was created.
    pub created: Option<Time>,
    /// Who created it, where admission says it.
    pub creator: Option<String>,
}

/// An OperationAction that waits to be decided on.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was created.
    pub created: Option<Time>,
    /// True if admission vouches for who asks.
    pub verified: bool,
    /// What it asks.
    pub spec: OperationActionSpec,
}

/// When a namespace was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Since when.
    pub since: Time,
    /// Until when; `None` while it is.
    pub until: Option<Time>,
}

/// What a decision is made from, beside the status.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Which operation.
    pub identity: &'a Identity,
    /// Its spec.
    pub spec: &'a CloudOperationSpec,
    /// The digest of that spec.
    pub spec_digest: &'a str,
    /// That spec, compiled.
    pub workflow: Result<&'a Workflow, &'a InvalidSpec>,
    /// What arrived since the last accepted write, in the order of its arrival.
    pub results: &'a [AttemptResult],
    /// The actions on it that don't say yet what came of them, in the order of their creation.
    pub actions: &'a [Action],
    /// The sequence number up to which the history is in OperationHistory objects, as far as this process has seen to it.
    pub spilled: i64,
    /// Why the next part of it can't be moved there, if that was tried.
    pub unspilled: Option<&'a str>,
    /// The namespace's last hold.
    pub namespace_hold: Option<Hold>,
    /// Why the operation may not start: it ends with nothing executed.
    pub refused: Option<&'a str>,
    /// True if the namespace runs only so many operations at once: others wait for what is recorded of this one.
    pub limited: bool,
    /// When it was first decided on, where its start could stay unwritten until now.
    pub begun: Option<Time>,
    /// True while this process shuts down: what arrives is recorded, nothing is started.
    pub draining: bool,
    /// The process that would execute what is started.
    pub runner: &'a str,
    /// The time.
    pub now: Time,
}

/// What an attempt came to, as the journal takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptResult {
    /// The step.
    pub step: String,
    /// The epoch of the key that the attempt used.
    pub epoch: i64,
    /// The attempt.
    pub attempt: i64,
    /// What it came to.
    pub outcome: AttemptOutcome,
}

/// How an attempt ended, with what is recorded of it.
#[derive(Clone, Debug, PartialEq)]
pub enum AttemptOutcome {
    /// It did what it should.
    Succeeded {
        /// What is recorded of its result.
        output: Option<Map<String, Value>>,
    },
    /// The other side took the work.
    Accepted {
        /// What goes on there.
        external: ExternalRef,
    },
    /// It goes on, and says what it waits for now.
    Noted {
        /// What it waits for.
        message: String,
    },
    /// It goes on, and acts on the object of this uid once that is recorded.
    Aimed {
        /// The object's uid.
        uid: String,
    },
    /// The other side gave a sign of life.
    Beat(Heartbeat),
    /// The other side called back.
    CalledBack(Callback),
    /// It failed.
    Failed(AttemptFailure),
    /// What it had started was stopped.
    Stopped,
    /// What it had started could not be stopped.
    StopFailed(AttemptFailure),
}

/// What is decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The next status. Equal to the last one where nothing is to be written.
    pub status: OperationStatus,
    /// False where nothing is lost if the status is not written for a while, [`STAYS_UNWRITTEN`]: all that it says beyond
    /// the last one is what local steps did, which can be done again.
    pub durable: bool,
    /// Everything that should be under way in this process once that status is durable, where it has to be.
    pub work: Vec<Work>,
    /// When to decide again, if nothing arrives before.
    pub wake: Option<Time>,
    /// True if the object is to be deleted: its time to live is over.
    pub delete: bool,
}

/// Something that should be under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Work {
    /// The step.
    pub step: String,
    /// The epoch of its key.
    pub epoch: i64,
    /// The attempt.
    pub attempt: i64,
    /// What is to be done.
    pub kind: WorkKind,
}

/// What is to be done for a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WorkKind {
    /// Execute the attempt.
    Attempt,
    /// Follow what the attempt started at the other side.
    Follow(ExternalRef),
    /// Stop what it started.
    Stop {
        /// Where that is known; else what it may have started.
        external: Option<ExternalRef>,
        /// True if it is an operation, and what was done is undone: it is told so, also where that is said while it is
        /// being stopped.
        undoes: bool,
    },
}
