//! What operators did in the cluster for steps: the book of all changes that they made as a service account.
//!
//! Each is looked up in what was recorded when its request was sent:
//!
//! - Who sent it led.
//! - A step called for it. An attempt of it was `Running`, in the process that sent it, and what it asks for is this
//!   change; what it removes is what was recorded as its target. Or the step was `Cancelling`, and what is stopped is
//!   what it had created.
//! - What a step created, it created once; another under the same key only for an attempt that failed for good.
//!
//! Local steps are exempt, but for what they remove: their starts may be unwritten.

use std::collections::{BTreeMap, BTreeSet};

use holdfast::api::{CloudOperation, CloudOperationSpec, KEY_ANNOTATION, Kubernetes, OperationTemplate, ResourceRef};
use holdfast::api::{StepState, StepStatus, StepType};
use holdfast::engine::{self, IdempotencyKey, Identity, Workflow};
use holdfast_apiserver::{ApiServer, RequestInfo, Verb, Write};
use kube::ResourceExt;
use serde_json::{Map, Value, json};

/// A change that was made for a step.
struct Deed<'a> {
    /// The operation's uid.
    uid: String,
    step: String,
    epoch: i64,
    write: &'a Write,
}

impl Deed<'_> {
    fn created(&self) -> bool {
        self.write.change.before.is_none()
    }

    fn kind(&self) -> &str {
        object(self.write)["kind"].as_str().unwrap_or_default()
    }
}

/// What steps created: by the operation's uid and the step, in which epochs.
pub fn created(server: &ApiServer) -> BTreeMap<(String, String), BTreeSet<i64>> {
    let (writes, requests) = (server.writes(), server.requests());
    let mut created = BTreeMap::<_, BTreeSet<i64>>::new();
    for deed in deeds(server, &writes, &requests).into_iter().filter(Deed::created) {
        created.entry((deed.uid, deed.step)).or_default().insert(deed.epoch);
    }
    created
}

/// How often something was created and removed, by step and kind. Not by epoch: whether a person's retry has a new key
/// depends on whether an attempt was lost.
pub fn count(server: &ApiServer) -> BTreeMap<String, usize> {
    let (writes, requests) = (server.writes(), server.requests());
    let mut counts = BTreeMap::new();
    for deed in deeds(server, &writes, &requests) {
        let what = match (&deed.write.change.before, &deed.write.change.after) {
            (None, _) => "created",
            (_, None) => "removed",
            _ => continue,
        };
        let key = format!("{}: {} {what}", deed.step, deed.kind());
        *counts.entry(key).or_default() += 1;
    }
    counts
}

/// What must hold of every history.
pub fn check(server: &ApiServer) {
    let (writes, requests) = (server.writes(), server.requests());
    let mut created: BTreeMap<_, Vec<&Write>> = BTreeMap::new();
    for deed in deeds(server, &writes, &requests).into_iter().filter(Deed::created) {
        let of_step = created.entry((deed.uid, deed.step, deed.epoch)).or_default();
        of_step.push(deed.write);
    }
    for ((uid, step, epoch), made) in created.iter().filter(|(_, made)| made.len() > 1) {
        let taken_away = made.iter().filter(|write| was_taken_away(write, &writes, &requests));
        let failures = entries(&writes, uid)
            .filter(|entry| entry.name == *step && entry.epoch == *epoch)
            .map(|entry| usize::try_from(entry.failures).unwrap())
            .max();
        let most = 1 + failures.unwrap_or(0) + taken_away.count();
        let names: Vec<_> = made.iter().map(|write| &write.change.key).collect();
        assert!(made.len() <= most, "{step} created {names:?} under one key");
    }
}

/// All changes that were made for steps, in their order.
fn deeds<'a>(server: &ApiServer, writes: &'a [Write], requests: &[RequestInfo]) -> Vec<Deed<'a>> {
    let made = writes.iter().filter_map(|write| {
        // The server's own have no request.
        let number = usize::try_from(write.request).unwrap().checked_sub(1)?;
        let request = &requests[number];
        let for_a_step = request.client.starts_with("operator") && request.user != request.client;
        for_a_step.then(|| deed(server, writes, write, request))
    });
    made.flatten().collect()
}

