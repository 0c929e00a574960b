//! Callbacks: what the other side of an `http` step with `async` says later of the work that it took.
//!
//! A callback is about an idempotency key, not about an attempt: whatever became of the request that asked for the work,
//! what the other side says of the work counts, as long as the step is open. Each failure that it reports begins another
//! *run* under the key, so that a report that is repeated, because its answer was lost, is not taken for one of the next
//! run. `StepStatus::failures` counts the runs that failed.

use serde_json::{Map, Value};

use super::outcome::AttemptFailure;
use super::workflow::{split_item, wholes};
use crate::api::{Items, OperationStatus, StepState, StepType};

/// What the other side said, as the journal takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Callback {
    /// The run that it is about.
    pub run: i64,
    /// The digest of what was said, where it says that the work was done.
    pub completes: Option<String>,
    /// What is recorded of the result, or why the work was not done.
    pub said: Result<Option<Map<String, Value>>, AttemptFailure>,
}

/// What a callback says of a run, before anything is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// It was done; by the digest of the callback a repeat is recognised.
    Completed(&'a str),
    /// It was not done.
    Failed,
    /// It goes on.
    Heartbeat,
}

/// How a callback finds its step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The step is open: the callback counts.
    Open,
    /// The callback was recorded: the step's state since.
    Recorded(StepState),
    /// It comes too late: how the step ended.
    Closed(String),
    /// There is no such step, as far as this status says.
    Unknown,
}

/// How a callback finds its step.
pub fn standing(status: &OperationStatus, step: &str, epoch: i64, run: i64, said: Said<'_>) -> Standing {
    let Some(entry) = status.steps.iter().find(|entry| entry.name == step) else {
        return without_entry(status, step, said);
    };
    if entry.step_type != StepType::Http || run > entry.failures || entry.epoch < epoch {
        return Standing::Unknown;
    }
    if entry.epoch != epoch {
        return Standing::Closed(format!(
            "step {step} runs anew under another key: what this one asked for counts no more"
        ));
    }
    let repeated = match said {
        Said::Completed(digest) => entry.callback.as_deref() == Some(digest),
        Said::Failed => run < entry.failures,
        Said::Heartbeat => false,
    };
    if repeated {
        return Standing::Recorded(entry.state);
    }
    if said == Said::Heartbeat && run < entry.failures {
        return Standing::Closed(format!("step {step}: a callback said that this run failed"));
    }
    match entry.state {
        state if state.is_closed() => Standing::Closed(format!("step {step} has ended: it is {state:?}")),
        _ => Standing::Open,
    }
}

/// An item of a list that was done has no entry any more, nor have its steps, if it is a group; nor has anything of an
/// operation that was compacted.
fn without_entry(status: &OperationStatus, step: &str, said: Said<'_>) -> Standing {
    let is_done = |path: &str| {
        let (list, index) = split_item(path);
        let entry = status.steps.iter().find(|entry| entry.name == list);
        let items = entry.and_then(|entry| entry.items.as_ref());
        let index = index.and_then(|index| i64::try_from(index).ok());
        let done = |(items, index): (&Items, i64)| index < items.next && !items.again.contains(&index);
        items.zip(index).is_some_and(done)
    };
    let done = std::iter::once(step).chain(wholes(step)).any(is_done);
    match (done, said, status.state.filter(|state| state.is_finished())) {
        (true, Said::Completed(_), _) => Standing::Recorded(StepState::Succeeded),
        (true, _, _) => Standing::Closed(format!("step {step} has ended: it is done")),
        (false, _, Some(state)) => Standing::Closed(format!("the operation has ended: it is {state}")),
        (false, _, None) => Standing::Unknown,
    }
}

impl Standing {
    /// True where nothing can be said for good from a status that may be old.
    pub fn may_be_stale(&self) -> bool {
        matches!(self, Self::Unknown | Self::Closed(_))
    }
}
