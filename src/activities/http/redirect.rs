//! Which redirects are followed (RFC 9110, section 15.4): those within the same host, as long as they keep the meaning
//! of the request. Any other is the answer, and the message of the failure says why it wasn't followed.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, StatusCode};
use url::Url;

use super::request::has_user;
use super::transport::{WireRequest, WireResponse};

/// How many redirects of one call are followed.
pub(super) const MAX_REDIRECTS: usize = 5;

/// What to do about an answer.
pub(super) enum Next {
    /// It is no redirect.
    Answer,
    /// It is one that isn't followed, and this is why.
    NotFollowed(String),
    /// Send this.
    Follow(Box<WireRequest>),
}

/// What to do about the answer to a request.
pub(super) fn next(request: &WireRequest, answer: &WireResponse) -> Next {
    let see_other = answer.status == StatusCode::SEE_OTHER;
    match answer.status {
        StatusCode::SEE_OTHER | StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {}
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => {}
        _ => return Next::Answer,
    }
    let Some(location) = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()) else {
        return Next::NotFollowed("it is a redirect without a readable Location".to_owned());
    };
    let Ok(mut url) = request.url.join(location) else {
        return Next::NotFollowed(format!("it redirects to {location:?}, which is not a URL"));
    };
    let not_followed = |why: &str| {
        let mut shown = url.clone();
        // Fails only for URLs without a host, which have no user either.
        let _ = (shown.set_username(""), shown.set_password(None));
        Next::NotFollowed(format!("it redirects to {shown}, which is not followed, as {why}"))
    };
    if !matches!(url.scheme(), "http" | "https") || has_user(&url) {
        return not_followed("it is not a plain http or https address");
    }
    if url.host() != request.url.host() {
        return not_followed("that is another host: call it directly");
    }
    if !same_port_or_more_secure(&request.url, &url) {
        return not_followed("that is another port or less secure: call it directly");
    }
    if request.method == Method::POST && matches!(answer.status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND) {
        return not_followed("it doesn't say whether to POST there or to GET it (307 or 303 would): call it directly");
    }
    url.set_fragment(None);
    let mut followed = WireRequest { url, ..request.clone() };
    if see_other && request.method != Method::HEAD {
        followed.method = Method::GET;
        followed.body = Bytes::new();
        followed.headers.remove(CONTENT_TYPE);
    }
    Next::Follow(Box::new(followed))
}

fn same_port_or_more_secure(from: &Url, to: &Url) -> bool {
    match (from.scheme(), to.scheme()) {
        ("http", "https") => true,
        (from_scheme, to_scheme) => {
            from_scheme == to_scheme && from.port_or_known_default() == to.port_or_known_default()
        }
    }
}
