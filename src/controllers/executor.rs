//! What is under way in this process: the decided work, each piece a task of its own.
//!
//! The engine says what should be under way; this starts what is missing and aborts what is too much. A piece that has
//! ended stays known until the journal has moved past it, so that nothing is started twice. Results wait here until the
//! write that records them was accepted.

mod callbacks;
mod heartbeats;
mod report;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tracing::warn;

pub use self::callbacks::CalledBack;
use self::heartbeats::Beat;
use self::report::{Report, progress};
use super::cached::{Cached, version};
use super::cloud_operation::identity;
use super::metrics::Metrics;
use super::namespaces::Namespaces;
use super::turns::Turns;
use crate::activities::{Activities, Aim, AttemptContext, Claim, Progress};
use crate::api::{CloudOperation, CloudOperationSpec, Step, StepStatus, StepType};
use crate::engine::expression::Scope;
use crate::engine::{
    self, AttemptFailure, AttemptOutcome, AttemptResult, IdempotencyKey, Outcome, Work, WorkKind, Workflow,
};

/// How soon a part of the history that could not be moved is moved again, at first and at last.
const FIRST_SPILL: Duration = Duration::from_secs(1);
const LAST_SPILL: Duration = Duration::from_secs(60);

/// How soon a status that was refused is written again, at first and at last; and after how long it is told again.
const FIRST_REFUSED: Duration = Duration::from_secs(1);
const LAST_REFUSED: Duration = Duration::from_secs(10);
const TELL_AGAIN: Duration = Duration::from_secs(600);

/// How far apart a piece's messages are recorded, at least, once there were some; and heartbeats.
const NOTE_INTERVAL: Duration = Duration::from_secs(30);
/// How many calls are made at once, by namespaces in turn. Waits, which cost nothing, don't count.
const MAX_CALLS: usize = 256;

/// Asks for another pass over an operation.
pub type Trigger = futures::channel::mpsc::UnboundedSender<ObjectRef<Cached>>;

/// The work under way in this process.
pub struct Executor {
    activities: Arc<Activities>,
    claim: Arc<dyn Claim>,
    namespaces: Arc<Namespaces>,
    metrics: Arc<Metrics>,
    trigger: Trigger,
    /// The operations that there are.
    store: Store<Cached>,
    calls: Arc<Turns>,
    operations: Mutex<HashMap<String, Entry>>,
    /// True once the term is over: set and read under the lock of `operations`.
    ended: AtomicBool,
}

/// What is known of one operation beyond the cache, by its uid.
#[derive(Default)]
struct Entry {
    /// The object as this process last wrote it, while the cache may not have it yet.
    latest: Option<Arc<CloudOperation>>,
    /// What arrived and isn't recorded yet.
    inbox: Vec<Arrived>,
    flights: HashMap<Work, Flight>,
    /// What is under way though nothing says so yet.
    unwritten: Option<Arc<Unwritten>>,
    /// Signs of life of the other side, by step and epoch.
    beats: HashMap<(String, i64), Beat>,
    /// The sequence number up to which the history is in objects of its own.
    spilled: i64,
    unspilled: Option<Box<Unspilled>>,
    /// What the API server said last, if it refuses the status.
    refused: Option<Box<Refused>>,
    /// True if this process has seen to it that none of those are left, as it was compacted.
    pruned: bool,
}

/// A part of the history that could not be moved to an object of its own.
struct Unspilled {
    why: String,
    /// When it is tried again.
    again: Instant,
    /// How long after the last time that is.
    pause: Duration,
}

/// A status that is refused.
struct Refused {
    why: String,
    /// How soon it is tried again.
    pause: Duration,
    told: Option<Instant>,
}

/// What was decided and can be done again. It is written if it stays so for long, and before anything is decided on that
/// comes from outside: a change of the spec, a hold, an action, the end of this process.
pub struct Unwritten {
    /// The object from which it was decided.
    pub from: Arc<CloudOperation>,
    /// That object, with the status that was decided.
    pub decided: CloudOperation,
    /// What is under way by it.
    pub work: Vec<Work>,
    /// How much of what arrived is in it.
    pub results: usize,
    /// Since when something is unwritten.
    pub since: Instant,
}

