//! The part of the history that has no room in a status: OperationHistory objects, each a range of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, Resource, ResourceExt};

use super::within::within;
use crate::api::{
    CloudOperation, FIELD_MANAGER, HistoryEntry, HistoryOf, OPERATION_UID_LABEL, OperationHistory, OperationHistorySpec,
};

/// Where chunks are written.
pub struct Histories {
    client: Client,
}

impl Histories {
    /// With the operator's own access to the API server.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Sees to it that a chunk of an operation's accepted history is in an object of its own. Answers its last sequence
    /// number: what the status need no longer keep.
    ///
    /// # Errors
    /// When that can't be said. It is tried again.
    pub async fn spill(&self, operation: &CloudOperation, chunk: &[HistoryEntry]) -> Result<i64, kube::Error> {
        let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else {
            return Ok(0);
        };
        let api = self.api(operation);
        let history = OperationHistory {
            metadata: metadata(operation, &format!("{}-{}", first.seq, last.seq)),
            spec: OperationHistorySpec {
                operation_ref: HistoryOf {
                    name: operation.name_any(),
                    uid: operation.uid().unwrap_or_default(),
                },
                from: Some(first.seq),
                to: Some(last.seq),
                entries: chunk.to_vec(),
                ..OperationHistorySpec::default()
            },
        };
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        match within(api.create(&params, &history)).await {
            Ok(_) => Ok(last.seq),
            // A process before this one, or an answer that was lost: what is there decides.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = within(api.get(&history.name_any())).await?;
                let same = found.spec.operation_ref == history.spec.operation_ref && found.spec.to == history.spec.to;
                if same {
                    Ok(last.seq)
                } else {
                    Err(kube::Error::Api(status))
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes all chunks of an operation.
    ///
    /// # Errors
    /// When they could not be deleted; they go with the operation at the latest.
    pub async fn prune(&self, operation: &CloudOperation) -> Result<(), kube::Error> {
        let uid = operation.uid().unwrap_or_default();
        let of_operation = ListParams::default().labels(&format!("{OPERATION_UID_LABEL}={uid}"));
        let deleted = self.api(operation);
        within(deleted.delete_collection(&DeleteParams::background(), &of_operation))
            .await
            .map(|_| ())
    }

    fn api(&self, operation: &CloudOperation) -> Api<OperationHistory> {
        Api::namespaced(self.client.clone(), &operation.namespace().unwrap_or_default())
    }
}

/// The metadata of a part of an operation's journal: named by the operation, its uid and the part, and gone with it.
pub fn metadata(operation: &CloudOperation, part: &str) -> ObjectMeta {
    const MOST: usize = 253;
    let uid = operation.uid().unwrap_or_default();
    let suffix = format!("-{}-{part}", uid.chars().take(8).collect::<String>());
    let name: String = operation.name_any().chars().take(MOST - suffix.len()).collect();
    ObjectMeta {
        name: Some(format!("{}{suffix}", name.trim_end_matches(['.', '-']))),
        namespace: operation.namespace(),
        labels: Some([(OPERATION_UID_LABEL.to_owned(), uid.clone())].into()),
        owner_references: Some(vec![OwnerReference {
            api_version: CloudOperation::api_version(&()).into_owned(),
            kind: CloudOperation::kind(&()).into_owned(),
            name: operation.name_any(),
            uid,
            block_owner_deletion: Some(false),
            ..OwnerReference::default()
        }]),
        ..ObjectMeta::default()
    }
}
