//! One pass over one operation: read, decide, write, act. The order is the guarantee: nothing is done that an accepted
//! write doesn't say, but for local steps, which can be done again; their write follows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::{DeleteParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::actions::Actions;
use super::admission::{Admission, Admitted, Place};
use super::cached::Cached;
use super::clock::Clock;
use super::events::Events;
use super::executor::{Executor, Unwritten};
use super::histories::Histories;
use super::journal::{Appended, Journal, JournalError};
use super::metrics::Metrics;
use super::namespaces::Namespaces;
use super::templates::{Runs, Templates};
use super::turns::Turns;
use super::within::within;
use crate::activities::Claim;
use crate::api::{
    CREATED_BY_ANNOTATION, CloudOperation, CloudOperationSpec, OperationState, OperationStatus, RESTORED_LABEL, Time,
};
use crate::engine::{self, Decision, Identity, Inputs, InvalidSpec, Resolved, Workflow};

/// How often a pass is decided anew, at most, as its object changes under it.
const MAX_ROUNDS: usize = 8;

/// When what a compacted operation leaves is deleted again, if that failed.
const PRUNE_AGAIN: Duration = Duration::from_secs(60);

/// All that a pass needs.
pub struct Context {
    /// The operator's own access to the API server.
    pub client: Client,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The right to act.
    pub claim: Arc<dyn Claim>,
    /// Where transitions become durable.
    pub journal: Arc<Journal>,
    /// What is under way.
    pub executor: Arc<Executor>,
    /// What namespaces say.
    pub namespaces: Arc<Namespaces>,
    /// Where Events go.
    pub events: Events,
    /// Where numbers go.
    pub metrics: Arc<Metrics>,
    /// The name of this process in `runner`.
    pub runner: String,
    /// True once this process shuts down.
    pub draining: tokio::sync::watch::Receiver<bool>,
    /// Compiled specs.
    pub workflows: Workflows,
    /// What operations run that name a template.
    pub templates: Templates,
    /// What people ask.
    pub actions: Arc<Actions>,
    /// Where the history goes that has no room in a status.
    pub histories: Histories,
    /// Who is decided on next.
    pub turns: Arc<Turns>,
    /// Who may start.
    pub admission: Admission,
}

/// Why a pass could not be completed. It is made again, later each time.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The journal could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The object changed faster than it could be decided on.
    #[error("{0} changed {MAX_ROUNDS} times while it was decided on")]
    Busy(String),
    /// The object could not be deleted.
    #[error("{name} could not be deleted when its ttlSecondsAfterFinished had passed: {error}")]
    Delete {
        /// The object.
        name: String,
        /// What the API server said.
        error: kube::Error,
    },
    /// What came of an action could not be told to it.
    #[error("what came of an OperationAction on {name} could not be written: {error}")]
    Answer {
        /// The operation.
        name: String,
        /// What the API server said.
        error: kube::Error,
    },
    /// The template could not be read or pinned.
    #[error("OperationTemplate {template}, which {name} runs, could not be read or pinned: {error}")]
    Template {
        /// The operation.
        name: String,
        /// The template.
        template: String,
        /// What the API server said.
        error: kube::Error,
    },
    /// The concurrency key could not be taken.
    #[error("the concurrency key of {name} could not be taken: {error}")]
    Lock {
        /// The operation.
        name: String,
        /// What the API server said.
        error: kube::Error,
    },
    /// Whether the namespace is held could not be said.
    #[error("namespace {namespace} could not be read: {error}")]
    Namespace {
        /// The namespace.
        namespace: String,
        /// What the API server said.
        error: kube::Error,
    },
    /// This process no longer leads.
    #[error("leadership was lost")]
    NotLeading,
}

/// Brings one operation as far as it gets now.
///
/// # Errors
/// When the API server can't be reached, refuses, or another writer is always faster.
pub async fn reconcile(cached: Arc<Cached>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let _turn = context.turns.take(&cached.namespace().unwrap_or_default()).await;
    Box::pin(pass(cached, context)).await // boxed, so that thousands that wait for their turn keep no room for it
}

