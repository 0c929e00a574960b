//! The real transport: pooled connections, TLS, and the check of every address that is dialled.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service};

use super::targets::Lookup;
use super::transport::{SendError, Transport, TrustedCa, WireRequest, WireResponse};
use super::{TargetNotAllowed, Targets};

/// How long resolving, connecting and the TLS handshake may take together. Until then nothing was sent, which is worth
/// knowing before the attempt's own timeout makes its outcome unknown.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept: less than the 5 s after which common servers close theirs, as a request that
/// meets the closing has no answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// How many idle connections to one host are kept.
const MAX_IDLE_PER_HOST: usize = 64;
/// How many clients are kept: one for each namespace and authority in use.
const MAX_CLIENTS: usize = 128;

type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;
type HttpClient = Client<Connector, Full<Bytes>>;

/// The real transport. Connections are shared by the calls of namespaces that may call the same: a connection is
/// checked when it is made, so nobody may find one in the pool that they could not have made.
pub struct Wire {
    /// Trusts the public authorities.
    public: ClientConfig,
    /// The last used last.
    clients: Mutex<VecDeque<(ClientKey, HttpClient)>>,
}

type ClientKey = (Targets, Option<TrustedCa>);

impl Wire {
    /// A transport without connections.
    pub fn new() -> Self {
        Self {
            public: tls(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned())),
            clients: Mutex::default(),
        }
    }

    fn client(&self, targets: Targets, ca: Option<TrustedCa>) -> HttpClient {
        let key = (targets, ca);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let known = clients.iter().position(|(other, _)| *other == key);
        let (key, client) = known.and_then(|i| clients.remove(i)).unwrap_or_else(|| {
            let client = self.new_client(&key);
            (key, client)
        });
        clients.push_back((key, client.clone()));
        if clients.len() > MAX_CLIENTS {
            clients.pop_front();
        }
        client
    }

    fn new_client(&self, (targets, ca): &ClientKey) -> HttpClient {
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(ca.as_ref().map_or_else(|| self.public.clone(), |ca| tls(ca.roots())))
            .https_or_http()
            .enable_http1()
            .wrap_connector(Dialler {
                targets: targets.clone(),
            });
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .build(BoxCloneSyncService::new(Timeout::new(https, CONNECT_TIMEOUT)))
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(
    clippy::expect_used,
    reason = "fails only for a provider without cipher suites for TLS 1.2 and 1.3"
)]
fn tls(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

impl Transport for Wire {
    fn send(&self, request: WireRequest) -> BoxFuture<'_, Result<WireResponse, SendError>> {
        async move {
            let client = self.client(request.targets, request.ca);
            let mut wire = Request::new(Full::new(request.body));
            *wire.method_mut() = request.method;
            *wire.uri_mut() =
                Uri::try_from(request.url.as_str()).map_err(|error| SendError::Connect(error.to_string()))?;
            *wire.headers_mut() = request.headers;
            let answer = client.request(wire).await.map_err(send_error)?;
            let (head, mut body) = answer.into_parts();
            let mut read = BytesMut::new();
            let mut truncated = false;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| SendError::NoAnswer(format!("it broke off: {}", causes(&error))))?;
                let Ok(data) = frame.into_data() else { continue };
                let room = request.max_response_bytes - read.len();
                read.extend_from_slice(&data[..data.len().min(room)]);
                if data.len() > room {
                    truncated = true;
                    break;
                }
            }
            Ok(WireResponse {
                status: head.status,
                headers: head.headers,
                body: read.freeze(),
                truncated,
            })
        }
        .boxed()
    }
}

/// Resolves, checks and connects: what it refuses is never dialled.
#[derive(Clone)]
struct Dialler {
    targets: Targets,
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<TcpStream>;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Self::Response, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let targets = self.targets.clone();
        async move {
            let addresses = resolve(&targets, &uri).await?;
            let resolver = tower::service_fn(move |_| ready(Ok::<_, Infallible>(addresses.clone().into_iter())));
            let mut tcp = HttpConnector::new_with_resolver(resolver);
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            tcp.set_keepalive(Some(Duration::from_secs(30)));
            tcp.call(uri).await.map_err(|error| DialError::Connect(causes(&error)))
        }
        .boxed()
    }
}

/// Why there is no connection. It travels through hyper's errors as a cause, hence a type of its own.
#[derive(Clone, Debug, thiserror::Error)]
enum DialError {
    #[error(transparent)]
    NotAllowed(TargetNotAllowed),
    #[error("{name} could not be resolved: {error}")]
    Dns { name: String, error: String },
    #[error("{0}")]
    Connect(String),
}

/// The addresses of the URI's host that may be called.
async fn resolve(targets: &Targets, uri: &Uri) -> Result<Vec<SocketAddr>, DialError> {
    let https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let host = targets.host(uri.host().unwrap_or_default());
    let (addresses, alias) = match &host.lookup {
        Lookup::Known(addresses) => (addresses.clone(), None),
        Lookup::Name(name) => {
            let found = super::dns::lookup(name).await.map_err(|error| DialError::Dns {
                name: name.clone(),
                error,
            })?;
            (found.addresses, found.alias)
        }
    };
    let mut refused = None;
    let mut allowed = Vec::new();
    for address in addresses {
        let address = SocketAddr::new(address, port);
        match targets.check(&host, alias.as_deref(), address) {
            Ok(()) => allowed.push(address),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    match refused {
        Some(error) if allowed.is_empty() => Err(DialError::NotAllowed(error)),
        _ => Ok(allowed),
    }
}

fn send_error(error: hyper_util::client::legacy::Error) -> SendError {
    if !error.is_connect() {
        return SendError::NoAnswer(causes(&error));
    }
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    let mut last = String::new();
    while let Some(error) = cause {
        if let Some(dial) = error.downcast_ref::<DialError>() {
            return match dial.clone() {
                DialError::NotAllowed(error) => SendError::NotAllowed(error),
                DialError::Dns { name, error } => SendError::Dns { name, error },
                DialError::Connect(error) => SendError::Connect(error),
            };
        }
        if error.is::<tower::timeout::error::Elapsed>() {
            return SendError::Connect(format!("not within {} s", CONNECT_TIMEOUT.as_secs()));
        }
        last = error.to_string();
        cause = error.source();
    }
    // The dialler's errors are told apart above, so this one is of the handshake that follows.
    SendError::Tls(last)
}

/// An error with what caused it: hyper's own says little.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::TargetPolicy;
    use super::*;

    #[test]
    fn clients_are_kept_by_who_may_call_what_and_the_longest_unused_goes_first() {
        let policy = Arc::new(TargetPolicy {
            cluster_domain: "cluster.local".into(),
            allowed: Vec::new(),
            never: Vec::new(),
        });
        let targets = |i: usize| policy.for_namespace(&format!("ns{i}"), None);
        let wire = Wire::new();
        for i in 0..=MAX_CLIENTS {
            wire.client(targets(i), None);
            wire.client(targets(1), None);
        }
        let kept: Vec<_> = wire
            .clients
            .lock()
            .unwrap()
            .iter()
            .map(|((targets, _), _)| targets.clone())
            .collect();
        assert_eq!(kept.len(), MAX_CLIENTS);
        assert!(!kept.contains(&targets(0)), "the longest unused");
        assert_eq!(kept.last(), Some(&targets(1)));
    }
}
