//! Scenarios of each request on an API server in the process: here those of all of them, and what they share.

mod create;
mod patch;
mod read;
mod remove;
mod wait;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_apiserver::{Fault, RequestInfo, Verb};
use serde_json::{Value, json};

use super::run;
use crate::activities::AttemptContext;
use crate::activities::testing::{Bench, failed, succeeded};
use crate::api::KEY_ANNOTATION;
use crate::engine::{AttemptFailure, Effect, IdempotencyKey, Outcome, RetryAdvice};

async fn attempt(bench: &Bench, request: Value) -> Outcome {
    attempt_by(bench, &bench.context("change"), request).await
}

async fn attempt_by(bench: &Bench, context: &AttemptContext, request: Value) -> Outcome {
    run(context, &bench.discovery, &serde_json::from_value(request).unwrap()).await
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn patched(kind: &str, patch: Value) -> Value {
    json!({"patch": {"resource": reference("v1", "ConfigMap", "settings"), "type": kind, "patch": patch}})
}

async fn settings(bench: &Bench, data: Value) {
    succeeded(attempt(bench, json!({"apply": {"manifest": config_map("settings", data)}})).await);
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "x"}]}})
}

fn deployment(replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}}},
    })
}

fn reference(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name})
}

/// Someone else's change of an object, at the moment of the first request that matches.
fn disturb(bench: &Bench, when: fn(&RequestInfo) -> bool, times: usize) {
    let (server, done) = (bench.server.clone(), AtomicUsize::new(0));
    bench.server.set_faults(move |info| {
        if when(info) && done.fetch_add(1, Ordering::SeqCst) < times {
            let n = done.load(Ordering::SeqCst).to_string();
            let mut other: k8s_openapi::api::core::v1::ConfigMap = server.get("prod", "settings").unwrap();
            other.data.get_or_insert_default().insert("other".into(), n);
            server.put(&other);
        }
        Fault::None
    });
}

fn writes(bench: &Bench) -> Vec<Verb> {
    bench
        .server
        .requests()
        .iter()
        .filter(|r| r.is_write())
        .map(|r| r.verb)
        .collect()
}

fn assert_failure(failure: &AttemptFailure, reason: &str, effect: Effect, retry: RetryAdvice) {
    assert_eq!(
        (failure.reason.as_str(), failure.effect, failure.retry),
        (reason, effect, retry),
        "{}",
        failure.message
    );
}

fn every_write() -> Vec<Value> {
    vec![
        json!({"apply": {"manifest": config_map("settings", json!({"a": "2"}))}}),
        json!({"create": {"manifest": config_map("new", json!({}))}}),
        patched("Merge", json!({"data": {"a": "3"}})),
        patched("JSON", json!([{"op": "add", "path": "/data/a", "value": "4"}])),
        json!({"scale": {"resource": reference("apps/v1", "Deployment", "web"), "replicas": 5}}),
        json!({"delete": {"resource": reference("v1", "ConfigMap", "settings")}}),
        json!({"evict": {"pod": "web-1"}}),
    ]
}

async fn furnished() -> Bench {
    let bench = Bench::new();
    for manifest in [config_map("settings", json!({"a": "1"})), deployment(1), pod()] {
        succeeded(attempt(&bench, json!({"apply": {"manifest": manifest}})).await);
    }
    bench
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_once_leadership_is_lost() {
    let bench = furnished().await;
    let before = bench.server.writes().len();
    bench.leads.0.store(false, Ordering::SeqCst);
    for request in every_write() {
        let failure = failed(attempt(&bench, request).await);
        assert_failure(&failure, "LeadershipLost", Effect::None, RetryAdvice::Backoff);
    }
    assert_eq!(bench.server.writes().len(), before);
}

#[tokio::test(start_paused = true)]
async fn every_request_is_one_that_the_service_account_may_be_denied() {
    let bench = furnished().await;
    bench.server.set_authorizer(|info| info.user == "operator");
    for request in every_write() {
        let failure = failed(attempt(&bench, request.clone()).await);
        assert_failure(&failure, "AccessDenied", Effect::None, RetryAdvice::Backoff);
        assert!(
            failure.message.starts_with("service account prod/releaser may not "),
            "{}",
            failure.message
        );
    }
    bench
        .server
        .set_authorizer(|info| !info.is(Verb::Update, "deployments/scale"));
    let scale = json!({"scale": {"resource": reference("apps/v1", "Deployment", "web"), "replicas": 5}});
    let failure = failed(attempt(&bench, scale).await);
    let who = "service account prod/releaser may not update deployments.apps/scale in namespace prod: ";
    assert!(failure.message.starts_with(who), "{}", failure.message);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_at_any_request_comes_right_with_the_next_attempt() {
    for request in every_write() {
        let mut nth = 0;
        loop {
            let bench = furnished().await;
            let (first, lost) = (bench.server.requests().len() as u64, nth);
            bench.server.set_faults(move |info| {
                if info.number == first + 1 + lost {
                    Fault::LoseAnswer
                } else {
                    Fault::None
                }
            });
            let outcome = attempt(&bench, request.clone()).await;
            bench.server.clear_faults();
            match outcome {
                Outcome::Succeeded { .. } => break,
                outcome => assert_eq!(
                    failed(outcome).retry,
                    RetryAdvice::Backoff,
                    "{request} without answer {nth}"
                ),
            }
            succeeded(attempt(&bench, request.clone()).await);
            nth += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(nth > 0, "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sensitive_step_records_nothing_of_a_field_conflict() {
    let bench = furnished().await;
    let api: kube::Api<k8s_openapi::api::core::v1::ConfigMap> =
        kube::Api::namespaced(bench.server.client("ann"), "prod");
    let theirs = kube::api::Patch::Apply(config_map("settings", json!({"hunter2": "1"})));
    let params = kube::api::PatchParams::apply("kubectl");
    api.patch("settings", &params, &theirs).await.unwrap();
    let context = AttemptContext {
        sensitive: true,
        ..bench.context("change")
    };
    let ours = json!({"apply": {"manifest": config_map("settings", json!({"hunter2": "2"}))}});
    let failure = failed(attempt_by(&bench, &context, ours).await);
    assert_failure(&failure, "FieldConflict", Effect::None, RetryAdvice::Never);
    assert!(!failure.message.contains("hunter2"), "{}", failure.message);
}
