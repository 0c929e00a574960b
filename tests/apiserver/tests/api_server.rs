//! The conformance suite on this crate's server. `e2e/tests/apiserver_conformance.rs` runs it on the real one.

use holdfast_apiserver::{ApiServer, conformance, tokio_clock};

#[tokio::test(start_paused = true)]
async fn it_does_what_an_operator_relies_on() {
    let server = ApiServer::new(tokio_clock("2026-11-24T00:00:00Z".parse().unwrap()), 1);
    server.set_authorizer(|request| request.user != conformance::STRANGER);
    let client = server.client("admin");
    conformance::prepare(client.clone(), "conformance").await;
    // A real server has compacted, or started after, the first versions.
    server.compact();
    let failures = conformance::run_all(client, "conformance").await;
    assert!(
        failures.is_empty(),
        "{} of {} checks fail:\n{}",
        failures.len(),
        conformance::checks().len(),
        failures.join("\n")
    );
}
