//! Redirects: within the host, with the request's meaning kept, and never silently.

use super::*;

/// Answers `/<status>` with that status and a redirect to `/end`.
async fn redirecting() -> Server {
    Server::answering(|seen| match seen.uri.trim_start_matches('/').parse() {
        Ok(status) => answer(status, &[("location", "/end?x=1")], ""),
        Err(_) => answer(200, &[], "the end"),
    })
    .await
}

#[tokio::test]
async fn redirects_within_the_host_keep_the_method_or_become_a_get_as_the_rfc_says() {
    for (status, method, becomes) in [
        (301, "GET", "GET"),
        (302, "GET", "GET"),
        (302, "PUT", "PUT"),
        (303, "GET", "GET"),
        (303, "HEAD", "HEAD"),
        (303, "POST", "GET"),
        (307, "POST", "POST"),
        (308, "DELETE", "DELETE"),
    ] {
        let server = redirecting().await;
        let attempt = Attempt::first();
        let request = json!({"method": method, "url": server.url(&format!("/{status}")), "body": {"a": 1}});
        attempt.result(request).await;
        let seen = server.seen();
        assert_eq!(seen.len(), 2);
        assert_eq!(
            (seen[1].method.as_str(), seen[1].uri.as_str()),
            (becomes, "/end?x=1"),
            "{method} {status}"
        );
        assert_eq!(
            seen[1].header("idempotency-key"),
            Some(attempt.context.key.to_string().as_str())
        );
        let (body, content_type) = match status != 303 || method == "HEAD" {
            true => (r#"{"a":1}"#, Some("application/json")),
            false => ("", None),
        };
        assert_eq!(
            (seen[1].body.as_str(), seen[1].header("content-type")),
            (body, content_type),
            "{method} {status}"
        );
    }
}

#[tokio::test]
async fn a_redirect_that_is_not_followed_is_a_failure_that_says_why() {
    for (location, why) in [
        ("http://other.example/x", "that is another host: call it directly"),
        ("http://127.0.0.2/x", "that is another host: call it directly"),
        (
            "//127.0.0.1:1/x",
            "that is another port or less secure: call it directly",
        ),
        ("file:///etc/passwd", "it is not a plain http or https address"),
        ("http://u:hidden@127.0.0.1/x", "it is not a plain http or https address"),
        ("http://[", "which is not a URL"),
    ] {
        let server = Server::answering(move |_| answer(307, &[("location", location)], "")).await;
        let failure = Attempt::first()
            .failure(json!({"method": "POST", "url": server.url("/")}))
            .await;
        assert_eq!(
            (failure.reason.as_str(), failure.retry),
            ("HttpStatus", RetryAdvice::Never),
            "{location}"
        );
        assert!(failure.message.contains(why), "{}", failure.message);
        assert!(!failure.message.contains("hidden"), "{}", failure.message);
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_redirect_never_leads_from_https_to_http() {
    let request = |url: &str| WireRequest {
        method: Method::GET,
        url: url.parse().unwrap(),
        headers: HeaderMap::new(),
        body: bytes::Bytes::new(),
        ca: None,
        targets: targets(&[]),
        max_response_bytes: 0,
    };
    let redirect = |location: &str| WireResponse {
        status: StatusCode::TEMPORARY_REDIRECT,
        headers: HeaderMap::from_iter([(http::header::LOCATION, location.parse().unwrap())]),
        body: bytes::Bytes::new(),
        truncated: false,
    };
    let down = redirect::next(&request("https://a.example/"), &redirect("http://a.example/"));
    assert!(matches!(down, Next::NotFollowed(why) if why.contains("less secure")));
    let up = redirect::next(&request("http://a.example/"), &redirect("https://a.example/x"));
    assert!(matches!(up, Next::Follow(next) if next.url.as_str() == "https://a.example/x"));
}

#[tokio::test]
async fn a_post_is_not_turned_into_a_get_by_an_unclear_redirect() {
    for status in [301, 302] {
        let server = redirecting().await;
        let failure = Attempt::first()
            .failure(json!({"method": "POST", "url": server.url(&format!("/{status}"))}))
            .await;
        assert!(
            failure
                .message
                .contains("doesn't say whether to POST there or to GET it"),
            "{}",
            failure.message
        );
        assert_eq!((failure.effect, server.seen().len()), (Effect::None, 1));
    }
}

#[tokio::test]
async fn five_redirects_are_followed_and_no_more() {
    let server = Server::answering(|seen| match seen.uri.trim_start_matches('/').parse::<u32>().unwrap() {
        0 => answer(200, &[], ""),
        left => answer(307, &[("location", &format!("/{}", left - 1))], ""),
    })
    .await;
    Attempt::first().result(json!({"url": server.url("/5")})).await;
    let failure = Attempt::first().failure(json!({"url": server.url("/6")})).await;
    assert!(
        failure.message.contains("it redirects again, after 5 redirects"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn after_see_other_a_failure_leaves_it_open_whether_the_request_was_done() {
    let server = Server::answering(|seen| match seen.method.as_str() {
        "POST" => answer(303, &[("location", "/status")], ""),
        _ => answer(404, &[], ""),
    })
    .await;
    let failure = Attempt::first()
        .failure(json!({"method": "POST", "url": server.url("/")}))
        .await;
    assert_eq!((failure.effect, failure.retry), (Effect::Unknown, RetryAdvice::Never));
    assert!(
        failure
            .message
            .starts_with(&format!("GET {} → 404", server.url("/status"))),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_step_may_take_a_redirect_for_its_answer() {
    let server = Server::answering(|_| answer(302, &[("location", "http://other.example/")], "")).await;
    let request = json!({"url": server.url("/"), "success": "result.status == 302"});
    let result = Attempt::first().result(request).await;
    assert_eq!(result["headers"]["location"], "http://other.example/");
}
