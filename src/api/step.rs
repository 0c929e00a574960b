//! A step of a workflow: what it does, when, and how it is retried.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Duration, Http, Job, Kubernetes, Order, TemplateRef, any_list, any_object, expression};

/// One step. Exactly one of `http`, `kubernetes`, `job`, `operation`, `steps`, `wait`, `signal`, `approval`, `set` and `assert`
/// says what it does.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a step is immutable: create another CloudOperation"))]
#[x_kube(validation = Rule::new("[has(self.http), has(self.kubernetes), has(self.job), has(self.operation), has(self.steps), has(self.wait), has(self.signal), has(self.approval), has(self.set), has(self.assert)].filter(t, t).size() == 1").message("a step has exactly one of http, kubernetes, job, operation, steps, wait, signal, approval, set, assert"))]
#[x_kube(validation = Rule::new("!(self.name in ['true', 'false', 'null', 'in', 'as', 'break', 'const', 'continue', 'else', 'for', 'function', 'if', 'import', 'let', 'loop', 'package', 'namespace', 'return', 'var', 'void', 'while'])").message("is a reserved word of the expression language: choose another").field_path(".name"))]
#[x_kube(validation = Rule::new("!has(self.needs) || !(self.name in self.needs)").message("a step can't need itself").field_path(".needs"))]
#[x_kube(validation = Rule::new("!has(self.compensate) || has(self.http) || has(self.kubernetes) || has(self.job) || has(self.operation) || (has(self.steps) && has(self.forEach))").message("can only be said of a step with an effect: http, kubernetes, job or operation, or of steps with forEach").field_path(".compensate"))]
#[x_kube(validation = Rule::new("has(self.steps) || !has(self.order)").message("order needs steps").field_path(".order"))]
#[x_kube(validation = Rule::new("!has(self.steps) || (!has(self.retry) && !has(self.sensitive) && !has(self.outputSecret))").message("retry, sensitive and outputSecret can't be said of steps: say them of the steps in it"))]
#[x_kube(validation = Rule::new("has(self.forEach) || (!has(self.maxParallel) && !has(self.maxFailures))").message("maxParallel and maxFailures need forEach"))]
#[x_kube(validation = Rule::new("!has(self.local) || has(self.http) || has(self.kubernetes)").message("can only be said of an http or kubernetes step").field_path(".local"))]
#[x_kube(validation = Rule::new("!has(self.local) || !self.local || !has(self.idempotent) || self.idempotent").message("a step that is not idempotent can't be local").field_path(".local"))]
#[x_kube(validation = Rule::new("!has(self.idempotent) || has(self.http)").message("can only be said of an http step").field_path(".idempotent"))]
#[x_kube(validation = Rule::new("!has(self.timeouts) || !has(self.timeouts.heartbeat) || (has(self.http) && has(self.http.async) && self.http.async)").message("can only be said of an http step with async: true").field_path(".timeouts.heartbeat"))]
#[x_kube(validation = Rule::new("!has(self.local) || !self.local || !has(self.http) || !has(self.http.async) || !self.http.async").message("a step that is completed by a callback can't be local").field_path(".local"))]
pub struct Step {
    /// The step's name, by which expressions read its output: `steps.<name>.output`. A letter in lower case, then up
    /// to 39 letters and digits.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z][a-zA-Z0-9]{0,39}$"))]
    pub name: String,

    /// The step is skipped unless this expression is true. A skipped step has no output, and what needs it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression")]
    pub when: Option<String>,

    /// Steps that must have ended before this one starts, beyond those that `order` and expressions imply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 40)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub needs: Vec<String>,

    /// What is recorded of the step's result, under the names given: values with `${...}` templates that may read
    /// `result`. Only what is named here is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub output: Option<Map<String, Value>>,

    /// Writes parts of the result into a Secret in place of the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_secret: Option<OutputSecret>,

    /// Nothing that the other side answers is recorded, not even in the message of a failure: only `output` and the
    /// status code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitive: Option<bool>,

    /// False says that the call may not be made twice: after an attempt whose outcome is unknown, the step waits for a
    /// person. Default: true, the other side knows an `Idempotency-Key` or the call can be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,

    /// How the step is retried; what is absent here is taken from the operation's `retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,

    /// How long the step and its attempts may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,

    /// True for a call that is cheap and can be repeated: its start is not recorded for itself, its result with the next
    /// thing that is, nor is the start of an operation that begins with it. After a crash before that it is made again,
    /// under the same idempotency key. One that takes longer than two seconds is recorded as any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,

    /// What the operation does when the step fails for good. `Fail` (the default): it ends as its `failurePolicy` says.
    /// `Continue`: it goes on; `steps.<name>.state` and `steps.<name>.failure` tell what follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,

