//! Kubernetes as a service account: what an operation may do is what its service account may do, and the API server
//! decides it.
//!
//! An operation's requests go over the operator's own connections with an `Impersonate-User` header, which names one
//! service account of the operation's namespace. The client sets that header last: nothing in a request can change as
//! whom it is made, or take it away. No groups are sent: the API server adds those of a service account by itself.
//! The accounts of `kube-system` are never acted as, as some of them may do everything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response};
use kube::Client;
use kube::client::Body;
use tokio::time::timeout;
use tower::BoxError;

use super::AttemptContext;

/// How long the API server may take until its answer begins. A watch's answer begins at once, and then goes on.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How many service accounts' clients are kept. One more forgets the one that was unused for longest: a client in use
/// goes on.
const MAX_CLIENTS: usize = 256;

const IMPERSONATE_USER: HeaderName = HeaderName::from_static("impersonate-user");

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ServiceAccount {
    /// The one that an attempt acts as.
    pub fn of(context: &AttemptContext) -> Self {
        Self {
            namespace: context.namespace.clone(),
            name: context.service_account.clone(),
        }
    }
}

impl std::fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why a service account is not acted as. Every request of its client ends with this, and none is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// An account of the system's own.
    #[error("service accounts of kube-system are never acted as: run the operation in another namespace")]
    KubeSystem,
    /// The account that the operator itself runs as.
    #[error("the operator's own service account is never acted as: name another one (spec.serviceAccountName)")]
    Own,
    /// A name that no service account can have.
    #[error(
        "{0:?} is not the name of a service account: lower case letters, digits, '-' and '.' make one (spec.serviceAccountName)"
    )]
    Name(String),
}

/// The clients of service accounts, over one set of connections. Clones share them.
#[derive(Clone)]
pub struct Clients {
    base: Client,
    own: Option<ServiceAccount>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    clients: HashMap<ServiceAccount, (Client, u64)>,
    uses: u64,
}

impl Clients {
    /// Over the operator's own client, whose account must be allowed to impersonate service accounts.
    /// `own` is that account: it is never acted as.
    pub fn new(base: Client, own: Option<ServiceAccount>) -> Self {
        Self {
            base,
            own,
            known: Arc::default(),
        }
    }

    /// A client that acts as this service account. One that may not be acted as gets a client whose every request is
    /// [`Refused`].
    pub fn as_service_account(&self, namespace: &str, name: &str) -> Client {
        let account = ServiceAccount {
            namespace: namespace.into(),
            name: name.into(),
        };
        // Nothing in here panics half-way through a change.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.uses += 1;
        let now = known.uses;
        if let Some((client, used)) = known.clients.get_mut(&account) {
            *used = now;
            return client.clone();
        }
        if known.clients.len() >= MAX_CLIENTS {
            let oldest = known
                .clients
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(account, _)| account.clone());
            oldest.and_then(|account| known.clients.remove(&account));
        }
        let user = if self.own.as_ref() == Some(&account) {
            Err(Refused::Own)
        } else {
            user(&account)
        };
        let client = impersonating(self.base.clone(), user, namespace);
        known.clients.insert(account, (client.clone(), now));
        client
    }
}

fn impersonating(base: Client, user: Result<HeaderValue, Refused>, namespace: &str) -> Client {
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let (base, user) = (base.clone(), user.clone());
        async move {
            let user = user?;
            let headers = request.headers_mut();
            let others: Vec<_> = headers
                .keys()
                .filter(|h| h.as_str().starts_with("impersonate-"))
                .cloned()
                .collect();
            for header in others {
                headers.remove(header);
            }
            headers.insert(IMPERSONATE_USER, user);
            let answer: Response<Body> = timeout(ANSWER_TIMEOUT, base.send(request))
                .await
                .map_err(BoxError::from)??;
            Ok::<_, BoxError>(answer)
        }
    });
    Client::new(service, namespace)
}

