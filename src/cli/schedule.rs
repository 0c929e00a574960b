//! `schedule`: what an OperationSchedule does next; pausing it, resuming it, and running what was due in the past.

use std::process::ExitCode;

use clap::Subcommand;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::{Value, json};

use super::cluster::{Cluster, Flags, bare, change, quoted};
use super::output::{BAD, BOLD, GOOD, Output, WARN, paint};
use super::tree::wrapped;
use super::{CliError, NAME, times};
use crate::api::{Backfill, OperationSchedule, Time};

#[derive(Subcommand)]
pub enum Schedule {
    /// Says what a schedule starts next, what is under way, and what was skipped or missed.
    Describe {
        /// The schedule.
        schedule: String,
    },
    /// Pauses a schedule: nothing starts but what a backfill says. What is due meanwhile is not made up for.
    Pause {
        /// The schedule.
        schedule: String,
        /// Why, for whoever looks at it.
        #[arg(long)]
        note: Option<String>,
    },
    /// Lets a schedule go on that was paused.
    Resume {
        /// The schedule.
        schedule: String,
    },
    /// Runs what was due in a range of the past, now.
    Backfill {
        /// The schedule.
        schedule: String,
        /// The begin of the range, as 2026-11-24T00:00:00Z.
        #[arg(long, value_parser = moment, value_name = "TIME")]
        from: Time,
        /// Its end. Default: now.
        #[arg(long, value_parser = moment, value_name = "TIME")]
        to: Option<Time>,
    },
}

