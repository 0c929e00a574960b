//! What a step asks for, and what is recorded of the answer: templates filled in from what the step may read.

use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::expression::{self, Expression, Scope};
use super::workflow::{
    InvalidSpec, Role, Workflow, WorkflowStep, input, join_conditions, split_conditions, split_item,
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
    let scope = scope_of_all(workflow, step, identity, spec, status);
    let (Some(for_each), (_, Some(index))) = (&step.for_each, split_item(name)) else {
        return Ok(scope);
    };
    let items = items(step, for_each, &scope)?;
    let item = items.into_iter().nth(index).unwrap_or_default();
    Ok(scope.with("item", item).with("index", json!(index)))
}

/// What a step's `when` and `forEach` may read.
pub(super) fn scope_of_all(
    workflow: &Workflow,
    step: &WorkflowStep,
    identity: &Identity,
    spec: &CloudOperationSpec,
    status: &OperationStatus,
) -> Scope {
    let entries = step.ancestors.iter().map(|i| {
        let name = &workflow.steps[*i].name;
        (name.as_str(), status.steps.iter().find(|s| &s.name == name))
    });
    let scope = base_scope(identity, spec, entries);
    if step.role != Role::Finally {
        return scope;
    }
    let failure = status.failure.as_ref();
    let state = failure.map_or(OperationState::Succeeded, failed_state);
    scope.with(
        "operation",
        json!({"name": identity.name, "namespace": identity.namespace, "uid": identity.uid, "state": state, "failure": failure}),
    )
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
pub(super) fn final_scope(identity: &Identity, spec: &CloudOperationSpec, status: &OperationStatus) -> Scope {
    base_scope(
        identity,
        spec,
        status.steps.iter().map(|step| (step.name.as_str(), Some(step))),
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
    let mut request = Request { value, digest };
    // What a child runs is taken as it is. The digest need not cover it: it is the spec's, which can't change.
    let child = step.spec.operation.as_ref().and_then(|child| child.spec.clone());
    if let (Some(child), Value::Object(value)) = (child, &mut request.value) {
        value.insert("spec".into(), Value::Object(child));
    }
    Ok(request)
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
pub(super) fn json_size(map: &Map<String, Value>) -> usize {
    serde_json::to_string(map).map_or(usize::MAX, |text| text.len())
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