async fn pass(cached: Arc<Cached>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let mut current = match context.executor.freshest(&cached) {
        Ok(freshest) => freshest,
        Err(error) => {
            warn!(
                namespace = cached.namespace(),
                name = cached.name_any(),
                %error,
                "this object can't be read: it waits for a change"
            );
            return Ok(Action::await_change());
        }
    };
    for _ in 0..MAX_ROUNDS {
        let operation = &*current;
        if operation.metadata.deletion_timestamp.is_some() {
            context.executor.forget(&operation.uid().unwrap_or_default());
            return Ok(Action::await_change());
        }
        let status = operation.status.clone().unwrap_or_default();
        if let Some(engine) = status.engine.filter(|engine| *engine > engine::ENGINE) {
            warn!(
                namespace = operation.namespace(),
                name = operation.name_any(),
                engine,
                "a newer operator started this operation: it is left untouched until one leads again"
            );
        }
        let now = context.clock.now();
        let identity = identity(operation);
        let known = context.namespaces.know(&context.client, &identity.namespace).await;
        known.map_err(|error| ReconcileError::Namespace {
            namespace: identity.namespace.clone(),
            error,
        })?;
        let actions = context.actions.on(&identity.namespace, &identity.name);
        let hold = context.namespaces.hold(&identity.namespace);
        let max_operations = context.namespaces.max_operations(&identity.namespace);
        let limited = max_operations.is_some();
        let draining = *context.draining.borrow();
        let (results, unwritten) = context.executor.arrived(operation);
        let (resolved, mut waits) = resolve(operation, &status, &actions, &context, now).await?;
        let held = hold.is_some_and(|hold| hold.until.is_none());
        // What stayed unwritten is written first, so that whatever is decided now is decided on it as on what was done.
        let overdue = unwritten.as_ref().filter(|unwritten| {
            let changed = unwritten.from.metadata.generation != operation.metadata.generation;
            let counts = limited && status.start_time.is_none();
            let something_else = changed || held || counts || draining || waits.is_some() || !actions.is_empty();
            something_else || unwritten.since.elapsed() >= engine::STAYS_UNWRITTEN
        });
        let spec = resolved.as_ref().map_or(&operation.spec, |resolved| &resolved.spec);
        let digest = engine::spec_digest(spec);
        let mut workflow = match resolved.as_ref().and_then(|resolved| resolved.invalid.clone()) {
            Some(invalid) => Arc::new(Err(invalid)),
            None => context.workflows.get(&digest, spec),
        };
        let mut refused = None;
        if waits.is_some() {
            context.admission.leave(operation); // it takes no turn from another meanwhile
        } else if workflow.is_ok() && overdue.is_none() {
            let place = Place {
                max_operations,
                held,
                draining,
            };
            let admitted = context.admission.admit(operation, &status, &actions, place, now);
            match admitted.await.map_err(|error| ReconcileError::Lock {
                name: operation.name_any(),
                error,
            })? {
                Admitted::Yes => {}
                Admitted::NotNow(again) => return Ok(again.map_or_else(Action::await_change, Action::requeue)),
                Admitted::Waits(state, message, again) => waits = Some((state, message, again)),
                Admitted::Never(why) => refused = Some(why),
                Admitted::Invalid(invalid) => workflow = Arc::new(Err(invalid)),
            }
        }
        let (spilled, unspilled) = context.executor.spilled(&identity.uid);
        // What arrived for one that waits is applied once it goes on.
        let waiting = waits.is_some() && overdue.is_none();
        let taken = match (overdue, &waits) {
            (Some(unwritten), _) => unwritten.results,
            (None, Some(_)) => 0,
            (None, None) => results.len(),
        };
        let decision = match (overdue, waits) {
            (Some(unwritten), _) => Decision {
                status: unwritten.decided.status.clone().unwrap_or_default(),
                durable: true,
                work: unwritten.work.clone(),
                wake: Some(now),
                delete: false,
            },
            (None, Some((state, message, again))) => Decision {
                status: engine::held_up(&status, &identity, state, &message, now),
                durable: true,
                work: vec![],
                wake: [
                    spec.start_deadline.filter(|at| *at >= now),
                    again.map(|again| now.plus(again)),
                ]
                .into_iter()
                .flatten()
                .min(),
                delete: false,
            },
            (None, None) => engine::decide(
                &status,
                &Inputs {
                    identity: &identity,
                    spec,
                    spec_digest: &digest,
                    workflow: workflow.as_ref().as_ref().map(Arc::as_ref),
                    results: &results,
                    actions: &actions,
                    spilled,
                    unspilled: unspilled.as_deref(),
                    namespace_hold: hold,
                    refused: refused.as_deref(),
                    limited,
                    begun: unwritten
                        .as_ref()
                        .and_then(|unwritten| unwritten.decided.status.as_ref()?.start_time),
                    draining,
                    runner: &context.runner,
                    now,
                },
            ),
        };
        if !context.claim.is_held() {
            return Err(ReconcileError::NotLeading);
        }
        if decision.delete {
            return delete(operation, &context).await;
        }
        let Decision {
            status: next,
            durable: has_to_be,
            work,
            wake,
            ..
        } = decision;
        if next != status && !has_to_be {
            // Only local steps went on: what they did stays with what arrived, until something has to be written.
            let since = unwritten.map_or_else(Instant::now, |unwritten| unwritten.since);
            let unwritten = Arc::new(Unwritten {
                from: current.clone(),
                decided: CloudOperation {
                    status: Some(next),
                    ..operation.clone()
                },
                work: work.clone(),
                results: taken,
                since,
            });
            let workflow = workflow.as_ref().as_ref().ok();
            context
                .executor
                .run(&unwritten.decided, spec, workflow, work, Some(unwritten.clone()));
            let left = engine::STAYS_UNWRITTEN.saturating_sub(since.elapsed());
            let wake = wake.map_or(left, |at| at.since(context.clock.now()).min(left));
            return Ok(Action::requeue(wake + Duration::from_millis(1)));
        }
        let durable = if next == status {
            current.clone()
        } else {
            match record(operation, &status, next, &context).await? {
                Appended::Durable(written) => Arc::from(written),
                Appended::Superseded(found) => {
                    current = Arc::from(found);
                    context.executor.recorded(current.clone(), 0);
                    continue;
                }
                Appended::Gone => {
                    context.executor.forget(&operation.uid().unwrap_or_default());
                    return Ok(Action::await_change());
                }
            }
        };
        let changed = !Arc::ptr_eq(&durable, &current);
        if changed || taken > 0 {
            context.executor.recorded(durable.clone(), taken);
        }
        // What should be under way isn't known of one that waits: so what is, goes on.
        if !waiting {
            context
                .executor
                .run(&durable, spec, workflow.as_ref().as_ref().ok(), work, None);
        }
        let again = wake.map(|at| at.since(context.clock.now()));
        let ended = !waiting && durable.status.as_ref().is_some_and(has_ended);
        let later = follow_up(&durable, &status, ended, !actions.is_empty(), &context).await?;
        let again = [again, later].into_iter().flatten().min();
        return Ok(again.map_or_else(Action::await_change, |again| {
            Action::requeue(again + Duration::from_millis(1))
        }));
    }
    Err(ReconcileError::Busy(current.name_any()))
}

