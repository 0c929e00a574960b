//! Secrets, tokens and certificates: read as the service account at the moment of the call, and never seen again.

use super::*;

const SECRET: &str = "GET /api/v1/namespaces/prod/secrets/inventory";

fn bearer() -> Value {
    json!({"bearer": {"secretKeyRef": {"name": "inventory", "key": "token"}}})
}

#[tokio::test]
async fn each_way_to_authenticate_sends_its_header() {
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {"audiences": []},
        "status": {"token": "issued-token", "expirationTimestamp": "2026-11-24T03:00:00Z"}});
    let cluster = Cluster::default()
        .secret(
            "inventory",
            &[
                ("token", "s3cr3t-token\n"),
                ("username", "jo"),
                ("password", "pässword"),
            ],
        )
        .answering(
            "POST /api/v1/namespaces/prod/serviceaccounts/releaser/token",
            201,
            token,
        );
    let asked = cluster.seen.clone();
    let attempt = Attempt::with(cluster);
    let server = Server::answering(|_| answer(200, &[], "")).await;
    for (auth, header) in [
        (bearer(), "Bearer s3cr3t-token"),
        (
            json!({"basic": {"secretRef": {"name": "inventory"}}}),
            "Basic am86cMOkc3N3b3Jk",
        ),
        (
            json!({"serviceAccountToken": {"audience": "inventory"}}),
            "Bearer issued-token",
        ),
    ] {
        attempt.result(json!({"url": server.url("/"), "auth": auth})).await;
        assert_eq!(server.seen().last().unwrap().header("authorization"), Some(header));
    }
    let (_, request) = asked.lock().unwrap().last().cloned().unwrap();
    assert_eq!(
        request["spec"],
        json!({"audiences": ["inventory"], "expirationSeconds": 600})
    );
}

#[tokio::test]
async fn a_header_can_come_from_a_secret() {
    let attempt = Attempt::with(Cluster::default().secret("inventory", &[("token", "s3cr3t")]));
    let server = Server::answering(|_| answer(200, &[], "")).await;
    let source = json!({"secretKeyRef": {"name": "inventory", "key": "token"}});
    attempt
        .result(json!({"url": server.url("/"), "headers": [{"name": "X-Api-Key", "valueFrom": source}]}))
        .await;
    assert_eq!(server.seen()[0].header("x-api-key"), Some("s3cr3t"));
}

#[tokio::test]
async fn what_the_other_side_echoes_of_a_secret_is_masked() {
    let attempt = Attempt::with(Cluster::default().secret(
        "inventory",
        &[("token", "s3cr3t/tok+en"), ("username", "jo"), ("password", "hunter2")],
    ));
    let server = Server::answering(|seen| {
        let status = if seen.uri.starts_with("/fail") { 400 } else { 200 };
        let sent = seen.header("authorization").unwrap();
        let value = sent.split_once(' ').unwrap().1;
        let headers = [("content-type", "application/json"), ("x-echo", sent)];
        let body = json!({"message": format!("denied: {sent}, {value}, s3cr3t%2Ftok%2Ben, hunter2"), "list": [value]});
        answer(status, &headers, body.to_string())
    })
    .await;

    for auth in [bearer(), json!({"basic": {"secretRef": {"name": "inventory"}}})] {
        let result = attempt.result(json!({"url": server.url("/"), "auth": auth})).await;
        assert_eq!(
            (&result["headers"]["x-echo"], &result["body"]["list"]),
            (&json!("***"), &json!(["***"]))
        );
    }
    let url = server.url("/fail?token=s3cr3t/tok+en");
    let failure = attempt.failure(json!({"url": url, "auth": bearer()})).await;
    let masked = server.url("/fail?token=***");
    assert_eq!(
        failure.message,
        format!("GET {masked} → 400 Bad Request: denied: ***, ***, ***, hunter2"),
        "the password was not read for this call"
    );
}

