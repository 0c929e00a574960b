//! What is done to an operation by an OperationAction.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::advice::comes_back;
use super::cluster::{Cluster, creation};
use super::output::{GOOD, Output, paint};
use super::{CliError, times, values, wait};
use crate::api::{
    ActionState, CloudOperation, Decide, OfStep, OperationAction, OperationActionSpec, OperationRef, OperationStatus,
    RetryStep, SendSignal, StepState, StepStatus, StepType, WithMessage, WithOutput,
};

#[derive(Subcommand)]
pub enum Action {
    /// Runs steps again that ended badly or need a person; also days after the operation's end.
    Retry {
        #[command(flatten)]
        on: On,
        /// The step; every one that ended badly if absent.
        #[arg(long)]
        step: Option<String>,
        /// Under a new idempotency key, even where an attempt may have had its effect: it may then be had twice.
        #[arg(long)]
        new_key: bool,
    },
    /// Ends the wait before a step's next attempt.
    RetryNow {
        #[command(flatten)]
        on: On,
        /// The step; the only one that waits for another attempt if absent.
        #[arg(long)]
        step: Option<String>,
    },
    /// Goes on without a step.
    Skip {
        #[command(flatten)]
        on: On,
        #[command(flatten)]
        with: StepOutput,
    },
    /// Says that what a step waits for, or what nobody knows whether it was done, is done.
    Complete {
        #[command(flatten)]
        on: On,
        #[command(flatten)]
        with: StepOutput,
    },
    /// Says that what a step waits for, or what nobody knows whether it was done, has failed.
    Fail {
        #[command(flatten)]
        on: On,
        /// The step.
        #[arg(long)]
        step: String,
        /// Why, for whoever reads the history.
        #[arg(long)]
        message: Option<String>,
    },
    /// Goes back to a step: it and all that followed from it run again.
    Reset {
        #[command(flatten)]
        on: On,
        /// The step.
        #[arg(long)]
        step: String,
    },
    /// Sends a signal.
    Signal {
        #[command(flatten)]
        on: On,
        /// The signal's name.
        signal: String,
        /// A field of what it says; the value is JSON, or else text. Can be repeated.
        #[arg(long, value_name = "NAME=VALUE", conflicts_with = "payload_file")]
        payload: Vec<String>,
        /// A file, JSON or YAML, with what it says; - for standard input.
        #[arg(long, value_name = "FILE")]
        payload_file: Option<String>,
    },
    /// Approves what a step asks.
    Approve {
        #[command(flatten)]
        on: On,
        #[command(flatten)]
        word: Word,
    },
    /// Rejects what a step asks: the step fails.
    Reject {
        #[command(flatten)]
        on: On,
        #[command(flatten)]
        word: Word,
    },
}

/// To which operation something is done, and how long to wait for what comes of it.
#[derive(Args)]
pub struct On {
    /// The operation.
    name: String,
    /// How long to wait until an operator says what came of it.
    #[arg(long, default_value = "30s", value_parser = wait::duration)]
    timeout: Duration,
}

#[derive(Args)]
pub struct StepOutput {
    /// The step.
    #[arg(long)]
    step: String,
    /// A field of the step's output, for what follows; the value is JSON, or else text. Can be repeated.
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "output_file")]
    output: Vec<String>,
    /// A file, JSON or YAML, with the step's output; - for standard input.
    #[arg(long, value_name = "FILE")]
    output_file: Option<String>,
}

#[derive(Args)]
pub struct Word {
    /// The step; the only approval that waits if absent.
    #[arg(long)]
    step: Option<String>,
    /// Why, for whoever reads the history.
    #[arg(long)]
    comment: Option<String>,
}

