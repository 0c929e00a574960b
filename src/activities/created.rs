//! What an attempt creates and that then goes on by itself: found again by whoever makes the attempt anew.
//!
//! Its name comes from the step's key, so that an attempt that is made again finds it in place of creating another.

use serde_json::{Value, json};

use super::AttemptContext;
use super::call::{JSON, Target, Verb, call, request};
use crate::api::{ExternalRef, FIELD_MANAGER, KEY_ANNOTATION};
use crate::engine::AttemptFailure;

/// The name of what this attempt creates: the same for every attempt under a key until what was created has failed.
pub fn name(context: &AttemptContext) -> String {
    let prefix = format!("{}-{}", context.operation, context.step);
    context.key.object_name(&prefix, context.failures)
}

/// Creates an object, or finds it again.
///
/// # Errors
/// When it could not be created, or another has its name.
pub async fn create(
    context: &AttemptContext,
    target: &Target<'_>,
    kind: &str,
    manifest: &Value,
) -> Result<ExternalRef, AttemptFailure> {
    let path = format!(
        "{}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict",
        Target { name: None, ..*target }.path()
    );
    let created = call(context, Verb::Create, request("POST", path, Some((JSON, manifest)))).await;
    match created {
        Ok(created) => Ok(reference(kind, &created)),
        Err(error) if error.reason() == "AlreadyExists" => match look(context, target, kind).await? {
            Found::Ours(reference) => Ok(reference),
            Found::Anothers => {
                let message = format!("{target} exists already, and is not this step's");
                Err(AttemptFailure::definite("AlreadyExists", message))
            }
            Found::Nothing => Err(vanished(target)),
        },
        Err(error) => Err(error.failure(context, Verb::Create, target)),
    }
}

/// Finds what an attempt may have created: None if there is nothing, or another has its name.
///
/// # Errors
/// When that can't be said.
pub async fn find(
    context: &AttemptContext,
    target: &Target<'_>,
    kind: &str,
) -> Result<Option<ExternalRef>, AttemptFailure> {
    Ok(match look(context, target, kind).await? {
        Found::Ours(reference) => Some(reference),
        Found::Anothers | Found::Nothing => None,
    })
}

/// True if what was created is there still, and not another object by its name.
///
/// # Errors
/// When that can't be said.
pub async fn is_there(
    context: &AttemptContext,
    target: &Target<'_>,
    created: &ExternalRef,
) -> Result<bool, AttemptFailure> {
    match call(context, Verb::Get, request("GET", target.path(), None)).await {
        Ok(found) => Ok(found["metadata"]["uid"] == json!(created.uid)),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.failure(context, Verb::Get, target)),
    }
}

/// What there is by the name of what an attempt creates.
enum Found {
    Ours(ExternalRef),
    Anothers,
    Nothing,
}

async fn look(context: &AttemptContext, target: &Target<'_>, kind: &str) -> Result<Found, AttemptFailure> {
    match call(context, Verb::Get, request("GET", target.path(), None)).await {
        Ok(found) if found["metadata"]["annotations"][KEY_ANNOTATION] == json!(context.key.to_string()) => {
            Ok(Found::Ours(reference(kind, &found)))
        }
        Ok(_) => Ok(Found::Anothers),
        Err(error) if error.is_not_found() => Ok(Found::Nothing),
        Err(error) => Err(error.failure(context, Verb::Get, target)),
    }
}

/// What was in the way of a creation is gone when it is looked at: nobody knows whose it was. Another attempt creates it.
pub fn vanished(target: &Target<'_>) -> AttemptFailure {
    let message = format!("{target} existed when it was to be created, and was gone a moment later");
    AttemptFailure::unknown("Vanished", message)
}

fn reference(kind: &str, object: &Value) -> ExternalRef {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    ExternalRef {
        kind: kind.into(),
        name: text("name"),
        uid: text("uid"),
    }
}
