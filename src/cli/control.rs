//! `suspend`, `resume`, `cancel`: what can be changed in a spec.

use std::process::ExitCode;

use clap::Subcommand;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::{Value, json};

use super::CliError;
use super::advice::undoes;
use super::cluster::{Cluster, change};
use super::get::ended;
use super::output::Output;
use crate::api::{CancelMode, CloudOperation, OperationState};

#[derive(Subcommand)]
pub enum Control {
    /// Holds an operation: no attempt starts, what is under way ends and is recorded.
    Suspend {
        /// The operation.
        name: String,
    },
    /// Lets an operation go on that was suspended.
    Resume {
        /// The operation.
        name: String,
    },
    /// Ends an operation before its time. Can't be taken back.
    Cancel {
        /// The operation.
        name: String,
        /// Undo what was done, by the steps' compensate.
        #[arg(long)]
        compensate: bool,
        /// Why, for whoever reads the history.
        #[arg(long)]
        reason: Option<String>,
    },
}

impl Control {
    pub async fn run(&self, cluster: &Cluster, out: &mut Output) -> Result<ExitCode, CliError> {
        let (Self::Suspend { name } | Self::Resume { name } | Self::Cancel { name, .. }) = self;
        let operation = cluster.operation(name).await?;
        let name = operation.name_any();
        if ended(&operation) {
            let state = operation.status.as_ref().and_then(|status| status.state);
            let state = state.map(|state| state.to_string()).unwrap_or_default();
            return Err(CliError::Usage(format!(
                "{name} has ended already: {state}. To run it once more:\n    {}",
                cluster.command("rerun", &name, "")
            )));
        }
        let done = match self {
            Self::Suspend { .. } if operation.spec.suspend == Some(true) => format!("{name} is suspended already"),
            Self::Suspend { .. } => {
                self.patch(cluster, &operation, json!({"suspend": true})).await?;
                format!("{name} is suspended: what is under way ends, nothing else starts")
            }
            Self::Resume { .. } => {
                let suspended = operation.spec.suspend == Some(true);
                if suspended {
                    self.patch(cluster, &operation, json!({"suspend": null})).await?;
                }
                match operation.status.as_ref().and_then(|status| status.state) {
                    Some(OperationState::Restored) => return Err(stays_held(cluster, &name)),
                    Some(OperationState::Suspended) if !suspended => return Err(stays_held(cluster, &name)),
                    _ if suspended => format!("{name} goes on"),
                    _ => format!("{name} is not suspended"),
                }
            }
            // What was asked for already; a cancel that is to undo as well says so to one that isn't.
            Self::Cancel { compensate, .. } if is_cancelled(&operation, *compensate) => {
                if !compensate && is_cancelled(&operation, true) {
                    return Err(CliError::Usage(format!(
                        "{name} is being cancelled already, with --compensate: what was done is undone. That can't be taken back"
                    )));
                }
                format!("{name} is being cancelled already")
            }
            Self::Cancel { compensate, reason, .. } => {
                let whole = cluster.whole(operation.clone()).await;
                if *compensate && !whole.spec.steps.is_empty() && !undoes(&whole.spec) {
                    return Err(CliError::Usage(format!(
                        "no step of {name} says how it is undone (compensate): cancel it without --compensate"
                    )));
                }
                let mut cancel = json!({"mode": if *compensate { "Compensate" } else { "Stop" }});
                if let Some(reason) = reason {
                    cancel["reason"] = json!(reason);
                }
                self.patch(cluster, &operation, json!({"cancel": cancel})).await?;
                let then = if *compensate {
                    "is undone, the last step first"
                } else {
                    "stays"
                };
                format!(
                    "{name} is being cancelled: what was done {then}\nFollow it: {}",
                    cluster.command("get", &name, "-w")
                )
            }
        };
        out.print(&format!("{done}\n"))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn patch(&self, cluster: &Cluster, operation: &CloudOperation, spec: Value) -> Result<(), CliError> {
        let name = operation.name_any();
        // With its uid: not another one that has its name by now.
        let patch = Patch::Merge(json!({"metadata": {"uid": operation.uid()}, "spec": spec}));
        let patched = cluster.api::<CloudOperation>().patch(&name, &change(), &patch).await;
        patched
            .map(drop)
            .map_err(CliError::cluster(format!("CloudOperation {name} can't be changed")))
    }
}

/// Says that removing `suspend` is not enough.
fn stays_held(cluster: &Cluster, name: &str) -> CliError {
    CliError::Usage(format!(
        "{name} is held, but not by its spec. By what, and how it goes on:\n    {}",
        cluster.command("describe", name, "")
    ))
}

/// True if an operation is being cancelled, and undoes what it did if that is asked for.
fn is_cancelled(operation: &CloudOperation, compensate: bool) -> bool {
    let cancel = operation.spec.cancel.as_ref();
    cancel.is_some_and(|cancel| !compensate || cancel.mode == Some(CancelMode::Compensate))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{operation, said, server};
    use super::*;

    const UNDOES: &str = "steps: [{name: a, set: {v: 1}, compensate: {http: {url: 'http://a/'}}}]";

    #[tokio::test]
    async fn a_cancel_can_become_one_that_undoes_and_not_the_other_way_round() {
        let server = server();
        server.put(&operation("web", UNDOES, "state: Running"));
        let follow = "Follow it: kubectl holdfast get web -w\n";
        for (line, printed) in [
            (
                "cancel web --reason wrong",
                format!("web is being cancelled: what was done stays\n{follow}"),
            ),
            ("cancel web", "web is being cancelled already\n".into()),
            (
                "cancel web --compensate",
                format!("web is being cancelled: what was done is undone, the last step first\n{follow}"),
            ),
            ("cancel web --compensate", "web is being cancelled already\n".into()),
        ] {
            assert_eq!(said(&server, line).await.out, printed, "{line}");
        }
        let refused = said(&server, "cancel web").await;
        assert_eq!(refused.code, ExitCode::from(2));
        assert_eq!(
            refused.err,
            "web is being cancelled already, with --compensate: what was done is undone. That can't be taken back"
        );
        let cancel = server.get::<CloudOperation>("prod", "web").unwrap().spec.cancel;
        assert_eq!(json!(cancel), json!({"mode": "Compensate", "reason": "wrong"}));
    }

    #[tokio::test]
    async fn what_came_from_a_backup_is_not_resumed_but_told_how_it_goes_on() {
        let restored = "{state: Restored, conditions: [{type: Succeeded, status: Unknown, reason: Restored, message: 'it came back from a backup', lastTransitionTime: '2026-11-24T03:00:00Z'}]}";
        for spec in [UNDOES.to_owned(), format!("{UNDOES}\nsuspend: true")] {
            let server = server();
            server.put(&operation("web", &spec, restored));
            let refused = said(&server, "resume web").await;
            assert_eq!((refused.code, refused.out.as_str()), (ExitCode::from(2), ""));
            assert_eq!(
                refused.err,
                "web is held, but not by its spec. By what, and how it goes on:\n    kubectl holdfast describe web"
            );
            assert_eq!(server.get::<CloudOperation>("prod", "web").unwrap().spec.suspend, None);
            let described = said(&server, "describe web").await.out;
            for part in [
                "it came back from a backup",
                "kubectl label cop web velero.io/restore-name-",
            ] {
                assert!(described.contains(part), "{described}");
            }
        }
    }
}
