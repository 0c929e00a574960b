//! One pass over one schedule: read, plan, create, write. Each due time has an operation of a name of its own, so that
//! whoever creates it twice finds it there; and the status moves past a due time only after its operation was created.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tracing::{info, warn};

use super::cached::Cached;
use super::clock::Clock;
use super::events::Events;
use super::metrics::Metrics;
use super::namespaces::Namespaces;
use super::within::within;
use crate::activities::Claim;
use crate::activities::labels::operation_label;
use crate::api::{
    CloudOperation, FIELD_MANAGER, OperationSchedule, OperationScheduleStatus, OperationState, OperationStatus,
    RESTORED_LABEL, SCHEDULE_LABEL, SCHEDULED_AT_ANNOTATION, Time,
};
use crate::engine::is_to_run_again;
use crate::engine::schedule::{self, Child, Halt, ScheduleIdentity, Start};

/// A schedule as the cache holds it: that it is there. It is read anew in each pass, so that nothing is decided from an
/// old one, and one that can't be read holds up no other.
pub type Known = PartialObjectMeta<OperationSchedule>;
/// Asks for another pass over a schedule.
pub type Trigger = futures::channel::mpsc::UnboundedSender<ObjectRef<Known>>;

/// All that a pass needs.
pub struct Context {
    /// The operator's own access to the API server.
    pub client: Client,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The right to act.
    pub claim: Arc<dyn Claim>,
    /// What namespaces say.
    pub namespaces: Arc<Namespaces>,
    /// Where people are told.
    pub events: Events,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The operations, as last seen.
    pub operations: Store<Cached>,
    /// True once `operations` holds all there are. The store's own `wait_until_ready` wakes one of those who wait alone,
    /// and the controller of operations is one.
    pub operations_listed: watch::Receiver<bool>,
    /// True once this process shuts down.
    pub draining: watch::Receiver<bool>,
}

/// Why a pass could not be completed. It is made again.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The API server gave no answer, or one that says nothing.
    #[error("{what}: {error}")]
    Api {
        /// What was to be done.
        what: String,
        /// What was said.
        error: kube::Error,
    },
    /// The operations aren't known yet.
    #[error("the operations are not known yet")]
    NotReady,
    /// This process no longer leads.
    #[error("leadership was lost")]
    NotLeading,
}

/// The schedule that started an operation, if one did.
pub fn schedule_of(operation: &Cached) -> Option<ObjectRef<Known>> {
    let owners = operation.meta().owner_references.iter().flatten();
    let mut owners = owners.filter(|owner| owner.kind == OperationSchedule::kind(&()));
    let owner = owners.next()?;
    Some(ObjectRef::new(&owner.name).within(operation.namespace().as_deref().unwrap_or_default()))
}

/// Passes on the events of operations, says when all have been listed, and wakes the schedules whose operations have ended
/// or are gone.
pub fn wake_owners(
    operations: impl Stream<Item = Result<watcher::Event<Cached>, watcher::Error>>,
    schedules: Store<Known>,
    trigger: Trigger,
    listed: watch::Sender<bool>,
) -> impl Stream<Item = Result<watcher::Event<Cached>, watcher::Error>> {
    use futures::StreamExt;
    operations.inspect(move |event| {
        let wake = |schedule| {
            // Fails only once the controller has ended, and this with it.
            let _ = trigger.unbounded_send(schedule);
        };
        match event {
            Ok(watcher::Event::Apply(operation)) if operation.state().is_some_and(OperationState::is_finished) => {
                schedule_of(operation).into_iter().for_each(wake);
            }
            Ok(watcher::Event::Delete(operation)) => schedule_of(operation).into_iter().for_each(wake),
            // What happened while the watch was interrupted.
            Ok(watcher::Event::InitDone) => {
                listed.send_replace(true);
                schedules
                    .state()
                    .iter()
                    .for_each(|known| wake(ObjectRef::from_obj(&**known)));
            }
            _ => {}
        }
    })
}

