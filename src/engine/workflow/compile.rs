//! From a spec to a workflow: each step by itself, then how they depend on each other.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::checks::{check_async, check_child, check_group, check_no_secret_is_read, check_secret_name, check_wait};
use super::conditions::{request_of, to_value};
use super::expressions::STEP_SCOPE;
use super::names::{member_name, undo_name};
use super::order::{resolve_ancestors, resolve_members};
use super::{InvalidSpec, Role, Workflow, WorkflowStep};
use crate::api::{CloudOperationSpec, Order, Step, StepType};
use crate::engine::expression;
use crate::engine::request::{MAX_DEPTH, depth, json_size};
use crate::engine::retry::RetryPolicy;

/// How large an operation's input may be, and all that it says, as JSON, in bytes.
const MAX_INPUT: usize = 128 * 1024;
const MAX_SPEC: usize = 512 * 1024;

impl Workflow {
    /// Compiles a spec.
    ///
    /// # Errors
    /// The first thing that can't be executed, by its field.
    pub fn compile(spec: &CloudOperationSpec) -> Result<Self, InvalidSpec> {
        Self::compile_all(spec).map_err(|mut invalid| invalid.swap_remove(0)) // there is one, or it would be no error
    }

    /// Compiles a spec.
    ///
    /// # Errors
    /// All that can't be executed, each by its field, as far as one doesn't hide another: what [`Workflow::compile`] says
    /// comes first.
    pub fn compile_all(spec: &CloudOperationSpec) -> Result<Self, Vec<InvalidSpec>> {
        let alone = |invalid| vec![invalid];
        if depth(std::iter::once(&to_value(spec))) > MAX_DEPTH {
            let message = format!("it is nested more than {MAX_DEPTH} levels deep");
            return Err(alone(InvalidSpec::new("spec", message)));
        }
        // With its status, an operation has room among what a cluster's store takes as one object.
        for (field, size, most) in [
            ("spec.input", json_size(&spec.input), MAX_INPUT),
            ("spec", json_size(spec), MAX_SPEC),
        ] {
            if size > most {
                let message = format!("it has {size} bytes as JSON: {most} at most; refer to what is large by name");
                return Err(alone(InvalidSpec::new(field, message)));
            }
        }
        if spec.steps.is_empty() {
            let message = "there is nothing to do: at least one step is needed";
            return Err(alone(InvalidSpec::new("spec.steps", message)));
        }
        let places = places(spec).map_err(alone)?;
        let index = places
            .iter()
            .enumerate()
            .map(|(i, place)| (place.step.name.as_str(), i))
            .collect();
        let compiler = Compiler {
            spec,
            places: &places,
            index,
            read: RefCell::default(),
            invalid: RefCell::default(),
        };
        let main = spec.steps.len();
        let finally = main..main + spec.finally.len();

        let mut steps = compiler.main();
        for (i, step) in steps.iter_mut().enumerate() {
            if let Some(later) = step.needs.iter().find(|n| finally.contains(n)) {
                let later = &places[*later].step.name;
                let message = format!("it can't need or read {later:?}, which is in spec.finally and runs at the end");
                compiler.refuse(&places[i].field, message);
            }
            step.needs.retain(|n| !finally.contains(n));
        }
        compiler.note(resolve_ancestors(&mut steps));
        for i in finally.clone() {
            steps.push(compiler.at_the_end(i, main));
        }
        for i in finally.end..places.len() {
            steps.push(compiler.member(i, &steps));
        }
        compiler.note(resolve_members(&mut steps));
        for i in (0..steps.len()).filter(|i| !finally.contains(i)) {
            let Some(undo) = compiler.undo(i, &steps[i]) else {
                continue;
            };
            steps[i].undo = Some(steps.len());
            steps.push(undo);
        }
        if let Some(concurrency) = &spec.concurrency {
            compiler.condition("spec.concurrency.key", &concurrency.key, &["input", "operation"]);
        }
        let output = spec.output.clone().map(Value::Object);
        if let Some(output) = &output {
            let read = compiler.templates("spec.output", output, STEP_SCOPE);
            compiler.readable("spec.output", &read, None);
        }
        for read in compiler.read.into_inner() {
            if let Some(step) = steps.get_mut(read) {
                step.is_read = true;
            }
        }
        let invalid = compiler.invalid.into_inner();
        if !invalid.is_empty() {
            return Err(invalid);
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
}

/// Where a step stands in a spec.
pub(super) struct Place<'a> {
    pub step: &'a Step,
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

/// A spec under compilation.
pub(super) struct Compiler<'a> {
    spec: &'a CloudOperationSpec,
    pub places: &'a [Place<'a>],
    pub index: BTreeMap<&'a str, usize>,
    /// The steps that some expression reads.
    pub read: RefCell<BTreeSet<usize>>,
    /// What can't be executed. It is noted, and stands for nothing from there on, so that what else is wrong is found.
    invalid: RefCell<Vec<InvalidSpec>>,
}