/// What arrived, and who is to be told of the operation in which it is recorded.
struct Arrived {
    result: AttemptResult,
    tell: Option<oneshot::Sender<Arc<CloudOperation>>>,
}

enum Flight {
    UnderWay(AbortHandle),
    /// It ended: its result is in the inbox, or recorded.
    Landed,
}

impl Executor {
    /// Nothing is under way yet.
    pub fn new(
        activities: Arc<Activities>,
        claim: Arc<dyn Claim>,
        namespaces: Arc<Namespaces>,
        metrics: Arc<Metrics>,
        trigger: Trigger,
        store: Store<Cached>,
    ) -> Self {
        let calls = Turns::new(MAX_CALLS);
        Self {
            activities,
            claim,
            namespaces,
            metrics,
            trigger,
            store,
            calls,
            operations: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    fn operations(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // Nothing in here panics half-way through a change.
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of an operation, new if need be; None if it is gone. What was forgotten must not come back with a pass that
    /// was under way then: nothing would ever end it again.
    fn entry<'a>(
        &self,
        operations: &'a mut HashMap<String, Entry>,
        operation: &ObjectRef<Cached>,
        uid: &str,
    ) -> Option<&'a mut Entry> {
        // The store is told of a deletion before the operation is forgotten: so one that isn't in it gets no entry, and the
        // entry of one that still is will be taken away.
        let exists = || self.store.get(operation).and_then(|known| known.uid()).as_deref() == Some(uid);
        if !operations.contains_key(uid) && exists() {
            operations.insert(uid.to_owned(), Entry::default());
        }
        operations.get_mut(uid)
    }

    /// The newer of what the cache has and what this process last wrote.
    ///
    /// # Errors
    /// When what the cache has can't be read.
    pub fn freshest(&self, cached: &Cached) -> Result<Arc<CloudOperation>, serde_json::Error> {
        let mut operations = self.operations();
        if let Some(entry) = operations.get_mut(&cached.uid().unwrap_or_default()) {
            match &entry.latest {
                Some(latest) if version(&**latest) > version(cached) => return Ok(latest.clone()),
                _ => entry.latest = None,
            }
        }
        drop(operations);
        Ok(Arc::new(cached.parse()?))
    }

    /// What arrived for an operation and isn't recorded, and what was decided on it and isn't written. Where another process
    /// wrote its status meanwhile, what came of the latter is forgotten: that was computed from what is no more.
    pub fn arrived(&self, operation: &CloudOperation) -> (Vec<AttemptResult>, Option<Arc<Unwritten>>) {
        let mut operations = self.operations();
        let Some(entry) = operations.get_mut(&operation.uid().unwrap_or_default()) else {
            return (vec![], None);
        };
        let overtaken = |unwritten: &mut Arc<Unwritten>| unwritten.from.status != operation.status;
        if let Some(unwritten) = entry.unwritten.take_if(overtaken) {
            entry.keep_recorded(&unwritten, operation);
        }
        let results = entry.inbox.iter().map(|arrived| arrived.result.clone());
        (results.collect(), entry.unwritten.clone())
    }

    /// The sequence number up to which an operation's history is in objects of its own, as far as this process saw to it,
    /// and why no more of it is, if that failed.
    pub fn spilled(&self, uid: &str) -> (i64, Option<String>) {
        let operations = self.operations();
        let entry = operations.get(uid);
        let why = entry.and_then(|entry| Some(entry.unspilled.as_ref()?.why.clone()));
        (entry.map_or(0, |entry| entry.spilled), why)
    }

    /// How long it is until history may be moved again, if that failed.
    pub fn spills_in(&self, uid: &str) -> Option<Duration> {
        let again = self.operations().get(uid)?.unspilled.as_ref()?.again;
        Some(again.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// Notes that history up to this sequence number is in an object of its own, or why none could be created.
    pub fn note_spilled(&self, operation: &CloudOperation, spilled: Result<i64, String>) {
        let uid = operation.uid().unwrap_or_default();
        let mut operations = self.operations();
        let Some(entry) = self.entry(&mut operations, &reference(operation), &uid) else {
            return;
        };
        let failed = entry.unspilled.take();
        match spilled {
            Ok(spilled) => entry.spilled = spilled,
            Err(why) => {
                let pause = failed.map_or(FIRST_SPILL, |failed| (failed.pause * 2).min(LAST_SPILL));
                let again = Instant::now() + pause;
                entry.unspilled = Some(Box::new(Unspilled { why, again, pause }));
            }
        }
    }

    /// Notes that the API server refuses an operation's status. True if that is to be told: it is not the first time, and was not
    /// told a while ago.
    pub fn note_refused(&self, operation: &CloudOperation, why: &str) -> bool {
        let uid = operation.uid().unwrap_or_default();
        let mut operations = self.operations();
        let Some(entry) = self.entry(&mut operations, &reference(operation), &uid) else {
            return false;
        };
        let Some(refused) = entry.refused.as_mut().filter(|refused| refused.why == why) else {
            let (why, pause, told) = (why.to_owned(), FIRST_REFUSED, None);
            entry.refused = Some(Box::new(Refused { why, pause, told }));
            return false;
        };
        refused.pause = (refused.pause * 2).min(LAST_REFUSED);
        let tell = refused.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN);
        if tell {
            refused.told = Some(Instant::now());
        }
        tell
    }

    /// How soon an operation whose status was refused is looked at again.
    pub fn refused_for(&self, uid: &str) -> Duration {
        let operations = self.operations();
        let refused = operations.get(uid).and_then(|entry| entry.refused.as_ref());
        refused.map_or(FIRST_REFUSED, |refused| refused.pause)
    }

    /// True if this process has seen to it that nothing is left of a compacted operation's history.
    pub fn is_pruned(&self, uid: &str) -> bool {
        self.operations().get(uid).is_some_and(|entry| entry.pruned)
    }

    /// Notes that nothing is left of a compacted operation's history.
    pub fn note_pruned(&self, operation: &CloudOperation) {
        let uid = operation.uid().unwrap_or_default();
        if let Some(entry) = self.entry(&mut self.operations(), &reference(operation), &uid) {
            entry.pruned = true;
        }
    }

    /// Notes the object as it was just read or written, and that so many results are recorded in it.
    pub fn recorded(&self, operation: Arc<CloudOperation>, results: usize) {
        let mut operations = self.operations();
        let uid = operation.uid().unwrap_or_default();
        let Some(entry) = self.entry(&mut operations, &reference(&operation), &uid) else {
            return;
        };
        for arrived in entry.inbox.drain(..results.min(entry.inbox.len())) {
            if let Some(tell) = arrived.tell {
                let _ = tell.send(operation.clone()); // fails if nobody waits for it any more
            }
        }
        entry.refused = None;
        entry.latest = Some(operation);
    }

    /// Brings what is under way to what should be. The spec is the whole one, with its template filled in. `unwritten` if
    /// not all of it is written.
    pub fn run(
        self: &Arc<Self>,
        operation: &CloudOperation,
        spec: &CloudOperationSpec,
        workflow: Option<&Arc<Workflow>>,
        work: Vec<Work>,
        unwritten: Option<Arc<Unwritten>>,
    ) {
        let uid = operation.uid().unwrap_or_default();
        let mut operations = self.operations();
        let over = self.ended.load(Ordering::SeqCst);
        if over || (work.is_empty() && unwritten.is_none() && !operations.contains_key(&uid)) {
            return;
        }
        let Some(entry) = self.entry(&mut operations, &reference(operation), &uid) else {
            return;
        };
        entry.unwritten = unwritten;
        entry.flights.retain(|known, flight| {
            let wanted = work.contains(known);
            if let (false, Flight::UnderWay(handle)) = (wanted, flight) {
                handle.abort();
            }
            wanted
        });
        let under_way = |step: &str, epoch| work.iter().any(|piece| piece.step == step && piece.epoch == epoch);
        entry.beats.retain(|(step, epoch), _| under_way(step, *epoch));
        for piece in work {
            if let (false, Some(workflow)) = (entry.flights.contains_key(&piece), workflow) {
                let task = self.clone().launch(operation, spec, workflow, piece.clone());
                entry.flights.insert(piece, Flight::UnderWay(task));
            }
        }
    }

    fn launch(
        self: Arc<Self>,
        operation: &CloudOperation,
        spec: &CloudOperationSpec,
        workflow: &Arc<Workflow>,
        piece: Work,
    ) -> AbortHandle {
        let report = Report {
            executor: self.clone(),
            uid: operation.uid().unwrap_or_default(),
            reference: reference(operation),
            piece: piece.clone(),
        };
        let prepared = self.prepare(operation, spec, workflow, &piece);
        let task = async move {
            let outcome = match prepared {
                Ok(prepared) => {
                    let progress = progress(report.clone());
                    // A bug in an activity must not look like one that never ends.
                    let caught = std::panic::AssertUnwindSafe(self.perform(prepared, &report, &progress))
                        .catch_unwind()
                        .await;
                    caught.unwrap_or_else(|_| {
                        AttemptOutcome::Failed(AttemptFailure::unknown(
                            "Panic",
                            "the operator has a bug: the attempt panicked; see its log",
                        ))
                    })
                }
                Err(failure) => AttemptOutcome::Failed(failure),
            };
            report.log(&outcome);
            report.send(outcome);
        };
        tokio::spawn(task).abort_handle()
    }

    /// Gathers all that an attempt needs, so that a wait of days holds on to nothing else.
    fn prepare(
        &self,
        operation: &CloudOperation,
        spec: &CloudOperationSpec,
        workflow: &Arc<Workflow>,
        piece: &Work,
    ) -> Result<Prepared, AttemptFailure> {
        let status = operation.status.clone().unwrap_or_default();
        let identity = identity(operation);
        let key = IdempotencyKey::new(&identity.uid, &piece.step, piece.epoch);
        let invalid = |message: String| AttemptFailure::definite("InvalidExpression", message);
        let flow = workflow
            .step(&piece.step)
            .ok_or_else(|| invalid(format!("there is no step {}", piece.step)))?;
        let entry = status.steps.iter().find(|s| s.name == piece.step);
        let scope =
            engine::scope(workflow, flow, &piece.step, &identity, spec, &status).map_err(|e| invalid(e.to_string()))?;
        let request = engine::request(flow, &scope, &key).map_err(|e| invalid(e.to_string()))?;
        let scope = if flow.reads_later() { scope } else { Scope::default() };
        let context = AttemptContext {
            namespace: identity.namespace.clone(),
            operation: identity.name.clone(),
            operation_uid: identity.uid.clone(),
            service_account: spec.service_account().to_owned(),
            step: piece.step.clone(),
            attempt: piece.attempt,
            key,
            failures: entry.map_or(0, |s| s.failures),
            // A process that is gone may have made a local call without a trace.
            maybe_done: entry.is_some_and(|s| s.maybe_done) || (flow.spec.local == Some(true) && flow.undo.is_none()),
            undoes: engine::undoes(spec) && flow.undo.is_none(),
            sensitive: flow.spec.sensitive == Some(true),
            writes_secret: flow.spec.output_secret.is_some(),
            result_counts: flow.result_counts(),
            scope,
            kubernetes: self
                .activities
                .clients
                .as_service_account(&identity.namespace, spec.service_account()),
            claim: self.claim.clone(),
            target: entry.and_then(|s| s.target.clone()),
        };
        let mut step = slim(&flow.spec);
        if let (Some(secret), Some(name)) = (&mut step.output_secret, request.secret_name) {
            secret.name = name;
        }
        Ok(Prepared {
            field: flow.field.clone(),
            context,
            request: request.value,
            is_kubernetes_wait: flow.spec.is_kubernetes_wait(),
            start_to_close: engine::start_to_close(&flow.spec),
            step: Box::new(step),
            step_type: flow.step_type,
            kind: piece.kind.clone(),
        })
    }

    async fn perform(&self, mut prepared: Prepared, report: &Report, progress: &Progress) -> AttemptOutcome {
        if !self.claim.is_held() {
            let context = &prepared.context;
            warn!(
                namespace = context.namespace,
                name = context.operation,
                step = context.step,
                attempt = context.attempt,
                "leadership was lost before the attempt: it is left to who leads now"
            );
            return std::future::pending().await; // aborted with everything else of this term
        }
        let request = std::mem::take(&mut prepared.request); // a wait of days keeps no room for it
        let known = match prepared.kind {
            WorkKind::Attempt => Box::pin(self.aim(&mut prepared, &request, report)).await,
            WorkKind::Follow(_) | WorkKind::Stop { .. } => None,
        };
        let Prepared {
            context,
            step,
            step_type,
            kind,
            ..
        } = &prepared;
        let started = Instant::now();
        let outcome = match (known, kind) {
            (Some(outcome), _) => outcome,
            (None, WorkKind::Stop { external, .. }) => {
                let stop = self
                    .activities
                    .stop(context, *step_type, request, external.as_ref(), progress);
                return match Box::pin(stop).await {
                    Ok(()) => AttemptOutcome::Stopped,
                    Err(failure) => AttemptOutcome::StopFailed(failure),
                };
            }
            (None, WorkKind::Follow(external)) => {
                let followed = Box::pin(self.activities.follow(context, external, progress));
                self.unless_silent(context, step, followed).await
            }
            (None, WorkKind::Attempt) => {
                let _turn = if prepared.is_kubernetes_wait {
                    None
                } else {
                    Some(self.calls.take(&context.namespace).await)
                };
                let targets = self.namespaces.http_targets(&context.namespace);
                // Boxed, as what follows has room for it several times over, also in a wait of days.
                let attempt = Box::pin(self.activities.run(context, *step_type, request, targets.as_deref()));
                let attempt = async {
                    match prepared.start_to_close {
                        None => attempt.await,
                        Some(limit) => timeout(limit, attempt).await.unwrap_or_else(|_| {
                            Outcome::Failed(AttemptFailure::unknown(
                                "StartToClose",
                                format!("no answer within timeouts.startToClose ({limit:?})"),
                            ))
                        }),
                    }
                };
                self.unless_silent(context, step, attempt).await
            }
        };
        let outcome = Box::pin(self.record(&prepared, outcome)).await;
        self.metrics.attempt(*step_type, &outcome, started.elapsed());
        outcome
    }

    /// Finds what an attempt is to remove, and has it recorded. Nothing is done by then: that time is not the attempt's, nor
    /// has it a turn while it waits. Answers how the attempt ends, where that is known already.
    async fn aim(&self, prepared: &mut Prepared, request: &Value, report: &Report) -> Option<Outcome> {
        let context = &prepared.context;
        if prepared.step_type != StepType::Kubernetes || prepared.is_kubernetes_wait || context.target.is_some() {
            return None;
        }
        let turn = self.calls.take(&context.namespace).await;
        let aim = self.activities.aim(context, prepared.step_type, request);
        let aim = match prepared.start_to_close {
            None => aim.await,
            Some(limit) => timeout(limit, aim).await.unwrap_or_else(|_| {
                let message = format!("no answer within timeouts.startToClose ({limit:?}), before anything was done");
                Err(AttemptFailure::retryable("StartToClose", message))
            }),
        };
        drop(turn);
        match aim {
            Ok(None) => None,
            Ok(Some(Aim::At(uid))) => {
                report.aimed(&uid).await;
                prepared.context.target = Some(uid);
                None
            }
            Ok(Some(Aim::Gone)) => Some(Outcome::succeeded(Value::Object(Map::new()))),
            Err(failure) => Some(Outcome::Failed(failure)),
        }
    }

    /// Turns an outcome into what the journal takes: of a result, only what the step names.
    async fn record(&self, prepared: &Prepared, outcome: Outcome) -> AttemptOutcome {
        let Prepared {
            field, context, step, ..
        } = prepared;
        let (result, unmasked) = match outcome {
            Outcome::Failed(failure) => return AttemptOutcome::Failed(failure),
            Outcome::Accepted { external } => return AttemptOutcome::Accepted { external },
            Outcome::Succeeded { result, unmasked } => (result, unmasked),
        };
        if let Some(secret) = &step.output_secret {
            let answered = unmasked.as_ref().unwrap_or(&result);
            let scope = engine::result_scope(&context.scope, answered, context.attempt, &context.key);
            if let Err(failure) = self
                .activities
                .write_output_secret(context, field, secret, &scope)
                .await
            {
                return AttemptOutcome::Failed(failure);
            }
        }
        match engine::output(
            field,
            step.output.as_ref(),
            &context.scope,
            &result,
            context.attempt,
            &context.key,
        ) {
            // What a Job writes on its own account, or an operation answers, is what it wants recorded.
            Ok(None) if step.job.is_some() || step.operation.is_some() => AttemptOutcome::Succeeded {
                output: result.as_object().cloned(),
            },
            Ok(output) => AttemptOutcome::Succeeded { output },
            Err(error) => {
                let why = context.evaluation_failed(&error.field, &error.message);
                let message = format!("the step did its work, but its output can't be recorded: {why}");
                AttemptOutcome::Failed(AttemptFailure::done("InvalidExpression", message))
            }
        }
    }

    /// How many attempts with an effect are under way.
    pub fn under_way(&self) -> usize {
        let operations = self.operations();
        let flights = operations.values().flat_map(|entry| &entry.flights);
        flights
            .filter(|(work, flight)| work.kind == WorkKind::Attempt && matches!(flight, Flight::UnderWay(_)))
            .count()
    }

    /// How many results wait to be recorded.
    pub fn unrecorded(&self) -> usize {
        self.operations().values().map(|entry| entry.inbox.len()).sum()
    }

    /// Stops what is under way for an operation that is gone.
    pub fn forget(&self, uid: &str) {
        if let Some(entry) = self.operations().remove(uid) {
            entry.abort();
        }
    }

    /// Stops what is under way for every operation but these.
    pub fn forget_all_but(&self, uids: &HashSet<String>) {
        self.operations().retain(|uid, entry| {
            let known = uids.contains(uid);
            if !known {
                entry.abort();
            }
            known
        });
    }
}

fn reference(operation: &CloudOperation) -> ObjectRef<Cached> {
    ObjectRef::new(&operation.name_any()).within(&operation.namespace().unwrap_or_default())
}

impl Entry {
    /// Forgets what came of starts that were not written, unless they are by now, as this process's own.
    fn keep_recorded(&mut self, unwritten: &Unwritten, now: &CloudOperation) {
        fn steps(operation: &CloudOperation) -> &[StepStatus] {
            operation.status.as_ref().map_or(&[], |status| &status.steps)
        }
        let is_recorded = |step: &str, epoch: i64| {
            let same = |known: &&StepStatus| known.name == step && known.epoch == epoch;
            let own = steps(&unwritten.decided).iter().find(same);
            let written = steps(now).iter().find(same);
            let as_own = own
                .zip(written)
                .is_some_and(|(own, written)| own.runner == written.runner);
            steps(&unwritten.from).iter().any(|known| same(&known)) || as_own
        };
        self.inbox
            .retain(|arrived| is_recorded(&arrived.result.step, arrived.result.epoch));
        self.flights.retain(|work, flight| {
            let kept = is_recorded(&work.step, work.epoch);
            if let (false, Flight::UnderWay(handle)) = (kept, flight) {
                handle.abort();
            }
            kept
        });
    }

    fn abort(&self) {
        for flight in self.flights.values() {
            if let Flight::UnderWay(handle) = flight {
                handle.abort();
            }
        }
    }
}

/// Aborts everything when the term of leadership that started it ends, however it ends. What is under way holds on to the
/// executor, so the executor's own end would come too late.
pub struct EndOfTerm(pub Arc<Executor>);

impl Drop for EndOfTerm {
    fn drop(&mut self) {
        let mut operations = self.0.operations();
        self.0.ended.store(true, Ordering::SeqCst);
        for entry in operations.values() {
            entry.abort();
        }
        operations.clear();
    }
}

struct Prepared {
    field: String,
    context: AttemptContext,
    request: Value,
    is_kubernetes_wait: bool,
    /// How long it may take.
    start_to_close: Option<Duration>,
    step: Box<Step>,
    step_type: StepType,
    kind: WorkKind,
}

/// A step without its request, which is rendered already: what is left doesn't say any more of which type it is.
fn slim(step: &Step) -> Step {
    let mut slim = step.clone();
    if let Some(http) = &mut slim.http {
        **http = crate::api::Http::default();
    }
    slim.kubernetes = None;
    if let Some(job) = &mut slim.job {
        **job = crate::api::Job::default();
    }
    if let Some(operation) = &mut slim.operation {
        **operation = crate::api::ChildOperation::default();
    }
    slim
}
