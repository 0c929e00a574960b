//! The effects: one file a kind of activity. Each is a function from a rendered request to an [`Outcome`]; it knows
//! nothing of journals, retries or other steps.

pub mod call;
pub mod clients;
pub mod discovery;
pub mod http;
pub mod kubernetes;
pub mod labels;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use crate::engine::{IdempotencyKey, Outcome};

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
    /// True if nothing of the answer may be recorded (`sensitive`).
    pub sensitive: bool,
    /// Kubernetes, as the operation's service account.
    pub kubernetes: kube::Client,
    /// Leadership: asked before every effect.
    pub claim: Arc<dyn Claim>,
}

/// The right to act. Asked right before anything is sent, as a process that was paused may no longer lead.
pub trait Claim: Send + Sync {
    /// False once another process may have taken over. Nothing may be sent then.
    fn is_held(&self) -> bool;
}