/// Brings one schedule as far as it gets now.
///
/// # Errors
/// When the API server can't be reached, or leadership is lost.
pub async fn reconcile(known: Arc<Known>, context: Arc<Context>) -> Result<Action, ScheduleError> {
    let namespace = known.namespace().unwrap_or_default();
    let asked = context.namespaces.know(&context.client, &namespace).await;
    asked.map_err(|error| failed("its namespace could not be read", error))?;
    let held = context
        .namespaces
        .hold(&namespace)
        .is_some_and(|hold| hold.until.is_none());
    if held || *context.draining.borrow() {
        return Ok(Action::await_change()); // woken when the namespace is released
    }
    let mut listed = context.operations_listed.clone();
    if listed.wait_for(|listed| *listed).await.is_err() {
        return Err(ScheduleError::NotReady);
    }
    let schedules: Api<OperationSchedule> = Api::namespaced(context.client.clone(), &namespace);
    let schedule = match within(schedules.get_opt(&known.name_any())).await {
        Ok(Some(schedule)) if schedule.metadata.deletion_timestamp.is_none() => schedule,
        Ok(_) => return Ok(Action::await_change()),
        Err(error @ kube::Error::SerdeError(_)) => {
            warn!(namespace, name = known.name_any(), %error, "this object can't be read: it waits for a change");
            return Ok(Action::await_change());
        }
        Err(error) => return Err(failed("the schedule could not be read", error)),
    };
    let pass = Pass {
        api: Api::namespaced(context.client.clone(), &namespace),
        schedules,
        namespace,
        identity: ScheduleIdentity {
            name: schedule.name_any(),
            uid: schedule.uid().unwrap_or_default(),
            created: schedule
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or_else(|| context.clock.now(), |time| Time::new(time.0)),
            generation: schedule.metadata.generation,
            restored: schedule.labels().contains_key(RESTORED_LABEL),
        },
        schedule,
        context,
    };
    pass.run().await
}

/// What follows a pass that failed: another, soon.
pub fn on_error(schedule: Arc<Known>, error: &ScheduleError, _: Arc<Context>) -> Action {
    warn!(namespace = schedule.namespace(), name = schedule.name_any(), %error, "the pass is made again");
    Action::requeue(Duration::from_secs(1))
}

fn failed(what: impl Into<String>, error: kube::Error) -> ScheduleError {
    ScheduleError::Api {
        what: what.into(),
        error,
    }
}

struct Pass {
    context: Arc<Context>,
    namespace: String,
    identity: ScheduleIdentity,
    schedule: OperationSchedule,
    schedules: Api<OperationSchedule>,
    api: Api<CloudOperation>,
}

impl Pass {
    async fn run(self) -> Result<Action, ScheduleError> {
        let status = self.schedule.status.clone().unwrap_or_default();
        let children = self.children(&status).await?;
        let now = self.context.clock.now();
        let decide = |halt| schedule::plan(&self.identity, &self.schedule.spec, &status, &children, halt, now);
        let mut plan = decide(None);
        for child in children.iter().filter(|child| plan.cancel.contains(&child.name)) {
            self.cancel(child).await?;
        }
        let mut outcome = Ok(());
        if let Some((halt, failed)) = self.create_all(&plan.start).await {
            plan = decide(Some(&halt));
            outcome = failed;
        }
        self.write(plan.status).await?;
        outcome?;
        for name in &plan.delete {
            self.delete(name).await?;
        }
        Ok(plan.wake.map_or_else(Action::await_change, |at| {
            Action::requeue(at.since(self.context.clock.now()) + Duration::from_millis(1))
        }))
    }

