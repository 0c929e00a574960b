//! A Job's life, with the test in the place of its controller and the kubelet.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_apiserver::{Fault, Verb};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::activities::created;
use crate::activities::testing::{Bench, failed, succeeded};
use crate::activities::watches::Watches;
use crate::engine::{Effect, RetryAdvice};

type Told = Arc<Mutex<Vec<String>>>;

async fn attempt(context: &AttemptContext) -> Outcome {
    start(context, &serde_json::from_value(json!({"image": "tool:1"})).unwrap()).await
}

async fn accepted(bench: &Bench) -> ExternalRef {
    match attempt(&bench.context("run")).await {
        Outcome::Accepted { external } => external,
        other => panic!("{other:?}"),
    }
}

fn following(bench: &Bench, external: &ExternalRef) -> (JoinHandle<Outcome>, Told) {
    let watches = Watches::new(bench.clients.clone(), bench.discovery.clone());
    let (context, external, told) = (bench.context("run"), external.clone(), Told::default());
    let telling = told.clone();
    let progress: Progress = Arc::new(move |message| telling.lock().unwrap().push(message));
    (
        tokio::spawn(async move { follow(&context, &watches, &external, &progress).await }),
        told,
    )
}

async fn stopped(bench: &Bench, external: Option<&ExternalRef>) -> Result<(), AttemptFailure> {
    stopping(bench, external).0.await.unwrap()
}

fn stopping(bench: &Bench, external: Option<&ExternalRef>) -> (JoinHandle<Result<(), AttemptFailure>>, Told) {
    let watches = Watches::new(bench.clients.clone(), bench.discovery.clone());
    let (context, external, told) = (bench.context("run"), external.cloned(), Told::default());
    let telling = told.clone();
    let progress: Progress = Arc::new(move |message| telling.lock().unwrap().push(message));
    (
        tokio::spawn(async move { stop(&context, &watches, external.as_ref(), &progress).await }),
        told,
    )
}

fn put_pod(bench: &Bench, external: &ExternalRef, status: Value) {
    let pod = json!({
        "metadata": {
            "name": format!("{}-abcde", external.name),
            "namespace": "prod",
            "labels": {"batch.kubernetes.io/job-name": external.name},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": external.name, "uid": external.uid, "blockOwnerDeletion": true}],
        },
        "spec": {"containers": [{"name": "main", "image": "tool:1"}]},
        "status": status,
    });
    bench.server.put::<Pod>(&serde_json::from_value(pod).unwrap());
}

fn container(state: Value) -> Value {
    json!([{"name": "main", "image": "x", "imageID": "x", "ready": false, "restartCount": 0, "state": state}])
}

fn end_job(bench: &Bench, external: &ExternalRef, condition: &str, reason: &str) {
    let mut job: Job = bench.server.get("prod", &external.name).unwrap();
    let condition = json!({"type": condition, "status": "True", "reason": reason, "message": "because"});
    job.status = Some(serde_json::from_value(json!({"conditions": [condition]})).unwrap());
    bench.server.put(&job);
}

fn succeed(bench: &Bench, external: &ExternalRef, message: &str) {
    let end = json!({"terminated": {"exitCode": 0, "reason": "Completed", "message": message}});
    put_pod(
        bench,
        external,
        json!({"phase": "Succeeded", "containerStatuses": container(end)}),
    );
    end_job(bench, external, "Complete", "CompletionsReached");
}

fn fail(bench: &Bench, external: &ExternalRef) {
    let end = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "out of ideas"}});
    put_pod(
        bench,
        external,
        json!({"phase": "Failed", "containerStatuses": container(end)}),
    );
    let log: String = (1..=20).map(|n| format!("line {n}\n")).collect();
    bench
        .server
        .set_pod_log("prod", &format!("{}-abcde", external.name), "main", &log);
    end_job(bench, external, "Failed", "BackoffLimitExceeded");
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn jobs(bench: &Bench) -> usize {
    bench.server.list::<Job>().len()
}

