//! Concurrency keys: OperationLock objects, changed by compare-and-swap.
//!
//! A holder counts while its operation exists and hasn't ended, whatever else happens: so nothing leaks when a process
//! dies, an operation is cancelled or deleted, and nothing need be released. Who wants a key takes out those that no
//! longer count, and puts itself in, in one write. One that was suspended before it started doesn't count either, nor one
//! that is deleted or came from a backup, or waits for a place in its namespace: whoever is about to start puts itself in
//! anew, so that nobody takes it out who looked at it before.
//!
//! One that had ended, and that a person lets go on, is in there before its status says that it goes on; that write may be
//! late, from a leader that was cut off. So before it is taken out, its status is written as it is: a write that was computed
//! from an older version doesn't land any more. So is that of one which waits for a place, as another leader may have let
//! it start.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use sha2::{Digest, Sha256};

use super::cached::Cached;
use super::cloud_operation::identity;
use super::journal::{Appended, Journal};
use super::queue::{Line, Queue};
use super::within::within;
use crate::api::{
    CloudOperation, FIELD_MANAGER, LockHolder, OperationLock, OperationLockSpec, OperationState, OperationStatus, Time,
};

/// How often a lock is tried again that others change meanwhile.
const MAX_ROUNDS: usize = 16;

/// Where locks are.
pub struct Locks {
    client: Client,
    journal: Arc<Journal>,
    queue: Arc<Queue>,
}

impl Locks {
    /// With the operator's own access to the API server, the way to write an operation's status, and who waits for whom.
    pub fn new(client: Client, journal: Arc<Journal>, queue: Arc<Queue>) -> Self {
        Self { client, journal, queue }
    }

