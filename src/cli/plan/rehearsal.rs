//! Requests as the operator would make them, but as the user, and so that nothing comes of them: reads are made, writes are
//! tried by the API server (`dryRun=All`), with its admission and its schemas.
//!
//! It is the operator's own code that makes them. What keeps it from changing anything is the client that it is given,
//! which turns every request that isn't a read into a dry run, or doesn't send it.

use std::sync::Arc;

use http::{Method, Request, Uri};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Map, Value, json};
use tower::BoxError;

use crate::activities::discovery::Discovery;
use crate::activities::{AttemptContext, Claim, job, kubernetes, operation};
use crate::api::{Evict, Get, Kubernetes, ResourceRef, StepType};
use crate::cli::diff::{Difference, Others, differences};
use crate::engine::expression::Scope;
use crate::engine::{AttemptFailure, IdempotencyKey, Identity, Outcome};

/// What a request would do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// It reads.
    Read(Value),
    /// It would create an object.
    Create,
    /// It would change an object.
    Change(Vec<Difference>),
    /// It would change an object, but what of it isn't shown.
    ChangeUnseen,
    /// It would delete an object.
    Delete,
    /// The object is as it is to be.
    Nothing,
}

/// What is tried.
pub struct Attempt<'a> {
    /// The operation that would.
    pub identity: &'a Identity,
    /// As whom it would act.
    pub service_account: &'a str,
    /// The step.
    pub step: &'a str,
    /// What it does.
    pub step_type: StepType,
    /// Its request, filled in.
    pub request: Value,
    /// True if nothing of the answer may be shown.
    pub sensitive: bool,
}

/// What tries a request.
pub trait Rehearse {
    /// Tries a request.
    async fn attempt(&self, attempt: Attempt<'_>) -> Result<Effect, AttemptFailure>;
}

/// Tries requests on a cluster.
pub struct Rehearsal {
    client: Client,
    discovery: Discovery,
}

impl Rehearsal {
    /// With this client's rights.
    pub fn new(client: Client) -> Self {
        let client = harmless(client);
        Self {
            discovery: Discovery::new(client.clone()),
            client,
        }
    }

    async fn request(&self, context: &AttemptContext, request: &Kubernetes) -> Result<Value, AttemptFailure> {
        match kubernetes::run(context, &self.discovery, request).await {
            Outcome::Succeeded { result, .. } => Ok(result),
            Outcome::Accepted { .. } => Ok(Value::Null), // not reached: a request is no Job
            Outcome::Failed(failure) => Err(failure),
        }
    }

    async fn kubernetes(&self, context: &AttemptContext, request: Kubernetes) -> Result<Effect, AttemptFailure> {
        let Some(reference) = written(&request) else {
            return Ok(Effect::Read(self.request(context, &request).await?));
        };
        let get = Kubernetes {
            get: Some(Get {
                resource: reference.clone(),
            }),
            ..Kubernetes::default()
        };
        // One that may be written but not read is compared with nothing.
        let before = self.request(context, &get).await;
        let after = self.request(context, &request).await?;
        let goes = request.delete.is_some() || request.evict.is_some();
        Ok(match before {
            Err(failure) if failure.reason == "NotFound" && goes => Effect::Nothing,
            Err(failure) if failure.reason == "NotFound" => Effect::Create,
            _ if goes => Effect::Delete,
            Err(_) => Effect::ChangeUnseen,
            Ok(_) if reference.api_version == "v1" && reference.kind == "Secret" => Effect::ChangeUnseen,
            Ok(before) => {
                let before = match &request.scale {
                    // Answered is what all kinds have in common that can be scaled.
                    Some(_) => json!({"spec": {"replicas": before["spec"]["replicas"]}}),
                    None => comparable(before),
                };
                let after = match &request.scale {
                    Some(_) => json!({"spec": {"replicas": after["spec"]["replicas"]}}),
                    None => comparable(after),
                };
                match differences(&before, &after, Others::Differ) {
                    same if same.is_empty() => Effect::Nothing,
                    changes => Effect::Change(changes),
                }
            }
        })
    }
}

impl Rehearse for Rehearsal {
    async fn attempt(&self, attempt: Attempt<'_>) -> Result<Effect, AttemptFailure> {
        let Attempt {
            identity,
            service_account,
            step,
            step_type,
            request,
            sensitive,
        } = attempt;
        let context = AttemptContext {
            namespace: identity.namespace.clone(),
            operation: identity.name.clone(),
            service_account: service_account.to_owned(),
            operation_uid: identity.uid.clone(),
            step: step.to_owned(),
            attempt: 1,
            key: IdempotencyKey::new(&identity.uid, step, 0),
            failures: 0,
            maybe_done: false,
            undoes: false,
            sensitive,
            writes_secret: false,
            result_counts: false,
            scope: Scope::default(),
            kubernetes: self.client.clone(),
            claim: Arc::new(Always),
            target: None,
        };
        let tried = match step_type {
            StepType::Job => created(job::start(&context, &read(request)?).await),
            StepType::Operation => created(operation::start(&context, &read(request)?).await),
            _ => self.kubernetes(&context, read(request)?).await,
        };
        tried.map_err(as_the_user)
    }
}

/// As a process that nobody competes with.
struct Always;

impl Claim for Always {
    fn is_held(&self) -> bool {
        true
    }
}

fn read<T: serde::de::DeserializeOwned>(request: Value) -> Result<T, AttemptFailure> {
    serde_json::from_value(request).map_err(|error| AttemptFailure::definite("InvalidRequest", error.to_string()))
}

fn created(outcome: Outcome) -> Result<Effect, AttemptFailure> {
    match outcome {
        Outcome::Failed(failure) => Err(failure),
        Outcome::Accepted { .. } | Outcome::Succeeded { .. } => Ok(Effect::Create),
    }
}

/// A refusal without the service account that the operator would have acted as: what the API server says names the user.
fn as_the_user(failure: AttemptFailure) -> AttemptFailure {
    let said = match failure.message.split_once(": ") {
        Some((who, said)) if failure.reason == "AccessDenied" && who.starts_with("service account ") => said,
        _ => return failure,
    };
    AttemptFailure {
        message: said.to_owned(),
        ..failure
    }
}

/// The object that a request writes, if it is a write.
fn written(request: &Kubernetes) -> Option<ResourceRef> {
    let manifest = request.apply.as_ref().map(|apply| &apply.manifest);
    let manifest = manifest.or(request.create.as_ref().map(|create| &create.manifest));
    let resource = request.patch.as_ref().map(|patch| &patch.resource);
    let resource = resource
        .or(request.scale.as_ref().map(|scale| &scale.resource))
        .or(request.delete.as_ref().map(|delete| &delete.resource));
    manifest
        .map(|manifest| named_by(manifest).unwrap_or_default())
        .or_else(|| resource.cloned())
        .or_else(|| request.evict.as_ref().map(Evict::pod))
}

/// The object that a manifest is of.
fn named_by(manifest: &Map<String, Value>) -> Option<ResourceRef> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let metadata = manifest.get("metadata")?;
    Some(ResourceRef {
        api_version: text(manifest.get("apiVersion"))?,
        kind: text(manifest.get("kind"))?,
        name: text(metadata.get("name"))?,
        namespace: text(metadata.get("namespace")),
    })
}

