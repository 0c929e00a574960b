//! `describe`: why an operation waits or ended, and what can be done.

use std::process::ExitCode;

use clap::Args;
use kube::ResourceExt;

use super::advice::{Advice, advise};
use super::cluster::{Cluster, Flags};
use super::output::{BOLD, Output, paint};
use super::tree::{style_of, wrapped};
use super::{CliError, times};
use crate::api::{CloudOperation, Time};

#[derive(Args)]
pub struct Describe {
    /// The operation.
    name: String,
}

impl Describe {
    pub async fn run(&self, cluster: &Cluster, out: &mut Output) -> Result<ExitCode, CliError> {
        let operation = cluster.whole(cluster.operation(&self.name).await?).await;
        out.print(&render(&operation, &cluster.flags, times::now(), out.width()))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn render(operation: &CloudOperation, flags: &Flags, now: Time, width: Option<usize>) -> String {
    let status = operation.status.clone().unwrap_or_default();
    let mut text = format!(
        "{} in namespace {}",
        paint(BOLD, &operation.name_any()),
        operation.namespace().unwrap_or_default()
    );
    if let Some(state) = status.state {
        text.push_str(&format!(": {}", paint(style_of(state), &state.to_string())));
    }
    if let Some(progress) = &status.progress {
        text.push_str(&format!(", {progress} steps"));
    }
    text.push('\n');
    let Advice { why, options } = advise(operation, flags, now);
    for reason in why {
        text.push_str(&format!("\n{}\n", wrapped(&reason, "", "", width)));
    }
    if !options.is_empty() {
        text.push_str(&format!("\n{}\n", paint(BOLD, "What you can do")));
    }
    for option in options {
        text.push_str(&format!("\n{}\n", wrapped(&option.what, "- ", "  ", width)));
        for command in option.commands {
            text.push_str(&format!("    {command}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, operation};
    use super::*;

    fn said(spec: &str, status: &str) -> String {
        let text = render(
            &operation("web", spec, status),
            &Flags {
                cluster: " --context blue".into(),
                namespace: " -n prod".into(),
            },
            at("2026-11-24T03:05:00Z"),
            None,
        );
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn a_step_that_fails_again_and_again() {
        let text = said(
            "steps: [{name: resize, http: {url: 'http://a/'}}]",
            r"
            state: BackingOff
            progress: 0/1
            startTime: '2026-11-24T03:00:00.000Z'
            steps:
            - {name: resize, type: Http, state: BackingOff, attempt: 3, startSeq: 4, startTime: '2026-11-24T03:00:00.120Z', nextAttemptTime: '2026-11-24T03:05:40.000Z', deadline: '2026-11-24T05:00:00.120Z', failure: {reason: HttpStatus, message: '503 Service Unavailable'}}
            ",
        );
        assert_eq!(
            text,
            "\
web in namespace prod: BackingOff, 0/1 steps

Attempt 3 of step resize failed: HttpStatus: 503 Service Unavailable
The next attempt starts in 40s, at 03:05:40Z. If none succeeds until 05:00:00Z (in 1h55m), the step ends as TimedOut.

What you can do

- Fix the cause. The next attempt goes on by itself; to make it now:
    kubectl holdfast retry-now web --step resize --context blue -n prod

- Go on without the step. What follows reads no output of it, unless you give one with --output:
    kubectl holdfast skip web --step resize --context blue -n prod

- Say that it is done, or that it failed for good:
    kubectl holdfast complete web --step resize --context blue -n prod
    kubectl holdfast fail web --step resize --context blue -n prod

- Hold it, or end it:
    kubectl holdfast suspend web --context blue -n prod
    kubectl holdfast cancel web --context blue -n prod
"
        );
    }

    #[test]
    fn an_approval_says_who_may_give_it_and_how() {
        let text = said(
            "steps: [{name: ask, approval: {message: 'really?', groups: [sre], excludeRequester: true}}]",
            r"
            state: Waiting
            progress: 0/1
            startTime: '2026-11-24T03:00:00.000Z'
            steps:
            - {name: ask, type: Approval, state: Waiting, startSeq: 2, startTime: '2026-11-24T03:00:00.000Z', message: 'waiting for an approval: really?'}
            ",
        );
        assert!(
            text.contains(
                "\
Step ask has been waiting for an approval for 5m: really?
Who may approve: the groups sre; not who created the operation.
"
            ),
            "{text}"
        );
        assert!(
            text.contains("    kubectl holdfast approve web --step ask --context blue -n prod\n"),
            "{text}"
        );
        assert!(
            text.contains("    kubectl holdfast reject web --step ask --context blue -n prod\n"),
            "{text}"
        );
    }

    #[test]
    fn a_call_that_nobody_knows_the_outcome_of() {
        let text = said(
            "steps: [{name: charge, idempotent: false, http: {url: 'http://a/'}}]",
            r"
            state: Stuck
            progress: 0/1
            startTime: '2026-11-24T03:00:00.000Z'
            steps:
            - {name: charge, type: Http, state: Undecided, attempt: 1, maybeDone: true, startSeq: 2, startTime: '2026-11-24T03:00:00.000Z', failure: {reason: Lost, message: the process is gone}}
            ",
        );
        assert!(
            text.contains("Step charge may or may not have had its effect"),
            "{text}"
        );
        for command in [
            "complete web --step charge",
            "retry web --step charge",
            "skip web --step charge",
            "fail web --step charge",
        ] {
            assert!(
                text.contains(&format!("    kubectl holdfast {command} --context blue -n prod\n")),
                "{command}:\n{text}"
            );
        }
    }

    #[test]
    fn one_that_failed_can_be_tried_again_or_run_anew() {
        let text = said(
            "steps: [{name: a, set: {}}, {name: resize, http: {url: 'http://a/'}}]",
            r"
            state: Failed
            progress: 1/2
            startTime: '2026-11-24T03:00:00.000Z'
            completionTime: '2026-11-24T03:01:00.000Z'
            failure: {reason: HttpStatus, message: '400 no such group', step: resize}
            steps:
            - {name: resize, type: Http, state: Failed, attempt: 1, startSeq: 2, endSeq: 3, startTime: '2026-11-24T03:00:00.000Z', endTime: '2026-11-24T03:01:00.000Z', failure: {reason: HttpStatus, message: '400 no such group'}}
            ",
        );
        assert!(
            text.contains("It ended 4m ago: step resize failed for good: HttpStatus: 400 no such group"),
            "{text}"
        );
        assert!(
            text.contains("    kubectl holdfast retry web --step resize --context blue -n prod\n"),
            "{text}"
        );
        assert!(
            text.contains("    kubectl holdfast rerun web --from-step resize --context blue -n prod\n"),
            "{text}"
        );
    }

    #[test]
    fn every_command_is_for_the_same_cluster() {
        let held = "{state: Suspended, conditions: [{type: Succeeded, status: Unknown, reason: Suspended, message: held, lastTransitionTime: '2026-11-24T03:02:00Z'}]}";
        let mut commands = 0;
        for status in [held, "{}", "{state: Restored}", "{state: Queued}"] {
            let text = said("steps: [{name: a, set: {}}]", status);
            for command in text.lines().filter(|line| line.trim_start().starts_with("kubectl ")) {
                commands += 1;
                assert!(command.contains(" --context blue"), "{command}");
                let namespaces = command.matches(" -n ").count() + command.matches(" -A ").count();
                assert!(namespaces <= 1, "{command}");
            }
        }
        assert_eq!(commands, 7);
    }

    #[test]
    fn one_that_is_to_run_again_says_what_it_waits_for() {
        let text = said(
            "steps: [{name: a, set: {}}]",
            r"
            state: Cancelled
            progress: 0/1
            startTime: '2026-11-24T03:00:00.000Z'
            completionTime: '2026-11-24T03:01:00.000Z'
            conditions: [{type: Reconciling, status: 'True', reason: Queued, message: 'to run again, it waits for its key', lastTransitionTime: '2026-11-24T03:02:00Z'}]
            ",
        );
        assert!(text.contains("To run again, it waits for its key."), "{text}");
    }

    #[test]
    fn a_child_is_where_to_look() {
        let text = said(
            "steps: [{name: child, operation: {templateRef: {name: t}}}]",
            r"
            state: Waiting
            progress: 0/1
            startTime: '2026-11-24T03:00:00.000Z'
            steps:
            - {name: child, type: Operation, state: Waiting, startSeq: 2, startTime: '2026-11-24T03:00:00.000Z', message: 'CloudOperation web-child-x is Running', external: {kind: CloudOperation, name: web-child-x, uid: u}}
            ",
        );
        assert!(
            text.contains(
                "\
Step child has been waiting for 5m: CloudOperation web-child-x is Running

What you can do

- Look at what it waits for:
    kubectl holdfast describe web-child-x --context blue -n prod
"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_callback_that_is_awaited_says_what_was_last_heard() {
        let text = said(
            "steps: [{name: grow, http: {url: 'http://a/', async: true}}]",
            r"
            state: Waiting
            progress: 0/1
            startTime: '2026-11-24T03:00:00.000Z'
            steps:
            - {name: grow, type: Http, state: Waiting, attempt: 1, startSeq: 2, startTime: '2026-11-24T03:00:00.000Z', message: 'the other side works on it', external: {kind: Callback, name: k, uid: u}, heartbeat: {time: '2026-11-24T03:04:30.000Z', details: {percent: 40}}}
            ",
        );
        assert!(
            text.contains(
                "Step grow has been waiting for 5m: the other side works on it; its last heartbeat came 30s ago: {\"percent\":40}"
            ),
            "{text}"
        );
        for command in ["complete", "fail", "skip"] {
            assert!(
                text.contains(&format!("    kubectl holdfast {command} web --step grow --context")),
                "{text}"
            );
        }
    }

    #[test]
    fn who_is_queued_says_who_holds_its_key() {
        let text = said(
            "{steps: [{name: a, set: {}}], concurrency: {key: web}}",
            r"
            state: Queued
            conditions: [{type: Succeeded, status: Unknown, reason: Queued, message: 'it waits for the key web, which other holds', lastTransitionTime: '2026-11-24T03:02:00Z'}]
            ",
        );
        assert!(
            text.contains("It has not started: it waits for the key web, which other holds.")
                && text.contains("- See who holds which key:\n    kubectl get operationlocks --context blue -n prod\n"),
            "{text}"
        );
    }

    #[test]
    fn one_that_succeeded_needs_nothing() {
        let text = said(
            "steps: [{name: a, set: {}}]",
            r"
            state: Succeeded
            progress: 1/1
            startTime: '2026-11-24T03:00:00.000Z'
            completionTime: '2026-11-24T03:01:00.000Z'
            ",
        );
        assert_eq!(
            text,
            "\
web in namespace prod: Succeeded, 1/1 steps

It succeeded 4m ago, after 1m.

What you can do

- Run it once more, as a new operation:
    kubectl holdfast rerun web --context blue -n prod
"
        );
    }
}
