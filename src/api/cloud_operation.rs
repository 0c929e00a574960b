//! `CloudOperation`: one run of a workflow.

use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Duration, OperationStatus, Retry, Step, TemplateRef, Time, any_list, any_object, expression};

/// A durable operation: its steps call clouds and clusters, its progress is recorded step by step in
/// its status, and it resumes exactly where it left off after any crash.
///
/// Everything but `suspend`, `cancel` and `ttlSecondsAfterFinished` is fixed once it is created: to run
/// something else, create another.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "CloudOperation",
    plural = "cloudoperations",
    singular = "cloudoperation",
    shortname = "cop",
    shortname = "cops",
    category = "holdfast",
    namespaced,
    status = "OperationStatus",
    annotation("holdfast.dev/schema", "7"),
    derive = "PartialEq",
    doc = "A CloudOperation is a durable run of a workflow: its steps call clouds and clusters, its progress is recorded step by step in its status, and it resumes exactly where it left off after any crash.",
    selectable = ".status.state",
    selectable = ".spec.serviceAccountName",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state", description = "What the operation is doing, or how it ended"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress", description = "Steps that have ended, of all steps"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.currentStep", description = "The step that is under way"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].message"#, description = "What it waits for, or why it ended"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since it was created"),
    validation = Rule::new("size(self.metadata.name) <= 200").message("metadata.name must have at most 200 characters")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(oldSelf.cancel) || has(self.cancel)").message("spec.cancel can't be unset: what was cancelled stays cancelled"))]
#[x_kube(validation = Rule::new("has(self.steps) != has(self.templateRef)").message("spec has exactly one of steps and templateRef"))]
#[x_kube(validation = Rule::new("!has(self.templateRef) || (!has(self.finally) && !has(self.output) && !has(self.order))").message("finally, output and order come from the template: leave them out beside templateRef"))]
#[x_kube(validation = Rule::new("!has(self.steps) || [self.steps.map(s, s.name)].all(names, self.steps.all(s, !has(s.needs) || s.needs.all(n, n in names)))").message("needs of a step names a step that isn't there").field_path(".steps"))]
#[x_kube(validation = Rule::new("has(self.steps) == has(oldSelf.steps) && (!has(self.steps) || self.steps.map(s, s.name) == oldSelf.steps.map(s, s.name))").message("spec.steps is immutable: create another CloudOperation"))]
#[x_kube(validation = immutable("templateRef"))]
#[x_kube(validation = immutable("input"))]
#[x_kube(validation = immutable("output"))]
#[x_kube(validation = immutable("order"))]
#[x_kube(validation = immutable("failurePolicy"))]
#[x_kube(validation = immutable("finally"))]
#[x_kube(validation = immutable("retry"))]
#[x_kube(validation = immutable("serviceAccountName"))]
#[x_kube(validation = immutable("startDeadline"))]
#[x_kube(validation = immutable("concurrency"))]
#[x_kube(validation = immutable("timeout"))]
pub struct CloudOperationSpec {
    /// The service account, in the operation's namespace, as which its steps act: Kubernetes changes, Secrets,
    /// Jobs and tokens. `default` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,

    /// What the operation works on: read in expressions as `input`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "any_object")]
    pub input: Map<String, Value>,

    /// How long the whole operation may take, from its start; no limit if absent. Suspended time doesn't count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,

    /// An operation that the operator sees for the first time after this moment ends as `Expired`, with nothing
    /// executed. For objects that something may apply again after a person deleted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(
        pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9])$"
    ))]
    pub start_deadline: Option<Time>,

    /// Lets only so many operations with the same key run at once in the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,

    /// What the operation does when a step fails for good. Default: `Stop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_policy: Option<FailurePolicy>,

    /// In which order the steps run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,

    /// How steps are retried that don't say it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,

    /// The template whose steps it runs, in place of `steps`. What the operation says itself of `input`, `serviceAccountName`,
    /// `timeout`, `failurePolicy` and `retry` wins over the template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<TemplateRef>,

    /// The steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub steps: Vec<Step>,

    /// Steps that run at the end, one after the other, whatever happened before: also after a failure, a cancel or the
    /// operation's timeout. They may read every step's state, and `operation.state`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "any_list")]
    pub finally: Vec<Step>,

    /// What the operation answers, computed when it succeeds: values with `${...}` templates, recorded in
    /// `status.output`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub output: Option<Map<String, Value>>,

    /// Holds the operation: no attempt starts while it is true. What is under way ends and is recorded; timeouts stand still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// Ends the operation before its time. Can't be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Cancel>,

    /// So many seconds after its end, an operation that nothing can apply again (it has a `generateName` or an owner)
    /// is deleted; any other is compacted: its details go, its outcome stays. Neither happens if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub ttl_seconds_after_finished: Option<i32>,
}

/// Which operations exclude each other. One counts from its start to its end, also while it is suspended or stuck.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Concurrency {
    /// Operations for which this expression gives the same text exclude each other, whatever they run. It reads `input`, as
    /// the operation itself says it, and `operation`.
    #[schemars(schema_with = "expression")]
    pub key: String,

    /// How many of them run at once, as this one bears it. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max: Option<i32>,

    /// What an operation does for which there is no room. Default: `Queue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<QueuePolicy>,
}

/// What an operation does that can't start at once. `Queue` (the default): it waits as `Queued`. `Reject`: it ends as
/// `Failed`, with nothing executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum QueuePolicy {
    /// It waits, as `Queued`: who was created first starts first.
    #[default]
    Queue,
    /// It ends as `Failed`, with nothing executed.
    Reject,
}

/// In which order the steps run. `Sequence` (the default): each after the one above it. `Graph`: each as soon as the
/// steps that it names in `needs`, or reads in an expression, have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Order {
    /// Each step after the one above it.
    #[default]
    Sequence,
    /// Each step as soon as what it needs has ended.
    Graph,
}

/// A request to end an operation before its time.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancel {
    /// What becomes of what was done: `Stop` (the default) leaves it, `Compensate` undoes the steps that say how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<CancelMode>,

    /// Why, for whoever reads the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

/// What becomes of what a cancelled operation had done. `Stop` (the default): it stays. `Compensate`: it is undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum CancelMode {
    /// It stays.
    #[default]
    Stop,
    /// It is undone.
    Compensate,
}

/// What an operation does when a step fails for good. `Stop` (the default): it ends as `Failed`, and what was done stays.
/// `Compensate`: what was done is undone first. `Pause`: it waits for a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum FailurePolicy {
    /// It ends as `Failed`; what was done stays.
    #[default]
    Stop,
    /// What was done is undone, the last first, by the steps' `compensate`; then it ends as `Failed`.
    Compensate,
    /// It waits for a person: to retry the step, to skip it, or to cancel.
    Pause,
}

impl CloudOperationSpec {
    /// The service account as which the steps act.
    pub fn service_account(&self) -> &str {
        self.service_account_name.as_deref().unwrap_or("default")
    }
}

/// The rule that a field of the spec stays as it was created, given or not.
fn immutable(field: &str) -> Rule {
    let message = format!("spec.{field} is immutable: create another CloudOperation");
    Rule::new(format!(
        "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    ))
    .message(message.as_str())
}