fn user(account: &ServiceAccount) -> Result<HeaderValue, Refused> {
    let ServiceAccount { namespace, name } = account;
    if namespace == "kube-system" {
        return Err(Refused::KubeSystem);
    }
    let valid = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    };
    let refused = || Refused::Name(account.to_string());
    if !valid(namespace) || !valid(name) {
        return Err(refused());
    }
    HeaderValue::try_from(format!("system:serviceaccount:{namespace}:{name}")).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A base client that answers every request with the headers it came with, as JSON.
    fn echo() -> Client {
        let service = tower::service_fn(|request: Request<Body>| async move {
            let headers: HashMap<String, String> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect();
            let body = serde_json::to_vec(&headers).unwrap();
            Ok::<_, std::convert::Infallible>(Response::new(Body::from(body)))
        });
        Client::new(service, "default")
    }

    async fn headers(client: &Client, request: http::request::Builder) -> HashMap<String, String> {
        client.request(request.body(vec![]).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_request_is_made_as_the_service_account() {
        let client = Clients::new(echo(), None).as_service_account("prod", "releaser");
        let sent = headers(&client, Request::get("/api/v1/pods")).await;
        assert_eq!(sent["impersonate-user"], "system:serviceaccount:prod:releaser");
        assert_eq!(client.default_namespace(), "prod");
    }

    #[tokio::test]
    async fn nothing_in_a_request_changes_as_whom_it_is_made() {
        let client = Clients::new(echo(), None).as_service_account("prod", "releaser");
        let request = Request::get("/api/v1/pods")
            .header("Impersonate-User", "admin")
            .header("Impersonate-Group", "system:masters")
            .header("Impersonate-Extra-Scopes", "all")
            .header("Impersonate-Uid", "1");
        let sent = headers(&client, request).await;
        let named: Vec<_> = sent.keys().filter(|h| h.starts_with("impersonate-")).collect();
        assert_eq!(named, ["impersonate-user"]);
        assert_eq!(sent["impersonate-user"], "system:serviceaccount:prod:releaser");
    }

    #[tokio::test]
    async fn what_may_not_be_acted_as_sends_nothing() {
        let service = tower::service_fn(|_: Request<Body>| async {
            panic!("nothing may be sent");
            #[allow(unreachable_code)]
            Ok::<Response<Body>, std::convert::Infallible>(Response::new(Body::empty()))
        });
        let clients = Clients::new(Client::new(service, "default"), None);
        for (namespace, name, expected) in [
            ("kube-system", "default", Refused::KubeSystem),
            ("prod", "a:b", Refused::Name("prod/a:b".into())),
            (
                "prod",
                "x\r\nImpersonate-Group: system:masters",
                Refused::Name("prod/x\r\nImpersonate-Group: system:masters".into()),
            ),
            ("prod", "", Refused::Name("prod/".into())),
        ] {
            let client = clients.as_service_account(namespace, name);
            let error = client
                .request_text(Request::get("/api").body(vec![]).unwrap())
                .await
                .unwrap_err();
            let kube::Error::Service(error) = error else {
                panic!("{error}")
            };
            assert_eq!(error.downcast_ref::<Refused>(), Some(&expected));
        }
    }

    #[tokio::test]
    async fn clients_are_kept_up_to_a_bound() {
        let clients = Clients::new(echo(), None);
        for n in 0..=MAX_CLIENTS {
            clients.as_service_account("prod", "often");
            clients.as_service_account("prod", &format!("once-{n}"));
        }
        let known = clients.known.lock().unwrap();
        assert_eq!(known.clients.len(), MAX_CLIENTS);
        assert!(known.clients.keys().any(|account| account.name == "often"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_never_answers_is_given_up_on() {
        let service = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, BoxError>>());
        let client = Clients::new(Client::new(service, "default"), None).as_service_account("prod", "releaser");
        let started = tokio::time::Instant::now();
        assert!(
            client
                .request_text(Request::get("/api").body(vec![]).unwrap())
                .await
                .is_err()
        );
        assert_eq!(started.elapsed(), ANSWER_TIMEOUT);
    }
}
