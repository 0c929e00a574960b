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
        let refused = answer(&error).map(|(reason, message)| JournalError::Refused {
            namespace: namespace(from),
            name: from.name_any(),
            reason,
            message,
        });
        let refused = match refused {
            Some(refused) if never_will_be(&error) => return Err(refused),
            other => other,
        };
        // A conflict, no answer, or one that says nothing: a quorum read decides.
        match self.get(from).await {
            Ok(None) => Ok(Appended::Gone),
            Ok(Some(found)) if found.metadata.uid != from.metadata.uid => Ok(Appended::Gone),
            Ok(Some(found)) => {
                let landed = found.status.as_ref().and_then(|s| s.write_id.as_ref()) == Some(&write_id);
                let unchanged = found.metadata.resource_version == from.metadata.resource_version;
                let found = Box::new(found);
                match refused {
                    _ if landed => Ok(Appended::Durable(found)),
                    // To decide the same again at once would be answered the same.
                    Some(refused) if unchanged => Err(refused),
                    _ => Ok(Appended::Superseded(found)),
                }
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

/// Reason and message of what the API server, or the client in its place, answered.
fn answer(error: &kube::Error) -> Option<(String, String)> {
    match error {
        kube::Error::Api(status) => {
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

/// True for an answer that says for sure that nothing was written, and that the same write never will be.
fn never_will_be(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 400 | 401 | 403 | 405 | 413 | 415 | 422),
        kube::Error::BuildRequest(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_apiserver::Fault;
    use kube::api::DeleteParams;

    use super::*;
    use crate::activities::testing::Bench;

    /// What is read of `prod/deploy`.
    fn seen(bench: &Bench) -> CloudOperation {
        bench.server.get("prod", "deploy").unwrap()
    }

    async fn append(bench: &Bench, process: &str, from: &CloudOperation) -> Result<Appended, JournalError> {
        let status = OperationStatus {
            progress: Some(process.into()),
            ..OperationStatus::default()
        };
        let journal = Journal::new(bench.server.client("operator"), process);
        journal.append(from, status).await
    }

    fn written_by(operation: &CloudOperation) -> Option<&str> {
        operation.status.as_ref()?.write_id.as_deref()
    }

    #[tokio::test(start_paused = true)]
    async fn an_own_write_is_recognised_whatever_was_answered() {
        for fault in [
            Fault::None,
            Fault::LoseAnswer,
            Fault::Repeat,
            Fault::FailAfterwards { code: 504 },
        ] {
            let bench = Bench::new();
            let (from, said) = (seen(&bench), format!("{fault:?}"));
            bench.server.set_faults(move |info| match info.subresource.as_str() {
                "status" => fault.clone(),
                _ => Fault::None,
            });
            let Ok(Appended::Durable(written)) = append(&bench, "me", &from).await else {
                panic!("{said}");
            };
            assert_eq!(written_by(&written), Some("me/1"), "{said}");
            assert_eq!(*written, seen(&bench), "{said}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_written_is_told_from_what_was() {
        let bench = Bench::new();
        let from = seen(&bench);
        append(&bench, "another", &from).await.unwrap();
        let Ok(Appended::Superseded(found)) = append(&bench, "me", &from).await else {
            panic!("it was computed from an older version");
        };
        assert_eq!(written_by(&found), Some("another/1"));

        bench.server.set_faults(|info| match info.subresource.as_str() {
            "status" => Fault::RefuseConnection,
            _ => Fault::None,
        });
        let Ok(Appended::Superseded(found)) = append(&bench, "me", &seen(&bench)).await else {
            panic!("it did not arrive");
        };
        assert_eq!(written_by(&found), Some("another/1"));

        bench.server.set_faults(|_| Fault::RefuseConnection);
        let unknown = append(&bench, "me", &found).await;
        assert!(matches!(unknown, Err(JournalError::Ambiguous { .. })), "{unknown:?}");

        for code in [422, 429, 500] {
            bench.server.set_faults(move |info| match info.subresource.as_str() {
                "status" => Fault::Fail {
                    code,
                    retry_after: None,
                },
                _ => Fault::None,
            });
            let refused = append(&bench, "me", &found).await;
            assert!(matches!(refused, Err(JournalError::Refused { .. })), "{refused:?}");
            // One that had changed is decided on anew.
            let changed = append(&bench, "me", &from).await;
            let is_refused = matches!(changed, Err(JournalError::Refused { .. }));
            assert_eq!(is_refused, code == 422, "{changed:?}");
        }
        bench.server.clear_faults();

        let operations: Api<CloudOperation> = Api::namespaced(bench.server.client("bob"), "prod");
        operations.delete("deploy", &DeleteParams::default()).await.unwrap();
        assert!(matches!(append(&bench, "me", &found).await, Ok(Appended::Gone)));
        let mut again = found.clone();
        again.metadata = kube::api::ObjectMeta {
            name: found.metadata.name.clone(),
            namespace: found.metadata.namespace.clone(),
            ..kube::api::ObjectMeta::default()
        };
        bench.server.put(&*again);
        assert!(
            matches!(append(&bench, "me", &found).await, Ok(Appended::Gone)),
            "another has its name"
        );
    }
}
