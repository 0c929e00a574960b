//! Delete and evict: requests after which an object is gone. One that is gone already is as wanted.

use serde_json::{Value, json};

use super::{Act, CONFLICT_TRIES, Done, presented};
use crate::activities::call::{CallError, JSON, Target, Verb, request};
use crate::api::{Delete, Evict};
use crate::engine::{AttemptFailure, RetryAdvice};

/// Deletes the object that is there now: not one that takes its name meanwhile.
pub async fn delete(act: Act<'_>, delete: &Delete) -> Done {
    let object = act.object(&delete.resource).await?;
    let target = object.target();
    let Some(seen) = aim(act, &target).await? else {
        return Ok(json!({}));
    };
    let options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": delete.propagation_policy.unwrap_or_default(),
        "preconditions": {"uid": seen["metadata"]["uid"]},
    });
    for _ in 0..CONFLICT_TRIES {
        let sent = request("DELETE", target.path(), Some((JSON, &options)));
        match act.call(Verb::Delete, sent).await {
            // Answered is the object if something still holds it, else only that it is done.
            Ok(answer) if answer["kind"] == "Status" => return Ok(presented(&object.resource, seen)),
            Ok(deleted) => return Ok(presented(&object.resource, deleted)),
            Err(error) if error.is_not_found() => return Ok(presented(&object.resource, seen)),
            Err(error) if error.is_conflict() => {
                if find(act, &target, &seen["metadata"]["uid"]).await?.is_none() {
                    return Ok(presented(&object.resource, seen));
                }
            }
            Err(error) => return Err(act.failure(error, Verb::Delete, &target)),
        }
    }
    let message = format!("delete of {target}: each of {CONFLICT_TRIES} times it was changed meanwhile");
    Err(AttemptFailure::retryable("Conflict", message))
}

/// Evicts the Pod that is there now, if disruption budgets have room.
pub async fn evict(act: Act<'_>, evict: &Evict) -> Done {
    let pod = act.object(&evict.pod()).await?;
    let target = pod.target();
    let Some(seen) = aim(act, &target).await? else {
        return Ok(json!({}));
    };
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": {"preconditions": {"uid": seen["metadata"]["uid"]}},
    });
    let below = target.below("eviction");
    let sent = request("POST", below.path(), Some((JSON, &eviction)));
    let error = match act.call(Verb::Create, sent).await {
        Ok(_) => return Ok(presented(&pod.resource, seen)),
        Err(error) => error,
    };
    let gone =
        error.is_not_found() || error.is_conflict() && find(act, &target, &seen["metadata"]["uid"]).await?.is_none();
    if gone {
        return Ok(presented(&pod.resource, seen));
    }
    Err(no_room(act, &error, &target.to_string()).unwrap_or_else(|| act.failure(error, Verb::Create, &below)))
}

/// The object that is to go, if it is there. Which one that is, is recorded before anything is done: after an answer that was
/// lost, another may have its name.
async fn aim(act: Act<'_>, target: &Target<'_>) -> Result<Option<Value>, AttemptFailure> {
    let aim = &act.context.aim;
    if let Some(uid) = &aim.taken {
        return find(act, target, &json!(uid)).await;
    }
    let seen = read(act, target).await?;
    if let (Some(seen), Some(record)) = (&seen, &aim.record) {
        record(seen["metadata"]["uid"].as_str().unwrap_or_default().to_owned()).await;
    }
    Ok(seen)
}

/// The object of this uid, if it is there.
async fn find(act: Act<'_>, target: &Target<'_>, uid: &Value) -> Result<Option<Value>, AttemptFailure> {
    Ok(read(act, target).await?.filter(|seen| seen["metadata"]["uid"] == *uid))
}

async fn read(act: Act<'_>, target: &Target<'_>) -> Result<Option<Value>, AttemptFailure> {
    match act.read(target).await {
        Ok(seen) => Ok(Some(seen)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(act.failure(error, Verb::Get, target)),
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