    /// Takes a key for an operation, which must have entered its line. Answers who else holds it, if there is no room; none
    /// once it is taken. One that is in there already is put in anew, so that nobody takes it out at the same time.
    ///
    /// # Errors
    /// When that can't be said. It is tried again: one that is in there holds the key.
    pub async fn take(
        &self,
        operation: &CloudOperation,
        line: &Line,
        most: usize,
        now: Time,
    ) -> Result<Vec<LockHolder>, kube::Error> {
        let key = line.key.clone().unwrap_or_default();
        let api: Api<OperationLock> = Api::namespaced(self.client.clone(), &line.namespace);
        let name = lock_name(&key);
        let ended = operation.status.as_ref().and_then(|status| status.completion_time);
        let uid = operation.uid().unwrap_or_default();
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        for _ in 0..MAX_ROUNDS {
            let found = within(api.get_opt(&name)).await?;
            let (before, metadata) = match found {
                Some(lock) => (lock.spec.holders, lock.metadata),
                None => (vec![], ObjectMeta::default()),
            };
            let own = before.iter().find(|holder| holder.uid == uid);
            // Later than either, so that the write is one.
            let after = [ended, own.map(|own| own.since)].into_iter().flatten().max();
            let me = LockHolder {
                name: operation.name_any(),
                uid: uid.clone(),
                since: after.map_or(now, |after| now.max(after.plus(Duration::from_millis(1)))),
            };
            let mut holders = vec![];
            for holder in before.into_iter().filter(|holder| holder.uid != uid) {
                if self.queue.runs(line, &holder.uid) || self.counts(&line.namespace, &holder).await? {
                    holders.push(holder);
                }
            }
            if holders.len() >= most {
                return Ok(holders);
            }
            holders.push(me);
            let lock = OperationLock {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: Some(line.namespace.clone()),
                    // Gone with the last of them, at the latest.
                    owner_references: Some(holders.iter().map(owner).collect()),
                    managed_fields: None,
                    ..metadata
                },
                spec: OperationLockSpec {
                    key: key.clone(),
                    holders,
                },
            };
            let written = match lock.metadata.resource_version {
                Some(_) => within(api.replace(&name, &params, &lock)).await,
                None => within(api.create(&params, &lock)).await,
            };
            match written {
                Ok(_) => return Ok(vec![]),
                Err(kube::Error::Api(said)) if matches!(said.code, 404 | 409) => {} // it changed: look again
                Err(error) => return Err(error),
            }
        }
        Err(kube::Error::Service(
            format!("OperationLock {name} changed {MAX_ROUNDS} times while it was taken").into(),
        ))
    }

    /// Who holds a key, but for this operation: of those in its lock, those that count.
    ///
    /// # Errors
    /// When that can't be said.
    pub async fn others(&self, line: &Line, uid: &str) -> Result<Vec<LockHolder>, kube::Error> {
        let api: Api<OperationLock> = Api::namespaced(self.client.clone(), &line.namespace);
        let lock = within(api.get_opt(&lock_name(line.key.as_deref().unwrap_or_default()))).await?;
        let mut holders = vec![];
        for holder in lock.map_or(vec![], |lock| lock.spec.holders) {
            if holder.uid != uid && self.counts(&line.namespace, &holder).await? {
                holders.push(holder);
            }
        }
        Ok(holders)
    }

    /// Deletes the lock of a line in which nobody stands any more. One that isn't deleted does no harm.
    ///
    /// # Errors
    /// When it could not be looked at, or deleted.
    pub async fn tidy(&self, line: &Line) -> Result<(), kube::Error> {
        let api: Api<OperationLock> = Api::namespaced(self.client.clone(), &line.namespace);
        let name = lock_name(line.key.as_deref().unwrap_or_default());
        let Some(lock) = within(api.get_opt(&name)).await? else {
            return Ok(());
        };
        for holder in &lock.spec.holders {
            if self.counts(&line.namespace, holder).await? {
                return Ok(());
            }
        }
        let params = DeleteParams {
            // One that was changed since is somebody's.
            preconditions: Some(Preconditions {
                uid: lock.uid(),
                resource_version: lock.resource_version(),
            }),
            ..DeleteParams::background()
        };
        match within(api.delete(&name, &params)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(said)) if matches!(said.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// True if a holder exists, hasn't ended, and before its start neither is held nor waits for a place in its namespace. The
    /// API server is asked: the cache may be old.
    /// Once this answers false, it stays so as long as the lock isn't written.
    async fn counts(&self, namespace: &str, holder: &LockHolder) -> Result<bool, kube::Error> {
        let api: Api<Cached> = Api::namespaced(self.client.clone(), namespace);
        for _ in 0..MAX_ROUNDS {
            let found = within(api.get_opt(&holder.name)).await?;
            let Some(found) = found.filter(|operation| operation.uid().as_ref() == Some(&holder.uid)) else {
                return Ok(false);
            };
            let ended = found.state().is_some_and(OperationState::is_finished);
            if !ended && !found.is_started() && is_held(&found) {
                // What it decided before it was suspended was computed from an older version, and doesn't land any more.
                return Ok(false);
            }
            if !ended && (found.is_started() || !self.queue.waits_for_place(namespace, &holder.uid)) {
                return Ok(true);
            }
            // One that can't be read goes on nowhere.
            let Ok(mut operation) = found.parse() else {
                return Ok(false);
            };
            let status = operation.status.take().unwrap_or_default();
            if ended && !came_back(&status, holder) {
                return Ok(false);
            }
            match self.journal.append(&operation, status).await {
                Ok(Appended::Durable(_) | Appended::Gone) => return Ok(false),
                Ok(Appended::Superseded(_)) => {} // it may go on now: look again
                Err(error) => return Err(kube::Error::Service(error.into())),
            }
        }
        Err(kube::Error::Service(
            format!(
                "CloudOperation {} changed {MAX_ROUNDS} times while it was looked at",
                holder.name
            )
            .into(),
        ))
    }
}

/// True if an operation that has not started doesn't, until somebody changes it: it is suspended, deleted, or came from a
/// backup.
fn is_held(operation: &Cached) -> bool {
    let deleted = operation.meta().deletion_timestamp.is_some();
    let held = |operation: CloudOperation| operation.spec.suspend == Some(true) || identity(&operation).restored;
    deleted || operation.parse().is_ok_and(held)
}

/// True if a holder that has ended came into the lock after that end: a person lets it go on.
fn came_back(status: &OperationStatus, holder: &LockHolder) -> bool {
    status.completion_time.is_none_or(|ended| holder.since > ended)
}

fn owner(holder: &LockHolder) -> OwnerReference {
    OwnerReference {
        api_version: CloudOperation::api_version(&()).into_owned(),
        kind: CloudOperation::kind(&()).into_owned(),
        name: holder.name.clone(),
        uid: holder.uid.clone(),
        controller: None,
        block_owner_deletion: Some(false),
    }
}

/// The name of a key's lock: what of the key a name may have, and a digest of it.
pub fn lock_name(key: &str) -> String {
    let readable: String = key
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(40)
        .collect();
    let digest: String = Sha256::digest(key.as_bytes())[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    match readable.trim_matches('-') {
        "" => digest,
        readable => format!("{readable}-{digest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::lock_name;

    #[test]
    fn a_locks_name_says_its_key_and_no_other_key_has_it() {
        let name = lock_name("prod/Web EU");
        assert!(name.starts_with("prod-web-eu-"), "{name}");
        assert_ne!(name, lock_name("prod/web EU"));
        assert_eq!(lock_name("→").len(), 16);
        assert!(lock_name(&"k".repeat(1024)).len() <= 63);
    }
}
