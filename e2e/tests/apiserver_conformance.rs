//! The conformance suite of the simulation's API server, on a real one: what the simulation promises must be true.

use holdfast_apiserver::conformance;

/// Needs a cluster whose user may do everything: `KUBECONFIG`.
#[tokio::test]
async fn the_real_api_server_does_the_same() {
    let mut config = kube::Config::infer()
        .await
        .expect("KUBECONFIG names a cluster whose user may do everything");
    // The checks are about what the server answers, 429 too.
    config.default_retry = false;
    let client = kube::Client::try_from(config).unwrap();
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    let namespace = format!("conformance-{nanos}");
    let failures = conformance::run_all(client.clone(), &namespace).await;
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(client);
    namespaces.delete(&namespace, &Default::default()).await.unwrap();
    assert!(
        failures.is_empty(),
        "{} of {} checks fail:\n{}",
        failures.len(),
        conformance::checks().len(),
        failures.join("\n")
    );
}
