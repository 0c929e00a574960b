//! When a failed attempt is followed by another, in Temporal's terms and with its defaults.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::api::{Retry, Step, StepType};

/// A retry policy with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The wait before the second attempt.
    pub initial_interval: Duration,
    /// By what each wait is longer than the one before it.
    pub backoff_coefficient: f64,
    /// The longest wait.
    pub maximum_interval: Duration,
    /// How many attempts are made at most; `None`: as many as fit in the deadline.
    pub maximum_attempts: Option<i64>,
    /// Reasons that are not retried.
    pub non_retryable_errors: Vec<String>,
}

/// The longest wait that a policy without `maximumInterval` comes to, in initial intervals.
const MAXIMUM_INTERVALS: u32 = 100;
/// By how much, at most, jitter shortens a wait: enough to spread a crowd, and no wait is longer than its policy says.
const JITTER: f64 = 0.1;

impl RetryPolicy {
    /// The step's policy: its own fields, then the operation's, then Temporal's defaults.
    pub fn new(step: Option<&Retry>, operation: Option<&Retry>) -> Self {
        fn pick<T: Clone>(
            step: Option<&Retry>,
            operation: Option<&Retry>,
            field: impl Fn(&Retry) -> Option<T>,
        ) -> Option<T> {
            step.and_then(&field).or_else(|| operation.and_then(&field))
        }
        let initial_interval = pick(step, operation, |r| r.initial_interval.as_ref().map(|d| d.get()))
            .unwrap_or(Duration::from_secs(1))
            .max(Duration::from_millis(1));
        Self {
            initial_interval,
            backoff_coefficient: pick(step, operation, |r| r.backoff_coefficient).unwrap_or(2.0).max(1.0),
            maximum_interval: pick(step, operation, |r| r.maximum_interval.as_ref().map(|d| d.get()))
                .unwrap_or(initial_interval.saturating_mul(MAXIMUM_INTERVALS))
                .max(initial_interval),
            maximum_attempts: pick(step, operation, |r| r.maximum_attempts)
                .filter(|n| *n > 0)
                .map(i64::from),
            non_retryable_errors: pick(step, operation, |r| {
                (!r.non_retryable_errors.is_empty()).then(|| r.non_retryable_errors.clone())
            })
            .unwrap_or_default(),
        }
    }

    /// The wait after failed attempt number `attempt` (from 1) before the next: exponential, capped, and shortened by up
    /// to a tenth. The jitter comes from `seed`, so that the same history gives the same times.
    pub fn interval(&self, attempt: i64, seed: &str) -> Duration {
        let exponent = i32::try_from((attempt - 1).clamp(0, 10_000)).unwrap_or(i32::MAX);
        let nominal = self.initial_interval.as_secs_f64() * self.backoff_coefficient.powi(exponent);
        let capped = nominal.min(self.maximum_interval.as_secs_f64());
        Duration::from_secs_f64(capped * (1.0 - JITTER * unit(seed, attempt)))
    }
}

/// A number in [0, 1) that depends on nothing but its arguments.
fn unit(seed: &str, attempt: i64) -> f64 {
    let digest = Sha256::digest(format!("{seed}/{attempt}").as_bytes());
    let head = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    f64::from(head) / (f64::from(u32::MAX) + 1.0)
}

/// How long all attempts of a step may take, by default: for calls two hours, the window in which a cause can be fixed
/// while users see a slow operation in place of a failed one; no limit for what waits by its nature.
pub fn schedule_to_close(step: &Step) -> Option<Duration> {
    let given = step
        .timeouts
        .as_ref()
        .and_then(|t| t.schedule_to_close.as_ref())
        .map(|d| d.get());
    given.or(match step.step_type()? {
        StepType::Http => Some(Duration::from_secs(2 * 60 * 60)),
        StepType::Kubernetes if !step.is_kubernetes_wait() => Some(Duration::from_secs(2 * 60 * 60)),
        _ => None,
    })
}

/// How long one attempt of a step may take, by default: for calls a minute.
pub fn start_to_close(step: &Step) -> Option<Duration> {
    let given = step
        .timeouts
        .as_ref()
        .and_then(|t| t.start_to_close.as_ref())
        .map(|d| d.get());
    given.or(match step.step_type() {
        Some(StepType::Http) => Some(Duration::from_secs(60)),
        Some(StepType::Kubernetes) if !step.is_kubernetes_wait() => Some(Duration::from_secs(60)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn retry(yaml: &str) -> Retry {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn defaults_are_temporals() {
        let policy = RetryPolicy::new(None, None);
        assert_eq!(policy.initial_interval, Duration::from_secs(1));
        assert_eq!(policy.backoff_coefficient, 2.0);
        assert_eq!(policy.maximum_interval, Duration::from_secs(100));
        assert_eq!(policy.maximum_attempts, None);
    }

    #[test]
    fn an_attempt_has_the_time_that_is_said_whatever_it_is() {
        let limit = |yaml: &str| start_to_close(&serde_yaml::from_str(yaml).unwrap()).map(|limit| limit.as_secs());
        assert_eq!(limit("{name: a, http: {url: 'http://x'}}"), Some(60));
        let wait = "kubernetes: {wait: {resource: {apiVersion: v1, kind: Pod, name: a}, for: Current}}";
        assert_eq!(limit(&format!("{{name: a, {wait}}}")), None);
        assert_eq!(
            limit(&format!("{{name: a, timeouts: {{startToClose: 5m}}, {wait}}}")),
            Some(300)
        );
        assert_eq!(limit("{name: a, timeouts: {startToClose: 5m}}"), Some(300));
    }

    #[test]
    fn a_step_overrides_the_operation_field_by_field() {
        let step = retry("{maximumAttempts: 3}");
        let operation = retry("{initialInterval: 5s, maximumAttempts: 9}");
        let policy = RetryPolicy::new(Some(&step), Some(&operation));
        assert_eq!(policy.maximum_attempts, Some(3));
        assert_eq!(policy.initial_interval, Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn waits_follow_the_policy(initial in 1u64..100_000, coefficient in 1.0f64..10.0, maximum in 1u64..10_000_000,
                                   attempt in 1i64..1_000_000, seed in "[a-z]{0,8}") {
            let policy = RetryPolicy {
                initial_interval: Duration::from_millis(initial),
                backoff_coefficient: coefficient,
                maximum_interval: Duration::from_millis(maximum.max(initial)),
                maximum_attempts: None,
                non_retryable_errors: vec![],
            };
            let exponent = i32::try_from(attempt - 1).unwrap().min(10_000);
            let nominal = (initial as f64 / 1e3 * coefficient.powi(exponent)).min(maximum.max(initial) as f64 / 1e3);
            let wait = policy.interval(attempt, &seed).as_secs_f64();
            prop_assert!(wait <= nominal + 1e-6 && wait >= nominal * (1.0 - JITTER) - 1e-6, "{} of {}", wait, nominal);
            prop_assert_eq!(policy.interval(attempt, &seed), policy.interval(attempt, &seed));
        }
    }
}
