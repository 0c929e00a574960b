//! What the operator tells Prometheus.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::api::{OperationState, StepType};
use crate::engine::{AttemptFailure, AttemptOutcome, RetryAdvice};

/// Every metric, and the registry that prints them.
pub struct Metrics {
    registry: Registry,
    operations: Family<StateLabel, Gauge<i64, AtomicI64>>,
    finished: Family<StateLabel, Counter<u64, AtomicU64>>,
    operation_seconds: Family<StateLabel, Histogram>,
    attempts: Family<AttemptLabels, Counter<u64, AtomicU64>>,
    attempt_seconds: Family<TypeLabel, Histogram>,
    writes: Counter<u64, AtomicU64>,
    conflicts: Counter<u64, AtomicU64>,
    refused: Counter<u64, AtomicU64>,
    lost_answers: Counter<u64, AtomicU64>,
    events_dropped: Counter<u64, AtomicU64>,
    due_times: Family<ResultLabel, Counter<u64, AtomicU64>>,
    leading: Gauge<i64, AtomicI64>,
    backlog: Gauge<i64, AtomicI64>,
    under_way: Gauge<i64, AtomicI64>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TypeLabel {
    r#type: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, Default, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AttemptLabels {
    r#type: String,
    result: String,
    reason: String,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 4.0, 10)) // 5 ms to 22 min
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            operations: Family::default(),
            finished: Family::default(),
            operation_seconds: Family::new_with_constructor(seconds),
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(seconds),
            writes: Counter::default(),
            conflicts: Counter::default(),
            refused: Counter::default(),
            lost_answers: Counter::default(),
            events_dropped: Counter::default(),
            due_times: Family::default(),
            leading: Gauge::default(),
            backlog: Gauge::default(),
            under_way: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("holdfast");
        let r = &mut registry;
        r.register(
            "operations",
            "Operations by what they are doing, or how they ended",
            metrics.operations.clone(),
        );
        r.register(
            "operations_finished",
            "Operations that ended, by how",
            metrics.finished.clone(),
        );
        r.register(
            "operation_duration_seconds",
            "Time from start to end of an operation",
            metrics.operation_seconds.clone(),
        );
        r.register("step_attempts", "Attempts that ended, by type of step, result (succeeded, accepted, retryable: the engine could not be served, failed: a definite no) and reason", metrics.attempts.clone());
        r.register(
            "step_attempt_duration_seconds",
            "Time that attempts took",
            metrics.attempt_seconds.clone(),
        );
        r.register(
            "status_writes",
            "Writes of an operation's status that were accepted",
            metrics.writes.clone(),
        );
        r.register(
            "status_write_conflicts",
            "Writes of a status that found it changed",
            metrics.conflicts.clone(),
        );
        r.register(
            "status_writes_refused",
            "Writes of a status that the API server did not take",
            metrics.refused.clone(),
        );
        r.register(
            "status_writes_ambiguous",
            "Writes of a status of which no answer said what became of them",
            metrics.lost_answers.clone(),
        );
        r.register(
            "events_dropped",
            "Events that were not written, to keep their rate",
            metrics.events_dropped.clone(),
        );
        r.register(
            "schedule_due_times",
            "Due times of schedules, by result (started, skipped: by concurrencyPolicy, missed: catchUpWindow or startDeadline had passed)",
            metrics.due_times.clone(),
        );
        r.register("leading", "1 while this process leads", metrics.leading.clone());
        r.register("backlog", "Results that wait to be recorded", metrics.backlog.clone());
        r.register(
            "attempts_under_way",
            "Attempts that are under way in this process",
            metrics.under_way.clone(),
        );
        metrics.registry = registry;
        metrics
    }
}

impl Metrics {
    /// A callback said how an attempt went.
    pub fn called_back<T>(&self, said: &Result<T, AttemptFailure>) {
        // The other side's reasons are its own, and any number of them.
        let (result, reason) = match said {
            Ok(_) => ("succeeded", ""),
            Err(failure) if failure.retry == RetryAdvice::Never => ("failed", "CalledBack"),
            Err(_) => ("retryable", "CalledBack"),
        };
        self.attempts
            .get_or_create(&AttemptLabels {
                r#type: "http".into(),
                result: result.into(),
                reason: reason.into(),
            })
            .inc();
    }

