//! The walk over the steps of an operation that isn't there yet: what is known is evaluated by the engine, what could be
//! tried is tried, and what depends on an answer that nobody has is said to be known after it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::planned::{Planned, Walked, What};
use super::rehearsal::Rehearse;
use super::words::{Named, in_words};
use crate::api::{CloudOperationSpec, OnFailure, OperationStatus, StepState, StepStatus, StepType};
use crate::engine::expression::{self, Expression, References, Scope};
use crate::engine::{self, AttemptFailure, Identity, Role, Workflow, WorkflowStep};

mod tried;

/// What is known of how a step would end.
enum End {
    /// It would succeed, with this output.
    Known(Option<Map<String, Value>>),
    /// How, or with what, is not known.
    Unknown,
    /// It would fail.
    Fails(AttemptFailure),
}

/// Walks over the steps.
pub async fn walk(
    workflow: &Workflow,
    spec: &CloudOperationSpec,
    identity: &Identity,
    rehearse: &impl Rehearse,
) -> Walked {
    let mut walk = Walk {
        workflow,
        spec,
        identity,
        rehearse,
        status: OperationStatus::default(),
        unknown: BTreeSet::new(),
        stopped: BTreeSet::new(),
        written: vec![],
    };
    let mut planned: Vec<(usize, Planned)> = vec![];
    // Those of groups are walked with their groups.
    let is_step = |i: &usize| {
        let flow = &workflow.steps[*i];
        !matches!(flow.role, Role::Undo(_)) && flow.group.is_none()
    };
    let mut left: Vec<usize> = (0..workflow.steps.len()).filter(is_step).collect();
    // Those of `finally` are the last as it is.
    while let Some(i) = next(workflow, &mut left) {
        planned.push((i, walk.step(i, &workflow.steps[i].name).await));
    }
    planned.sort_by_key(|(i, _)| *i);
    let mut walked = Walked::default();
    for (i, step) in planned {
        match workflow.steps[i].role {
            Role::Finally => walked.finally.push(step),
            _ => walked.steps.push(step),
        }
    }
    for flow in workflow
        .steps
        .iter()
        .rev()
        .filter_map(|flow| Some(&workflow.steps[flow.undo?]))
    {
        walked.undo.push(walk.undo(flow));
    }
    if let Some(output) = &workflow.output {
        let named = walk.status.steps.iter().filter(|step| !step.name.contains('['));
        let all = Map::from_iter(named.map(|step| {
            let name = step.name.rsplit('/').next().unwrap_or(&step.name);
            (name.to_owned(), read_of(step))
        }));
        let scope = Scope::new()
            .with("input", Value::Object(spec.input.clone()))
            .with("steps", Value::Object(all))
            .with(
                "operation",
                json!({"name": identity.name, "namespace": identity.namespace}),
            );
        let shown = walk.rendered(output, &scope);
        walked.output = Some(shown.map_or_else(Value::String, |(shown, _)| shown));
    }
    walked
}

/// Takes the first of these steps that comes after what it needs.
fn next(workflow: &Workflow, left: &mut Vec<usize>) -> Option<usize> {
    let ready = |i: &usize| !workflow.steps[*i].needs.iter().any(|need| left.contains(need));
    let i = left.iter().position(ready)?; // a workflow has no cycles
    Some(left.remove(i))
}

/// What expressions read of a step.
fn read_of(step: &StepStatus) -> Value {
    let mut read = json!({"state": step.state, "output": step.output.clone().unwrap_or_default()});
    if let Some(failure) = &step.failure {
        read["failure"] = json!(failure);
    }
    read
}

struct Walk<'a, R> {
    workflow: &'a Workflow,
    spec: &'a CloudOperationSpec,
    identity: &'a Identity,
    rehearse: &'a R,
    /// The steps of which it is known how they would end.
    status: OperationStatus,
    /// The steps of which it isn't, or not with what.
    unknown: BTreeSet<usize>,
    /// The steps after which nothing comes that needs them.
    stopped: BTreeSet<usize>,
    /// What would be written, by which step.
    written: Vec<(usize, What, Named)>,
}

/// Of what is read in `finally` alone.
const AT_THE_END: &str = "the other steps";
const ITS_CREATION: &str = "its creation";

