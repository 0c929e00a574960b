//! What is under way in this process: the decided work, each piece a task of its own.
//!
//! The engine says what should be under way; this starts what is missing and aborts what is too much. A piece that has
//! ended stays known until the journal has moved past it, so that nothing is started twice. Results wait here until the
//! write that records them was accepted.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::cached::{Cached, version};
use super::cloud_operation::identity;
use super::metrics::Metrics;
use super::namespaces::Namespaces;
use super::turns::Turns;
use crate::activities::{Activities, AttemptContext, Claim, Progress, Report as Said};
use crate::api::{CloudOperation, CloudOperationSpec, Heartbeat, Step, StepType, Time};
use crate::engine::expression::Scope;
use crate::engine::{
    self, AttemptFailure, AttemptOutcome, AttemptResult, Callback, Effect, IdempotencyKey, Outcome, RetryAdvice, Work,
    WorkKind, Workflow,
};

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
    /// Signs of life of the other side, by step and epoch.
    beats: HashMap<(String, i64), Beat>,
    /// The sequence number up to which the history is in objects of its own.
    spilled: i64,
}

/// What arrived, and who is to be told of the operation in which it is recorded.
struct Arrived {
    result: AttemptResult,
    tell: Option<oneshot::Sender<Arc<CloudOperation>>>,
}

/// The last sign of life of the other side.
struct Beat {
    at: Instant,
    heartbeat: Heartbeat,
    /// When one was last recorded.
    recorded: Option<Instant>,
    /// True if this one is going to be.
    scheduled: bool,
}

