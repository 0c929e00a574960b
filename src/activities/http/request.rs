//! From the step's request to what is sent: checked before anything is read or sent, then completed with secrets.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde_json::Value;
use url::Url;

use super::Targets;
use super::secrets::Secrets;
use super::transport::WireRequest;
use crate::api;
use crate::engine::AttemptFailure;

/// The header that carries the key by which the other side knows a repeated request.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The headers that tell the other side where to call back, and what to show there.
pub(super) const CALLBACK_URL: HeaderName = HeaderName::from_static("holdfast-callback-url");
pub(super) const CALLBACK_TOKEN: HeaderName = HeaderName::from_static("holdfast-callback-token");

/// How much of an answer is read by default, in bytes.
const MAX_RESPONSE_BYTES: i32 = 1024 * 1024;

/// What the connection sets, not the step.
const RESERVED: [&str; 8] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The request without what is read from Secrets.
///
/// # Errors
/// `InvalidRequest`, naming the field: what it was filled in with can't be sent.
pub(super) fn draft(request: &api::Http, key: &str, targets: &Targets) -> Result<WireRequest, AttemptFailure> {
    let mut headers = HeaderMap::new();
    for header in &request.headers {
        let name = header_name(&header.name)?;
        if let Some(value) = &header.value {
            headers.append(&name, header_value(&name, value)?);
        }
    }
    if request.auth.is_some()
        && request
            .headers
            .iter()
            .any(|h| h.name.eq_ignore_ascii_case("authorization"))
    {
        return Err(invalid(
            "headers",
            "there is an Authorization header and http.auth: give one of them",
        ));
    }
    let body = match &request.body {
        None => Bytes::new(),
        Some(body) => {
            let (media_type, bytes) = match body {
                Value::String(text) => ("text/plain; charset=utf-8", text.clone()),
                json => ("application/json", json.to_string()),
            };
            headers
                .entry(CONTENT_TYPE)
                .or_insert(HeaderValue::from_static(media_type));
            bytes.into()
        }
    };
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!(
        "holdfast/",
        env!("CARGO_PKG_VERSION")
    )));
    headers.insert(IDEMPOTENCY_KEY, header_value(&IDEMPOTENCY_KEY, key)?);
    let max = request.max_response_bytes.unwrap_or(MAX_RESPONSE_BYTES);
    Ok(WireRequest {
        method: method(request.method.unwrap_or_default()),
        url: url(&request.url)?,
        headers,
        body,
        ca: None,
        targets: targets.clone(),
        max_response_bytes: usize::try_from(max).unwrap_or_default(),
    })
}

/// Adds what was read from Secrets.
pub(super) fn complete(draft: WireRequest, secrets: &Secrets) -> WireRequest {
    let mut request = draft;
    for (name, value) in &secrets.headers {
        request.headers.append(name, value.clone());
    }
    if let Some(value) = &secrets.authorization {
        request.headers.insert(AUTHORIZATION, value.clone());
    }
    request.ca = secrets.ca.clone();
    request
}

/// The name of a header that a step may set.
pub(super) fn header_name(name: &str) -> Result<HeaderName, AttemptFailure> {
    let field = format!("headers[{name}]");
    let parsed = HeaderName::try_from(name)
        .map_err(|_| invalid(&field, "the name holds characters that a header can't have"))?;
    if parsed == IDEMPOTENCY_KEY {
        return Err(invalid(
            &field,
            "every request carries the step's own key in this header; read it as ${step.idempotencyKey} to send it elsewhere too",
        ));
    }
    if parsed == CALLBACK_URL || parsed == CALLBACK_TOKEN {
        return Err(invalid(
            &field,
            "the operator sets this header where async is true: leave it out",
        ));
    }
    if RESERVED.contains(&parsed.as_str()) {
        return Err(invalid(&field, "the connection sets this header: leave it out"));
    }
    Ok(parsed)
}

fn header_value(name: &HeaderName, value: &str) -> Result<HeaderValue, AttemptFailure> {
    HeaderValue::from_str(value).map_err(|_| {
        invalid(
            &format!("headers[{name}]"),
            "the value holds characters that a header can't have, such as a line break",
        )
    })
}

fn url(text: &str) -> Result<Url, AttemptFailure> {
    let field = "url";
    let mut url = Url::parse(text).map_err(|error| invalid(field, &format!("{error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid(field, "it must begin with http:// or https://"));
    }
    if has_user(&url) {
        return Err(invalid(
            field,
            "it holds a user name or password: give them by http.auth",
        ));
    }
    url.set_fragment(None); // never sent
    match Uri::try_from(url.as_str()) {
        Ok(_) => Ok(url),
        Err(error) => Err(invalid(field, &error.to_string())),
    }
}

/// True if a URL holds a user name or password.
pub(super) fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn invalid(field: &str, problem: &str) -> AttemptFailure {
    AttemptFailure::definite("InvalidRequest", format!("http.{field}: {problem}"))
}

fn method(method: api::Method) -> http::Method {
    match method {
        api::Method::Get => http::Method::GET,
        api::Method::Head => http::Method::HEAD,
        api::Method::Post => http::Method::POST,
        api::Method::Put => http::Method::PUT,
        api::Method::Patch => http::Method::PATCH,
        api::Method::Delete => http::Method::DELETE,
    }
}