/// Whom a change was made for. None: for a local step, of which it isn't known which.
fn deed<'a>(server: &ApiServer, writes: &'a [Write], write: &'a Write, request: &RequestInfo) -> Option<Deed<'a>> {
    let before = &writes[..request.writes_before];
    let what = || {
        format!(
            "request {} of {}, as {}: {:?} of {:?}",
            request.number, request.client, request.user, write.verb, write.change.key
        )
    };
    assert!(leads(before, &request.client), "{}: its sender doesn't lead", what());
    let operations = operations(before, &request.user);
    let mut local = false;
    for operation in &operations {
        let uid = operation.uid().unwrap();
        let spec = whole(server, operation);
        let workflow = Workflow::compile(&spec).ok();
        for step in operation.status.iter().flat_map(|status| &status.steps) {
            let asked = Asked {
                operation,
                spec: &spec,
                workflow: workflow.as_ref(),
                step,
                key: IdempotencyKey::new(&uid, &step.name, step.epoch),
            };
            if asked.for_(write, request).is_some() {
                return Some(Deed {
                    uid,
                    step: step.name.clone(),
                    epoch: step.epoch,
                    write,
                });
            }
        }
        let steps = workflow.iter().flat_map(|workflow| &workflow.steps);
        local |= steps
            .filter(|flow| flow.step_type == StepType::Kubernetes)
            .any(|flow| flow.spec.local == Some(true));
    }
    let removes = write.change.after.is_none();
    let recorded: Vec<_> = operations.iter().map(|operation| &operation.status).collect();
    assert!(local && !removes, "{}: no step called for it: {recorded:?}", what());
    None
}

/// A step as it was recorded.
struct Asked<'a> {
    operation: &'a CloudOperation,
    spec: &'a CloudOperationSpec,
    workflow: Option<&'a Workflow>,
    step: &'a StepStatus,
    key: IdempotencyKey,
}

impl Asked<'_> {
    /// Did it call for this change, in this process?
    fn for_(&self, write: &Write, request: &RequestInfo) -> Option<()> {
        let is_own = object(write)["metadata"]["annotations"][KEY_ANNOTATION] == json!(self.key.to_string());
        let kind = object(write)["kind"].as_str()?;
        let runner = self.step.runner.as_deref().unwrap_or_default();
        let runs = self.step.state == StepState::Running && runner.starts_with(&format!("{}_", request.client));
        let called_for = match (self.step.step_type, self.step.state) {
            // What it keeps of its result (`outputSecret`).
            _ if kind == "Secret" && write.verb == Verb::Patch && is_own => {
                runs || self.step.state == StepState::Waiting
            }
            (StepType::Job | StepType::Operation, StepState::Running) => {
                runs && is_own && write.verb == Verb::Create && write.change.before.is_none()
            }
            (StepType::Job, StepState::Cancelling) => is_own && write.verb == Verb::Delete,
            (StepType::Operation, StepState::Cancelling) => is_own && write.verb == Verb::Patch,
            (StepType::Kubernetes, StepState::Running) => runs && self.asks(write, is_own)?,
            _ => false,
        };
        called_for.then_some(())
    }

    /// Is this change what its request asks for?
    fn asks(&self, write: &Write, is_own: bool) -> Option<bool> {
        let (workflow, status) = (self.workflow?, self.operation.status.as_ref()?);
        let flow = workflow.step(&self.step.name)?;
        let identity = Identity {
            namespace: self.operation.namespace()?,
            name: self.operation.name_any(),
            uid: self.operation.uid()?,
            ..Identity::default()
        };
        let scope = engine::scope(workflow, flow, &self.step.name, &identity, self.spec, status).ok()?;
        let request = engine::request(flow, &scope, &self.key).ok()?.value;
        let asked: Kubernetes = serde_json::from_value(request).ok()?;
        let about = |kind: &str, name: &str, namespace: Option<&str>| {
            let key = &write.change.key;
            let namespace = namespace.unwrap_or(&identity.namespace);
            let place = key.namespace.is_empty() || key.namespace == namespace;
            place && key.name == name && object(write)["kind"] == json!(kind)
        };
        let about_object = |of: &ResourceRef| about(&of.kind, &of.name, of.namespace.as_deref());
        let about_manifest = |of: Map<String, Value>| {
            let of = Value::Object(of);
            let text = |pointer: &str| of.pointer(pointer).and_then(Value::as_str);
            let (kind, name) = (
                text("/kind").unwrap_or_default(),
                text("/metadata/name").unwrap_or_default(),
            );
            about(kind, name, text("/metadata/namespace"))
        };
        let uid = write.change.before.as_ref().map(|before| &before["metadata"]["uid"]);
        let is_target = uid.and_then(Value::as_str) == self.step.target.as_deref();
        Some(match (write.verb, &*write.subresource) {
            (Verb::Create, "") => is_own && asked.create.is_some_and(|create| about_manifest(create.manifest)),
            (Verb::Patch, "") => {
                let applied = asked.apply.is_some_and(|apply| about_manifest(apply.manifest));
                applied || asked.patch.is_some_and(|patch| about_object(&patch.resource))
            }
            (Verb::Update, "scale") => asked.scale.is_some_and(|scale| about_object(&scale.resource)),
            (Verb::Delete, "") => is_target && asked.delete.is_some_and(|delete| about_object(&delete.resource)),
            (_, "eviction") => is_target && asked.evict.is_some_and(|evict| about_object(&evict.pod())),
            _ => false,
        })
    }
}

