//! A spec made ready to run: expressions parsed, dependencies resolved, everything that can be known to be wrong refused
//! before any effect.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Identity;
use super::expression::{self, Expression, References, Scope};
use super::request::{MAX_DEPTH, depth};
use super::retry::RetryPolicy;
use crate::api::{CloudOperationSpec, Concurrency, Duration, Order, Step, StepType};

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

    /// The name of the signal that it waits for, if it does.
    pub fn signal(&self) -> Option<&str> {
        let signal = self.spec.signal.as_ref()?;
        Some(signal.name.as_deref().unwrap_or(&self.spec.name))
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
        .and_then(|name| name.rsplit_once('['))
        .and_then(|(step, index)| Some((step, index.parse().ok()?)));
    item.map_or((name, None), |(step, index)| (step, Some(index)))
}

/// The path of a step in a group, or in one item of it.
pub fn member_name(group: &str, step: &str) -> String {
    format!("{group}/{step}")
}

/// The group that a step is in, or the item of one: by their paths.
pub fn group_name(step: &str) -> Option<&str> {
    step.rsplit_once('/').map(|(group, _)| group)
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
        if spec.steps.is_empty() {
            return Err(InvalidSpec::new(
                "spec.steps",
                "there is nothing to do: at least one step is needed",
            ));
        }
        let places = places(spec)?;
        let index = places
            .iter()
            .enumerate()
            .map(|(i, place)| (place.step.name.as_str(), i))
            .collect();
        let compiler = Compiler {
            spec,
            places: &places,
            index,
        };
        let main = spec.steps.len();
        let finally = main..main + spec.finally.len();

        let mut steps = compiler.main()?;
        for (i, step) in steps.iter().enumerate() {
            if let Some(later) = step.needs.iter().find(|n| finally.contains(n)) {
                let later = &places[*later].step.name;
                let message = format!("it can't need or read {later:?}, which is in spec.finally and runs at the end");
                return Err(InvalidSpec::new(&places[i].field, message));
            }
        }
        resolve_ancestors(&mut steps)?;
        for i in finally.clone() {
            steps.push(compiler.at_the_end(i, main)?);
        }
        for i in finally.end..places.len() {
            steps.push(compiler.member(i, &steps)?);
        }
        resolve_members(&mut steps)?;
        for i in (0..steps.len()).filter(|i| !finally.contains(i)) {
            let Some(undo) = compiler.undo(i, &steps[i])? else {
                continue;
            };
            steps[i].undo = Some(steps.len());
            steps.push(undo);
        }
        if let Some(concurrency) = &spec.concurrency {
            compiler.condition("spec.concurrency.key", &concurrency.key, &["input", "operation"])?;
        }
        let output = spec.output.clone().map(Value::Object);
        if let Some(output) = &output {
            let found = compiler.templates("spec.output", output, STEP_SCOPE)?;
            compiler.readable("spec.output", &compiler.steps_read("spec.output", &found)?, None)?;
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

/// Where a step stands in a spec.
struct Place<'a> {
    step: &'a Step,
    field: String,
    group: Option<usize>,
}

/// Every step of a spec but those that undo, in the order of [`Workflow::steps`].
fn places(spec: &CloudOperationSpec) -> Result<Vec<Place<'_>>, InvalidSpec> {
    let place = |step, field, group| Place { step, field, group };
    let steps = spec.steps.iter().enumerate();
    let main = steps
        .clone()
        .map(|(i, step)| place(step, format!("spec.steps[{i}]"), None));
    let finally = spec.finally.iter().enumerate();
    let finally = finally.map(|(i, step)| place(step, format!("spec.finally[{i}]"), None));
    let members = steps.flat_map(|(i, group)| {
        let steps = group.steps.iter().enumerate();
        steps.map(move |(j, step)| place(step, format!("spec.steps[{i}].steps[{j}]"), Some(i)))
    });
    let mut names = BTreeSet::new();
    let mut places = Vec::new();
    for place in main.chain(finally).chain(members) {
        let name = &place.step.name;
        let wrong = if expression::is_cel_word(name) {
            format!("{name:?} is a reserved word")
        } else if !names.insert(name) {
            format!("a step named {name:?} exists already")
        } else {
            places.push(place);
            continue;
        };
        return Err(InvalidSpec::new(format!("{}.name", place.field), wrong));
    }
    let nested = places
        .iter()
        .enumerate()
        .find(|(i, place)| *i >= spec.steps.len() && !place.step.steps.is_empty());
    match nested {
        Some((_, place)) => {
            let message = "steps can be in a step of spec.steps alone; use operation for more levels";
            Err(InvalidSpec::new(format!("{}.steps", place.field), message))
        }
        None => Ok(places),
    }
}

