//! Whether an operation may start: its turn has come in its namespace, and it holds its concurrency key.

use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};
use tracing::warn;

use super::cached::Cached;
use super::cloud_operation::identity;
use super::locks::{Locks, lock_name};
use super::namespaces::Namespaces;
use super::queue::{Line, Queue, Turn};
use crate::api::{CloudOperation, MAX_OPERATIONS_ANNOTATION, OperationState, OperationStatus, QueuePolicy, Time};
use crate::engine::{self, InvalidSpec, concurrency_key};

/// When a key is asked for again whose holder the cache doesn't know.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Who may start.
pub struct Admission {
    locks: Locks,
    queue: Arc<Queue>,
    namespaces: Arc<Namespaces>,
    trigger: UnboundedSender<ObjectRef<Cached>>,
}

/// Whether an operation may start.
pub enum Admitted {
    /// It may, or has started.
    Yes,
    /// Nothing is decided now. When to look again, if not for a change.
    NotNow(Option<Duration>),
    /// It waits: as what, for what, and when to look again, if not for a change.
    Waits(OperationState, String, Option<Duration>),
    /// It ends with nothing executed, for this reason.
    Never(String),
    /// Its key can't be known.
    Invalid(InvalidSpec),
}

impl Admission {
    /// With the operator's own access to the API server, and a way to have operations looked at.
    pub fn new(
        client: Client,
        queue: Arc<Queue>,
        namespaces: Arc<Namespaces>,
        trigger: UnboundedSender<ObjectRef<Cached>>,
    ) -> Self {
        Self {
            locks: Locks::new(client),
            queue,
            namespaces,
            trigger,
        }
    }

    /// Lets an operation start, or run again after its end, once it may.
    ///
    /// # Errors
    /// When it can't be said whether it holds its key. It is asked again.
    pub async fn admit(
        &self,
        operation: &CloudOperation,
        status: &OperationStatus,
        actions: &[engine::Action],
        draining: bool,
        now: Time,
    ) -> Result<Admitted, kube::Error> {
        let spec = &operation.spec;
        let identity = identity(operation);
        let started = status.start_time.is_some();
        let again = status.completion_time.is_some()
            && actions.iter().any(|action| {
                let asked = &action.spec;
                asked.retry.is_some() || asked.reset.is_some() || asked.skip.is_some()
            });
        let most = self.namespaces.max_operations(&identity.namespace).filter(|_| !again);
        let too_late = spec.start_deadline.is_some_and(|deadline| now > deadline);
        let not_concerned = (started && !again) || (spec.concurrency.is_none() && most.is_none());
        let ends_otherwise = !started && (identity.restored || too_late);
        if not_concerned || ends_otherwise || status.engine.is_some_and(|engine| engine > engine::ENGINE) {
            return Ok(Admitted::Yes);
        }
        if spec.cancel.is_some() && !started {
            return Ok(Admitted::Never(
                "it was cancelled before its turn came: nothing was executed".into(),
            ));
        }
        let held = self
            .namespaces
            .hold(&identity.namespace)
            .is_some_and(|hold| hold.until.is_none());
        if !started && (held || spec.suspend == Some(true)) {
            self.leave(operation); // it takes no turn from another meanwhile
            let by = if held { "its namespace" } else { "spec.suspend" };
            return Ok(Admitted::Waits(
                OperationState::Suspended,
                format!("held by {by}: it has not started"),
                None,
            ));
        }
        if draining {
            return Ok(Admitted::NotNow(None));
        }
        let turn = if again {
            Turn::back_again(operation)
        } else {
            Turn::of(operation)
        };
        let line = |key| Line {
            namespace: identity.namespace.clone(),
            key,
        };
        if let Some(concurrency) = &spec.concurrency {
            let key = match concurrency_key(concurrency, &spec.input, &identity) {
                Ok(key) => key,
                Err(invalid) => return Ok(Admitted::Invalid(invalid)),
            };
            let most = concurrency.max.and_then(|max| usize::try_from(max).ok()).unwrap_or(1);
            let (line, lock) = (line(Some(key.clone())), lock_name(&key));
            let entered = self.queue.enter(&line, turn.clone(), most);
            let holders = match entered {
                true => self.locks.take(operation, &line, most, again, &self.queue, now).await?,
                false => vec![],
            };
            if !entered || !holders.is_empty() {
                if entered {
                    self.wake(self.queue.back(&line, turn, &holders));
                }
                // Its holder isn't in line, so that nobody is woken when it ends.
                let look = entered.then_some(LOOK_AGAIN);
                let at_once = if most == 1 {
                    "one operation".to_owned()
                } else {
                    format!("{most} operations")
                };
                let held =
                    format!("the concurrency key {key:?}, which {at_once} may hold at once (OperationLock {lock})");
                return Ok(match concurrency.policy {
                    _ if again => {
                        let message = format!("to run again, as it was asked to, it waits for {held}");
                        Admitted::Waits(OperationState::Queued, message, look)
                    }
                    Some(QueuePolicy::Reject) => Admitted::Never(format!("others hold {held}: nothing was executed")),
                    _ => Admitted::Waits(OperationState::Queued, format!("waiting for {held}"), look),
                });
            }
            self.wake(self.queue.next(&line));
        }
        if let Some(most) = most {
            let line = line(None);
            if !self.queue.enter(&line, turn, most) {
                let message = format!(
                    "waiting for its turn: the namespace runs {most} operations at once (its annotation {MAX_OPERATIONS_ANNOTATION})"
                );
                return Ok(Admitted::Waits(OperationState::Queued, message, None));
            }
            self.wake(self.queue.next(&line));
        }
        Ok(Admitted::Yes)
    }

    /// Lets an operation leave its lines, and wakes whose turn it may be then.
    pub fn leave(&self, operation: &CloudOperation) {
        self.wake(self.queue.leave(&operation.uid().unwrap_or_default()));
    }

    /// Removes the lock of an operation that has ended, if nobody else wants it.
    pub async fn tidy(&self, operation: &CloudOperation) {
        let identity = identity(operation);
        let Some(concurrency) = &operation.spec.concurrency else {
            return;
        };
        let Ok(key) = concurrency_key(concurrency, &operation.spec.input, &identity) else {
            return; // it never had one
        };
        let line = Line {
            namespace: identity.namespace,
            key: Some(key),
        };
        if self.queue.is_empty(&line)
            && let Err(error) = self.locks.tidy(&line).await
        {
            warn!(namespace = line.namespace, key = line.key, %error, "the lock of a concurrency key stays, and holds up nobody");
        }
    }

    fn wake(&self, operations: impl IntoIterator<Item = ObjectRef<Cached>>) {
        for operation in operations {
            // Fails only once the controller has ended, and this with it.
            let _ = self.trigger.unbounded_send(operation);
        }
    }
}