impl Compiler<'_> {
    /// Notes what can't be executed.
    pub fn refuse(&self, field: impl Into<String>, message: impl ToString) {
        self.note::<()>(Err(InvalidSpec::new(field, message)));
    }

    /// What it is, or nothing, which is noted.
    pub fn note<T>(&self, outcome: Result<T, InvalidSpec>) -> Option<T> {
        outcome.map_err(|invalid| self.note_all([invalid])).ok()
    }

    fn note_all(&self, found: impl IntoIterator<Item = InvalidSpec>) {
        let mut invalid = self.invalid.borrow_mut();
        for found in found {
            // A step in a group is looked at twice.
            if !invalid.contains(&found) {
                invalid.push(found);
            }
        }
    }

    /// The steps of `spec.steps`. What those in a group need of others, the group needs.
    fn main(&self) -> Vec<WorkflowStep> {
        let mut steps = Vec::with_capacity(self.places.len());
        let mut first = self.spec.steps.len() + self.spec.finally.len();
        for (i, step) in self.spec.steps.iter().enumerate() {
            let mut needs = BTreeSet::new();
            if self.spec.order.unwrap_or_default() == Order::Sequence && i > 0 {
                needs.insert(i - 1);
            }
            let mut compiled = self.step(i, Role::Main, step, needs);
            compiled.members = first..first + step.steps.len();
            first = compiled.members.end;
            for member in compiled.members.clone() {
                let reads = self
                    .step(member, Role::Main, self.places[member].step, BTreeSet::new())
                    .needs;
                compiled
                    .needs
                    .extend(reads.difference(&compiled.members.clone().collect()));
            }
            let field = &self.places[i].field;
            self.readable(field, &compiled.needs, Some(i));
            if compiled.needs.contains(&i) {
                self.refuse(field, format!("step {:?} can't need or read itself", step.name));
            }
            compiled.needs = compiled
                .needs
                .iter()
                .map(|n| self.places[*n].group.unwrap_or(*n))
                .collect();
            compiled.needs.remove(&i); // what the output of a group reads of it
            steps.push(compiled);
        }
        steps
    }

    /// A step of `spec.finally`.
    fn at_the_end(&self, own: usize, main: usize) -> WorkflowStep {
        let Place { step, field, .. } = &self.places[own];
        let mut compiled = self.step(own, Role::Finally, step, BTreeSet::new());
        self.readable(field, &compiled.needs, None);
        let later = |n: &&usize| **n >= own && self.places[**n].group.is_none();
        if let Some(later) = compiled.needs.iter().find(later) {
            let later = &self.places[*later].step.name;
            self.refuse(field, format!("it can't read {later:?}, which comes later"));
        }
        compiled.needs = (main..own).collect();
        compiled.ancestors = (0..own).collect();
        compiled
    }

    /// A step in a group.
    fn member(&self, own: usize, steps: &[WorkflowStep]) -> WorkflowStep {
        let Place { step, field, group } = &self.places[own];
        let mut needs = BTreeSet::new();
        let Some(group) = group.and_then(|group| steps.get(group)) else {
            self.refuse(field, "it is in no group"); // not reached
            return self.step(own, Role::Main, step, needs);
        };
        if group.spec.for_each.is_some() {
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
                    self.refuse(format!("{field}.{name}"), message);
                }
            }
        }
        if group.spec.order.unwrap_or_default() == Order::Sequence && own > group.members.start {
            needs.insert(own - 1);
        }
        let mut compiled = self.step(own, Role::Main, step, needs);
        compiled.needs.retain(|n| group.members.contains(n));
        compiled.name = member_name(&group.name, &step.name);
        compiled
    }

    /// The step that undoes another, if it says how.
    fn undo(&self, of: usize, step: &WorkflowStep) -> Option<WorkflowStep> {
        let mut undo = step.spec.compensate.as_ref()?.step(undo_name(&step.name));
        if step.spec.for_each.is_some() {
            // Each item that was done is undone, one after the other.
            undo.for_each.clone_from(&step.spec.for_each);
            undo.max_parallel = Some(1);
        }
        let mut readable = step.ancestors.clone();
        readable.insert(of);
        let mut compiled = self.step(of, Role::Undo(of), &undo, BTreeSet::new());
        let field = format!("{}.compensate", step.field);
        // An expression that can't be read may read that very step.
        let known = self.invalid.borrow().is_empty();
        if let Some(other) = compiled.needs.difference(&readable).next().filter(|_| known) {
            let other = &self.places[*other].step.name;
            let message = format!("it can read only the step itself and what that needs, not {other:?}");
            self.refuse(&field, message);
        }
        compiled.needs = BTreeSet::new();
        compiled.ancestors = readable;
        compiled.field = field;
        Some(compiled)
    }

    /// Checks that steps can be read by one that isn't in their group: what runs for each item is read as the group's output.
    fn readable(&self, field: &str, read: &BTreeSet<usize>, by: Option<usize>) {
        let hidden = read.iter().find(|n| {
            let group = self.places[**n].group.filter(|group| Some(*group) != by);
            group.is_some_and(|group| self.places[group].step.for_each.is_some())
        });
        let hidden = hidden.and_then(|n| Some((&self.places[*n].step.name, self.places[self.places[*n].group?].step)));
        if let Some((name, Step { name: group, .. })) = hidden {
            self.refuse(
                field,
                format!(
                    "step {name:?} runs for each item: read steps.{group}.output.items, and name in the output of {group} what they are to have"
                ),
            );
        }
    }

    /// A step by itself. Its `needs` are all that it names or reads.
    fn step(&self, place: usize, role: Role, step: &Step, mut needs: BTreeSet<usize>) -> WorkflowStep {
        let whole = &self.places[place].field;
        let own = match role {
            Role::Undo(_) => format!("{whole}.compensate"),
            _ => whole.clone(),
        };
        let at = |field: &str| match field {
            "forEach" => format!("{whole}.forEach"), // the step's that is undone
            _ => format!("{own}.{field}"),
        };
        let step_type = step.step_type().unwrap_or_else(|| {
            let message =
                "a step has exactly one of http, kubernetes, job, operation, steps, wait, signal, approval, set, assert";
            self.refuse(own.clone(), message);
            StepType::Set
        });
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
            needs.extend(self.known_step(&at(&format!("needs[{n}]")), name));
        }
        let condition = |field: &str, source: &Option<String>, scope: &[&str]| {
            let source = source.as_deref()?;
            self.condition(&at(field), source, scope)
        };
        let for_each = condition("forEach", &step.for_each, &before);
        let when = condition("when", &step.when, &before);
        let assert = condition("assert", &step.assert, &scope);
        for (field, expression) in [("forEach", &for_each), ("when", &when), ("assert", &assert)] {
            if let Some(expression) = expression {
                let found = expression.references();
                let mut inner = found.steps.iter();
                match inner.find(|name| step.steps.iter().any(|s| s.name == **name)) {
                    Some(inner) => {
                        let message = format!("it can't read {inner:?}, which is in the group and runs later");
                        self.refuse(at(field), message);
                    }
                    None => needs.extend(self.steps_read(&at(field), &found)),
                }
            }
        }
        let (field, request) = request_of(step, step_type);
        self.note(check_wait(&own, step));
        self.note(check_async(&own, step));
        self.note_all(check_child(&own, step).err().into_iter().flatten());
        self.note(check_group(&own, step, self.spec));
        needs.extend(self.request(&at(field), &request, &scope));
        if let Some(secret) = &step.output_secret {
            let field = at("outputSecret.name");
            self.note(check_secret_name(&field, &secret.name, scope.contains(&"item")));
            self.note(check_no_secret_is_read(&at("outputSecret"), step));
            needs.extend(self.templates(&field, &to_value(&secret.name), &scope));
        }
        if step_type != StepType::Steps {
            scope.extend(["step", "result"]);
        }
        if let Some(output) = &step.output {
            needs.extend(self.templates(&at("output"), &Value::Object(output.clone()), &scope));
        }
        if let Some(secret) = &step.output_secret {
            needs.extend(self.templates(&at("outputSecret.data"), &to_value(&secret.data), &scope));
        }
        if role != Role::Undo(place) && needs.remove(&place) {
            self.refuse(at("needs"), format!("step {:?} can't need or read itself", step.name));
        }
        let schema = step.signal.as_ref().and_then(|signal| signal.schema.clone());
        let schema = schema.and_then(|schema| {
            let built = jsonschema::options()
                .with_pattern_options(jsonschema::PatternOptions::regex()) // linear in time
                .build(&Value::Object(schema));
            self.note(built.map_err(|error| InvalidSpec::new(at("signal.schema"), error)))
        });
        WorkflowStep {
            name: step.name.clone(),
            role,
            spec: step.clone(),
            step_type,
            when,
            for_each,
            needs,
            ancestors: BTreeSet::new(),
            is_read: false,
            undo: None,
            group: group.filter(|_| role == Role::Main),
            members: 0..0,
            retry: RetryPolicy::new(step.retry.as_ref(), self.spec.retry.as_ref()),
            request,
            assert,
            schema,
            field: own,
        }
    }
}
