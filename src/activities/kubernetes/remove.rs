//! Delete and evict: requests after which an object is gone. One that is gone already is as wanted.

use serde_json::json;

use super::{Act, CONFLICT_TRIES, Done, presented};
use crate::activities::call::{CallError, JSON, Verb, request};
use crate::api::{Delete, Evict};
use crate::engine::{AttemptFailure, RetryAdvice};

/// Deletes the object that is there now: not one that takes its name meanwhile.
pub async fn delete(act: Act<'_>, delete: &Delete) -> Done {
    let object = act.object(&delete.resource).await?;
    let target = object.target();
    let propagation = json!(delete.propagation_policy.unwrap_or_default());
    for _ in 0..CONFLICT_TRIES {
        let seen = match act.read(&target).await {
            Ok(seen) => seen,
            Err(error) if error.is_not_found() => return Ok(json!({})),
            Err(error) => return Err(act.failure(error, Verb::Get, &target)),
        };
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {"uid": seen["metadata"]["uid"]},
        });
        let sent = request("DELETE", target.path(), Some((JSON, &options)));
        match act.call(Verb::Delete, sent).await {
            // Answered is the object if something still holds it, else only that it is done.
            Ok(answer) if answer["kind"] == "Status" => return Ok(presented(&object.resource, seen)),
            Ok(deleted) => return Ok(presented(&object.resource, deleted)),
            Err(error) if error.is_not_found() => return Ok(presented(&object.resource, seen)),
            Err(error) if error.is_conflict() => {} // another object has the name now
            Err(error) => return Err(act.failure(error, Verb::Delete, &target)),
        }
    }
    let message = format!("delete of {target}: each of {CONFLICT_TRIES} times it was replaced meanwhile");
    Err(AttemptFailure::retryable("Conflict", message))
}

/// Evicts the Pod that is there now, if disruption budgets have room.
pub async fn evict(act: Act<'_>, evict: &Evict) -> Done {
    let pod = act.object(&evict.pod()).await?;
    let target = pod.target();
    let seen = match act.read(&target).await {
        Ok(seen) => seen,
        Err(error) if error.is_not_found() => return Ok(json!({})),
        Err(error) => return Err(act.failure(error, Verb::Get, &target)),
    };
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": {"preconditions": {"uid": seen["metadata"]["uid"]}},
    });
    let below = target.below("eviction");
    let sent = request("POST", below.path(), Some((JSON, &eviction)));
    match act.call(Verb::Create, sent).await {
        Ok(_) => Ok(presented(&pod.resource, seen)),
        Err(error) if error.is_not_found() => Ok(presented(&pod.resource, seen)),
        // Another Pod has the name now: the one that was to go is gone.
        Err(error) if error.is_conflict() => Ok(presented(&pod.resource, seen)),
        Err(error) => {
            Err(no_room(act, &error, &target.to_string()).unwrap_or_else(|| act.failure(error, Verb::Create, &below)))
        }
    }
}

/// A disruption budget without room: not the API server's own 429, which any request may get.
fn no_room(act: Act<'_>, error: &CallError, pod: &str) -> Option<AttemptFailure> {
    let CallError::Answered {
        code: 429,
        status,
        retry_after,
    } = error
    else {
        return None;
    };
    let causes = &status.details.as_ref()?.causes;
    let cause = causes.iter().find(|cause| cause.reason == "DisruptionBudget")?;
    let said = if act.context.sensitive {
        error.said(act.context)
    } else {
        cause.message.clone()
    };
    let message = format!("{pod} can't be evicted yet: {said}");
    let failure = AttemptFailure::retryable("DisruptionBudget", message);
    Some(match retry_after {
        Some(wait) => AttemptFailure {
            retry: RetryAdvice::After(*wait),
            ..failure
        },
        None => failure,
    })
}
