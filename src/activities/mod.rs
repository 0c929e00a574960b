//! The effects: one file a kind of activity. Each is a function from a rendered request to an [`Outcome`]; it knows
//! nothing of journals, retries or other steps.

mod backoff;
pub mod call;
pub mod callbacks;
pub mod clients;
mod created;
pub mod discovery;
pub mod http;
pub mod job;
pub mod kubernetes;
pub mod labels;
pub mod operation;
mod output_secret;
#[cfg(test)]
pub(crate) mod testing;
pub mod watches;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use self::callbacks::Callbacks;
pub use self::clients::Clients;
use self::clients::ServiceAccount;
use self::discovery::Discovery;
pub use self::http::Report;
use self::http::{HttpActivity, TargetPolicy, Transport};
pub use self::job::Progress;
use self::watches::Watches;
use crate::api::{ExternalRef, Kubernetes, OutputSecret, StepType};
use crate::engine::expression::Scope;
use crate::engine::{AttemptFailure, IdempotencyKey, Outcome};

/// Every activity, with what they share.
pub struct Activities {
    /// Kubernetes, as any operation's service account.
    pub clients: Clients,
    discovery: Discovery,
    watches: Watches,
    http: HttpActivity,
    targets: Arc<TargetPolicy>,
}

impl Activities {
    /// What activities share, on the operator's own access to the API server, which no operation may act as.
    pub fn new(
        client: kube::Client,
        own_account: Option<ServiceAccount>,
        transport: Arc<dyn Transport>,
        targets: TargetPolicy,
        callbacks: Arc<Callbacks>,
    ) -> Self {
        let clients = Clients::new(client.clone(), own_account);
        let discovery = Discovery::new(client);
        Self {
            watches: Watches::new(clients.clone(), discovery.clone()),
            clients,
            discovery,
            http: HttpActivity::new(transport, callbacks),
            targets: Arc::new(targets),
        }
    }

    /// Makes one attempt at a request whose templates are filled in. `http_targets` is what the namespace's annotation
    /// lets `http` steps call.
    ///
    /// What ends soon is boxed: a wait of days must not hold on to room for the largest of the others.
    pub async fn run(
        &self,
        context: &AttemptContext,
        step_type: StepType,
        request: Value,
        http_targets: Option<&str>,
    ) -> Outcome {
        match step_type {
            StepType::Http => match read(request) {
                Ok(request) => {
                    let targets = self.targets.for_namespace(&context.namespace, http_targets);
                    Box::pin(self.http.run(context, &request, &targets)).await
                }
                Err(failure) => Outcome::Failed(failure),
            },
            StepType::Kubernetes => match read::<Kubernetes>(request) {
                Ok(Kubernetes { wait: Some(wait), .. }) => {
                    kubernetes::wait(context, &self.watches, &self.discovery, &wait).await
                }
                Ok(request) => Box::pin(kubernetes::run(context, &self.discovery, &request)).await,
                Err(failure) => Outcome::Failed(failure),
            },
            StepType::Job => match read(request) {
                Ok(request) => Box::pin(job::start(context, &request)).await,
                Err(failure) => Outcome::Failed(failure),
            },
            StepType::Operation => match read(request) {
                Ok(request) => Box::pin(operation::start(context, &request)).await,
                Err(failure) => Outcome::Failed(failure),
            },
            StepType::Wait
            | StepType::Set
            | StepType::Assert
            | StepType::Signal
            | StepType::Approval
            | StepType::Steps => {
                Outcome::Failed(AttemptFailure::definite("Bug", format!("{step_type:?} is no activity")))
            }
        }
    }

    /// What a request is to remove. It has to be recorded before the request is made: once an answer was lost, another object
    /// may have its name. None for requests that remove nothing, and of objects without a uid.
    ///
    /// # Errors
    /// When that can't be said.
    pub async fn aim(
        &self,
        context: &AttemptContext,
        step_type: StepType,
        request: &Value,
    ) -> Result<Option<Aim>, AttemptFailure> {
        let removes = ["delete", "evict"].iter().any(|way| request.get(way).is_some());
        match step_type {
            StepType::Kubernetes if removes => kubernetes::aim(context, &self.discovery, &read(request.clone())?).await,
            _ => Ok(None),
        }
    }

