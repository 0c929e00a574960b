//! What tests decide about each request: who may do what, and what goes wrong.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;

use crate::{route::Verb, status};

/// The facts of one request, as faults, authorization and the log of requests see them.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// Counts all requests from 1, in the order in which they arrive.
    pub number: u64,
    /// When it arrived.
    pub time: Timestamp,
    /// The user of the connection that it came on.
    pub client: String,
    /// Whom it acts as: the impersonated user if there is one, else the client.
    pub user: String,
    pub verb: Verb,
    /// Empty for the core group, and for paths that are no resource's.
    pub group: String,
    /// The plural; empty for paths that are no resource's.
    pub resource: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// Empty for what has none, and for all namespaces.
    pub namespace: String,
    /// Empty for collections, and for an object that is being created.
    pub name: String,
    pub path: String,
    pub dry_run: bool,
    /// How many writes had been accepted by then.
    pub writes_before: usize,
}

impl RequestInfo {
    /// Does it change anything?
    pub fn is_write(&self) -> bool {
        self.verb.writes() && !self.dry_run
    }

    /// Is it this verb on this resource (`pods`, `pods/status`)?
    pub fn is(&self, verb: Verb, resource: &str) -> bool {
        let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        self.verb == verb && self.resource == plural && self.subresource == subresource
    }

    /// How the real server's authorizer says no.
    pub(crate) fn denied(&self, qualified: &str) -> Box<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status> {
        let name = if self.name.is_empty() {
            String::new()
        } else {
            format!(" \"{}\"", self.name)
        };
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        let place = match self.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace \"{namespace}\""),
        };
        let mut status = status::failure(
            403,
            "Forbidden",
            format!(
                "{qualified}{name} is forbidden: User \"{}\" cannot {} resource \"{}{slash}{}\" in API group \"{}\" {place}",
                self.user,
                self.verb.name(),
                self.resource,
                self.subresource,
                self.group,
            ),
        );
        status.details = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusDetails {
            name: (!self.name.is_empty()).then(|| self.name.clone()),
            group: (!self.group.is_empty()).then(|| self.group.clone()),
            kind: Some(self.resource.clone()),
            ..Default::default()
        });
        status
    }
}

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Not applied; answered with this HTTP status, and `Retry-After` if given.
    Fail { code: u16, retry_after: Option<Duration> },
    /// Not applied, no answer: the connection is refused.
    RefuseConnection,
    /// Applied, but the connection breaks before the answer.
    LoseAnswer,
    /// Applied, yet answered with this HTTP status: a server that gives up waiting for its own storage.
    FailAfterwards { code: u16 },
    /// Applied twice, answered with the second answer: something on the way has sent it again. An update that landed is
    /// answered with a conflict, a create with AlreadyExists, a delete with NotFound.
    Repeat,
    /// Applied so much later, *also when the client has given up by then*: the request was on its way.
    Delay(Duration),
    /// Applied at once, answered so much later.
    DelayAnswer(Duration),
    /// Not applied, and never answered.
    Hang,
}

impl Fault {
    /// The status of a `Fail`.
    pub(crate) fn status(
        code: u16,
        retry_after: Option<Duration>,
    ) -> Box<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status> {
        let (reason, message) = match code {
            429 => ("TooManyRequests", "Too many requests, please try again later."),
            500 => (
                "InternalError",
                "Internal error occurred: etcdserver: request timed out",
            ),
            503 => ("ServiceUnavailable", "apiserver is shutting down."),
            504 => (
                "Timeout",
                "Timeout: request did not complete within the allotted timeout",
            ),
            _ => ("", "injected failure"),
        };
        let mut status = status::failure(code, reason, message);
        if let Some(after) = retry_after {
            status.details = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusDetails {
                retry_after_seconds: i32::try_from(after.as_secs()).ok(),
                ..Default::default()
            });
        }
        status
    }
}

/// Decides what goes wrong, from the facts of a request.
pub type FaultHook = Arc<dyn Fn(&RequestInfo) -> Fault + Send + Sync>;

/// Decides whether a request is allowed.
pub type Authorizer = Arc<dyn Fn(&RequestInfo) -> bool + Send + Sync>;
