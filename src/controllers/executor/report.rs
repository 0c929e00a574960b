//! What a piece of work says while it is under way, and how it ended: into the inbox.

use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::info;

use super::{Arrived, Executor, Flight, NOTE_INTERVAL};
use crate::activities::{Progress, Record};
use crate::api::CloudOperation;
use crate::controllers::cached::Cached;
use crate::engine::{AttemptOutcome, AttemptResult, Work};

/// The way of a piece's outcome into the inbox.
#[derive(Clone)]
pub(super) struct Report {
    pub executor: Arc<Executor>,
    pub uid: String,
    pub reference: ObjectRef<Cached>,
    pub piece: Work,
}

impl Report {
    /// Every line says itself which attempt it is about: the fields of a span would be nested in JSON, and its name would
    /// hide the operation's.
    pub(super) fn log(&self, outcome: &AttemptOutcome) {
        let (result, failure) = match outcome {
            AttemptOutcome::Succeeded { .. } => ("succeeded", None),
            AttemptOutcome::Accepted { .. } => ("accepted", None),
            AttemptOutcome::Failed(failure) => ("failed", Some(failure)),
            AttemptOutcome::Stopped => ("stopped", None),
            AttemptOutcome::StopFailed(failure) => ("not stopped", Some(failure)),
            AttemptOutcome::Noted { .. }
            | AttemptOutcome::Aimed { .. }
            | AttemptOutcome::Beat(_)
            | AttemptOutcome::CalledBack(_) => return, // no end
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

    pub(super) fn send(&self, outcome: AttemptOutcome) {
        self.arrive(outcome, None);
    }

    fn arrive(&self, outcome: AttemptOutcome, tell: Option<oneshot::Sender<Arc<CloudOperation>>>) {
        let landed = !matches!(outcome, AttemptOutcome::Noted { .. } | AttemptOutcome::Aimed { .. });
        let result = AttemptResult {
            step: self.piece.step.clone(),
            epoch: self.piece.epoch,
            attempt: self.piece.attempt,
            outcome,
        };
        if let Some(entry) = self.executor.operations().get_mut(&self.uid) {
            entry.inbox.push(Arrived { result, tell });
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

/// Records what a piece says that it waits for.
pub(super) fn progress(report: Report) -> Progress {
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

/// Records the object on which a piece is about to act. Where that can't be recorded any more, it never ends: the piece is
/// not wanted any more, and aborted.
pub(super) fn record(report: Report) -> Record {
    Arc::new(move |uid| {
        let (tell, told) = oneshot::channel();
        report.arrive(AttemptOutcome::Aimed { uid: uid.clone() }, Some(tell));
        let Work { step, epoch, .. } = report.piece.clone();
        let recorded = async move {
            let operation = told.await.ok()?;
            let steps = operation.status.as_ref()?.steps.iter();
            let mut entries = steps.filter(|entry| entry.name == step && entry.epoch == epoch);
            entries.any(|entry| entry.target.as_ref() == Some(&uid)).then_some(())
        };
        async move {
            if recorded.await.is_none() {
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    })
}
