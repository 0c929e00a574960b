//! Whether an operation may start: its turn has come in its namespace, and it holds its concurrency key.

use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};
use tracing::warn;

use super::cached::Cached;
use super::cloud_operation::identity;
use super::journal::Journal;
use super::locks::{Locks, lock_name};
use super::queue::{Line, Queue, Turn, is_part};
use crate::api::{CloudOperation, MAX_OPERATIONS_ANNOTATION, OperationState, OperationStatus, QueuePolicy, Time};
use crate::engine::{self, InvalidSpec, concurrency_key};

/// When a key is asked for again whose holder the cache doesn't know.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Who may start.
pub struct Admission {
    locks: Locks,
    queue: Arc<Queue>,
    trigger: UnboundedSender<ObjectRef<Cached>>,
}

/// What is said where an operation runs.
#[derive(Clone, Copy)]
pub struct Place {
    /// How many operations its namespace runs at once.
    pub max_operations: Option<usize>,
    /// True if its namespace is held.
    pub held: bool,
    /// True once this process shuts down.
    pub draining: bool,
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
    /// With the operator's own access to the API server, the way to write a status, and one to have operations looked at.
    pub fn new(
        client: Client,
        journal: Arc<Journal>,
        queue: Arc<Queue>,
        trigger: UnboundedSender<ObjectRef<Cached>>,
    ) -> Self {
        Self {
            locks: Locks::new(client, journal, queue.clone()),
            queue,
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
        place: Place,
        now: Time,
    ) -> Result<Admitted, kube::Error> {
        let spec = &operation.spec;
        let identity = identity(operation);
        let started = status.start_time.is_some();
        let again = status.completion_time.is_some()
            && actions.iter().any(|action| {
                let asked = &action.spec;
                let decided = status.actions.iter().any(|decided| decided.uid == action.uid);
                !decided && (asked.retry.is_some() || asked.reset.is_some() || asked.skip.is_some())
            });
        let most = place.max_operations.filter(|_| !again && !is_part(operation));
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
        let held = place.held;
        if !started && (held || spec.suspend == Some(true)) {
            self.leave(operation); // it takes no turn from another meanwhile
            let by = if held { "its namespace" } else { "spec.suspend" };
            return Ok(Admitted::Waits(
                OperationState::Suspended,
                format!("held by {by}: it has not started"),
                None,
            ));
        }
        if place.draining {
            return Ok(Admitted::NotNow(None));
        }
        let turn = if again {
            Turn::back_again(operation)
        } else {
            Turn::of(operation, place.max_operations.is_some())
        };
        let line = |key| Line {
            namespace: identity.namespace.clone(),
            key,
        };
        let namespace = line(None);
        if let Some(concurrency) = &spec.concurrency {
            let key = match concurrency_key(concurrency, &spec.input, &identity) {
                Ok(key) => key,
                Err(invalid) => return Ok(Admitted::Invalid(invalid)),
            };
            let at_once = concurrency.max.and_then(|max| usize::try_from(max).ok()).unwrap_or(1);
            let (line, lock) = (line(Some(key.clone())), lock_name(&key));
            let entered = self.queue.enter(&line, turn.clone(), at_once);
            if entered && let Some(waits) = self.waits_for_place(&namespace, &turn, most) {
                // Meanwhile it holds no key: who has a place may have a child that waits for it.
                self.wake(self.queue.back(&line, turn, &[]));
                self.wake(self.queue.next(&line));
                return Ok(waits);
            }
            let holders = match entered {
                true => self.locks.take(operation, &line, at_once, now).await?,
                false => vec![],
            };
            if !entered || !holders.is_empty() {
                self.wake(self.queue.step_out(&namespace, &identity.uid)); // and meanwhile it takes no place
                if !entered {
                    // Whose turn it is may have waited behind this one, before the namespace's limit was known.
                    let first = self.queue.next(&line);
                    self.wake(first.filter(|first| first.name != identity.name));
                }
                if entered {
                    self.wake(self.queue.back(&line, turn, &holders));
                }
                // Its holder isn't in line, so that nobody is woken when it ends.
                let look = entered.then_some(LOOK_AGAIN);
                let operations = if at_once == 1 {
                    "one operation".to_owned()
                } else {
                    format!("{at_once} operations")
                };
                // Who stands in line may have ended, or not have it yet: the lock says who holds it.
                let rejects = concurrency.policy == Some(QueuePolicy::Reject) && !again;
                let look = look.or(rejects.then_some(LOOK_AGAIN));
                let rejects = rejects && (entered || self.locks.others(&line, &identity.uid).await?.len() >= at_once);
                let held =
                    format!("the concurrency key {key:?}, which {operations} may hold at once (OperationLock {lock})");
                return Ok(match concurrency.policy {
                    _ if again => {
                        let message = format!("to run again, as it was asked to, it waits for {held}");
                        Admitted::Waits(OperationState::Queued, message, look)
                    }
                    _ if rejects => Admitted::Never(format!("others hold {held}: nothing was executed")),
                    _ => Admitted::Waits(OperationState::Queued, format!("waiting for {held}"), look),
                });
            }
            self.wake(self.queue.next(&line));
        } else if let Some(waits) = self.waits_for_place(&namespace, &turn, most) {
            return Ok(waits);
        }
        Ok(Admitted::Yes)
    }

    /// Lets an operation take its place in its namespace, if that runs only so many at once. Answers that it waits for one,
    /// if there is none.
    fn waits_for_place(&self, namespace: &Line, turn: &Turn, most: Option<usize>) -> Option<Admitted> {
        let most = most?;
        if self.queue.enter(namespace, turn.clone(), most) {
            self.wake(self.queue.next(namespace));
            return None;
        }
        let message = format!(
            "waiting for its turn: the namespace runs {most} operations at once (its annotation {MAX_OPERATIONS_ANNOTATION})"
        );
        Some(Admitted::Waits(OperationState::Queued, message, None))
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

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::activities::testing::Bench;
    use crate::api::OperationLock;

    fn put(bench: &Bench, name: &str, policy: &str, status: &Value) -> CloudOperation {
        let operation = json!({
            "metadata": {"name": name, "namespace": "prod"},
            "spec": {"concurrency": {"key": "'eu'", "policy": policy}, "steps": [{"name": "nap", "wait": {"duration": "1h"}}]},
            "status": status,
        });
        bench
            .server
            .put::<CloudOperation>(&serde_json::from_value(operation).unwrap());
        bench.server.get("prod", name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_is_rejected_only_for_a_key_that_others_hold_whatever_memory_says() {
        let bench = Bench::new();
        let client = bench.server.client("operator");
        let (trigger, _triggered) = futures::channel::mpsc::unbounded();
        let queue = Arc::new(Queue::default());
        let journal = Arc::new(Journal::new(client.clone(), "me"));
        let admission = Admission::new(client, journal, queue.clone(), trigger);
        let admit = async |operation: &CloudOperation| {
            let status = operation.status.clone().unwrap_or_default();
            let now = Time::new(Timestamp::now());
            let place = Place {
                max_operations: None,
                held: false,
                draining: false,
            };
            admission.admit(operation, &status, &[], place, now).await.unwrap()
        };

        let began = json!({"state": "Running", "startTime": "2026-11-24T00:00:00.000Z"});
        let first = put(&bench, "a", "Queue", &json!({}));
        assert!(matches!(admit(&first).await, Admitted::Yes));
        put(&bench, "a", "Queue", &began);
        let second = put(&bench, "b", "Reject", &json!({}));
        assert!(matches!(admit(&second).await, Admitted::Never(_)));

        // The first ends, and the line in memory doesn't know it yet.
        let ended =
            json!({"state": "Failed", "startTime": began["startTime"], "completionTime": "2099-01-01T00:00:00.000Z"});
        let first = put(&bench, "a", "Queue", &ended);
        assert!(matches!(
            admit(&second).await,
            Admitted::Waits(OperationState::Queued, _, Some(LOOK_AGAIN))
        ));
        admission.leave(&first);
        assert!(matches!(admit(&second).await, Admitted::Yes));
        let lock: OperationLock = bench.server.get("prod", &lock_name("eu")).unwrap();
        assert_eq!(lock.spec.holders[0].name, "b");
    }
}
