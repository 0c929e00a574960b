//! The simulation's API server against a real one: what the simulation promises must be true.
//!
//! Needs a cluster whose user may do everything: `KUBECONFIG`.

use holdfast_apiserver::{ApiServer, conformance};
use k8s_openapi::{api::core::v1::Namespace, jiff::Timestamp};
use kube::{Api, Client, Config};

async fn real() -> Client {
    let mut config = Config::infer()
        .await
        .expect("KUBECONFIG names a cluster whose user may do everything");
    // The checks are about what the server answers, 429 too.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// A namespace that no other run uses.
fn namespace(purpose: &str) -> String {
    format!("{purpose}-{}", Timestamp::now().as_millisecond())
}

async fn remove(client: Client, namespace: &str) {
    Api::<Namespace>::all(client)
        .delete(namespace, &Default::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn the_real_api_server_does_the_same() {
    let (client, namespace) = (real().await, namespace("conformance"));
    let failures = conformance::run_all(client.clone(), &namespace).await;
    remove(client, &namespace).await;
    let all = conformance::checks().len();
    assert!(
        failures.is_empty(),
        "{} of {all} checks fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// `SEED` repeats a run; `STEPS` makes it longer.
#[tokio::test]
async fn random_requests_are_answered_alike() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let simulated = ApiServer::new(std::sync::Arc::new(Timestamp::now), 1);
    let seeds = number("SEED").map_or(1..=5, |seed| seed..=seed);
    for seed in seeds {
        let (client, namespace) = (real().await, namespace("random"));
        let steps = usize::try_from(number("STEPS").unwrap_or(100)).unwrap();
        let compared =
            conformance::differential::compare(client.clone(), simulated.client("admin"), &namespace, seed, steps)
                .await;
        remove(client, &namespace).await;
        compared.unwrap_or_else(|difference| panic!("{difference}"));
    }
}
