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
use holdfast::api::{OperationState, StepState, StepStatus};
use holdfast::controllers::LEADER_ADDRESS_ANNOTATION;
use holdfast::server::callbacks::Peers;
use holdfast_apiserver::{Fault, Verb};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use crate::world::{NAMESPACE, World};

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
    /// What is going to be reported, by key.
    under_way: BTreeSet<(String, &'static str)>,
    /// Where the last request is to be called back.
    invited: Option<Invitation>,
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

    /// The server of an operator.
    pub fn router(&self, number: usize) -> Router {
        self.lock().open[&number].clone()
    }

    /// Notes where a request is to be called back.
    pub fn take(&self, request: &WireRequest) {
        self.lock().invited = Some(Invitation::of(request));
    }

    /// Where the last request is to be called back.
    pub fn invited(&self) -> Invitation {
        self.lock().invited.clone().expect("a request with async came")
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
        self.report_later(Invitation::of(request), "complete", json!({"size": 3}));
    }

    /// Takes work that can't be done at first.
    pub fn try_work(&self, request: &WireRequest) {
        let invitation = Invitation::of(request);
        if invitation.url.ends_with("/0") {
            let full = json!({"reason": "OutOfCapacity", "message": "no host is free", "retryable": true});
            self.report_later(invitation, "fail", full);
        } else {
            self.work(request);
        }
    }

    fn report_later(&self, invitation: Invitation, verb: &'static str, body: Value) {
        let gateway = self.clone();
        let begins = self.lock().under_way.insert((invitation.key.clone(), verb));
        if begins {
            tokio::spawn(async move {
                sleep(Duration::from_secs(2)).await;
                gateway.insist(&invitation, verb, &body).await;
                gateway.lock().under_way.remove(&(invitation.key, verb));
            });
        }
    }

    /// Reports work that is done already.
    pub async fn report(&self, request: &WireRequest) {
        let invitation = Invitation::of(request);
        self.insist(&invitation, "complete", &json!({"size": 3})).await;
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

/// A world whose operation `async` has one step: work that the service takes and does nothing about.
async fn accepted(spec: &Value) -> (World, Invitation) {
    let mut world = World::new(1);
    world.start();
    apply(&world, spec).await;
    world
        .until("the work is accepted", |world| {
            step(world).is_some_and(|step| step.state == StepState::Waiting)
        })
        .await;
    let invitation = world.service.gateway.invited();
    (world, invitation)
}

async fn apply(world: &World, step: &Value) {
    let spec = json!({"steps": [step]});
    let metadata = json!({"name": "async", "namespace": NAMESPACE});
    let manifest =
        json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation", "metadata": metadata, "spec": spec});
    world.apply(&manifest).await;
}

fn grow() -> Value {
    json!({
        "name": "grow",
        "http": {"method": "POST", "url": "http://inventory.prod/taken/grow", "async": true},
        "output": {"size": "${result.body.size}"},
    })
}

fn step(world: &World) -> Option<StepStatus> {
    world.operation("async").status?.steps.into_iter().next()
}

#[tokio::test(start_paused = true)]
async fn each_answer_says_whether_to_call_again() {
    let (mut world, invitation) = accepted(&grow()).await;
    let gateway = world.service.gateway.clone();
    let call = async |invitation: &Invitation, verb: &str, body: Value| {
        let (status, body) = gateway.call(invitation, verb, &body).await.unwrap();
        (status.as_u16(), body)
    };
    assert_eq!(world.message("async"), "step grow: accepted; waiting for its callback");
    let with = |from: &str, to: &str| Invitation {
        url: invitation.url.replace(from, to),
        ..invitation.clone()
    };
    let wrong = Invitation {
        token: invitation.token.replace("0001.", "0002."),
        ..invitation.clone()
    };
    assert_eq!(call(&wrong, "complete", json!({})).await.0, 401);
    assert_eq!(
        call(&with("/grow/0/0", "/grow/0/1"), "complete", json!({})).await.0,
        401,
        "another run"
    );
    assert_eq!(
        call(&with("/grow/", "/shrink/"), "complete", json!({})).await.0,
        401,
        "another step"
    );
    assert_eq!(
        call(&with("/async/", "/other/"), "complete", json!({})).await.0,
        404,
        "no such operation"
    );
    assert_eq!(call(&invitation, "cancel", json!({})).await.0, 404, "no such verb");
    assert_eq!(call(&invitation, "fail", json!({"reason": "two words"})).await.0, 400);
    assert_eq!(call(&invitation, "complete", json!("x".repeat(300_000))).await.0, 413);
    let open = step(&world).unwrap();
    assert_eq!(open.state, StepState::Waiting, "nothing of that was recorded");

    let (status, body) = call(&invitation, "complete", json!({"size": 3})).await;
    assert_eq!((status, body), (200, json!({"state": "Succeeded"})));
    let done = step(&world).unwrap();
    assert_eq!(done.state, StepState::Succeeded, "it is recorded before it is answered");
    assert_eq!(json!(done.output), json!({"size": 3}));
    assert_eq!(
        call(&invitation, "complete", json!({"size": 3})).await.0,
        200,
        "a repeat"
    );
    for (verb, body) in [
        ("complete", json!({"size": 4})),
        ("fail", json!({})),
        ("heartbeat", json!({})),
    ] {
        let (status, body) = call(&invitation, verb, body).await;
        assert_eq!(
            (status, body["reason"].as_str()),
            (410, Some("Closed")),
            "{verb}: {body}"
        );
    }
    let written = serde_json::to_string(&world.operation("async")).unwrap();
    assert!(!written.contains(&invitation.token), "a token is recorded");
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stands_by_forwards_and_without_a_leader_it_says_to_call_again() {
    let (mut world, invitation) = accepted(&grow()).await;
    let second = world.start();
    sleep(Duration::from_secs(3)).await;
    let gateway = world.service.gateway.clone();
    let standby = gateway.router(second);
    let body = json!({"size": 3}).to_string();
    world.kill(0).await;
    let (status, answer) = gateway
        .call_at(standby.clone(), &invitation, "complete", body.clone())
        .await
        .unwrap();
    assert_eq!(status, 503, "{answer}");
    world
        .until("the second leads", |world| {
            let lease: Lease = world.server.get("holdfast-system", "holdfast").unwrap();
            let address = lease
                .metadata
                .annotations
                .unwrap_or_default()
                .remove(LEADER_ADDRESS_ANNOTATION);
            address == Some(Gateway::address(second))
        })
        .await;
    let third = world.start();
    sleep(Duration::from_secs(3)).await;
    let (status, answer) = gateway
        .call_at(gateway.router(third), &invitation, "complete", body)
        .await
        .unwrap();
    assert_eq!(status, 200, "{answer}");
    world.until("the operation ends", |world| world.finished("async")).await;
    assert_eq!(world.state("async"), Some(OperationState::Succeeded));
    assert_eq!(world.service.calls(), 1, "the work was asked for once");
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn silence_is_asked_about_under_the_same_key_and_heartbeats_keep_it_away() {
    let mut patient = grow();
    patient["timeouts"] = json!({"heartbeat": "10s"});
    let (mut world, invitation) = accepted(&patient).await;
    let gateway = world.service.gateway.clone();
    let before = world.operation("async").status.unwrap().write_id;
    for n in 0..12 {
        let details = json!({"done": n});
        assert_eq!(gateway.call(&invitation, "heartbeat", &details).await.unwrap().0, 200);
        sleep(Duration::from_secs(5)).await;
    }
    let status = world.operation("async").status.unwrap();
    assert_ne!(status.write_id, before);
    let step_now = step(&world).unwrap();
    assert_eq!(
        (step_now.state, step_now.attempt),
        (StepState::Waiting, 1),
        "a minute of heartbeats"
    );
    let heartbeat = step_now.heartbeat.expect("the last heartbeats are shown");
    assert!(heartbeat.details.unwrap()["done"].as_i64().unwrap() >= 6);
    let of_beats = |world: &World| {
        let written = world.server.writes();
        written
            .iter()
            .filter(|write| write.change.key.resource == "cloudoperations")
            .count()
    };
    assert!(of_beats(&world) <= 6, "{} writes in a minute", of_beats(&world));

    world
        .until("silence is noticed", |world| {
            step(world).is_some_and(|step| step.attempt == 2)
        })
        .await;
    let failure = step(&world).unwrap().failure.unwrap();
    assert_eq!(failure.reason, "HeartbeatTimeout", "{}", failure.message);
    assert!(step(&world).unwrap().maybe_done);
    // The work goes on where it was begun: what it said still counts.
    assert_eq!(
        gateway
            .call(&invitation, "complete", &json!({"size": 3}))
            .await
            .unwrap()
            .0,
        200
    );
    world.until("the operation ends", |world| world.finished("async")).await;
    assert_eq!(world.service.effects().values().sum::<usize>(), 1, "one key");
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_takeover_the_silence_begins_anew() {
    let mut patient = grow();
    patient["timeouts"] = json!({"heartbeat": "30s"});
    let (mut world, _) = accepted(&patient).await;
    sleep(Duration::from_secs(25)).await;
    world.kill(0).await;
    world.start();
    sleep(Duration::from_secs(25)).await;
    assert_eq!(step(&world).unwrap().attempt, 1);
    world
        .until("silence is noticed", |world| {
            step(world).is_some_and(|step| step.attempt == 2)
        })
        .await;
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_is_asked_for_again_and_its_repeat_is_answered_alike() {
    let (mut world, first) = accepted(&grow()).await;
    let gateway = world.service.gateway.clone();
    let full = json!({"reason": "OutOfCapacity", "message": "no host is free", "retryable": true});
    let (status, body) = gateway.call(&first, "fail", &full).await.unwrap();
    assert_eq!((status.as_u16(), body), (200, json!({"state": "BackingOff"})));
    let failure = step(&world).unwrap().failure.unwrap();
    assert_eq!(
        (failure.reason.as_str(), failure.message.as_str()),
        ("OutOfCapacity", "no host is free")
    );
    world
        .until("it is asked for again", |world| {
            step(world).is_some_and(|step| step.attempt == 2 && step.state == StepState::Waiting)
        })
        .await;
    let second = gateway.invited();
    assert_eq!(second.key, first.key, "the key is the same");
    assert_eq!(gateway.call(&first, "fail", &full).await.unwrap().0, 200);
    assert_eq!(
        step(&world).unwrap().state,
        StepState::Waiting,
        "the repeat fails nothing more"
    );
    let definite = json!({"reason": "Refused"});
    assert_eq!(gateway.call(&second, "fail", &definite).await.unwrap().0, 200);
    world.until("the operation ends", |world| world.finished("async")).await;
    assert_eq!(world.state("async"), Some(OperationState::Failed));
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_callback_costs_no_request() {
    let (mut world, _) = accepted(&grow()).await;
    sleep(Duration::from_secs(20)).await;
    let before = world.server.requests().len();
    sleep(Duration::from_secs(600)).await;
    let idle = world.server.requests()[before..]
        .iter()
        .filter(|request| request.resource != "leases" && request.verb != Verb::Watch)
        .count();
    assert_eq!(idle, 0);
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_the_api_server_refuses_is_no_success() {
    let (mut world, invitation) = accepted(&grow()).await;
    let gateway = world.service.gateway.clone();
    world.server.set_faults(|info| match info.subresource.as_str() {
        "status" => Fault::Fail {
            code: 500,
            retry_after: None,
        },
        _ => Fault::None,
    });
    let (status, _) = gateway
        .call(&invitation, "complete", &json!({"size": 3}))
        .await
        .unwrap();
    assert_eq!(status, 503);
    assert_eq!(step(&world).unwrap().state, StepState::Waiting);
    world.server.set_faults(|_| Fault::None);
    assert_eq!(gateway.insist(&invitation, "complete", &json!({"size": 3})).await, 200);
    assert_eq!(step(&world).unwrap().state, StepState::Succeeded);
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_masked_is_not_recorded_and_the_step_says_why() {
    let secret = |value: &str| {
        let mut secret = Secret::default();
        secret.metadata.name = Some("inventory".into());
        secret.metadata.namespace = Some(NAMESPACE.into());
        secret.data = Some([("key".to_owned(), ByteString(value.into()))].into());
        secret
    };
    let mut world = World::new(1);
    world.server.put(&secret("hunter2"));
    world.start();
    let mut step_with_auth = grow();
    step_with_auth["http"]["auth"] = json!({"bearer": {"secretKeyRef": {"name": "inventory", "key": "key"}}});
    apply(&world, &step_with_auth).await;
    world
        .until("the work is accepted", |world| {
            step(world).is_some_and(|step| step.state == StepState::Waiting)
        })
        .await;
    let gateway = world.service.gateway.clone();
    let invitation = gateway.invited();
    world.delete::<Secret>("inventory").await;
    for (verb, body) in [
        ("complete", json!({"size": "hunter2"})),
        ("fail", json!({"message": "hunter2"})),
    ] {
        let (status, answer) = gateway.call(&invitation, verb, &body).await.unwrap();
        assert_eq!(status, 503, "{verb}: {answer}");
    }
    assert_eq!(
        gateway
            .call(&invitation, "heartbeat", &json!("hunter2"))
            .await
            .unwrap()
            .0,
        200
    );
    sleep(Duration::from_secs(5)).await;
    let waits = step(&world).unwrap();
    assert_eq!(waits.state, StepState::Waiting);
    let message = waits.message.unwrap();
    assert!(
        message.starts_with("its callback can't be recorded: SecretNotFound"),
        "{message}"
    );
    assert_eq!(waits.heartbeat.unwrap().details, None);

    world.server.put(&secret("hunter2"));
    assert_eq!(
        gateway
            .insist(&invitation, "complete", &json!({"size": "hunter2"}))
            .await,
        200
    );
    assert_eq!(json!(step(&world).unwrap().output), json!({"size": "***"}));
    world.check();
    world.kill_all().await;
}
