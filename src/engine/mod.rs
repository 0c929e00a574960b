//! The pure core: from a spec, a journal and what arrived to the next journal. No I/O, clock, randomness or log inside.

pub mod expression;
mod key;
mod outcome;

pub use key::IdempotencyKey;
pub use outcome::{AttemptFailure, Effect, Outcome, RetryAdvice};
