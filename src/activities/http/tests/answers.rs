//! What is sent, and what each answer means.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_request_carries_the_key_and_what_the_step_says() {
    let server = Server::answering(|_| json_answer(201, &json!({"id": 7, "ratio": 0.5}))).await;
    let attempt = Attempt::first();

    let result = attempt
        .result(json!({
            "method": "POST",
            "url": server.url("/groups/web?dry=1#top"),
            "headers": [{"name": "X-Team", "value": "a"}],
            "body": {"size": 12},
        }))
        .await;

    let seen = &server.seen()[0];
    assert_eq!((seen.method.as_str(), seen.uri.as_str()), ("POST", "/groups/web?dry=1"));
    assert_eq!(
        seen.header("idempotency-key"),
        Some(attempt.context.key.to_string().as_str())
    );
    assert_eq!(
        seen.header("user-agent"),
        Some(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("x-team"), Some("a"));
    assert_eq!(seen.header("host"), Some(server.address.to_string().as_str()));
    assert_eq!(seen.body, r#"{"size":12}"#);
    assert_eq!(
        (&result["status"], &result["body"]),
        (&json!(201), &json!({"id": 7, "ratio": 0.5}))
    );
}

#[tokio::test]
async fn a_string_is_sent_as_text_unless_a_header_says_otherwise() {
    let server = Server::answering(|_| answer(200, &[], "")).await;
    let attempt = Attempt::first();
    attempt
        .result(json!({"method": "PUT", "url": server.url("/"), "body": "a: 1"}))
        .await;
    let yaml = json!([{"name": "content-type", "value": "application/yaml"}]);
    attempt
        .result(json!({"method": "PUT", "url": server.url("/"), "body": "a: 1", "headers": yaml}))
        .await;

    let seen = server.seen();
    assert_eq!(
        (seen[0].header("content-type"), seen[0].body.as_str()),
        (Some("text/plain; charset=utf-8"), "a: 1")
    );
    assert_eq!(
        (seen[1].header("content-type"), seen[1].body.as_str()),
        (Some("application/yaml"), "a: 1")
    );
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let peers = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = peers.clone();
    let handler = move |peer: axum::extract::ConnectInfo<SocketAddr>| async move {
        seen.lock().unwrap().insert(peer.0.port());
    };
    let service = Router::new()
        .fallback(handler)
        .into_make_service_with_connect_info::<SocketAddr>();
    let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });

    let attempt = Attempt::first();
    for _ in 0..3 {
        attempt.result(json!({"url": format!("http://{address}/")})).await;
    }
    assert_eq!(peers.lock().unwrap().len(), 1);
    task.abort();
}

#[tokio::test]
async fn what_can_not_be_sent_is_refused_by_its_field() {
    let attempt = Attempt::first();
    let header =
        |name: &str, value: &str| json!({"url": "http://x.example", "headers": [{"name": name, "value": value}]});
    for (request, says) in [
        (
            json!({"url": "ftp://x.example"}),
            "http.url: it must begin with http:// or https://",
        ),
        (json!({"url": "no url"}), "http.url: relative URL without a base"),
        (
            json!({"url": "http://me:pw@x.example"}),
            "http.url: it holds a user name or password: give them by http.auth",
        ),
        (
            header("Idempotency-Key", "mine"),
            "http.headers[Idempotency-Key]: every request carries the step's own key",
        ),
        (
            header("Host", "metadata"),
            "http.headers[Host]: the connection sets this header",
        ),
        (
            header("X-A", "a\r\nX-B: b"),
            "http.headers[x-a]: the value holds characters",
        ),
        (
            json!({"url": "http://x.example", "headers": [{"name": "authorization", "value": "x"}],
                "auth": {"serviceAccountToken": {"audience": "a"}}}),
            "http.headers: there is an Authorization header and http.auth",
        ),
    ] {
        let failure = attempt.failure(request).await;
        assert_eq!(
            (failure.reason.as_str(), failure.retry),
            ("InvalidRequest", RetryAdvice::Never)
        );
        assert_eq!(failure.effect, Effect::None);
        assert!(failure.message.starts_with(says), "{}", failure.message);
        assert!(!failure.message.contains("pw"), "{}", failure.message);
    }
}

