//! The other side: a service that honours idempotency keys, and checks what may never happen.
//!
//! Whenever a request arrives, the intent of its attempt must be in the accepted status: `Running`, under this key. No
//! attempt may come from two operators, and nothing from one that doesn't lead.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use holdfast::activities::http::{SendError, Transport, WireRequest, WireResponse};
use holdfast::api::{CloudOperation, StepState};
use holdfast::engine::IdempotencyKey;
use holdfast_apiserver::ApiServer;
use http::{HeaderMap, HeaderValue, StatusCode};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::callbacks::Gateway;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFault {
    /// Nothing.
    None,
    /// It never reaches the service, and its sender dies.
    DieBefore,
    /// It has its effect, and its sender dies before the answer.
    DieAfter,
    /// It never reaches the service: no connection.
    NoConnection,
    /// It has its effect, and the connection breaks.
    NoAnswer,
}

type FaultHook = Box<dyn Fn(usize) -> CallFault + Send>;

/// The service.
#[derive(Clone)]
pub struct Service {
    server: ApiServer,
    /// The way to the operators, for callbacks.
    pub gateway: Gateway,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    calls: usize,
    faults: Option<FaultHook>,
    /// What was mended of what is broken: paths begin so.
    mended: Vec<String>,
    /// How often each effect was asked for, by key and path.
    effects: BTreeMap<(String, String), usize>,
    /// Which operator sent which attempt.
    senders: HashMap<(String, i64), usize>,
    /// Who sent each call.
    sent: Vec<usize>,
    /// Which operators waited for an answer until it came.
    answered: Vec<usize>,
    violations: Vec<String>,
}

impl Service {
    pub fn new(server: ApiServer) -> Self {
        Self {
            server,
            gateway: Gateway::default(),
            book: Arc::default(),
        }
    }

    /// The connection of operator number `sender`.
    pub fn connection(&self, sender: usize) -> Arc<dyn Transport> {
        Arc::new(Connection {
            service: self.clone(),
            sender,
        })
    }

    /// Decides, from now on, what goes wrong with call number n (from 1).
    pub fn set_faults(&self, faults: impl Fn(usize) -> CallFault + Send + 'static) {
        self.lock().faults = Some(Box::new(faults));
    }

    /// Lets so many percent of the calls find no service or no answer from now on, as the seed says.
    pub fn set_unreliable(&self, seed: u64, percent: u8) {
        let dice = Mutex::new(fastrand::Rng::with_seed(seed));
        self.set_faults(move |_| {
            let mut dice = dice.lock().unwrap();
            match dice.u8(..100) < percent {
                true if dice.bool() => CallFault::NoConnection,
                true => CallFault::NoAnswer,
                false => CallFault::None,
            }
        });
    }

    pub fn clear_faults(&self) {
        self.lock().faults = None;
    }

    /// Mends the paths that begin so: `/broken` is all that is broken.
    pub fn mend(&self, path: &str) {
        self.lock().mended.push(path.to_owned());
    }

    fn is_mended(&self, path: &str) -> bool {
        self.lock().mended.iter().any(|mended| path.starts_with(mended))
    }

    pub fn calls(&self) -> usize {
        self.lock().calls
    }

    /// Every effect, by path: how many keys asked for it.
    pub fn effects(&self) -> BTreeMap<String, usize> {
        let mut by_path = BTreeMap::new();
        for (_, path) in self.lock().effects.keys() {
            *by_path.entry(path.clone()).or_default() += 1;
        }
        by_path
    }

    /// Every request that reached it, by key and path.
    pub fn asked(&self) -> Vec<(String, String)> {
        self.lock().effects.keys().cloned().collect()
    }

    /// How many calls this operator sent.
    pub fn sent_by(&self, sender: usize) -> usize {
        self.lock().sent.iter().filter(|by| **by == sender).count()
    }

    /// How many answers this operator waited for until they came.
    pub fn answered(&self, sender: usize) -> usize {
        self.lock().answered.iter().filter(|by| **by == sender).count()
    }

    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The intent of a request in the accepted status: the step, its attempt and its runner.
    fn intent(&self, key: &str) -> Option<(String, i64, String)> {
        self.server.list::<CloudOperation>().iter().find_map(|operation| {
            let uid = operation.uid().unwrap_or_default();
            operation.status.as_ref()?.steps.iter().find_map(|step| {
                let matches = step.state == StepState::Running
                    && IdempotencyKey::new(&uid, &step.name, step.epoch).to_string() == key;
                matches.then(|| (step.name.clone(), step.attempt, step.runner.clone().unwrap_or_default()))
            })
        })
    }

