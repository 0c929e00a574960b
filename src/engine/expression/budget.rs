//! What an evaluation may use. Counted, not timed: the same expression on the same data always comes to the same end.

use std::mem::size_of;

use super::value::Value;

/// Parts of expressions evaluated: each node of the expression, each time round a loop.
const MAX_STEPS: u64 = 500_000;
/// Bytes read by functions or made, in all.
const MAX_BYTES: usize = 32 << 20;
/// Bytes of one string or list that an expression makes, and of the result.
const MAX_VALUE: usize = 1 << 20;

/// Why an evaluation gave no value. Gets the expression's text when it leaves the evaluator.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Failed(String),
    /// Unlike a failure it is never absorbed by `||`, `&&`, `all` or `exists`.
    TooExpensive(String),
}

impl Fault {
    pub fn failed(message: impl Into<String>) -> Self {
        Fault::Failed(message.into())
    }
}

/// What is left of the limits.
#[derive(Debug)]
pub(super) struct Budget {
    steps: u64,
    bytes: usize,
    output: usize,
}

impl Budget {
    pub fn new() -> Self {
        Self {
            steps: MAX_STEPS,
            bytes: MAX_BYTES,
            output: MAX_VALUE,
        }
    }

    /// Spends the evaluation of one node.
    pub fn step(&mut self) -> Result<(), Fault> {
        self.steps = self
            .steps
            .checked_sub(1)
            .ok_or_else(|| Fault::TooExpensive(format!("more than {MAX_STEPS} evaluation steps")))?;
        Ok(())
    }

    /// Spends the reading of this many bytes.
    pub fn read(&mut self, bytes: usize) -> Result<(), Fault> {
        self.bytes = self
            .bytes
            .checked_sub(bytes)
            .ok_or_else(|| Fault::TooExpensive(format!("more than {} MiB read or made in all", MAX_BYTES >> 20)))?;
        Ok(())
    }

    /// Spends the making of one string of this many bytes: to be asked before it is made.
    pub fn make(&mut self, bytes: usize) -> Result<(), Fault> {
        if bytes > MAX_VALUE {
            return Err(Fault::TooExpensive(format!(
                "a value of more than {} MiB",
                MAX_VALUE >> 20
            )));
        }
        self.read(bytes)
    }

    /// Spends the making of a list or map of this many elements.
    pub fn make_elements(&mut self, count: usize) -> Result<(), Fault> {
        self.make(count.saturating_mul(size_of::<Value<'_>>() / 2))
    }

    /// Spends bytes of the result as JSON.
    pub fn output(&mut self, bytes: usize) -> Result<(), Fault> {
        self.output = self
            .output
            .checked_sub(bytes)
            .ok_or_else(|| Fault::TooExpensive(format!("a result of more than {} MiB", MAX_VALUE >> 20)))?;
        Ok(())
    }
}
