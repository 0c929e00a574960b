//! `wait`: until an operation has ended.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use kube::ResourceExt;

use super::cluster::Cluster;
use super::error::TIMED_OUT;
use super::output::{Output, paint};
use super::table::one_line;
use super::tree::{message_of, style_of};
use super::{CliError, get, times};
use crate::api::{CloudOperation, OperationState};

#[derive(Args)]
pub struct Wait {
    /// The operation.
    name: String,
    /// How long to wait at most: 90s, 10m, 2h. No limit if absent.
    #[arg(long, value_parser = duration)]
    timeout: Option<Duration>,
}

impl Wait {
    pub async fn run(&self, cluster: &Cluster, out: &mut Output) -> Result<ExitCode, CliError> {
        let name = cluster.operation(&self.name).await?.name_any();
        until_ended(cluster, out, &name, self.timeout).await
    }
}

/// A duration on the command line.
pub fn duration(text: &str) -> Result<Duration, crate::api::DurationError> {
    text.parse::<crate::api::Duration>().map(|duration| duration.get())
}

/// Waits until an operation has ended, says how, and answers the exit code for it.
///
/// # Errors
/// When it is deleted, or can't be watched.
pub async fn until_ended(
    cluster: &Cluster,
    out: &mut Output,
    name: &str,
    timeout: Option<Duration>,
) -> Result<ExitCode, CliError> {
    let mut last = None;
    let waiting = async {
        let mut changes = std::pin::pin!(cluster.follow::<CloudOperation>(name));
        while let Some(change) = changes.next().await {
            let Some(operation) = change? else {
                return Err(CliError::Deleted(name.into()));
            };
            if get::ended(&operation) {
                return Ok(operation);
            }
            last = Some(operation);
        }
        Err(CliError::Usage(format!(
            "CloudOperation {name} can't be watched any more"
        )))
    };
    let ended = match timeout {
        None => waiting.await,
        Some(most) => match tokio::time::timeout(most, waiting).await {
            Ok(ended) => ended,
            Err(_) => {
                let last = last
                    .as_ref()
                    .map(summary)
                    .unwrap_or_else(|| format!("{name} was not seen"));
                anstream::eprintln!(
                    "After {} it has not ended, and goes on: {last}\nWhat can be done: {}",
                    times::short(most),
                    cluster.command("describe", name, "")
                );
                return Ok(ExitCode::from(TIMED_OUT));
            }
        },
    }?;
    let said = out.print(&format!("{}\n", summary(&ended)));
    let succeeded = ended.status.and_then(|status| status.state) == Some(OperationState::Succeeded);
    // Also where whoever read the output has seen enough, the exit code says how it ended.
    if let Err(error) = said.map_err(CliError::from)
        && !error.is_broken_pipe()
    {
        return Err(error);
    }
    Ok(if succeeded {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// What an operation does or how it ended, in a line.
pub fn summary(operation: &CloudOperation) -> String {
    let name = operation.name_any();
    let status = operation.status.clone().unwrap_or_default();
    let Some(state) = status.state else {
        return format!("{name} was not seen by an operator yet");
    };
    let message = one_line(&message_of(&status));
    let colon = if message.is_empty() { "" } else { ": " };
    format!("{name} {}{colon}{message}", paint(style_of(state), &state.to_string()))
}
