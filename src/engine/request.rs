//! What a step asks for, and what is recorded of the answer: templates filled in from what the step may read.

use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::expression::{self, Scope};
use super::workflow::{InvalidSpec, Workflow, WorkflowStep, input, join_conditions, split_conditions};
use super::{IdempotencyKey, Identity};
use crate::api::{CloudOperationSpec, OperationStatus, StepState, StepStatus, Time};

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

/// What the expressions of a step may read: `input`, `operation`, and of `steps` its ancestors.
pub fn scope(
    workflow: &Workflow,
    step: &WorkflowStep,
    identity: &Identity,
    spec: &CloudOperationSpec,
    status: &OperationStatus,
) -> Scope {
    let steps = step.ancestors.iter().filter_map(|i| {
        let name = &workflow.steps[*i].name;
        status.steps.iter().find(|s| &s.name == name)
    });
    base_scope(identity, spec, steps)
}

/// What the operation's `output` may read: all steps.
pub(super) fn final_scope(identity: &Identity, spec: &CloudOperationSpec, status: &OperationStatus) -> Scope {
    base_scope(identity, spec, status.steps.iter())
}

fn base_scope<'a>(
    identity: &Identity,
    spec: &CloudOperationSpec,
    steps: impl Iterator<Item = &'a StepStatus>,
) -> Scope {
    let mut read = Map::new();
    for step in steps {
        let mut entry = Map::new();
        entry.insert("state".into(), json!(step.state));
        if step.state == StepState::Succeeded {
            entry.insert("output".into(), Value::Object(step.output.clone().unwrap_or_default()));
        }
        read.insert(step.name.clone(), Value::Object(entry));
    }
    Scope::default()
        .with("input", Value::Object(input(spec)))
        .with("steps", Value::Object(read))
        .with(
            "operation",
            json!({"name": identity.name, "namespace": identity.namespace, "uid": identity.uid}),
        )
}

/// Fills in a step's request. Its digest covers the condition fields too.
///
/// # Errors
/// A template that can't be evaluated, by its field.
pub fn request(
    i: usize,
    step: &WorkflowStep,
    scope: &Scope,
    key: &IdempotencyKey,
) -> Result<Request, ExpressionFailure> {
    let scope = scope.clone().with("step", json!({"idempotencyKey": key.to_string()}));
    let (templates, conditions) = split_conditions(&step.request);
    let field = format!("spec.steps[{i}].{}", field_name(step));
    let rendered = expression::render(&templates, &scope).map_err(|error| ExpressionFailure {
        field: format!("{field}.{}", error.field),
        message: error.error.to_string(),
    })?;
    let value = join_conditions(rendered, conditions);
    let digest = digest(&value);
    Ok(Request { value, digest })
}

fn field_name(step: &WorkflowStep) -> String {
    format!("{:?}", step.step_type).to_lowercase()
}

/// What is recorded of a result: the step's `output`, or nothing.
///
/// # Errors
/// A template that can't be evaluated, or an output that is too large.
pub fn output(
    i: usize,
    templates: Option<&Map<String, Value>>,
    scope: &Scope,
    result: &Value,
    attempt: i64,
    key: &IdempotencyKey,
) -> Result<Option<Map<String, Value>>, ExpressionFailure> {
    let Some(templates) = templates else { return Ok(None) };
    let scope = result_scope(scope, result, attempt, key);
    let field = format!("spec.steps[{i}].output");
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
pub(super) fn digest(value: &Value) -> String {
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
