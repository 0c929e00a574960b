//! A spec made ready to run: expressions parsed, dependencies resolved, everything that can be known to be wrong refused
//! before any effect.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use super::expression::{self, Expression, References};
use super::request::{MAX_DEPTH, depth};
use super::retry::RetryPolicy;
use crate::api::{CloudOperationSpec, Duration, Order, Step, StepType};

/// A workflow that can be decided on.
#[derive(Debug)]
pub struct Workflow {
    /// The steps of the spec in their order, then those of `finally`, then those that undo.
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
    /// Its name; that of a step that undoes is [`undo_name`].
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
    /// The step that undoes it.
    pub undo: Option<usize>,
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

    /// The name of the signal that it waits for, if it does.
    pub fn signal(&self) -> Option<&str> {
        let signal = self.spec.signal.as_ref()?;
        Some(signal.name.as_deref().unwrap_or(&self.name))
    }
}

/// The name in the journal of the step that undoes this one.
pub fn undo_name(step: &str) -> String {
    format!("{step}:undo")
}

/// The name in the journal of one item of a step with `forEach`.
pub fn item_name(step: &str, index: usize) -> String {
    format!("{step}[{index}]")
}

/// The name without the number of an item, and that number.
pub fn split_item(name: &str) -> (&str, Option<usize>) {
    let item = name
        .strip_suffix(']')
        .and_then(|name| name.split_once('['))
        .and_then(|(step, index)| Some((step, index.parse().ok()?)));
    item.map_or((name, None), |(step, index)| (step, Some(index)))
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

/// The fields of a request that hold an expression of their own, which an activity evaluates: they are not templates.
/// With what each may read beside the step's usual scope.
const CONDITION_FIELDS: &[(&[&str], &str)] = &[
    (&["success"], "result"),
    (&["wait", "until"], "object"),
    (&["wait", "failWhen"], "object"),
];

/// What an expression of a step may read: what a request sends, it must send again.
const STEP_SCOPE: &[&str] = &["input", "steps", "operation"];

impl Workflow {
    /// Compiles a spec.
    ///
    /// # Errors
    /// The first thing that can't be executed, by its field.
    pub fn compile(spec: &CloudOperationSpec) -> Result<Self, InvalidSpec> {
        if depth(std::iter::once(&to_value(spec))) > MAX_DEPTH {
            return Err(InvalidSpec::new(
                "spec",
                format!("it is nested more than {MAX_DEPTH} levels deep"),
            ));
        }
        let mut index = BTreeMap::new();
        for (i, step) in spec.steps.iter().enumerate() {
            if expression::is_cel_word(&step.name) {
                return Err(InvalidSpec::new(
                    format!("spec.steps[{i}].name"),
                    format!("{:?} is a reserved word", step.name),
                ));
            }
            if index.insert(step.name.as_str(), i).is_some() {
                return Err(InvalidSpec::new(
                    format!("spec.steps[{i}].name"),
                    format!("a step named {:?} exists already", step.name),
                ));
            }
        }
        if spec.steps.is_empty() {
            return Err(InvalidSpec::new(
                "spec.steps",
                "there is nothing to do: at least one step is needed",
            ));
        }
        let main = spec.steps.len();
        for (i, step) in spec.finally.iter().enumerate() {
            if index.insert(step.name.as_str(), main + i).is_some() {
                return Err(InvalidSpec::new(
                    format!("spec.finally[{i}].name"),
                    format!("a step named {:?} exists already", step.name),
                ));
            }
        }
        let compiler = Compiler { spec, index: &index };
        let mut steps = Vec::with_capacity(spec.steps.len());
        for (i, step) in spec.steps.iter().enumerate() {
            let mut needs = BTreeSet::new();
            if spec.order.unwrap_or_default() == Order::Sequence && i > 0 {
                needs.insert(i - 1);
            }
            let compiled = compiler.step(format!("spec.steps[{i}]"), Role::Main, step, needs)?;
            if let Some(later) = compiled.needs.iter().find(|n| **n >= main) {
                let later = &spec.finally[later - main].name;
                let message = format!("it can't need or read {later:?}, which is in spec.finally and runs at the end");
                return Err(InvalidSpec::new(compiled.field, message));
            }
            steps.push(compiled);
        }
        resolve_ancestors(&mut steps)?;
        for (i, step) in spec.finally.iter().enumerate() {
            let field = format!("spec.finally[{i}]");
            let mut compiled = compiler.step(field, Role::Finally, step, BTreeSet::new())?;
            let own = main + i;
            if let Some(later) = compiled.needs.iter().find(|n| **n >= own) {
                let later = &spec.finally[later - main].name;
                return Err(InvalidSpec::new(
                    compiled.field,
                    format!("it can't read {later:?}, which comes later"),
                ));
            }
            compiled.needs = (main..own).collect();
            compiled.ancestors = (0..own).collect();
            steps.push(compiled);
        }
        for i in 0..main {
            let Some(compensate) = &spec.steps[i].compensate else {
                continue;
            };
            let field = format!("spec.steps[{i}].compensate");
            let mut step = compensate.step(undo_name(&spec.steps[i].name));
            if spec.steps[i].for_each.is_some() {
                // Each item that was done is undone, one after the other.
                step.for_each.clone_from(&spec.steps[i].for_each);
                step.max_parallel = Some(1);
            }
            let mut readable = steps[i].ancestors.clone();
            readable.insert(i);
            let mut compiled = compiler.step(field, Role::Undo(i), &step, BTreeSet::new())?;
            if let Some(other) = compiled.needs.difference(&readable).next() {
                let (field, other) = (compiled.field, &steps[*other].name);
                let message = format!("it can read only the step itself and what that needs, not {other:?}");
                return Err(InvalidSpec::new(field, message));
            }
            compiled.needs = BTreeSet::new();
            compiled.ancestors = readable;
            steps[i].undo = Some(steps.len());
            steps.push(compiled);
        }
        let output = spec.output.clone().map(Value::Object);
        if let Some(output) = &output {
            let found = compiler.templates("spec.output", output, STEP_SCOPE)?;
            compiler.steps_read("spec.output", &found)?;
        }
        let index = steps
            .iter()
            .enumerate()
            .map(|(i, step)| (step.name.clone(), i))
            .collect();
        Ok(Self {
            steps,
            total: main,
            output,
            index,
        })
    }

    /// The step that an entry of the journal with this name is about.
    pub fn step(&self, name: &str) -> Option<&WorkflowStep> {
        let i = self.index.get(name).or_else(|| self.index.get(split_item(name).0))?;
        Some(&self.steps[*i])
    }
}

struct Compiler<'a> {
    spec: &'a CloudOperationSpec,
    index: &'a BTreeMap<&'a str, usize>,
}

