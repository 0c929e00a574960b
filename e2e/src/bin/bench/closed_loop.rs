//! Operations in a closed loop: so many at once, the next one is created when a watch shows that one has succeeded.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::any;
use axum::serve::ListenerExt;
use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::objects::{CONCURRENCY, Objects};
use super::{Result, quantile};

/// How long it may take until one more operation succeeds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that answers everything at once. It ends with the benchmark.
pub struct Noop {
    address: SocketAddr,
    arrivals: Arc<Mutex<Vec<Instant>>>,
}

impl Noop {
    /// Starts it on a free port of loopback.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let listener = listener.tap_io(|connection| {
            // Without it an answer may wait for an acknowledgement, which is not what is measured.
            let _ = connection.set_nodelay(true);
        });
        let answer = || async { ([("content-type", "application/json")], r#"{"size": 3}"#) };
        let arrivals = Arc::<Mutex<Vec<Instant>>>::default();
        let seen = arrivals.clone();
        let step = move || {
            lock(&seen).push(Instant::now());
            answer()
        };
        let router = Router::new().route("/step/{n}", any(step)).fallback(any(answer));
        tokio::spawn(axum::serve(listener, router).into_future());
        Ok(Self { address, arrivals })
    }

    /// When calls of `/step/...` arrived.
    pub fn arrivals(&self) -> Vec<Instant> {
        lock(&self.arrivals).clone()
    }

    /// So many lists of so many items each, all one after the other: each is a call that is counted.
    pub fn long_spec(&self, lists: usize, items: usize) -> Value {
        let url = format!("http://{}/step/${{string(item)}}", self.address);
        let step = |n| json!({"name": format!("list{n}"), "forEach": format!("lists.range({items})"), "maxParallel": 1, "http": {"method": "POST", "url": url}});
        json!({"steps": (0..lists).map(step).collect::<Vec<_>>()})
    }

    fn url(&self) -> String {
        format!("http://{}/groups/web", self.address)
    }

    /// Three steps, one after the other, that call it.
    pub fn spec(&self) -> Value {
        let url = self.url();
        json!({"steps": [
            {"name": "describe", "http": {"method": "GET", "url": url}, "output": {"size": "${result.body.size}"}},
            {"name": "resize", "http": {"method": "POST", "url": format!("{url}/resize"), "body": {"size": "${steps.describe.output.size + 1}"}}},
            {"name": "verify", "http": {"method": "GET", "url": url}, "output": {"size": "${result.body.size}"}},
        ]})
    }

    /// The same three, as local steps.
    pub fn local_spec(&self) -> Value {
        let mut spec = self.spec();
        for step in spec["steps"].as_array_mut().into_iter().flatten() {
            step["local"] = json!(true);
        }
        spec
    }

    /// One step that calls it for each of so many items, 50 at once.
    pub fn list_spec(&self, items: usize) -> Value {
        let url = format!("{}/${{string(item)}}", self.url());
        json!({"steps": [
            {"name": "call", "forEach": format!("lists.range({items})"), "maxParallel": 50, "http": {"method": "POST", "url": url}},
        ]})
    }
}

/// What a closed loop measured.
#[derive(Default)]
pub struct Run {
    /// How many operations succeeded while as many as wanted were under way, and how long that was.
    steady: (usize, Duration),
    latencies: Vec<Duration>,
}

impl Run {
    /// Operations a second, while as many as wanted were under way.
    pub fn per_s(&self) -> f64 {
        self.steady.0 as f64 / self.steady.1.as_secs_f64()
    }

    /// How many operations there were.
    pub fn total(&self) -> usize {
        self.latencies.len()
    }

    /// A quantile of the time from the request that creates an operation to the watch event that says it succeeded.
    pub fn latency(&self, q: f64) -> Duration {
        quantile(&self.latencies, q)
    }

    /// Takes in another run.
    pub fn add(&mut self, other: Self) {
        self.steady = (self.steady.0 + other.steady.0, self.steady.1 + other.steady.1);
        self.latencies.extend(other.latencies);
    }
}

/// When a closed loop ends: once the first `at_once` operations have succeeded, so many more must, and so much time must
/// pass.
#[derive(Clone, Copy)]
pub struct Length {
    /// Operations.
    pub operations: usize,
    /// Time.
    pub span: Duration,
}

/// Runs operations, `at_once` of them at any time.
pub async fn run(objects: &Objects, spec: &Value, name: &str, at_once: usize, length: Length) -> Result<Run> {
    let slots = Semaphore::new(at_once);
    let under_way: Mutex<HashMap<String, Instant>> = Mutex::default();
    // Each slot lets one be created; the slots are closed when enough have been run.
    let names = stream::unfold(0, |i| {
        let (slots, under_way) = (&slots, &under_way);
        async move {
            slots.acquire().await.ok()?.forget();
            let name = format!("{name}-{i}");
            lock(under_way).insert(name.clone(), Instant::now());
            Some((Ok(name), i + 1))
        }
    });
    let creator =
        names.try_for_each_concurrent(CONCURRENCY, async |name| objects.create(&name, spec).await.map(|_| ()));
    let finisher = async {
        let succeeded = watcher::Config::default().fields("status.state=Succeeded");
        let mut events = pin!(watcher(objects.api(), succeeded).default_backoff());
        let mut run = Run::default();
        let mut full_since = None;
        while !slots.is_closed() || !lock(&under_way).is_empty() {
            let event = timeout(PATIENCE, events.next()).await.map_err(|_| {
                let stuck = lock(&under_way).keys().next().cloned().unwrap_or_default();
                format!("no operation succeeded for {PATIENCE:?}: see {stuck}")
            })?;
            // Anything else, an interruption too, is followed by what was missed.
            let Some(Ok(watcher::Event::Apply(operation) | watcher::Event::InitApply(operation))) = event else {
                continue;
            };
            let Some(started) = lock(&under_way).remove(&operation.name_any()) else {
                continue;
            };
            run.latencies.push(started.elapsed());
            if slots.is_closed() {
                continue;
            }
            if run.latencies.len() >= at_once {
                let since = *full_since.get_or_insert_with(Instant::now);
                run.steady = (run.latencies.len() - at_once, since.elapsed());
            }
            // Turns are fair, so operations come in waves of `at_once`: only whole ones are counted.
            let whole = run.steady.0.is_multiple_of(at_once);
            if whole && run.steady.0 >= length.operations.max(at_once) && run.steady.1 >= length.span {
                slots.close();
            }
            slots.add_permits(1);
        }
        Result::Ok(run)
    };
    let ((), run) = tokio::try_join!(creator, finisher)?;
    Ok(run)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
