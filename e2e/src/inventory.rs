//! A service to call: an inventory of server groups that honours idempotency keys, and misbehaves when asked to.
//!
//! - `GET /groups/{group}`: its size. `POST /groups/{group}/resize {"size": n}`: sets it, once a key; with `?ms=n` it
//!   answers so much later.
//! - `ANY /status/{code}?times=n&retryAfter=s`: answers with the code, the first n times a key (always without `times`), then
//!   with 200. With `Retry-After` if asked.
//! - `ANY /token/{token}`: an answer that is a secret, in its body and in a header.
//! - `ANY /bytes/{n}`: an answer of so many bytes.
//! - `ANY /slow/{ms}/...`: has its effect, then answers so much later.
//! - `ANY /gate/{name}`: has its effect, then answers once the test opens the gate.
//! - `POST /later/{what}`: takes work, answers 202, and calls back when the test says so ([`Inventory::call_back`]). With
//!   `?gate=name` it answers once the test opens that gate.
//! - `ANY /silent?times=n`: has its effect, then closes the connection without an answer, the first n times a key.
//! - `ANY /...`: what `Authorization` said.
//! - `GET /effects`: every effect, in order: `[{"key", "path", "body", "headers"}]`. One a key, however often it was sent.
//! - `GET /requests`: every request, in order, repeated ones too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// One request, as it came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Its `Idempotency-Key`.
    pub key: String,
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Its body.
    pub body: Value,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
}

#[derive(Default)]
struct Book {
    groups: HashMap<String, i64>,
    requests: Vec<Seen>,
    effects: Vec<Seen>,
    keys: HashSet<(String, String)>,
    abandoned: Vec<String>,
    open: HashSet<String>,
}

/// Notes that a request's sender is gone, unless it was answered before.
struct Unanswered {
    shared: Shared,
    path: Option<String>,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        lock(&self.shared).abandoned.extend(self.path.take());
    }
}

/// A running inventory. Stops when it is dropped.
pub struct Inventory {
    /// Where it listens: a free port on loopback.
    pub address: SocketAddr,
    scheme: &'static str,
    shared: Shared,
    task: AbortHandle,
}

type Shared = Arc<Mutex<Book>>;

impl Inventory {
    /// Starts one.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts one at an address.
    ///
    /// # Errors
    /// If it can't be had.
    pub async fn start_at(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self::serve(listener.local_addr()?, "http", listener))
    }

    /// Starts one that speaks TLS. Answers the certificate of its authority, too, which nobody else trusts.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start_secure() -> std::io::Result<(Self, String)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (listener, authority) = crate::secure::listener(listener);
        Ok((Self::serve(address, "https", listener), authority))
    }

    fn serve<L: axum::serve::Listener>(address: SocketAddr, scheme: &'static str, listener: L) -> Self
    where
        L::Addr: std::fmt::Debug,
    {
        let shared = Shared::default();
        let router = router(shared.clone());
        let task = tokio::spawn(async move {
            // Ends only with the test.
            let _ = axum::serve(listener, router).await;
        });
        Self {
            address,
            scheme,
            shared,
            task: task.abort_handle(),
        }
    }

    /// The address of a path in it.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Every request so far to paths that start so.
    pub fn requests(&self, path: &str) -> Vec<Seen> {
        let book = lock(&self.shared);
        book.requests
            .iter()
            .filter(|r| r.path.starts_with(path))
            .cloned()
            .collect()
    }

    /// Every slow path whose sender went away before it was answered.
    pub fn abandoned(&self) -> Vec<String> {
        lock(&self.shared).abandoned.clone()
    }

    /// Opens a gate: what waits at it is answered, and what comes later at once.
    pub fn open(&self, gate: &str) {
        lock(&self.shared).open.insert(gate.to_owned());
    }

    /// Calls back for the last request to a path: `verb` is complete, fail or heartbeat. Answers the status and the body; 0
    /// if there was no answer.
    ///
    /// # Panics
    /// If there was no such request.
    pub async fn call_back(&self, path: &str, verb: &str, body: &Value) -> (u16, Value) {
        let request = self.requests(path).pop().expect("there was such a request");
        let header = |name: &str| request.headers.get(name).expect("the request invites callbacks");
        let url = format!("{}/{verb}", header("holdfast-callback-url"));
        crate::replicas::post(&url, header("holdfast-callback-token"), &body.to_string()).await
    }

    /// Every effect so far of paths that start so: one a key.
    pub fn effects(&self, path: &str) -> Vec<Seen> {
        let book = lock(&self.shared);
        book.effects
            .iter()
            .filter(|r| r.path.starts_with(path))
            .cloned()
            .collect()
    }
}

impl Drop for Inventory {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Book> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/groups/{group}", get(group))
        .route("/groups/{group}/resize", post(resize))
        .route("/status/{code}", any(status))
        .route("/token/{token}", any(token))
        .route("/bytes/{count}", any(bytes))
        .route("/gate/{name}", any(gate))
        .route("/slow/{ms}", any(slow))
        .route("/slow/{ms}/{*rest}", any(slow))
        .route("/silent", any(silent))
        .route("/later/{what}", post(later))
        .route(
            "/effects",
            get(async |State(shared): State<Shared>| axum_json(&lock(&shared).effects)),
        )
        .route(
            "/requests",
            get(async |State(shared): State<Shared>| axum_json(&lock(&shared).requests)),
        )
        .fallback(any(anything))
        .with_state(shared)
}

