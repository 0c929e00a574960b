//! Delete and evict.

use super::*;

#[tokio::test(start_paused = true)]
async fn delete_removes_an_object_and_is_content_with_one_that_is_gone() {
    let bench = Bench::new();
    settings(&bench, json!({})).await;
    let request = json!({"delete": {"resource": reference("v1", "ConfigMap", "settings")}});
    bench.server.set_faults(|info| {
        if info.verb == Verb::Delete {
            Fault::LoseAnswer
        } else {
            Fault::None
        }
    });
    assert_eq!(failed(attempt(&bench, request.clone()).await).effect, Effect::Unknown);
    bench.server.clear_faults();
    assert_eq!(succeeded(attempt(&bench, request).await), json!({}));
    assert!(bench.server.find("configmaps", "prod", "settings").is_none());
}

#[tokio::test(start_paused = true)]
async fn delete_looks_again_when_another_object_took_the_name() {
    let bench = Bench::new();
    settings(&bench, json!({})).await;
    let (server, once) = (bench.server.clone(), AtomicUsize::new(0));
    bench.server.set_faults(move |info| {
        if info.verb == Verb::Delete && once.fetch_add(1, Ordering::SeqCst) == 0 {
            return Fault::Fail {
                code: 409,
                retry_after: None,
            }; // as a precondition that doesn't hold
        }
        assert_eq!(server.list::<k8s_openapi::api::core::v1::ConfigMap>().len(), 1);
        Fault::None
    });
    let request =
        json!({"delete": {"resource": reference("v1", "ConfigMap", "settings"), "propagationPolicy": "Foreground"}});
    let deleted = succeeded(attempt(&bench, request).await);
    assert_eq!(deleted["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert_eq!(
        bench.server.request_counts()[&(Verb::Get, "configmaps".to_owned())],
        2,
        "it is read anew"
    );
}

#[tokio::test(start_paused = true)]
async fn an_eviction_waits_for_the_disruption_budget() {
    let bench = Bench::new();
    succeeded(attempt(&bench, json!({"create": {"manifest": pod()}})).await);
    let mut running: k8s_openapi::api::core::v1::Pod = bench.server.get("prod", "web-1").unwrap();
    running.status = Some(serde_json::from_value(json!({"phase": "Running"})).unwrap());
    bench.server.put(&running);
    let budget = |allowed: i32| -> k8s_openapi::api::policy::v1::PodDisruptionBudget {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "prod"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"disruptionsAllowed": allowed, "desiredHealthy": 1, "currentHealthy": 1, "expectedPods": 1, "observedGeneration": 1},
        }))
        .unwrap()
    };
    bench.server.put(&budget(0));
    let failure = failed(attempt(&bench, json!({"evict": {"pod": "web-1"}})).await);
    assert_failure(&failure, "DisruptionBudget", Effect::None, RetryAdvice::Backoff);
    assert!(
        failure.message.contains("Pod web-1") && failure.message.contains("needs 1 healthy pods"),
        "{}",
        failure.message
    );

    let mut unseen = budget(1);
    unseen.status.as_mut().unwrap().observed_generation = Some(0);
    bench.server.put(&unseen);
    let failure = failed(attempt(&bench, json!({"evict": {"pod": "web-1"}})).await);
    let when = RetryAdvice::After(Duration::from_secs(10));
    assert_failure(&failure, "DisruptionBudget", Effect::None, when);

    bench.server.put(&budget(1));
    for _ in 0..2 {
        succeeded(attempt(&bench, json!({"evict": {"pod": "web-1"}})).await);
    }
    assert!(bench.server.find("pods", "prod", "web-1").is_none());
}
