//! The walk over the steps of an operation that isn't there yet: what is known is evaluated by the engine, what could be
//! tried is tried, and what depends on an answer that nobody has is said to be known after it.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::rehearsal::{Attempt, Effect, Rehearse};
use crate::api::{CloudOperationSpec, OnFailure, OperationStatus, StepState, StepType};
use crate::cli::diff::Difference;
use crate::engine::expression::{self, Expression, References, Scope};
use crate::engine::{self, AttemptFailure, IdempotencyKey, Identity, RetryAdvice, Role, Workflow, WorkflowStep};

/// What a step would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum What {
    /// It is computed, and what comes of it is known.
    Computed,
    /// Its assert holds.
    Holds,
    /// It reads, and what it reads is known.
    Read,
    /// It would create an object.
    Create,
    /// It would change an object.
    Change,
    /// It would delete an object.
    Delete,
    /// Everything is as it is to be.
    NoChange,
    /// It would call a service.
    Call,
    /// It would wait.
    Wait,
    /// It has a list, whose items say what they would do.
    Items,
    /// Its `when` is false.
    Skipped,
    /// What it would do is known only once others have ended.
    Unknown,
    /// It would undo what another did, if a later step failed.
    Undo,
    /// The API server refuses what it would do.
    Refused,
    /// It would fail.
    Fails,
    /// It would fail, and the operation would go on.
    FailsAndGoesOn,
    /// Another that it needs would fail.
    NotReached,
}

/// A step, and what it would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// Its name; of an item, with its number.
    pub name: String,
    /// What kind of step it is.
    #[serde(rename = "type")]
    pub step_type: StepType,
    /// What it would do.
    pub action: What,
    /// In words, with what.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Its `when`, where it isn't known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The steps whose answers it reads, where they aren't known.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub known_after: BTreeSet<String>,
    /// What it would send: secrets are references in it, and what isn't known is its template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    /// What it would change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Difference>,
    /// What would be recorded of it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Map<String, Value>>,
    /// The items of its list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Planned>,
}

impl Planned {
    /// What fails here ends nothing.
    fn go_on(&mut self) {
        if self.action == What::Fails {
            self.action = What::FailsAndGoesOn;
        }
        self.items.iter_mut().for_each(Self::go_on);
    }

    fn new(flow: &WorkflowStep, name: &str, action: What, message: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            step_type: flow.step_type,
            action,
            message: message.into(),
            when: None,
            known_after: BTreeSet::new(),
            request: None,
            changes: vec![],
            output: None,
            items: vec![],
        }
    }
}

/// What is known of how a step would end.
enum End {
    /// It would succeed, with this output.
    Known(Option<Map<String, Value>>),
    /// How, or with what, is not known.
    Unknown,
    /// It would fail.
    Fails(AttemptFailure),
}