impl Compiler<'_> {
    fn step(
        &self,
        own: String,
        role: Role,
        step: &Step,
        mut needs: BTreeSet<usize>,
    ) -> Result<WorkflowStep, InvalidSpec> {
        let at = |field: &str| format!("{own}.{field}");
        let step_type = step.step_type().ok_or_else(|| {
            InvalidSpec::new(
                own.clone(),
                "a step has exactly one of http, kubernetes, job, operation, wait, signal, approval, set, assert",
            )
        })?;
        let mut scope = STEP_SCOPE.to_vec();
        if step.for_each.is_some() {
            scope.extend(["item", "index"]);
        }
        for (n, name) in step.needs.iter().enumerate() {
            needs.insert(self.known_step(&at(&format!("needs[{n}]")), name)?);
        }
        let mut reads = |field: &str, found: &References| {
            needs.extend(self.steps_read(&at(field), found)?);
            Ok(())
        };

        let condition = |field: &str, source: &Option<String>, scope: &[&str]| {
            let parsed = source
                .as_deref()
                .map(|source| self.condition(&at(field), source, scope));
            parsed.transpose()
        };
        let for_each = condition("forEach", &step.for_each, STEP_SCOPE)?;
        let when = condition("when", &step.when, STEP_SCOPE)?;
        let assert = condition("assert", &step.assert, &scope)?;
        for (field, expression) in [("forEach", &for_each), ("when", &when), ("assert", &assert)] {
            if let Some(expression) = expression {
                reads(field, &expression.references())?;
            }
        }
        let (field, request) = request_of(step, step_type);
        self.check_wait(&own, step)?;
        check_async(&own, step)?;
        check_child(&own, step)?;
        reads(field, &self.request(&at(field), &request, &scope)?)?;
        scope.extend(["step", "result"]);
        if let Some(output) = &step.output {
            reads(
                "output",
                &self.templates(&at("output"), &Value::Object(output.clone()), &scope)?,
            )?;
        }
        if let Some(secret) = &step.output_secret {
            reads(
                "outputSecret",
                &self.templates(&at("outputSecret"), &to_value(secret), &scope)?,
            )?;
        }
        if self.index.get(&*step.name).is_some_and(|own| needs.contains(own)) {
            return Err(InvalidSpec::new(
                at("needs"),
                format!("step {:?} can't need or read itself", step.name),
            ));
        }
        let schema = step.signal.as_ref().and_then(|signal| signal.schema.clone());
        let schema = schema.map(|schema| {
            jsonschema::options()
                .with_pattern_options(jsonschema::PatternOptions::regex()) // linear in time
                .build(&Value::Object(schema))
                .map_err(|error| InvalidSpec::new(at("signal.schema"), error))
        });
        Ok(WorkflowStep {
            name: step.name.clone(),
            role,
            spec: step.clone(),
            step_type,
            when,
            for_each,
            needs,
            ancestors: BTreeSet::new(),
            undo: None,
            retry: RetryPolicy::new(step.retry.as_ref(), self.spec.retry.as_ref()),
            request,
            assert,
            schema: schema.transpose()?,
            field: own,
        })
    }

    fn known_step(&self, field: &str, name: &str) -> Result<usize, InvalidSpec> {
        self.index.get(name).copied().ok_or_else(|| {
            let steps = self.spec.steps.iter().chain(&self.spec.finally);
            let names: Vec<&str> = steps.map(|s| s.name.as_str()).collect();
            InvalidSpec::new(
                field,
                format!("there is no step named {name:?}; there are {}", names.join(", ")),
            )
        })
    }

    fn steps_read(&self, field: &str, found: &References) -> Result<BTreeSet<usize>, InvalidSpec> {
        if found.dynamic_steps {
            return Err(InvalidSpec::new(
                field,
                "steps can only be read by name, as steps.<name>: what a step reads must be known before it starts",
            ));
        }
        found.steps.iter().map(|name| self.known_step(field, name)).collect()
    }

    fn in_scope(&self, field: &str, found: &References, scope: &[&str]) -> Result<(), InvalidSpec> {
        match found.roots.iter().find(|root| !scope.contains(&root.as_str())) {
            None => Ok(()),
            Some(root) => Err(InvalidSpec::new(
                field,
                format!("{root:?} is not defined here; there are {}", scope.join(", ")),
            )),
        }
    }

    fn condition(&self, field: &str, source: &str, scope: &[&str]) -> Result<Expression, InvalidSpec> {
        let parsed = Expression::parse(source).map_err(|error| InvalidSpec::new(field, error))?;
        self.in_scope(field, &parsed.references(), scope)?;
        Ok(parsed)
    }

    /// Checks every template in a value, each under its own field.
    fn templates(&self, field: &str, value: &Value, scope: &[&str]) -> Result<References, InvalidSpec> {
        let mut all = References::default();
        let mut leaves = vec![(field.to_owned(), value)];
        while let Some((field, value)) = leaves.pop() {
            match value {
                Value::Object(map) => leaves.extend(map.iter().map(|(key, value)| (join(&field, key), value))),
                Value::Array(list) => {
                    leaves.extend(
                        list.iter()
                            .enumerate()
                            .map(|(i, value)| (format!("{field}[{i}]"), value)),
                    );
                }
                Value::String(_) => {
                    let found =
                        expression::references_in(value).map_err(|error| InvalidSpec::new(&field, error.error))?;
                    self.in_scope(&field, &found, scope)?;
                    self.steps_read(&field, &found)?;
                    all.steps.extend(found.steps);
                }
                _ => {}
            }
        }
        Ok(all)
    }

    /// Checks the request's templates, and its condition fields apart from them.
    fn request(&self, field: &str, request: &Value, may_read: &[&str]) -> Result<References, InvalidSpec> {
        let (templates, conditions) = split_conditions(request);
        let mut scope = may_read.to_vec();
        scope.push("step");
        let mut found = self.templates(field, &templates, &scope)?;
        for (path, root, source) in conditions {
            let field = join(field, &path.join("."));
            let mut scope = may_read.to_vec();
            scope.push(root);
            let references = self.condition(&field, &source, &scope)?.references();
            found
                .steps
                .extend(self.steps_read(&field, &references).map(|_| references.steps)?);
        }
        Ok(found)
    }

    fn check_wait(&self, own: &str, step: &Step) -> Result<(), InvalidSpec> {
        let Some(wait) = &step.wait else { return Ok(()) };
        if let Some(duration) = wait.duration.as_deref().filter(|d| !d.contains("${")) {
            duration
                .parse::<Duration>()
                .map_err(|e| InvalidSpec::new(format!("{own}.wait.duration"), e))?;
        }
        if let Some(time) = wait.until_time.as_deref().filter(|t| !t.contains("${")) {
            super::request::parse_time(time).map_err(|e| InvalidSpec::new(format!("{own}.wait.untilTime"), e))?;
        }
        Ok(())
    }
}

