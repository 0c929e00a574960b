//! What an evaluation may use. Counted, not timed: the same expression on the same data always comes to the same end.

/// Parts of expressions evaluated: each node of the expression, each time round a loop.
const MAX_STEPS: u64 = 500_000;
/// Bytes read by functions or made, in all.
const MAX_BYTES: usize = 32 << 20;
/// Elements of one list or map that an expression makes.
const MAX_ELEMENTS: usize = 50_000;
/// What an element of a list counts as, in bytes.
const ELEMENT: usize = 64;
/// Bytes of one string that an expression makes, and of the result as JSON.
const MAX_VALUE: usize = 1 << 20;

/// Characters of a failure's message, which may show a value.
const LONGEST_MESSAGE: usize = 500;

/// Why an evaluation gave no value. Gets the expression's text when it leaves the evaluator.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Failed(String),
    /// Unlike a failure it is never absorbed by `||`, `&&`, `all` or `exists`.
    TooExpensive(String),
}

impl Fault {
    pub fn failed(message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
            message.truncate(end);
            message.push_str("...");
        }
        Fault::Failed(message)
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

    /// Spends making a string of this length longer by so many bytes.
    pub fn lengthen(&mut self, length: usize, by: usize) -> Result<(), Fault> {
        if length + by > MAX_VALUE {
            return self.make(length + by);
        }
        self.read(by)
    }

    /// Spends the making of a list or map of this many elements: to be asked before it is made.
    pub fn make_elements(&mut self, count: usize) -> Result<(), Fault> {
        if count > MAX_ELEMENTS {
            return Err(Fault::TooExpensive(format!(
                "a list or map of more than {MAX_ELEMENTS} elements"
            )));
        }
        self.read(count * ELEMENT)
    }

    /// Spends one more element of a list or map that is made one by one and has so many already.
    pub fn grow(&mut self, count: usize) -> Result<(), Fault> {
        if count >= MAX_ELEMENTS {
            return self.make_elements(count + 1);
        }
        self.read(ELEMENT)
    }

    /// Spends looking at this many elements.
    pub fn look(&mut self, count: usize) -> Result<(), Fault> {
        self.read(count * ELEMENT)
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
