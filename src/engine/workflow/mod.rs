//! A spec made ready to run: expressions parsed, dependencies resolved, everything that can be known to be wrong refused
//! before any effect.

mod checks;
mod compile;
mod conditions;
mod expressions;
mod names;
mod order;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::{Map, Value, json};

use self::conditions::to_value;
pub(super) use self::conditions::{join_conditions, split_conditions};
pub use self::names::{group_name, item_name, member_name, split_item, undo_name, wholes};
use super::Identity;
use super::expression::{Expression, Scope};
use super::retry::RetryPolicy;
use crate::api::{CloudOperationSpec, Concurrency, Step, StepType};

/// A workflow that can be decided on.
#[derive(Debug)]
pub struct Workflow {
    /// The steps of the spec in their order, then those of `finally`, then those of groups, then those that undo.
    pub steps: Vec<WorkflowStep>,
    /// How many of them are the spec's `steps`.
    pub total: usize,
    /// What the operation answers.
    pub output: Option<Value>,
    index: BTreeMap<String, usize>,
}

/// A step that can be decided on.
#[derive(Debug)]
pub struct WorkflowStep {
    /// Its path: its name; `<group>/<name>` of one in a group; of a step that undoes, [`undo_name`].
    pub name: String,
    /// Its field, as a path from the object's root: `spec.steps[2]`.
    pub field: String,
    /// When its turn comes.
    pub role: Role,
    /// It, as the spec has it.
    pub spec: Step,
    /// What it does.
    pub step_type: StepType,
    /// Its `when`.
    pub when: Option<Expression>,
    /// Its `forEach`.
    pub for_each: Option<Expression>,
    /// The steps, by index, that must have ended before it starts.
    pub needs: BTreeSet<usize>,
    /// All steps that its expressions may read: what it needs, and what that needs.
    pub ancestors: BTreeSet<usize>,
    /// True if an expression of another reads it, or that of a step that undoes it.
    pub is_read: bool,
    /// The step that undoes it.
    pub undo: Option<usize>,
    /// The group that it is in.
    pub group: Option<usize>,
    /// The steps of the group that it is.
    pub members: Range<usize>,
    /// Its retry policy.
    pub retry: RetryPolicy,
    /// The request as the spec has it, with its templates.
    pub request: Value,
    /// Its `assert`.
    pub assert: Option<Expression>,
    /// What the payload of its signal must conform to.
    pub schema: Option<jsonschema::Validator>,
}

/// When a step's turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// As soon as what it needs has ended.
    Main,
    /// At the end, whatever happened.
    Finally,
    /// When the step with this index is to be undone.
    Undo(usize),
}

impl WorkflowStep {
    /// True if something of it is evaluated after its request: an output, or a condition that an activity checks.
    pub fn reads_later(&self) -> bool {
        let conditions = !split_conditions(&self.request).1.is_empty();
        conditions || self.spec.output.is_some() || self.spec.output_secret.is_some()
    }

    /// True if what it answers goes somewhere: not only that it succeeded counts.
    pub fn result_counts(&self) -> bool {
        self.is_read || self.spec.output.is_some() || self.spec.output_secret.is_some()
    }

    /// The name of the signal that it waits for, if it does.
    pub fn signal(&self) -> Option<&str> {
        let signal = self.spec.signal.as_ref()?;
        Some(signal.name.as_deref().unwrap_or(&self.spec.name))
    }

    /// Why a payload can't be that of its signal, if it can't.
    pub fn refuses_signal(&self, payload: &Map<String, Value>) -> Option<String> {
        let payload = Value::Object(payload.clone());
        let error = self.schema.as_ref()?.iter_errors(&payload).next()?;
        let field = error.instance_path().to_string().replace('/', ".");
        Some(format!(
            "payload{field} doesn't conform to {}.signal.schema: {error}",
            self.field
        ))
    }
}

/// Why a spec can't be executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidSpec {
    /// The field, as a path from the object's root: `spec.steps[2].http.url`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl InvalidSpec {
    fn new(field: impl Into<String>, message: impl ToString) -> Self {
        Self {
            field: field.into(),
            message: message.to_string(),
        }
    }
}

impl Workflow {
    /// The step that an entry of the journal with this name is about.
    pub fn step(&self, name: &str) -> Option<&WorkflowStep> {
        if let Some(i) = self.index.get(name) {
            return Some(&self.steps[*i]);
        }
        let (name, _) = split_item(name);
        let path = match name.rsplit_once('/') {
            Some((group, member)) => &member_name(split_item(group).0, member),
            None => name,
        };
        Some(&self.steps[*self.index.get(path)?])
    }

    /// The steps that run as soon as what they need has ended, those of groups among them, with their indices.
    pub fn main(&self) -> impl Iterator<Item = (usize, &WorkflowStep)> {
        let steps = self.steps.iter().enumerate();
        steps.filter(|(_, step)| step.role == Role::Main)
    }

    /// The group that a step is in.
    pub fn group(&self, step: &WorkflowStep) -> Option<&WorkflowStep> {
        step.group.map(|group| &self.steps[group])
    }
}

/// The key of an operation that excludes others, from the input that it says itself.
///
/// # Errors
/// An expression that can't be evaluated, or doesn't give a text.
pub fn concurrency_key(
    concurrency: &Concurrency,
    input: &Map<String, Value>,
    identity: &Identity,
) -> Result<String, InvalidSpec> {
    let failed = |message: String| InvalidSpec::new("spec.concurrency.key", message);
    let scope = Scope::default().with("input", Value::Object(input.clone())).with(
        "operation",
        json!({"name": identity.name, "namespace": identity.namespace, "uid": identity.uid}),
    );
    let key = Expression::parse(&concurrency.key).and_then(|key| key.evaluate(&scope));
    match key.map_err(|error| failed(error.to_string()))? {
        Value::String(key) if key.is_empty() => Err(failed("it gives an empty text".into())),
        Value::String(key) if key.len() > 1024 => Err(failed("it gives a text of more than 1,024 bytes".into())),
        Value::String(key) => Ok(key),
        other => Err(failed(format!("a text is needed, not {other}: use string()"))),
    }
}

/// The digest of a spec, control fields left out: what an operation runs can't be changed under it.
pub fn spec_digest(spec: &CloudOperationSpec) -> String {
    let mut value = to_value(spec);
    if let Value::Object(map) = &mut value {
        for control in ["suspend", "cancel", "ttlSecondsAfterFinished"] {
            map.remove(control);
        }
    }
    super::request::digest(&value)
}

/// `input` as expressions read it.
pub(super) fn input(spec: &CloudOperationSpec) -> Map<String, Value> {
    spec.input.clone()
}
