//! What the end-to-end tests, the demo and the benchmark share: a service to call, an operator to run and kill, and a
//! namespace of one's own on a real cluster.
#![forbid(unsafe_code)]

pub mod cel_vectors;
pub mod image;
pub mod install;
pub mod inventory;
pub mod kubectl;
pub mod operator;
pub mod replicas;
pub mod secure;
pub mod terminal;
pub mod witness;
pub mod world;

use std::io::Write;

/// Which kind of cluster the tests run on, as e2e/cluster.sh names them: local, kind or current.
pub fn cluster() -> String {
    let named = std::env::var("CLUSTER").ok().filter(|cluster| !cluster.is_empty());
    named.unwrap_or_else(|| "local".into())
}

/// Says that a test is skipped, and why: past what the test runner captures, so that it is always seen.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    // Where nobody listens there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
