//! What an attempt came to: the words between the activities, which act, and the engine, which decides.

use std::time::Duration;

use serde_json::Value;

use crate::api::ExternalRef;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It did what it should. `result` is what expressions read as `result`.
    Succeeded {
        /// What the other side answered. No secret that was sent is in it.
        result: Value,
        /// The same as it came, for the step's `outputSecret` alone: what it answers may be what was sent.
        unmasked: Option<Value>,
    },
    /// The other side took the work and goes on by itself.
    Accepted {
        /// What goes on.
        external: ExternalRef,
    },
    /// It failed.
    Failed(AttemptFailure),
}

impl Outcome {
    /// It did what it should, and sent no secret.
    pub fn succeeded(result: Value) -> Self {
        Self::Succeeded { result, unmasked: None }
    }
}

/// Why an attempt failed, and what that lets the engine do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptFailure {
    /// A word for programs, such as `HttpStatus` or `AccessDenied`.
    pub reason: String,
    /// What happened, to what, and what can be done. No secret is in it.
    pub message: String,
    /// What is known of its effect.
    pub effect: Effect,
    /// Whether another attempt may succeed.
    pub retry: RetryAdvice,
}

/// What is known of the effect of an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing was done: nothing was sent, or the other side refused it.
    None,
    /// No answer: it may have been done. Unknown is not failed.
    Unknown,
}

/// Whether another attempt may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAdvice {
    /// A definite no: a business failure. The step fails at once.
    Never,
    /// The engine could not be served: retried as the policy says.
    Backoff,
    /// After this time (`Retry-After`) in place of the policy's wait, but no sooner than the policy's first one.
    After(Duration),
}

impl AttemptFailure {
    /// A definite no: nothing was done, and no other attempt will do it.
    pub fn definite(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
            effect: Effect::None,
            retry: RetryAdvice::Never,
        }
    }

    /// Nothing was done, and another attempt may do it.
    pub fn retryable(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            retry: RetryAdvice::Backoff,
            ..Self::definite(reason, message)
        }
    }

    /// It was done, or may have been, and yet no other attempt makes it a success: what it answered can't be recorded.
    pub fn done(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            effect: Effect::Unknown,
            ..Self::definite(reason, message)
        }
    }

    /// It isn't known whether it was done; another attempt, under the same key, finds out.
    pub fn unknown(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            effect: Effect::Unknown,
            ..Self::retryable(reason, message)
        }
    }
}
