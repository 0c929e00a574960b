//! `outputSecret`: parts of a result that go into a Secret in place of the status.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::AttemptContext;
use super::labels::operation_label;
use crate::api::{CloudOperation, FIELD_MANAGER, KEY_ANNOTATION, OPERATION_LABEL, OutputSecret};
use crate::engine::AttemptFailure;
use crate::engine::expression::{Scope, render};

/// How long the API server may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Applies the Secret, as the operation's service account. `scope` holds the result.
///
/// # Errors
/// The step did its work already, so whatever fails here leaves it as maybe done. Where the API server fails, another
/// attempt, under the same key, gets the same result and writes it.
pub async fn write(
    context: &AttemptContext,
    field: &str,
    secret: &OutputSecret,
    scope: &Scope,
) -> Result<(), AttemptFailure> {
    let mut data = BTreeMap::new();
    for (key, template) in &secret.data {
        let value = render(&Value::String(template.clone()), scope).map_err(|error| {
            AttemptFailure::done(
                "InvalidExpression",
                format!(
                    "the step did its work, but its Secret can't be written: {}",
                    context.evaluation_failed(&format!("{field}.outputSecret.data.{key}"), &error.error.to_string())
                ),
            )
        })?;
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        data.insert(key.clone(), text);
    }
    let manifest = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": secret.name,
            "labels": {OPERATION_LABEL: operation_label(&context.operation)},
            "annotations": {KEY_ANNOTATION: context.key.to_string()},
            "ownerReferences": [{
                "apiVersion": CloudOperation::api_version(&()), "kind": CloudOperation::kind(&()),
                "name": context.operation, "uid": context.operation_uid, "blockOwnerDeletion": false,
            }],
        },
        "stringData": data,
    });
    let unknown = |reason: &str, message: String| {
        let what = format!(
            "the step did its work, but Secret {} could not be written: {message}",
            secret.name
        );
        AttemptFailure::unknown(reason, what)
    };
    if !context.claim.is_held() {
        return Err(unknown("LeadershipLost", "this process may no longer lead".into()));
    }
    let api: Api<Secret> = Api::namespaced(context.kubernetes.clone(), &context.namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match timeout(
        ANSWER_TIMEOUT,
        api.patch(&secret.name, &params, &Patch::Apply(manifest)),
    )
    .await
    {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => Err(unknown(
            "AccessDenied",
            format!(
                "service account {}/{} may not patch secrets there",
                context.namespace, context.service_account
            ),
        )),
        Ok(Err(kube::Error::Api(status))) => Err(unknown("NotWritten", status.message)),
        Ok(Err(_)) | Err(_) => Err(unknown("NoAnswer", "no answer from the API server".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activities::testing::Bench;
    use crate::engine::{Effect, RetryAdvice, result_scope};

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_written_was_done_all_the_same_and_no_value_is_in_the_message() {
        let bench = Bench::new();
        let secret = serde_json::from_value(json!({"name": "token", "data": {"n": "${int(result.token)}"}})).unwrap();
        for (sensitive, writes_secret) in [(false, true), (true, true), (true, false)] {
            let context = AttemptContext {
                sensitive,
                writes_secret,
                ..bench.context("rotate")
            };
            let scope = result_scope(&Scope::default(), &json!({"token": "hunter2"}), 1, &context.key);
            let failure = write(&context, "spec.steps[0]", &secret, &scope).await.unwrap_err();
            assert_eq!((failure.effect, failure.retry), (Effect::Unknown, RetryAdvice::Never));
            assert!(
                failure.message.contains("spec.steps[0].outputSecret.data.n"),
                "{}",
                failure.message
            );
            assert!(!failure.message.contains("hunter2"), "{}", failure.message);
        }
    }
}