// --- start -------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn an_attempt_creates_its_job_as_the_service_account_and_finds_it_again() {
    let bench = Bench::new();
    bench.server.set_faults(|info| {
        if info.verb == Verb::Create {
            Fault::LoseAnswer
        } else {
            Fault::None
        }
    });
    let lost = failed(attempt(&bench.context("run")).await);
    assert_eq!((lost.reason.as_str(), lost.effect), ("NoAnswer", Effect::Unknown));
    bench.server.clear_faults();

    let external = accepted(&bench).await;
    assert_eq!(accepted(&bench).await, external);
    let job: Job = bench.server.get("prod", &external.name).unwrap();
    assert_eq!((external.kind.as_str(), Some(external.uid)), ("Job", job.metadata.uid));
    assert_eq!(jobs(&bench), 1);
    assert!(
        bench
            .server
            .requests()
            .iter()
            .all(|r| r.user == "system:serviceaccount:prod:releaser")
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_definite_failure_the_next_attempt_has_a_job_of_its_own() {
    let bench = Bench::new();
    let first = accepted(&bench).await;
    let next = AttemptContext {
        failures: 1,
        ..bench.context("run")
    };
    let Outcome::Accepted { external } = attempt(&next).await else {
        panic!()
    };
    assert_ne!(external.name, first.name);
    assert_eq!(jobs(&bench), 2);
}

#[tokio::test(start_paused = true)]
async fn a_job_of_that_name_that_another_made_is_a_definite_failure() {
    let bench = Bench::new();
    let name = created::name(&bench.context("run"));
    let other =
        json!({"metadata": {"name": name, "namespace": "prod"}, "spec": {"template": {"spec": {"containers": []}}}});
    bench.server.put::<Job>(&serde_json::from_value(other).unwrap());
    let failure = failed(attempt(&bench.context("run")).await);
    assert_eq!(
        (failure.reason.as_str(), failure.retry),
        ("AlreadyExists", RetryAdvice::Never)
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_was_in_the_way_and_is_gone_a_moment_later_is_nobodys() {
    let bench = Bench::new();
    let (context, first) = (bench.context("run"), accepted(&bench).await);
    bench.server.set_faults(|info| match info.verb {
        Verb::Get => Fault::Delay(Duration::from_secs(2)),
        _ => Fault::None,
    });
    let removed = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stopped(&bench, Some(&first)).await.unwrap();
    };
    let (again, ()) = tokio::join!(attempt(&context), removed);
    let failure = failed(again);
    assert_eq!(
        (failure.reason.as_str(), failure.effect, failure.retry),
        ("Vanished", Effect::Unknown, RetryAdvice::Backoff)
    );
    bench.server.clear_faults();
    assert_eq!(accepted(&bench).await.name, first.name);
}

#[tokio::test(start_paused = true)]
async fn without_leadership_or_permission_nothing_is_created() {
    let bench = Bench::new();
    bench.leads.0.store(false, Ordering::SeqCst);
    assert_eq!(failed(attempt(&bench.context("run")).await).reason, "LeadershipLost");
    bench.leads.0.store(true, Ordering::SeqCst);
    bench.server.set_authorizer(|info| info.verb != Verb::Create);
    let denied = failed(attempt(&bench.context("run")).await);
    assert_eq!(
        (denied.reason.as_str(), denied.retry),
        ("AccessDenied", RetryAdvice::Backoff)
    );
    assert!(
        denied
            .message
            .starts_with("service account prod/releaser may not create jobs.batch in namespace prod: ")
    );
    assert_eq!(jobs(&bench), 0);
}

// --- follow ------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_job_that_succeeds_answers_what_its_container_wrote() {
    for (message, result) in [
        (r#"{"size": 3}"#, json!({"size": 3})),
        ("done", json!("done")),
        ("", Value::Null),
    ] {
        let bench = Bench::new();
        let external = accepted(&bench).await;
        let (following, told) = following(&bench, &external);
        settle().await;
        put_pod(
            &bench,
            &external,
            json!({"phase": "Running", "containerStatuses": container(json!({"running": {}}))}),
        );
        settle().await;
        assert!(!following.is_finished());
        succeed(&bench, &external, message);
        assert_eq!(succeeded(following.await.unwrap()), result);
        assert_eq!(*told.lock().unwrap(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_had_ended_before_it_was_followed_is_no_different() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    succeed(&bench, &external, "42");
    assert_eq!(succeeded(following(&bench, &external).0.await.unwrap()), json!(42));
}

/// The node was removed, and with it the Pod, before anybody could read what it wrote.
#[tokio::test(start_paused = true)]
async fn an_output_whose_pod_is_gone_is_a_failure_of_what_was_done_unless_nobody_reads_it() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    put_pod(&bench, &external, json!({"phase": "Failed"})); // an earlier one, elsewhere
    end_job(&bench, &external, "Complete", "CompletionsReached");
    let watches = Watches::new(bench.clients.clone(), bench.discovery.clone());
    let progress: Progress = Arc::new(|_| {});
    let failure = failed(follow(&bench.context("run"), &watches, &external, &progress).await);
    assert_eq!(
        (failure.reason.as_str(), failure.effect, failure.retry),
        ("OutputLost", Effect::Unknown, RetryAdvice::Never)
    );
    let context = AttemptContext {
        result_counts: false,
        ..bench.context("run")
    };
    assert_eq!(
        succeeded(follow(&context, &watches, &external, &progress).await),
        Value::Null
    );
}

#[tokio::test(start_paused = true)]
async fn an_output_that_was_cut_is_a_failure_of_what_was_done() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    succeed(&bench, &external, &format!("{{\"a\": \"{}", "x".repeat(4089)));
    let failure = failed(following(&bench, &external).0.await.unwrap());
    assert_eq!(
        (failure.reason.as_str(), failure.effect, failure.retry),
        ("OutputTruncated", Effect::Unknown, RetryAdvice::Never)
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_says_why_with_the_last_lines_of_its_log() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    fail(&bench, &external);
    let failure = failed(following(&bench, &external).0.await.unwrap());
    assert_eq!(
        (failure.reason.as_str(), failure.effect, failure.retry),
        ("JobFailed", Effect::None, RetryAdvice::Backoff)
    );
    let log: Vec<String> = (11..=20).map(|n| format!("line {n}")).collect();
    let expected = format!(
        "Job {} failed: container main exited with code 137 (OOMKilled); the Job says BackoffLimitExceeded: because; it wrote: out of ideas; the last lines of its log:\n{}",
        external.name,
        log.join("\n")
    );
    assert_eq!(failure.message, expected);
}

#[tokio::test(start_paused = true)]
async fn a_sensitive_jobs_failure_repeats_nothing_that_it_wrote() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    fail(&bench, &external);
    let watches = Watches::new(bench.clients.clone(), bench.discovery.clone());
    let context = AttemptContext {
        sensitive: true,
        ..bench.context("run")
    };
    let progress: Progress = Arc::new(|_| {});
    let failure = failed(follow(&context, &watches, &external, &progress).await);
    assert!(failure.message.contains("code 137"), "{}", failure.message);
    assert!(
        !failure.message.contains("line") && !failure.message.contains("ideas"),
        "{}",
        failure.message
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_not_be_explained_says_so() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    fail(&bench, &external);
    bench.server.set_authorizer(|info| info.subresource != "log");
    let failure = failed(following(&bench, &external).0.await.unwrap());
    let says = "its log can't be read: service account prod/releaser may not get pods/log in namespace prod";
    assert!(failure.message.contains(says), "{}", failure.message);

    bench.server.set_authorizer(|info| info.resource != "pods");
    let failure = failed(following(&bench, &external).0.await.unwrap());
    assert_eq!(failure.reason, "JobFailed");
    assert!(
        failure.message.contains("its pods can't be seen: service account"),
        "{}",
        failure.message
    );
    assert!(failure.message.contains("BackoffLimitExceeded"), "{}", failure.message);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_vanished_is_unknown() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    let (following_it, _) = following(&bench, &external);
    settle().await;
    stopped(&bench, Some(&external)).await.unwrap();
    let failure = failed(following_it.await.unwrap());
    assert_eq!((failure.reason.as_str(), failure.effect), ("Vanished", Effect::Unknown));

    // Another one of its name isn't it.
    let other = accepted(&bench).await;
    assert_ne!(other.uid, external.uid);
    assert_eq!(failed(following(&bench, &external).0.await.unwrap()).reason, "Vanished");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_can_not_start_is_told_while_the_job_is_waited_for() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    let (following, told) = following(&bench, &external);
    settle().await;
    let pull = json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
    put_pod(
        &bench,
        &external,
        json!({"phase": "Pending", "containerStatuses": container(pull)}),
    );
    settle().await;
    put_pod(
        &bench,
        &external,
        json!({"phase": "Running", "containerStatuses": container(json!({"running": {}}))}),
    );
    settle().await;
    assert!(!following.is_finished());
    let waits = format!("waiting for Job {} to end", external.name);
    let expected = [
        format!("{waits}: container main waits: ErrImagePull: no such image"),
        waits,
    ];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_has_no_pod_says_so() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    let (following, told) = following(&bench, &external);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!following.is_finished());
    let name = &external.name;
    let waits = format!("waiting for Job {name} to end");
    let none = format!("{waits}: it has no Pod yet; kubectl describe job {name} -n prod says why");
    assert_eq!(*told.lock().unwrap(), std::slice::from_ref(&none));
    put_pod(
        &bench,
        &external,
        json!({"phase": "Running", "containerStatuses": container(json!({"running": {}}))}),
    );
    settle().await;
    assert_eq!(*told.lock().unwrap(), [none, waits]);
    succeed(&bench, &external, "42");
    assert_eq!(succeeded(following.await.unwrap()), json!(42));
}

#[tokio::test(start_paused = true)]
async fn an_account_that_may_not_look_at_its_job_keeps_it_and_says_so() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    bench.server.set_authorizer(|info| info.verb == Verb::Create);
    let (following, told) = following(&bench, &external);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!following.is_finished(), "another attempt would run it twice");
    let said = told.lock().unwrap().join("\n");
    assert!(said.contains("may not list jobs.batch in namespace prod"), "{said}");
    assert!(
        said.contains("its pods can't be seen: service account prod/releaser may not list pods"),
        "{said}"
    );

    bench.server.set_authorizer(|info| info.resource != "pods");
    succeed(&bench, &external, r#"{"size": 3}"#);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!following.is_finished(), "it has an output, which isn't known yet");
    assert!(
        told.lock()
            .unwrap()
            .last()
            .unwrap()
            .contains("succeeded; its output can't be read")
    );
    bench.server.set_authorizer(|_| true);
    assert_eq!(succeeded(following.await.unwrap()), json!({"size": 3}));
}

#[tokio::test(start_paused = true)]
async fn many_jobs_are_followed_by_two_watches_that_may_break() {
    let bench = Bench::new();
    let watches = Watches::new(bench.clients.clone(), bench.discovery.clone());
    let mut all = Vec::new();
    for n in 0..50 {
        let context = bench.context(&format!("run{n}"));
        let Outcome::Accepted { external } = attempt(&context).await else {
            panic!()
        };
        let (watches, followed) = (watches.clone(), external.clone());
        let task = tokio::spawn(async move {
            let progress: Progress = Arc::new(|_| {});
            follow(&context, &watches, &followed, &progress).await
        });
        all.push((external, task));
    }
    settle().await;
    assert_eq!(bench.server.open_watches().len(), 2);
    for (n, (external, task)) in all.into_iter().enumerate() {
        bench.server.drop_watches(|_| true);
        succeed(&bench, &external, &n.to_string());
        assert_eq!(succeeded(task.await.unwrap()), json!(n));
    }
}

// --- stop --------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_job_is_stopped_once_and_no_other_of_its_name() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    for _ in 0..2 {
        stopped(&bench, Some(&external)).await.unwrap();
        assert_eq!(jobs(&bench), 0);
    }
    accepted(&bench).await;
    stopped(&bench, Some(&external)).await.unwrap();
    assert_eq!(jobs(&bench), 1, "that one is another");
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_may_have_created_is_stopped_by_its_name() {
    let bench = Bench::new();
    let context = bench.context("run");
    stopped(&bench, None).await.unwrap();
    accepted(&bench).await;
    stopped(&bench, None).await.unwrap();
    assert_eq!(jobs(&bench), 0);

    let other = json!({"metadata": {"name": created::name(&context), "namespace": "prod"}, "spec": {"template": {"spec": {"containers": []}}}});
    bench.server.put::<Job>(&serde_json::from_value(other).unwrap());
    stopped(&bench, None).await.unwrap();
    assert_eq!(jobs(&bench), 1, "another made it");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_may_still_run_is_not_called_stopped() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    bench.server.set_authorizer(|info| info.verb != Verb::Delete);
    assert_eq!(
        stopped(&bench, Some(&external)).await.unwrap_err().reason,
        "AccessDenied"
    );
    bench.server.set_authorizer(|_| true);
    bench.leads.0.store(false, Ordering::SeqCst);
    assert_eq!(
        stopped(&bench, Some(&external)).await.unwrap_err().reason,
        "LeadershipLost"
    );
    assert_eq!(jobs(&bench), 1);
}

/// The Job's Pod takes its time to end, as on a node that can't be reached; whoever stops it waits, also in another's place.
#[tokio::test(start_paused = true)]
async fn a_job_has_stopped_once_its_pods_are_gone() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    put_pod(&bench, &external, json!({"phase": "Running"}));
    let pods: Api<Pod> = Api::namespaced(bench.server.client("kubelet"), "prod");
    let name = format!("{}-abcde", external.name);
    let hold = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    let params = PatchParams::default();
    pods.patch(&name, &params, &hold(json!(["test/node"]))).await.unwrap();

    for which in [Some(&external), Some(&external), None] {
        let (stopping, told) = stopping(&bench, which);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(!stopping.is_finished(), "its Pod runs");
        let waits = format!("the Pods of Job {} are still being stopped", external.name);
        assert_eq!(*told.lock().unwrap(), [waits]);
        stopping.abort(); // as by a crash
    }
    let pod = pods.get(&name).await.unwrap();
    assert!(pod.metadata.deletion_timestamp.is_some(), "it has been asked to end");

    let (stopping, _) = stopping(&bench, Some(&external));
    settle().await;
    pods.patch(&name, &params, &hold(Value::Null)).await.unwrap();
    stopping.await.unwrap().unwrap();
    assert_eq!((jobs(&bench), bench.server.list::<Pod>().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_while_a_job_is_there_is_no_end_of_it() {
    let bench = Bench::new();
    let external = accepted(&bench).await;
    bench.server.set_faults(|info| match info.verb {
        Verb::Delete => Fault::Fail {
            code: 409,
            retry_after: None,
        },
        _ => Fault::None,
    });
    let failure = stopped(&bench, Some(&external)).await.unwrap_err();
    assert_eq!(
        (failure.reason.as_str(), failure.retry),
        ("Conflict", RetryAdvice::Backoff)
    );
    assert_eq!(jobs(&bench), 1);
}
