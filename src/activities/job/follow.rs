//! Following a Job to its end, and finding out what came of it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DynamicObject;
use serde_json::Value;
use tokio::time::sleep;

use super::pods;
use crate::activities::AttemptContext;
use crate::activities::backoff::Backoff;
use crate::activities::call::{Target, Verb, call, call_text, request};
use crate::activities::clients::ServiceAccount;
use crate::activities::discovery::ResourceType;
use crate::activities::watches::{Watches, Which};
use crate::api::ExternalRef;
use crate::engine::{AttemptFailure, Outcome, shorten};

/// The label by which a Job's Pods are found.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// How often a read that explains a failure is tried before the failure is told without it.
const EXPLANATION_TRIES: usize = 3;

/// How long a Job may be without a Pod before that is told.
const WITHOUT_POD: Duration = Duration::from_secs(30);

/// Is told what a Job waits for, whenever that changes.
pub type Progress = Arc<dyn Fn(String) + Send + Sync>;

/// Follows a Job to its end: `result` is what its first container wrote to its termination message.
pub async fn follow(
    context: &AttemptContext,
    watches: &Watches,
    external: &ExternalRef,
    progress: &Progress,
) -> Outcome {
    let end = tokio::select! {
        biased;
        end = end_of(context, watches, external, progress) => end,
        never = tell_of_pods(context, watches, external, progress) => match never {},
    };
    let done = match end {
        End::Complete => output(context, external, progress).await,
        End::Failed(why) => Err(failure(context, external, &why).await),
        End::Vanished => Err(vanished(context, external)),
    };
    match done {
        Ok(result) => Outcome::succeeded(result),
        Err(failure) => Outcome::Failed(failure),
    }
}

/// How a Job ended.
enum End {
    Complete,
    /// Why, in the Job's words.
    Failed(String),
    Vanished,
}

fn end(job: Option<&DynamicObject>, uid: &str) -> Option<End> {
    let Some(job) = job.filter(|job| job.metadata.uid.as_deref() == Some(uid)) else {
        return Some(End::Vanished);
    };
    let conditions = job.data.pointer("/status/conditions").and_then(Value::as_array)?;
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    conditions
        .iter()
        .filter(|condition| condition["status"] == "True")
        .find_map(|condition| match text(condition, "type").as_str() {
            "Complete" => Some(End::Complete),
            "Failed" => Some(End::Failed(format!(
                "{}: {}",
                text(condition, "reason"),
                text(condition, "message")
            ))),
            _ => None,
        })
}

async fn end_of(context: &AttemptContext, watches: &Watches, external: &ExternalRef, progress: &Progress) -> End {
    let waits = format!("waiting for Job {} to end", external.name);
    until(context, watches, external, progress, (waits, false), end).await
}

/// Waits until a Job that is being deleted is gone, and so are its Pods.
pub async fn gone(context: &AttemptContext, watches: &Watches, external: &ExternalRef, progress: &Progress) {
    let waits = format!("the Pods of Job {} are still being stopped", external.name);
    let gone = |job: Option<&DynamicObject>, uid: &str| match job {
        Some(job) if job.metadata.uid.as_deref() == Some(uid) => None,
        _ => Some(()),
    };
    until(context, watches, external, progress, (waits, true), gone).await;
}

/// Shows `ends` the Job, with the uid that it is to have, until that answers something. What is waited for is told from the
/// start where that is said, else once it was told that the Job can't be followed.
async fn until<T: Send + 'static>(
    context: &AttemptContext,
    watches: &Watches,
    external: &ExternalRef,
    progress: &Progress,
    (waits, mut tell): (String, bool),
    ends: fn(Option<&DynamicObject>, &str) -> Option<T>,
) -> T {
    let jobs = ResourceType::namespaced::<Job>();
    let mut backoff = Backoff::default();
    loop {
        let (uid, waits, progress_again) = (external.uid.clone(), waits.clone(), progress.clone());
        let check = move |job: Option<&DynamicObject>| {
            let end = ends(job, &uid);
            if end.is_none() && std::mem::take(&mut tell) {
                progress_again(waits.clone());
            }
            end
        };
        let which = Which::Named(&external.name);
        match watches
            .wait_for(
                &ServiceAccount::of(context),
                &jobs,
                Some(&context.namespace),
                which,
                check,
            )
            .await
        {
            Ok(end) => return end,
            Err(failure) => progress(format!("Job {} can't be followed: {failure}", external.name)),
        }
        tell = true;
        sleep(backoff.next()).await;
    }
}

/// Tells why the Job's Pod doesn't start, for as long as the Job is followed.
async fn tell_of_pods(
    context: &AttemptContext,
    watches: &Watches,
    external: &ExternalRef,
    progress: &Progress,
) -> Infallible {
    let pods = ResourceType::namespaced::<Pod>();
    let (name, progress_of_pods) = (external.name.clone(), progress.clone());
    let told = Mutex::new(None);
    let tell = move |waits: Option<String>| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if waits != *told {
            let what = waits.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            progress_of_pods(format!("waiting for Job {name} to end{what}"));
            *told = waits;
        }
    };
    let tell = Arc::new(tell);
    let (seen, has_pod) = tokio::sync::watch::channel(false);
    let tell_of_pod = tell.clone();
    let check = move |pod: Option<&DynamicObject>| -> Option<Infallible> {
        let pod: Option<Pod> = pod.and_then(|pod| pod.clone().try_parse().ok());
        let had_one = seen.send_replace(*seen.borrow() || pod.is_some());
        if had_one || pod.is_some() {
            tell_of_pod(pod.as_ref().and_then(pods::waiting));
        }
        None
    };
    let without_pod = async {
        sleep(WITHOUT_POD).await;
        if !*has_pod.borrow() {
            let (job, namespace) = (&external.name, &context.namespace);
            tell(Some(format!(
                "it has no Pod yet; kubectl describe job {job} -n {namespace} says why"
            )));
        }
        std::future::pending::<Infallible>().await
    };
    let which = Which::Labelled(JOB_NAME, &external.name);
    let account = ServiceAccount::of(context);
    let watched = watches.wait_for(&account, &pods, Some(&context.namespace), which, check);
    let watched = tokio::select! {
        watched = watched => watched,
        never = without_pod => match never {},
    };
    match watched {
        Ok(never) => never,
        Err(failure) => {
            progress(format!(
                "waiting for Job {} to end; its pods can't be seen: {failure}",
                external.name
            ));
            std::future::pending().await
        }
    }
}