fn axum_json(value: &impl Serialize) -> Response {
    let text = serde_json::to_string(value).unwrap_or_default();
    ([("content-type", "application/json")], text).into_response()
}

/// Writes a request down. Answers how many of its key came before it, and whether its effect is new.
fn note(shared: &Shared, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> (usize, bool) {
    let headers: BTreeMap<String, String> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let seen = Seen {
        key: headers.get("idempotency-key").cloned().unwrap_or_default(),
        method: method.to_string(),
        path: uri.path().to_owned(),
        body: serde_json::from_slice(body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned())),
        headers,
    };
    let mut book = lock(shared);
    let before = book
        .requests
        .iter()
        .filter(|r| r.key == seen.key && r.path == seen.path)
        .count();
    book.requests.push(seen.clone());
    let new = book.keys.insert((seen.key.clone(), seen.path.clone()));
    if new {
        book.effects.push(seen);
    }
    (before, new)
}

async fn anything(State(shared): State<Shared>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    note(&shared, &method, &uri, &headers, &body);
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
    axum_json(&json!({"ok": true, "authorization": authorization}))
}

async fn group(State(shared): State<Shared>, Path(group): Path<String>) -> Response {
    let size = lock(&shared).groups.get(&group).copied().unwrap_or(3);
    axum_json(&json!({"name": group, "size": size}))
}

#[derive(Deserialize)]
struct Delay {
    ms: Option<u64>,
}

async fn resize(
    State(shared): State<Shared>,
    Path(group): Path<String>,
    Query(Delay { ms }): Query<Delay>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (_, new) = note(&shared, &method, &uri, &headers, &body);
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(size) = asked.get("size").and_then(Value::as_i64) else {
        return (
            StatusCode::UNPROCESSABLE_ENTITY,
            [("content-type", "application/json")],
            json!({"message": "size is missing"}).to_string(),
        )
            .into_response();
    };
    if new {
        lock(&shared).groups.insert(group.clone(), size);
    }
    tokio::time::sleep(Duration::from_millis(ms.unwrap_or(0))).await;
    axum_json(&json!({"name": group, "size": size}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Times {
    times: Option<usize>,
    retry_after: Option<u64>,
}

async fn status(
    State(shared): State<Shared>,
    Path(code): Path<u16>,
    Query(Times { times, retry_after }): Query<Times>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (before, _) = note(&shared, &method, &uri, &headers, &body);
    if times.is_some_and(|times| before >= times) {
        return axum_json(&json!({"ok": true, "after": before}));
    }
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = axum_json(&json!({"message": format!("the inventory says {code}")}));
    *answer.status_mut() = code;
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert("retry-after", seconds.into());
    }
    answer
}

async fn token(
    State(shared): State<Shared>,
    Path(token): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    note(&shared, &method, &uri, &headers, &body);
    let secret = format!("secret-{token}");
    let answer = axum_json(&json!({"user": "svc", "token": secret}));
    ([("x-token", secret)], answer).into_response()
}

async fn bytes(Path(count): Path<usize>) -> String {
    "x".repeat(count)
}

async fn slow(
    State(shared): State<Shared>,
    Path(path): Path<BTreeMap<String, String>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    note(&shared, &method, &uri, &headers, &body);
    let mut unanswered = Unanswered {
        shared,
        path: Some(uri.path().to_owned()),
    };
    let ms = path.get("ms").and_then(|ms| ms.parse().ok()).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    unanswered.path = None;
    axum_json(&json!({"ok": true}))
}

async fn gate(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    note(&shared, &method, &uri, &headers, &body);
    let mut unanswered = Unanswered {
        shared: shared.clone(),
        path: Some(uri.path().to_owned()),
    };
    opened(&shared, &name).await;
    unanswered.path = None;
    axum_json(&json!({"ok": true}))
}

/// Waits until the test has opened a gate.
async fn opened(shared: &Shared, gate: &str) {
    while !lock(shared).open.contains(gate) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[derive(Deserialize)]
struct Gate {
    gate: Option<String>,
}

async fn later(
    State(shared): State<Shared>,
    Query(Gate { gate }): Query<Gate>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    note(&shared, &method, &uri, &headers, &body);
    if let Some(gate) = gate {
        opened(&shared, &gate).await;
    }
    StatusCode::ACCEPTED
}

async fn silent(
    State(shared): State<Shared>,
    Query(Times { times, .. }): Query<Times>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (before, _) = note(&shared, &method, &uri, &headers, &body);
    if times.is_some_and(|times| before >= times) {
        return axum_json(&json!({"ok": true}));
    }
    // A body that breaks off: the connection is closed before an answer can be read.
    let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("closed")) });
    Response::new(Body::from_stream(broken))
}
