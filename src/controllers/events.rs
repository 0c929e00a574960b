//! Kubernetes Events: what `kubectl describe` and `kubectl events` show of an operation. Best effort, as everywhere in
//! Kubernetes; the history in the status is what counts.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::metrics::Metrics;
use crate::api::{CloudOperation, HistoryEntry, HistoryEvent, OperationState};

/// How many Events wait to be written at most; what is more is dropped, and counted.
const QUEUE: usize = 1024;
/// How many Events are written at once before the rate holds.
const BURST: u32 = 50;
/// The rate: Events are writes, too, and must not crowd out those that count.
const PER_SECOND: f64 = 10.0;

/// Where Events are handed in. Never blocks.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<(ObjectReference, Event)>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// The queue, and the task that writes what is in it.
    pub fn new(client: Client, instance: &str, metrics: Arc<Metrics>) -> (Self, impl Future<Output = ()> + use<>) {
        let (queue, mut waiting) = mpsc::channel::<(ObjectReference, Event)>(QUEUE);
        let recorder = Recorder::new(
            client,
            Reporter {
                controller: "holdfast".into(),
                instance: Some(instance.into()),
            },
        );
        let writer = async move {
            let pause = Duration::from_secs_f64(1.0 / PER_SECOND);
            let mut free_at = Instant::now();
            while let Some((regarding, event)) = waiting.recv().await {
                let now = Instant::now();
                free_at = free_at.max(now.checked_sub(pause * BURST).unwrap_or(now)) + pause;
                sleep_until(free_at).await;
                match timeout(Duration::from_secs(10), recorder.publish(&event, &regarding)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => debug!(%error, reason = event.reason, "an Event was not written"),
                    Err(_) => debug!(reason = event.reason, "an Event was not written in time"),
                }
            }
        };
        (Self { queue, metrics }, writer)
    }

    /// Hands in the Events of what the history says beyond sequence number `after`.
    pub fn publish(&self, operation: &CloudOperation, after: i64) {
        let Some(status) = &operation.status else { return };
        for entry in status.history.iter().filter(|entry| entry.seq > after) {
            let Some(event) = event(entry, status.state) else {
                continue;
            };
            if self.queue.try_send((operation.object_ref(&()), event)).is_err() {
                self.metrics.event_dropped();
            }
        }
    }
}

fn event(entry: &HistoryEntry, state: Option<OperationState>) -> Option<Event> {
    use HistoryEvent::*;
    let bad_end = entry.event == Finished && state != Some(OperationState::Succeeded);
    let type_ = match entry.event {
        AttemptFailed | AttemptLost | StepFailed | StepTimedOut | StepUndecided => EventType::Warning,
        Finished if bad_end => EventType::Warning,
        Finished | StepWaiting | Suspended | Resumed | CancelRequested => EventType::Normal,
        _ => return None,
    };
    let mut note = entry.message.clone().unwrap_or_default();
    if let Some(step) = &entry.step {
        let attempt = if entry.attempt > 0 {
            format!(", attempt {}", entry.attempt)
        } else {
            String::new()
        };
        note = format!("step {step}{attempt}: {note}");
    }
    let reason = match (entry.event, state) {
        (Finished, Some(state)) => state.to_string(),
        (event, _) => format!("{event:?}"),
    };
    Some(Event {
        type_,
        reason,
        note: Some(note),
        action: "Run".into(),
        secondary: None,
    })
}
