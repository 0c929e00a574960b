//! Callbacks over HTTP: `POST <url>/complete`, `/fail` and `/heartbeat`, at any replica.
//!
//! A replica that doesn't lead forwards to the one that does. An answer 2xx means that what was said is recorded; after any
//! other, or none, the other side calls again: 404 and 410 say that it need not.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::activities::Report;
use crate::activities::callbacks::{Callbacks, from_url};
use crate::controllers::{Call, Health, Refusal, Says};
use crate::engine::IdempotencyKey;

/// How large a callback's body may be, in bytes. Of a result, only what the step's `output` names is recorded.
pub const MAX_BODY: usize = 256 * 1024;
/// How many callbacks are taken at once: each may wait for a write.
const MAX_CALLS: usize = 256;
/// How long one may take, body and write and all.
const MAX_TIME: Duration = Duration::from_secs(30);
/// When a callback that could not be taken is to come again, in seconds.
const AGAIN: u32 = 2;
/// Marks what another replica forwarded: it is not forwarded again.
const FORWARDED: HeaderName = HeaderName::from_static("holdfast-forwarded");

/// How replicas call each other.
pub trait Peers: Send + Sync {
    /// Sends a request to the replica at this address, and answers what it answers.
    ///
    /// # Errors
    /// Says why there is no answer.
    fn send(&self, address: &str, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, String>>;
}

/// Replicas in one network, by plain HTTP, as probes and scrapes are.
pub struct Network(Client<HttpConnector, Full<Bytes>>);

impl Network {
    /// Nobody has been called yet.
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Peers for Network {
    fn send(&self, address: &str, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, String>> {
        let (mut head, body) = request.into_parts();
        let uri = format!("http://{address}{}", head.uri);
        let client = self.0.clone();
        async move {
            head.uri = uri.parse::<Uri>().map_err(|error| error.to_string())?;
            let request = Request::from_parts(head, Full::new(body));
            let answer = client.request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_BODY)
                .collect()
                .await
                .map_err(|error| error.to_string())?;
            Ok(Response::from_parts(head, body.to_bytes()))
        }
        .boxed()
    }
}

/// What the routes need.
#[derive(Clone)]
struct Desk {
    health: Arc<Health>,
    callbacks: Arc<Callbacks>,
    peers: Arc<dyn Peers>,
    places: Arc<Semaphore>,
}

/// The routes of callbacks.
pub fn router(health: Arc<Health>, callbacks: Arc<Callbacks>, peers: Arc<dyn Peers>) -> Router {
    let desk = Desk {
        health,
        callbacks,
        peers,
        places: Arc::new(Semaphore::new(MAX_CALLS)),
    };
    Router::new()
        .route(
            "/callbacks/v1/{namespace}/{operation}/{uid}/{step}/{epoch}/{run}/{verb}",
            post(take),
        )
        .with_state(desk)
}

/// The parts of a callback's path.
#[derive(Deserialize)]
struct Address {
    namespace: String,
    operation: String,
    uid: String,
    step: String,
    epoch: i64,
    run: i64,
    verb: String,
}

async fn take(State(desk): State<Desk>, Path(address): Path<Address>, request: Request) -> Response {
    let Ok(_place) = desk.places.try_acquire() else {
        return again("too many callbacks at once").into_response();
    };
    match timeout(MAX_TIME, desk.answer(address, request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(refused)) => refused.into_response(),
        Err(_) => again(&format!("it could not be recorded within {} s", MAX_TIME.as_secs())).into_response(),
    }
}

impl Desk {
    async fn answer(&self, address: Address, request: Request) -> Result<Response, Refused> {
        let (head, body) = request.into_parts();
        let token = bearer(&head.headers).ok_or_else(denied)?;
        let step = from_url(&address.step);
        let key = IdempotencyKey::new(&address.uid, &step, address.epoch);
        match self.callbacks.verify(&key, address.run, token).await {
            Ok(true) => {}
            Ok(false) => return Err(denied()),
            Err(error) => return Err(again(&error.to_string())),
        }
        let body = to_bytes(body, MAX_BODY).await.map_err(|_| {
            let message = format!("the body has more than {MAX_BODY} bytes, or did not arrive");
            refused(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", &message)
        })?;
        let says = says(&address.verb, &body)?;
        let Some(reception) = self.health.reception() else {
            return self.forward(&head, body).await;
        };
        let call = Call {
            namespace: address.namespace,
            operation: address.operation,
            uid: address.uid,
            step,
            epoch: address.epoch,
            run: address.run,
            token: token.to_owned(),
            says,
        };
        match reception.receive(call).await {
            Ok(state) => Ok(json_answer(StatusCode::OK, &json!({"state": state}))),
            Err(refusal) => {
                let message = refusal.to_string();
                Err(match refusal {
                    Refusal::Unknown(_) => refused(StatusCode::NOT_FOUND, "NotFound", &message),
                    Refusal::Closed(_) => refused(StatusCode::GONE, "Closed", &message),
                    Refusal::HeldUp(_) => again(&message),
                })
            }
        }
    }

    /// Hands a callback on to who leads.
    async fn forward(&self, head: &axum::http::request::Parts, body: Bytes) -> Result<Response, Refused> {
        let leader = self.health.leader().filter(|_| !head.headers.contains_key(FORWARDED));
        let Some(leader) = leader else {
            return Err(again("no replica leads"));
        };
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        for name in [AUTHORIZATION, CONTENT_TYPE] {
            if let Some(value) = head.headers.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        request
            .headers_mut()
            .insert(FORWARDED, HeaderValue::from_static("true"));
        let answer = self.peers.send(&leader, request).await;
        let (head, body) = answer
            .map_err(|error| again(&format!("the replica that leads does not answer: {error}")))?
            .into_parts();
        let mut answer = Response::new(Body::from(body));
        *answer.status_mut() = head.status;
        for name in [CONTENT_TYPE, RETRY_AFTER] {
            if let Some(value) = head.headers.get(&name) {
                answer.headers_mut().insert(name, value.clone());
            }
        }
        Ok(answer)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What a failure says.
#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    retryable: bool,
}

fn says(verb: &str, body: &[u8]) -> Result<Says, Refused> {
    let bad = |message: &str| refused(StatusCode::BAD_REQUEST, "BadRequest", message);
    let json = || match body.trim_ascii() {
        [] => Ok(Value::Null),
        text => serde_json::from_slice(text).map_err(|error| bad(&format!("the body is not JSON: {error}"))),
    };
    match verb {
        "complete" => Ok(Says::Ended(Report::Completed(json()?))),
        "heartbeat" => Ok(Says::Heartbeat(Some(json()?).filter(|details| !details.is_null()))),
        "fail" => {
            let body = Some(json()?)
                .filter(|body| !body.is_null())
                .unwrap_or_else(|| json!({}));
            let failure: Failure = serde_json::from_value(body)
                .map_err(|error| bad(&format!("the body is not {{reason, message, retryable}}: {error}")))?;
            let reason = failure.reason.unwrap_or_else(|| "Failed".into());
            let is_word = (1..=64).contains(&reason.len()) && reason.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if !is_word {
                return Err(bad(
                    "reason: a word of up to 64 letters and digits is needed, such as OutOfCapacity",
                ));
            }
            Ok(Says::Ended(Report::Failed {
                reason,
                message: failure.message.unwrap_or_default(),
                retryable: failure.retryable,
            }))
        }
        other => Err(refused(
            StatusCode::NOT_FOUND,
            "NotFound",
            &format!("there is no {other:?}: a callback ends in /complete, /fail or /heartbeat"),
        )),
    }
}

/// Why a callback was not taken, as it is answered.
struct Refused {
    status: StatusCode,
    /// A word for programs.
    reason: &'static str,
    message: String,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self {
            status,
            reason,
            message,
        } = self;
        let mut answer = json_answer(status, &json!({"reason": reason, "message": message}));
        match status {
            StatusCode::SERVICE_UNAVAILABLE => answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(AGAIN)),
            StatusCode::UNAUTHORIZED => answer
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            _ => None,
        };
        answer
    }
}

fn denied() -> Refused {
    let message = "Authorization: Bearer <the request's Holdfast-Callback-Token> is needed, of this step and run";
    refused(StatusCode::UNAUTHORIZED, "Unauthorized", message)
}

/// The callback counts, but not now.
fn again(message: &str) -> Refused {
    refused(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message)
}

fn refused(status: StatusCode, reason: &'static str, message: &str) -> Refused {
    Refused {
        status,
        reason,
        message: message.to_owned(),
    }
}

fn json_answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
