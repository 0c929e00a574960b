//! Wait.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use tokio::task::JoinHandle;

use super::*;
use crate::activities::kubernetes::{describe, wait};
use crate::activities::watches::Watches;
use crate::api::WaitFor;
use crate::engine::expression::Scope;

fn waiting(bench: &Bench, request: Value) -> JoinHandle<Outcome> {
    let watches = Watches::new(bench.clients.clone(), bench.discovery.clone());
    let scope = Scope::default().with("input", json!({"size": 3}));
    let (context, discovery) = (
        AttemptContext {
            scope,
            ..bench.context("wait")
        },
        bench.discovery.clone(),
    );
    let request: WaitFor = serde_json::from_value(request).unwrap();
    tokio::spawn(async move { wait(&context, &watches, &discovery, &request).await })
}

fn put_deployment(bench: &Bench, generation: i64, observed: i64, available: i64, conditions: Value) {
    let mut object = deployment(2);
    object["metadata"] = json!({"name": "web", "namespace": "prod", "generation": generation, "managedFields": []});
    object["spec"]["progressDeadlineSeconds"] = 600.into();
    object["status"] = json!({
        "observedGeneration": observed, "replicas": 2, "updatedReplicas": 2,
        "readyReplicas": available, "availableReplicas": available, "conditions": conditions,
    });
    bench.server.put::<Deployment>(&serde_json::from_value(object).unwrap());
}

