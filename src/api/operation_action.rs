//! `OperationAction`: what a person or a program does to an operation.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Time, any_object};

/// Something that is done to an operation: a signal, an approval, a retry. Exactly one of the fields beside `operationRef`
/// and `requestedBy` says what. It is applied once, says in its status what came of it, and goes with the operation.
#[allow(clippy::duplicated_attributes)] // each printcolumn has a type
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "OperationAction",
    plural = "operationactions",
    singular = "operationaction",
    shortname = "opact",
    category = "holdfast",
    namespaced,
    status = "OperationActionStatus",
    annotation("holdfast.dev/schema", "1"),
    derive = "Default",
    derive = "PartialEq",
    doc = "An OperationAction is what a person or a program does to a CloudOperation: a signal, an approval, a retry. It is applied once, says in its status what came of it, and goes with the operation.",
    selectable = ".spec.operationRef.name",
    printcolumn(
        name = "Operation",
        type_ = "string",
        json_path = ".spec.operationRef.name",
        description = "The operation that it is done to"
    ),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "Whether it was applied"
    ),
    printcolumn(
        name = "By",
        type_ = "string",
        json_path = ".spec.requestedBy.user",
        description = "Who asked for it"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "What came of it"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since it was created"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("an OperationAction is immutable: create another"))]
#[x_kube(validation = Rule::new("[has(self.signal), has(self.approve), has(self.reject), has(self.retry), has(self.retryNow), has(self.skip), has(self.complete), has(self.fail), has(self.reset)].filter(t, t).size() == 1").message("an action has exactly one of signal, approve, reject, retry, retryNow, skip, complete, fail, reset"))]
pub struct OperationActionSpec {
    /// The operation, in the action's namespace.
    pub operation_ref: OperationRef,

    /// Who asks for it. Set by admission; what is given must be true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<Requester>,

    /// Sends a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<SendSignal>,

    /// Approves what an approval step asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approve: Option<Decide>,

    /// Rejects it: the step fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject: Option<Decide>,

    /// Runs a step again that ended badly, or every one that did; also days after the operation's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryStep>,

    /// Ends the wait before a step's next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_now: Option<OfStep>,

    /// Goes on as if a step had been done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<WithOutput>,

    /// Says that what a step waits for, or what nobody knows whether it was done, is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<WithOutput>,

    /// Says that it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<WithMessage>,

    /// Goes back to a step: it and all that followed from it run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<OfStep>,
}

/// Which operation.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Its uid. If absent: the one of this name that was created before the action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
}

/// Who asks.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    /// The user, as the API server knows them.
    #[schemars(length(max = 1024))]
    pub user: String,

    /// Their groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 1024)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub groups: Vec<String>,
}

/// A signal.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SendSignal {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// What it says: the output of the step that waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub payload: Option<Map<String, Value>>,
}

/// A word on an approval step.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decide {
    /// The step.
    #[schemars(length(min = 1, max = 100))]
    pub step: String,

    /// The step's `epoch` that the word is about: after a reset, an old word doesn't count. If absent: the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub epoch: Option<i64>,

    /// Why, for whoever reads the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub comment: Option<String>,
}

/// A retry by hand.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryStep {
    /// The step. If absent: every step that ended badly or needs a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub step: Option<String>,

    /// True: under a new idempotency key even where it isn't known whether the last attempt had its effect. It may then
    /// be had twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_key: Option<bool>,
}

/// An action on a step.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfStep {
    /// The step.
    #[schemars(length(min = 1, max = 100))]
    pub step: String,
}

/// An action on a step that gives it an output.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WithOutput {
    /// The step.
    #[schemars(length(min = 1, max = 100))]
    pub step: String,

    /// The output that what follows reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub output: Option<Map<String, Value>>,
}

/// An action on a step that says why.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WithMessage {
    /// The step.
    #[schemars(length(min = 1, max = 100))]
    pub step: String,

    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// What came of an action: written by the operator alone.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationActionStatus {
    /// Whether it was applied; absent until that is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ActionState>,

    /// What was done, or why nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// When it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// Whether an action was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ActionState {
    /// It was.
    Applied,
    /// It was not, and never will be.
    Rejected,
}