/// Writes what was decided on top of the status before it, and tells metrics and Events what came of it.
async fn record(
    operation: &CloudOperation,
    before: &OperationStatus,
    next: OperationStatus,
    context: &Context,
) -> Result<Appended, JournalError> {
    let appended = context.journal.append(operation, next).await;
    match &appended {
        Ok(Appended::Durable(written)) => {
            context.metrics.written();
            announce(before, written, context);
        }
        Ok(Appended::Superseded(found)) => {
            context.metrics.conflict();
            debug!(
                namespace = found.namespace(),
                name = found.name_any(),
                "it had changed: deciding anew"
            );
        }
        Ok(Appended::Gone) => {}
        Err(JournalError::Ambiguous { .. }) => context.metrics.lost_answer(),
        Err(JournalError::Refused { message, reason, .. }) => {
            context.metrics.refused();
            if context.executor.note_refused(operation, message) {
                context.events.refused(operation, reason, message);
            }
        }
    }
    appended
}

/// What follows an accepted status: actions are told what came of them, who waits for its end is woken, and what has no room
/// in it goes elsewhere. Answers in how long there is more to do. Each can be done again after a crash.
async fn follow_up(
    operation: &CloudOperation,
    before: &OperationStatus,
    ended: bool,
    asked: bool,
    context: &Context,
) -> Result<Option<Duration>, ReconcileError> {
    let (uid, name) = (operation.uid().unwrap_or_default(), operation.name_any());
    let untold = match asked {
        true => context.actions.answer(operation).await.err(),
        false => None,
    };
    let is_refused = matches!(untold, Some(kube::Error::Api(_)));
    let untold = untold.map(|error| ReconcileError::Answer {
        name: name.clone(),
        error,
    });
    let untold = match untold {
        // Where the API server doesn't answer, nothing else gets on.
        Some(error) if !is_refused => return Err(error),
        other => other,
    };
    if ended {
        context.admission.leave(operation);
        if !has_ended(before) {
            context.admission.tidy(operation).await;
        }
    }
    if before.engine.is_some_and(|engine| engine > engine::ENGINE) {
        return untold.map_or(Ok(None), Err);
    }
    let mut again = None;
    let (spilled, _) = context.executor.spilled(&uid);
    let chunk = operation.status.as_ref().and_then(engine::chunk);
    if let Some(chunk) = chunk.filter(|chunk| chunk.last().is_some_and(|last| last.seq > spilled)) {
        let pause = context.executor.spills_in(&uid);
        if pause.is_none() {
            let spilled = context.histories.spill(operation, chunk).await.map_err(|error| {
                warn!(namespace = operation.namespace(), name, %error, "a part of the history can't be moved to an OperationHistory: it is tried again");
                error.to_string()
            });
            context.executor.note_spilled(operation, spilled);
        }
        again = Some(pause.unwrap_or_default());
    }
    if parts_are_left(operation, context.clock.now()) && !context.executor.is_pruned(&uid) {
        match context.histories.prune(operation).await {
            Ok(()) => context.executor.note_pruned(operation),
            Err(error) => {
                warn!(namespace = operation.namespace(), name, %error, "the history of a compacted operation can't be deleted: it is tried again");
                again = again.or(Some(PRUNE_AGAIN));
            }
        }
    }
    untold.map_or(Ok(again), Err)
}

