//! One request to the API server as the operation's service account, and what its answer lets the engine do.
//!
//! Every request of an activity goes through [`call`], so that these hold for all of them: a write asks for leadership
//! right before it is sent, nothing waits for longer than [`CALL_TIMEOUT`], no answer is read without a bound, and an
//! error says what was asked, of what, as whom.

use std::fmt;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::client::Body;
use kube::core::Status;
use serde_json::Value;
use tokio::time::timeout;

use super::AttemptContext;
use super::clients::{ANSWER_TIMEOUT, Refused, ServiceAccount};
use super::discovery::ResourceType;
use crate::engine::{AttemptFailure, Effect, RetryAdvice, shorten};

/// How long a request may take, answer and all.
pub const CALL_TIMEOUT: Duration = ANSWER_TIMEOUT;
/// The largest answer that is read, in bytes: a page of 500 objects fits.
const MAX_ANSWER: usize = 16 << 20;
/// How much is kept of an answer that is no message of the API server's, in characters.
const MAX_FOREIGN_MESSAGE: usize = 4096;

/// What is done, in RBAC's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        })
    }
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The resource.
    pub resource: &'a ResourceType,
    /// What below the object: `scale`, `log`; empty for the object itself.
    pub subresource: &'a str,
    /// The namespace, if it is in one.
    pub namespace: Option<&'a str>,
    /// The object; none for a collection.
    pub name: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// An object.
    pub fn object(resource: &'a ResourceType, namespace: Option<&'a str>, name: &'a str) -> Self {
        Self {
            resource,
            subresource: "",
            namespace,
            name: Some(name),
        }
    }

    /// All objects of a kind.
    pub fn collection(resource: &'a ResourceType, namespace: Option<&'a str>) -> Self {
        Self {
            resource,
            subresource: "",
            namespace,
            name: None,
        }
    }

    /// Something below the object.
    pub fn below(self, subresource: &'a str) -> Self {
        Self { subresource, ..self }
    }

    /// Its path.
    pub fn path(&self) -> String {
        let mut path = self.resource.path(self.namespace);
        for part in [self.name.unwrap_or_default(), self.subresource] {
            if !part.is_empty() {
                path.push('/');
                path.push_str(part);
            }
        }
        path
    }
}

/// `Deployment web in namespace prod`.
impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "{} {name}", self.resource.api.kind)?,
            None => f.write_str(&self.resource.qualified())?,
        }
        match self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}

/// Why a request was not answered with success.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// This process may no longer act: nothing was sent.
    #[error("leadership was lost before the request: nothing was sent")]
    LeadershipLost,
    /// The service account may not be acted as: nothing was sent.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The request could not be made: nothing was sent.
    #[error("the request could not be made: {0}")]
    Unsendable(String),
    /// The API server said no.
    #[error("{}", .status.message)]
    Answered {
        /// The HTTP status.
        code: u16,
        /// What it said.
        status: Box<Status>,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No answer came, or not all of it.
    #[error("{0}")]
    NoAnswer(String),
    /// The answer is larger than what is read.
    #[error("the answer has more than {MAX_ANSWER} bytes")]
    TooLarge,
}

/// A request, with a body if one is given: its content type, and what is sent.
///
/// # Errors
/// If its parts don't make one.
pub fn request(method: &str, path: String, body: Option<(&str, &Value)>) -> Result<http::Request<Vec<u8>>, CallError> {
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("accept", "application/json");
    if let Some((content_type, _)) = body {
        request = request.header("content-type", content_type);
    }
    let body = body.map(|(_, body)| body.to_string().into_bytes()).unwrap_or_default();
    request
        .body(body)
        .map_err(|error| CallError::Unsendable(error.to_string()))
}

/// The content type of JSON.
pub const JSON: &str = "application/json";

/// Makes a request, and reads its answer as JSON.
///
/// # Errors
/// If it is not answered with success.
pub async fn call(
    context: &AttemptContext,
    verb: Verb,
    request: Result<http::Request<Vec<u8>>, CallError>,
) -> Result<Value, CallError> {
    let text = call_text(context, verb, request).await?;
    serde_json::from_slice(&text).map_err(|error| CallError::NoAnswer(format!("the answer is not JSON: {error}")))
}

/// Makes a request, and reads its answer as it is.
///
/// # Errors
/// If it is not answered with success.
pub async fn call_text(
    context: &AttemptContext,
    verb: Verb,
    request: Result<http::Request<Vec<u8>>, CallError>,
) -> Result<bytes::Bytes, CallError> {
    let request = request?;
    if verb.writes() && !context.claim.is_held() {
        return Err(CallError::LeadershipLost);
    }
    let exchange = async {
        let response = context
            .kubernetes
            .send(request.map(Body::from))
            .await
            .map_err(not_answered)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
            match error.downcast_ref::<LengthLimitError>() {
                Some(_) => CallError::TooLarge,
                None => CallError::NoAnswer(format!("the answer broke off: {error}")),
            }
        })?;
        Ok((head, body.to_bytes()))
    };
    let (head, body) = timeout(CALL_TIMEOUT, exchange).await.unwrap_or_else(|_| {
        Err(CallError::NoAnswer(format!(
            "no answer within {} s",
            CALL_TIMEOUT.as_secs()
        )))
    })?;
    if head.status.is_success() {
        return Ok(body);
    }
    let status: Status = serde_json::from_slice(&body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&body);
        Status::failure(&shorten(text.trim(), MAX_FOREIGN_MESSAGE), "")
    });
    let header = head
        .headers
        .get(RETRY_AFTER)
        .and_then(|v| v.to_str().ok()?.parse().ok());
    let details = status
        .details
        .as_ref()
        .map(|d| u64::from(d.retry_after_seconds))
        .filter(|s| *s > 0);
    Err(CallError::Answered {
        code: head.status.as_u16(),
        retry_after: header.or(details).map(Duration::from_secs),
        status: status.boxed(),
    })
}

