//! Sees every version of a namespace's operations, and remembers who executed what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use holdfast::api::CloudOperation;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::task::AbortHandle;

/// One attempt of a step of an operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// The operation's name.
    pub operation: String,
    /// The step's.
    pub step: String,
    /// The attempt's number.
    pub number: i64,
}

/// A watch that goes on until it is dropped.
pub struct Witness {
    runners: Arc<Mutex<BTreeMap<Attempt, BTreeSet<String>>>>,
    task: AbortHandle,
}

impl Witness {
    /// Starts to watch.
    pub fn of(operations: Api<CloudOperation>) -> Self {
        let runners = Arc::<Mutex<BTreeMap<Attempt, BTreeSet<String>>>>::default();
        let task = tokio::spawn({
            let runners = runners.clone();
            async move {
                let mut seen = watcher(operations, watcher::Config::default())
                    .default_backoff()
                    .touched_objects()
                    .boxed();
                while let Some(operation) = seen.next().await {
                    // An error is followed by another try.
                    let Ok(operation) = operation else { continue };
                    let mut runners = runners.lock().unwrap_or_else(PoisonError::into_inner);
                    for step in operation.status.iter().flat_map(|status| &status.steps) {
                        let Some(runner) = &step.runner else { continue };
                        let attempt = Attempt {
                            operation: operation.name_any(),
                            step: step.name.clone(),
                            number: step.attempt,
                        };
                        runners.entry(attempt).or_default().insert(runner.clone());
                    }
                }
            }
        });
        Self {
            runners,
            task: task.abort_handle(),
        }
    }

    /// Every process that an attempt was given to: by the first invariant of takeovers, one an attempt.
    pub fn runners(&self) -> BTreeMap<Attempt, BTreeSet<String>> {
        self.runners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}
