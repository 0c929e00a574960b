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
use super::watches::Watches;
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

/// Stops a Job: the one that was accepted, or the one that the attempt may have created. It has stopped once nothing of it
/// runs any more: its deletion is a foreground one, so the Job is there until its Pods are gone. `progress` is told that they
/// are waited for.
///
/// # Errors
/// If it may still run.
pub async fn stop(
    context: &AttemptContext,
    watches: &Watches,
    external: Option<&ExternalRef>,
    progress: &Progress,
) -> Result<(), AttemptFailure> {
    let jobs = ResourceType::namespaced::<Job>();
    let name = external.map_or_else(|| created::name(context), |external| external.name.clone());
    let target = Target::object(&jobs, Some(&context.namespace), &name);
    let found = match external {
        Some(external) => Some(external.clone()),
        None => created::find(context, &target, "Job").await?,
    };
    let Some(external) = found else {
        return Ok(());
    };
    let options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Foreground",
        "preconditions": {"uid": external.uid},
    });
    let deleted = call(
        context,
        Verb::Delete,
        request("DELETE", target.path(), Some((JSON, &options))),
    )
    .await;
    match deleted {
        Ok(_) => {
            follow::gone(context, watches, &external, progress).await;
            Ok(())
        }
        Err(error) if error.is_not_found() => Ok(()),
        // Another object has its name: then it is gone, as wanted. But the API server also says so where others kept
        // changing it.
        Err(conflict) if conflict.is_conflict() => match created::is_there(context, &target, &external).await? {
            true => Err(conflict.failure(context, Verb::Delete, &target)),
            false => Ok(()),
        },
        Err(error) => Err(error.failure(context, Verb::Delete, &target)),
    }
}