fn fine() -> Value {
    json!([
        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
        {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
    ])
}

fn put_map(bench: &Bench, data: Value) {
    let map = json!({"metadata": {"name": "m", "namespace": "prod"}, "data": data});
    bench.server.put::<ConfigMap>(&serde_json::from_value(map).unwrap());
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn current() -> Value {
    json!({"resource": reference("apps/v1", "Deployment", "web"), "for": "Current"})
}

fn until(expression: &str) -> Value {
    json!({"resource": reference("v1", "ConfigMap", "m"), "until": expression})
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_waited_for_from_before_it_exists_until_it_is_current() {
    let bench = Bench::new();
    let waiting = waiting(&bench, current());
    settle().await;
    for (observed, available) in [(0, 0), (1, 0), (1, 1)] {
        put_deployment(&bench, 1, observed, available, fine());
        settle().await;
        assert!(!waiting.is_finished());
    }
    put_deployment(&bench, 1, 1, 2, fine());
    let result = succeeded(waiting.await.unwrap());
    assert_eq!(
        (&result["kind"], &result["status"]["availableReplicas"]),
        (&json!("Deployment"), &json!(2))
    );
    assert!(result["metadata"].get("managedFields").is_none());
}

#[tokio::test(start_paused = true)]
async fn an_object_that_failed_ends_the_wait_with_its_own_message() {
    let bench = Bench::new();
    let conditions = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "web-1 has timed out"}]);
    put_deployment(&bench, 1, 1, 0, conditions);
    let failure = failed(waiting(&bench, current()).await.unwrap());
    assert_failure(&failure, "ResourceFailed", Effect::None, RetryAdvice::Never);
    let expected = "Deployment web in namespace prod has failed: ProgressDeadlineExceeded: web-1 has timed out";
    assert_eq!(failure.message, expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_gone_is_gone_at_once_or_later_or_when_another_has_its_name() {
    let bench = Bench::new();
    let request = json!({"resource": reference("v1", "ConfigMap", "m"), "for": "Deleted"});
    assert_eq!(succeeded(waiting(&bench, request.clone()).await.unwrap()), json!({}));

    for again in [false, true] {
        put_map(&bench, json!({}));
        let waiting = waiting(&bench, request.clone());
        settle().await;
        put_map(&bench, json!({"a": "1"}));
        settle().await;
        assert!(!waiting.is_finished());
        bench.server.hold_watches();
        succeeded(
            attempt(
                &bench,
                json!({"delete": {"resource": reference("v1", "ConfigMap", "m")}}),
            )
            .await,
        );
        if again {
            put_map(&bench, json!({}));
            bench.server.compact(); // so that the deletion itself is never told
            bench.server.drop_watches(|_| true);
        }
        bench.server.release_watches();
        assert_eq!(succeeded(waiting.await.unwrap()), json!({}));
    }
}

#[tokio::test(start_paused = true)]
async fn an_expression_is_waited_for_through_all_that_is_not_there_yet() {
    let bench = Bench::new();
    let waiting = waiting(&bench, until("int(object.data.size) == input.size"));
    settle().await;
    for data in [Value::Null, json!({}), json!({"other": "3"}), json!({"size": "2"})] {
        put_map(&bench, data);
        settle().await;
        assert!(!waiting.is_finished());
    }
    put_map(&bench, json!({"size": "3"}));
    assert_eq!(succeeded(waiting.await.unwrap())["data"]["size"], "3");
}

#[tokio::test(start_paused = true)]
async fn an_expression_that_can_never_hold_ends_the_wait() {
    let bench = Bench::new();
    put_map(&bench, json!({"size": "many"}));
    for (expression, says) in [
        ("object.data.size > 3", "no such overload"),
        ("int(object.data.size) == 3", "many"),
        ("object.data.size == input.sise", "no such key: sise"),
        ("object.data.size", "must be true or false"),
        ("object.", "invalid expression"),
    ] {
        let failure = failed(waiting(&bench, until(expression)).await.unwrap());
        assert_failure(&failure, "InvalidExpression", Effect::None, RetryAdvice::Never);
        assert!(
            failure.message.starts_with("kubernetes.wait.until: "),
            "{}",
            failure.message
        );
        assert!(failure.message.contains(says), "{}", failure.message);
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_in_no_namespace_is_waited_for_too() {
    let bench = Bench::new();
    let request =
        json!({"resource": reference("v1", "Namespace", "later"), "until": "object.status.phase == 'Active'"});
    let waiting = waiting(&bench, request);
    settle().await;
    bench.server.add_namespace("later");
    assert_eq!(succeeded(waiting.await.unwrap())["metadata"]["name"], "later");
}

#[tokio::test(start_paused = true)]
async fn fail_when_ends_the_wait_and_goes_before_until() {
    let bench = Bench::new();
    let mut request = until("object.data.state == 'done'");
    request["failWhen"] = "object.data.state == 'broken' || has(object.data.error)".into();
    let waiting_for_it = waiting(&bench, request.clone());
    put_map(&bench, json!({"state": "working"}));
    settle().await;
    put_map(&bench, json!({"state": "broken"}));
    let failure = failed(waiting_for_it.await.unwrap());
    assert_failure(&failure, "ResourceFailed", Effect::None, RetryAdvice::Never);
    assert!(
        failure
            .message
            .contains("failWhen is true: object.data.state == 'broken'"),
        "{}",
        failure.message
    );

    put_map(&bench, json!({"state": "done", "error": "x"}));
    assert_eq!(failed(waiting(&bench, request).await.unwrap()).reason, "ResourceFailed");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_secret_never_shows_what_it_holds() {
    let bench = Bench::new();
    let secret = json!({"metadata": {"name": "token", "namespace": "prod"}, "stringData": {"token": "hunter2"}});
    bench
        .server
        .put::<k8s_openapi::api::core::v1::Secret>(&serde_json::from_value(secret).unwrap());
    let request = json!({"resource": reference("v1", "Secret", "token"), "until": "has(object.data.token)"});
    let result = succeeded(waiting(&bench, request).await.unwrap());
    assert_eq!(result["data"], json!({"token": "***"}));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_denied_or_for_an_unknown_kind_is_retried() {
    let bench = Bench::new();
    bench
        .server
        .set_authorizer(|info| info.user == "operator" || info.verb != Verb::List);
    let failure = failed(waiting(&bench, current()).await.unwrap());
    assert_failure(&failure, "AccessDenied", Effect::None, RetryAdvice::Backoff);
    let who = "service account prod/releaser may not list deployments.apps in namespace prod: ";
    assert!(failure.message.starts_with(who), "{}", failure.message);
    let widget = json!({"resource": reference("example.dev/v1", "Widget", "w"), "for": "Current"});
    assert_failure(
        &failed(waiting(&bench, widget).await.unwrap()),
        "KindNotFound",
        Effect::None,
        RetryAdvice::Backoff,
    );
}

#[tokio::test(start_paused = true)]
async fn a_sensitive_wait_records_nothing_of_what_the_object_says() {
    let bench = Bench::new();
    let failed_rollout =
        json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "hunter2"}]);
    put_deployment(&bench, 1, 1, 0, failed_rollout);
    put_map(&bench, json!({"size": "hunter2"}));
    let watches = Watches::new(bench.clients.clone(), bench.discovery.clone());
    let context = AttemptContext {
        sensitive: true,
        ..bench.context("wait")
    };
    for (request, reason) in [
        (current(), "ResourceFailed"),
        (until("int(object.data.size) == 3"), "InvalidExpression"),
    ] {
        let request: WaitFor = serde_json::from_value(request).unwrap();
        let failure = failed(wait(&context, &watches, &bench.discovery, &request).await);
        assert_eq!(failure.reason, reason);
        assert!(!failure.message.contains("hunter2"), "{}", failure.message);
    }
}

#[test]
fn every_wait_says_what_it_waits_for() {
    let say = |request: Value| describe(&serde_json::from_value(request).unwrap());
    assert_eq!(say(current()), "waiting for Deployment web to be Current");
    assert_eq!(
        say(until("has(object.data)")),
        "waiting for ConfigMap m to fulfil has(object.data)"
    );
    let mut gone = current();
    gone["resource"]["namespace"] = "prod".into();
    gone["for"] = "Deleted".into();
    assert_eq!(say(gone), "waiting for Deployment web in prod to be gone");
}
