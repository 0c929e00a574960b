//! The server: from a request through authorization and faults to an answer, and what tests do to it from outside.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Status,
    jiff::{Timestamp, fmt::rfc2822::DateTimePrinter},
};
use kube::client::Body;
use serde_json::Value;
use tokio::{sync::watch, time::sleep};

use crate::{
    discovery,
    faults::{Authorizer, Fault, FaultHook, RequestInfo},
    read,
    route::{self, Query, Route, Verb},
    state::{Call, State},
    status::{self, Result},
    subresources::user_of_token,
    watch as watches,
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

#[derive(Clone, Default)]
struct Hooks {
    faults: Option<FaultHook>,
    authorizer: Option<Authorizer>,
}

impl Shared {
    /// All that the server holds. A test that panicked elsewhere leaves it whole: every change is complete.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hooks(&self) -> MutexGuard<'_, Hooks> {
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

/// An answer, before it is HTTP.
enum Answer {
    Object(u16, Value),
    Text(u16, String),
    Watch(futures::stream::BoxStream<'static, Bytes>),
}

/// What a request asks for: a resource, or one of the server's own pages.
#[derive(Clone)]
enum Asked {
    Resource(Call),
    Page(Page),
}

#[derive(Clone)]
struct Page {
    route: Option<Route>,
    aggregated: bool,
}

impl ApiServer {
    /// An empty cluster whose time is `clock`; uids and generated names follow from `seed`.
    pub fn new(clock: Clock, seed: u32) -> Self {
        let state = Mutex::new(State::new(seed, clock()));
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

    /// Numbers a request, records it, and finds out what it asks for.
    fn accept(
        &self,
        method: &Method,
        path: &str,
        query: Query,
        headers: &HeaderMap,
        body: Bytes,
        user: &str,
    ) -> (RequestInfo, Result<Asked>) {
        let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let token = header("authorization").strip_prefix("Bearer ").and_then(user_of_token);
        let own_user = token.unwrap_or_else(|| user.to_owned());
        let user = match header("impersonate-user") {
            "" => own_user.clone(),
            impersonated => impersonated.to_owned(),
        };
        let mut state = self.shared.lock();
        let mut info = RequestInfo {
            number: state.requests.len() as u64 + 1,
            time: self.shared.now(),
            user,
            verb: Verb::Get,
            group: String::new(),
            resource: String::new(),
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
            path: path.to_owned(),
            dry_run: query.get("dryRun") == "All",
        };
        let accept = header("accept");
        let routed = route::route(&state.resources, path).transpose();
        let asked = match routed {
            Err(unknown) => Err(unknown),
            Ok(Some(Route::Resource(target))) => match route::verb(method, &target, &query) {
                Err(refused) => Err(refused),
                Ok(verb) => {
                    info.verb = verb;
                    info.group.clone_from(&target.resource.group);
                    info.resource.clone_from(&target.resource.plural);
                    info.subresource.clone_from(&target.subresource);
                    info.name.clone_from(&target.name);
                    // A namespace is in itself.
                    let itself = target.resource.kind == "Namespace" && target.resource.group.is_empty();
                    info.namespace
                        .clone_from(if itself { &target.name } else { &target.namespace });
                    let agent = header("user-agent").split('/').next().unwrap_or_default();
                    let manager = [query.get("fieldManager"), agent, "unknown"]
                        .into_iter()
                        .find(|m| !m.is_empty());
                    Ok(Asked::Resource(Call {
                        info: info.clone(),
                        content_type: header("content-type").to_owned(),
                        metadata_only: accept.contains("as=PartialObjectMetadata"),
                        manager: manager.unwrap_or_default().to_owned(),
                        body: body.to_vec(),
                        target,
                        query,
                    }))
                }
            },
            Ok(route) => Ok(Asked::Page(Page {
                route,
                aggregated: accept.contains("as=APIGroupDiscoveryList"),
            })),
        };
        state.requests.push(info.clone());
        drop(state);
        let allowed = self.authorize(&info, &own_user);
        (info, asked.and_then(|asked| allowed.map(|()| asked)))
    }

    /// May the user do it, and may the client act as that user?
    fn authorize(&self, info: &RequestInfo, own_user: &str) -> Result<()> {
        let Some(allows) = self.shared.hooks().authorizer.clone() else {
            return Ok(());
        };
        if info.user != own_user {
            let parts: Vec<&str> = info.user.split(':').collect();
            let (resource, namespace, name) = match parts.as_slice() {
                ["system", "serviceaccount", namespace, name] => ("serviceaccounts", *namespace, *name),
                _ => ("users", "", info.user.as_str()),
            };
            let impersonation = RequestInfo {
                user: own_user.to_owned(),
                verb: Verb::Impersonate,
                group: String::new(),
                resource: resource.to_owned(),
                subresource: String::new(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                ..info.clone()
            };
            if !allows(&impersonation) {
                return Err(impersonation.denied(resource));
            }
        }
        if info.resource.is_empty() || allows(info) {
            return Ok(());
        }
        let dot = if info.group.is_empty() { "" } else { "." };
        Err(info.denied(&format!("{}{dot}{}", info.resource, info.group)))
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

    fn answer(&self, call: &Call) -> Result<Answer> {
        let (resource, state) = (&call.target.resource, &mut *self.shared.lock());
        let object = |code, object: Arc<Value>| {
            Answer::Object(
                code,
                read::presented(resource, &object, call.metadata_only && object["kind"] != "Status"),
            )
        };
        Ok(match (call.info.verb, call.target.subresource.as_str()) {
            (Verb::Get, "log") => Answer::Text(200, state.pod_log(call)?),
            (Verb::Create, "eviction") => Answer::Object(201, state.evict(call)?),
            (Verb::Create, "token") => Answer::Object(201, state.token(call)?),
            (Verb::Get, "scale") => Answer::Object(200, state.get_scale(call)?),
            (verb, "scale") => Answer::Object(200, state.write_scale(call, verb == Verb::Patch)?),
            (Verb::Get, _) => object(200, state.get(call)?),
            (Verb::List, _) => Answer::Object(200, state.list(call)?),
            (Verb::Watch, _) => Answer::Watch(watches::open(&self.shared, state, call)?.boxed()),
            (Verb::Create, _) => object(201, state.create(call)?),
            (Verb::Update | Verb::Patch, _) => {
                let existed = state.existing(call).is_ok();
                let written = if call.info.verb == Verb::Update {
                    state.update(call)?
                } else {
                    state.patch(call)?
                };
                object(if existed { 200 } else { 201 }, written)
            }
            (Verb::Delete, _) => object(200, state.delete(call)?),
            (Verb::DeleteCollection, _) => {
                let metadata = serde_json::json!({"resourceVersion": state.store.revision().to_string()});
                let deleted = state.delete_collection(call)?;
                let items = deleted.iter().map(|o| read::presented(resource, o, call.metadata_only));
                let items = items.map(read::in_list(resource)).collect();
                Answer::Object(200, read::list_of(resource, metadata, items, call.metadata_only))
            }
            (Verb::Impersonate, _) => return Err(status::method_not_allowed()),
        })
    }

    fn page(&self, page: &Page) -> Answer {
        let resources = &self.shared.lock().resources;
        match &page.route {
            Some(Route::CoreVersions) if page.aggregated => Answer::Object(200, discovery::aggregated(resources, true)),
            Some(Route::Groups) if page.aggregated => Answer::Object(200, discovery::aggregated(resources, false)),
            Some(Route::CoreVersions) => Answer::Object(200, discovery::core_versions()),
            Some(Route::Groups) => Answer::Object(200, discovery::groups(resources)),
            Some(Route::Group(group)) => Answer::Object(200, discovery::group(resources, group)),
            Some(Route::GroupVersion(group, version)) => {
                Answer::Object(200, discovery::group_version(resources, group, version))
            }
            Some(Route::Version) => Answer::Object(200, discovery::version()),
            Some(Route::Healthy) => Answer::Text(200, "ok".into()),
            Some(Route::Resource(_)) | None => Answer::Text(404, "404 page not found\n".into()),
        }
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