impl Schedule {
    pub async fn run(&self, cluster: &Cluster, out: &mut Output) -> Result<ExitCode, CliError> {
        let (Self::Describe { schedule }
        | Self::Pause { schedule, .. }
        | Self::Resume { schedule }
        | Self::Backfill { schedule, .. }) = self;
        let schedule = read(cluster, bare(schedule)).await?;
        let (name, paused) = (schedule.name_any(), schedule.spec.paused == Some(true));
        let done = match self {
            Self::Describe { .. } => render(&schedule, &cluster.flags, times::now(), out.width()),
            Self::Pause { note: None, .. } if paused => format!("{name} is paused already\n"),
            Self::Pause { note, .. } => {
                let mut spec = json!({"paused": true});
                if let Some(note) = note {
                    spec["note"] = json!(note);
                }
                patch(cluster, &schedule, spec).await?;
                format!("{name} is paused: nothing starts but what a backfill says; what is under way goes on\n")
            }
            Self::Resume { .. } if !paused => format!("{name} is not paused\n"),
            Self::Resume { .. } => {
                patch(cluster, &schedule, json!({"paused": null, "note": null})).await?;
                format!("{name} goes on: what was due meanwhile is not made up for, but by a backfill\n")
            }
            Self::Backfill { from, to, .. } => {
                let range = Backfill {
                    from: *from,
                    to: to.unwrap_or_else(times::now),
                };
                if schedule.spec.backfill.contains(&range) {
                    return Err(CliError::Usage(format!(
                        "{name} has this backfill already, and each is run once. How far it is:\n    {}",
                        command("describe", &name, &cluster.flags)
                    )));
                }
                // Those that are done have no more to say than that, and there is room for twenty.
                let status = schedule.status.iter().flat_map(|status| &status.backfills);
                let done: Vec<_> = status.filter(|b| b.done).map(|b| (b.from, b.to)).collect();
                let kept = schedule.spec.backfill.iter();
                let kept = kept.filter(|b| !done.contains(&(b.from, b.to))).copied();
                let all: Vec<_> = kept.chain([range]).collect();
                patch(cluster, &schedule, json!({"backfill": all})).await?;
                format!(
                    "{name} runs what was due from {} to {}\nFollow it: {}\n",
                    range.from,
                    range.to,
                    command("describe", &name, &cluster.flags)
                )
            }
        };
        out.print(&done)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A moment, as a person writes it.
fn moment(text: &str) -> Result<Time, String> {
    let at = text.parse::<Timestamp>();
    at.map(Time::new)
        .map_err(|error| format!("a time is expected, such as 2026-11-24T03:00:00Z: {error}"))
}

fn command(verb: &str, schedule: &str, flags: &Flags) -> String {
    format!("{NAME} schedule {verb} {}{flags}", quoted(schedule))
}

async fn read(cluster: &Cluster, name: &str) -> Result<OperationSchedule, CliError> {
    let found = cluster.api::<OperationSchedule>().get_opt(name).await;
    let found = found.map_err(CliError::cluster(format!("OperationSchedule {name} can't be read")))?;
    found.ok_or_else(|| {
        CliError::Usage(format!(
            "there is no OperationSchedule {name} in namespace {}; all schedules: kubectl get opsched -A{}",
            cluster.namespace, cluster.flags.cluster
        ))
    })
}

/// Changes the spec that was read: not one that somebody has changed since.
async fn patch(cluster: &Cluster, schedule: &OperationSchedule, spec: Value) -> Result<(), CliError> {
    let name = schedule.name_any();
    let patch = Patch::Merge(json!({
        "metadata": {"uid": schedule.uid(), "resourceVersion": schedule.resource_version()}, "spec": spec,
    }));
    let patched = cluster.api::<OperationSchedule>().patch(&name, &change(), &patch).await;
    patched
        .map(drop)
        .map_err(CliError::cluster(format!("OperationSchedule {name} can't be changed")))
}

fn render(schedule: &OperationSchedule, flags: &Flags, now: Time, width: Option<usize>) -> String {
    let (spec, status) = (&schedule.spec, schedule.status.clone().unwrap_or_default());
    let name = schedule.name_any();
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let (reason, message) = ready.map_or(("", "the operator has not seen it yet"), |ready| {
        (ready.reason.as_str(), ready.message.as_str())
    });
    let style = match ready.map(|ready| ready.status.as_str()) {
        Some("True") if reason == "Paused" => WARN,
        Some("True") => GOOD,
        _ => BAD,
    };
    let mut text = format!(
        "{} in namespace {}: {}\n",
        paint(BOLD, &name),
        schedule.namespace().unwrap_or_default(),
        paint(style, if reason.is_empty() { "Unknown" } else { reason })
    );
    if !message.is_empty() {
        text.push_str(&format!("\n{}\n", wrapped(message, "", "", width)));
    }
    let zone = spec.time_zone.as_deref().unwrap_or("UTC");
    let policy = format!("{:?}", spec.concurrency_policy.unwrap_or_default());
    let at = |times: &[Time]| -> Vec<String> { times.iter().map(|at| times::clock(*at, now)).collect() };
    let mut lines = vec![
        ("Schedule", format!("{} ({zone})", spec.schedule)),
        ("While one is under way", policy),
    ];
    if let Some((first, others)) = status.next_times.split_first() {
        let others = at(others).iter().map(|at| format!("; {at}")).collect::<String>();
        lines.push(("Next", times::ahead(*first, now) + &others));
    }
    if let Some(last) = status.last_schedule_time {
        let ago = times::whole(now.since(last));
        lines.push(("Last", format!("{} ({ago} ago)", times::clock(last, now))));
    }
    for active in &status.active {
        let due = times::clock(active.due, now);
        lines.push(("Under way", format!("{}, due at {due}", active.name)));
    }
    if !status.waiting.is_empty() {
        lines.push(("Waiting for its end", at(&status.waiting).join("; ")));
    }
    if status.skipped + status.missed > 0 {
        let counted = format!("{} skipped, {} missed", status.skipped, status.missed);
        lines.push(("Not started", counted));
    }
    for backfill in &status.backfills {
        let ended = if backfill.done { ", done" } else { "" };
        let range = format!(
            "{} to {}",
            times::clock(backfill.from, now),
            times::clock(backfill.to, now)
        );
        lines.push(("Backfill", format!("{range}: {} started{ended}", backfill.started)));
    }
    text.push('\n');
    for (what, said) in lines {
        text.push_str(&format!("{what}: {said}\n"));
    }
    let operations = format!("{NAME} get -l holdfast.dev/schedule={}{flags}", quoted(&name));
    let on_or_off = match spec.paused {
        Some(true) => ("Let it go on:", command("resume", &name, flags)),
        _ => ("Pause it:", command("pause", &name, flags)),
    };
    text.push_str(&format!("\n{}\n", paint(BOLD, "What you can do")));
    for (what, command) in [("See its operations:", operations), on_or_off] {
        text.push_str(&format!("\n- {what}\n    {command}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, said, server};
    use super::*;

    fn schedule(spec: Value, status: Value) -> OperationSchedule {
        let mut schedule = json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "OperationSchedule",
            "metadata": {"name": "report", "namespace": "prod", "uid": "0c7e"},
            "spec": {
                "schedule": "*/15 * * * *", "concurrencyPolicy": "BufferOne",
                "operation": {"spec": {"steps": [{"name": "a", "set": {"v": 1}}]}},
            },
            "status": status,
        });
        for (field, value) in spec.as_object().unwrap() {
            schedule["spec"][field] = value.clone();
        }
        serde_json::from_value(schedule).unwrap()
    }

    fn ready(reason: &str, message: &str) -> Value {
        json!([{"type": "Ready", "status": "True", "reason": reason, "message": message, "lastTransitionTime": "2026-11-24T03:00:00Z"}])
    }

    #[test]
    fn what_it_does_next_and_what_it_did() {
        let status = json!({
            "conditions": ready("Scheduled", "the next one is due at 2026-11-24T03:15:00.000Z"),
            "nextTimes": ["2026-11-24T03:15:00Z", "2026-11-24T03:30:00Z"],
            "lastScheduleTime": "2026-11-24T03:00:00Z",
            "active": [{"name": "report-1", "due": "2026-11-24T03:00:00Z"}],
            "waiting": ["2026-11-24T03:00:00Z"],
            "skipped": 3, "missed": 1,
            "backfills": [{"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z", "started": 96, "done": true}],
        });
        let flags = Flags {
            cluster: " --context blue".into(),
            namespace: " -n prod".into(),
        };
        let text = render(&schedule(json!({}), status), &flags, at("2026-11-24T03:05:00Z"), None);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "\
report in namespace prod: Scheduled

the next one is due at 2026-11-24T03:15:00.000Z

Schedule: */15 * * * * (UTC)
While one is under way: BufferOne
Next: in 10m, at 03:15:00Z; 03:30:00Z
Last: 03:00:00Z (5m ago)
Under way: report-1, due at 03:00:00Z
Waiting for its end: 03:00:00Z
Not started: 3 skipped, 1 missed
Backfill: 2026-11-01 00:00:00Z to 2026-11-02 00:00:00Z: 96 started, done

What you can do

- See its operations:
    kubectl holdfast get -l holdfast.dev/schedule=report --context blue -n prod

- Pause it:
    kubectl holdfast schedule pause report --context blue -n prod
"
        );
    }

    #[tokio::test]
    async fn it_is_paused_with_a_note_and_goes_on() {
        let server = server();
        server.put(&schedule(json!({}), json!({})));
        let spec = || server.get::<OperationSchedule>("prod", "report").unwrap().spec;
        let pause = "report is paused: nothing starts but what a backfill says; what is under way goes on\n";
        assert_eq!(
            said(&server, "schedule pause opsched/report --note migration")
                .await
                .out,
            pause
        );
        assert_eq!((spec().paused, spec().note.as_deref()), (Some(true), Some("migration")));
        assert_eq!(
            said(&server, "schedule pause report").await.out,
            "report is paused already\n"
        );
        assert_eq!(said(&server, "schedule pause report --note longer").await.out, pause);
        let described = said(&server, "schedule describe report").await.out;
        assert!(
            described.contains("kubectl holdfast schedule resume report\n"),
            "{described}"
        );
        let resumed = said(&server, "schedule resume report").await.out;
        assert!(resumed.starts_with("report goes on"), "{resumed}");
        assert_eq!((spec().paused, spec().note), (None, None));
        assert_eq!(
            said(&server, "schedule resume report").await.out,
            "report is not paused\n"
        );
        let unknown = said(&server, "schedule pause reports").await;
        assert_eq!(unknown.code, ExitCode::from(2));
        assert_eq!(
            unknown.err,
            "there is no OperationSchedule reports in namespace prod; all schedules: kubectl get opsched -A"
        );
    }

    #[tokio::test]
    async fn a_backfill_is_added_to_those_that_are_not_done() {
        let day = |n: u8| json!({"from": format!("2026-11-0{n}T00:00:00Z"), "to": format!("2026-11-0{n}T12:00:00Z")});
        let mut done = day(1);
        (done["started"], done["done"]) = (json!(48), json!(true));
        let server = server();
        server.put(&schedule(
            json!({"backfill": [day(1), day(2)]}),
            json!({"backfills": [done]}),
        ));
        let line = "schedule backfill report --from 2026-11-03T00:00:00Z --to 2026-11-03T12:00:00Z";
        let added = said(&server, line).await;
        assert_eq!(
            added.out,
            "\
report runs what was due from 2026-11-03T00:00:00.000Z to 2026-11-03T12:00:00.000Z
Follow it: kubectl holdfast schedule describe report
"
        );
        let ranges: Vec<Backfill> = server.get::<OperationSchedule>("prod", "report").unwrap().spec.backfill;
        let expected: Vec<Backfill> = [2, 3].map(|n| serde_json::from_value(day(n)).unwrap()).into();
        assert_eq!(ranges, expected);
        let again = said(&server, line).await;
        assert_eq!(again.code, ExitCode::from(2));
        assert!(again.err.contains("has this backfill already"), "{}", again.err);
    }
}