/// A callback that counts, and what it is about.
pub struct CalledBack<'a> {
    /// The operation, as it was when the callback was looked at.
    pub operation: &'a CloudOperation,
    /// Its whole spec.
    pub spec: &'a CloudOperationSpec,
    /// That spec, compiled.
    pub workflow: &'a Arc<Workflow>,
    /// The step.
    pub step: &'a str,
    /// The epoch of its key.
    pub epoch: i64,
    /// The run under that key.
    pub run: i64,
    /// The token that was shown.
    pub token: &'a str,
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
    ) -> Self {
        let calls = Turns::new(MAX_CALLS);
        Self {
            activities,
            claim,
            namespaces,
            metrics,
            trigger,
            calls,
            operations: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    fn operations(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // Nothing in here panics half-way through a change.
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newer of what the cache has and what this process last wrote, with what arrived since.
    ///
    /// # Errors
    /// When what the cache has can't be read.
    pub fn freshest(&self, cached: &Cached) -> Result<(Arc<CloudOperation>, Vec<AttemptResult>), serde_json::Error> {
        let mut operations = self.operations();
        let mut results = vec![];
        if let Some(entry) = operations.get_mut(&cached.uid().unwrap_or_default()) {
            results = entry.inbox.iter().map(|arrived| arrived.result.clone()).collect();
            match &entry.latest {
                Some(latest) if version(&**latest) > version(cached) => return Ok((latest.clone(), results)),
                _ => entry.latest = None,
            }
        }
        drop(operations);
        Ok((Arc::new(cached.parse()?), results))
    }

    /// The sequence number up to which an operation's history is in objects of its own, as far as this process saw to it.
    pub fn spilled(&self, uid: &str) -> i64 {
        self.operations().get(uid).map_or(0, |entry| entry.spilled)
    }

    /// Notes that history up to this sequence number is in an object of its own.
    pub fn note_spilled(&self, operation: &CloudOperation, spilled: i64) {
        let uid = operation.uid().unwrap_or_default();
        self.operations().entry(uid).or_default().spilled = spilled;
    }

    /// Notes the object as it was just read or written, and that so many results are recorded in it.
    pub fn recorded(&self, operation: Arc<CloudOperation>, results: usize) {
        let mut operations = self.operations();
        let entry = operations.entry(operation.uid().unwrap_or_default()).or_default();
        for arrived in entry.inbox.drain(..results) {
            if let Some(tell) = arrived.tell {
                let _ = tell.send(operation.clone()); // fails if nobody waits for it any more
            }
        }
        entry.latest = Some(operation);
    }

    /// Brings what is under way to what should be. The spec is the whole one, with its template filled in.
    pub fn run(
        self: &Arc<Self>,
        operation: &CloudOperation,
        spec: &CloudOperationSpec,
        workflow: Option<&Arc<Workflow>>,
        work: Vec<Work>,
    ) {
        let uid = operation.uid().unwrap_or_default();
        let mut operations = self.operations();
        let over = self.ended.load(Ordering::SeqCst);
        if over || (work.is_empty() && !operations.contains_key(&uid)) {
            return;
        }
        let entry = operations.entry(uid).or_default();
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
            reference: ObjectRef::new(&operation.name_any()).within(&operation.namespace().unwrap_or_default()),
            piece: piece.clone(),
        };
        let prepared = self.prepare(operation, spec, workflow, &piece);
        let task = async move {
            let outcome = match prepared {
                Ok(prepared) => {
                    let progress = progress(report.clone());
                    // A bug in an activity must not look like one that never ends.
                    let caught = std::panic::AssertUnwindSafe(self.perform(prepared, &progress))
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
            maybe_done: entry.is_some_and(|s| s.maybe_done),
            undoes: engine::undoes(spec) && flow.undo.is_none(),
            sensitive: flow.spec.sensitive == Some(true),
            scope,
            kubernetes: self
                .activities
                .clients
                .as_service_account(&identity.namespace, spec.service_account()),
            claim: self.claim.clone(),
        };
        Ok(Prepared {
            field: flow.field.clone(),
            context,
            request: request.value,
            step: Box::new(slim(&flow.spec)),
            step_type: flow.step_type,
            kind: piece.kind.clone(),
        })
    }

    async fn perform(&self, mut prepared: Prepared, progress: &Progress) -> AttemptOutcome {
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
        let Prepared {
            context,
            step,
            step_type,
            kind,
            ..
        } = &prepared;
        let started = Instant::now();
        let outcome = match kind {
            WorkKind::Stop(external) => {
                return match Box::pin(self.activities.stop(context, *step_type, request, external.as_ref())).await {
                    Ok(()) => AttemptOutcome::Stopped,
                    Err(failure) => AttemptOutcome::StopFailed(failure),
                };
            }
            WorkKind::Follow(external) => {
                let followed = Box::pin(self.activities.follow(context, external, progress));
                self.unless_silent(context, step, followed).await
            }
            WorkKind::Attempt => {
                let _turn = if step.is_kubernetes_wait() {
                    None
                } else {
                    Some(self.calls.take(&context.namespace).await)
                };
                let targets = self.namespaces.http_targets(&context.namespace);
                let attempt = self.activities.run(context, *step_type, request, targets.as_deref());
                let attempt = async {
                    match engine::start_to_close(step) {
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

    /// Turns an outcome into what the journal takes: of a result, only what the step names.
    async fn record(&self, prepared: &Prepared, outcome: Outcome) -> AttemptOutcome {
        let Prepared {
            field, context, step, ..
        } = prepared;
        let result = match outcome {
            Outcome::Failed(failure) => return AttemptOutcome::Failed(failure),
            Outcome::Accepted { external } => return AttemptOutcome::Accepted { external },
            Outcome::Succeeded { result } => result,
        };
        if let Some(secret) = &step.output_secret {
            let scope = engine::result_scope(&context.scope, &result, context.attempt, &context.key);
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
            Err(error) => AttemptOutcome::Failed(AttemptFailure::definite("InvalidExpression", error.to_string())),
        }
    }

    /// What comes of it, unless the other side is silent for longer than it may be.
    async fn unless_silent(
        &self,
        context: &AttemptContext,
        step: &Step,
        outcome: impl Future<Output = Outcome>,
    ) -> Outcome {
        let Some(limit) = step.timeouts.as_ref().and_then(|timeouts| timeouts.heartbeat.as_ref()) else {
            return outcome.await;
        };
        let (started, limit) = (Instant::now(), limit.get());
        let silence = async {
            loop {
                let last = self.last_beat(context);
                let since = last.as_ref().map_or(started, |(at, _)| started.max(*at));
                if since.elapsed() >= limit {
                    return last;
                }
                sleep_until(since + limit).await;
            }
        };
        tokio::select! {
            biased;
            outcome = outcome => outcome,
            last = silence => {
                let last = last.map_or("there was none".to_owned(), |(_, time)| format!("the last came at {time}"));
                Outcome::Failed(AttemptFailure::unknown(
                    "HeartbeatTimeout",
                    format!("no heartbeat within timeouts.heartbeat ({limit:?}): {last}"),
                ))
            }
        }
    }

    fn last_beat(&self, context: &AttemptContext) -> Option<(Instant, Time)> {
        let operations = self.operations();
        let entry = operations.get(&context.operation_uid)?;
        let beat = entry.beats.get(&(context.step.clone(), context.key.epoch()))?;
        Some((beat.at, beat.heartbeat.time))
    }

    /// Notes a sign of life. Answers in how long it is to be recorded, unless that is seen to already.
    pub fn beat(&self, uid: &str, step: &str, epoch: i64, heartbeat: Heartbeat) -> Option<Duration> {
        let mut operations = self.operations();
        let beats = &mut operations.get_mut(uid)?.beats;
        let beat = beats.entry((step.to_owned(), epoch)).or_insert_with(|| Beat {
            at: Instant::now(),
            heartbeat: heartbeat.clone(),
            recorded: None,
            scheduled: false,
        });
        beat.at = Instant::now();
        beat.heartbeat = heartbeat;
        if std::mem::replace(&mut beat.scheduled, true) {
            return None;
        }
        let pause = beat.recorded.map(|at| NOTE_INTERVAL.saturating_sub(at.elapsed()));
        Some(pause.unwrap_or_default())
    }

    /// The last sign of life, which is to be recorded now.
    pub fn due_beat(&self, uid: &str, step: &str, epoch: i64) -> Option<Heartbeat> {
        let mut operations = self.operations();
        let beat = operations.get_mut(uid)?.beats.get_mut(&(step.to_owned(), epoch))?;
        beat.scheduled = false;
        beat.recorded = Some(Instant::now());
        Some(beat.heartbeat.clone())
    }

    /// Records a sign of life, without what must not be recorded of it.
    pub async fn record_beat(&self, called: &CalledBack<'_>, mut heartbeat: Heartbeat) {
        let Ok(mut prepared) = self.prepare_callback(called) else {
            return;
        };
        let request = std::mem::take(&mut prepared.request);
        if let Some(details) = heartbeat.details.take().filter(|_| !prepared.context.sensitive) {
            let said = Said::Completed(details);
            let context = &prepared.context;
            let masked = self.activities.called_back(context, request, called.token, said).await;
            if let Ok(Outcome::Succeeded { mut result }) = masked {
                heartbeat.details = Some(result["body"].take());
            }
        }
        self.arrive(called, &prepared.context, AttemptOutcome::Beat(heartbeat), None);
    }

    /// Takes a callback that says how it went. Answers once it is recorded: with the operation as it then was.
    ///
    /// # Errors
    /// What keeps it from being recorded now.
    pub async fn called_back(
        &self,
        called: &CalledBack<'_>,
        report: Said,
        completes: Option<String>,
    ) -> Result<oneshot::Receiver<Arc<CloudOperation>>, AttemptFailure> {
        let mut prepared = self.prepare_callback(called)?;
        let request = std::mem::take(&mut prepared.request);
        let outcome = self
            .activities
            .called_back(&prepared.context, request, called.token, report)
            .await;
        let recorded = match outcome {
            Ok(outcome) => Ok(Box::pin(self.record(&prepared, outcome)).await),
            Err(failure) => Err(failure),
        };
        let said = match recorded {
            Ok(AttemptOutcome::Succeeded { output }) => Ok(output),
            // Its output can't be had, now or later, but it was done.
            Ok(AttemptOutcome::Failed(failure)) if completes.is_some() && failure.retry == RetryAdvice::Never => {
                Err(AttemptFailure {
                    effect: Effect::Unknown,
                    ..failure
                })
            }
            Ok(AttemptOutcome::Failed(failure)) if completes.is_none() => Err(failure),
            // What is to be recorded can't be had now: the other side calls again.
            Ok(AttemptOutcome::Failed(failure)) | Err(failure) => {
                let message = format!(
                    "its callback can't be recorded: {}: {}",
                    failure.reason, failure.message
                );
                self.arrive(called, &prepared.context, AttemptOutcome::Noted { message }, None);
                return Err(failure);
            }
            Ok(other) => return Err(AttemptFailure::definite("Bug", format!("a callback came to {other:?}"))),
        };
        self.metrics.called_back(&said);
        let (tell, told) = oneshot::channel();
        let callback = Callback {
            run: called.run,
            completes,
            said,
        };
        self.arrive(
            called,
            &prepared.context,
            AttemptOutcome::CalledBack(callback),
            Some(tell),
        );
        Ok(told)
    }

    fn prepare_callback(&self, called: &CalledBack<'_>) -> Result<Prepared, AttemptFailure> {
        let status = called.operation.status.as_ref();
        let entry = status.and_then(|status| status.steps.iter().find(|entry| entry.name == called.step));
        let piece = Work {
            step: called.step.to_owned(),
            epoch: called.epoch,
            attempt: entry.map_or(0, |entry| entry.attempt),
            kind: WorkKind::Attempt,
        };
        self.prepare(called.operation, called.spec, called.workflow, &piece)
    }

    /// Puts what arrived by itself into the inbox. Where the operation is gone or the term over, nobody is told.
    fn arrive(
        &self,
        called: &CalledBack<'_>,
        context: &AttemptContext,
        outcome: AttemptOutcome,
        tell: Option<oneshot::Sender<Arc<CloudOperation>>>,
    ) {
        let result = AttemptResult {
            step: called.step.to_owned(),
            epoch: called.epoch,
            attempt: context.attempt,
            outcome,
        };
        let mut operations = self.operations();
        if self.ended.load(Ordering::SeqCst) {
            return;
        }
        let entry = operations.entry(context.operation_uid.clone()).or_default();
        entry.inbox.push(Arrived { result, tell });
        drop(operations);
        let reference = ObjectRef::new(&context.operation).within(&context.namespace);
        // Only fails while the operator ends, and then the other side calls again.
        let _ = self.trigger.unbounded_send(reference);
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

impl Entry {
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

/// The way of a piece's outcome into the inbox.
#[derive(Clone)]
struct Report {
    executor: Arc<Executor>,
    uid: String,
    reference: ObjectRef<Cached>,
    piece: Work,
}

impl Report {
    /// Every line says itself which attempt it is about: the fields of a span would be nested in JSON, and its name would
    /// hide the operation's.
    fn log(&self, outcome: &AttemptOutcome) {
        let (result, failure) = match outcome {
            AttemptOutcome::Succeeded { .. } => ("succeeded", None),
            AttemptOutcome::Accepted { .. } => ("accepted", None),
            AttemptOutcome::Failed(failure) => ("failed", Some(failure)),
            AttemptOutcome::Stopped => ("stopped", None),
            AttemptOutcome::StopFailed(failure) => ("not stopped", Some(failure)),
            AttemptOutcome::Noted { .. } | AttemptOutcome::Beat(_) | AttemptOutcome::CalledBack(_) => return, // no end
        };
        info!(
            namespace = self.reference.namespace,
            name = self.reference.name,
            step = self.piece.step,
            attempt = self.piece.attempt,
            result,
            reason = failure.map(|failure| &*failure.reason),
            failure = failure.map(|failure| &*failure.message),
            "attempt ended"
        );
    }

    fn send(&self, outcome: AttemptOutcome) {
        let landed = !matches!(outcome, AttemptOutcome::Noted { .. });
        let result = AttemptResult {
            step: self.piece.step.clone(),
            epoch: self.piece.epoch,
            attempt: self.piece.attempt,
            outcome,
        };
        if let Some(entry) = self.executor.operations().get_mut(&self.uid) {
            entry.inbox.push(Arrived { result, tell: None });
            if landed {
                entry.flights.insert(self.piece.clone(), Flight::Landed);
            }
        }
        // Only fails while the operator ends, and then nobody waits for it.
        let _ = self.executor.trigger.unbounded_send(self.reference.clone());
    }
}

/// How many messages of one piece are recorded as they come; each is a write.
const PROMPT_NOTES: u32 = 5;
/// How far apart those after them are, at least.
const NOTE_INTERVAL: Duration = Duration::from_secs(30);

/// Records what a piece says that it waits for.
fn progress(report: Report) -> Progress {
    let last = Mutex::new((0, Instant::now()));
    Arc::new(move |message| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, at) = *last;
        if count < PROMPT_NOTES || at.elapsed() >= NOTE_INTERVAL {
            *last = (count + 1, Instant::now());
            report.send(AttemptOutcome::Noted { message });
        }
    })
}

struct Prepared {
    field: String,
    context: AttemptContext,
    request: Value,
    step: Box<Step>,
    step_type: StepType,
    kind: WorkKind,
}

/// A step without its request, which is rendered already.
fn slim(step: &Step) -> Step {
    let mut slim = step.clone();
    if let Some(http) = &mut slim.http {
        **http = crate::api::Http::default();
    }
    if let Some(job) = &mut slim.job {
        **job = crate::api::Job::default();
    }
    if let Some(operation) = &mut slim.operation {
        **operation = crate::api::ChildOperation::default();
    }
    slim
}
