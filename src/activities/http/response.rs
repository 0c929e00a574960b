//! What an answer means: success, a definite no, or that another attempt may succeed.

use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value, json};

use super::mask::Masker;
use super::transport::{SendError, WireResponse};
use crate::api::ExternalRef;
use crate::engine::expression::{Expression, ExpressionError, Scope};
use crate::engine::{AttemptFailure, Effect, Outcome, RetryAdvice, shorten};

/// How much of an answer's body a message quotes, in characters.
const EXCERPT: usize = 300;
/// How much of a URL a message shows, in characters.
const SHOWN_URL: usize = 200;

/// What the meaning of an answer depends on, beside the answer.
pub(super) struct Call {
    /// The method that was asked for.
    pub(super) method: Method,
    /// Method and URL, for messages.
    pub(super) shown: String,
    /// What makes an answer a success; `None` for a 2xx status.
    pub(super) success: Option<Expression>,
    /// What goes on at the other side if it answers 202; `None` where that is an answer like any other.
    pub(super) accepted: Option<ExternalRef>,
    /// What `success` may read beside `result`.
    pub(super) scope: Scope,
    /// True if nothing of the answer may be quoted.
    pub(super) sensitive: bool,
    /// True if a part of the answer goes into a Secret: of a good one, nothing may be quoted.
    pub(super) writes_secret: bool,
    /// True if an earlier attempt may have had its effect.
    pub(super) maybe_done: bool,
    /// Masks the secrets that were sent.
    pub(super) masker: Masker,
}

impl Call {
    pub(super) fn shown(method: &Method, url: &url::Url, masker: &Masker) -> String {
        format!("{method} {}", shorten(&masker.text(url.as_str()), SHOWN_URL))
    }

    /// The failure of a call without an answer.
    pub(super) fn unanswered(&self, error: &SendError) -> AttemptFailure {
        let message = format!("{}: {error}", self.shown);
        match error {
            SendError::NotAllowed(_) => AttemptFailure::definite("TargetNotAllowed", message),
            // Names are never completed by the operator's search domains, as those of a pod would be.
            SendError::Dns { name, .. } if name.trim_end_matches('.').matches('.').count() < 2 => {
                AttemptFailure::retryable(
                    "DnsFailed",
                    format!("{message} (a Service is called by <name>.<namespace>.svc)"),
                )
            }
            SendError::Dns { .. } => AttemptFailure::retryable("DnsFailed", message),
            SendError::Connect(_) => AttemptFailure::retryable("ConnectionFailed", message),
            SendError::Tls(_) => AttemptFailure::retryable(
                "TlsFailed",
                format!("{message} (http.tls.ca says whom to trust in place of the public authorities)"),
            ),
            SendError::NoAnswer(_) => AttemptFailure::unknown("NoAnswer", message),
        }
    }

    /// What an answer means. `redirect` says why it was not followed, if it is a redirect.
    pub(super) fn judge(&self, answer: &WireResponse, redirect: Option<&str>) -> Outcome {
        if let (StatusCode::ACCEPTED, Some(external)) = (answer.status, &self.accepted) {
            let external = external.clone();
            return Outcome::Accepted { external };
        }
        let result = result(answer);
        let success = self.success.as_ref().map(|success| {
            let scope = self.scope.clone().with("result", result.clone());
            (success, success.evaluate_bool(&scope))
        });
        let ok = answer.status.is_success();
        let succeeded = match &success {
            None => ok,
            Some((_, verdict)) => matches!(verdict, Ok(true)),
        };
        let unmasked = self.writes_secret.then(|| result.clone());
        let result = self.masker.value(result);
        if answer.truncated && (ok || succeeded) {
            return self.too_large(answer);
        }
        let gone_already = self.method == Method::DELETE && answer.status == StatusCode::NOT_FOUND && self.maybe_done;
        if succeeded || gone_already {
            return Outcome::Succeeded { result, unmasked };
        }
        let failure = match success {
            Some((success, Err(error))) if ok => self.not_evaluated(answer, success, &error),
            Some((success, _)) if ok => AttemptFailure::definite(
                "NotSuccessful",
                self.message(
                    answer,
                    &result,
                    Some(&format!("http.success is false: {}", success.source())),
                ),
            ),
            _ => self.refused(answer, self.message(answer, &result, redirect)),
        };
        // A no says that this attempt did nothing, not that an earlier one didn't.
        let doubt = self.maybe_done && failure.retry == RetryAdvice::Never;
        Outcome::Failed(AttemptFailure {
            effect: if doubt { Effect::Unknown } else { failure.effect },
            ..failure
        })
    }

