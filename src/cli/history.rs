//! `history`: what happened to an operation.

use std::process::ExitCode;

use clap::Args;

use super::cluster::Cluster;
use super::output::{BAD, BUSY, FAINT, Format, GOOD, Output, PLAIN, WARN, machine, paint};
use super::table::{Cell, one_line, padded};
use super::{CliError, table, times};
use crate::api::{HistoryEntry, HistoryEvent, OperationStatus, Time};

#[derive(Args)]
pub struct History {
    /// The operation.
    name: String,
    /// In another form.
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

impl History {
    pub async fn run(&self, cluster: &Cluster, out: &mut Output) -> Result<ExitCode, CliError> {
        let operation = cluster.operation(&self.name).await?;
        let status = operation.status.unwrap_or_default();
        let text = match self.output {
            Some(format @ (Format::Json | Format::Yaml)) => {
                let dropped = status.history_dropped;
                machine(
                    &serde_json::json!({"dropped": dropped, "history": status.history}),
                    format,
                )?
            }
            Some(Format::Name) => {
                return Err(CliError::Usage("history has no -o name: json, yaml or wide".into()));
            }
            Some(Format::Wide) => render(&status, times::now(), true, None),
            None => render(&status, times::now(), false, out.width()),
        };
        out.print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The history as a table: wide with whole times, else with those of the day.
fn render(status: &OperationStatus, now: Time, wide: bool, most: Option<usize>) -> String {
    if status.history.is_empty() {
        return match status.compacted {
            Some(true) => "The history was removed, as spec.ttlSecondsAfterFinished says.\n".into(),
            _ => "Nothing has happened yet.\n".into(),
        };
    }
    let row = |entry: &HistoryEntry| -> Vec<Cell> {
        let time = if wide {
            entry.time.to_string()
        } else {
            times::clock(entry.time, now)
        };
        vec![
            entry.seq.to_string().into(),
            time.into(),
            Cell::styled(event(entry), style_of(entry.event)),
            entry.step.clone().unwrap_or_default().into(),
            if entry.attempt > 0 {
                entry.attempt.to_string()
            } else {
                String::new()
            }
            .into(),
            entry.actor.clone().unwrap_or_default().into(),
            one_line(entry.message.as_deref().unwrap_or_default()).into(),
        ]
    };
    let rows: Vec<_> = status.history.iter().map(row).collect();
    let headings = ["SEQ", "TIME", "EVENT", "STEP", "ATTEMPT", "ACTOR", "MESSAGE"];
    let mut text = table::render(&headings, &rows, most);
    if status.history_dropped > 0 {
        let dropped = format!(
            "{} entries of attempts are no longer here: the status keeps the first and the last ones.",
            status.history_dropped
        );
        text.push_str(&format!("{}\n", paint(FAINT, &dropped)));
    }
    text
}

/// An entry as a line of its own, for logs.
pub fn line(entry: &HistoryEntry) -> String {
    let step = match (&entry.step, entry.attempt) {
        (Some(step), 0) => step.clone(),
        (Some(step), attempt) => format!("{step} #{attempt}"),
        (None, _) => String::new(),
    };
    let message = one_line(entry.message.as_deref().unwrap_or_default());
    let actor = entry
        .actor
        .as_ref()
        .map(|actor| format!(" (by {actor})"))
        .unwrap_or_default();
    let text = format!(
        "{}  {}  {}  {message}{actor}",
        entry.time,
        padded(&event(entry), 15),
        padded(&step, 16)
    );
    format!("{}\n", text.trim_end())
}

fn event(entry: &HistoryEntry) -> String {
    format!("{:?}", entry.event)
}

fn style_of(event: HistoryEvent) -> anstyle::Style {
    use HistoryEvent::*;
    match event {
        StepSucceeded => GOOD,
        StepFailed | StepTimedOut | StepUndecided | ActionRejected => BAD,
        AttemptFailed | AttemptLost | StepCancelled | Compensating | Suspended | CancelRequested => WARN,
        ActionApplied | Resumed => BUSY,
        Started | AttemptStarted | Accepted | StepWaiting | StepSkipped | Finished | Other => PLAIN,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, operation};
    use super::*;

    #[test]
    fn who_did_what_when_and_what_is_no_longer_known() {
        let operation = operation(
            "web",
            "steps: [{name: a, set: {}}]",
            r"
            historyDropped: 12
            history:
            - {seq: 1, time: '2026-11-23T23:59:00.000Z', type: Started}
            - {seq: 2, time: '2026-11-24T03:00:01.000Z', type: AttemptFailed, step: resize, attempt: 3, message: '503'}
            - {seq: 15, time: '2026-11-24T03:00:02.000Z', type: ActionApplied, actor: anna, message: step resize is tried again now}
            ",
        );
        let text = render(&operation.status.unwrap(), at("2026-11-24T04:00:00Z"), false, None);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "\
SEQ   TIME                   EVENT           STEP     ATTEMPT   ACTOR   MESSAGE
1     2026-11-23 23:59:00Z   Started
2     03:00:01Z              AttemptFailed   resize   3                 503
15    03:00:02Z              ActionApplied                      anna    step resize is tried again now
12 entries of attempts are no longer here: the status keeps the first and the last ones.
"
        );
    }

    #[test]
    fn a_line_of_a_log() {
        let entry = HistoryEntry {
            seq: 2,
            time: at("2026-11-24T03:00:01Z"),
            event: HistoryEvent::AttemptFailed,
            step: Some("resize".into()),
            attempt: 3,
            message: Some("503".into()),
            actor: None,
        };
        assert_eq!(
            line(&entry),
            "2026-11-24T03:00:01.000Z  AttemptFailed    resize #3         503\n"
        );
    }
}