/// Checks what the schema can't see of a `compensate`, and does of a step.
fn check_async(own: &str, step: &Step) -> Result<(), InvalidSpec> {
    let heartbeat = step
        .timeouts
        .as_ref()
        .is_some_and(|timeouts| timeouts.heartbeat.is_some());
    if heartbeat && !step.is_async() {
        let message = "can only be said of an http step with async: true";
        return Err(InvalidSpec::new(format!("{own}.timeouts.heartbeat"), message));
    }
    if step.is_async() && step.local == Some(true) {
        let message = "a step that is completed by a callback can't be local";
        return Err(InvalidSpec::new(format!("{own}.local"), message));
    }
    Ok(())
}

/// Checks what a child is to run.
fn check_child(own: &str, step: &Step) -> Result<(), InvalidSpec> {
    let Some(spec) = step.operation.as_ref().and_then(|child| child.spec.as_ref()) else {
        return Ok(());
    };
    let field = format!("{own}.operation.spec");
    let spec: CloudOperationSpec =
        serde_json::from_value(Value::Object(spec.clone())).map_err(|error| InvalidSpec::new(&field, error))?;
    for (given, name, why) in [
        (
            spec.ttl_seconds_after_finished.is_some(),
            "ttlSecondsAfterFinished",
            "it goes with its parent",
        ),
        (!spec.input.is_empty(), "input", "say it in operation.input"),
        (
            spec.template_ref.is_some(),
            "templateRef",
            "say it in operation.templateRef",
        ),
        (
            spec.service_account_name.is_some(),
            "serviceAccountName",
            "say it in operation.serviceAccountName",
        ),
    ] {
        if given {
            return Err(InvalidSpec::new(
                format!("{field}.{name}"),
                format!("can't be given here: {why}"),
            ));
        }
    }
    Workflow::compile(&spec)
        .map(|_| ())
        .map_err(|InvalidSpec { field: inner, message }| {
            let inner = inner.strip_prefix("spec").unwrap_or(&inner);
            InvalidSpec::new(format!("{field}{inner}"), message)
        })
}

