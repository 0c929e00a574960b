//! The operator as a whole: it waits for its CRD, seeks leadership, and while it leads, runs the controller. What a term
//! of leadership starts ends with it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::actions::Actions;
use super::admission::Admission;
use super::cached::Cached;
use super::callbacks::Reception;
use super::clock::Clock;
use super::cloud_operation::{Context, Workflows, on_error, reconcile};
use super::depth;
use super::events::Events;
use super::executor::{EndOfTerm, Executor};
use super::histories::Histories;
use super::journal::Journal;
use super::leadership::{Candidate, Leadership};
use super::metrics::Metrics;
use super::namespaces::Namespaces;
use super::operation_schedule;
use super::queue::Queue;
use super::restore::Restore;
use super::templates::Templates;
use super::turns::Turns;
use crate::activities::Activities;
use crate::activities::callbacks::Callbacks;
use crate::activities::clients::ServiceAccount;
use crate::activities::http::{TargetPolicy, Transport};
use crate::api::{OperationState, schema_number, schema_numbers};

/// How many operations are decided on, and so how many statuses are written, at once: about as many as an API server
/// takes before they only wait for each other. The controller has no limit of its own: each pass waits for its turn.
const CONCURRENCY: usize = 16;

/// How the operator is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The namespace that is served; all if absent.
    pub namespace: Option<String>,
    /// The namespace of the Lease.
    pub lease_namespace: String,
    /// For how long leadership lasts after a renewal.
    pub lease_duration: Duration,
    /// How long attempts that are under way may take to end when the operator is stopped.
    pub shutdown_timeout: Duration,
    /// What `http` steps may call, whatever their namespace says.
    pub targets: TargetPolicy,
    /// Holds every operation: for a look after a restore.
    pub hold_all: bool,
    /// The name of this process, for people: its Pod's or host's.
    pub host: String,
    /// Where this process takes callbacks that others forward to it while it leads: its address and port.
    pub address: Option<String>,
}

/// What the operator runs on: a cluster and a machine, or a simulation of them.
#[derive(Clone)]
pub struct Environment {
    /// The operator's own access to the API server. Its own retries are off.
    pub client: Client,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// What `http` steps call through.
    pub transport: Arc<dyn Transport>,
    /// How callbacks are invited.
    pub callbacks: Arc<Callbacks>,
}

/// What health checks, metrics and callbacks find of a running operator.
#[derive(Default)]
pub struct Health {
    ready: AtomicBool,
    metrics: Arc<Metrics>,
    term: Mutex<Option<Term>>,
    leader: Arc<watch::Sender<Option<String>>>,
}

struct Term {
    reception: Arc<Reception>,
    store: Store<Cached>,
    executor: Arc<Executor>,
}

impl Health {
    /// True once the operator can serve: it leads, or stands by to.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Who takes callbacks: if this process leads.
    pub fn reception(&self) -> Option<Arc<Reception>> {
        let term = self.term.lock().unwrap_or_else(PoisonError::into_inner);
        term.as_ref().map(|term| term.reception.clone())
    }

    /// Where the process takes callbacks that leads, if another does.
    pub fn leader(&self) -> Option<String> {
        self.leader.borrow().clone()
    }

    /// Every metric, as Prometheus reads them.
    pub fn metrics(&self) -> String {
        let term = self.term.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(term) = &*term else {
            return self.metrics.print([], 0, 0);
        };
        let states = term.store.state().into_iter().map(|operation| operation.state());
        let states: Vec<Option<OperationState>> = states.collect();
        self.metrics
            .print(states, term.executor.unrecorded(), term.executor.under_way())
    }

    fn set_term(&self, term: Option<Term>) {
        self.metrics.set_leading(term.is_some());
        *self.term.lock().unwrap_or_else(PoisonError::into_inner) = term;
    }
}

/// What is known through all terms of a process.
struct Process {
    /// The service account that it runs as, if it runs as one.
    own_account: Option<ServiceAccount>,
    /// What it has seen of the store's past.
    restore: Arc<Restore>,
}

