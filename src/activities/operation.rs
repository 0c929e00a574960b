//! The `operation` step: another operation, run to its end.
//!
//! As with a Job, the attempt creates it and is accepted; it goes on by itself, and any process follows it. Its name comes
//! from the step's key, its uid is recorded, and one that has vanished is unknown, never silently run again.

use kube::api::DynamicObject;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::backoff::Backoff;
use super::call::{Target, Verb, call, request};
use super::clients::ServiceAccount;
use super::created;
use super::discovery::ResourceType;
use super::labels::operation_label;
use super::watches::{Watches, Which};
use super::{AttemptContext, Progress};
use crate::api::{
    ChildOperation, CloudOperation, ExternalRef, FIELD_MANAGER, KEY_ANNOTATION, OPERATION_LABEL, OperationState,
    ParentClosePolicy,
};
use crate::engine::{AttemptFailure, Outcome};

/// The kind of what is accepted.
pub const KIND: &str = "CloudOperation";

/// Creates the step's operation, or finds it again.
pub async fn start(context: &AttemptContext, child: &ChildOperation) -> Outcome {
    match started(context, child).await {
        Ok(external) => Outcome::Accepted { external },
        Err(failure) => Outcome::Failed(failure),
    }
}

fn manifest(context: &AttemptContext, child: &ChildOperation) -> Value {
    let mut spec = child.spec.clone().unwrap_or_default();
    let account = child.service_account_name.as_ref().unwrap_or(&context.service_account);
    spec.insert("serviceAccountName".into(), json!(account));
    if !child.input.is_empty() {
        spec.insert("input".into(), Value::Object(child.input.clone()));
    }
    if let Some(template) = &child.template_ref {
        spec.insert("templateRef".into(), json!(template));
    }
    let mut metadata = json!({
        "name": created::name(context),
        "namespace": context.namespace,
        "labels": {OPERATION_LABEL: operation_label(&context.operation)},
        "annotations": {KEY_ANNOTATION: context.key.to_string()},
    });
    // One that is to go on by itself must not go with its parent.
    if child.parent_close_policy != Some(ParentClosePolicy::Abandon) {
        metadata["ownerReferences"] = json!([{
            "apiVersion": "holdfast.dev/v1alpha1", "kind": KIND, "name": context.operation,
            "uid": context.operation_uid, "blockOwnerDeletion": false,
        }]);
    }
    json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": KIND, "metadata": metadata, "spec": spec})
}

async fn started(context: &AttemptContext, child: &ChildOperation) -> Result<ExternalRef, AttemptFailure> {
    let operations = ResourceType::namespaced::<CloudOperation>();
    let name = created::name(context);
    let target = Target::object(&operations, Some(&context.namespace), &name);
    created::create(context, &target, KIND, &manifest(context, child)).await
}

/// Follows an operation to its end: `result` is its output.
pub async fn follow(
    context: &AttemptContext,
    watches: &Watches,
    external: &ExternalRef,
    progress: &Progress,
) -> Outcome {
    match end_of(context, watches, external, progress, false).await {
        Some(Ended {
            state: OperationState::Succeeded,
            output,
            ..
        }) => Outcome::succeeded(output),
        Some(Ended { state, message, .. }) => Outcome::Failed(AttemptFailure::definite(
            state.to_string(),
            format!("CloudOperation {} ended: {message}", external.name),
        )),
        None => Outcome::Failed(AttemptFailure::unknown(
            "Vanished",
            format!(
                "CloudOperation {} (uid {}) is gone: whether it did its work is unknown",
                external.name, external.uid
            ),
        )),
    }
}

/// How an operation ended.
struct Ended {
    state: OperationState,
    message: String,
    output: Value,
}

