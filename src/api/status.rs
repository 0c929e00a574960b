//! The status of an operation: its journal, and what people read of it.
//!
//! Fields that this version doesn't know survive a round trip through it (`other`), so that an operator that is rolled
//! back loses nothing that a newer one wrote.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ActionState, StepType, Time, any_object, any_value, atomic};

/// How far an operation is: written by the operator alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// What the operation is doing, or how it ended: the reason of the condition `Succeeded`, for selectors and columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<OperationState>,

    /// `Finished`: it has ended, however. `Succeeded`: Unknown while active. `Reconciling` and `Stalled`: for tools that
    /// read kstatus.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,

    /// Steps that have ended, of all steps: `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,

    /// The step that is under way; the first one where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_step: Option<String>,

    /// What the operation answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub output: Option<Map<String, Value>>,

    /// Why it didn't succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,

    /// The journal: an entry for every step that was started, in the order of their starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "atomic::<StepStatus>")]
    pub steps: Vec<StepStatus>,

    /// Steps that a person let run again under a new key although an attempt under the one before may have had its effect:
    /// where what was done is undone, they are, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "atomic::<String>")]
    pub maybe_done_before: Vec<String>,

    /// Signals and approvals that arrived and that no step has taken yet, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "atomic::<Received>")]
    pub received: Vec<Received>,

    /// What came of OperationActions, until they say it themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "atomic::<DecidedAction>")]
    pub actions: Vec<DecidedAction>,

    /// The audit log's tail, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "atomic::<HistoryEntry>")]
    pub history: Vec<HistoryEntry>,

    /// The last sequence number of the audit log that is in OperationHistory objects and no longer in `history`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub history_spilled: i64,

    /// The number of the rules by which this operation is decided. Set at its start, never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<i32>,

    /// The digest of the spec that this operation runs, control fields left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_digest: Option<String>,

    /// The last sequence number that was given: to a start or end of a step, or an entry of the history.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seq: i64,

    /// The highest epoch that was given to a step.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: i64,

    /// The time of the last write: the operation's clock never runs backwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_time: Option<Time>,

    /// When `spec.timeout` ends the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,

    /// Since when the operation is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_at: Option<Time>,

    /// Set once an operation that ended was compacted, as its `ttlSecondsAfterFinished` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compacted: Option<bool>,

    /// Who made the last write: a process and the number of its write. By it, a process whose answer was lost recognises
    /// its own write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_id: Option<String>,

    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
}

/// What an operation is doing, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum OperationState {
    /// It has not started: others with its `concurrency.key` run, or as many as its namespace runs at once.
    Queued,
    /// An attempt is under way.
    Running,
    /// All that is under way waits: for a time, an object, a Job.
    Waiting,
    /// An approval step waits for somebody's word.
    AwaitingApproval,
    /// All that is under way waits for the next attempt of something that failed.
    BackingOff,
    /// Held by `spec.suspend` or its namespace.
    Suspended,
    /// Held since it came back from a backup without its status.
    Restored,
    /// A person is needed: a call that may not be repeated ended without an answer, a step could not be undone, or one
    /// failed and `failurePolicy` is `Pause`.
    Stuck,
    /// What was done is being undone.
    Compensating,
    /// The end: every step succeeded or was skipped.
    Succeeded,
    /// The end: a step failed for good.
    Failed,
    /// The end: it was cancelled.
    Cancelled,
    /// The end: `spec.timeout` passed.
    TimedOut,
    /// The end: it was first seen after `spec.startDeadline`; nothing was executed.
    Expired,
    /// The end: the spec can't be executed; nothing was.
    InvalidSpec,
    /// The end: the spec was changed after the start; nothing more was executed.
    SpecChanged,
}

impl OperationState {
    /// All of them.
    pub const ALL: [Self; 16] = {
        use OperationState::*;
        [
            Queued,
            Running,
            Waiting,
            AwaitingApproval,
            BackingOff,
            Suspended,
            Restored,
            Stuck,
            Compensating,
            Succeeded,
            Failed,
            Cancelled,
            TimedOut,
            Expired,
            InvalidSpec,
            SpecChanged,
        ]
    };

    /// True for the ends.
    pub fn is_finished(self) -> bool {
        use OperationState::*;
        match self {
            Queued | Running | Waiting | AwaitingApproval | BackingOff | Suspended | Restored | Stuck
            | Compensating => false,
            Succeeded | Failed | Cancelled | TimedOut | Expired | InvalidSpec | SpecChanged => true,
        }
    }
}

impl std::fmt::Display for OperationState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// Why something failed, for people and for programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// A word for programs, such as `HttpStatus` or `AccessDenied`.
    pub reason: String,
    /// What happened, to what, and what can be done.
    pub message: String,
    /// The step that it happened in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// The journal's entry of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// The step's path in the operation: its name.
    pub name: String,

    /// What the step does.
    #[serde(rename = "type")]
    pub step_type: StepType,

    /// How far it is.
    pub state: StepState,

    /// The number of the last attempt, from 1; 0 for steps that make none. Never given to two processes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: i64,

    /// The epoch of the idempotency key: attempts of one epoch share one key.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: i64,

    /// The process that alone executes the attempt that is `Running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,

    /// The digest of the request, secrets left out: every attempt under one key sends the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<String>,

    /// How many attempts failed definitely: with the key it names what an attempt creates.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: i64,

    /// How many attempts were lost with their process: the retry policy doesn't count them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: i64,

    /// True after an attempt of which it isn't known whether it had its effect.
    #[serde(default, skip_serializing_if = "is_false")]
    pub maybe_done: bool,

    /// The uid of the object that a `delete` or `evict` acts on, recorded before it does: one that has its name since isn't it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,

    /// What goes on at the other side: a Job, an operation, or the work for which a callback is awaited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalRef>,

    /// What the other side last said of its work, while a callback is awaited. Recorded every 30 s at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,

    /// The digest of the callback that completed the step: by it a repeat is recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,

    /// When the step was started.
    pub start_time: Time,

    /// When the last attempt was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_time: Option<Time>,

    /// When the step ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,

    /// When the next attempt starts, or a timer fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,

    /// When `timeouts.scheduleToClose` ends the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,

    /// What it waits for, or what the last attempt said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// What was recorded of its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub output: Option<Map<String, Value>>,

    /// Why it failed, or why its last attempt did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,

    /// How far its list is, for a step with `forEach`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Items>,

    /// The sequence number of its start.
    pub start_seq: i64,

    /// The sequence number of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_seq: Option<i64>,

    /// Fields of other versions.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
}

