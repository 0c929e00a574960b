//! The `job` step: a container that runs to its end, as a batch/v1 Job.
//!
//! The attempt creates the Job and is accepted: the Job goes on by itself, whatever becomes of this process, and any
//! process follows it. Its name comes from the step's key, so that an attempt that is made again finds it in place of
//! starting another; its uid is recorded, and a Job that has vanished is unknown, never silently run again.
//!
//! As a failed attempt is followed by another Job, [`follow()`] only fails where this one has ended. That it may not be
//! looked at, or that its Pod can't start, is told as progress while it waits.

mod follow;
mod manifest;
mod pods;

#[cfg(test)]
mod tests;

use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

pub use self::follow::{Progress, follow};
use super::AttemptContext;
use super::call::{CallError, JSON, Target, Verb, call, request};
use super::discovery::ResourceType;
use crate::api::{self, ExternalRef, FIELD_MANAGER, KEY_ANNOTATION};
use crate::engine::{AttemptFailure, Outcome};

/// Creates the step's Job, or finds it again.
pub async fn start(context: &AttemptContext, job: &api::Job) -> Outcome {
    match started(context, job).await {
        Ok(external) => Outcome::Accepted { external },
        Err(failure) => Outcome::Failed(failure),
    }
}

async fn started(context: &AttemptContext, job: &api::Job) -> Result<ExternalRef, AttemptFailure> {
    let jobs = ResourceType::namespaced::<Job>();
    let (manifest, name) = (manifest::manifest(context, job)?, manifest::name(context));
    let target = Target::object(&jobs, Some(&context.namespace), &name);
    let path = format!(
        "{}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict",
        Target { name: None, ..target }.path()
    );
    let created = call(context, Verb::Create, request("POST", path, Some((JSON, &manifest)))).await;
    let job = match created {
        Ok(job) => job,
        Err(error) if error.reason() == "AlreadyExists" => {
            let found = read(context, &target).await;
            let found = found.map_err(|error| error.failure(context, Verb::Get, &target))?;
            if !is_ours(context, &found) {
                let message = format!("{target} exists already, and is not this step's");
                return Err(AttemptFailure::definite("AlreadyExists", message));
            }
            found
        }
        Err(error) => return Err(error.failure(context, Verb::Create, &target)),
    };
    let uid = job["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    Ok(ExternalRef {
        kind: "Job".into(),
        name,
        uid,
    })
}

fn is_ours(context: &AttemptContext, job: &Value) -> bool {
    let metadata = &job["metadata"];
    let owners = metadata["ownerReferences"].as_array();
    let owned = owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == json!(context.operation_uid)));
    owned && metadata["annotations"][KEY_ANNOTATION] == json!(context.key.to_string())
}

async fn read(context: &AttemptContext, target: &Target<'_>) -> Result<Value, CallError> {
    call(context, Verb::Get, request("GET", target.path(), None)).await
}

/// Stops a Job: the one that was accepted, or the one that the attempt may have created.
///
/// # Errors
/// If it may still run.
pub async fn stop(context: &AttemptContext, external: Option<&ExternalRef>) -> Result<(), AttemptFailure> {
    let jobs = ResourceType::namespaced::<Job>();
    let name = external.map_or_else(|| manifest::name(context), |external| external.name.clone());
    let target = Target::object(&jobs, Some(&context.namespace), &name);
    let uid = match external {
        Some(external) => external.uid.clone(),
        None => match read(context, &target).await {
            Ok(job) if is_ours(context, &job) => job["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.failure(context, Verb::Get, &target)),
        },
    };
    let options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        "preconditions": {"uid": uid},
    });
    let deleted = call(
        context,
        Verb::Delete,
        request("DELETE", target.path(), Some((JSON, &options))),
    )
    .await;
    match deleted {
        Ok(_) => Ok(()),
        // Gone, or another object has its name: as wanted either way.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error.failure(context, Verb::Delete, &target)),
    }
}