/// Runs the operator until `shutdown` turns true: then it starts nothing more, lets attempts end, and hands over.
pub async fn run(config: Config, environment: Environment, health: Arc<Health>, shutdown: watch::Receiver<bool>) {
    let environment = Environment {
        client: depth::guarded(environment.client),
        ..environment
    };
    tokio::select! {
        biased;
        () = crds_are_current(&environment.client) => {}
        () = stop(shutdown.clone()) => return,
    }
    let own_account = tokio::select! {
        biased;
        account = own_account(&environment.client) => account,
        () = stop(shutdown.clone()) => return,
    };
    health.ready.store(true, Ordering::Relaxed);
    let process = Process {
        own_account,
        restore: Arc::default(),
    };
    while !*shutdown.borrow() {
        let identity = format!("{}_{}", config.host, &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let candidate = Candidate {
            client: environment.client.clone(),
            namespace: config.lease_namespace.clone(),
            identity: identity.clone(),
            duration: config.lease_duration,
            clock: environment.clock.clone(),
            address: config.address.clone(),
            leader: health.leader.clone(),
            restore: process.restore.clone(),
        };
        let leadership = tokio::select! {
            biased;
            leadership = candidate.acquire() => leadership,
            () = stop(shutdown.clone()) => return,
        };
        tokio::select! {
            biased; // so that a run of the simulation repeats
            // The term ends by itself only when it was asked to stop; nothing of it is under way any more.
            () = term(&config, &environment, &health, &identity, &process, leadership.clone(), shutdown.clone()) => {
                leadership.give_up();
            }
            () = candidate.keep(&leadership) => warn!("everything under way is aborted: another process takes over"),
        }
        health.set_term(None);
        candidate.release().await; // nothing of the term is under way any more
    }
}

/// Returns once the process is asked to end.
async fn stop(mut shutdown: watch::Receiver<bool>) {
    // An error means that nobody can ask any more: then it never is asked.
    if shutdown.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until the cluster's CRDs are at least as new as the operator: a status that the API server would prune is not a
/// journal.
async fn crds_are_current(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (name, wanted) in schema_numbers() {
        loop {
            match timeout(Duration::from_secs(10), api.get_metadata(name)).await {
                Ok(Ok(crd)) if schema_number(&crd.metadata) >= *wanted => break,
                Ok(Ok(crd)) => warn!(
                    crd = name,
                    found = schema_number(&crd.metadata),
                    wanted,
                    "the CRD is older than the operator: apply the CRDs of this version"
                ),
                Ok(Err(error)) => warn!(crd = name, %error, "the CRD can't be read: is it installed?"),
                Err(_) => warn!(crd = name, "the API server does not answer"),
            }
            sleep(Duration::from_secs(2)).await;
        }
    }
}

/// The service account that this process runs as, if it runs as one: no operation may act as it.
async fn own_account(client: &Client) -> Option<ServiceAccount> {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    loop {
        let review = SelfSubjectReview::default();
        match timeout(Duration::from_secs(10), reviews.create(&PostParams::default(), &review)).await {
            Ok(Ok(review)) => {
                let user = review
                    .status
                    .and_then(|status| status.user_info)
                    .and_then(|user| user.username);
                let account = user
                    .as_deref()
                    .and_then(|user| user.strip_prefix("system:serviceaccount:"));
                return account
                    .and_then(|account| account.split_once(':'))
                    .map(|(namespace, name)| ServiceAccount {
                        namespace: namespace.into(),
                        name: name.into(),
                    });
            }
            // Before Kubernetes 1.28 the API server can't be asked.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return None,
            Ok(Err(error)) => warn!(%error, "the API server doesn't say as whom this process runs"),
            Err(_) => warn!("the API server does not answer"),
        }
        sleep(Duration::from_secs(2)).await;
    }
}

/// One term of leadership.
async fn term(
    config: &Config,
    environment: &Environment,
    health: &Health,
    runner: &str,
    process: &Process,
    claim: Arc<Leadership>,
    shutdown: watch::Receiver<bool>,
) {
    let Environment {
        client,
        transport,
        callbacks,
        ..
    } = environment;
    let clock: Arc<dyn Clock> = claim.clone(); // the machine's may jump
    let metrics = health.metrics.clone();
    let Process { own_account, restore } = process;
    let held = restore.is_held();
    let namespaces = Arc::new(Namespaces::new(clock.clone(), config.hold_all || held));
    let activities = Activities::new(
        client.clone(),
        own_account.clone(),
        transport.clone(),
        config.targets.clone(),
        callbacks.clone(),
    );
    let queue = Arc::new(Queue::default());
    let (trigger, triggered) = futures::channel::mpsc::unbounded::<ObjectRef<Cached>>();
    let (store, writer) = reflector::store();
    let executor = Arc::new(Executor::new(
        Arc::new(activities),
        claim.clone(),
        namespaces.clone(),
        metrics.clone(),
        trigger.clone(),
        store.clone(),
    ));
    let _end = EndOfTerm(executor.clone());
    let (events, write_events) = Events::new(client.clone(), runner, metrics.clone());
    let journal = Arc::new(Journal::new(client.clone(), runner));
    let (drain, draining) = watch::channel(false);
    // Nothing is under way before all is known that decisions need: so an end in between needs no patience.
    let actions = tokio::select! {
        biased;
        actions = Actions::new(client.clone(), clock.clone()) => Arc::new(actions),
        () = stop(shutdown.clone()) => return,
    };
    let context = Arc::new(Context {
        client: client.clone(),
        clock: clock.clone(),
        claim: claim.clone(),
        journal: journal.clone(),
        executor: executor.clone(),
        namespaces: namespaces.clone(),
        events: events.clone(),
        metrics: metrics.clone(),
        runner: runner.to_owned(),
        draining: draining.clone(),
        workflows: Workflows::default(),
        templates: Templates::new(client.clone()),
        actions: actions.clone(),
        histories: Histories::new(client.clone()),
        turns: Turns::new(CONCURRENCY),
        admission: Admission::new(client.clone(), journal, queue.clone(), trigger.clone()),
    });

    let api: Api<Cached> = config
        .namespace
        .as_deref()
        .map_or_else(|| Api::all(client.clone()), |ns| Api::namespaced(client.clone(), ns));
    let (schedules, schedule_writer) = reflector::store();
    let (schedule_trigger, schedule_triggered) = futures::channel::mpsc::unbounded();
    let (listed, operations_listed) = watch::channel(false);
    let schedule_context = Arc::new(operation_schedule::Context {
        client: client.clone(),
        clock: clock.clone(),
        claim: claim.clone(),
        namespaces: namespaces.clone(),
        events,
        metrics,
        operations: store.clone(),
        operations_listed,
        draining,
    });
    let went_back = {
        let restore = restore.clone();
        move |which: &str| {
            restore.went_back(which);
            claim.give_up();
        }
    };
    let reflected = watcher(api, watcher::Config::default())
        .default_backoff()
        .reflect(writer);
    let reflected = operation_schedule::wake_owners(reflected, schedules.clone(), schedule_trigger.clone(), listed);
    let stand_in_line = {
        let (queue, namespaces, trigger, store) = (queue.clone(), namespaces.clone(), trigger.clone(), store.clone());
        move |event: &watcher::Event<Cached>| {
            let woken = match event {
                watcher::Event::Apply(operation) | watcher::Event::InitApply(operation) => {
                    let namespace = operation.namespace().unwrap_or_default();
                    queue.see(operation, namespaces.max_operations(&namespace).is_some())
                }
                watcher::Event::Delete(operation) => queue.leave(&operation.uid().unwrap_or_default()),
                watcher::Event::InitDone => queue.keep(&uids(&store)),
                watcher::Event::Init => vec![],
            };
            for operation in woken {
                // Fails only once the controller has ended, and this with it.
                let _ = trigger.unbounded_send(operation);
            }
        }
    };
    let (left, left_behind) = futures::channel::mpsc::unbounded();
    let look_after = {
        let actions = actions.clone();
        move |event: &watcher::Event<Cached>| {
            for operation in actions.left_behind(event) {
                let _ = left.unbounded_send(operation); // as above
            }
        }
    };
    let reflected = reflected.inspect_ok(stand_in_line).inspect_ok(look_after);
    let watched = operations(reflected, store.clone(), executor.clone(), went_back);
    let schedule_api: Api<operation_schedule::Known> = config
        .namespace
        .as_deref()
        .map_or_else(|| Api::all(client.clone()), |ns| Api::namespaced(client.clone(), ns));
    let watched_schedules = watcher(schedule_api, watcher::Config::default())
        .default_backoff()
        .reflect(schedule_writer)
        .inspect_err(|error| warn!(%error, "the watch of OperationSchedules was interrupted"))
        .applied_objects();
    health.set_term(Some(Term {
        reception: Arc::new(Reception::new(context.clone(), store.clone())),
        store: store.clone(),
        executor: executor.clone(),
    }));

    // Namespaces first: an operation in a held one must not be looked at before that is known.
    let followed = namespaces
        .clone()
        .follow(client.clone(), config.namespace.as_deref())
        .inspect_err(|error| warn!(%error, "the namespaces can't be watched: operations wait"));
    let mut followed = Box::pin(followed.filter_map(async |name| name.ok()));
    let all_known = async {
        while let Some(name) = followed.next().await {
            if name.is_empty() {
                break;
            }
        }
    };
    tokio::select! {
        biased;
        () = all_known => {}
        () = stop(shutdown.clone()) => return,
    }
    let wake = |namespace: Option<&str>| {
        for operation in store.state() {
            if namespace.is_none_or(|namespace| operation.namespace().as_deref() == Some(namespace)) {
                let of = operation.namespace().unwrap_or_default();
                queue.see(&operation, namespaces.max_operations(&of).is_some());
                // Fails only once the controller has ended, and this with it.
                let _ = trigger.unbounded_send(ObjectRef::from_obj(&*operation));
            }
        }
        for schedule in schedules.state() {
            if namespace.is_none_or(|namespace| schedule.namespace().as_deref() == Some(namespace)) {
                let _ = schedule_trigger.unbounded_send(ObjectRef::from_obj(&*schedule));
            }
        }
    };
    let wake_namespaces = async {
        while let Some(name) = followed.next().await {
            wake(Some(&name));
        }
    };
    let follow_actions = actions
        .clone()
        .follow(config.namespace.as_deref())
        .inspect_err(|error| warn!(%error, "the watch of OperationActions was interrupted"))
        .filter_map(async |operation| operation.ok());
    let follow_actions =
        futures::stream::select(follow_actions, left_behind).for_each_concurrent(None, async |operation| {
            // Fails only once the controller has ended, and this with it.
            let _ = trigger.unbounded_send(operation.clone());
            if store.get(&operation).is_none() {
                actions.reject_unless_exists(operation).await;
            }
        });
    let follow_hold = async {
        let mut was = held;
        loop {
            restore.changed(was).await;
            was = !was;
            namespaces.hold_all(was || config.hold_all);
            wake(None);
        }
    };

    let controller = Controller::for_stream(watched, store.clone())
        .reconcile_on(triggered)
        .run(reconcile, on_error, context)
        .for_each(async |result| {
            if let Err(error) = result
                && !matches!(error, controller::Error::ObjectNotFound(_))
            {
                tracing::debug!(%error, "controller");
            }
        });
    let schedule_controller = Controller::for_stream(watched_schedules, schedules.clone())
        .reconcile_on(schedule_triggered)
        .run(
            operation_schedule::reconcile,
            operation_schedule::on_error,
            schedule_context,
        )
        .for_each(async |result| {
            if let Err(error) = result
                && !matches!(error, controller::Error::ObjectNotFound(_))
            {
                tracing::debug!(%error, "controller of schedules");
            }
        });
    info!(runner, namespace = config.namespace, "serving operations");
    let stopped = async {
        stop(shutdown).await;
        drain.send_replace(true);
        let patience = config.shutdown_timeout;
        info!(
            under_way = executor.under_way(),
            ?patience,
            "shutting down: nothing more is started"
        );
        let finished = async {
            while executor.under_way() + executor.unrecorded() > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(patience, finished).await.is_err() {
            warn!(under_way = executor.under_way(), "attempts are left to the next leader");
        }
    };
    pin_mut!(stopped);
    let controller = actions.are_known().then(|()| controller);
    tokio::select! {
        biased; // so that a run of the simulation repeats
        () = controller => warn!("the controller ended by itself"),
        () = schedule_controller => warn!("the controller of schedules ended by itself"),
        () = write_events => {}
        () = wake_namespaces.then(|()| std::future::pending()) => {}
        () = follow_hold => {}
        () = follow_actions => {}
        () = stopped => {}
    }
}

fn uids(store: &Store<Cached>) -> HashSet<String> {
    store.state().iter().filter_map(|operation| operation.uid()).collect()
}

/// The stream of operations that feeds the cache, and drops the work of those that are gone. Says so where an operation
/// comes back as it was before.
fn operations(
    reflected: impl futures::Stream<Item = Result<watcher::Event<Cached>, watcher::Error>> + Send + 'static,
    store: Store<Cached>,
    executor: Arc<Executor>,
    went_back: impl Fn(&str) + Send + 'static,
) -> impl futures::Stream<Item = Result<Cached, watcher::Error>> + Send + 'static {
    reflected
        .inspect(move |event| match event {
            Ok(watcher::Event::Delete(operation)) => executor.forget(&operation.uid().unwrap_or_default()),
            Ok(watcher::Event::InitDone) => {
                executor.forget_all_but(&uids(&store));
            }
            Ok(watcher::Event::InitApply(operation)) => {
                let known = store
                    .get(&ObjectRef::from_obj(operation))
                    .map_or(0, |known| known.version());
                if operation.version() < known {
                    let name = format!("{}/{}", operation.namespace().unwrap_or_default(), operation.name_any());
                    went_back(&format!("{name}'s from {known} to {}", operation.version()));
                }
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "the watch of operations was interrupted"),
        })
        .touched_objects()
}
