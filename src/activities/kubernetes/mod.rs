//! The `kubernetes` step: one request about objects of any kind, as the operation's service account.
//!
//! Each request may be made more than once, under the same key: after a lost answer, and by the process that takes over.
//! So each is one that can be: applying and scaling come to the same when done again, a created object and a JSON patch
//! leave the key behind, what is changed is read first and written with the version that was read, and which object is to be
//! removed is recorded before it is.

mod create;
pub mod kstatus;
mod patch;
mod read;
mod remove;
mod secrets;
#[cfg(test)]
mod tests;
mod wait;

use std::sync::Arc;

use serde_json::{Map, Value};

pub use self::patch::PATCH_ANNOTATION;
pub use self::wait::{describe, wait};
use super::call::{CallError, Target, Verb, call, request};
use super::discovery::{Discovery, ResourceType};
use super::{Aim, AttemptContext};
use crate::api::{self, ResourceRef};
use crate::engine::{AttemptFailure, Outcome};

/// How often a write is made anew because others changed the object meanwhile, before the attempt fails.
const CONFLICT_TRIES: usize = 5;

type Done = Result<Value, AttemptFailure>;

/// Makes the request. `wait` is none, but a state that lasts: see [`wait()`].
pub async fn run(context: &AttemptContext, discovery: &Discovery, request: &api::Kubernetes) -> Outcome {
    let act = Act { context, discovery };
    let api::Kubernetes {
        apply,
        create,
        patch,
        scale,
        delete,
        evict,
        get,
        list,
        wait: _,
    } = request;
    let done = if let Some(apply) = apply {
        create::apply(act, apply).await
    } else if let Some(create) = create {
        create::create(act, create).await
    } else if let Some(patch) = patch {
        patch::patch(act, patch).await
    } else if let Some(scale) = scale {
        patch::scale(act, scale).await
    } else if let Some(delete) = delete {
        remove::delete(act, delete).await
    } else if let Some(evict) = evict {
        remove::evict(act, evict).await
    } else if let Some(get) = get {
        read::get(act, get).await
    } else if let Some(list) = list {
        read::list(act, list).await
    } else {
        Err(AttemptFailure::definite(
            "Invalid",
            "kubernetes asks for nothing that is done by a request",
        ))
    };
    match done {
        Ok(result) => Outcome::succeeded(result),
        Err(failure) => Outcome::Failed(secrets::masked(request, failure)),
    }
}

/// What a request is to remove, if it is one that removes: see [`super::Activities::aim`].
pub async fn aim(
    context: &AttemptContext,
    discovery: &Discovery,
    request: &api::Kubernetes,
) -> Result<Option<Aim>, AttemptFailure> {
    let act = Act { context, discovery };
    let aim = match (&request.delete, &request.evict) {
        (Some(delete), _) => remove::aim(act, &delete.resource).await,
        (None, Some(evict)) => remove::aim(act, &evict.pod()).await,
        (None, None) => return Ok(None),
    };
    aim.map_err(|failure| secrets::masked(request, failure))
}

/// Who acts, and what the API server knows.
#[derive(Clone, Copy)]
struct Act<'a> {
    context: &'a AttemptContext,
    discovery: &'a Discovery,
}

/// An object that a request is about.
struct Object {
    resource: Arc<ResourceType>,
    namespace: Option<String>,
    name: String,
}

impl Object {
    fn target(&self) -> Target<'_> {
        Target::object(&self.resource, self.namespace.as_deref(), &self.name)
    }
}

impl Act<'_> {
    /// Finds the object that a reference names.
    async fn object(self, reference: &ResourceRef) -> Result<Object, AttemptFailure> {
        locate(self.context, self.discovery, reference).await
    }

    /// Makes a request.
    async fn call(self, verb: Verb, request: Result<http::Request<Vec<u8>>, CallError>) -> Result<Value, CallError> {
        call(self.context, verb, request).await
    }

    /// What a request's error means for the attempt.
    fn failure(self, error: CallError, verb: Verb, target: &Target<'_>) -> AttemptFailure {
        let failure = error.failure(self.context, verb, target);
        if failure.reason == "KindNotFound" {
            self.discovery.forget(&target.resource.api.api_version);
        }
        failure
    }

    /// Reads an object.
    async fn read(self, target: &Target<'_>) -> Result<Value, CallError> {
        self.call(Verb::Get, request("GET", target.path(), None)).await
    }
}

/// Finds the object that a reference names: in the operation's namespace, unless it says another.
async fn locate(
    context: &AttemptContext,
    discovery: &Discovery,
    reference: &ResourceRef,
) -> Result<Object, AttemptFailure> {
    let ResourceRef {
        api_version,
        kind,
        name,
        namespace,
    } = reference;
    let resource = discovery.find(api_version, kind).await?;
    let namespace = namespace_of(context, &resource, namespace.as_deref())?;
    Ok(Object {
        resource,
        namespace,
        name: path_part(name, "name")?.to_owned(),
    })
}

/// The namespace of a request: the operation's, unless it says another; none for kinds that are in no namespace.
fn namespace_of(
    context: &AttemptContext,
    resource: &ResourceType,
    given: Option<&str>,
) -> Result<Option<String>, AttemptFailure> {
    match given {
        Some(namespace) if !resource.namespaced => Err(AttemptFailure::definite(
            "Invalid",
            format!(
                "a {} is in no namespace: leave out namespace ({namespace:?})",
                resource.api.kind
            ),
        )),
        Some(namespace) => Ok(Some(path_part(namespace, "namespace")?.to_owned())),
        None => Ok(resource.namespaced.then(|| context.namespace.clone())),
    }
}

/// A name becomes a part of a path, so it must be one part: what an expression computed can't reach another object.
fn path_part<'a>(text: &'a str, field: &str) -> Result<&'a str, AttemptFailure> {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-._:@".contains(&b);
    if text.is_empty() || text == "." || text == ".." || text.len() > 253 || !text.bytes().all(safe) {
        let message = format!("{field} {text:?} is not one that an object can have");
        return Err(AttemptFailure::definite("Invalid", message));
    }
    Ok(text)
}

/// A manifest's object, with the manifest as it is sent.
async fn manifest(act: Act<'_>, manifest: &Map<String, Value>) -> Result<(Object, Value), AttemptFailure> {
    let mut manifest = Value::Object(manifest.clone());
    let text = |pointer: &'static str| {
        manifest
            .pointer(pointer)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let required = |pointer: &'static str| {
        let missing = || format!("manifest{} must be a text", pointer.replace('/', "."));
        text(pointer)
            .map(str::to_owned)
            .ok_or_else(|| AttemptFailure::definite("Invalid", missing()))
    };
    let reference = ResourceRef {
        api_version: required("/apiVersion")?,
        kind: required("/kind")?,
        name: required("/metadata/name")?,
        namespace: text("/metadata/namespace").map(str::to_owned),
    };
    let object = act.object(&reference).await?;
    if let Some(namespace) = &object.namespace {
        manifest["metadata"]["namespace"] = namespace.clone().into();
    }
    Ok((object, manifest))
}

/// An object as it is answered: without the bookkeeping of field managers, and without what Secrets hold.
fn presented(resource: &ResourceType, mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if resource.is_secret() {
        secrets::mask(&mut object);
    }
    object
}