    /// Follows what an attempt started; `progress` is told what it waits for.
    pub async fn follow(&self, context: &AttemptContext, external: &ExternalRef, progress: &Progress) -> Outcome {
        match external.kind.as_str() {
            operation::KIND => operation::follow(context, &self.watches, external, progress).await,
            callbacks::KIND => std::future::pending().await, // it comes by itself
            _ => job::follow(context, &self.watches, external, progress).await,
        }
    }

    /// What a callback says of an `http` step, as if its request had been answered so.
    ///
    /// # Errors
    /// When it can't be said yet: the secrets that must not be recorded can't be read.
    pub async fn called_back(
        &self,
        context: &AttemptContext,
        request: Value,
        token: &str,
        report: Report,
    ) -> Result<Outcome, AttemptFailure> {
        self.http.called_back(context, &read(request)?, token, report).await
    }

    /// Stops what an attempt started, or may have, and waits until it has ended; `progress` is told what it waits for.
    ///
    /// # Errors
    /// When it could not be stopped yet.
    pub async fn stop(
        &self,
        context: &AttemptContext,
        step_type: StepType,
        request: Value,
        external: Option<&ExternalRef>,
        progress: &Progress,
    ) -> Result<(), AttemptFailure> {
        match step_type {
            StepType::Operation => operation::stop(context, &self.watches, &read(request)?, external, progress).await,
            _ => job::stop(context, &self.watches, external, progress).await,
        }
    }

    /// Writes parts of a result into a Secret.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn write_output_secret(
        &self,
        context: &AttemptContext,
        field: &str,
        secret: &OutputSecret,
        scope: &Scope,
    ) -> Result<(), AttemptFailure> {
        output_secret::write(context, field, secret, scope).await
    }
}

/// Reads a filled-in request as its type: a template may have given a value of the wrong one.
fn read<T: DeserializeOwned>(request: Value) -> Result<T, AttemptFailure> {
    serde_json::from_value(request).map_err(|error| {
        AttemptFailure::definite(
            "InvalidRequest",
            format!("with its templates filled in, the request can't be read: {error}"),
        )
    })
}

/// What every activity is given beside its request: for whom it acts, under which key, and with what.
#[derive(Clone)]
pub struct AttemptContext {
    /// The operation's namespace.
    pub namespace: String,
    /// The operation's name.
    pub operation: String,
    /// The operation's service account: what `kubernetes` acts as.
    pub service_account: String,
    /// The operation's uid: the owner of what is created.
    pub operation_uid: String,
    /// The step's path.
    pub step: String,
    /// The number of the attempt.
    pub attempt: i64,
    /// The key that every attempt carries to the other side.
    pub key: IdempotencyKey,
    /// How many attempts under this key failed definitely: with the key it names what is created.
    pub failures: i64,
    /// True if an earlier attempt under this key may have had its effect.
    pub maybe_done: bool,
    /// True if an operation that it runs, and that is ended before its time, undoes what it did: as this one does, where the
    /// step doesn't say itself how it is undone.
    pub undoes: bool,
    /// True if nothing of the answer may be recorded (`sensitive`).
    pub sensitive: bool,
    /// True if a part of the result goes into a Secret (`outputSecret`): no expression's error may quote the result then.
    pub writes_secret: bool,
    /// True if an expression names the step, or says what of its result is recorded.
    pub result_counts: bool,
    /// What the step's expressions may read, beside the result.
    pub scope: Scope,
    /// Kubernetes, as the operation's service account.
    pub kubernetes: kube::Client,
    /// Leadership: asked before every effect.
    pub claim: Arc<dyn Claim>,
    /// The uid of the object that it removes: see [`Activities::aim`].
    pub target: Option<String>,
}

/// What a request is to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aim {
    /// The object of this uid.
    At(String),
    /// It is gone already.
    Gone,
}

impl AttemptContext {
    /// What is said of an expression of this field that failed on a result: its error may quote a value.
    pub(crate) fn evaluation_failed(&self, field: &str, error: &str) -> String {
        match self.sensitive || self.writes_secret {
            true => format!("{field}: it could not be evaluated"),
            false => format!("{field}: {error}"),
        }
    }
}

/// The right to act. Asked right before anything is sent, as a process that was paused may no longer lead.
pub trait Claim: Send + Sync {
    /// False once another process may have taken over. Nothing may be sent then.
    fn is_held(&self) -> bool;
}
