//! What a step asks for, and what is recorded of the answer: templates filled in from what the step may read.

use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::expression::{self, Expression, Scope};
use super::workflow::{
    InvalidSpec, Role, Workflow, WorkflowStep, group_name, input, join_conditions, member_name, split_conditions,
    split_item,
};
use super::{IdempotencyKey, Identity};
use crate::api::{CloudOperationSpec, Failure, Items, OperationState, OperationStatus, StepState, StepStatus, Time};

/// The largest output of one step, in bytes of JSON.
pub const MAX_STEP_OUTPUT: usize = 16 * 1024;
/// The largest outputs of all steps of an operation together, and its own: with them a status stays below 128 KiB.
pub const MAX_OUTPUTS: usize = 32 * 1024;

/// An expression that could not be evaluated: terminal, as another attempt would evaluate it to the same.
pub type ExpressionFailure = InvalidSpec;

/// A request ready to be sent: every template filled in.
#[derive(Clone, Debug)]
pub struct Request {
    /// The step type's fields, as in the spec.
    pub value: Value,
    /// What `value` digests to. Secrets are only referred to in it.
    pub digest: String,
    /// The name of the Secret that takes parts of the result, if one does.
    pub secret_name: Option<String>,
}

/// What the expressions of a step may read: `input`, `operation`, of `steps` its ancestors, and of a list its item.
///
/// # Errors
/// A `forEach` that can't be evaluated, which it could when the step started.
pub fn scope(
    workflow: &Workflow,
    step: &WorkflowStep,
    name: &str,
    identity: &Identity,
    spec: &CloudOperationSpec,
    status: &OperationStatus,
) -> Result<Scope, ExpressionFailure> {
    let scope = scope_of_all(workflow, step, name, identity, spec, status)?;
    match split_item(name).1 {
        Some(index) => with_item(step, scope, index),
        None => Ok(scope),
    }
}

/// What a step's `when` and `forEach` may read.
///
/// # Errors
/// The `forEach` of its group can't be evaluated, which it could when the group started.
pub(super) fn scope_of_all(
    workflow: &Workflow,
    step: &WorkflowStep,
    name: &str,
    identity: &Identity,
    spec: &CloudOperationSpec,
    status: &OperationStatus,
) -> Result<Scope, ExpressionFailure> {
    let ancestors = step.ancestors.iter().map(|i| &workflow.steps[*i]);
    let scope = base_scope(
        identity,
        spec,
        ancestors.map(|read| (read.spec.name.as_str(), entry(status, &beside(name, step, read)))),
    );
    if let Some(group) = workflow.group(step)
        && let Some(index) = group_name(name).and_then(|group| split_item(group).1)
    {
        return with_item(group, scope, index);
    }
    if step.role != Role::Finally {
        return Ok(scope);
    }
    let failure = status.failure.as_ref();
    let state = failure.map_or(OperationState::Succeeded, failed_state);
    Ok(scope.with(
        "operation",
        json!({"name": identity.name, "namespace": identity.namespace, "uid": identity.uid, "state": state, "failure": failure}),
    ))
}

/// A step's entry in the journal.
pub(super) fn entry<'s>(status: &'s OperationStatus, name: &str) -> Option<&'s StepStatus> {
    status.steps.iter().find(|step| step.name == name)
}

/// The entry that a step reads: in a group that runs for each item, that of the same item.
fn beside(name: &str, step: &WorkflowStep, read: &WorkflowStep) -> String {
    match group_name(name) {
        Some(group) if step.group.is_some() && step.group == read.group => member_name(group, &read.spec.name),
        _ => read.name.clone(),
    }
}

/// A scope with an item of a step's list, if it has one.
fn with_item(step: &WorkflowStep, scope: Scope, index: usize) -> Result<Scope, ExpressionFailure> {
    let Some(for_each) = &step.for_each else {
        return Ok(scope);
    };
    let item = items(step, for_each, &scope)?
        .into_iter()
        .nth(index)
        .unwrap_or_default();
    Ok(scope.with("item", item).with("index", json!(index)))
}

/// What is recorded of a group, or of one item of it, once its steps have ended.
///
/// # Errors
/// A template that can't be evaluated, by its field.
pub(super) fn group_output(
    workflow: &Workflow,
    group: &WorkflowStep,
    name: &str,
    identity: &Identity,
    spec: &CloudOperationSpec,
    status: &OperationStatus,
) -> Result<Option<Map<String, Value>>, ExpressionFailure> {
    let Some(output) = &group.spec.output else {
        return Ok(None);
    };
    let members = workflow.steps[group.members.clone()].iter();
    let members = members.map(|read| {
        (
            read.spec.name.as_str(),
            entry(status, &member_name(name, &read.spec.name)),
        )
    });
    let outer = group.ancestors.iter().map(|i| &workflow.steps[*i]);
    let outer = outer.map(|read| (read.spec.name.as_str(), entry(status, &read.name)));
    let mut scope = base_scope(identity, spec, outer.chain(members));
    if let Some(index) = split_item(name).1 {
        scope = with_item(group, scope, index)?;
    }
    match expression::render(&Value::Object(output.clone()), &scope) {
        Ok(Value::Object(output)) => Ok(Some(output)),
        Ok(_) => Ok(None), // not reached: an object renders to an object
        Err(error) => Err(ExpressionFailure {
            field: format!("{}.output.{}", group.field, error.field),
            message: error.error.to_string(),
        }),
    }
}