impl<R: Rehearse> Walk<'_, R> {
    /// A step, by its path: in a group that runs for each item, that of the item.
    async fn step(&mut self, i: usize, path: &str) -> Planned {
        let flow = &self.workflow.steps[i];
        let stops: Vec<&str> = flow
            .needs
            .iter()
            .filter(|need| self.stopped.contains(need) && flow.role == Role::Main)
            .map(|need| self.workflow.steps[*need].name.as_str())
            .collect();
        if !stops.is_empty() {
            self.stopped.insert(i);
            let message = format!("after {}", stops.join(", "));
            return Planned::new(flow, path, What::NotReached, message);
        }
        let scope = engine::scope(self.workflow, flow, path, self.identity, self.spec, &self.status);
        let (mut planned, mut end) = match scope {
            Ok(scope) => self.started(i, flow, path, &scope).await,
            Err(error) => failed(flow, path, "InvalidExpression", error.to_string()),
        };
        if planned.when.is_some() {
            end = End::Unknown;
        }
        if let End::Fails(failure) = &end
            && flow.spec.on_failure == Some(OnFailure::Continue)
        {
            planned.go_on();
            self.know(flow, path, StepState::Failed, None, Some(failure));
            return planned;
        }
        match end {
            End::Known(_) if planned.action == What::Skipped => self.know(flow, path, StepState::Skipped, None, None),
            End::Known(output) => self.know(flow, path, StepState::Succeeded, output, None),
            End::Fails(_) => {
                self.stopped.insert(i);
            }
            End::Unknown => {
                self.unknown.insert(i);
            }
        }
        planned
    }

    /// A step whose turn it is.
    async fn started(&mut self, i: usize, flow: &WorkflowStep, name: &str, scope: &Scope) -> (Planned, End) {
        let mut when = None;
        if let Some(condition) = &flow.when {
            let after = self.after(&condition.references(), condition.source());
            if !after.is_empty() {
                when = Some((condition.source().to_owned(), after));
            } else {
                match condition.evaluate_bool(scope) {
                    Ok(true) => {}
                    Ok(false) => {
                        let message = format!("when {} is false", condition.source());
                        return (Planned::new(flow, name, What::Skipped, message), End::Known(None));
                    }
                    Err(error) => {
                        return failed(flow, name, "InvalidExpression", format!("{}.when: {error}", flow.field));
                    }
                }
            }
        }
        let (mut planned, end) = match &flow.for_each {
            None => self.one(i, flow, name, scope).await,
            Some(for_each) => self.list(i, flow, name, for_each, scope).await,
        };
        if let Some((source, after)) = when {
            planned.when = Some(source);
            planned.known_after.extend(after);
        }
        (planned, end)
    }

    async fn list(
        &mut self,
        i: usize,
        flow: &WorkflowStep,
        name: &str,
        for_each: &Expression,
        scope: &Scope,
    ) -> (Planned, End) {
        let after = self.after(&for_each.references(), for_each.source());
        if !after.is_empty() {
            let message = format!("for each item of {}", for_each.source());
            let mut planned = Planned::new(flow, name, What::Unknown, message);
            planned.known_after = after;
            return (planned, End::Unknown);
        }
        let items = match for_each.evaluate(scope) {
            Ok(Value::Array(items)) => items,
            Ok(other) => {
                let message = format!("{}.forEach: a list is needed, not {other}", flow.field);
                return failed(flow, name, "InvalidExpression", message);
            }
            Err(error) => {
                return failed(
                    flow,
                    name,
                    "InvalidExpression",
                    format!("{}.forEach: {error}", flow.field),
                );
            }
        };
        let mut planned = Planned::new(flow, name, What::Items, format!("{} items", items.len()));
        let mut outputs = Some(vec![]);
        let mut failure = None;
        for (index, item) in items.into_iter().enumerate() {
            let scope = scope.clone().with("item", item).with("index", json!(index));
            let (item, end) = self.one(i, flow, &engine::item_name(name, index), &scope).await;
            planned.items.push(item);
            match (end, &mut outputs) {
                (End::Known(output), Some(outputs)) => outputs.push(output.map(Value::Object).unwrap_or_default()),
                (End::Fails(failed), _) => failure = failure.or(Some(failed)),
                _ => outputs = None,
            }
        }
        let tolerated = flow.spec.max_failures.is_some_and(|most| most > 0);
        match (failure, outputs) {
            (Some(failure), _) if !tolerated => (planned, End::Fails(failure)),
            (None, Some(outputs)) => {
                let any = outputs.iter().any(|output| !output.is_null());
                let output = any.then(|| Map::from_iter([("items".to_owned(), Value::Array(outputs))]));
                (planned, End::Known(output))
            }
            _ => {
                planned.go_on();
                (planned, End::Unknown)
            }
        }
    }

    /// The steps of a group, or of one item of it.
    async fn group(&mut self, flow: &WorkflowStep, path: &str, scope: &Scope) -> (Planned, End) {
        let workflow = self.workflow;
        let mut left: Vec<usize> = flow.members.clone().collect();
        // Of another item something else is known.
        self.unknown.retain(|i| !left.contains(i));
        self.stopped.retain(|i| !left.contains(i));
        let mut members: Vec<(usize, Planned)> = vec![];
        while let Some(i) = next(workflow, &mut left) {
            let path = format!("{path}/{}", workflow.steps[i].spec.name);
            members.push((i, Box::pin(self.step(i, &path)).await));
        }
        members.sort_by_key(|(i, _)| *i);
        let mut planned = Planned::new(flow, path, What::Items, format!("{} steps", members.len()));
        let fails = members.iter().find(|(_, member)| member.action == What::Fails);
        let fails = fails.map(|(_, member)| AttemptFailure::definite("StepFailed", member.message.clone()));
        planned.items = members.into_iter().map(|(_, member)| member).collect();
        if let Some(failure) = fails {
            return (planned, End::Fails(failure));
        }
        if flow
            .members
            .clone()
            .any(|i| self.unknown.contains(&i) || self.stopped.contains(&i))
        {
            return (planned, End::Unknown);
        }
        let Some(output) = &flow.spec.output else {
            return (planned, End::Known(None));
        };
        let mut steps = scope
            .get("steps")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        for member in &workflow.steps[flow.members.clone()] {
            let path = format!("{path}/{}", member.spec.name);
            let entry = self.status.steps.iter().find(|step| step.name == path);
            steps.extend(entry.map(|step| (member.spec.name.clone(), read_of(step))));
        }
        let scope = scope.clone().with("steps", Value::Object(steps));
        match self.rendered(&Value::Object(output.clone()), &scope) {
            Ok((output, after)) if after.is_empty() => (planned, End::Known(output.as_object().cloned())),
            Ok(_) => (planned, End::Unknown),
            Err(error) => failed(flow, path, "InvalidExpression", error),
        }
    }

    async fn one(&mut self, i: usize, flow: &WorkflowStep, name: &str, scope: &Scope) -> (Planned, End) {
        if flow.step_type == StepType::Steps {
            return self.group(flow, name, scope).await;
        }
        if let Some(assert) = &flow.assert {
            let source = assert.source();
            let after = self.after(&assert.references(), source);
            if !after.is_empty() {
                let mut planned = Planned::new(flow, name, What::Unknown, format!("whether {source}"));
                planned.known_after = after;
                return (planned, End::Unknown);
            }
            return match assert.evaluate_bool(scope) {
                Ok(true) => (Planned::new(flow, name, What::Holds, source), End::Known(None)),
                Ok(false) => failed(flow, name, "AssertFailed", format!("{source} is false")),
                Err(error) => failed(
                    flow,
                    name,
                    "InvalidExpression",
                    format!("{}.assert: {error}", flow.field),
                ),
            };
        }
        let (shown, mut after) = match self.rendered(&flow.request, scope) {
            Ok(rendered) => rendered,
            Err(error) => return failed(flow, name, "InvalidExpression", error),
        };
        if let Some(secret) = &flow.spec.output_secret {
            match self.rendered(&Value::String(secret.name.clone()), scope) {
                Ok((_, of_name)) => after.extend(of_name),
                Err(error) => return failed(flow, name, "InvalidExpression", format!("outputSecret.name{error}")),
            }
        }
        let mut planned = Planned::new(flow, name, What::Unknown, in_words(flow, &shown));
        planned.known_after.clone_from(&after);
        let mut end = End::Unknown;
        match flow.step_type {
            StepType::Set => {
                planned.output = shown.as_object().cloned();
                if after.is_empty() {
                    planned.action = What::Computed;
                    end = End::Known(planned.output.clone());
                }
                return (planned, end);
            }
            StepType::Http => planned.action = What::Call,
            StepType::Wait | StepType::Signal | StepType::Approval => planned.action = What::Wait,
            _ if flow.spec.is_kubernetes_wait() => planned.action = What::Wait,
            _ if !after.is_empty() => {}
            _ => end = self.tried(i, flow, name, scope, &shown, &mut planned).await,
        }
        planned.request = Some(shown).filter(|shown| !shown.is_null());
        (planned, end)
    }

    fn undo(&self, flow: &WorkflowStep) -> Planned {
        let scope = engine::scope(self.workflow, flow, &flow.name, self.identity, self.spec, &self.status);
        let rendered = scope.map_err(|error| error.to_string());
        let rendered = rendered.and_then(|scope| self.rendered(&flow.request, &scope));
        match rendered {
            Ok((shown, after)) => {
                let mut planned = Planned::new(flow, &flow.name, What::Undo, in_words(flow, &shown));
                planned.known_after = after;
                planned.request = Some(shown);
                planned
            }
            // An item, or a step that would not have run.
            Err(_) => Planned {
                request: Some(flow.request.clone()),
                ..Planned::new(flow, &flow.name, What::Undo, in_words(flow, &flow.request))
            },
        }
    }

    /// The steps that an expression reads whose answers aren't known.
    fn after(&self, found: &References, source: &str) -> BTreeSet<String> {
        let unknown = self.unknown.iter().map(|i| &self.workflow.steps[*i]);
        let read = unknown.filter(|step| found.steps.contains(&step.spec.name));
        let mut after: BTreeSet<String> = read.map(|step| step.name.clone()).collect();
        if found.roots.contains("operation") {
            if source.contains("operation.uid") {
                after.insert(ITS_CREATION.into());
            }
            if source.contains("operation.state") || source.contains("operation.failure") {
                after.insert(AT_THE_END.into());
            }
        }
        after
    }

    /// A value with its templates filled in, as far as what they read is known, and after which steps the rest is.
    fn rendered(&self, value: &Value, scope: &Scope) -> Result<(Value, BTreeSet<String>), String> {
        let mut after = BTreeSet::new();
        let value = self.render("", value, scope, &mut after)?;
        Ok((value, after))
    }

    fn render(&self, field: &str, value: &Value, scope: &Scope, after: &mut BTreeSet<String>) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => {
                let found = expression::references_in(value).unwrap_or_default();
                let unknown = self.after(&found, text);
                // The key is made of the uid that the operation will have.
                let waits = !unknown.is_empty() || found.roots.contains("step");
                after.extend(unknown);
                if waits {
                    value.clone()
                } else {
                    expression::render(value, scope).map_err(|error| format!("{field}: {}", error.error))?
                }
            }
            Value::Array(items) => {
                let item = |(i, item): (usize, &Value)| self.render(&format!("{field}[{i}]"), item, scope, after);
                Value::Array(items.iter().enumerate().map(item).collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => {
                let mut rendered = Map::new();
                for (name, value) in fields {
                    let field = format!("{field}.{name}");
                    let field = field.trim_start_matches('.');
                    rendered.insert(name.clone(), self.render(field, value, scope, after)?);
                }
                Value::Object(rendered)
            }
            other => other.clone(),
        })
    }

    /// Notes how a step would end.
    fn know(
        &mut self,
        flow: &WorkflowStep,
        path: &str,
        state: StepState,
        output: Option<Map<String, Value>>,
        failure: Option<&AttemptFailure>,
    ) {
        let never = "1970-01-01T00:00:00.000Z";
        let mut entry = json!({
            "name": path, "type": flow.step_type, "state": state,
            "startTime": never, "endTime": never, "startSeq": 1, "endSeq": 1,
        });
        if let Some(output) = output {
            entry["output"] = Value::Object(output);
        }
        if let Some(failure) = failure {
            entry["failure"] = json!({"reason": failure.reason, "message": failure.message});
        }
        // It can always be read: it is an entry of the journal.
        self.status.steps.extend(serde_json::from_value(entry));
    }
}

fn failed(flow: &WorkflowStep, name: &str, reason: &str, message: String) -> (Planned, End) {
    let planned = Planned::new(flow, name, What::Fails, message.clone());
    (planned, End::Fails(AttemptFailure::definite(reason, message)))
}

#[cfg(test)]
mod tests;
