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
use serde_json::json;

pub use self::follow::{Progress, follow};
use super::AttemptContext;
use super::call::{JSON, Target, Verb, call, request};
use super::created;
use super::discovery::ResourceType;
use crate::api::{self, ExternalRef};
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
    let (manifest, name) = (manifest::manifest(context, job)?, created::name(context));
    let target = Target::object(&jobs, Some(&context.namespace), &name);
    created::create(context, &target, "Job", &manifest).await
}

/// Stops a Job: the one that was accepted, or the one that the attempt may have created.
///
/// # Errors
/// If it may still run.
pub async fn stop(context: &AttemptContext, external: Option<&ExternalRef>) -> Result<(), AttemptFailure> {
    let jobs = ResourceType::namespaced::<Job>();
    let name = external.map_or_else(|| created::name(context), |external| external.name.clone());
    let target = Target::object(&jobs, Some(&context.namespace), &name);
    let found = match external {
        Some(external) => Some(external.clone()),
        None => created::find(context, &target, "Job").await?,
    };
    let Some(ExternalRef { uid, .. }) = found else {
        return Ok(());
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