    /// How the step is undone, once it was done, when the operation fails with the `failurePolicy` `Compensate`, or is
    /// cancelled with the `mode` `Compensate`. May read the step's own output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub compensate: Option<Box<Compensate>>,

    /// Runs the step for each item of this list: an expression. The step reads `item` and `index`; its output, as
    /// `steps.<name>.output.items`, is the list of the items' outputs in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression")]
    pub for_each: Option<String>,

    /// How many items are under way at once. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_parallel: Option<i32>,

    /// How many items may fail before the step does. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_failures: Option<i32>,

    /// Calls an HTTP service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Box<Http>>,

    /// Reads, changes or waits for Kubernetes objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Box<Kubernetes>>,

    /// Runs a container to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<Job>>,

    /// Runs another operation to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Box<ChildOperation>>,

    /// Runs these steps, as one: it has ended once they have. Beside `when`, `needs` and `onFailure`, which are about all of
    /// them, `forEach` runs them for each item of a list. They are named `<name>/<step>` and read each other by name; what
    /// `output` names of them is the group's. With `forEach`, the others read that alone; without, also the steps themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "any_list")]
    pub steps: Vec<Step>,

    /// In which order the steps of a group run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,

    /// Waits for a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Box<Wait>>,

    /// Waits for a signal: an OperationAction that somebody sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<Box<Signal>>,

    /// Waits until somebody approves or rejects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Box<Approval>>,

    /// Computes values, with `${...}` templates: they become the step's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub set: Option<Map<String, Value>>,

    /// Fails the operation unless this expression is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression")]
    pub assert: Option<String>,
}

/// How a failed attempt is retried, in Temporal's terms.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// The wait before the second attempt. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_interval: Option<Duration>,

    /// By what each wait is longer than the one before it: at least 1. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1.0, max = 100.0))]
    pub backoff_coefficient: Option<f64>,

    /// The longest wait. Default: 100 times the initial one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_interval: Option<Duration>,

    /// How many attempts are made at most; 0 (the default): as many as fit in `timeouts.scheduleToClose`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub maximum_attempts: Option<i32>,

    /// Reasons of failure that are not retried, such as `AccessDenied`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub non_retryable_errors: Vec<String>,
}

/// How long a step may take, in Temporal's terms.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// One attempt, from its start; of an `http` step with `async`, until it is answered. Default: 1m for calls; none for
    /// a `job` and for waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_to_close: Option<Duration>,

    /// All attempts and the waits between them. Default: 2h for `http` and `kubernetes`, so that a cause can be fixed
    /// while users see a slow operation in place of a failed one; none for `job`, `wait` and `kubernetes.wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_to_close: Option<Duration>,

    /// Of an `http` step with `async`: how long the other side may be silent, from the attempt's start or its last
    /// heartbeat. Then the attempt has failed (`HeartbeatTimeout`), and another follows under the same key. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Duration>,
}

/// A Secret that takes parts of a result.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputSecret {
    /// The Secret's name, in the operation's namespace; may have `${...}` templates, and for each item of a list has one.
    /// It is applied as the operation's service account and owned by the operation. What was in it before is replaced.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The Secret's keys and, as `${...}` templates that may read `result`, their values.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32))]
    pub data: BTreeMap<String, String>,
}

/// Another operation, run to its end: a CloudOperation of its own, created as the operation's service account. Its
/// output is the step's result; its failure, cancel or timeout the step's failure.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.templateRef) != has(self.spec)").message("operation has exactly one of templateRef, spec"))]
pub struct ChildOperation {
    /// The OperationTemplate that it runs, in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<TemplateRef>,

    /// What it runs: a spec as a CloudOperation has it, taken as it is. Its own expressions read its own input and steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub spec: Option<Map<String, Value>>,

    /// What it works on: values with `${...}` templates, which read what the step may.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "any_object")]
    pub input: Map<String, Value>,

    /// The service account as which its steps act. Default: this operation's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,

    /// What becomes of it when this operation is cancelled or times out while it runs. Default: `Cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_close_policy: Option<ParentClosePolicy>,
}

/// What becomes of an operation that runs for a step when the step is ended before its time. `Cancel` (the default): it is
/// cancelled, and its end waited for. `Wait`: it goes on, and its end is waited for. `Abandon`: it goes on by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ParentClosePolicy {
    /// It is cancelled, and its end is waited for.
    #[default]
    Cancel,
    /// It goes on by itself, also when this operation is deleted.
    Abandon,
    /// It goes on, and its end is waited for.
    Wait,
}