#[tokio::test]
async fn each_status_is_what_the_design_says() {
    use Effect::{None, Unknown};
    use RetryAdvice::{Backoff, Never};
    for (status, method, maybe_done, expected) in [
        (400, "GET", false, ("HttpStatus", None, Never)),
        (401, "GET", false, ("AccessDenied", None, Backoff)),
        (403, "GET", false, ("AccessDenied", None, Backoff)),
        (404, "DELETE", false, ("HttpStatus", None, Never)),
        (404, "GET", true, ("HttpStatus", Unknown, Never)),
        (408, "GET", false, ("HttpStatus", Unknown, Backoff)),
        (409, "POST", false, ("HttpStatus", None, Never)),
        (409, "POST", true, ("HttpStatus", Unknown, Backoff)),
        (422, "POST", true, ("HttpStatus", Unknown, Never)),
        (425, "POST", false, ("HttpStatus", None, Backoff)),
        (429, "POST", false, ("HttpStatus", None, Backoff)),
        (500, "POST", false, ("HttpStatus", Unknown, Backoff)),
        (503, "POST", false, ("HttpStatus", Unknown, Backoff)),
        (304, "GET", false, ("HttpStatus", None, Never)),
    ] {
        let server = Server::answering(move |_| answer(status, &[], "")).await;
        let mut attempt = Attempt::first();
        attempt.context.maybe_done = maybe_done;
        let failure = attempt.failure(json!({"method": method, "url": server.url("/")})).await;
        let got = (failure.reason.as_str(), failure.effect, failure.retry);
        assert_eq!(got, expected, "{method} answered by {status}, maybe done: {maybe_done}");
    }
}

#[tokio::test]
async fn a_delete_that_may_have_been_done_finds_nothing_left() {
    let server = Server::answering(|_| answer(404, &[], "")).await;
    let result = Attempt::after_an_unknown_one()
        .result(json!({"method": "DELETE", "url": server.url("/")}))
        .await;
    assert_eq!(result["status"], 404);
}

#[tokio::test]
async fn retry_after_is_honoured_in_both_forms() {
    for (headers, wait) in [
        (vec![("retry-after", "7")], 7),
        (
            vec![
                ("retry-after", "Tue, 24 Nov 2026 03:01:30 GMT"),
                ("date", "Tue, 24 Nov 2026 03:00:00 GMT"),
            ],
            90,
        ),
        (
            vec![
                ("retry-after", "Tue, 24 Nov 2026 02:00:00 GMT"),
                ("date", "Tue, 24 Nov 2026 03:00:00 GMT"),
            ],
            0,
        ),
    ] {
        for status in [429, 503] {
            let headers = headers.clone();
            let server = Server::answering(move |_| answer(status, &headers, "")).await;
            let failure = Attempt::first().failure(json!({"url": server.url("/")})).await;
            assert_eq!(failure.retry, RetryAdvice::After(Duration::from_secs(wait)));
        }
    }
}

