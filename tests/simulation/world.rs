//! A world of its own for a test: an API server, a service, operators, and a clock that stands still until all wait.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use holdfast::activities::callbacks::Callbacks;
use holdfast::activities::http::TargetPolicy;
use holdfast::api::{
    ActionState, CloudOperation, HistoryEvent, OperationAction, OperationHistory, OperationState, OperationTemplate,
    Time,
};
use holdfast::controllers::{Clock, Config, Environment, Health, run};
use holdfast_apiserver::{ApiServer, Fault, RequestInfo, seed_jitter};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::callbacks::Gateway;
use crate::deeds;
use crate::pause::Gate;
use crate::samples::Sample;
use crate::service::Service;

/// The namespace of every test.
pub const NAMESPACE: &str = "prod";
/// For how long leadership lasts.
pub const LEASE: Duration = Duration::from_secs(10);

/// How far a status may be ahead of the API server's clock: what a leader's clock may be off, and the second that the
/// header `Date`, by which it is compared, cuts off.
const MAX_AHEAD: Duration = Duration::from_secs(6);

/// When every world begins.
static BEGIN: LazyLock<Timestamp> = LazyLock::new(|| "2026-11-24T00:00:00Z".parse().unwrap());

/// A cluster as every world begins with. Made once: what takes longest of a short run are the schemas.
static EMPTY: LazyLock<ApiServer> = LazyLock::new(|| {
    let server = ApiServer::new(Arc::new(|| *BEGIN), 0);
    for crd in holdfast::api::crds() {
        server.register_crd(&serde_yaml::to_string(&crd).unwrap());
    }
    server.add_namespace(NAMESPACE);
    server.add_namespace("holdfast-system");
    server
});

pub struct World {
    pub server: ApiServer,
    pub service: Service,
    pub clock: SimulatedClock,
    operators: Vec<Option<Running>>,
    gates: Vec<Gate>,
    /// How many requests of operators came while they were unreliable.
    requests: Arc<watch::Sender<usize>>,
}

struct Running {
    task: JoinHandle<()>,
    shutdown: watch::Sender<bool>,
}

/// A wall clock that follows tokio's, and jumps when told to; and a boot clock that never does.
#[derive(Clone)]
pub struct SimulatedClock {
    start: Instant,
    offset_ms: Arc<AtomicI64>,
}

