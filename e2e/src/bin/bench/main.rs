//! The benchmark: what the operator does beside what the API server itself can do, measured in one run.
//!
//! 1. Raw: how fast the same API server takes creations and status writes of the same object, from the same client.
//! 2. One operation alone, again and again; then 50 at once, and 500: three `http` steps each, to a server that does
//!    nothing.
//! 3. One operation of ten thousand steps; signals, one at a time.
//! 4. Ten thousand operations that wait: what they cost while nothing happens.
//! 5. Ten thousand that are queued in one namespace: what they cost the operations of another.
//!
//! Prints a table, and writes `target/bench.json` (or the path that is its argument).

mod closed_loop;
mod fairness;
mod idle;
mod objects;
mod observed;
mod one;
mod raw;
mod report;

use std::error::Error;
use std::time::{Duration, Instant};

use holdfast_e2e::kubectl::{apply, kubectl_with};
use holdfast_e2e::world::World;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use self::closed_loop::{Length, Noop, Run};
use self::objects::Objects;
use self::observed::{Observation, Observer};
use self::raw::Raw;
use self::report::Report;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// For how long the last part is waited for.
const PATIENCE: Duration = Duration::from_secs(240);
/// How many operations are run one after the other for their latency.
const ALONE: Length = Length {
    operations: 250,
    span: Duration::ZERO,
};
/// How many items a list has, and how many operations with one are run.
pub const LIST_ITEMS: usize = 1000;
const LISTS: Length = Length {
    operations: 2,
    span: Duration::ZERO,
};
/// For how long operations are run at once, in a round: as long as the raw rates that they are compared with.
const AT_ONCE: Length = Length {
    operations: 0,
    span: Duration::from_secs(20),
};
/// What is compared is measured in turns: a shared machine is not the same a minute later.
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() -> Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "target/bench.json".into());
    let (world, apart) = (World::new("bench").await, World::new("bench-raw").await);
    let flow_schemas = include_str!("flow_schemas.yaml").replace("NAMESPACE", &world.namespace);
    apply(&flow_schemas).await;
    let report = measure(&world, &apart).await;
    let removed = kubectl_with(&flow_schemas, &["delete", "-f", "-"]).await;
    if !removed.ok {
        return Err(removed.err.into());
    }
    let report = report?;
    report.print();
    std::fs::write(&path, report.json())?;
    println!("\nWritten to {path}");
    Ok(())
}

/// Measures all, in a namespace that the operator serves, and in one that is left alone.
async fn measure(world: &World, apart: &World) -> Result<Report> {
    let admin = client(kube::Config::infer().await?)?;
    let admin_client = admin.clone();
    let objects = Objects::new(admin.clone(), &world.namespace);
    let (raw_objects, raw_writer) = (
        Objects::new(admin.clone(), &apart.namespace),
        Objects::new(client(of(&apart.kubeconfig).await?)?, &apart.namespace),
    );
    let noop = Noop::start().await?;
    let spec = noop.spec();
    let operator = world.operator();
    let observer = Observer::new(admin.clone(), &world.namespace, &operator);

    say("One operation, to see what its status is in the end");
    closed_loop::run(
        &objects,
        &spec,
        "sample",
        1,
        Length {
            operations: 1,
            span: Duration::ZERO,
        },
    )
    .await?;
    let status = objects.status("sample-0").await?;
    objects.delete_all().await?;

    let (mut raw, mut alone, mut fifty, mut many, mut local) = (
        Raw::default(),
        Observed::default(),
        Observed::default(),
        Observed::default(),
        Observed::default(),
    );
    for round in 1..=ROUNDS {
        say(&format!("Round {round} of {ROUNDS}: the API server alone"));
        raw.round(&raw_objects, &raw_writer, &spec, &status).await?;
        if round == 1 {
            say("Operations, one at a time");
            alone.round(&observer, &objects, &spec, 1, ALONE).await?;
        }
        say("Operations, 50 at once");
        fifty.round(&observer, &objects, &spec, 50, AT_ONCE).await?;
        say("Operations of local steps, 50 at once");
        local
            .round(&observer, &objects, &noop.local_spec(), 50, AT_ONCE)
            .await?;
        say("Operations, 500 at once");
        many.round(&observer, &objects, &spec, 500, AT_ONCE).await?;
        say(&format!(
            "So far: raw {:.0} creations and {:.0} status writes a second; an operation alone takes {:.0?}; operations a second: {:.0} at 50, {:.0} at 500",
            raw.creates_per_s(),
            raw.status_writes_per_s(),
            alone.run.latency(0.5),
            fifty.run.per_s(),
            many.run.per_s()
        ));
    }
    say("Operations of one step with a list, one at a time");
    let mut list = Observed::default();
    list.round(&observer, &objects, &noop.list_spec(LIST_ITEMS), 1, LISTS)
        .await?;
    say("Signals, one at a time");
    let signals = one::signal_wakeups(&admin_client, &objects, &world.namespace).await?;
    say("One operation of ten thousand steps");
    let late_over_early = one::late_over_early(&objects, &noop).await?;
    operator.stop().await;
    say("Ten thousand operations that wait, under an operator of their own: what others needed is not theirs");
    let operator = world.operator();
    operator.leads().await;
    let idle = idle::measure(&Observer::new(admin, &world.namespace, &operator), &objects).await?;
    operator.stop().await;
    objects.delete_all().await?;
    say("A namespace beside another, which is alone at first");
    let kubeconfig = std::env::var("KUBECONFIG")?;
    let fairness = fairness::measure(&kubeconfig, &world.namespace, &objects, &raw_objects, &spec);
    // All else has been measured by now: it is not lost.
    let fairness = tokio::time::timeout(PATIENCE, fairness).await.ok().transpose()?;
    Ok(Report {
        status_bytes: status.to_string().len(),
        raw,
        alone,
        fifty,
        many,
        local,
        list,
        signals,
        late_over_early,
        idle,
        fairness,
    })
}

/// Runs of operations, with what they cost the operator and the API server.
#[derive(Default)]
pub struct Observed {
    run: Run,
    spent: Observation,
}

impl Observed {
    async fn round(
        &mut self,
        observer: &Observer<'_>,
        objects: &Objects,
        spec: &Value,
        at_once: usize,
        length: Length,
    ) -> Result<()> {
        let before = observer.observe().await?;
        let run = closed_loop::run(objects, spec, &format!("at-once-{at_once}"), at_once, length).await?;
        self.spent.add(&observer.observe().await?.since(&before));
        self.run.add(run);
        objects.delete_all().await
    }

    fn each(&self, spent: f64) -> f64 {
        spent / self.run.total() as f64
    }

    fn writes_per_operation(&self) -> f64 {
        self.each(self.spent.status_writes)
    }

    fn status_writes_per_s(&self) -> f64 {
        self.run.per_s() * self.writes_per_operation()
    }
}

/// A client that retries nothing by itself, as the operator's.
fn client(mut config: kube::Config) -> Result<Client> {
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

async fn of(kubeconfig: &str) -> Result<kube::Config> {
    Ok(kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default()).await?)
}

fn say(what: &str) {
    static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let seconds = STARTED.get_or_init(Instant::now).elapsed().as_secs();
    eprintln!("{seconds:>4} s  {what}");
}

/// The q-quantile of what was measured.
fn quantile(measured: &[Duration], q: f64) -> Duration {
    let mut sorted = measured.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((q * last as f64).round() as usize)
        .copied()
        .unwrap_or_default()
}
