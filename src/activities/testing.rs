//! What the tests of activities share: an API server in the process, and an attempt that acts on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use holdfast_apiserver::{ApiServer, seed_jitter, tokio_clock};
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::clients::Clients;
use super::discovery::Discovery;
use super::{AttemptContext, Claim};
use crate::api::{self, CloudOperation};
use crate::engine::expression::Scope;
use crate::engine::{AttemptFailure, IdempotencyKey, Outcome};

/// A claim that a test takes away.
pub struct Leads(pub AtomicBool);

impl Claim for Leads {
    fn is_held(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// An API server, with an operation `deploy` in the namespace `prod` that acts as `releaser`.
pub struct Bench {
    pub server: ApiServer,
    pub clients: Clients,
    pub discovery: Discovery,
    pub leads: Arc<Leads>,
    /// The operation's uid.
    pub uid: String,
}

/// A cluster with the custom resources, made once.
static WITH_CRDS: LazyLock<ApiServer> = LazyLock::new(|| {
    let server = ApiServer::new(Arc::new(|| "2026-11-24T00:00:00Z".parse().unwrap()), 1);
    for crd in api::crds() {
        server.register_crd(&serde_yaml::to_string(&crd).unwrap());
    }
    server
});

/// A cluster with the custom resources, and nothing else.
pub fn empty() -> ApiServer {
    seed_jitter(1);
    let start = "2026-11-24T00:00:00Z".parse().unwrap();
    WITH_CRDS.fork(tokio_clock(start), 1)
}

impl Bench {
    pub fn new() -> Self {
        let server = empty();
        let operation = json!({"metadata": {"name": "deploy", "namespace": "prod"}, "spec": {"steps": []}});
        server.put::<CloudOperation>(&serde_json::from_value(operation).unwrap());
        let operation: CloudOperation = server.get("prod", "deploy").unwrap();
        let base = server.client("operator");
        Self {
            clients: Clients::new(base.clone(), None),
            discovery: Discovery::new(base),
            leads: Arc::new(Leads(AtomicBool::new(true))),
            server,
            uid: operation.metadata.uid.unwrap(),
        }
    }

    /// The first attempt of a step.
    pub fn context(&self, step: &str) -> AttemptContext {
        AttemptContext {
            claim: self.leads.clone(),
            key: IdempotencyKey::new(&self.uid, step, 0),
            operation_uid: self.uid.clone(),
            ..context_on(self.clients.as_service_account("prod", "releaser"), step)
        }
    }
}

/// An attempt that acts on this client.
pub fn context_on(kubernetes: kube::Client, step: &str) -> AttemptContext {
    AttemptContext {
        namespace: "prod".into(),
        operation: "deploy".into(),
        operation_uid: "u1".into(),
        service_account: "releaser".into(),
        step: step.into(),
        attempt: 1,
        key: IdempotencyKey::new("u1", step, 0),
        failures: 0,
        maybe_done: false,
        undoes: false,
        sensitive: false,
        writes_secret: false,
        result_counts: true,
        scope: Scope::default(),
        kubernetes,
        claim: Arc::new(Leads(AtomicBool::new(true))),
        target: None,
    }
}

/// A client whose every request is answered by a function.
pub fn answering(
    answer: impl Fn(Request<Body>) -> Result<Response<Body>, std::io::Error> + Send + Sync + 'static,
) -> kube::Client {
    let answer = Arc::new(answer);
    kube::Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let answer = answer.clone();
            async move { answer(request) }
        }),
        "prod",
    )
}

/// What the attempt was to do.
#[track_caller]
pub fn succeeded(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Succeeded { result, .. } => result,
        other => panic!("{other:?}"),
    }
}

/// Why it failed.
#[track_caller]
pub fn failed(outcome: Outcome) -> AttemptFailure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}