impl SimulatedClock {
    pub fn jump(&self, ms: i64) {
        self.offset_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Sets it right.
    pub fn correct(&self) {
        self.offset_ms.store(0, Ordering::Relaxed);
    }

    fn true_time(&self) -> Timestamp {
        BEGIN.checked_add(self.start.elapsed()).unwrap()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Time {
        let off = k8s_openapi::jiff::SignedDuration::from_millis(self.offset_ms.load(Ordering::Relaxed));
        Time::new(self.true_time() + off)
    }

    fn since_boot(&self) -> Duration {
        self.start.elapsed() + Duration::from_secs(1000)
    }
}

impl World {
    pub fn new(seed: u32) -> Self {
        seed_jitter(seed.into());
        let clock = SimulatedClock {
            start: Instant::now(),
            offset_ms: Arc::default(),
        };
        let time = clock.clone();
        let server = EMPTY.fork(Arc::new(move || time.true_time()), seed);
        let service = Service::new(server.clone());
        Self {
            server,
            service,
            clock,
            operators: vec![],
            gates: vec![],
            requests: Arc::default(),
        }
    }

    /// Lets so many percent of the operators' requests fail from now on, be late or lose their answers, as the seed says.
    pub fn set_unreliable(&self, seed: u64, percent: u8) {
        let (dice, requests) = (Mutex::new(fastrand::Rng::with_seed(seed)), self.requests.clone());
        self.server.set_faults(move |info| {
            if !of_operator(info) {
                return Fault::None;
            }
            requests.send_modify(|number| *number += 1);
            let mut dice = dice.lock().unwrap();
            if dice.u8(..100) >= percent {
                return Fault::None;
            }
            match dice.u8(..9) {
                0 => Fault::Fail {
                    code: 409,
                    retry_after: None,
                },
                1 => Fault::Fail {
                    code: 500,
                    retry_after: None,
                },
                2 => Fault::Fail {
                    code: 429,
                    retry_after: Some(Duration::from_secs(1)),
                },
                3 => Fault::RefuseConnection,
                4 | 5 => Fault::LoseAnswer,
                6 => Fault::Delay(Duration::from_millis(dice.u64(..20_000))),
                7 => Fault::FailAfterwards { code: 504 },
                _ => Fault::DelayAnswer(Duration::from_millis(dice.u64(..20_000))),
            }
        });
    }

    /// Waits for that request of an operator, from 1, since they are unreliable.
    pub async fn request(&self, number: usize) {
        let mut requests = self.requests.subscribe();
        requests.wait_for(|seen| *seen >= number).await.unwrap();
    }

    /// Starts another operator, and answers its number.
    pub fn start(&mut self) -> usize {
        self.start_with(self.clock.clone())
    }

    /// Starts an operator on a machine whose clock is so many milliseconds off, and answers its number and that clock.
    pub fn start_off(&mut self, ms: i64) -> (usize, SimulatedClock) {
        let clock = SimulatedClock {
            start: self.clock.start,
            offset_ms: Arc::new(AtomicI64::new(ms)),
        };
        (self.start_with(clock.clone()), clock)
    }

    fn start_with(&mut self, clock: SimulatedClock) -> usize {
        let number = self.operators.len();
        let config = Config {
            namespace: None,
            lease_namespace: "holdfast-system".into(),
            lease_duration: LEASE,
            shutdown_timeout: Duration::from_secs(25),
            targets: TargetPolicy {
                cluster_domain: "cluster.local".into(),
                allowed: vec![],
                never: vec![],
            },
            hold_all: false,
            host: format!("operator{number}"),
            address: Some(Gateway::address(number)),
        };
        let gate = Gate::default();
        let client = gate.client(self.server.connect(&format!("operator{number}")));
        let base = "http://holdfast.holdfast-system.svc:8080".parse().unwrap();
        let callbacks = Arc::new(Callbacks::new(client.clone(), "holdfast-system", Some(base)));
        let health = Arc::new(Health::default());
        let peers = Arc::new(self.service.gateway.clone());
        let router = holdfast::server::router(health.clone(), callbacks.clone(), peers);
        self.service.gateway.open(number, gate.router(router));
        let environment = Environment {
            client,
            clock: Arc::new(clock),
            transport: gate.transport(self.service.connection(number)),
            callbacks,
        };
        let (shutdown, asked) = watch::channel(false);
        let own = gate.clone();
        let task = tokio::spawn(async move { own.through(run(config, environment, health, asked)).await });
        self.operators.push(Some(Running { task, shutdown }));
        self.gates.push(gate);
        number
    }

    /// SIGSTOP: the operator stands still, until its gate is opened: SIGCONT. It does so in a moment in which all wait:
    /// who has asked for its claim has sent what it asked for.
    pub async fn pause(&self, number: usize) -> Gate {
        sleep(Duration::from_millis(1)).await;
        self.gates[number].close();
        self.gates[number].clone()
    }

    /// Those who stand still go on.
    pub fn resume_all(&self) {
        self.gates.iter().for_each(Gate::open);
    }

    /// SIGKILL: the operator's tasks are gone at once.
    pub async fn kill(&mut self, number: usize) {
        self.service.gateway.close(number);
        if let Some(running) = self.operators[number].take() {
            running.task.abort();
            let ended = running.task.await;
            assert!(
                ended.is_err_and(|e| e.is_cancelled()),
                "the operator had ended by itself"
            );
        }
    }

    /// SIGTERM: the operator ends by itself.
    pub async fn stop(&mut self, number: usize) {
        if let Some(running) = self.operators[number].take() {
            running.shutdown.send_replace(true);
            timeout(Duration::from_secs(60), running.task)
                .await
                .expect("it ends after SIGTERM")
                .unwrap();
            self.service.gateway.close(number);
        }
    }

    pub async fn kill_all(&mut self) {
        for number in 0..self.operators.len() {
            self.kill(number).await;
        }
    }

    /// Applies an operation, as a user does.
    pub async fn apply(&self, manifest: &Value) -> CloudOperation {
        let operation: CloudOperation = serde_json::from_value(manifest.clone()).unwrap();
        let api: Api<CloudOperation> = Api::namespaced(self.server.client("user"), NAMESPACE);
        api.create(&PostParams::default(), &operation).await.unwrap()
    }

    /// Asks something of an operation, as a person does. Asking the same again is asking once.
    pub async fn ask(&self, operation: &str, number: usize, what: &Value) {
        let mut spec = serde_json::json!({"operationRef": {"name": operation}, "requestedBy": {"user": "alice"}});
        spec.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        let mut action = OperationAction::new(&format!("{operation}-{number}"), serde_json::from_value(spec).unwrap());
        action.metadata.namespace = Some(NAMESPACE.into());
        let api: Api<OperationAction> = Api::namespaced(self.server.client("user"), NAMESPACE);
        match api.create(&PostParams::default(), &action).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// What came of everything that was asked, by the action's name.
    pub fn came_of_it(&self) -> Vec<(String, Option<ActionState>)> {
        let actions = self.server.list::<OperationAction>().into_iter();
        actions
            .map(|action| (action.name_any(), action.status.and_then(|status| status.state)))
            .collect()
    }

    /// Applies a sample, and before it the templates that it needs.
    pub async fn apply_sample(&self, sample: &Sample) -> CloudOperation {
        for (name, spec) in &sample.templates {
            self.put_template(name, spec);
        }
        self.apply(&sample.manifest).await
    }

    /// Creates or changes a template.
    pub fn put_template(&self, name: &str, spec: &Value) {
        let mut template = OperationTemplate::new(name, serde_json::from_value(spec.clone()).unwrap());
        template.metadata.namespace = Some(NAMESPACE.into());
        self.server.put(&template);
    }

    /// Deletes an object.
    pub async fn delete<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.server.client("user"), NAMESPACE);
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// What people read of an operation: the message of its condition `Succeeded`.
    pub fn message(&self, name: &str) -> String {
        let conditions = self.operation(name).status.unwrap_or_default().conditions;
        let succeeded = conditions.into_iter().find(|condition| condition.type_ == "Succeeded");
        succeeded.map(|condition| condition.message).unwrap_or_default()
    }

    /// Creates an operation from its text, as a client that checks nothing does.
    pub async fn post(&self, text: String) {
        let url = CloudOperation::url_path(&(), Some(NAMESPACE));
        let request = http::Request::post(url)
            .header("content-type", "application/json")
            .body(text.into_bytes());
        let created = self.server.client("user").request_text(request.unwrap()).await;
        created.unwrap();
    }

    pub fn operation(&self, name: &str) -> CloudOperation {
        self.server
            .get(NAMESPACE, name)
            .unwrap_or_else(|| panic!("{name} is gone"))
    }

    pub fn state(&self, name: &str) -> Option<OperationState> {
        self.operation(name).status.and_then(|status| status.state)
    }

    /// How many writes there were of an operation's status.
    pub fn writes_of(&self, name: &str) -> usize {
        let writes = self.server.writes().into_iter().map(|write| write.change);
        let of_it = writes.filter(|change| change.key.resource == "cloudoperations" && change.key.name == name);
        let status = |object: Option<&Value>| object.and_then(|object| object.get("status")).cloned();
        of_it
            .filter(|change| {
                let before = status(change.before.as_deref());
                change.before.is_some() && status(change.after.as_ref().map(|after| &*after.object)) != before
            })
            .count()
    }

    /// How often something was created and removed for a step, by step and kind.
    pub fn deeds(&self) -> BTreeMap<String, usize> {
        deeds::count(&self.server)
    }

    pub fn finished(&self, name: &str) -> bool {
        self.state(name).is_some_and(OperationState::is_finished)
    }

    /// Waits, in simulated time, until something is so.
    pub async fn until(&self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        for _ in 0..100_000 {
            if so(self) {
                return;
            }
            sleep(Duration::from_secs(2)).await;
        }
        let operations: Vec<_> = self
            .server
            .list::<CloudOperation>()
            .into_iter()
            .map(|o| o.status)
            .collect();
        panic!(
            "it never came true that {what}:\n{}",
            serde_yaml::to_string(&operations).unwrap()
        );
    }

    /// What must hold of every history: nothing was sent or changed without its intent, no attempt came from two processes,
    /// nothing was created twice, and no accepted write took back what an earlier one had recorded.
    pub fn check(&self) {
        assert_eq!(self.service.violations(), Vec::<String>::new());
        let sent = self.gates.iter().flat_map(Gate::sent);
        assert_eq!(sent.collect::<Vec<_>>(), Vec::<String>::new(), "sent in a pause");
        deeds::check(&self.server);
        let mut in_chunks = BTreeMap::new();
        // Also those that went with the end of an operation's time to live.
        let created = self.server.writes().into_iter().map(|write| write.change);
        let created = created.filter(|change| change.key.resource == "operationhistories" && change.before.is_none());
        for chunk in created.filter_map(|change| change.after) {
            let chunk: OperationHistory = serde_json::from_value(Value::clone(&chunk.object)).unwrap();
            let uid = chunk.spec.operation_ref.uid.clone();
            for entry in chunk.spec.entries {
                let known = in_chunks.insert((uid.clone(), entry.seq), entry);
                assert!(known.is_none(), "an entry is in two chunks: {known:?}");
            }
        }
        for write in self.server.writes() {
            if write.change.key.resource != "cloudoperations" {
                continue;
            }
            if let Some(last) =
                status(write.change.after.as_ref().map(|stored| &*stored.object)).and_then(|s| s.last_time)
            {
                let ahead = last.since(Time::new(write.time));
                assert!(
                    ahead <= MAX_AHEAD,
                    "{} is {ahead:?} ahead of its time",
                    write.change.key.name
                );
            }
            let (Some(before), Some(after)) = (
                status(write.change.before.as_deref()),
                status(write.change.after.as_ref().map(|stored| &*stored.object)),
            ) else {
                continue;
            };
            if after.compacted.is_some() {
                continue;
            }
            let uid = write
                .change
                .after
                .as_ref()
                .and_then(|stored| stored.object["metadata"]["uid"].as_str())
                .unwrap();
            for entry in &before.history {
                let kept = after.history.contains(entry) || in_chunks.get(&(uid.to_owned(), entry.seq)) == Some(entry);
                assert!(kept, "an entry of the history is lost: {entry:?}");
            }
            // A person may take back how a step ended; else what is closed stays, but for items, which are folded.
            let acted = |e: &holdfast::api::HistoryEntry| e.event == HistoryEvent::ActionApplied && e.seq > before.seq;
            let acted = after.history.iter().any(acted);
            for old in &before.steps {
                let Some(new) = after.steps.iter().find(|s| s.name == old.name) else {
                    assert!(
                        acted || old.name.contains('['),
                        "step {} was taken out of the journal",
                        old.name
                    );
                    continue;
                };
                assert!(
                    (new.epoch, new.attempt) >= (old.epoch, old.attempt),
                    "{} went back",
                    old.name
                );
                if old.state.is_closed() && !acted {
                    assert_eq!(old, new, "a closed step changed");
                }
            }
            assert!(
                after.seq >= before.seq && after.last_time >= before.last_time,
                "time or sequence went back"
            );
        }
    }
}

fn status(object: Option<&Value>) -> Option<holdfast::api::OperationStatus> {
    serde_json::from_value(object?.get("status")?.clone()).ok()
}

/// Which operator's connection a request came through, if any: it acts as itself, or as a service account, and then
/// `Service` tells.
pub fn of_operator(info: &RequestInfo) -> bool {
    info.user.starts_with("operator") || info.user.starts_with("system:serviceaccount:")
}

/// A fault that never answers: its sender is about to die.
pub fn dying(applied: bool) -> Fault {
    if applied {
        Fault::DelayAnswer(Duration::from_secs(1_000_000))
    } else {
        Fault::Hang
    }
}