/// The part of a step that says what it does, and that field's name.
fn request_of(step: &Step, step_type: StepType) -> (&'static str, Value) {
    match step_type {
        StepType::Http => ("http", to_value(&step.http)),
        StepType::Kubernetes => ("kubernetes", to_value(&step.kubernetes)),
        StepType::Job => ("job", to_value(&step.job)),
        StepType::Wait => ("wait", to_value(&step.wait)),
        StepType::Set => ("set", to_value(&step.set)),
        StepType::Assert => ("assert", Value::Null), // an expression, not a template
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

fn to_value(value: &impl Serialize) -> Value {
    // Can't fail: these types have string keys alone and come from JSON.
    serde_json::to_value(value).unwrap_or_default()
}

type Condition = (&'static [&'static str], &'static str, String);

/// A request without its condition fields, and these: each with its path and what it reads.
pub(super) fn split_conditions(request: &Value) -> (Value, Vec<Condition>) {
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
pub(super) fn join_conditions(mut request: Value, conditions: Vec<Condition>) -> Value {
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

fn join(field: &str, rest: &str) -> String {
    match rest {
        "" => field.to_owned(),
        rest if rest.starts_with('[') => format!("{field}{rest}"),
        rest => format!("{field}.{rest}"),
    }
}

/// Fills in the transitive closure of `needs`, and refuses cycles.
fn resolve_ancestors(steps: &mut [WorkflowStep]) -> Result<(), InvalidSpec> {
    let mut done: BTreeSet<usize> = BTreeSet::new();
    while done.len() < steps.len() {
        let Some(i) = (0..steps.len()).find(|i| !done.contains(i) && steps[*i].needs.is_subset(&done)) else {
            let stuck: Vec<&str> = (0..steps.len())
                .filter(|i| !done.contains(i))
                .map(|i| steps[i].name.as_str())
                .collect();
            return Err(InvalidSpec::new(
                "spec.steps",
                format!(
                    "these steps wait for each other, or for one that does: {} (see needs, and what their expressions read)",
                    stuck.join(", ")
                ),
            ));
        };
        let ancestors = steps[i]
            .needs
            .iter()
            .flat_map(|n| steps[*n].ancestors.iter().copied().chain([*n]))
            .collect();
        steps[i].ancestors = ancestors;
        done.insert(i);
    }
    Ok(())
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
