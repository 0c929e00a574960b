//! Signs of life of the other side: when the last one came, when it is recorded, and what silence means.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Executor, NOTE_INTERVAL};
use crate::activities::AttemptContext;
use crate::api::{Heartbeat, Step, Time};
use crate::engine::{AttemptFailure, Outcome};

/// The last sign of life of the other side.
pub(super) struct Beat {
    at: Instant,
    heartbeat: Heartbeat,
    /// When one was last recorded.
    recorded: Option<Instant>,
    /// True if this one is going to be.
    scheduled: bool,
}

impl Executor {
    /// What comes of it, unless the other side is silent for longer than it may be.
    pub(super) async fn unless_silent(
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
}