    /// Its operations: as the cache has them, and those that the status names and the cache doesn't have (yet).
    async fn children(&self, status: &OperationScheduleStatus) -> Result<Vec<Child>, ScheduleError> {
        let mut children: Vec<Child> = vec![];
        for operation in self.context.operations.state() {
            if operation.namespace().as_deref() == Some(&*self.namespace) && self.owns(operation.meta()) {
                let ended = operation.state().filter(|state| state.is_finished());
                let cancelled = ended.is_none() && operation.parse().is_ok_and(|whole| whole.spec.cancel.is_some());
                children.extend(child(operation.meta(), ended, cancelled));
            }
        }
        for active in &status.active {
            if children.iter().any(|child| child.name == active.name) {
                continue;
            }
            let found = within(self.api.get_opt(&active.name)).await;
            let found = found.map_err(|error| failed(format!("{} could not be read", active.name), error))?;
            if let Some(operation) = found.filter(|operation| self.owns(operation.meta())) {
                let state = operation.status.as_ref().and_then(|status| status.state);
                let ended = state.filter(|state| state.is_finished());
                children.extend(child(operation.meta(), ended, operation.spec.cancel.is_some()));
            }
        }
        Ok(children)
    }

    fn owns(&self, meta: &ObjectMeta) -> bool {
        let mut owners = meta.owner_references.iter().flatten();
        owners.any(|owner| owner.uid == self.identity.uid)
    }

    fn may_act(&self) -> Result<(), ScheduleError> {
        if self.context.claim.is_held() {
            Ok(())
        } else {
            Err(ScheduleError::NotLeading)
        }
    }

    /// Creates operations, one after the other. Answers where that came to a halt, if it did, and how the pass ends then.
    async fn create_all(&self, starts: &[Start]) -> Option<(Halt, Result<(), ScheduleError>)> {
        for (after, start) in starts.iter().enumerate() {
            let (refusal, outcome) = match self.create(start).await {
                Ok(Ok(())) => continue,
                Ok(Err(refusal)) => (Some(refusal), Ok(())),
                Err(error) => (None, Err(error)),
            };
            if let Some(refusal) = &refusal {
                let (namespace, schedule) = (&self.namespace, &self.identity.name);
                warn!(namespace, schedule, refusal, "an operation is refused");
            }
            return Some((Halt { after, refusal }, outcome));
        }
        None
    }

    /// Creates an operation, or finds that it was created before. Answers why it is refused, if it is.
    async fn create(&self, start: &Start) -> Result<Result<(), String>, ScheduleError> {
        self.may_act()?;
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let name = &start.name;
        match within(self.api.create(&params, &self.operation(start))).await {
            Ok(created) => {
                info!(namespace = self.namespace, name, schedule = self.identity.name, due = %start.due, "started");
                self.context.metrics.due_times("started", 1);
                self.context.events.started(&self.schedule, &created, start.due);
                Ok(Ok(()))
            }
            Err(kube::Error::Api(said)) if said.code == 409 => {
                let found = within(self.api.get_metadata_opt(name)).await;
                match found.map_err(|error| failed(format!("{name} could not be read"), error))? {
                    Some(found) if self.owns(found.meta()) => Ok(Ok(())),
                    Some(_) => Ok(Err(format!(
                        "CloudOperation {name}, which was due at {}, can't be created: another has its name; delete that one",
                        start.due
                    ))),
                    None => Err(failed(format!("{name} could not be created"), kube::Error::Api(said))),
                }
            }
            Err(kube::Error::Api(said)) if matches!(said.code, 400 | 403 | 413 | 422) => Ok(Err(format!(
                "CloudOperation {name}, which was due at {}, is refused: {}",
                start.due, said.message
            ))),
            Err(error) => Err(failed(format!("{name} could not be created"), error)),
        }
    }

