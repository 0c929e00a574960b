//! Apply and create: requests that bring an object's whole manifest.

use serde_json::{Value, json};

use super::{Act, Done, manifest, presented};
use crate::activities::call::{CallError, JSON, Target, Verb, request};
use crate::activities::created::vanished;
use crate::activities::labels::operation_label;
use crate::api::{Apply, Create, FIELD_MANAGER, KEY_ANNOTATION, OPERATION_LABEL};
use crate::engine::AttemptFailure;

/// Server-side apply: the API server merges, and says who else owns a field.
pub async fn apply(act: Act<'_>, apply: &Apply) -> Done {
    let (object, manifest) = manifest(act, &apply.manifest).await?;
    let target = object.target();
    let force = apply.force == Some(true);
    let path = format!(
        "{}?fieldManager={FIELD_MANAGER}&force={force}&fieldValidation=Strict",
        target.path()
    );
    let applied = act
        .call(Verb::Patch, request("PATCH", path, Some((APPLY, &manifest))))
        .await;
    let error = match applied {
        Ok(applied) => return Ok(presented(&object.resource, applied)),
        Err(error) => error,
    };
    if let Some(failure) = field_conflict(act, &error, &target).or_else(|| undeclared(act, &error, &target)) {
        return Err(failure);
    }
    if error.is_not_found() {
        // What is applied need not exist, but its namespace must: it may be on its way.
        let message = format!("apply of {target}: {}", error.said(act.context));
        return Err(AttemptFailure::retryable("NotFound", message));
    }
    Err(act.failure(error, Verb::Patch, &target))
}

const APPLY: &str = "application/apply-patch+yaml";

/// Fields of the manifest that other managers own: a definite no, as only a person knows whose they are.
fn field_conflict(act: Act<'_>, error: &CallError, target: &Target<'_>) -> Option<AttemptFailure> {
    let CallError::Answered { code: 409, status, .. } = error else {
        return None;
    };
    let causes = status
        .details
        .as_ref()?
        .causes
        .iter()
        .filter(|cause| cause.reason == "FieldManagerConflict");
    let fields: Vec<String> = causes
        .map(|cause| format!("{} ({})", cause.field, cause.message))
        .collect();
    (!fields.is_empty()).then(|| {
        let fields = if act.context.sensitive { error.said(act.context) } else { fields.join(", ") };
        let message = format!(
            "apply of {target}: other managers own fields of the manifest: {fields}; leave them out, or take them over with force: true"
        );
        AttemptFailure::definite("FieldConflict", message)
    })
}

/// A field that the kind doesn't have, or a value of the wrong type: the API server calls that its own error (500).
fn undeclared(act: Act<'_>, error: &CallError, target: &Target<'_>) -> Option<AttemptFailure> {
    let CallError::Answered { code: 500, status, .. } = error else {
        return None;
    };
    status
        .message
        .starts_with("failed to create typed patch object")
        .then(|| AttemptFailure::definite("Invalid", format!("apply of {target}: {}", error.said(act.context))))
}

/// Creation. The key in an annotation tells the object that this step created from one that was there before.
pub async fn create(act: Act<'_>, create: &Create) -> Done {
    let (object, mut manifest) = manifest(act, &create.manifest).await?;
    let (target, key) = (object.target(), act.context.key.to_string());
    mark(&mut manifest, "annotations", KEY_ANNOTATION, &key, &target)?;
    mark(
        &mut manifest,
        "labels",
        OPERATION_LABEL,
        &operation_label(&act.context.operation),
        &target,
    )?;
    let collection = Target::collection(&object.resource, object.namespace.as_deref());
    let path = format!(
        "{}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict",
        collection.path()
    );
    let created = act
        .call(Verb::Create, request("POST", path, Some((JSON, &manifest))))
        .await;
    let existing = match created {
        Ok(created) => return Ok(presented(&object.resource, created)),
        Err(error) if error.reason() == "AlreadyExists" => act.read(&target).await.map_err(|error| {
            if error.is_not_found() {
                vanished(&target)
            } else {
                act.failure(error, Verb::Get, &target)
            }
        })?,
        Err(error) => return Err(act.failure(error, Verb::Create, &target)),
    };
    if existing["metadata"]["annotations"][KEY_ANNOTATION] == json!(key) {
        return Ok(presented(&object.resource, existing));
    }
    Err(AttemptFailure::definite(
        "AlreadyExists",
        format!("{target} exists already, and this step didn't create it"),
    ))
}

fn mark(manifest: &mut Value, field: &str, key: &str, value: &str, target: &Target<'_>) -> Result<(), AttemptFailure> {
    let entries = &mut manifest["metadata"][field];
    if entries.is_null() {
        *entries = json!({});
    }
    let entries = entries.as_object_mut().ok_or_else(|| {
        AttemptFailure::definite(
            "Invalid",
            format!("create of {target}: manifest.metadata.{field} must be an object"),
        )
    })?;
    entries.insert(key.to_owned(), value.into());
    Ok(())
}