/// What an operation would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Walked {
    /// Its steps.
    pub steps: Vec<Planned>,
    /// What would undo them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub undo: Vec<Planned>,
    /// What runs at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finally: Vec<Planned>,
    /// What it would answer: what isn't known is its template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
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
    let is_step = |i: &usize| !matches!(workflow.steps[*i].role, Role::Undo(_));
    let mut left: Vec<usize> = (0..workflow.steps.len()).filter(is_step).collect();
    // In an order in which each comes after what it needs; those of `finally` are the last as it is.
    while !left.is_empty() {
        let next = left
            .iter()
            .position(|i| !workflow.steps[*i].needs.iter().any(|need| left.contains(need)));
        let i = left.remove(next.unwrap_or(0)); // a workflow has no cycles
        planned.push((i, walk.step(i).await));
    }
    planned.sort_by_key(|(i, _)| *i);
    let mut walked = Walked::default();
    for (i, step) in planned {
        match workflow.steps[i].role {
            Role::Finally => walked.finally.push(step),
            _ => walked.steps.push(step),
        }
    }
    let undone = workflow.steps[..workflow.total].iter().rev();
    for flow in undone.filter_map(|flow| Some(&workflow.steps[flow.undo?])) {
        walked.undo.push(walk.undo(flow));
    }
    if let Some(output) = &workflow.output {
        let all = Map::from_iter(walk.status.steps.iter().map(|step| {
            let output = step.output.clone().unwrap_or_default();
            (step.name.clone(), json!({"state": step.state, "output": output}))
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

/// A kind and, if it is known, a name.
type Named = (String, Option<String>);

/// Of what is read in `finally` alone.
const AT_THE_END: &str = "the other steps";
const ITS_CREATION: &str = "its creation";

impl<R: Rehearse> Walk<'_, R> {
    async fn step(&mut self, i: usize) -> Planned {
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
            return Planned::new(flow, &flow.name, What::NotReached, message);
        }
        let scope = engine::scope(self.workflow, flow, &flow.name, self.identity, self.spec, &self.status);
        let (mut planned, mut end) = match scope {
            Ok(scope) => self.started(i, flow, &scope).await,
            Err(error) => failed(flow, &flow.name, "InvalidExpression", error.to_string()),
        };
        if planned.when.is_some() {
            end = End::Unknown;
        }
        if let End::Fails(failure) = &end
            && flow.spec.on_failure == Some(OnFailure::Continue)
        {
            planned.go_on();
            self.know(flow, StepState::Failed, None, Some(failure));
            return planned;
        }
        match end {
            End::Known(_) if planned.action == What::Skipped => self.know(flow, StepState::Skipped, None, None),
            End::Known(output) => self.know(flow, StepState::Succeeded, output, None),
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
    async fn started(&mut self, i: usize, flow: &WorkflowStep, scope: &Scope) -> (Planned, End) {
        let name = &flow.name;
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
            Some(for_each) => self.list(i, flow, for_each, scope).await,
        };
        if let Some((source, after)) = when {
            planned.when = Some(source);
            planned.known_after.extend(after);
        }
        (planned, end)
    }

    async fn list(&mut self, i: usize, flow: &WorkflowStep, for_each: &Expression, scope: &Scope) -> (Planned, End) {
        let name = &flow.name;
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

    async fn one(&mut self, i: usize, flow: &WorkflowStep, name: &str, scope: &Scope) -> (Planned, End) {
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
        let (shown, after) = match self.rendered(&flow.request, scope) {
            Ok(rendered) => rendered,
            Err(error) => return failed(flow, name, "InvalidExpression", error),
        };
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

    /// Tries what can be tried.
    async fn tried(
        &mut self,
        i: usize,
        flow: &WorkflowStep,
        name: &str,
        scope: &Scope,
        shown: &Value,
        planned: &mut Planned,
    ) -> End {
        let named = named(shown);
        let reads = shown.get("get").or(shown.get("list")).is_some();
        let stale = self.written.iter().filter(|(step, _, (kind, name))| {
            let same = *kind == named.0 && (named.1.is_none() || name.is_none() || *name == named.1);
            reads && same && flow.ancestors.contains(step)
        });
        planned.known_after = stale
            .map(|(step, ..)| self.workflow.steps[*step].name.clone())
            .collect();
        if !planned.known_after.is_empty() {
            return End::Unknown;
        }
        let key = IdempotencyKey::new(&self.identity.uid, name, 0);
        let request = match engine::request(flow, scope, &key) {
            Ok(request) => request.value,
            Err(error) => {
                planned.action = What::Fails;
                planned.message = error.to_string();
                return End::Fails(AttemptFailure::definite("InvalidExpression", error.to_string()));
            }
        };
        let attempt = Attempt {
            identity: self.identity,
            service_account: self.spec.service_account(),
            step: name,
            step_type: flow.step_type,
            request,
            sensitive: flow.spec.sensitive == Some(true),
        };
        let effect = match self.rehearse.attempt(attempt).await {
            Ok(effect) => effect,
            Err(failure) => return self.refused(flow, reads, failure, planned),
        };
        planned.action = match effect {
            Effect::Read(result) => {
                planned.action = What::Read;
                return match engine::output(&flow.field, flow.spec.output.as_ref(), scope, &result, 1, &key) {
                    Ok(output) => {
                        planned.output.clone_from(&output);
                        End::Known(output)
                    }
                    Err(error) => {
                        planned.action = What::Fails;
                        planned.message = error.to_string();
                        End::Fails(AttemptFailure::definite("InvalidExpression", error.to_string()))
                    }
                };
            }
            Effect::Create => What::Create,
            Effect::Change(changes) => {
                planned.changes = if flow.spec.sensitive == Some(true) {
                    vec![]
                } else {
                    changes
                };
                What::Change
            }
            Effect::ChangeUnseen => What::Change,
            Effect::Delete => What::Delete,
            Effect::Nothing => What::NoChange,
        };
        if planned.action != What::NoChange {
            self.written.push((i, planned.action, named));
        }
        End::Unknown
    }

    /// What could not be done as things are now.
    fn refused(&self, flow: &WorkflowStep, reads: bool, failure: AttemptFailure, planned: &mut Planned) -> End {
        if matches!(failure.reason.as_str(), "NotFound" | "KindNotFound") {
            // What isn't there may be made by an earlier step.
            let makes = |step: &usize| {
                let other = &self.workflow.steps[*step];
                let creates = self
                    .written
                    .iter()
                    .any(|(by, what, _)| by == step && *what == What::Create);
                let opaque = matches!(other.step_type, StepType::Http | StepType::Job | StepType::Operation);
                creates || (opaque && self.unknown.contains(step))
            };
            let makers = flow.ancestors.iter().filter(|step| makes(step));
            planned.known_after = makers.map(|step| self.workflow.steps[*step].name.clone()).collect();
            if !planned.known_after.is_empty() {
                planned.message = format!("{} (now: {})", planned.message, failure.message);
                return End::Unknown;
            }
        }
        planned.message = format!("{}: {}", failure.reason, failure.message);
        if reads && failure.retry == RetryAdvice::Never {
            planned.action = What::Fails;
            return End::Fails(failure);
        }
        // What follows is shown as if it were allowed: one look is to tell all that is missing.
        planned.action = What::Refused;
        End::Unknown
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
        let unknown = |name: &&String| self.unknown.iter().any(|i| self.workflow.steps[*i].name == **name);
        let mut after: BTreeSet<String> = found.steps.iter().filter(unknown).cloned().collect();
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
        state: StepState,
        output: Option<Map<String, Value>>,
        failure: Option<&AttemptFailure>,
    ) {
        let never = "1970-01-01T00:00:00.000Z";
        let mut entry = json!({
            "name": flow.name, "type": flow.step_type, "state": state,
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

/// The object that a request is about.
fn named(request: &Value) -> Named {
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let of = |kind: &str, name: &str| Some((text(kind)?, text(name)));
    of("/apply/manifest/kind", "/apply/manifest/metadata/name")
        .or_else(|| of("/create/manifest/kind", "/create/manifest/metadata/name"))
        .or_else(|| {
            ["patch", "scale", "delete", "get", "wait"]
                .iter()
                .find_map(|verb| of(&format!("/{verb}/resource/kind"), &format!("/{verb}/resource/name")))
        })
        .or_else(|| text("/evict/pod").map(|pod| ("Pod".to_owned(), Some(pod))))
        .or_else(|| of("/list/kind", "/list/no-name"))
        .unwrap_or_default()
}

/// What a request asks, in words.
fn in_words(flow: &WorkflowStep, request: &Value) -> String {
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    match flow.step_type {
        StepType::Http => {
            let method = request.get("method").and_then(Value::as_str).unwrap_or("GET");
            let mut words = format!("{method} {}", text("/url"));
            if let Some(body) = request.get("body") {
                words.push_str(&format!(" {body}"));
            }
            let mut secrets = vec![];
            references(request, &mut secrets);
            if !secrets.is_empty() {
                words.push_str(&format!(" (with {})", secrets.join(", ")));
            }
            words
        }
        StepType::Kubernetes => {
            let verb = request.as_object().and_then(|fields| fields.keys().next());
            let verb = verb.map(String::as_str).unwrap_or_default();
            let (kind, name) = named(request);
            let of = name.map(|name| format!(" {name}")).unwrap_or_default();
            let namespaces =
                ["resource", "manifest/metadata"].map(|at| text(&format!("/{verb}/{at}/namespace")).to_owned());
            let place = namespaces
                .into_iter()
                .chain([text(&format!("/{verb}/namespace")).to_owned()])
                .find(|n| !n.is_empty());
            let place = place.map(|namespace| format!(" in {namespace}")).unwrap_or_default();
            let what = match (verb, text("/wait/for")) {
                ("scale", _) => format!(" to {}", request["scale"]["replicas"].to_string().trim_matches('"')),
                ("list", _) => match text("/list/labelSelector") {
                    "" => String::new(),
                    labels => format!("s with {labels}"),
                },
                ("wait", "Deleted") => " to be gone".into(),
                ("wait", "") => format!(" to fulfil {}", text("/wait/until")),
                ("wait", state) => format!(" to be {state}"),
                _ => String::new(),
            };
            let verb = if verb == "wait" { "for" } else { verb };
            format!("{verb} {kind}{of}{place}{what}")
        }
        StepType::Steps => format!("{} steps", flow.members.len()),
        StepType::Job => match text("/image") {
            "" => "a Job".into(),
            image => format!("a Job of {image}"),
        },
        StepType::Operation => match text("/templateRef/name") {
            "" => "a CloudOperation".into(),
            template => format!("a CloudOperation of the template {template} with {}", request["input"]),
        },
        StepType::Wait => match (text("/duration"), text("/untilTime")) {
            ("", time) => format!("until {time}"),
            (duration, _) => duration.to_owned(),
        },
        StepType::Signal => format!("for the signal {}", flow.signal().unwrap_or(&flow.name)),
        StepType::Approval => match text("/message") {
            "" => "for an approval".into(),
            message => format!("for an approval: {message}"),
        },
        StepType::Set => request.to_string(),
        StepType::Assert => String::new(),
    }
}

/// The keys of Secrets that a request refers to.
fn references(request: &Value, found: &mut Vec<String>) {
    match request {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value["name"].as_str(), value["key"].as_str()) {
                    ("secretKeyRef", Some(secret), Some(key)) => found.push(format!("{key} of Secret {secret}")),
                    ("serviceAccountToken", ..) => found.push("a token of the service account".into()),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
