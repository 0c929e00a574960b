//! Work that the other side says more of later: callbacks become results, as what an attempt answers does.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kube::runtime::reflector::ObjectRef;
use tokio::sync::oneshot;

use super::{Arrived, Executor, Prepared};
use crate::activities::{AttemptContext, Report as Said};
use crate::api::{CloudOperation, CloudOperationSpec, Heartbeat};
use crate::engine::{
    AttemptFailure, AttemptOutcome, AttemptResult, Callback, Effect, Outcome, RetryAdvice, Work, WorkKind, Workflow,
};

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

impl Executor {
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
            if let Ok(Outcome::Succeeded { mut result, .. }) = masked {
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
        let reference = ObjectRef::new(&context.operation).within(&context.namespace);
        let Some(entry) = self.entry(&mut operations, &reference, &context.operation_uid) else {
            return;
        };
        // Who calls again, while nothing can be recorded, says the same: one is enough. The last one is who waits.
        match entry.inbox.iter_mut().find(|arrived| arrived.result == result) {
            Some(arrived) => arrived.tell = tell,
            None => entry.inbox.push(Arrived { result, tell }),
        }
        drop(operations);
        // Only fails while the operator ends, and then the other side calls again.
        let _ = self.trigger.unbounded_send(reference);
    }
}