fn vanished(context: &AttemptContext, external: &ExternalRef) -> AttemptFailure {
    let message = format!(
        "Job {} in namespace {} (uid {}) is gone, and with it whether it did its work: look at what it was to do, then say whether it was done: complete, retry or skip the step",
        external.name, context.namespace, external.uid
    );
    AttemptFailure::unknown("Vanished", message)
}

/// The Job has done its work, so its output is waited for: failing would run it again.
async fn output(
    context: &AttemptContext,
    external: &ExternalRef,
    progress: &Progress,
) -> Result<Value, AttemptFailure> {
    let mut backoff = Backoff::default();
    loop {
        match pods_of(context, external).await {
            Ok(pods) => {
                return match pods::succeeded(&pods) {
                    Some(pod) => pods::output(&external.name, pod),
                    None if !context.result_counts => Ok(Value::Null),
                    None => Err(lost(external)),
                };
            }
            Err(failure) => progress(format!(
                "Job {} succeeded; its output can't be read: {}",
                external.name, failure.message
            )),
        }
        sleep(backoff.next()).await;
    }
}

/// A node that goes takes its Pods with it, also those that have ended, and with them what they wrote.
fn lost(external: &ExternalRef) -> AttemptFailure {
    let message = format!(
        "Job {} succeeded, but the Pod that did its work is gone, and with it what it wrote to /dev/termination-log: look at what it did, then skip the step with the output that it should have had",
        external.name
    );
    AttemptFailure::done("OutputLost", message)
}

/// The Pods that the Job made.
async fn pods_of(context: &AttemptContext, external: &ExternalRef) -> Result<Vec<Pod>, AttemptFailure> {
    let pods = ResourceType::namespaced::<Pod>();
    let target = Target::collection(&pods, Some(&context.namespace));
    let path = format!("{}?labelSelector={JOB_NAME}%3D{}", target.path(), external.name);
    let listed = call(context, Verb::List, request("GET", path, None)).await;
    let mut listed = listed.map_err(|error| error.failure(context, Verb::List, &target))?;
    let items = listed["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let pods = items
        .into_iter()
        .filter_map(|pod| serde_json::from_value::<Pod>(pod).ok());
    let owned = |pod: &Pod| {
        pod.metadata
            .owner_references
            .iter()
            .flatten()
            .any(|owner| owner.uid == external.uid)
    };
    Ok(pods.filter(owned).collect())
}

/// Why the Job failed, as far as it can be found out.
async fn failure(context: &AttemptContext, external: &ExternalRef, why: &str) -> AttemptFailure {
    let mut parts = Vec::new();
    match tried(|| pods_of(context, external)).await {
        Ok(pods) => {
            if let Some(pod) = pods::last(&pods) {
                explain(context, pod, &mut parts).await;
            }
        }
        Err(failure) => parts.push(format!("its pods can't be seen: {}", failure.message)),
    }
    parts.insert(parts.len().min(1), format!("the Job says {why}"));
    AttemptFailure::retryable(
        "JobFailed",
        format!("Job {} failed: {}", external.name, parts.join("; ")),
    )
}

async fn explain(context: &AttemptContext, pod: &Pod, parts: &mut Vec<String>) {
    let own = pods::own_reason(pod);
    let Some(failed) = pods::failed(pod) else {
        parts.extend(own.or_else(|| pods::waiting(pod)));
        return;
    };
    parts.push(failed.what.clone());
    parts.extend(own);
    if context.sensitive {
        return;
    }
    if !failed.said.is_empty() {
        parts.push(format!("it wrote: {}", shorten(failed.said, 512)));
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    match tried(|| log_of(context, name, failed.container)).await {
        Ok(log) if log.is_empty() => {}
        Ok(log) => parts.push(format!("the last lines of its log:\n{log}")),
        Err(failure) => parts.push(format!("its log can't be read: {}", failure.message)),
    }
}

async fn log_of(context: &AttemptContext, pod: &str, container: &str) -> Result<String, AttemptFailure> {
    let pods = ResourceType::namespaced::<Pod>();
    let target = Target::object(&pods, Some(&context.namespace), pod).below("log");
    let path = format!("{}?container={container}&tailLines=10&limitBytes=65536", target.path());
    let log = call_text(context, Verb::Get, request("GET", path, None)).await;
    let log = log.map_err(|error| error.failure(context, Verb::Get, &target))?;
    Ok(pods::log_tail(&String::from_utf8_lossy(&log)))
}

/// Tries a read that only explains: a few times, unless access to it is denied.
async fn tried<T, F>(mut read: impl FnMut() -> F) -> Result<T, AttemptFailure>
where
    F: Future<Output = Result<T, AttemptFailure>>,
{
    let mut backoff = Backoff::default();
    let mut tries = 1;
    loop {
        match read().await {
            Err(failure) if tries < EXPLANATION_TRIES && failure.reason != "AccessDenied" => {
                tries += 1;
                sleep(backoff.next()).await;
            }
            done => return done,
        }
    }
}