fn has_ended(status: &OperationStatus) -> bool {
    status.state.is_some_and(OperationState::is_finished)
}

/// True if objects may be left that hold what a compacted operation no longer has. They are deleted after the write that
/// compacted it: before, a person's retry could still win over that write, and the operation needs them. After a crash in
/// between, whoever leads within a day deletes them; later they are left, as they go with the operation, and to ask for
/// each one would make a new leader slow.
fn parts_are_left(operation: &CloudOperation, now: Time) -> bool {
    const AFTER: Duration = Duration::from_secs(24 * 60 * 60);
    let Some(status) = &operation.status else { return false };
    let has_parts = status.history_spilled > 0 || operation.spec.template_ref.is_some();
    let lately = status.last_time.is_some_and(|compacted| now.since(compacted) < AFTER);
    status.compacted.is_some() && has_parts && lately
}

/// Why an operation waits before it starts: its state, a message, and when to look again, if not for a change.
pub(super) type Waits = (OperationState, String, Option<Duration>);

/// The whole spec of an operation that names a template. None where its own is the whole, or where nothing is decided
/// from its steps. Or why that can't be said yet.
pub(super) async fn resolve(
    operation: &CloudOperation,
    status: &OperationStatus,
    actions: &[engine::Action],
    context: &Context,
    now: Time,
) -> Result<(Option<Arc<Resolved>>, Option<Waits>), ReconcileError> {
    let Some(template) = &operation.spec.template_ref else {
        return Ok((None, None));
    };
    let started = status.start_time.is_some();
    let over = status.completion_time.is_some() && actions.is_empty();
    let held_back = !started && identity(operation).restored;
    if over || held_back || status.engine.is_some_and(|engine| engine > engine::ENGINE) {
        return Ok((None, None));
    }
    let runs = context
        .templates
        .resolve(operation, template, now)
        .await
        .map_err(|error| ReconcileError::Template {
            name: operation.name_any(),
            template: template.name.clone(),
            error,
        })?;
    let spec = &operation.spec;
    let too_late = !started && spec.start_deadline.is_some_and(|deadline| now > deadline);
    let ends = spec.cancel.is_some() || too_late || status.completion_time.is_some();
    Ok(match runs {
        Runs::Known(resolved) => (Some(resolved), None),
        // For an end it need not be known.
        Runs::Unknown(_, message, _) if ends => {
            let invalid = InvalidSpec {
                field: "spec.templateRef".into(),
                message,
            };
            let resolved = Resolved {
                spec: spec.clone(),
                invalid: Some(invalid),
            };
            (Some(Arc::new(resolved)), None)
        }
        Runs::Unknown(state, message, again) => (None, Some((state, message, Some(again)))),
    })
}

