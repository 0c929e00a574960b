//! Callbacks, as the process takes them that leads. What is answered with success is recorded: by a write that the API
//! server has accepted. Whoever doesn't get such an answer calls again, and is answered the same.

use std::sync::Arc;

use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, ResourceExt};
use serde_json::Value;
use tokio::time::sleep;
use tracing::info;

use super::cached::Cached;
use super::cloud_operation::{Context, resolve};
use super::executor::CalledBack;
use super::within::within;
use crate::activities::Report;
use crate::api::{CloudOperation, Heartbeat, StepState};
use crate::engine::{self, Said, Standing};

/// How large the details of a heartbeat may be to be recorded, in bytes of JSON.
const MAX_DETAILS: usize = 1024;

/// A callback whose token was verified.
#[derive(Clone, Debug)]
pub struct Call {
    /// The operation's namespace.
    pub namespace: String,
    /// The operation's name.
    pub operation: String,
    /// Its uid.
    pub uid: String,
    /// The step's path.
    pub step: String,
    /// The epoch of its key.
    pub epoch: i64,
    /// The run under that key.
    pub run: i64,
    /// The token that was shown.
    pub token: String,
    /// What is said.
    pub says: Says,
}

/// What a callback says.
#[derive(Clone, Debug)]
pub enum Says {
    /// How the work went.
    Ended(Report),
    /// That it goes on, and perhaps how far it is.
    Heartbeat(Option<Value>),
}

/// Why a callback was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such step.
    #[error("{0}")]
    Unknown(String),
    /// It comes too late.
    #[error("{0}")]
    Closed(String),
    /// It can't be recorded now.
    #[error("it could not be recorded yet; call again: {0}")]
    HeldUp(String),
}

/// Takes callbacks for one term of leadership.
pub struct Reception {
    context: Arc<Context>,
    store: Store<Cached>,
}

impl Reception {
    /// Takes them for operations in this cache.
    pub fn new(context: Arc<Context>, store: Store<Cached>) -> Self {
        Self { context, store }
    }

    /// Takes a callback. Answers with the state of its step once it is recorded.
    ///
    /// # Errors
    /// Where it doesn't count, or can't be recorded now.
    pub async fn receive(self: &Arc<Self>, call: Call) -> Result<StepState, Refusal> {
        match &call.says {
            Says::Ended(report) => self.ended(&call, report.clone()).await,
            Says::Heartbeat(details) => {
                let details = details.clone();
                self.beat(call, details).await
            }
        }
    }

    async fn ended(&self, call: &Call, report: Report) -> Result<StepState, Refusal> {
        let completes = match &report {
            Report::Completed(body) => Some(engine::digest(body)),
            Report::Failed { .. } => None,
        };
        let said = completes.as_deref().map_or(Said::Failed, Said::Completed);
        let (operation, standing) = self.find(call, said).await?;
        if let Some(answer) = answer(standing) {
            return answer;
        }
        if !self.context.claim.is_held() {
            return Err(Refusal::HeldUp("this process no longer leads".into()));
        }
        let told = self
            .with(call, &operation, async |called| {
                self.context
                    .executor
                    .called_back(called, report, completes.clone())
                    .await
            })
            .await?
            .map_err(|failure| Refusal::HeldUp(format!("{}: {}", failure.reason, failure.message)))?;
        let recorded = told
            .await
            .map_err(|_| Refusal::HeldUp("leadership or the operation was lost".into()))?;
        info!(
            namespace = call.namespace,
            name = call.operation,
            step = call.step,
            completes = completes.is_some(),
            "called back"
        );
        answer(stands(&recorded, call, said)).unwrap_or_else(|| Err(Refusal::HeldUp("the operation is held up".into())))
    }

    async fn beat(self: &Arc<Self>, call: Call, details: Option<Value>) -> Result<StepState, Refusal> {
        let (operation, standing) = self.find(&call, Said::Heartbeat).await?;
        if let Some(answer) = answer(standing) {
            return answer;
        }
        let status = operation.status.as_ref();
        let state = status.and_then(|status| status.steps.iter().find(|step| step.name == call.step));
        let state = state.map_or(StepState::Running, |step| step.state);
        if !matches!(state, StepState::Running | StepState::Waiting) {
            return Ok(state); // there is nothing that it would keep from timing out
        }
        let size = details.as_ref().map_or(0, |details| details.to_string().len());
        let details = match size {
            0..=MAX_DETAILS => details,
            _ => Some(format!("left out: {size} bytes, and up to {MAX_DETAILS} are recorded").into()),
        };
        let heartbeat = Heartbeat {
            time: self.context.clock.now(),
            details,
        };
        let due = self.context.executor.beat(&call.uid, &call.step, call.epoch, heartbeat);
        if let Some(pause) = due {
            let reception = self.clone();
            // It is in memory, which is all that a heartbeat needs.
            tokio::spawn(async move {
                sleep(pause).await;
                reception.record_beat(&call).await;
            });
        }
        Ok(state)
    }

