//! From a spec to a workflow: each step by itself, then how they depend on each other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::checks::{check_async, check_child, check_group, check_wait};
use super::conditions::{request_of, to_value};
use super::expressions::STEP_SCOPE;
use super::names::{member_name, undo_name};
use super::order::{resolve_ancestors, resolve_members};
use super::{InvalidSpec, Role, Workflow, WorkflowStep};
use crate::api::{CloudOperationSpec, Order, Step, StepType};
use crate::engine::expression::{self, References};
use crate::engine::request::{MAX_DEPTH, depth};
use crate::engine::retry::RetryPolicy;

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
        check_wait(&own, step)?;
        check_async(&own, step)?;
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
}
