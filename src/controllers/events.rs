//! Kubernetes Events: what `kubectl describe` and `kubectl events` show of an operation or a schedule. Best effort, as everywhere in
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
use crate::api::{
    CloudOperation, HistoryEntry, HistoryEvent, OperationSchedule, OperationScheduleStatus, OperationState, Time,
};
use crate::engine::shorten;

/// How many Events wait to be written at most; what is more is dropped, and counted.
const QUEUE: usize = 1024;
/// How many Events are written at once before the rate holds.
const BURST: u32 = 100;
/// How much of an answer is told, in characters: the API server takes a note of 1024.
const MAX_NOTE: usize = 900;
/// The rate: Events are writes, too, and must not crowd out those that count.
const PER_SECOND: f64 = 4.0;

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
            self.hand_in(operation.object_ref(&()), event);
        }
    }

    /// Hands in that the API server refuses an operation's status, and why: the status itself can't say it.
    pub fn refused(&self, operation: &CloudOperation, reason: &str, why: &str) {
        let why = shorten(why, MAX_NOTE);
        let event = Event {
            type_: EventType::Warning,
            reason: "StatusRefused".into(),
            note: Some(format!(
                "nothing is done until the API server accepts its status: {why}"
            )),
            action: reason.into(), // another reason is another Event
            secondary: None,
        };
        self.hand_in(operation.object_ref(&()), event);
    }

    /// Hands in that a schedule started an operation.
    pub fn started(&self, schedule: &OperationSchedule, operation: &CloudOperation, due: Time) {
        let name = operation.metadata.name.clone().unwrap_or_default();
        let note = format!("CloudOperation {name} was created; it was due at {due}");
        let event = Event {
            secondary: Some(operation.object_ref(&())),
            ..of_schedule(EventType::Normal, "Started", note)
        };
        self.hand_in(schedule.object_ref(&()), event);
    }

    /// Hands in what a schedule's next status says beyond the one before it: due times that were not started, and why
    /// nothing is started.
    pub fn moved(&self, schedule: &OperationSchedule, next: &OperationScheduleStatus) {
        let none = OperationScheduleStatus::default();
        for event in moved(schedule.status.as_ref().unwrap_or(&none), next) {
            self.hand_in(schedule.object_ref(&()), event);
        }
    }

    fn hand_in(&self, regarding: ObjectReference, event: Event) {
        if self.queue.try_send((regarding, event)).is_err() {
            self.metrics.event_dropped();
        }
    }
}

fn of_schedule(type_: EventType, reason: &str, note: String) -> Event {
    Event {
        type_,
        reason: reason.into(),
        note: Some(note),
        action: "Schedule".into(),
        secondary: None,
    }
}

fn moved(before: &OperationScheduleStatus, next: &OperationScheduleStatus) -> Vec<Event> {
    let mut events = vec![];
    let until = next
        .decided_until
        .map(|until| format!(" up to {until}"))
        .unwrap_or_default();
    let times = |count: i64| {
        let verb = if count == 1 { "was" } else { "were" };
        format!("{count} of the due times{until} {verb}")
    };
    let skipped = next.skipped - before.skipped;
    if skipped > 0 {
        let note = format!(
            "{} skipped: another operation of the schedule was under way, or waited, and spec.concurrencyPolicy says so",
            times(skipped)
        );
        events.push(of_schedule(EventType::Normal, "Skipped", note));
    }
    let missed = next.missed - before.missed;
    if missed > 0 {
        let note = format!(
            "{} missed: by the time that it could be started, spec.catchUpWindow or spec.startDeadline had passed",
            times(missed)
        );
        events.push(of_schedule(EventType::Warning, "Missed", note));
    }
    let stalled = |status: &OperationScheduleStatus| {
        let stalled = status
            .conditions
            .iter()
            .find(|c| c.type_ == "Stalled" && c.status == "True");
        stalled.map(|condition| (condition.reason.clone(), condition.message.clone()))
    };
    if let Some((reason, message)) = stalled(next).filter(|_| stalled(before) != stalled(next)) {
        events.push(of_schedule(EventType::Warning, &reason, message));
    }
    events
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn failures_waits_and_ends_are_told_each_in_its_own_word() {
        let told = |of: &str, state: OperationState| {
            let entry = json!({
                "seq": 1, "time": "2026-11-24T03:00:00.000Z", "type": of, "step": "a", "attempt": 2, "message": "why",
            });
            let event = event(&serde_json::from_value(entry).unwrap(), Some(state))?;
            assert_eq!(event.note.as_deref(), Some("step a, attempt 2: why"));
            Some((format!("{:?}", event.type_), event.reason))
        };
        for (of, state, type_, reason) in [
            ("AttemptFailed", OperationState::BackingOff, "Warning", "AttemptFailed"),
            ("StepFailed", OperationState::Running, "Warning", "StepFailed"),
            ("StepWaiting", OperationState::Waiting, "Normal", "StepWaiting"),
            ("Finished", OperationState::Succeeded, "Normal", "Succeeded"),
            ("Finished", OperationState::Failed, "Warning", "Failed"),
            ("Finished", OperationState::Cancelled, "Warning", "Cancelled"),
        ] {
            assert_eq!(told(of, state), Some((type_.to_owned(), reason.to_owned())));
        }
        assert_eq!(told("AttemptStarted", OperationState::Running), None, "each is a write");
    }
}