    async fn record_beat(&self, call: &Call) {
        let executor = &self.context.executor;
        let Some(heartbeat) = executor.due_beat(&call.uid, &call.step, call.epoch) else {
            return;
        };
        if let Ok((operation, Standing::Open)) = self.find(call, Said::Heartbeat).await {
            // Another heartbeat follows one that could not be recorded.
            let _ = self
                .with(call, &operation, async |called| {
                    executor.record_beat(called, heartbeat).await
                })
                .await;
        }
    }

    /// The operation, and how the callback finds its step. What the cache doesn't know, or knows as closed, is asked of the
    /// API server: a cache may be old.
    async fn find(&self, call: &Call, said: Said<'_>) -> Result<(Arc<CloudOperation>, Standing), Refusal> {
        let reference = ObjectRef::new(&call.operation).within(&call.namespace);
        let cached = self.store.get(&reference);
        if let Some(cached) = cached.filter(|cached| cached.uid().as_ref() == Some(&call.uid)) {
            let operation = self
                .context
                .executor
                .freshest(&cached)
                .map_err(|error| Refusal::HeldUp(error.to_string()))?;
            let standing = stands(&operation, call, said);
            if !standing.may_be_stale() {
                return Ok((operation, standing));
            }
        }
        let api: Api<CloudOperation> = Api::namespaced(self.context.client.clone(), &call.namespace);
        match within(api.get_opt(&call.operation)).await {
            Ok(Some(operation)) if operation.uid().as_ref() == Some(&call.uid) => {
                let standing = stands(&operation, call, said);
                Ok((Arc::new(operation), standing))
            }
            Ok(_) => Err(Refusal::Unknown(format!(
                "there is no operation {} with uid {} in namespace {}",
                call.operation, call.uid, call.namespace
            ))),
            Err(error) => Err(Refusal::HeldUp(error.to_string())),
        }
    }

    /// Does something with the callback's step and what it runs.
    async fn with<T>(
        &self,
        call: &Call,
        operation: &CloudOperation,
        act: impl AsyncFnOnce(&CalledBack<'_>) -> T,
    ) -> Result<T, Refusal> {
        let context = &self.context;
        let status = operation.status.clone().unwrap_or_default();
        let held_up = |message: String| Refusal::HeldUp(message);
        let resolved = resolve(operation, &status, &[], context, context.clock.now()).await;
        let (resolved, waits) = resolved.map_err(|error| held_up(error.to_string()))?;
        if let Some((_, message, _)) = waits {
            return Err(held_up(message));
        }
        let spec = resolved.as_ref().map_or(&operation.spec, |resolved| &resolved.spec);
        let workflow = context.workflows.get(&engine::spec_digest(spec), spec);
        let workflow = match workflow.as_ref() {
            Ok(workflow) => workflow,
            Err(invalid) => return Err(held_up(format!("{}: {}", invalid.field, invalid.message))),
        };
        let called = CalledBack {
            operation,
            spec,
            workflow,
            step: &call.step,
            epoch: call.epoch,
            run: call.run,
            token: &call.token,
        };
        Ok(act(&called).await)
    }
}

fn stands(operation: &CloudOperation, call: &Call, said: Said<'_>) -> Standing {
    match &operation.status {
        Some(status) => engine::standing(status, &call.step, call.epoch, call.run, said),
        None => Standing::Unknown,
    }
}

/// What is answered where nothing is to be done.
fn answer(standing: Standing) -> Option<Result<StepState, Refusal>> {
    match standing {
        Standing::Open => None,
        Standing::Recorded(state) => Some(Ok(state)),
        Standing::Closed(why) => Some(Err(Refusal::Closed(why))),
        Standing::Unknown => Some(Err(Refusal::Unknown(
            "the operation has no such step that awaits a callback".into(),
        ))),
    }
}
