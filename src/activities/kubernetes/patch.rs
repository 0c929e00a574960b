//! Patch and scale: changes of an object that is there. It is read first, and the change carries the version that was
//! read: a change that others made meanwhile is not written over unseen, and a late request of a process that no longer
//! leads comes to nothing.

use serde_json::{Value, json};

use super::{Act, CONFLICT_TRIES, Done, presented};
use crate::activities::call::{CallError, JSON, Target, Verb, request};
use crate::api::{FIELD_MANAGER, IntOrTemplate, PatchObject, PatchType, Scale};
use crate::engine::AttemptFailure;

/// The annotation that says which steps' JSON patches an object got last, by their idempotency keys, separated by commas. A
/// merge patch comes to the same when it is made twice; appending to a list doesn't.
pub const PATCH_ANNOTATION: &str = "holdfast.dev/last-json-patch";
/// How many keys an object keeps, the newest last: others patch it before one whose answer was lost tries again.
const KEPT_KEYS: usize = 64;

/// Patches an object.
pub async fn patch(act: Act<'_>, patch: &PatchObject) -> Done {
    let object = act.object(&patch.resource).await?;
    let target = object.target();
    let key = act.context.key.to_string();
    for _ in 0..CONFLICT_TRIES {
        let seen = act
            .read(&target)
            .await
            .map_err(|error| act.failure(error, Verb::Get, &target))?;
        let (content_type, body) = match patch.patch_type.unwrap_or_default() {
            PatchType::Merge => ("application/merge-patch+json", guarded_merge(&patch.patch, &seen)?),
            PatchType::Json => {
                let kept = kept_keys(&seen);
                if kept.contains(&&*key) {
                    return Ok(presented(&object.resource, seen)); // it was done before, and the answer was lost
                }
                // Its key may have been the oldest.
                if act.context.maybe_done && act.context.attempt > 1 && kept.len() >= KEPT_KEYS {
                    return Err(forgotten(&target));
                }
                ("application/json-patch+json", guarded_json(&patch.patch, &seen, &key)?)
            }
        };
        let path = format!("{}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict", target.path());
        let sent = request("PATCH", path, Some((content_type, &body)));
        match act.call(Verb::Patch, sent).await {
            Ok(patched) => return Ok(presented(&object.resource, patched)),
            Err(error) if error.is_conflict() && has_own_version(&patch.patch) => {
                let message = format!("patch of {target}: it is no longer of the resourceVersion that the patch names");
                return Err(AttemptFailure::definite("Conflict", message));
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(act.failure(error, Verb::Patch, &target)),
        }
    }
    Err(contended("patch", &target))
}

/// The keys of the JSON patches that an object got last.
fn kept_keys(seen: &Value) -> Vec<&str> {
    let kept = seen["metadata"]["annotations"][PATCH_ANNOTATION].as_str();
    kept.unwrap_or_default()
        .split(',')
        .filter(|key| !key.is_empty())
        .collect()
}

fn forgotten(target: &Target<'_>) -> AttemptFailure {
    let message = format!(
        "patch of {target}: an earlier attempt may have made it, and {KEPT_KEYS} other JSON patches were made since: look at it, and skip the step if it was made; if it wasn't, remove the annotation {PATCH_ANNOTATION} and retry the step"
    );
    AttemptFailure::done("PatchForgotten", message)
}

fn contended(what: &str, target: &Target<'_>) -> AttemptFailure {
    let message = format!("{what} of {target}: others changed it each of {CONFLICT_TRIES} times");
    AttemptFailure::retryable("Conflict", message)
}

/// True if a merge patch itself says to which version it applies.
fn has_own_version(patch: &Value) -> bool {
    patch.pointer("/metadata/resourceVersion").is_some_and(Value::is_string)
}

fn guarded_merge(patch: &Value, seen: &Value) -> Result<Value, AttemptFailure> {
    let invalid = |what| AttemptFailure::definite("Invalid", format!("patch: {what} must be an object (type Merge)"));
    let mut patch = patch.clone();
    let fields = patch.as_object_mut().ok_or_else(|| invalid("it"))?;
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    let metadata = metadata.as_object_mut().ok_or_else(|| invalid("metadata"))?;
    for field in ["uid", "resourceVersion"] {
        metadata.entry(field).or_insert_with(|| seen["metadata"][field].clone());
    }
    Ok(patch)
}

/// The operations of a JSON patch, between those that fix the version (a `test` that fails would look like any other
/// refusal; a version that differs is a conflict) and one that leaves the key.
fn guarded_json(patch: &Value, seen: &Value, key: &str) -> Result<Value, AttemptFailure> {
    let operations = patch
        .as_array()
        .ok_or_else(|| AttemptFailure::definite("Invalid", "patch: it must be a list of operations (type JSON)"))?;
    let mut guarded: Vec<Value> = ["uid", "resourceVersion"]
        .map(|field| json!({"op": "replace", "path": format!("/metadata/{field}"), "value": seen["metadata"][field]}))
        .into();
    if !seen["metadata"]["annotations"].is_object() {
        guarded.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
    }
    let annotation = format!("/metadata/annotations/{}", PATCH_ANNOTATION.replace('/', "~1"));
    let mut keys = kept_keys(seen);
    keys.push(key);
    let kept = keys[keys.len().saturating_sub(KEPT_KEYS)..].join(",");
    guarded.extend(operations.iter().cloned());
    // Last, as the patch may write all annotations anew, or take them away.
    let all = |operation: &&Value| {
        ["path", "from"]
            .iter()
            .any(|at| operation[at] == "/metadata/annotations")
    };
    let removed = operations
        .iter()
        .rfind(all)
        .is_some_and(|last| last["op"] == "remove" || last["op"] == "move" && last["from"] == "/metadata/annotations");
    guarded.push(match removed {
        true => json!({"op": "add", "path": "/metadata/annotations", "value": {PATCH_ANNOTATION: kept}}),
        false => json!({"op": "add", "path": annotation, "value": kept}),
    });
    Ok(guarded.into())
}

/// Sets the number of replicas, whatever the kind calls the field.
pub async fn scale(act: Act<'_>, scale: &Scale) -> Done {
    let object = act.object(&scale.resource).await?;
    let replicas = replicas(&scale.replicas)?;
    if !object.resource.subresources.iter().any(|below| below == "scale") {
        let message = format!(
            "{} can't be scaled: a {} has no scale subresource",
            object.target(),
            object.resource.api.kind
        );
        return Err(AttemptFailure::definite("Invalid", message));
    }
    let target = object.target().below("scale");
    for _ in 0..CONFLICT_TRIES {
        let mut seen = act
            .read(&target)
            .await
            .map_err(|error| act.failure(error, Verb::Get, &target))?;
        if seen["spec"]["replicas"] == json!(replicas) {
            return Ok(presented(&object.resource, seen));
        }
        seen["spec"] = json!({"replicas": replicas});
        let path = format!("{}?fieldManager={FIELD_MANAGER}", target.path());
        let sent: Result<_, CallError> = request("PUT", path, Some((JSON, &seen)));
        match act.call(Verb::Update, sent).await {
            Ok(scaled) => return Ok(presented(&object.resource, scaled)),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(act.failure(error, Verb::Update, &target)),
        }
    }
    Err(contended("scaling", &target))
}

fn replicas(given: &IntOrTemplate) -> Result<i32, AttemptFailure> {
    let number = match given {
        IntOrTemplate::Int(number) => i32::try_from(*number).ok(),
        IntOrTemplate::Template(text) => text.trim().parse().ok(),
    };
    number.filter(|number| *number >= 0).ok_or_else(|| {
        let given = match given {
            IntOrTemplate::Int(number) => number.to_string(),
            IntOrTemplate::Template(text) => format!("{text:?}"),
        };
        AttemptFailure::definite(
            "Invalid",
            format!("scale.replicas: {given} is not a number of replicas"),
        )
    })
}