    /// An attempt ended.
    pub fn attempt(&self, step_type: StepType, outcome: &AttemptOutcome, took: Duration) {
        let (result, reason) = match outcome {
            AttemptOutcome::Succeeded { .. } => ("succeeded", ""),
            AttemptOutcome::Accepted { .. } => ("accepted", ""),
            AttemptOutcome::Failed(failure) if failure.retry == RetryAdvice::Never => {
                ("failed", failure.reason.as_str())
            }
            AttemptOutcome::Failed(failure) | AttemptOutcome::StopFailed(failure) => {
                ("retryable", failure.reason.as_str())
            }
            AttemptOutcome::Stopped => ("stopped", ""),
            // A callback is no attempt, and the rest no end.
            AttemptOutcome::Noted { .. }
            | AttemptOutcome::Aimed { .. }
            | AttemptOutcome::Beat(_)
            | AttemptOutcome::CalledBack(_) => return,
        };
        let r#type = format!("{step_type:?}").to_lowercase();
        self.attempts
            .get_or_create(&AttemptLabels {
                r#type: r#type.clone(),
                result: result.into(),
                reason: reason.into(),
            })
            .inc();
        self.attempt_seconds
            .get_or_create(&TypeLabel { r#type })
            .observe(took.as_secs_f64());
    }

    /// An operation ended.
    pub fn finished(&self, state: OperationState, took: Duration) {
        let label = StateLabel {
            state: state.to_string(),
        };
        self.finished.get_or_create(&label).inc();
        self.operation_seconds.get_or_create(&label).observe(took.as_secs_f64());
    }

    /// A status was written.
    pub fn written(&self) {
        self.writes.inc();
    }

    /// A status had changed before it could be written.
    pub fn conflict(&self) {
        self.conflicts.inc();
    }

    /// The API server did not take a status.
    pub fn refused(&self) {
        self.refused.inc();
    }

    /// No answer said what became of a write.
    pub fn lost_answer(&self) {
        self.lost_answers.inc();
    }

    /// An Event was not written.
    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    /// So many due times of a schedule came to this: `started`, `skipped` or `missed`.
    pub fn due_times(&self, result: &'static str, count: i64) {
        if let Ok(count @ 1..) = u64::try_from(count) {
            self.due_times.get_or_create(&ResultLabel { result }).inc_by(count);
        }
    }

    /// This process leads, or no longer does.
    pub fn set_leading(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }

    /// Prints every metric, in OpenMetrics' text format. What is counted when asked is given here: of each operation its
    /// state, or that nothing is recorded on it yet.
    pub fn print(
        &self,
        states: impl IntoIterator<Item = Option<OperationState>>,
        backlog: usize,
        under_way: usize,
    ) -> String {
        self.operations.clear();
        for state in states {
            let state = state.map_or_else(|| "Pending".into(), |state| state.to_string());
            self.operations.get_or_create(&StateLabel { state }).inc();
        }
        self.backlog.set(i64::try_from(backlog).unwrap_or(i64::MAX));
        self.under_way.set(i64::try_from(under_way).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_are_counted_by_what_came_of_them() {
        let metrics = Metrics::default();
        metrics.due_times("started", 1);
        metrics.due_times("skipped", 2);
        metrics.due_times("skipped", 1);
        metrics.due_times("missed", 0);
        let text = metrics.print([], 0, 0);
        let counted: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("holdfast_schedule_due_times_total"))
            .collect();
        assert_eq!(counted.len(), 2, "{counted:?}");
        assert!(counted.contains(&"holdfast_schedule_due_times_total{result=\"started\"} 1"));
        assert!(counted.contains(&"holdfast_schedule_due_times_total{result=\"skipped\"} 3"));
    }

    #[test]
    fn an_operation_on_which_nothing_is_recorded_is_counted_too() {
        let text = Metrics::default().print([None, Some(OperationState::Queued), None], 0, 0);
        for line in [r#"{state="Pending"} 2"#, r#"{state="Queued"} 1"#] {
            assert!(text.contains(&format!("holdfast_operations{line}\n")), "{text}");
        }
    }

    #[test]
    fn every_metric_is_in_the_docs() {
        let docs = include_str!("../../docs/cloudoperation.md");
        let metrics = Metrics::default();
        // What has labels is printed once there is one.
        let (state, kind) = (
            StateLabel { state: "Failed".into() },
            TypeLabel { r#type: "http".into() },
        );
        metrics.finished.get_or_create(&state).inc();
        metrics.operation_seconds.get_or_create(&state).observe(1.0);
        metrics.attempt_seconds.get_or_create(&kind).observe(1.0);
        metrics.attempts.get_or_create(&AttemptLabels::default()).inc();
        metrics.due_times("started", 1);
        let text = metrics.print([Some(OperationState::Running)], 0, 0);
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
            .collect();
        assert_eq!(names.len(), 14, "{text}");
        for name in names {
            assert!(docs.contains(&format!("`{name}")), "{name}");
        }
    }
}