impl Action {
    pub async fn run(&self, cluster: &Cluster, out: &mut Output) -> Result<ExitCode, CliError> {
        let on = self.on();
        let operation = cluster.operation(&on.name).await?;
        let status = operation.status.clone().unwrap_or_default();
        let spec = OperationActionSpec {
            operation_ref: OperationRef {
                name: operation.name_any(),
                uid: operation.uid(),
            },
            ..self.spec(&status)?
        };
        let action = create(cluster, &operation, spec).await?;
        let name = action.name_any();
        let what = format!("OperationAction {name}");
        let look = format!("kubectl get opact {name}{}", cluster.flags);
        let decided = tokio::time::timeout(on.timeout, decided(cluster, &name)).await;
        let Ok(decided) = decided else {
            let now = cluster
                .operation(&on.name)
                .await
                .ok()
                .and_then(|operation| operation.status);
            let waits = now.as_ref().and_then(comes_back);
            let waits = waits.map(|waits| format!(": {waits}")).unwrap_or_default();
            return Err(CliError::Timeout(format!(
                "{what} was created, but no operator has decided on it within {}{waits}. It still may be: {look}",
                times::short(on.timeout)
            )));
        };
        // It stands, whatever keeps its end from being seen: asked for again, it would be there twice.
        let unseen = |error: CliError| match error {
            CliError::Cluster { what: failed, error } => CliError::Cluster {
                what: format!("{what} was created, and is decided on; see what came of it: {look}\n{failed}"),
                error,
            },
            other => other,
        };
        let status = decided.map_err(unseen)?.status.unwrap_or_default();
        let message = status.message.unwrap_or_default();
        match status.state {
            Some(ActionState::Applied) => {
                out.print(&format!("{} {message}\n", paint(GOOD, "Applied:")))?;
                Ok(ExitCode::SUCCESS)
            }
            _ => Err(CliError::Rejected { action: name, message }),
        }
    }

    fn on(&self) -> &On {
        use Action::*;
        match self {
            Retry { on, .. } | RetryNow { on, .. } | Skip { on, .. } | Complete { on, .. } | Fail { on, .. } => on,
            Reset { on, .. } | Signal { on, .. } | Approve { on, .. } | Reject { on, .. } => on,
        }
    }

    /// The action, but for which operation it is on.
    fn spec(&self, status: &OperationStatus) -> Result<OperationActionSpec, CliError> {
        let none = OperationActionSpec::default();
        Ok(match self {
            Self::Retry { step, new_key, .. } => OperationActionSpec {
                retry: Some(RetryStep {
                    step: step.clone(),
                    new_key: new_key.then_some(true),
                }),
                ..none
            },
            Self::RetryNow { step, .. } => {
                let backs_off = |step: &StepStatus| step.state == StepState::BackingOff;
                let step = only(status, step.as_ref(), "waits for another attempt", NO_RETRY, backs_off)?;
                OperationActionSpec {
                    retry_now: Some(OfStep { step }),
                    ..none
                }
            }
            Self::Skip { with, .. } => OperationActionSpec {
                skip: Some(with.read()?),
                ..none
            },
            Self::Complete { with, .. } => OperationActionSpec {
                complete: Some(with.read()?),
                ..none
            },
            Self::Fail { step, message, .. } => OperationActionSpec {
                fail: Some(WithMessage {
                    step: step.clone(),
                    message: message.clone(),
                }),
                ..none
            },
            Self::Reset { step, .. } => OperationActionSpec {
                reset: Some(OfStep { step: step.clone() }),
                ..none
            },
            Self::Signal {
                signal,
                payload,
                payload_file,
                ..
            } => {
                let payload = values::object_or_file("--payload", payload, payload_file.as_deref())?;
                OperationActionSpec {
                    signal: Some(SendSignal {
                        name: signal.clone(),
                        payload,
                    }),
                    ..none
                }
            }
            Self::Approve { word, .. } => OperationActionSpec {
                approve: Some(word.decide(status)?),
                ..none
            },
            Self::Reject { word, .. } => OperationActionSpec {
                reject: Some(word.decide(status)?),
                ..none
            },
        })
    }
}

impl StepOutput {
    fn read(&self) -> Result<WithOutput, CliError> {
        let output = values::object_or_file("--output", &self.output, self.output_file.as_deref())?;
        Ok(WithOutput {
            step: self.step.clone(),
            output,
        })
    }
}

impl Word {
    /// The word on the step as it is now: once the step was reset, it doesn't count.
    fn decide(&self, status: &OperationStatus) -> Result<Decide, CliError> {
        let waits = |step: &StepStatus| step.step_type == StepType::Approval && step.state == StepState::Waiting;
        let step = only(status, self.step.as_ref(), "waits for an approval", NO_APPROVAL, waits)?;
        let entry = status.steps.iter().find(|entry| entry.name == step);
        let epoch = Some(entry.map_or(status.epoch, |entry| entry.epoch));
        Ok(Decide {
            step,
            epoch,
            comment: self.comment.clone(),
        })
    }
}

const NO_RETRY: &str = ": one that has failed for good runs again by retry";
const NO_APPROVAL: &str = ": to give a word on one before it waits, name it, by --step";

