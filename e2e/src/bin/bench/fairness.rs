//! What a namespace with ten thousand operations that want to run costs its neighbour.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use holdfast_e2e::operator::Operator;
use serde_json::Value;

use super::closed_loop::{self, Length, Run};
use super::objects::{CONCURRENCY, Objects};
use super::{Result, say};

/// How many operations are queued next door, at first.
pub const QUEUED: usize = 10_000;
/// How many the neighbour runs at once.
pub const AT_ONCE: usize = 16;
const LENGTH: Length = Length {
    operations: 160,
    span: Duration::from_secs(12),
};

/// What is run first and not counted: an operator that has just started lists all operations before it begins with any.
const BEGINNING: Length = Length {
    operations: 0,
    span: Duration::ZERO,
};

/// The neighbour's operations, without and with the queue.
pub struct Fairness {
    /// While it is alone.
    pub alone: Run,
    /// While ten thousand are queued next door.
    pub beside: Run,
}

/// Measures both under one operator, which serves all namespaces.
pub async fn measure(
    kubeconfig: &str,
    lease: &str,
    crowd: &Objects,
    neighbour: &Objects,
    spec: &Value,
) -> Result<Fairness> {
    let arguments = ["--lease-namespace", lease, "--allow-http", "127.0.0.1"];
    let operator = Operator::start(kubeconfig, &arguments);
    operator.leads().await;
    closed_loop::run(neighbour, spec, "beginning", AT_ONCE, BEGINNING).await?;
    let alone = closed_loop::run(neighbour, spec, "alone", AT_ONCE, LENGTH).await?;
    neighbour.delete_all().await?;
    // So that they are all there when it begins.
    operator.stop().await;
    say(&format!("{QUEUED} are queued next door"));
    stream::iter(0..QUEUED)
        .map(async |i| crowd.create(&format!("queued-{i}"), spec).await.map(|_| ()))
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>()
        .await?;
    let operator = Operator::start(kubeconfig, &arguments);
    operator.leads().await;
    closed_loop::run(neighbour, spec, "beginning", AT_ONCE, BEGINNING).await?;
    let beside = closed_loop::run(neighbour, spec, "beside", AT_ONCE, LENGTH).await?;
    operator.stop().await;
    crowd.delete_all().await?;
    neighbour.delete_all().await?;
    Ok(Fairness { alone, beside })
}

impl Fairness {
    /// The neighbour's 99th percentile beside the queue, over its own alone.
    pub fn p99_ratio(&self) -> f64 {
        self.beside.latency(0.99).as_secs_f64() / self.alone.latency(0.99).as_secs_f64()
    }
}