/// How it is now: None as long as it goes on.
fn ended(operation: &DynamicObject) -> Result<Ended, String> {
    let status = &operation.data["status"];
    let state = serde_json::from_value::<OperationState>(status["state"].clone()).ok();
    let succeeded = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == "Succeeded");
    let message = succeeded
        .and_then(|condition| condition["message"].as_str())
        .unwrap_or_default();
    match state.filter(|state| state.is_finished()) {
        Some(state) => Ok(Ended {
            state,
            message: message.to_owned(),
            output: status.get("output").cloned().unwrap_or_else(|| json!({})),
        }),
        // Only what may need somebody is told: the child's own status has the rest.
        None => {
            use OperationState::{AwaitingApproval, BackingOff, Queued, Restored, Stuck, Suspended};
            let telling =
                state.filter(|s| matches!(s, AwaitingApproval | BackingOff | Queued | Restored | Stuck | Suspended));
            Err(telling
                .map(|state| format!(", which is {state}: {message}"))
                .unwrap_or_default())
        }
    }
}

/// Waits for an operation's end. None: it has vanished. That it is waited for is told from the start if `tell`, else once there
/// is more to be said.
async fn end_of(
    context: &AttemptContext,
    watches: &Watches,
    external: &ExternalRef,
    progress: &Progress,
    mut tell: bool,
) -> Option<Ended> {
    let operations = ResourceType::namespaced::<CloudOperation>();
    let mut backoff = Backoff::default();
    loop {
        let (uid, name, progress_again) = (external.uid.clone(), external.name.clone(), progress.clone());
        let mut told = if tell { None } else { Some(String::new()) };
        let check = move |operation: Option<&DynamicObject>| {
            let Some(operation) = operation.filter(|operation| operation.metadata.uid.as_deref() == Some(&uid)) else {
                return Some(None);
            };
            match ended(operation) {
                Ok(ended) => Some(Some(ended)),
                Err(how) => {
                    if told.as_ref() != Some(&how) {
                        progress_again(format!("waiting for CloudOperation {name} to end{how}"));
                        told = Some(how);
                    }
                    None
                }
            }
        };
        let account = ServiceAccount::of(context);
        let which = Which::Named(&external.name);
        match watches
            .wait_for(&account, &operations, Some(&context.namespace), which, check)
            .await
        {
            Ok(end) => return end,
            Err(failure) => progress(format!("CloudOperation {} can't be followed: {failure}", external.name)),
        }
        tell = true;
        sleep(backoff.next()).await;
    }
}

/// Ends an operation as its policy says: the one that was accepted, or the one that the attempt may have created. `progress` is
/// told that its end is waited for.
///
/// # Errors
/// If it could not be cancelled yet.
pub async fn stop(
    context: &AttemptContext,
    watches: &Watches,
    child: &ChildOperation,
    external: Option<&ExternalRef>,
    progress: &Progress,
) -> Result<(), AttemptFailure> {
    let policy = child.parent_close_policy.unwrap_or_default();
    if policy == ParentClosePolicy::Abandon {
        return Ok(());
    }
    let operations = ResourceType::namespaced::<CloudOperation>();
    let name = external.map_or_else(|| created::name(context), |external| external.name.clone());
    let target = Target::object(&operations, Some(&context.namespace), &name);
    let found = match external {
        Some(external) => Some(external.clone()),
        None => created::find(context, &target, KIND).await?,
    };
    let Some(external) = found else { return Ok(()) };
    if policy == ParentClosePolicy::Cancel {
        let reason = format!("CloudOperation {}, for which it ran, ended", context.operation);
        let mut cancel = json!({"reason": reason});
        if context.undoes {
            cancel["mode"] = json!("Compensate"); // else as a person said, if one cancelled it before
        }
        let patch = json!({"metadata": {"uid": external.uid}, "spec": {"cancel": cancel}});
        let path = format!("{}?fieldManager={FIELD_MANAGER}", target.path());
        match call(
            context,
            Verb::Patch,
            request("PATCH", path, Some(("application/merge-patch+json", &patch))),
        )
        .await
        {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(()),
            // Another object has its name: then it is gone, as wanted. But the API server also says so where others kept
            // changing it.
            Err(conflict) if conflict.is_conflict() => {
                return match created::is_there(context, &target, &external).await? {
                    true => Err(conflict.failure(context, Verb::Patch, &target)),
                    false => Ok(()),
                };
            }
            Err(error) => return Err(error.failure(context, Verb::Patch, &target)),
        }
    }
    end_of(context, watches, &external, progress, true).await;
    Ok(())
}
