//! One operation: what its ten thousandth step costs beside its tenth, and how soon a signal wakes it.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use holdfast::api::OperationAction;
use kube::api::{ListParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::closed_loop::Noop;
use super::objects::{CONCURRENCY, Objects};
use super::{Result, quantile};

/// How many steps the long one has, in lists of [`LIST`].
pub const STEPS: usize = 10_000;
const LIST: usize = 1_000;
/// Over how many steps a cost is measured.
const WINDOW: usize = 200;
/// How many signals are sent, one after the other.
const SIGNALS: usize = 100;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// What a step costs late in a long operation, over what one costs early in another like it, right after: a shared machine is
/// not the same five minutes later. Each step is a call of its own, after the one before.
pub async fn late_over_early(objects: &Objects, noop: &Noop) -> Result<f64> {
    let late = step(objects, noop, STEPS - WINDOW).await?;
    let early = step(objects, noop, 10).await?;
    Ok(late.as_secs_f64() / early.as_secs_f64())
}

/// The median cost of the steps from one on, of an operation of its own.
async fn step(objects: &Objects, noop: &Noop, from: usize) -> Result<Duration> {
    let before = noop.arrivals().len();
    objects.create("steps", &noop.long_spec(STEPS / LIST, LIST)).await?;
    let started = Instant::now();
    let arrivals = loop {
        let arrivals = noop.arrivals().split_off(before);
        if arrivals.len() >= from + WINDOW {
            break arrivals;
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("{} steps are not done after {PATIENCE:?}", from + WINDOW).into());
        }
        sleep(Duration::from_millis(500)).await;
    };
    objects.delete_all().await?;
    let window = &arrivals[from..from + WINDOW];
    let costs: Vec<Duration> = window.windows(2).map(|pair| pair[1] - pair[0]).collect();
    Ok(quantile(&costs, 0.5))
}

/// The time from the request that creates a signal to the watch event that says that the step which waited for it, and with
/// it the operation, has ended.
pub async fn signal_wakeups(client: &Client, objects: &Objects, namespace: &str) -> Result<Vec<Duration>> {
    let spec = json!({"steps": [{"name": "go", "signal": {}}]});
    let (spec, names) = (&spec, (0..SIGNALS).map(|i| format!("signal-{i}")));
    stream::iter(names.clone())
        .map(async |name| objects.create(&name, spec).await.map(|_| ()))
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>()
        .await?;
    let started = Instant::now();
    let waiting = ListParams::default().fields("status.state=Waiting");
    while objects.api().list(&waiting).await?.items.len() < SIGNALS {
        if started.elapsed() > PATIENCE {
            return Err("operations don't come to wait for a signal".into());
        }
        sleep(Duration::from_millis(200)).await;
    }
    let succeeded = watcher::Config::default().fields("status.state=Succeeded");
    let mut ended = pin!(watcher(objects.api(), succeeded).default_backoff().applied_objects());
    let actions: Api<OperationAction> = Api::namespaced(client.clone(), namespace);
    let mut wakeups = Vec::new();
    for name in names {
        let spec = serde_json::from_value(json!({"operationRef": {"name": name}, "signal": {"name": "go"}}))?;
        let action = OperationAction::new(&name, spec);
        let sent = Instant::now();
        let send = async { Result::Ok(actions.create(&PostParams::default(), &action).await.map(|_| ())?) };
        let end = async {
            while let Some(operation) = timeout(PATIENCE, ended.next()).await? {
                if operation.is_ok_and(|operation| operation.name_any() == name) {
                    break;
                }
            }
            Result::Ok(sent.elapsed())
        };
        wakeups.push(tokio::try_join!(send, end)?.1);
    }
    objects.delete_all().await?;
    Ok(wakeups)
}