/// Which operation, as the engine needs to know it.
pub fn identity(operation: &CloudOperation) -> Identity {
    let meta = &operation.metadata;
    let owners = operation.owner_references();
    let is_part = owners.iter().any(|owner| owner.kind == CloudOperation::kind(&()));
    Identity {
        namespace: operation.namespace().unwrap_or_default(),
        name: operation.name_any(),
        uid: operation.uid().unwrap_or_default(),
        generation: meta.generation,
        // What another operation waits for stays until that one is gone: its outcome may not be recorded there yet.
        disposable: !is_part && (meta.generate_name.is_some() || !owners.is_empty()),
        restored: operation.labels().contains_key(RESTORED_LABEL),
        created: meta.creation_timestamp.as_ref().map(|time| Time::new(time.0)),
        creator: operation.annotations().get(CREATED_BY_ANNOTATION).cloned(),
    }
}

async fn delete(operation: &CloudOperation, context: &Context) -> Result<Action, ReconcileError> {
    let api: Api<CloudOperation> = Api::namespaced(context.client.clone(), &operation.namespace().unwrap_or_default());
    let preconditions = Preconditions {
        uid: operation.uid(),
        resource_version: operation.resource_version(),
    };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        ..DeleteParams::background()
    };
    match within(api.delete(&operation.name_any(), &params)).await {
        Ok(_) => {
            info!(
                namespace = operation.namespace(),
                name = operation.name_any(),
                "deleted: its ttlSecondsAfterFinished passed"
            );
            Ok(Action::await_change())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(Action::await_change()),
        Err(error) => Err(ReconcileError::Delete {
            name: operation.name_any(),
            error,
        }),
    }
}

/// Tells people and Prometheus what was just recorded.
fn announce(before: &OperationStatus, operation: &CloudOperation, context: &Context) {
    let Some(status) = &operation.status else { return };
    context.events.publish(operation, before.seq);
    let ended = status
        .state
        .filter(|s| s.is_finished() && !before.state.is_some_and(OperationState::is_finished));
    if let Some(state) = ended {
        let took = status
            .completion_time
            .zip(status.start_time)
            .map(|(end, start)| end.since(start))
            .unwrap_or_default();
        context.metrics.finished(state, took);
        info!(namespace = operation.namespace(), name = operation.name_any(), %state, ?took, "operation ended");
    }
}

/// What follows a pass that failed: another, soon.
pub fn on_error(operation: Arc<Cached>, error: &ReconcileError, context: Arc<Context>) -> Action {
    warn!(namespace = operation.namespace(), name = operation.name_any(), %error, "the pass is made again");
    Action::requeue(match error {
        ReconcileError::Journal(JournalError::Refused { .. }) => {
            context.executor.refused_for(&operation.uid().unwrap_or_default())
        }
        _ => Duration::from_secs(1),
    })
}

/// Compiled specs by their digest: many operations run the same workflow, and each is decided on many times.
#[derive(Default)]
pub struct Workflows {
    compiled: Mutex<HashMap<String, Compiled>>,
}

pub(super) type Compiled = Arc<Result<Arc<Workflow>, InvalidSpec>>;

/// How many compiled specs are kept.
const MAX_COMPILED: usize = 512;

impl Workflows {
    pub(super) fn get(&self, digest: &str, spec: &CloudOperationSpec) -> Compiled {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = compiled.get(digest) {
            return known.clone();
        }
        let compiled_now = Workflow::compile(spec).map(Arc::new);
        let fresh: Compiled = Arc::new(compiled_now.map_err(|invalid| match &spec.template_ref {
            Some(template) => InvalidSpec {
                field: format!("{} of OperationTemplate {}", invalid.field, template.name),
                ..invalid
            },
            None => invalid,
        }));
        if compiled.len() >= MAX_COMPILED {
            compiled.clear(); // rare, and compiling anew costs a millisecond
        }
        compiled.insert(digest.to_owned(), fresh.clone());
        fresh
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_another_operation_waits_for_is_not_disposable() {
        let disposable = |metadata: serde_json::Value| {
            let operation = json!({"metadata": metadata, "spec": {"steps": []}});
            identity(&serde_json::from_value(operation).unwrap()).disposable
        };
        let owner = |kind: &str| json!([{"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u"}]);
        assert!(!disposable(json!({"name": "a"})));
        assert!(disposable(json!({"name": "a", "generateName": "a"})));
        assert!(disposable(
            json!({"name": "a", "ownerReferences": owner("OperationSchedule")})
        ));
        assert!(!disposable(
            json!({"name": "a", "ownerReferences": owner("CloudOperation")})
        ));
    }
}