/// The list of a `forEach`.
pub(super) fn items(
    step: &WorkflowStep,
    for_each: &Expression,
    scope: &Scope,
) -> Result<Vec<Value>, ExpressionFailure> {
    let failed = |message: String| ExpressionFailure {
        field: format!("{}.forEach", step.field),
        message,
    };
    match for_each.evaluate(scope) {
        Ok(Value::Array(items)) if items.len() <= MAX_ITEMS => Ok(items),
        Ok(Value::Array(items)) => Err(failed(format!("it has {} items: {MAX_ITEMS} at most", items.len()))),
        Ok(other) => Err(failed(format!("a list is needed, not {other}"))),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// How many items a `forEach` may have.
pub const MAX_ITEMS: usize = 10_000;

/// How an operation ends that failed so.
pub(super) fn failed_state(failure: &Failure) -> OperationState {
    match (&failure.step, failure.reason.as_str()) {
        (None, CANCELLED) => OperationState::Cancelled,
        (None, TIMED_OUT) => OperationState::TimedOut,
        _ => OperationState::Failed,
    }
}

/// The reason of what a timeout ended.
pub(super) const TIMED_OUT: &str = "TimedOut";
/// The reason of what a cancel ended.
pub(super) const CANCELLED: &str = "Cancelled";

/// What the operation's `output` may read: all steps.
pub(super) fn final_scope<'s>(identity: &Identity, spec: &CloudOperationSpec, status: &'s OperationStatus) -> Scope {
    let named = |step: &'s StepStatus| {
        let name = step.name.rsplit_once('/').map_or(step.name.as_str(), |(_, name)| name);
        (name, Some(step))
    };
    let of_items = |step: &&StepStatus| step.name.contains('[');
    base_scope(
        identity,
        spec,
        status.steps.iter().filter(|step| !of_items(step)).map(named),
    )
}

fn base_scope<'a>(
    identity: &Identity,
    spec: &CloudOperationSpec,
    steps: impl Iterator<Item = (&'a str, Option<&'a StepStatus>)>,
) -> Scope {
    let mut read = Map::new();
    for (name, step) in steps {
        let mut entry = Map::new();
        entry.insert(
            "state".into(),
            step.map_or_else(|| json!("NotStarted"), |step| json!(step.state)),
        );
        let output = step.and_then(|step| step.output.clone().or_else(|| partial(step.items.as_ref()?)));
        if output.is_some() || step.is_some_and(|step| step.state == StepState::Succeeded) {
            entry.insert("output".into(), Value::Object(output.unwrap_or_default()));
        }
        if let Some(failure) = step
            .and_then(|step| step.failure.as_ref())
            .filter(|_| step.is_some_and(|step| step.state.is_closed()))
        {
            entry.insert("failure".into(), json!(failure));
        }
        read.insert(name.to_owned(), Value::Object(entry));
    }
    Scope::default()
        .with("input", Value::Object(input(spec)))
        .with("steps", Value::Object(read))
        .with(
            "operation",
            json!({"name": identity.name, "namespace": identity.namespace, "uid": identity.uid}),
        )
}

/// The outputs of a list that isn't through, for who undoes it.
fn partial(list: &Items) -> Option<Map<String, Value>> {
    let item = |index: i64| list.outputs.get(&index.to_string()).cloned().unwrap_or_default();
    let items = (0..list.total).map(item).collect();
    (!list.outputs.is_empty()).then(|| Map::from_iter([("items".to_owned(), Value::Array(items))]))
}