struct Compiler<'a> {
    spec: &'a CloudOperationSpec,
    places: &'a [Place<'a>],
    index: BTreeMap<&'a str, usize>,
}

impl Compiler<'_> {
    /// The steps of `spec.steps`. What those in a group need of others, the group needs.
    fn main(&self) -> Result<Vec<WorkflowStep>, InvalidSpec> {
        let mut steps = Vec::with_capacity(self.places.len());
        let mut first = self.spec.steps.len() + self.spec.finally.len();
        for (i, step) in self.spec.steps.iter().enumerate() {
            let mut needs = BTreeSet::new();
            if self.spec.order.unwrap_or_default() == Order::Sequence && i > 0 {
                needs.insert(i - 1);
            }
            let mut compiled = self.step(i, Role::Main, step, needs)?;
            compiled.members = first..first + step.steps.len();
            first = compiled.members.end;
            for member in compiled.members.clone() {
                let reads = self
                    .step(member, Role::Main, self.places[member].step, BTreeSet::new())?
                    .needs;
                compiled
                    .needs
                    .extend(reads.difference(&compiled.members.clone().collect()));
            }
            let field = &self.places[i].field;
            self.readable(field, &compiled.needs, Some(i))?;
            if compiled.needs.contains(&i) {
                return Err(InvalidSpec::new(
                    field,
                    format!("step {:?} can't need or read itself", step.name),
                ));
            }
            compiled.needs = compiled
                .needs
                .iter()
                .map(|n| self.places[*n].group.unwrap_or(*n))
                .collect();
            compiled.needs.remove(&i); // what the output of a group reads of it
            steps.push(compiled);
        }
        Ok(steps)
    }

    /// A step of `spec.finally`.
    fn at_the_end(&self, own: usize, main: usize) -> Result<WorkflowStep, InvalidSpec> {
        let Place { step, field, .. } = &self.places[own];
        let mut compiled = self.step(own, Role::Finally, step, BTreeSet::new())?;
        self.readable(field, &compiled.needs, None)?;
        let later = |n: &&usize| **n >= own && self.places[**n].group.is_none();
        if let Some(later) = compiled.needs.iter().find(later) {
            let later = &self.places[*later].step.name;
            return Err(InvalidSpec::new(
                field,
                format!("it can't read {later:?}, which comes later"),
            ));
        }
        compiled.needs = (main..own).collect();
        compiled.ancestors = (0..own).collect();
        Ok(compiled)
    }

    /// A step in a group.
    fn member(&self, own: usize, steps: &[WorkflowStep]) -> Result<WorkflowStep, InvalidSpec> {
        let Place { step, field, group } = &self.places[own];
        let Some(group) = group.and_then(|group| steps.get(group)) else {
            return Err(InvalidSpec::new(field, "it is in no group")); // not reached
        };
        if group.for_each.is_some() {
            for (given, name) in [
                (step.for_each.is_some(), "forEach"),
                (step.compensate.is_some(), "compensate"),
            ] {
                if given {
                    let message = format!(
                        "can't be said of a step that runs for each item: {}",
                        if name == "forEach" {
                            "use operation for a list in a list"
                        } else {
                            "say it of the group"
                        }
                    );
                    return Err(InvalidSpec::new(format!("{field}.{name}"), message));
                }
            }
        }
        let mut needs = BTreeSet::new();
        if group.spec.order.unwrap_or_default() == Order::Sequence && own > group.members.start {
            needs.insert(own - 1);
        }
        let mut compiled = self.step(own, Role::Main, step, needs)?;
        compiled.needs.retain(|n| group.members.contains(n));
        compiled.name = member_name(&group.name, &step.name);
        Ok(compiled)
    }

    /// The step that undoes another, if it says how.
    fn undo(&self, of: usize, step: &WorkflowStep) -> Result<Option<WorkflowStep>, InvalidSpec> {
        let Some(compensate) = &step.spec.compensate else {
            return Ok(None);
        };
        let mut undo = compensate.step(undo_name(&step.name));
        if step.for_each.is_some() {
            // Each item that was done is undone, one after the other.
            undo.for_each.clone_from(&step.spec.for_each);
            undo.max_parallel = Some(1);
        }
        let mut readable = step.ancestors.clone();
        readable.insert(of);
        let mut compiled = self.step(of, Role::Undo(of), &undo, BTreeSet::new())?;
        let field = format!("{}.compensate", step.field);
        if let Some(other) = compiled.needs.difference(&readable).next() {
            let other = &self.places[*other].step.name;
            let message = format!("it can read only the step itself and what that needs, not {other:?}");
            return Err(InvalidSpec::new(field, message));
        }
        compiled.needs = BTreeSet::new();
        compiled.ancestors = readable;
        compiled.field = field;
        Ok(Some(compiled))
    }

    /// Checks that steps can be read by one that isn't in their group: what runs for each item is read as the group's output.
    fn readable(&self, field: &str, read: &BTreeSet<usize>, by: Option<usize>) -> Result<(), InvalidSpec> {
        let hidden = read.iter().find(|n| {
            let group = self.places[**n].group.filter(|group| Some(*group) != by);
            group.is_some_and(|group| self.places[group].step.for_each.is_some())
        });
        match hidden.and_then(|n| Some((&self.places[*n].step.name, self.places[self.places[*n].group?].step))) {
            None => Ok(()),
            Some((name, Step { name: group, .. })) => Err(InvalidSpec::new(
                field,
                format!(
                    "step {name:?} runs for each item: read steps.{group}.output.items, and name in the output of {group} what they are to have"
                ),
            )),
        }
    }

    /// A step by itself. Its `needs` are all that it names or reads.
    fn step(
        &self,
        place: usize,
        role: Role,
        step: &Step,
        mut needs: BTreeSet<usize>,
    ) -> Result<WorkflowStep, InvalidSpec> {
        let own = match role {
            Role::Undo(_) => format!("{}.compensate", self.places[place].field),
            _ => self.places[place].field.clone(),
        };
        let at = |field: &str| format!("{own}.{field}");
        let step_type = step.step_type().ok_or_else(|| {
            InvalidSpec::new(
                own.clone(),
                "a step has exactly one of http, kubernetes, job, operation, steps, wait, signal, approval, set, assert",
            )
        })?;
        let mut scope = STEP_SCOPE.to_vec();
        let group = self.places[place].group;
        let of_items = group.is_some_and(|group| self.places[group].step.for_each.is_some());
        if of_items {
            scope.extend(["item", "index"]);
        }
        let before = scope.clone();
        if step.for_each.is_some() && !of_items {
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
        let for_each = condition("forEach", &step.for_each, &before)?;
        let when = condition("when", &step.when, &before)?;
        let assert = condition("assert", &step.assert, &scope)?;
        for (field, expression) in [("forEach", &for_each), ("when", &when), ("assert", &assert)] {
            if let Some(expression) = expression {
                let found = expression.references();
                if let Some(inner) = found
                    .steps
                    .iter()
                    .find(|name| step.steps.iter().any(|s| s.name == **name))
                {
                    let message = format!("it can't read {inner:?}, which is in the group and runs later");
                    return Err(InvalidSpec::new(at(field), message));
                }
                reads(field, &found)?;
            }
        }
        let (field, request) = request_of(step, step_type);
        self.check_wait(&own, step)?;
        check_child(&own, step)?;
        check_group(&own, step, self.spec)?;
        reads(field, &self.request(&at(field), &request, &scope)?)?;
        if step_type != StepType::Steps {
            scope.extend(["step", "result"]);
        }
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
        if role != Role::Undo(place) && needs.contains(&place) {
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
            group: group.filter(|_| role == Role::Main),
            members: 0..0,
            retry: RetryPolicy::new(step.retry.as_ref(), self.spec.retry.as_ref()),
            request,
            assert,
            schema: schema.transpose()?,
            field: own,
        })
    }

    fn known_step(&self, field: &str, name: &str) -> Result<usize, InvalidSpec> {
        self.index.get(name).copied().ok_or_else(|| {
            let names: Vec<&str> = self.places.iter().map(|place| place.step.name.as_str()).collect();
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

/// Checks what is said of a group that only its steps can have.
fn check_group(own: &str, step: &Step, spec: &CloudOperationSpec) -> Result<(), InvalidSpec> {
    if step.steps.is_empty() {
        return Ok(());
    }
    let start_to_close = step
        .timeouts
        .as_ref()
        .is_some_and(|timeouts| timeouts.start_to_close.is_some());
    for (given, field) in [
        (step.retry.is_some(), "retry"),
        (start_to_close, "timeouts.startToClose"),
        (step.idempotent.is_some(), "idempotent"),
        (step.sensitive.is_some(), "sensitive"),
        (step.output_secret.is_some(), "outputSecret"),
        (step.local.is_some(), "local"),
        (step.compensate.is_some() && step.for_each.is_none(), "compensate"),
    ] {
        if given {
            let message = "can't be said of steps: say it of the steps in it";
            return Err(InvalidSpec::new(format!("{own}.{field}"), message));
        }
    }
    let most = spec.steps.iter().map(|step| step.steps.len().max(1)).sum::<usize>();
    if most > MAX_STEPS {
        let message = format!("spec.steps has {most} steps with those of groups: {MAX_STEPS} at most");
        return Err(InvalidSpec::new(format!("{own}.steps"), message));
    }
    Ok(())
}

/// How many steps an operation has at most, those of groups among them: all of them fit into a status.
const MAX_STEPS: usize = 200;

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

/// Fills in the ancestors of steps in groups, and lets who reads a group read them.
fn resolve_members(steps: &mut [WorkflowStep]) -> Result<(), InvalidSpec> {
    let groups: Vec<usize> = (0..steps.len()).filter(|i| !steps[*i].members.is_empty()).collect();
    for group in &groups {
        let members = steps[*group].members.clone();
        let mut done = BTreeSet::new();
        while done.len() < members.len() {
            let Some(i) = members
                .clone()
                .find(|i| !done.contains(i) && steps[*i].needs.is_subset(&done))
            else {
                let stuck: Vec<&str> = members
                    .filter(|i| !done.contains(i))
                    .map(|i| steps[i].name.as_str())
                    .collect();
                let message = format!(
                    "these steps wait for each other, or for one that does: {}",
                    stuck.join(", ")
                );
                return Err(InvalidSpec::new(format!("{}.steps", steps[*group].field), message));
            };
            let before = steps[i]
                .needs
                .iter()
                .flat_map(|n| steps[*n].ancestors.iter().copied().chain([*n]));
            steps[i].ancestors = before.chain(steps[*group].ancestors.iter().copied()).collect();
            done.insert(i);
        }
    }
    for group in groups {
        if steps[group].for_each.is_some() {
            continue;
        }
        let members = steps[group].members.clone();
        for step in steps.iter_mut().filter(|step| step.ancestors.contains(&group)) {
            step.ancestors.extend(members.clone());
        }
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
