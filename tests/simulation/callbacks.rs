//! Work that the service does later: it calls back, until it is answered that this is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use holdfast::activities::http::WireRequest;
use holdfast::server::callbacks::Peers;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

/// What goes wrong with a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackFault {
    None,
    /// It never arrives: who would have taken it dies.
    DieBefore,
    /// It is taken; its answer is lost, and who took it dies.
    DieAfter,
}

type FaultHook = Box<dyn Fn(usize) -> CallbackFault + Send>;

/// The way to the operators' servers, and the work for which callbacks are awaited.
#[derive(Clone, Default)]
pub struct Gateway {
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    open: BTreeMap<usize, Router>,
    faults: Option<FaultHook>,
    calls: usize,
    /// The keys of the work that was begun, and how often it was.
    begun: BTreeMap<String, usize>,
    under_way: BTreeSet<String>,
    /// Every answer that arrived.
    answers: Vec<(StatusCode, Value)>,
}

/// Where the other side of a request is to call back.
#[derive(Clone)]
pub struct Invitation {
    pub key: String,
    pub url: String,
    pub token: String,
}

impl Invitation {
    pub fn of(request: &WireRequest) -> Self {
        let header = |name: &str| {
            let value = request.headers.get(name).and_then(|value| value.to_str().ok());
            value
                .unwrap_or_else(|| panic!("a request with async has {name}"))
                .to_owned()
        };
        Self {
            key: header("idempotency-key"),
            url: header("holdfast-callback-url"),
            token: header("holdfast-callback-token"),
        }
    }
}

impl Gateway {
    pub fn address(number: usize) -> String {
        format!("operator{number}:8080")
    }

    pub fn open(&self, number: usize, router: Router) {
        self.lock().open.insert(number, router);
    }

    pub fn close(&self, number: usize) {
        self.lock().open.remove(&number);
    }

    /// Decides, from now on, what goes wrong with callback number n (from 1).
    pub fn set_faults(&self, faults: impl Fn(usize) -> CallbackFault + Send + 'static) {
        self.lock().faults = Some(Box::new(faults));
    }

    /// How many callbacks were sent.
    pub fn calls(&self) -> usize {
        self.lock().calls
    }

    /// How many pieces of work were begun more than once.
    pub fn repeated(&self) -> usize {
        self.lock().begun.values().filter(|times| **times > 1).count()
    }

    /// Every answer to a callback that arrived.
    pub fn answers(&self) -> Vec<(StatusCode, Value)> {
        self.lock().answers.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes work, which is done two seconds later, and then reported; once for each key, but it is reported again if it
    /// is asked for again.
    pub fn work(&self, request: &WireRequest) {
        let invitation = Invitation::of(request);
        let gateway = self.clone();
        if self.lock().under_way.insert(invitation.key.clone()) {
            self.begin(&invitation.key);
            tokio::spawn(async move {
                sleep(Duration::from_secs(2)).await;
                gateway.insist(&invitation, "complete", &json!({"size": 3})).await;
                gateway.lock().under_way.remove(&invitation.key);
            });
        }
    }

    /// Reports work that is done already.
    pub async fn report(&self, request: &WireRequest) {
        let invitation = Invitation::of(request);
        self.insist(&invitation, "complete", &json!({"size": 3})).await;
    }

    fn begin(&self, key: &str) {
        let mut book = self.lock();
        book.begun.entry(key.to_owned()).or_insert(1);
    }

    /// Calls back until the answer says that it need not call again.
    pub async fn insist(&self, invitation: &Invitation, verb: &str, body: &Value) -> StatusCode {
        for _ in 0..10_000 {
            match self.call(invitation, verb, body).await {
                Some((status, _)) if status.is_success() || matches!(status.as_u16(), 404 | 410) => return status,
                _ => sleep(Duration::from_secs(1)).await,
            }
        }
        panic!("a callback is never taken: {:?}", self.answers().last());
    }

    /// Calls back once, at any replica. None: no answer came.
    pub async fn call(&self, invitation: &Invitation, verb: &str, body: &Value) -> Option<(StatusCode, Value)> {
        let (fault, router) = {
            let mut book = self.lock();
            book.calls += 1;
            let fault = book
                .faults
                .as_ref()
                .map_or(CallbackFault::None, |faults| faults(book.calls));
            let replicas: Vec<Router> = book.open.values().cloned().collect();
            let router = (!replicas.is_empty()).then(|| replicas[book.calls % replicas.len()].clone());
            (fault, router)
        };
        if fault == CallbackFault::DieBefore {
            return None;
        }
        let answer = self.call_at(router?, invitation, verb, body.to_string()).await;
        if fault == CallbackFault::DieAfter {
            return None;
        }
        self.lock().answers.extend(answer.clone());
        answer
    }

    /// Calls back at one replica.
    pub async fn call_at(
        &self,
        router: Router,
        invitation: &Invitation,
        verb: &str,
        body: String,
    ) -> Option<(StatusCode, Value)> {
        let path = invitation
            .url
            .strip_prefix("http://holdfast.holdfast-system.svc:8080")
            .unwrap();
        let request = Request::post(format!("{path}/{verb}"))
            .header("authorization", format!("Bearer {}", invitation.token))
            .body(Body::from(body))
            .unwrap();
        let answer = timeout(Duration::from_secs(60), router.oneshot(request))
            .await
            .ok()?
            .unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Some((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}

impl Peers for Gateway {
    fn send(&self, address: &str, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, String>> {
        let router = {
            let book = self.lock();
            book.open
                .iter()
                .find(|(number, _)| Self::address(**number) == address)
                .map(|(_, router)| router.clone())
        };
        async move {
            let router = router.ok_or("connection refused")?;
            let answer = router.oneshot(request.map(Body::from)).await.unwrap();
            let (head, body) = answer.into_parts();
            Ok(Response::from_parts(head, body.collect().await.unwrap().to_bytes()))
        }
        .boxed()
    }
}