/// A sign of life of the other side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// When it arrived.
    pub time: Time,
    /// What it said, up to 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_value")]
    pub details: Option<Value>,
}

/// How far a `forEach` is. Items that are under way or failed have entries of their own, `<step>[<index>]`; every other
/// item before `next` is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Items {
    /// How many there are.
    pub total: i64,
    /// The index of the first that was never started.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub next: i64,
    /// The indices of those that are to be started again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub again: Vec<i64>,
    /// The outputs of those that are done, by index.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "any_object")]
    pub outputs: Map<String, Value>,
}

/// A signal or an approval that arrived.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Received {
    /// The signal's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The step that an approval is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Whether it is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<bool>,
    /// A signal's payload; an approval's `by` and `comment`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "any_object")]
    pub payload: Map<String, Value>,
}

/// What came of an OperationAction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecidedAction {
    /// The action's name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whether it was applied.
    pub state: ActionState,
    /// What was done, or why nothing was.
    pub message: String,
    /// When.
    pub time: Time,
}

impl StepStatus {
    /// True while the other side has taken the work of an `http` step and is to call back.
    pub fn awaits_callback(&self) -> bool {
        self.step_type == StepType::Http && self.state == StepState::Waiting && self.external.is_some()
    }
}

/// How far a step is. The legal transitions are in the engine's `transitions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum StepState {
    /// An attempt was recorded: its runner executes it.
    Running,
    /// It waits for a time, an object or a Job: any leader watches it.
    Waiting,
    /// The last attempt failed; the next one starts at `nextAttemptTime`.
    BackingOff,
    /// A person is needed: the outcome of a call that may not be repeated is unknown, what it started has vanished, or it
    /// failed where that may not end the operation.
    Undecided,
    /// It is to end before its time: what it started at the other side is being stopped.
    Cancelling,
    /// The end: it did what it should.
    Succeeded,
    /// The end: its `when` was false, or a person said to go on without it.
    Skipped,
    /// The end: it failed for good.
    Failed,
    /// The end: a timeout passed.
    TimedOut,
    /// The end: it was ended before its time.
    Cancelled,
}

impl StepState {
    /// True for the ends.
    pub fn is_closed(self) -> bool {
        use StepState::*;
        match self {
            Running | Waiting | BackingOff | Undecided | Cancelling => false,
            Succeeded | Skipped | Failed | TimedOut | Cancelled => true,
        }
    }

    /// True for the ends after which what needs the step may run.
    pub fn satisfies(self) -> bool {
        matches!(self, Self::Succeeded | Self::Skipped)
    }
}

/// An object that an attempt created and that goes on by itself; or, with the kind `Callback`, work at the other side of
/// an `http` call: its name is the idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalRef {
    /// The object's kind.
    pub kind: String,
    /// The object's name, in the operation's namespace.
    pub name: String,
    /// The object's uid: another object of the same name isn't it.
    pub uid: String,
}

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The entry's sequence number.
    pub seq: i64,
    /// When it happened.
    pub time: Time,
    /// What happened.
    #[serde(rename = "type")]
    pub event: HistoryEvent,
    /// The step that it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The attempt that it happened to.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: i64,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The person or program that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
}

/// What an entry of the audit log is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum HistoryEvent {
    /// The operation was started.
    Started,
    /// An attempt of a step was recorded, and may have been executed from then on.
    AttemptStarted,
    /// An attempt failed and will be followed by another.
    AttemptFailed,
    /// The process that executed an attempt is gone; another process took over.
    AttemptLost,
    /// What an attempt started goes on by itself.
    Accepted,
    /// A step began to wait for a time or an object.
    StepWaiting,
    /// A step succeeded.
    StepSucceeded,
    /// A step was skipped.
    StepSkipped,
    /// A step failed for good.
    StepFailed,
    /// A timeout ended a step.
    StepTimedOut,
    /// A step was ended before its time.
    StepCancelled,
    /// A step can't go on without a person.
    StepUndecided,
    /// An OperationAction was applied.
    ActionApplied,
    /// An OperationAction was not applied.
    ActionRejected,
    /// What was done began to be undone.
    Compensating,
    /// The operation was held.
    Suspended,
    /// The operation goes on.
    Resumed,
    /// The operation was asked to end before its time.
    CancelRequested,
    /// The operation ended.
    Finished,
    /// A kind of entry that another version wrote.
    #[serde(other)]
    Other,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_state_of_an_operation_is_missing_from_the_list() {
        let schema = serde_json::to_string(&schemars::schema_for!(OperationState)).unwrap();
        let listed = BTreeSet::from(OperationState::ALL).len();
        assert_eq!(
            (listed, OperationState::ALL.len()),
            (schema.matches("\"const\":").count(), listed),
            "{schema}"
        );
    }
}