/// An object without what every write changes, and what this one leaves behind of itself.
fn comparable(mut object: Value) -> Value {
    if let Value::Object(fields) = &mut object {
        fields.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["resourceVersion", "generation", "managedFields"] {
            metadata.remove(field);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(kubernetes::PATCH_ANNOTATION);
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    object
}

/// A client whose every request is a read or a dry run.
pub fn harmless(base: Client) -> Client {
    let namespace = base.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let base = base.clone();
        async move {
            let answer = base.send(dry(request).await?).await?;
            Ok::<_, BoxError>(answer)
        }
    });
    Client::new(service, namespace)
}

/// The request if it is a read, else as a dry run.
async fn dry(request: Request<Body>) -> Result<Request<Body>, BoxError> {
    let (mut head, body) = request.into_parts();
    if head.method == Method::GET {
        return Ok(Request::from_parts(head, body));
    }
    let uri = head.uri.to_string();
    let separator = if uri.contains('?') { '&' } else { '?' };
    head.uri = format!("{uri}{separator}dryRun=All").parse::<Uri>()?;
    if head.method != Method::DELETE {
        return Ok(Request::from_parts(head, body));
    }
    // Of a DELETE with a body the API server reads nothing else.
    let bytes = body.collect().await?.to_bytes();
    if bytes.is_empty() {
        return Ok(Request::from_parts(head, Body::empty()));
    }
    let mut options: Value = serde_json::from_slice(&bytes)?;
    let fields = options.as_object_mut().ok_or("the options of a DELETE are no object")?;
    fields.insert("dryRun".into(), json!(["All"]));
    Ok(Request::from_parts(head, Body::from(options.to_string().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(method: &str, uri: &str, body: &str) -> (String, String) {
        let request = Request::builder().method(method).uri(uri);
        let request = request.body(Body::from(body.as_bytes().to_vec())).unwrap();
        let (head, body) = dry(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.uri.to_string(), String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn whatever_is_no_read_is_a_dry_run() {
        assert_eq!(sent("GET", "/api/v1/pods?limit=5", "").await.0, "/api/v1/pods?limit=5");
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            assert_eq!(sent(method, "/api/v1/pods", "").await.0, "/api/v1/pods?dryRun=All");
            let (uri, _) = sent(method, "/api/v1/pods/a?force=true", "{}").await;
            assert_eq!(uri, "/api/v1/pods/a?force=true&dryRun=All");
        }
        let (_, body) = sent("DELETE", "/api/v1/pods/a", r#"{"kind":"DeleteOptions"}"#).await;
        assert_eq!(body, r#"{"dryRun":["All"],"kind":"DeleteOptions"}"#);
    }
}