    /// The operation of a due time.
    fn operation(&self, start: &Start) -> CloudOperation {
        let template = &self.schedule.spec.operation;
        let metadata = template.metadata.clone().unwrap_or_default();
        let mut labels = metadata.labels;
        labels.insert(SCHEDULE_LABEL.into(), operation_label(&self.identity.name));
        let mut annotations = metadata.annotations;
        annotations.insert(SCHEDULED_AT_ANNOTATION.into(), start.due.to_string());
        let mut operation = CloudOperation::new(&start.name, template.spec.clone());
        operation.spec.start_deadline = start.deadline;
        operation.metadata = ObjectMeta {
            namespace: Some(self.namespace.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![OwnerReference {
                api_version: OperationSchedule::api_version(&()).into_owned(),
                kind: OperationSchedule::kind(&()).into_owned(),
                name: self.identity.name.clone(),
                uid: self.identity.uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(false),
            }]),
            ..operation.metadata
        };
        operation
    }

    /// Cancels an operation. One that isn't the known one any more is a conflict, and the pass is made again.
    async fn cancel(&self, Child { name, uid, .. }: &Child) -> Result<(), ScheduleError> {
        self.may_act()?;
        let reason = format!("OperationSchedule {}: the next one is due", self.identity.name);
        let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "spec": {"cancel": {"reason": reason}}}));
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        match within(self.api.patch(name, &params, &patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(said)) if said.is_not_found() => Ok(()),
            Err(error) => Err(failed(format!("{name} could not be cancelled"), error)),
        }
    }

    /// Writes the status, if it differs. One that was computed from an old object is refused, and decided anew.
    async fn write(&self, status: OperationScheduleStatus) -> Result<(), ScheduleError> {
        if self.schedule.status.as_ref() == Some(&status) {
            return Ok(());
        }
        self.may_act()?;
        let mut next = self.schedule.clone();
        next.status = Some(status);
        next.metadata.managed_fields = None;
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        match within(self.schedules.replace_status(&self.identity.name, &params, &next)).await {
            Ok(_) => {
                self.tell(&next.status.unwrap_or_default());
                Ok(())
            }
            Err(error) => Err(failed("the status could not be written", error)),
        }
    }

    /// Tells people and Prometheus what a status says that was just accepted.
    fn tell(&self, next: &OperationScheduleStatus) {
        let before = self.schedule.status.as_ref();
        let (skipped, missed) = before.map_or((0, 0), |before| (before.skipped, before.missed));
        self.context.metrics.due_times("skipped", next.skipped - skipped);
        self.context.metrics.due_times("missed", next.missed - missed);
        self.context.events.moved(&self.schedule, next);
    }

    /// Deletes an operation that has ended, unless a person lets it run again.
    async fn delete(&self, name: &str) -> Result<(), ScheduleError> {
        self.may_act()?;
        let found = self
            .context
            .operations
            .get(&ObjectRef::new(name).within(&self.namespace));
        let Some(operation) = found.filter(|operation| self.owns(operation.meta())) else {
            return Ok(()); // it is gone
        };
        let over = |status: OperationStatus| {
            status.state.is_some_and(OperationState::is_finished) && !is_to_run_again(&status)
        };
        // One that can't be read runs no more.
        if operation.parse().is_ok_and(|whole| !whole.status.is_some_and(over)) {
            return Ok(()); // looked at again when it ends
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: operation.uid(),
                resource_version: operation.resource_version(), // a person may let it run again meanwhile
            }),
            ..DeleteParams::background()
        };
        match within(self.api.delete(name, &params)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(said)) if matches!(said.code, 404 | 409) => Ok(()),
            Err(error) => Err(failed(format!("{name} could not be deleted"), error)),
        }
    }
}

/// An operation as the plan knows it. One that doesn't say when it was due isn't the schedule's.
fn child(meta: &ObjectMeta, ended: Option<OperationState>, cancelled: bool) -> Option<Child> {
    let due = meta.annotations.as_ref()?.get(SCHEDULED_AT_ANNOTATION)?;
    Some(Child {
        name: meta.name.clone()?,
        uid: meta.uid.clone()?,
        due: due.parse().ok().map(Time::new)?,
        ended: ended.map(|state| state == OperationState::Succeeded),
        cancelled,
    })
}
