//! `history`: what happened to an operation.

use std::process::ExitCode;

use clap::Args;

use super::cluster::Cluster;
use super::output::{BAD, BUSY, Format, GOOD, Output, PLAIN, WARN, machine};
use super::table::{Cell, one_line, padded};
use super::{CliError, table, times};
use crate::api::{CloudOperation, HistoryEntry, HistoryEvent, Time};

/// How wide the column of who did it is at most: groups and accounts have long names.
const MAX_ACTOR: usize = 24;

#[derive(Args)]
pub struct History {
    /// The operation.
    name: String,
    /// In another form.
    #[arg(short, long, value_parser = Format::among(&[Format::Json, Format::Yaml, Format::Wide]))]
    output: Option<Format>,
}

impl History {
    pub async fn run(&self, cluster: &Cluster, out: &mut Output) -> Result<ExitCode, CliError> {
        let operation = cluster.operation(&self.name).await?;
        let entries = after(cluster, &operation, 0).await;
        let compacted = operation.status.and_then(|status| status.compacted) == Some(true);
        let text = match self.output {
            Some(format @ (Format::Json | Format::Yaml)) => machine(&entries, format)?,
            Some(Format::Wide | Format::Name) => render(&entries, compacted, times::now(), true, None),
            None => render(&entries, compacted, times::now(), false, out.width()),
        };
        out.print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What happened to an operation after the entry with this number: what is in its status, and before it what has gone into
/// OperationHistory objects. Says so if these can't be read.
pub async fn after(cluster: &Cluster, operation: &CloudOperation, seen: i64) -> Vec<HistoryEntry> {
    let status = operation.status.clone().unwrap_or_default();
    let mut entries = status.history;
    if status.history_spilled > seen {
        match cluster.journal(operation).await {
            Ok(parts) => entries.extend(parts.into_iter().flat_map(|part| part.spec.entries)),
            Err(error) => anstream::eprintln!(
                "Entries up to {} are in OperationHistory objects, which can't be read: {error}",
                status.history_spilled
            ),
        }
        entries.sort_by_key(|entry| entry.seq);
        entries.dedup_by_key(|entry| entry.seq);
    }
    entries.retain(|entry| entry.seq > seen);
    entries
}

/// The history as a table: wide with whole times, else with those of the day.
fn render(entries: &[HistoryEntry], compacted: bool, now: Time, wide: bool, most: Option<usize>) -> String {
    if entries.is_empty() {
        return match compacted {
            true => "The history was removed, as spec.ttlSecondsAfterFinished says.\n".into(),
            false => "Nothing has happened yet.\n".into(),
        };
    }
    let row = |entry: &HistoryEntry| -> Vec<Cell> {
        let actor = actor(entry).unwrap_or_default();
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
            if wide { actor } else { table::cut(&actor, MAX_ACTOR) }.into(),
            one_line(entry.message.as_deref().unwrap_or_default()).into(),
        ]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    let headings = ["SEQ", "TIME", "EVENT", "STEP", "ATTEMPT", "ACTOR", "MESSAGE"];
    table::render(&headings, &rows, most)
}

/// An entry as a line of its own, for logs.
pub fn line(entry: &HistoryEntry) -> String {
    let step = match (&entry.step, entry.attempt) {
        (Some(step), 0) => step.clone(),
        (Some(step), attempt) => format!("{step} #{attempt}"),
        (None, _) => String::new(),
    };
    let message = one_line(entry.message.as_deref().unwrap_or_default());
    let actor = actor(entry).map(|actor| format!(" (by {actor})")).unwrap_or_default();
    let text = format!(
        "{}  {}  {}  {message}{actor}",
        entry.time,
        padded(&event(entry), 15),
        padded(&step, 16)
    );
    format!("{}\n", text.trim_end())
}

/// Who did it, without the groups that the API server puts everybody in; -o json has them all.
fn actor(entry: &HistoryEntry) -> Option<String> {
    let actor = entry.actor.as_ref()?;
    let Some((who, groups)) = actor.rsplit_once(" (groups: ") else {
        return Some(actor.clone());
    };
    let everybodys = |group: &&str| {
        matches!(*group, "system:authenticated" | "system:unauthenticated")
            || *group == "system:serviceaccounts"
            || group.starts_with("system:serviceaccounts:")
    };
    let groups = groups.strip_suffix(')').unwrap_or(groups).split(", ");
    let telling: Vec<&str> = groups.filter(|group| !everybodys(group)).collect();
    Some(match telling.as_slice() {
        [] => who.to_owned(),
        telling => format!("{who} (groups: {})", telling.join(", ")),
    })
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
    use kube::ResourceExt;
    use serde_json::{Value, json};

    use super::super::fixtures::{at, operation, said, server};
    use super::*;
    use crate::api::{OPERATION_UID_LABEL, OperationHistory};

    #[tokio::test]
    async fn what_left_the_status_is_put_before_what_is_in_it() {
        let server = server();
        let entry = |seq: i64| json!({"seq": seq, "time": format!("2026-11-24T03:00:0{seq}.000Z"), "type": "AttemptStarted", "step": "a", "attempt": seq});
        let status = json!({"historySpilled": 4, "history": [entry(5)]}).to_string();
        server.put(&operation("web", "steps: [{name: a, set: {}}]", &status));
        let uid = server.get::<CloudOperation>("prod", "web").unwrap().uid().unwrap();
        // The last one was made just now: its entries are in the status as well.
        for (name, uid, seqs) in [
            ("b", uid.as_str(), [3, 4]),
            ("a", &uid, [1, 2]),
            ("c", &uid, [5, 6]),
            ("d", "other", [7, 8]),
        ] {
            let part: OperationHistory = serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "prod", "labels": {OPERATION_UID_LABEL: uid}},
                "spec": {"operationRef": {"name": "web", "uid": uid}, "from": seqs[0], "to": seqs[1], "entries": seqs.map(entry)},
            }))
            .unwrap();
            server.put(&part);
        }
        for form in ["yaml", "json"] {
            let printed = said(&server, &format!("history web -o {form}")).await.out;
            let entries: Vec<Value> = serde_yaml::from_str(&printed).unwrap();
            assert_eq!(entries, (1..=6).map(entry).collect::<Vec<_>>(), "{printed}");
        }
        let wide = said(&server, "history web -o wide").await.out;
        let lines: Vec<&str> = wide.lines().collect();
        assert_eq!(lines.len(), 7, "{wide}");
        assert_eq!(lines[1], "1     2026-11-24T03:00:01.000Z   AttemptStarted   a      1");

        server.set_authorizer(|request| request.resource != "operationhistories");
        let left = said(&server, "history web").await.out;
        assert_eq!(left.lines().count(), 2, "what can be read: {left}");
    }

    #[test]
    fn who_did_what_and_when() {
        let operation = operation(
            "web",
            "steps: [{name: a, set: {}}]",
            r"
            history:
            - {seq: 1, time: '2026-11-23T23:59:00.000Z', type: Started}
            - {seq: 2, time: '2026-11-24T03:00:01.000Z', type: AttemptFailed, step: resize, attempt: 3, message: '503'}
            - {seq: 15, time: '2026-11-24T03:00:02.000Z', type: ActionApplied, actor: anna, message: step resize is tried again now}
            ",
        );
        let text = render(
            &operation.status.unwrap().history,
            false,
            at("2026-11-24T04:00:00Z"),
            false,
            None,
        );
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "\
SEQ   TIME                   EVENT           STEP     ATTEMPT   ACTOR   MESSAGE
1     2026-11-23 23:59:00Z   Started
2     03:00:01Z              AttemptFailed   resize   3                 503
15    03:00:02Z              ActionApplied                      anna    step resize is tried again now
"
        );
    }

    #[test]
    fn only_groups_that_tell_something_are_shown() {
        for (recorded, shown) in [
            ("anna", "anna"),
            ("anna (unverified)", "anna (unverified)"),
            ("anna (groups: sre, system:authenticated)", "anna (groups: sre)"),
            ("anna (groups: system:authenticated)", "anna"),
            (
                "anna (groups: system:masters, system:authenticated)",
                "anna (groups: system:masters)",
            ),
            (
                "system:serviceaccount:ci:bot (groups: system:serviceaccounts, system:serviceaccounts:ci, system:authenticated)",
                "system:serviceaccount:ci:bot",
            ),
            ("anna (groups: sre, releas…", "anna (groups: sre, releas…)"),
        ] {
            let entry = HistoryEntry {
                actor: Some(recorded.into()),
                ..entry()
            };
            assert_eq!(actor(&entry).as_deref(), Some(shown));
        }
    }

    fn entry() -> HistoryEntry {
        HistoryEntry {
            seq: 2,
            time: at("2026-11-24T03:00:01Z"),
            event: HistoryEvent::AttemptFailed,
            step: Some("resize".into()),
            attempt: 3,
            message: Some("503".into()),
            actor: None,
        }
    }

    #[test]
    fn a_line_of_a_log() {
        assert_eq!(
            line(&entry()),
            "2026-11-24T03:00:01.000Z  AttemptFailed    resize #3         503\n"
        );
    }
}