/// The step that is given, else the only one of this kind. `hint` says what to do where there is none.
fn only(
    status: &OperationStatus,
    given: Option<&String>,
    what: &str,
    hint: &str,
    wanted: impl Fn(&StepStatus) -> bool,
) -> Result<String, CliError> {
    if let Some(step) = given {
        return Ok(step.clone());
    }
    let found: Vec<&str> = status
        .steps
        .iter()
        .filter(|step| wanted(step))
        .map(|step| step.name.as_str())
        .collect();
    match found.as_slice() {
        [step] => Ok((*step).to_owned()),
        [] => Err(CliError::Usage(format!("no step {what}{hint}"))),
        several => Err(CliError::Usage(format!(
            "more than one step {what}: say which, by --step: {}",
            several.join(", ")
        ))),
    }
}

async fn create(
    cluster: &Cluster,
    operation: &CloudOperation,
    spec: OperationActionSpec,
) -> Result<OperationAction, CliError> {
    let name = operation.name_any();
    let action = OperationAction {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    };
    let created = cluster.api::<OperationAction>().create(&creation(), &action).await;
    created.map_err(CliError::cluster(format!(
        "the OperationAction on {name} can't be created"
    )))
}

/// Waits until an action says what came of it.
async fn decided(cluster: &Cluster, name: &str) -> Result<OperationAction, CliError> {
    let mut changes = std::pin::pin!(cluster.follow::<OperationAction>(name));
    while let Some(change) = changes.next().await {
        match change? {
            Some(action) if action.status.as_ref().is_some_and(|status| status.state.is_some()) => return Ok(action),
            Some(_) => {}
            None => break,
        }
    }
    Err(CliError::Usage(format!(
        "OperationAction {name} was deleted before an operator decided on it"
    )))
}

#[cfg(test)]
mod tests {
    use holdfast_apiserver::Verb;

    use super::super::fixtures::{operation, said, server};
    use super::*;

    #[tokio::test]
    async fn one_whose_end_may_not_be_watched_stands_all_the_same() {
        let server = server();
        server.put(&operation("web", "steps: [{name: a, approval: {}}]", TWO));
        server.set_authorizer(|request| request.verb != Verb::Watch);
        let unseen = said(&server, "approve web").await;
        let actions = server.list::<OperationAction>();
        let [action] = actions.as_slice() else {
            panic!("{actions:?}")
        };
        let name = action.name_any();
        assert_eq!(unseen.code, ExitCode::from(2));
        let (first, second) = unseen.err.split_once('\n').unwrap();
        assert_eq!(
            first,
            format!(
                "OperationAction {name} was created, and is decided on; see what came of it: kubectl get opact {name}"
            )
        );
        assert!(
            second.contains("can't be watched: ") && second.contains("cannot watch resource"),
            "{second}"
        );
    }

    fn status(steps: &str) -> OperationStatus {
        operation("web", "steps: [{name: a, approval: {}}]", steps)
            .status
            .unwrap()
    }

    const TWO: &str = r"
        epoch: 3
        steps:
        - {name: a, type: Approval, state: Waiting, epoch: 2, startSeq: 1, startTime: '2026-11-24T03:00:00.000Z'}
        - {name: b, type: Approval, state: Succeeded, startSeq: 1, startTime: '2026-11-24T03:00:00.000Z'}
    ";

    #[test]
    fn an_approval_is_of_the_only_step_that_waits_and_of_its_epoch() {
        let word = Word {
            step: None,
            comment: Some("fine".into()),
        };
        let decided = word.decide(&status(TWO)).unwrap();
        assert_eq!(
            decided,
            Decide {
                step: "a".into(),
                epoch: Some(2),
                comment: Some("fine".into())
            }
        );
        // One that has not started has the epoch that it will start with.
        let early = Word {
            step: Some("later".into()),
            comment: None,
        };
        assert_eq!(early.decide(&status(TWO)).unwrap().epoch, Some(3));
    }

    #[test]
    fn which_of_several_is_asked() {
        let both = status(&TWO.replace("Succeeded", "Waiting"));
        let word = Word {
            step: None,
            comment: None,
        };
        let refused = word.decide(&both).unwrap_err().to_string();
        assert_eq!(
            refused,
            "more than one step waits for an approval: say which, by --step: a, b"
        );
        let refused = word.decide(&status("{}")).unwrap_err().to_string();
        assert_eq!(
            refused,
            "no step waits for an approval: to give a word on one before it waits, name it, by --step"
        );
    }
}