fn object(write: &Write) -> &Value {
    let after = write.change.after.as_ref().map(|after| &after.object);
    after.or(write.change.before.as_ref()).unwrap()
}

/// The last state of each object of a resource.
fn last<'a>(writes: &'a [Write], resource: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    let mut last = BTreeMap::new();
    for write in writes.iter().filter(|write| write.change.key.resource == resource) {
        last.insert(&write.change.key, write.change.after.as_ref());
    }
    last.into_values().flatten().map(|after| &*after.object)
}

/// The operations whose steps act as this user. One that can't be read has none.
fn operations(writes: &[Write], user: &str) -> Vec<CloudOperation> {
    let readable = last(writes, "cloudoperations").filter_map(|object| serde_json::from_value(object.clone()).ok());
    let acts_so = |operation: &CloudOperation| {
        let (namespace, account) = (
            operation.namespace().unwrap_or_default(),
            operation.spec.service_account(),
        );
        user == format!("system:serviceaccount:{namespace}:{account}")
    };
    readable.filter(acts_so).collect()
}

/// All that was ever recorded of the steps of an operation.
fn entries(writes: &[Write], uid: &str) -> impl Iterator<Item = StepStatus> {
    let of_it = move |object: &&Value| object["kind"] == "CloudOperation" && object["metadata"]["uid"] == json!(uid);
    let states = writes
        .iter()
        .filter_map(|write| Some(&*write.change.after.as_ref()?.object))
        .filter(of_it);
    let steps = states.flat_map(|object| object["status"]["steps"].as_array().cloned().unwrap_or_default());
    steps.map(|step| serde_json::from_value(step).unwrap())
}

/// An operation's spec with its template filled in.
fn whole(server: &ApiServer, operation: &CloudOperation) -> CloudOperationSpec {
    let name = operation.spec.template_ref.as_ref().map(|template| &template.name);
    let template = name.and_then(|name| server.get::<OperationTemplate>(&operation.namespace()?, name));
    let spec = template.map(|template| serde_json::to_value(template.spec).unwrap());
    match spec {
        Some(Value::Object(template)) => engine::resolve(&operation.spec, &template).spec,
        _ => operation.spec.clone(),
    }
}

fn leads(writes: &[Write], client: &str) -> bool {
    let mut leases = last(writes, "leases");
    let holder = |lease: &Value| lease["spec"]["holderIdentity"].as_str().map(str::to_owned);
    leases.any(|lease| holder(lease).is_some_and(|holder| holder.starts_with(&format!("{client}_"))))
}

/// Was what was created here removed by somebody who is no operator?
fn was_taken_away(created: &Write, writes: &[Write], requests: &[RequestInfo]) -> bool {
    let removed = writes
        .iter()
        .filter(|write| write.change.key == created.change.key && write.change.after.is_none());
    let after = removed
        .filter(|write| write.change.revision > created.change.revision)
        .min_by_key(|write| write.change.revision);
    after.is_some_and(|write| {
        let by = usize::try_from(write.request)
            .unwrap()
            .checked_sub(1)
            .map(|number| &requests[number]);
        by.is_none_or(|by| !by.client.starts_with("operator"))
    })
}
