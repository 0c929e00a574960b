//! The server as a connection's other end: HTTP in and out, and what goes wrong between.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Status,
    jiff::{Timestamp, fmt::rfc2822::DateTimePrinter},
};
use kube::client::Body;
use tokio::{sync::watch, time::sleep};

use crate::{
    dispatch::{Answer, Asked},
    faults::{Authorizer, Fault, FaultHook, RequestInfo},
    route::Query,
    state::State,
    status::Result,
};

/// What time it is: the server has no other clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The body of an answer.
pub type ResponseBody = UnsyncBoxBody<Bytes, io::Error>;

/// How long after a deletion the garbage collector follows.
const GARBAGE_COLLECTION: Duration = Duration::from_millis(20);

/// A Kubernetes API server in this process. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) shared: Arc<Shared>,
}

/// What all clones and watches of a server share.
pub struct Shared {
    state: Mutex<State>,
    hooks: Mutex<Hooks>,
    clock: Clock,
    /// Told after every write, and after what tests do to watches.
    pub progress: watch::Sender<()>,
}

/// What tests decide about requests.
#[derive(Clone, Default)]
pub struct Hooks {
    pub faults: Option<FaultHook>,
    pub authorizer: Option<Authorizer>,
}

impl Shared {
    /// All that the server holds. A test that panicked elsewhere leaves it whole: every change is complete.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn hooks(&self) -> MutexGuard<'_, Hooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

/// A client's connection to the server, as a user of its own.
#[derive(Clone)]
pub struct Connection {
    server: ApiServer,
    user: Arc<str>,
}

impl ApiServer {
    /// An empty cluster whose time is `clock`; uids and generated names follow from `seed`.
    pub fn new(clock: Clock, seed: u32) -> Self {
        Self::with(State::new(seed, clock()), clock)
    }

    /// A cluster of its own that begins as this one is now. Costs next to nothing, whatever is in it.
    pub fn fork(&self, clock: Clock, seed: u32) -> Self {
        Self::with(self.shared.lock().fork(seed), clock)
    }

    fn with(state: State, clock: Clock) -> Self {
        let state = Mutex::new(state);
        let (progress, _) = watch::channel(());
        Self {
            shared: Arc::new(Shared {
                state,
                hooks: Mutex::default(),
                clock,
                progress,
            }),
        }
    }

    /// A client's connection, acting as `user` unless its requests say otherwise: a `tower::Service`, to be wrapped in
    /// whatever layers the program under test puts on its connection.
    pub fn connect(&self, user: &str) -> Connection {
        Connection {
            server: self.clone(),
            user: user.into(),
        }
    }

    /// A client on a connection of its own.
    pub fn client(&self, user: &str) -> kube::Client {
        kube::Client::new(self.connect(user), "default")
    }

    /// Decides, from now on, what goes wrong with each request.
    pub fn set_faults(&self, faults: impl Fn(&RequestInfo) -> Fault + Send + Sync + 'static) {
        self.shared.hooks().faults = Some(Arc::new(faults));
    }

    /// From now on, nothing goes wrong.
    pub fn clear_faults(&self) {
        self.shared.hooks().faults = None;
    }

    /// Decides, from now on, which requests are allowed; without this, all are.
    pub fn set_authorizer(&self, allows: impl Fn(&RequestInfo) -> bool + Send + Sync + 'static) {
        self.shared.hooks().authorizer = Some(Arc::new(allows));
    }

    async fn serve(self, request: Request<Body>, user: Arc<str>) -> io::Result<Response<ResponseBody>> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.map_err(io::Error::other)?;
        let query = Query::new(parts.uri.query().unwrap_or_default());
        let (info, asked) = self.accept(&parts.method, parts.uri.path(), query, &parts.headers, body, &user);
        let faults = self.shared.hooks().faults.clone();
        let fault = faults.map_or(Fault::None, |faults| faults(&info));
        let reset = || io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer");
        match fault {
            Fault::None => Ok(self.respond(&info, asked)),
            Fault::Fail { code, retry_after } => Ok(self.response(Err(Fault::status(code, retry_after)))),
            Fault::RefuseConnection => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused")),
            Fault::LoseAnswer => {
                drop(self.respond(&info, asked));
                Err(reset())
            }
            Fault::FailAfterwards { code } => {
                drop(self.respond(&info, asked));
                Ok(self.response(Err(Fault::status(code, None))))
            }
            Fault::Repeat => {
                drop(self.respond(&info, asked.clone()));
                Ok(self.respond(&info, asked))
            }
            Fault::Delay(by) => {
                // A task of its own, so that the request arrives even if nobody waits for it any more.
                let late = tokio::spawn(async move {
                    sleep(by).await;
                    self.respond(&info, asked)
                });
                late.await.map_err(|_| reset())
            }
            Fault::DelayAnswer(by) => {
                let response = self.respond(&info, asked);
                sleep(by).await;
                Ok(response)
            }
            Fault::Hang => futures::future::pending().await,
        }
    }

    fn respond(&self, info: &RequestInfo, asked: Result<Asked>) -> Response<ResponseBody> {
        let answer = asked.and_then(|asked| match asked {
            Asked::Page(page) => Ok(self.page(&page)),
            Asked::Resource(mut call) => {
                // It is applied now, which may be later than it arrived.
                call.info.time = self.shared.now();
                let answer = self.answer(&call);
                if info.is_write() && answer.is_ok() {
                    self.after_write();
                }
                answer
            }
        });
        self.response(answer)
    }

    /// Lets watches see a write, and the garbage collector follow it.
    pub(crate) fn after_write(&self) {
        self.shared.progress.send_replace(());
        if !self.shared.lock().garbage {
            return;
        }
        let server = self.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                sleep(GARBAGE_COLLECTION).await;
                server.collect_garbage();
            });
        }
    }

    /// Makes an answer HTTP.
    fn response(&self, answer: Result<Answer>) -> Response<ResponseBody> {
        let full = |bytes: Bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        let mut retry_after = None;
        let (code, content_type, body) = match answer {
            Ok(Answer::Object(code, object)) => (code, "application/json", full(object.to_string().into())),
            Ok(Answer::Text(code, text)) => (code, "text/plain", full(text.into())),
            Ok(Answer::Watch(lines)) => {
                let frames = lines.map(|line| Ok(http_body::Frame::data(line)));
                (200, "application/json", StreamBody::new(frames).boxed_unsync())
            }
            Err(status) => {
                retry_after = status.details.as_ref().and_then(|details| details.retry_after_seconds);
                (
                    code_of(&status),
                    "application/json",
                    full(serde_json::json!(*status).to_string().into()),
                )
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
        let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&self.shared.now());
        if let Some(date) = date.ok().and_then(|date| date.parse().ok()) {
            headers.insert(header::DATE, date);
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

fn code_of(status: &Status) -> u16 {
    status.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500)
}

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<ResponseBody>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Response<ResponseBody>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.server.clone().serve(request, self.user.clone()).boxed()
    }
}
