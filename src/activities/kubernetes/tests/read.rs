//! Get and list.

use super::*;

#[tokio::test(start_paused = true)]
async fn objects_in_no_namespace_and_in_another_are_read_where_they_are() {
    let bench = Bench::new();
    bench.server.add_namespace("test");
    let read = succeeded(
        attempt(
            &bench,
            json!({"get": {"resource": reference("v1", "Namespace", "test")}}),
        )
        .await,
    );
    assert_eq!(read["metadata"]["name"], "test");
    let listed = succeeded(attempt(&bench, json!({"list": {"apiVersion": "v1", "kind": "Namespace"}})).await);
    assert!(
        listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .any(|n| n["metadata"]["name"] == "test")
    );

    let mut manifest = config_map("there", json!({}));
    manifest["metadata"]["namespace"] = "test".into();
    succeeded(attempt(&bench, json!({"apply": {"manifest": manifest}})).await);
    let mut there = reference("v1", "ConfigMap", "there");
    there["namespace"] = "test".into();
    let read = succeeded(attempt(&bench, json!({"get": {"resource": there}})).await);
    assert_eq!(read["metadata"]["namespace"], "test");
}

#[tokio::test(start_paused = true)]
async fn reads_never_show_what_a_secret_holds() {
    let bench = Bench::new();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token", "labels": {"a": "b"}}, "stringData": {"token": "hunter2"}});
    let created = succeeded(attempt(&bench, json!({"create": {"manifest": secret}})).await);
    let read = succeeded(attempt(&bench, json!({"get": {"resource": reference("v1", "Secret", "token")}})).await);
    let listed = succeeded(
        attempt(
            &bench,
            json!({"list": {"apiVersion": "v1", "kind": "Secret", "labelSelector": "a=b"}}),
        )
        .await,
    );
    for secret in [&created, &read, &listed["items"][0]] {
        assert_eq!(secret["data"], json!({"token": "***"}));
    }
}

#[tokio::test(start_paused = true)]
async fn list_reads_all_pages_of_what_the_selector_matches() {
    let bench = Bench::new();
    for n in 0..1200 {
        let map = json!({"metadata": {"name": format!("m{n:04}"), "namespace": "prod", "labels": {"odd": (n % 2).to_string()}}});
        bench
            .server
            .put(&serde_json::from_value::<k8s_openapi::api::core::v1::ConfigMap>(map).unwrap());
    }
    let all = succeeded(attempt(&bench, json!({"list": {"apiVersion": "v1", "kind": "ConfigMap"}})).await);
    assert_eq!(all["items"].as_array().unwrap().len(), 1200);
    assert_eq!(
        (&all["kind"], &all["items"][0]["kind"]),
        (&json!("ConfigMapList"), &json!("ConfigMap"))
    );
    assert_eq!(bench.server.request_counts()[&(Verb::List, "configmaps".to_owned())], 3);
    let odd = json!({"list": {"apiVersion": "v1", "kind": "ConfigMap", "labelSelector": "odd=1"}});
    assert_eq!(
        succeeded(attempt(&bench, odd).await)["items"].as_array().unwrap().len(),
        600
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_too_large_is_a_definite_failure() {
    let bench = Bench::new();
    for n in 0..5 {
        let map =
            json!({"metadata": {"name": format!("m{n}"), "namespace": "prod"}, "data": {"a": "x".repeat(1 << 20)}});
        bench
            .server
            .put(&serde_json::from_value::<k8s_openapi::api::core::v1::ConfigMap>(map).unwrap());
    }
    let failure = failed(attempt(&bench, json!({"list": {"apiVersion": "v1", "kind": "ConfigMap"}})).await);
    assert_failure(&failure, "ResultTooLarge", Effect::None, RetryAdvice::Never);
}