#[tokio::test]
async fn a_failure_says_what_the_other_side_said() {
    let long = "x".repeat(1000);
    for (content_type, body, says) in [
        (
            "application/problem+json",
            json!({"detail": "group is\nlocked", "a": 1}).to_string(),
            ": group is locked",
        ),
        (
            "application/json",
            json!({"error": {"message": "too many"}}).to_string(),
            ": too many",
        ),
        ("application/json", json!({"code": 3}).to_string(), r#": {"code":3}"#),
        ("application/json", "{not json".to_owned(), ": {not json"),
        ("text/html", "<p>\n  no\n</p>".to_owned(), ": <p> no </p>"),
        ("text/plain", String::new(), ""),
        ("text/plain", long.clone(), &format!(": {}…", &long[..299])),
    ] {
        let server = Server::answering(move |_| answer(422, &[("content-type", content_type)], body.clone())).await;
        let failure = Attempt::first()
            .failure(json!({"method": "POST", "url": server.url("/groups?a=b")}))
            .await;
        let url = server.url("/groups?a=b");
        assert_eq!(failure.message, format!("POST {url} → 422 Unprocessable Entity{says}"));
    }
}

#[tokio::test]
async fn a_sensitive_step_says_nothing_of_the_answer_but_its_status() {
    let server = Server::answering(|_| answer(302, &[("location", "http://evil.example/?t=body")], "body")).await;
    let mut attempt = Attempt::first();
    attempt.context.sensitive = true;
    let url = server.url("/");
    let failure = attempt.failure(json!({"url": url})).await;
    assert_eq!(failure.message, format!("GET {url} → 302 Found"));
}

#[tokio::test]
async fn of_an_answer_that_goes_into_a_secret_nothing_is_quoted() {
    let json = [("content-type", "application/json")];
    let server = Server::answering(move |seen| match seen.uri.as_str() {
        "/done" => answer(200, &json, r#"{"token": "hunter2"}"#),
        _ => answer(422, &json, r#"{"message": "frozen"}"#),
    })
    .await;
    for (path, success, quoted) in [
        ("/done", "int(result.body.token) > 0", None),
        ("/done", "result.body.token == ''", None),
        ("/no", "result.status == 200", Some("frozen")),
    ] {
        let mut attempt = Attempt::first();
        attempt.context.writes_secret = true;
        let message = attempt
            .failure(json!({"url": server.url(path), "success": success}))
            .await
            .message;
        assert!(!message.contains("hunter2"), "{message}");
        assert!(quoted.is_none_or(|quoted| message.contains(quoted)), "{message}");
    }
}

#[tokio::test]
async fn the_result_has_status_headers_and_body() {
    let server = Server::answering(|seen| match seen.uri.as_str() {
        "/text" => answer(200, &[("x-a", "1"), ("X-A", "2"), ("content-type", "text/plain")], "{}"),
        "/json" => answer(
            200,
            &[("content-type", "application/json; charset=utf-8")],
            "[1, -2, 1.5]",
        ),
        "/empty" => answer(204, &[], ""),
        _ => answer(200, &[("content-type", "application/octet-stream")], vec![0xff, 0xfe]),
    })
    .await;
    let attempt = Attempt::first();
    let text = attempt.result(json!({"url": server.url("/text")})).await;
    assert_eq!(
        (&text["status"], &text["headers"]["x-a"], &text["body"]),
        (&json!(200), &json!("1, 2"), &json!("{}"))
    );
    assert_eq!(
        attempt.result(json!({"url": server.url("/json")})).await["body"],
        json!([1, -2, 1.5])
    );
    assert_eq!(
        attempt.result(json!({"url": server.url("/empty")})).await["body"],
        json!("")
    );
    let bytes = attempt.result(json!({"url": server.url("/bytes")})).await;
    assert_eq!((&bytes["status"], bytes.get("body")), (&json!(200), None));
}

#[tokio::test]
async fn success_is_what_the_step_says_it_is() {
    let server = Server::answering(|seen| match seen.uri.as_str() {
        "/done" => json_answer(200, &json!({"state": "done"})),
        "/failed" => json_answer(200, &json!({"state": "failed"})),
        "/gone" => answer(404, &[], ""),
        "/down" => answer(503, &[], "<html>"),
        _ => json_answer(200, &json!({"status": "?"})),
    })
    .await;
    let attempt = Attempt::first();
    let request = |path: &str, success: &str| json!({"url": server.url(path), "success": success});

    attempt.result(request("/done", "result.body.state == 'done'")).await;
    attempt.result(request("/gone", "result.status in [200, 404]")).await;

    let failure = attempt.failure(request("/failed", "result.body.state == 'done'")).await;
    assert_eq!(
        (failure.reason.as_str(), failure.retry),
        ("NotSuccessful", RetryAdvice::Never)
    );
    assert!(
        failure
            .message
            .contains("http.success is false: result.body.state == 'done'"),
        "{}",
        failure.message
    );

    // An answer that isn't the service's own, from a proxy say, is judged by its status.
    let failure = attempt.failure(request("/down", "result.body.state == 'done'")).await;
    assert_eq!(
        (failure.reason.as_str(), failure.retry),
        ("HttpStatus", RetryAdvice::Backoff)
    );

    let failure = attempt.failure(request("/other", "result.body.state == 'done'")).await;
    assert_eq!(
        (failure.reason.as_str(), failure.retry),
        ("InvalidExpression", RetryAdvice::Never)
    );
    assert_eq!(failure.effect, Effect::Unknown);
    assert!(
        failure.message.contains("http.success: result.body.state == 'done'"),
        "{}",
        failure.message
    );

    let failure = attempt.failure(request("/other", "result.body.(")).await;
    assert_eq!(
        (failure.reason.as_str(), failure.effect),
        ("InvalidExpression", Effect::None)
    );
    assert_eq!(
        server.seen().len(),
        5,
        "a step whose expression can't be read sends nothing"
    );
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_a_failure_that_says_so() {
    let server = Server::answering(|seen| {
        let status = if seen.uri == "/refused" { 422 } else { 200 };
        answer(status, &[], "x".repeat(2000))
    })
    .await;
    let attempt = Attempt::first();
    let request = |path: &str, max: usize| json!({"url": server.url(path), "maxResponseBytes": max});

    attempt.result(request("/", 2000)).await;
    let failure = attempt.failure(request("/", 1999)).await;
    assert_eq!(
        (failure.reason.as_str(), failure.retry),
        ("ResponseTooLarge", RetryAdvice::Never)
    );
    assert_eq!(failure.effect, Effect::Unknown, "the other side did what it was asked");
    assert!(
        failure.message.contains("more than the 1999 bytes"),
        "{}",
        failure.message
    );
    assert!(failure.message.contains("http.maxResponseBytes"), "{}", failure.message);

    let failure = attempt.failure(request("/refused", 10)).await;
    assert_eq!((failure.reason.as_str(), failure.effect), ("HttpStatus", Effect::None));
}

#[tokio::test]
async fn nothing_is_sent_without_leadership() {
    let server = Server::answering(|_| answer(200, &[], "")).await;
    let mut attempt = Attempt::first();
    attempt.context.claim = Arc::new(Leader(false));
    let failure = attempt.failure(json!({"method": "POST", "url": server.url("/")})).await;
    assert_eq!(
        (failure.reason.as_str(), failure.effect),
        ("LeadershipLost", Effect::None)
    );
    assert!(server.seen().is_empty());
}