/// A wait for a time.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.duration) != has(self.untilTime)").message("wait has exactly one of duration, untilTime"))]
pub struct Wait {
    /// How long, from the step's start: a duration such as `90s`, or a `${...}` template that gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.contains('${') || self.matches('^([0-9]{1,9}([.][0-9]{1,9})?(ns|us|ms|s|m|h))+$')").message("must be a duration such as 500ms, 30s, 5m or 24h (hours are the largest unit), or a ${...} template"))]
    pub duration: Option<String>,

    /// Until when: a time such as `2026-11-24T03:00:00Z`, or a `${...}` template that gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.contains('${') || self.matches('^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}')").message("must be a time such as 2026-11-24T03:00:00Z, or a ${...} template"))]
    pub until_time: Option<String>,
}

/// What follows when the step fails for good. `Fail` (the default): what its operation's `failurePolicy` says. `Continue`:
/// the operation goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// It ends as its `failurePolicy` says.
    #[default]
    Fail,
    /// It goes on.
    Continue,
}

/// How a step is undone. Exactly one of `http`, `kubernetes` and `job`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compensate {
    /// How it is retried; what is absent here is taken from the operation's `retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How long it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// False says that the call may not be made twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    /// Nothing that the other side answers is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitive: Option<bool>,
    /// Calls an HTTP service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Box<Http>>,
    /// Changes Kubernetes objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Box<Kubernetes>>,
    /// Runs a container to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<Job>>,
}

/// A wait for a signal. One that was sent before the step waits counts, too. `timeouts.scheduleToClose` limits the wait.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signal {
    /// The signal's name. Default: the step's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,

    /// The JSON schema of its payload: a signal that conforms to that of no step that may still take it is rejected as it
    /// arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub schema: Option<Map<String, Value>>,

    /// The payload that stands in for a signal that didn't come in time. If absent, the step then ends as `TimedOut`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub default: Option<Map<String, Value>>,
}

/// A wait for somebody's word. One that was given before the step waits counts, too. A rejection fails the step.
/// `timeouts.scheduleToClose` limits the wait.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// What is to be approved, for who is asked: a text with `${...}` templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,

    /// The users who may approve or reject. If this and `groups` are absent: whoever may create `cloudoperations/approve`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub users: Vec<String>,

    /// The groups whose members may approve or reject.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub groups: Vec<String>,

    /// True: who created the operation may not approve it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_requester: Option<bool>,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum StepType {
    /// Calls an HTTP service.
    Http,
    /// Reads, changes or waits for Kubernetes objects.
    Kubernetes,
    /// Runs a container to its end.
    Job,
    /// Waits for a time.
    Wait,
    /// Computes values.
    Set,
    /// Fails the operation unless something is true.
    Assert,
    /// Waits for a signal.
    Signal,
    /// Waits for somebody's word.
    Approval,
    /// Runs another operation to its end.
    Operation,
    /// Runs steps, as one.
    Steps,
}

impl StepType {
    /// True where an attempt only starts something that then goes on by itself.
    pub fn goes_on_by_itself(self) -> bool {
        matches!(self, Self::Job | Self::Operation)
    }
}

impl Compensate {
    /// The step that undoes.
    pub fn step(&self, name: String) -> Step {
        let Self {
            retry,
            timeouts,
            idempotent,
            sensitive,
            http,
            kubernetes,
            job,
        } = self.clone();
        Step {
            name,
            retry,
            timeouts,
            idempotent,
            sensitive,
            http,
            kubernetes,
            job,
            ..Step::default()
        }
    }
}

impl Step {
    /// What the step does. The schema lets exactly one be given; `None` is an object that got past it.
    pub fn step_type(&self) -> Option<StepType> {
        let types = [
            (self.http.is_some(), StepType::Http),
            (self.kubernetes.is_some(), StepType::Kubernetes),
            (self.job.is_some(), StepType::Job),
            (self.wait.is_some(), StepType::Wait),
            (self.set.is_some(), StepType::Set),
            (self.assert.is_some(), StepType::Assert),
            (self.signal.is_some(), StepType::Signal),
            (self.approval.is_some(), StepType::Approval),
            (self.operation.is_some(), StepType::Operation),
            (!self.steps.is_empty(), StepType::Steps),
        ];
        let mut given = types
            .into_iter()
            .filter_map(|(given, step_type)| given.then_some(step_type));
        given.next().filter(|_| given.next().is_none())
    }

    /// True where the other side may answer that it will call back.
    pub fn is_async(&self) -> bool {
        self.http.as_ref().is_some_and(|http| http.asynchronous == Some(true))
    }

    /// True where the step only waits for objects, without an effect of its own.
    pub fn is_kubernetes_wait(&self) -> bool {
        self.kubernetes
            .as_ref()
            .is_some_and(|kubernetes| kubernetes.wait.is_some())
    }
}