    /// A status that isn't success.
    fn refused(&self, answer: &WireResponse, message: String) -> AttemptFailure {
        let mut failure = match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => AttemptFailure::retryable("AccessDenied", message),
            StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => AttemptFailure::retryable("HttpStatus", message),
            StatusCode::REQUEST_TIMEOUT => AttemptFailure::unknown("HttpStatus", message),
            status if status.is_server_error() => AttemptFailure::unknown("HttpStatus", message),
            // The earlier attempt under the same key may still be at work.
            StatusCode::CONFLICT if self.maybe_done => AttemptFailure::unknown("HttpStatus", message),
            _ => return AttemptFailure::definite("HttpStatus", message),
        };
        if let Some(wait) = retry_after(&answer.headers, SystemTime::now()) {
            failure.retry = RetryAdvice::After(wait);
        }
        failure
    }

    /// The other side did its work and its answer can't be judged: definite, as another attempt would be answered the
    /// same, but its effect is there.
    fn not_evaluated(&self, answer: &WireResponse, success: &Expression, error: &ExpressionError) -> AttemptFailure {
        let problem = if self.sensitive || self.writes_secret {
            "it could not be evaluated".to_owned()
        } else {
            self.masker.text(&error.to_string()).into_owned()
        };
        let message = format!(
            "{} → {}; http.success: {}: {problem}",
            self.shown,
            status(answer.status),
            success.source()
        );
        AttemptFailure {
            effect: Effect::Unknown,
            ..AttemptFailure::definite("InvalidExpression", message)
        }
    }

    fn too_large(&self, answer: &WireResponse) -> Outcome {
        let message = format!(
            "{} → {}, but the answer has more than the {} bytes that are read of it: raise http.maxResponseBytes",
            self.shown,
            status(answer.status),
            answer.body.len()
        );
        Outcome::Failed(AttemptFailure {
            effect: Effect::Unknown,
            ..AttemptFailure::definite("ResponseTooLarge", message)
        })
    }

    fn message(&self, answer: &WireResponse, masked: &Value, note: Option<&str>) -> String {
        let mut message = format!("{} → {}", self.shown, status(answer.status));
        if self.sensitive {
            return message;
        }
        if let Some(note) = note {
            message = format!("{message}; {}", self.masker.text(note));
        }
        if self.writes_secret && answer.status.is_success() {
            return message;
        }
        // A body that was cut isn't quoted: a secret may have been cut with it, which no mask would find.
        let excerpt = masked.get("body").map(excerpt).filter(|excerpt| !excerpt.is_empty());
        match excerpt {
            Some(excerpt) => format!("{message}: {excerpt}"),
            None => message,
        }
    }
}

/// What expressions read as `result`. `body` is left out of an answer that is not text or was not read whole: only an
/// expression that needs it fails then.
fn result(answer: &WireResponse) -> Value {
    let mut headers = Map::new();
    for name in answer.headers.keys() {
        let values: Vec<_> = answer
            .headers
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()))
            .collect();
        headers.insert(name.to_string(), values.join(", ").into());
    }
    let mut result = json!({"status": answer.status.as_u16(), "headers": headers});
    if let (false, Ok(text)) = (answer.truncated, std::str::from_utf8(&answer.body)) {
        result["body"] = parsed(&answer.headers, text);
    }
    result
}

/// JSON where the answer says that it is and it is; text otherwise.
fn parsed(headers: &HeaderMap, text: &str) -> Value {
    let media_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let json = (media_type == "application/json" || media_type == "text/json" || media_type.ends_with("+json"))
        .then(|| serde_json::from_str(text).ok())
        .flatten();
    json.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// The part of a body that says what is wrong, in one line.
fn excerpt(body: &Value) -> String {
    let said = ["message", "error", "detail"].into_iter().find_map(|field| {
        let value = body.get(field)?;
        value
            .as_str()
            .or_else(|| value.get("message")?.as_str())
            .filter(|text| !text.is_empty())
    });
    let text = match (said, body) {
        (Some(text), _) => text.to_owned(),
        (None, Value::String(text)) => text.clone(),
        (None, other) => other.to_string(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    shorten(&line, EXCERPT)
}

/// `429 Too Many Requests`.
fn status(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// How long the other side asks to wait: seconds, or a time, which is read by the other side's own clock where the
/// answer tells it.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let wanted = text(RETRY_AFTER)?;
    if let Ok(seconds) = wanted.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(wanted).ok()?;
    let now = text(DATE)
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .unwrap_or(now);
    Some(until.duration_since(now).unwrap_or_default())
}