/// Fills in a step's request. Its digest covers the condition fields too.
///
/// # Errors
/// A template that can't be evaluated, by its field.
pub fn request(step: &WorkflowStep, scope: &Scope, key: &IdempotencyKey) -> Result<Request, ExpressionFailure> {
    let scope = scope.clone().with("step", json!({"idempotencyKey": key.to_string()}));
    let (templates, conditions) = split_conditions(&step.request);
    let field = format!("{}.{}", step.field, field_name(step));
    let rendered = expression::render(&templates, &scope).map_err(|error| ExpressionFailure {
        field: format!("{field}.{}", error.field),
        message: error.error.to_string(),
    })?;
    let value = join_conditions(rendered, conditions);
    let digest = digest(&value);
    let secret_name = secret_name(step, &scope)?;
    let mut request = Request {
        value,
        digest,
        secret_name,
    };
    // What a child runs is taken as it is. The digest need not cover it: it is the spec's, which can't change.
    let child = step.spec.operation.as_ref().and_then(|child| child.spec.clone());
    if let (Some(child), Value::Object(value)) = (child, &mut request.value) {
        value.insert("spec".into(), Value::Object(child));
    }
    Ok(request)
}

/// The name of the Secret that takes parts of the result. It is known, and right, before there is one.
fn secret_name(step: &WorkflowStep, scope: &Scope) -> Result<Option<String>, ExpressionFailure> {
    let Some(secret) = &step.spec.output_secret else {
        return Ok(None);
    };
    let failed = |message| ExpressionFailure {
        field: format!("{}.outputSecret.name", step.field),
        message,
    };
    match expression::render(&json!(secret.name), scope) {
        Ok(Value::String(name)) if is_object_name(&name) => Ok(Some(name)),
        Ok(Value::String(name)) => Err(failed(not_a_name(&name))),
        Ok(other) => Err(failed(not_a_name(&other.to_string()))),
        Err(error) => Err(failed(error.error.to_string())),
    }
}

/// True for what the API server takes as the name of an object: a DNS subdomain as in RFC 1123.
pub(super) fn is_object_name(name: &str) -> bool {
    let of_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.starts_with(of_label) && label.ends_with(of_label) && label.chars().all(|c| of_label(c) || c == '-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

pub(super) fn not_a_name(name: &str) -> String {
    format!("{name:?} is no name of an object: lower case letters, digits, - and . are, 253 at most")
}

fn field_name(step: &WorkflowStep) -> String {
    format!("{:?}", step.step_type).to_lowercase()
}

/// What is recorded of a result: the step's `output`, or nothing.
///
/// # Errors
/// A template that can't be evaluated, or an output that is too large.
pub fn output(
    step: &str,
    templates: Option<&Map<String, Value>>,
    scope: &Scope,
    result: &Value,
    attempt: i64,
    key: &IdempotencyKey,
) -> Result<Option<Map<String, Value>>, ExpressionFailure> {
    let Some(templates) = templates else { return Ok(None) };
    let scope = result_scope(scope, result, attempt, key);
    let field = format!("{step}.output");
    match expression::render(&Value::Object(templates.clone()), &scope) {
        Ok(Value::Object(output)) => Ok(Some(output)),
        Ok(_) => Ok(None), // not reached: an object renders to an object
        Err(error) => Err(ExpressionFailure {
            field: format!("{field}.{}", error.field),
            message: error.error.to_string(),
        }),
    }
}

/// What `output` and `outputSecret` may read.
pub fn result_scope(scope: &Scope, result: &Value, attempt: i64, key: &IdempotencyKey) -> Scope {
    scope
        .clone()
        .with("result", result.clone())
        .with("step", json!({"idempotencyKey": key.to_string(), "attempt": attempt}))
}

/// How deep a spec or an output may be nested. Parsers of JSON have limits, too: what is read back must be what was written.
pub const MAX_DEPTH: usize = 64;

/// How deep a value is nested: 0 for a scalar, 1 for a list of scalars.
pub(super) fn depth<'a>(values: impl Iterator<Item = &'a Value>) -> usize {
    let mut level: Vec<&Value> = values.collect();
    let mut depth = 0;
    while !level.is_empty() {
        depth += 1;
        level = level
            .into_iter()
            .flat_map(|value| -> Box<dyn Iterator<Item = &Value>> {
                match value {
                    Value::Object(map) => Box::new(map.values()),
                    Value::Array(list) => Box::new(list.iter()),
                    _ => Box::new(std::iter::empty()),
                }
            })
            .collect();
    }
    depth
}

/// How many bytes a value takes as JSON.
pub(super) fn json_size(value: &impl Serialize) -> usize {
    serde_json::to_string(value).map_or(usize::MAX, |text| text.len())
}

/// A short SHA-256 over the canonical JSON of a value (keys sorted, as serde_json's maps are).
pub fn digest(value: &Value) -> String {
    let mut text = String::from("sha256:");
    for byte in &Sha256::digest(value.to_string().as_bytes())[..16] {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A time as people write it: RFC 3339.
///
/// # Errors
/// Says how to write it.
pub(super) fn parse_time(text: &str) -> Result<Time, String> {
    text.parse::<Timestamp>()
        .map(Time::new)
        .map_err(|_| format!("{text:?} is not a time: write it as 2026-11-24T03:00:00Z"))
}
