//! An operator that stands still, as after SIGSTOP, and goes on, as after SIGCONT.
//!
//! All operators run on the test's one runtime, and some of their tasks are spawned by kube's controller: they can't be
//! stopped as such. So whatever wakes them is held at a [`Gate`]. Behind it are the operator's main task, in which
//! leadership, the watches and the controllers are, and every answer that its other tasks wait for: the API server's,
//! the service's, and those to callbacks that come in.
//!
//! That leaves the timeouts of requests that are under way. They end in the pause, and not right after it: as if the
//! answer had been slower still. No task of those does more than note it. That nothing is sent in a pause that would
//! change something is checked (`World::check`), so a pause can't be less than what it says.
//!
//! No clock stands still: who goes on finds all of them later.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use axum::Router;
use axum::extract::Request as Incoming;
use axum::middleware::{Next, from_fn};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, stream};
use holdfast::activities::http::{SendError, Transport, WireRequest, WireResponse};
use holdfast_apiserver::Connection;
use http::{Method, Request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use kube::Client;
use kube::client::Body;

/// What an operator's tasks pass whenever they go on. Clones are the same.
#[derive(Clone, Default)]
pub struct Gate {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    closed: bool,
    waiting: Vec<Waker>,
    /// What was sent while it was closed.
    sent: Vec<String>,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn close(&self) {
        self.lock().closed = true;
    }

    pub fn open(&self) {
        let waiting = {
            let mut state = self.lock();
            state.closed = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// What was sent in a pause, though it would change something.
    pub fn sent(&self) -> Vec<String> {
        self.lock().sent.clone()
    }

    fn send(&self, what: impl FnOnce() -> String) {
        let mut state = self.lock();
        if state.closed {
            state.sent.push(what());
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.closed {
            return Poll::Ready(());
        }
        state.waiting.push(cx.waker().clone());
        Poll::Pending
    }

    /// A future that goes on only while the gate is open.
    pub async fn through<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            ready!(self.poll(cx));
            future.as_mut().poll(cx)
        })
        .await
    }

    /// A client whose answers come through this gate.
    pub fn client(&self, connection: Connection) -> Client {
        let gate = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (gate, mut connection) = (gate.clone(), connection.clone());
            async move {
                if request.method() != Method::GET {
                    gate.send(|| format!("{} {}", request.method(), request.uri()));
                }
                let response = gate.through(tower::Service::call(&mut connection, request)).await?;
                Ok::<_, io::Error>(response.map(|body| gate.body(body)))
            }
        });
        Client::new(service, "default")
    }

    fn body(&self, body: UnsyncBoxBody<Bytes, io::Error>) -> UnsyncBoxBody<Bytes, io::Error> {
        let frames = stream::unfold((self.clone(), body), |(gate, mut body)| async move {
            let frame = gate.through(body.frame()).await?;
            Some((frame, (gate, body)))
        });
        StreamBody::new(frames).boxed_unsync()
    }

    /// A connection to the service whose answers come through this gate.
    pub fn transport(&self, transport: Arc<dyn Transport>) -> Arc<dyn Transport> {
        Arc::new(Behind {
            gate: self.clone(),
            transport,
        })
    }

    /// A server whose answers come through this gate.
    pub fn router(&self, router: Router) -> Router {
        let gate = self.clone();
        router.layer(from_fn(move |request: Incoming, next: Next| {
            let gate = gate.clone();
            async move { gate.through(next.run(request)).await }
        }))
    }
}

struct Behind {
    gate: Gate,
    transport: Arc<dyn Transport>,
}

impl Transport for Behind {
    fn send(&self, request: WireRequest) -> BoxFuture<'_, Result<WireResponse, SendError>> {
        self.gate.send(|| format!("{} {}", request.method, request.url));
        self.gate.through(self.transport.send(request)).boxed()
    }
}
