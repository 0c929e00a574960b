//! Apply and create.

use super::*;
use crate::activities::testing::answering;

#[tokio::test(start_paused = true)]
async fn apply_creates_and_then_changes_in_the_operations_namespace_as_its_service_account() {
    let bench = Bench::new();
    for size in ["1", "2"] {
        let result = succeeded(
            attempt(
                &bench,
                json!({"apply": {"manifest": config_map("settings", json!({"size": size}))}}),
            )
            .await,
        );
        assert_eq!(result["data"]["size"], size);
        assert_eq!(result["metadata"]["namespace"], "prod");
    }
    let request = bench.server.requests().pop().unwrap();
    assert_eq!(request.user, "system:serviceaccount:prod:releaser");
    assert_eq!(
        bench.server.find("configmaps", "prod", "settings").unwrap()["data"],
        json!({"size": "2"})
    );
}

#[tokio::test(start_paused = true)]
async fn apply_of_what_another_manager_owns_names_it_and_takes_it_over_only_when_told() {
    let bench = Bench::new();
    let api: kube::Api<k8s_openapi::api::core::v1::ConfigMap> =
        kube::Api::namespaced(bench.server.client("ann"), "prod");
    let theirs = kube::api::Patch::Apply(config_map("settings", json!({"size": "1"})));
    api.patch("settings", &kube::api::PatchParams::apply("kubectl"), &theirs)
        .await
        .unwrap();

    let ours = json!({"manifest": config_map("settings", json!({"size": "2"}))});
    let failure = failed(attempt(&bench, json!({"apply": ours})).await);
    assert_failure(&failure, "FieldConflict", Effect::None, RetryAdvice::Never);
    assert!(
        failure.message.contains(".data.size") && failure.message.contains("kubectl"),
        "{}",
        failure.message
    );

    let mut forced = ours;
    forced["force"] = true.into();
    assert_eq!(
        succeeded(attempt(&bench, json!({"apply": forced})).await)["data"]["size"],
        "2"
    );
}

#[tokio::test(start_paused = true)]
async fn apply_waits_for_a_namespace_and_a_kind_that_are_on_their_way() {
    let bench = Bench::new();
    let mut manifest = config_map("settings", json!({}));
    manifest["metadata"]["namespace"] = "later".into();
    let failure = failed(attempt(&bench, json!({"apply": {"manifest": manifest}})).await);
    assert_failure(&failure, "NotFound", Effect::None, RetryAdvice::Backoff);

    let widget = json!({"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": "w"}});
    let failure = failed(attempt(&bench, json!({"apply": {"manifest": widget}})).await);
    assert_failure(&failure, "KindNotFound", Effect::None, RetryAdvice::Backoff);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_says_too_little_or_reaches_elsewhere_is_refused_before_any_request() {
    let bench = Bench::new();
    let name = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    for manifest in [
        json!({"kind": "ConfigMap", "metadata": {"name": "a"}}),
        json!({"apiVersion": "v1", "metadata": {"name": "a"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap"}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "namespace": "prod"}}),
        name("../secrets/token"),
        name("a/status"),
        name("a?force=true"),
        name("a%2Fb"),
        name(".."),
    ] {
        let failure = failed(attempt(&bench, json!({"apply": {"manifest": manifest}})).await);
        assert_failure(&failure, "Invalid", Effect::None, RetryAdvice::Never);
    }
    assert_eq!(writes(&bench), []);
}

#[tokio::test(start_paused = true)]
async fn create_marks_what_it_created_and_knows_it_again_after_a_lost_answer() {
    let bench = Bench::new();
    let request = json!({"create": {"manifest": config_map("settings", json!({"size": "1"}))}});
    bench.server.set_faults(|info| {
        if info.verb == Verb::Create {
            Fault::LoseAnswer
        } else {
            Fault::None
        }
    });
    let lost = failed(attempt(&bench, request.clone()).await);
    assert_failure(&lost, "NoAnswer", Effect::Unknown, RetryAdvice::Backoff);
    bench.server.clear_faults();

    let result = succeeded(attempt(&bench, request).await);
    let key = bench.context("change").key.to_string();
    assert_eq!(result["metadata"]["annotations"][KEY_ANNOTATION], json!(key));
    assert_eq!(result["metadata"]["labels"]["holdfast.dev/operation"], "deploy");
    assert_eq!(
        bench
            .server
            .writes()
            .iter()
            .filter(|w| w.verb == Verb::Create && w.change.key.resource == "configmaps")
            .count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn create_of_what_another_made_is_a_definite_failure() {
    let bench = Bench::new();
    let request = json!({"create": {"manifest": config_map("settings", json!({}))}});
    succeeded(attempt(&bench, request.clone()).await);
    let other = AttemptContext {
        key: IdempotencyKey::new("u2", "change", 0),
        ..bench.context("change")
    };
    let failure = failed(attempt_by(&bench, &other, request).await);
    assert_failure(&failure, "AlreadyExists", Effect::None, RetryAdvice::Never);
    assert!(
        failure
            .message
            .contains("ConfigMap settings in namespace prod exists already"),
        "{}",
        failure.message
    );
}

#[tokio::test(start_paused = true)]
async fn a_misspelt_field_is_a_definite_failure_though_the_server_calls_it_its_own_error() {
    let bench = Bench::new();
    let client = answering(|_| {
        let said = json!({
            "kind": "Status", "status": "Failure", "reason": "InternalError", "code": 500,
            "message": "failed to create typed patch object (prod/token; /v1, Kind=Secret): .data.token: expected string, got &value.valueUnstructured{Value:424242}",
        });
        let body = kube::client::Body::from(said.to_string().into_bytes());
        Ok(http::Response::builder().status(500).body(body).unwrap())
    });
    let context = AttemptContext {
        kubernetes: client,
        ..bench.context("change")
    };
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "data": {"token": 424_242}});
    let failure = failed(attempt_by(&bench, &context, json!({"apply": {"manifest": secret}})).await);
    assert_failure(&failure, "Invalid", Effect::None, RetryAdvice::Never);
    assert!(failure.message.contains("Value:***"), "{}", failure.message);
}
