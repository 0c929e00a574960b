//! The activity against real servers on loopback, by the real transport.

mod answers;
mod callbacks;
mod credentials;
mod network;
mod redirects;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::*;
use crate::activities::Claim;
use crate::api::Http;
use crate::engine::expression::Scope;
use crate::engine::{IdempotencyKey, RetryAdvice};

/// A server on loopback that remembers what it was asked. It ends with the test.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    uri: String,
    headers: HeaderMap,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Server {
    async fn answering(answer: impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let handler = move |request: Request| {
            let (answer, log) = (answer.clone(), log.clone());
            async move {
                let (head, body) = request.into_parts();
                let seen = Seen {
                    method: head.method,
                    uri: head.uri.to_string(),
                    headers: head.headers,
                    body: String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap(),
                };
                log.lock().unwrap().push(seen.clone());
                answer(&seen)
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await.unwrap() });
        Self { address, seen, task }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).unwrap()
}

fn json_answer(status: u16, body: &Value) -> Response {
    answer(status, &[("content-type", "application/json")], body.to_string())
}

/// A step's request, as its YAML would read.
fn step(request: Value) -> Http {
    serde_json::from_value(request).unwrap()
}

/// The situation in which a request is made.
struct Attempt {
    context: AttemptContext,
    targets: Targets,
    activity: HttpActivity,
}

impl Attempt {
    /// The first attempt of step `resize` of operation `prod/op`, on a laptop where loopback is allowed.
    fn first() -> Self {
        Self::with(Cluster::default())
    }

    fn with(cluster: Cluster) -> Self {
        let context = AttemptContext {
            namespace: "prod".into(),
            operation: "op".into(),
            operation_uid: "u1".into(),
            service_account: "releaser".into(),
            step: "resize".into(),
            attempt: 1,
            key: IdempotencyKey::new("u1", "resize", 0),
            failures: 0,
            maybe_done: false,
            undoes: false,
            sensitive: false,
            writes_secret: false,
            result_counts: true,
            scope: Scope::default(),
            kubernetes: cluster.client(),
            claim: Arc::new(Leader(true)),
            target: None,
        };
        Self {
            context,
            targets: targets(&["127.0.0.0/8"]),
            activity: HttpActivity::new(
                Arc::new(Wire::new()),
                Arc::new(Callbacks::new(Cluster::default().client(), "holdfast-system", None)),
            ),
        }
    }

    /// After an attempt whose outcome is unknown.
    fn after_an_unknown_one() -> Self {
        let mut attempt = Self::first();
        attempt.context.maybe_done = true;
        attempt
    }

    async fn run(&self, request: Value) -> Outcome {
        self.activity.run(&self.context, &step(request), &self.targets).await
    }

    async fn result(&self, request: Value) -> Value {
        match self.run(request).await {
            Outcome::Succeeded { result, .. } => result,
            other => panic!("not a success: {other:?}"),
        }
    }

    async fn failure(&self, request: Value) -> AttemptFailure {
        match self.run(request).await {
            Outcome::Failed(failure) => failure,
            other => panic!("not a failure: {other:?}"),
        }
    }
}

fn targets(allowed: &[&str]) -> Targets {
    let policy = TargetPolicy {
        cluster_domain: "cluster.local".into(),
        allowed: allowed.iter().map(|rule| rule.parse().unwrap()).collect(),
        never: Vec::new(),
    };
    Arc::new(policy).for_namespace("prod", None)
}

struct Leader(bool);

impl Claim for Leader {
    fn is_held(&self) -> bool {
        self.0
    }
}

/// Kubernetes, as far as the activity reads it: what it answers to which request (`GET /api/v1/...`).
#[derive(Default)]
struct Cluster {
    answers: BTreeMap<String, (StatusCode, Value)>,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Cluster {
    fn secret(self, name: &str, data: &[(&str, &str)]) -> Self {
        use base64::Engine as _;
        let encode = |value: &str| base64::engine::general_purpose::STANDARD.encode(value);
        let data: BTreeMap<_, _> = data.iter().map(|(key, value)| (*key, encode(value))).collect();
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data});
        self.answering(&format!("GET /api/v1/namespaces/prod/secrets/{name}"), 200, object)
    }

    fn answering(mut self, request: &str, status: u16, answer: Value) -> Self {
        self.answers
            .insert(request.to_owned(), (StatusCode::from_u16(status).unwrap(), answer));
        self
    }

    fn refusing(self, request: &str, code: u16, reason: &str, message: &str) -> Self {
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure",
            "message": message, "reason": reason, "code": code,
        });
        self.answering(request, code, status)
    }

    fn client(self) -> kube::Client {
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let asked = format!("{} {}", request.method(), request.uri().path());
            let (answers, seen) = (self.answers.clone(), self.seen.clone());
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                seen.lock().unwrap().push((asked.clone(), body));
                let not_found = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "not found"});
                let (status, body) = answers
                    .get(&asked)
                    .cloned()
                    .unwrap_or((StatusCode::NOT_FOUND, not_found));
                let response = Response::builder().status(status).body(Body::from(body.to_string()));
                Ok::<_, std::convert::Infallible>(response.unwrap())
            }
        });
        kube::Client::new(service, "prod")
    }
}