/// One that is sent the new token already, as an attempt before did the work, answers it again.
#[tokio::test]
async fn what_goes_into_a_secret_is_as_it_came() {
    let mut attempt = Attempt::with(Cluster::default().secret("inventory", &[("token", "s3cr3t-token")]));
    attempt.context.writes_secret = true;
    let json = [("content-type", "application/json")];
    let server = Server::answering(move |_| answer(200, &json, r#"{"token": "s3cr3t-token"}"#)).await;
    let outcome = attempt.run(json!({"url": server.url("/"), "auth": bearer()})).await;
    let Outcome::Succeeded { result, unmasked } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(result["body"]["token"], "***");
    assert_eq!(unmasked.unwrap()["body"]["token"], "s3cr3t-token");
}

#[tokio::test]
async fn a_secret_at_the_edge_of_what_a_message_quotes_is_masked_whole() {
    let attempt = Attempt::with(Cluster::default().secret("inventory", &[("token", "s3cr3t-token")]));
    for before in 285..305 {
        let server = Server::answering(move |_| answer(400, &[], format!("{}s3cr3t-token", "x".repeat(before)))).await;
        let failure = attempt.failure(json!({"url": server.url("/"), "auth": bearer()})).await;
        assert!(!failure.message.contains("xs"), "{}", failure.message);
    }
    // Where reading stopped in the middle of it, nothing is quoted.
    let server = Server::answering(|_| answer(400, &[], "a s3cr3t-token")).await;
    let request = json!({"url": server.url("/"), "auth": bearer(), "maxResponseBytes": 6});
    let url = server.url("/");
    assert_eq!(
        attempt.failure(request).await.message,
        format!("GET {url} → 400 Bad Request")
    );
}

#[tokio::test]
async fn success_is_judged_by_what_was_really_answered() {
    let attempt = Attempt::with(Cluster::default().secret("inventory", &[("token", "s3cr3t-token")]));
    let server = Server::answering(|_| json_answer(200, &json!({"token": "s3cr3t-token"}))).await;
    let request = json!({"url": server.url("/"), "auth": bearer(), "success": "result.body.token == 's3cr3t-token'"});
    assert_eq!(attempt.result(request).await["body"], json!({"token": "***"}));
}

#[tokio::test]
async fn what_is_missing_or_denied_is_named_and_retried() {
    let forbidden =
        "secrets \"inventory\" is forbidden: User \"system:serviceaccount:prod:releaser\" cannot get resource";
    let empty = || Cluster::default().secret("inventory", &[("other", "x")]);
    for (cluster, reason, says) in [
        (
            Cluster::default(),
            "SecretNotFound",
            "http.auth.bearer: Secret inventory in namespace prod does not exist (yet)",
        ),
        (
            empty(),
            "SecretNotFound",
            "http.auth.bearer: Secret inventory in namespace prod has no key token (yet)",
        ),
        (
            Cluster::default().refusing(SECRET, 403, "Forbidden", forbidden),
            "AccessDenied",
            "http.auth.bearer: service account prod/releaser may not get Secret inventory in namespace prod",
        ),
        (
            Cluster::default().refusing(SECRET, 500, "InternalError", "etcd is away"),
            "ApiServerUnavailable",
            "http.auth.bearer: could not get Secret inventory in namespace prod: ",
        ),
        (
            Cluster::default().secret("inventory", &[("token", "two\nlines")]),
            "SecretInvalid",
            "http.auth: the value in the Secret holds characters that a header can't have",
        ),
    ] {
        let server = Server::answering(|_| answer(200, &[], "")).await;
        let failure = Attempt::with(cluster)
            .failure(json!({"url": server.url("/"), "auth": bearer()}))
            .await;
        assert_eq!(failure.reason, reason);
        assert_eq!((failure.effect, failure.retry), (Effect::None, RetryAdvice::Backoff));
        assert!(failure.message.starts_with(says), "{}", failure.message);
        assert!(server.seen().is_empty());
    }
}

#[tokio::test]
async fn a_token_that_may_not_be_issued_is_access_denied() {
    let path = "POST /api/v1/namespaces/prod/serviceaccounts/releaser/token";
    let cluster = Cluster::default().refusing(path, 403, "Forbidden", "cannot create serviceaccounts/token");
    let request = json!({"url": "http://127.0.0.1:1/", "auth": {"serviceAccountToken": {"audience": "a"}}});
    let failure = Attempt::with(cluster).failure(request).await;
    assert_eq!(failure.reason, "AccessDenied");
    let says = "service account prod/releaser may not create a token of ServiceAccount releaser in namespace prod";
    assert!(failure.message.contains(says), "{}", failure.message);
}

#[tokio::test]
async fn certificates_that_are_none_are_named() {
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": "nonsense"}});
    let cluster = Cluster::default().answering("GET /api/v1/namespaces/prod/configmaps/ca", 200, map);
    let tls = json!({"ca": {"configMapKeyRef": {"name": "ca", "key": "ca.crt"}}});
    let failure = Attempt::with(cluster)
        .failure(json!({"url": "https://127.0.0.1:1/", "tls": tls}))
        .await;
    assert_eq!(
        (failure.reason.as_str(), failure.retry),
        ("CertificateInvalid", RetryAdvice::Backoff)
    );
    let says = "http.tls.ca: key ca.crt of ConfigMap ca in namespace prod: no PEM certificate";
    assert!(failure.message.starts_with(says), "{}", failure.message);
}
