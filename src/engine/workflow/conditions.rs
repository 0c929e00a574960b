//! A step's request as the spec has it: templates, and the conditions among them that an activity evaluates.

use serde::Serialize;
use serde_json::Value;

use crate::api::{Step, StepType};

/// The fields of a request that hold an expression of their own, which an activity evaluates: they are not templates.
/// With what each may read beside the step's usual scope.
const CONDITION_FIELDS: &[(&[&str], &str)] = &[
    (&["success"], "result"),
    (&["wait", "until"], "object"),
    (&["wait", "failWhen"], "object"),
];

/// The part of a step that says what it does, and that field's name.
pub(super) fn request_of(step: &Step, step_type: StepType) -> (&'static str, Value) {
    match step_type {
        StepType::Http => ("http", to_value(&step.http)),
        StepType::Kubernetes => ("kubernetes", to_value(&step.kubernetes)),
        StepType::Job => ("job", to_value(&step.job)),
        StepType::Wait => ("wait", to_value(&step.wait)),
        StepType::Set => ("set", to_value(&step.set)),
        StepType::Assert => ("assert", Value::Null), // an expression, not a template
        StepType::Steps => ("steps", Value::Null),   // they are steps of their own
        StepType::Signal => ("signal", Value::Null), // its schema and default are taken as they are
        StepType::Approval => ("approval", to_value(&step.approval)),
        StepType::Operation => {
            let mut child = to_value(&step.operation);
            if let Value::Object(child) = &mut child {
                child.remove("spec"); // its expressions are its own
            }
            ("operation", child)
        }
    }
}

pub(super) fn to_value(value: &impl Serialize) -> Value {
    // Can't fail: these types have string keys alone and come from JSON.
    serde_json::to_value(value).unwrap_or_default()
}

pub(in crate::engine) type Condition = (&'static [&'static str], &'static str, String);

/// A request without its condition fields, and these: each with its path and what it reads.
pub(in crate::engine) fn split_conditions(request: &Value) -> (Value, Vec<Condition>) {
    let mut templates = request.clone();
    let mut conditions = Vec::new();
    for (path, root) in CONDITION_FIELDS {
        if let Some(Value::String(source)) = take(&mut templates, path) {
            conditions.push((*path, *root, source));
        }
    }
    (templates, conditions)
}

/// Puts condition fields back where they were.
pub(in crate::engine) fn join_conditions(mut request: Value, conditions: Vec<Condition>) -> Value {
    for (path, _, source) in conditions {
        if let Some((last, parents)) = path.split_last()
            && let Some(Value::Object(map)) = parents.iter().try_fold(&mut request, |value, key| value.get_mut(*key))
        {
            map.insert((*last).to_owned(), Value::String(source));
        }
    }
    request
}

fn take(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    parents
        .iter()
        .try_fold(value, |value, key| value.get_mut(*key))?
        .as_object_mut()?
        .remove(*last)
}
