//! The seam between what is decided and how it becomes durable: "append this, tell me when it is".
//!
//! Today an append is one PUT of the operation's status. Whatever it will be, three things hold: it carries the
//! resourceVersion that it was computed from, it can be recognised afterwards, and an answer that was lost is never
//! taken for a failure.

use std::sync::atomic::{AtomicU64, Ordering};

use kube::api::{GetParams, PostParams};
use kube::core::Request;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::within::within;
use crate::api::{CloudOperation, FIELD_MANAGER, OperationStatus};

/// How an append ended.
#[derive(Debug)]
pub enum Appended {
    /// It is durable: this is the object now.
    Durable(Box<CloudOperation>),
    /// The object had changed, or was found changed: nothing was appended, decide anew from this.
    Superseded(Box<CloudOperation>),
    /// The object is gone.
    Gone,
}

/// Why it isn't known whether an append is durable, or why it can't be.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The API server gave no answer, nor did it say afterwards what became of the write.
    #[error("the status of {namespace}/{name} could not be written: {message}; what became of it is looked up next")]
    Ambiguous {
        /// The operation's namespace.
        namespace: String,
        /// The operation's name.
        name: String,
        /// What was said.
        message: String,
    },
    /// The API server refuses the status.
    #[error("the API server refuses the status of {namespace}/{name}: {message}")]
    Refused {
        /// The operation's namespace.
        namespace: String,
        /// The operation's name.
        name: String,
        /// The reason, in a word.
        reason: String,
        /// What was said.
        message: String,
    },
}

/// Where transitions become durable.
pub struct Journal {
    client: Client,
    incarnation: String,
    counter: AtomicU64,
}

impl Journal {
    /// A journal of one process, from its start to its end.
    pub fn new(client: Client, incarnation: impl Into<String>) -> Self {
        Self {
            client,
            incarnation: incarnation.into(),
            counter: AtomicU64::new(0),
        }
    }

    /// Appends a status that was computed from `from`.
    ///
    /// # Errors
    /// When it isn't known whether it is durable, or can't be.
    pub async fn append(&self, from: &CloudOperation, mut status: OperationStatus) -> Result<Appended, JournalError> {
        let write_id = format!(
            "{}/{}",
            self.incarnation,
            self.counter.fetch_add(1, Ordering::Relaxed) + 1
        );
        status.write_id = Some(write_id.clone());
        let error = match self.put(from, &status).await {
            Ok(written) => return Ok(Appended::Durable(Box::new(written))),
            Err(error) => error,
        };
        if let Some((reason, message)) = refusal(&error) {
            return Err(JournalError::Refused {
                namespace: namespace(from),
                name: from.name_any(),
                reason,
                message,
            });
        }
        // A conflict, no answer, or one that says nothing: a quorum read decides.
        match self.get(from).await {
            Ok(None) => Ok(Appended::Gone),
            Ok(Some(found)) if found.metadata.uid != from.metadata.uid => Ok(Appended::Gone),
            Ok(Some(found)) => {
                let landed = found.status.as_ref().and_then(|s| s.write_id.as_ref()) == Some(&write_id);
                let found = Box::new(found);
                Ok(if landed {
                    Appended::Durable(found)
                } else {
                    Appended::Superseded(found)
                })
            }
            Err(read) => Err(JournalError::Ambiguous {
                namespace: namespace(from),
                name: from.name_any(),
                message: format!("{error}; then {read}"),
            }),
        }
    }

    /// The body has what a status write needs and no more: the API server takes spec and labels from what it has.
    async fn put(&self, from: &CloudOperation, status: &OperationStatus) -> Result<CloudOperation, kube::Error> {
        let body = json!({
            "apiVersion": CloudOperation::api_version(&()),
            "kind": CloudOperation::kind(&()),
            "metadata": {
                "name": from.metadata.name,
                "namespace": from.metadata.namespace,
                "uid": from.metadata.uid,
                "resourceVersion": from.metadata.resource_version,
            },
            "status": status,
        });
        let body = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
        let url = CloudOperation::url_path(&(), from.metadata.namespace.as_deref());
        let request = Request::new(url)
            .replace_subresource("status", &from.name_any(), &as_holdfast(), body)
            .map_err(kube::Error::BuildRequest)?;
        within(self.client.request(request)).await
    }

    /// A read that asks a quorum, as one without a resourceVersion does.
    async fn get(&self, of: &CloudOperation) -> Result<Option<CloudOperation>, kube::Error> {
        let api: Api<CloudOperation> = Api::namespaced(self.client.clone(), &namespace(of));
        let read = within(async { api.get_with(&of.name_any(), &GetParams::default()).await });
        match read.await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
            other => other.map(Some),
        }
    }
}

/// Under the field manager of everything that Holdfast writes: else the API server makes one up.
fn as_holdfast() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    }
}

fn namespace(of: &CloudOperation) -> String {
    of.namespace().unwrap_or_default()
}

/// Reason and message of an answer that says for sure that nothing was written, and that the same write never will be.
fn refusal(error: &kube::Error) -> Option<(String, String)> {
    match error {
        kube::Error::Api(status) if matches!(status.code, 400 | 401 | 403 | 405 | 413 | 415 | 422) => {
            let reason = match &*status.reason {
                "" => status.code.to_string(),
                reason => reason.to_owned(),
            };
            Some((reason, status.message.clone()))
        }
        kube::Error::BuildRequest(error) => Some(("BuildRequest".into(), error.to_string())),
        _ => None,
    }
}