fn not_answered(error: kube::Error) -> CallError {
    match error {
        kube::Error::Service(error) => match error.downcast::<Refused>() {
            Ok(refused) => CallError::Refused(*refused),
            Err(error) => CallError::NoAnswer(chain(&*error)),
        },
        error => CallError::NoAnswer(in_words(&error)),
    }
}

/// A client's error as people read it, without its type names.
pub fn in_words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        kube::Error::Service(error) => chain(&**error),
        error => chain(error),
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl CallError {
    /// The HTTP status that it was answered with.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Answered { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// What the API server calls it.
    pub fn reason(&self) -> &str {
        match self {
            Self::Answered { status, .. } => &status.reason,
            _ => "",
        }
    }

    /// True if the object isn't there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404) && self.reason() == "NotFound"
    }

    /// True if the object isn't in the state that the request was made for.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && self.reason() != "AlreadyExists"
    }

    /// What happened, as far as the step lets it be told: a sensitive one records nothing of an answer.
    pub fn said(&self, context: &AttemptContext) -> String {
        match self {
            Self::Answered { .. } if context.sensitive => {
                "what the API server said is not recorded, as the step is sensitive".to_owned()
            }
            error => error.to_string(),
        }
    }

    /// What it means for the attempt.
    pub fn failure(self, context: &AttemptContext, verb: Verb, target: &Target<'_>) -> AttemptFailure {
        let said = self.said(context);
        let message = format!("{verb} of {target}: {said}");
        let (code, reason, retry_after) = match self {
            Self::LeadershipLost => return AttemptFailure::retryable("LeadershipLost", message),
            Self::Refused(_) => return AttemptFailure::definite("AccessDenied", said),
            Self::Unsendable(_) => return AttemptFailure::definite("Invalid", message),
            Self::NoAnswer(_) => return unless_read(verb, AttemptFailure::unknown("NoAnswer", message)),
            Self::TooLarge if verb.writes() => return AttemptFailure::unknown("ResultTooLarge", message),
            Self::TooLarge => return AttemptFailure::definite("ResultTooLarge", message),
            Self::Answered {
                code,
                status,
                retry_after,
            } => (code, status.reason, retry_after),
        };
        let failure = match code {
            401 => AttemptFailure::retryable("Unauthorized", message),
            403 => {
                let account = ServiceAccount::of(context);
                AttemptFailure::retryable("AccessDenied", denied(&account, verb, target, &said))
            }
            // The path itself isn't served: the kind's definition is gone, or not there yet.
            404 if reason != "NotFound" => AttemptFailure::retryable("KindNotFound", message),
            404 if verb == Verb::Create => AttemptFailure::retryable("NotFound", message), // its namespace
            404 => AttemptFailure::definite("NotFound", format!("{target} doesn't exist")),
            409 if reason == "AlreadyExists" => AttemptFailure::definite("AlreadyExists", message),
            409 => AttemptFailure::retryable("Conflict", message),
            410 => AttemptFailure::retryable("Expired", message),
            429 => AttemptFailure::retryable("TooManyRequests", message),
            // Server-side apply answers a manifest that doesn't fit its schema with 500 and no reason:
            // nothing was done, and nothing ever will be.
            500 if said.contains("failed to create typed patch object") => AttemptFailure::definite("Invalid", message),
            408 | 500.. => unless_read(verb, AttemptFailure::unknown("ServerError", message)),
            _ => AttemptFailure::definite("Invalid", message),
        };
        match retry_after {
            Some(wait) if failure.retry != RetryAdvice::Never => AttemptFailure {
                retry: RetryAdvice::After(wait),
                ..failure
            },
            _ => failure,
        }
    }
}

/// A read has no effect, whatever came of it.
fn unless_read(verb: Verb, failure: AttemptFailure) -> AttemptFailure {
    if verb.writes() {
        failure
    } else {
        AttemptFailure {
            effect: Effect::None,
            ..failure
        }
    }
}

/// `service account prod/releaser may not patch deployments.apps in namespace prod: ...`.
pub fn denied(account: &ServiceAccount, verb: Verb, target: &Target<'_>, said: &str) -> String {
    let below = if target.subresource.is_empty() {
        String::new()
    } else {
        format!("/{}", target.subresource)
    };
    let place = match target.namespace {
        Some(namespace) => format!("in namespace {namespace}"),
        None => "in the cluster".to_owned(),
    };
    let resource = target.resource.qualified();
    format!("service account {account} may not {verb} {resource}{below} {place}: {said}")
}

#[cfg(test)]
mod tests;