    async fn serve(&self, sender: usize, request: WireRequest) -> Result<WireResponse, SendError> {
        let path = request.url.path().to_owned();
        let key = request
            .headers
            .get("idempotency-key")
            .and_then(|k| k.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let intent = self.intent(&key);
        let leads = leads(&self.server, sender);
        let (fault, before) = {
            let mut book = self.lock();
            book.calls += 1;
            book.sent.push(sender);
            if !leads {
                book.violations
                    .push(format!("{path} was called by operator {sender}, which doesn't lead"));
            }
            let fault = book
                .faults
                .as_ref()
                .map_or(CallFault::None, |faults| faults(book.calls));
            match &intent {
                None if path.starts_with("/local/") || request.url.query().is_some_and(|q| q.contains("local=1")) => {} // a local step's
                None => book
                    .violations
                    .push(format!("{path} was called under {key} without a recorded intent")),
                Some((step, attempt, _)) => {
                    let by = *book
                        .senders
                        .entry((format!("{key}/{step}"), *attempt))
                        .or_insert(sender);
                    if by != sender {
                        book.violations.push(format!(
                            "attempt {attempt} of {step} came from operators {by} and {sender}"
                        ));
                    }
                }
            }
            let reaches = !matches!(fault, CallFault::DieBefore | CallFault::NoConnection);
            let asked = reaches.then(|| {
                let asked = book.effects.entry((key, path.clone())).or_default();
                *asked += 1;
                *asked - 1
            });
            (fault, asked.unwrap_or(0))
        };
        match fault {
            CallFault::DieBefore | CallFault::DieAfter => return std::future::pending().await,
            CallFault::NoConnection => return Err(SendError::Connect("connection refused".into())),
            CallFault::NoAnswer => return Err(SendError::NoAnswer("connection reset".into())),
            CallFault::None => {}
        }
        sleep(Duration::from_millis(10)).await;
        let times: usize = request
            .url
            .query_pairs()
            .find(|(name, _)| name == "times")
            .and_then(|(_, n)| n.parse().ok())
            .unwrap_or(usize::MAX);
        match path.split('/').nth(1) {
            Some("status") if before < times => {
                let code = path
                    .rsplit('/')
                    .next()
                    .and_then(|code| code.parse().ok())
                    .unwrap_or(500);
                Ok(answer(code, &json!({"message": "not now"})))
            }
            Some("silent") if before < times => Err(SendError::NoAnswer("connection reset".into())),
            // It answers so, or not at all, until it is mended.
            Some("broken") if !self.is_mended(&path) => {
                match path.rsplit('/').next().and_then(|code| code.parse().ok()) {
                    Some(code) => Ok(answer(code, &json!({"message": "it is broken"}))),
                    None => Err(SendError::NoAnswer("connection reset".into())),
                }
            }
            // It does the work later, once for each key, and calls back.
            Some("async") => {
                self.gateway.work(&request);
                Ok(answer(202, &json!({})))
            }
            // As above, but it reports a failure first.
            Some("full") => {
                self.gateway.try_work(&request);
                Ok(answer(202, &json!({})))
            }
            // As above, but it forgets what it was first asked.
            Some("forgets") => {
                if before > 0 {
                    self.gateway.work(&request);
                }
                Ok(answer(202, &json!({})))
            }
            // It takes the work, and the test calls back.
            Some("taken") => {
                self.gateway.take(&request);
                Ok(answer(202, &json!({})))
            }
            // It has done the work, and says so before it answers.
            Some("early") => {
                self.gateway.report(&request).await;
                Ok(answer(202, &json!({})))
            }
            // It takes a second, and what is gone can't be removed again.
            Some("remove") if before > 0 => Ok(answer(404, &json!({"message": "there is none"}))),
            Some("remove") => {
                sleep(Duration::from_secs(1)).await;
                Ok(answer(200, &json!({})))
            }
            Some("slow") => {
                let ms = path.rsplit('/').next().and_then(|ms| ms.parse().ok()).unwrap_or(0);
                sleep(Duration::from_millis(ms)).await;
                Ok(answer(200, &json!({"ok": true})))
            }
            _ => Ok(answer(200, &json!({"size": 3, "path": path}))),
        }
    }
}

/// Is the Lease an operator's?
pub fn leads(server: &ApiServer, number: usize) -> bool {
    let lease: Option<Lease> = server.get("holdfast-system", "holdfast");
    let holder = lease.and_then(|lease| lease.spec?.holder_identity);
    holder.is_some_and(|holder| holder.starts_with(&format!("operator{number}_")))
}

fn answer(status: u16, body: &Value) -> WireResponse {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    WireResponse {
        status: StatusCode::from_u16(status).unwrap(),
        headers,
        body: Bytes::from(body.to_string()),
        truncated: false,
    }
}

struct Connection {
    service: Service,
    sender: usize,
}

impl Transport for Connection {
    fn send(&self, request: WireRequest) -> BoxFuture<'_, Result<WireResponse, SendError>> {
        async move {
            let answer = self.service.serve(self.sender, request).await;
            self.service.lock().answered.push(self.sender);
            answer
        }
        .boxed()
    }
}
