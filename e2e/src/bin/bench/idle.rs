//! Ten thousand operations that wait: half for a time, half for an object that never comes.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::objects::{CONCURRENCY, Objects};
use super::observed::Observer;
use super::{Result, say};

/// How many wait.
pub const OPERATIONS: usize = 10_000;
/// For how long they are observed.
pub const SPAN: Duration = Duration::from_secs(60);
/// How long they may take to settle: the Events that tell of them are written four a second.
const PATIENCE: Duration = Duration::from_secs(480);
/// After so long without a request, they have.
const QUIET: Duration = Duration::from_secs(8);

/// What waiting costs.
pub struct Idle {
    /// Requests a second beyond watches and Lease.
    pub requests_per_s: f64,
    /// The operator's memory, in MiB.
    pub rss_mib: f64,
    /// The most memory that it had so far, in MiB.
    pub peak_mib: f64,
    /// CPU time that it used.
    pub cpu: Duration,
}

/// Creates them, lets them settle, and observes.
pub async fn measure(observer: &Observer<'_>, objects: &Objects) -> Result<Idle> {
    let creations = stream::iter(0..OPERATIONS)
        .map(|i| async move { objects.create(&format!("idle-{i}"), &spec(i)).await.map(|_| ()) });
    creations.buffer_unordered(CONCURRENCY).try_collect::<()>().await?;
    say("They are created; now they settle");
    settled(observer).await?;
    say("They have settled; now they are observed");
    let before = observer.observe().await?;
    sleep(SPAN).await;
    let spent = observer.observe().await?.since(&before);
    Ok(Idle {
        requests_per_s: spent.requests / SPAN.as_secs_f64(),
        rss_mib: observer.memory("VmRSS")?,
        peak_mib: observer.memory("VmHWM")?,
        cpu: spent.operator_cpu,
    })
}

fn spec(i: usize) -> Value {
    if i.is_multiple_of(2) {
        return json!({"steps": [{"name": "pause", "wait": {"duration": "24h"}}]});
    }
    let resource = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": format!("never-{i}")});
    json!({
        "serviceAccountName": "runner",
        "steps": [{"name": "ready", "kubernetes": {"wait": {"resource": resource, "until": "object.data.ready == 'true'"}}}],
    })
}

/// Returns when every operation waits, and the operator has stopped to send requests.
async fn settled(observer: &Observer<'_>) -> Result<()> {
    let started = Instant::now();
    let mut last = observer.observe().await?.requests;
    loop {
        sleep(QUIET).await;
        let now = observer.observe().await?.requests;
        let waiting = observer.operations("Waiting").await;
        if waiting == OPERATIONS && now == last {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err(format!(
                "{waiting} operations wait after {PATIENCE:?}, and {} requests came lately",
                now - last
            )
            .into());
        }
        last = now;
    }
}
