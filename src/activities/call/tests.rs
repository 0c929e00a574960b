use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::{Request, Response};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::*;
use crate::activities::testing::{Leads, answering, context_on};

fn deployments() -> ResourceType {
    ResourceType::namespaced::<Deployment>()
}

async fn failure(verb: Verb, code: u16, body: Value, retry_after: Option<&str>) -> AttemptFailure {
    let retry_after = retry_after.map(str::to_owned);
    let client = answering(move |_| {
        let mut answer = Response::builder().status(code);
        if let Some(seconds) = &retry_after {
            answer = answer.header("retry-after", seconds);
        }
        let body = match &body {
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        Ok(answer.body(Body::from(body.into_bytes())).unwrap())
    });
    failure_of(&context_on(client, "web"), verb).await
}

async fn failure_of(context: &AttemptContext, verb: Verb) -> AttemptFailure {
    let deployments = deployments();
    let target = Target::object(&deployments, Some("prod"), "web");
    let error = call(context, verb, request("GET", target.path(), None))
        .await
        .unwrap_err();
    error.failure(context, verb, &target)
}

fn status(reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "status": "Failure", "reason": reason, "message": message})
}

#[tokio::test]
async fn every_answer_says_what_is_known_of_the_effect_and_whether_another_attempt_may_help() {
    use Effect::{None as Nothing, Unknown};
    use RetryAdvice::{Backoff, Never};
    let table = [
        // verb, HTTP status, reason; then reason, effect, advice
        (Verb::Patch, 400, "BadRequest", "Invalid", Nothing, Never),
        (Verb::Patch, 401, "Unauthorized", "Unauthorized", Nothing, Backoff),
        (Verb::Patch, 403, "Forbidden", "AccessDenied", Nothing, Backoff),
        (Verb::Patch, 404, "NotFound", "NotFound", Nothing, Never),
        (Verb::Create, 404, "NotFound", "NotFound", Nothing, Backoff),
        (Verb::Patch, 404, "", "KindNotFound", Nothing, Backoff),
        (Verb::Patch, 405, "MethodNotAllowed", "Invalid", Nothing, Never),
        (Verb::Patch, 409, "Conflict", "Conflict", Nothing, Backoff),
        (Verb::Create, 409, "AlreadyExists", "AlreadyExists", Nothing, Never),
        (Verb::List, 410, "Expired", "Expired", Nothing, Backoff),
        (Verb::Patch, 422, "Invalid", "Invalid", Nothing, Never),
        (Verb::Patch, 429, "TooManyRequests", "TooManyRequests", Nothing, Backoff),
        (Verb::Patch, 500, "InternalError", "ServerError", Unknown, Backoff),
        (Verb::Get, 500, "InternalError", "ServerError", Nothing, Backoff),
        (Verb::Delete, 503, "ServiceUnavailable", "ServerError", Unknown, Backoff),
        (Verb::Patch, 504, "Timeout", "ServerError", Unknown, Backoff),
        (Verb::Get, 504, "Timeout", "ServerError", Nothing, Backoff),
    ];
    for (verb, code, said, reason, effect, retry) in table {
        let failure = failure(verb, code, status(said, "because"), None).await;
        assert_eq!(
            (failure.reason.as_str(), failure.effect, failure.retry),
            (reason, effect, retry),
            "{verb} {code}"
        );
    }
}

#[tokio::test]
async fn denied_access_names_who_may_not_do_what_where() {
    let failure = failure(Verb::Patch, 403, status("Forbidden", "no role has it"), None).await;
    assert_eq!(
        failure.message,
        "service account prod/releaser may not patch deployments.apps in namespace prod: no role has it"
    );
}

#[tokio::test]
async fn a_server_that_says_when_to_come_back_is_obeyed() {
    let after = |seconds| RetryAdvice::After(Duration::from_secs(seconds));
    for code in [429, 503] {
        assert_eq!(
            failure(Verb::Patch, code, "too many".into(), Some("7")).await.retry,
            after(7)
        );
    }
    let mut details = status("TooManyRequests", "later");
    details["details"] = json!({"retryAfterSeconds": 9});
    assert_eq!(failure(Verb::Patch, 429, details, None).await.retry, after(9));
    assert_eq!(
        failure(Verb::Patch, 422, status("Invalid", "no"), Some("7"))
            .await
            .retry,
        RetryAdvice::Never
    );
}

#[tokio::test]
async fn a_broken_connection_leaves_a_write_unknown_and_a_read_undone() {
    let client = answering(|_| {
        Err(std::io::Error::new(
            std::io::ErrorKind::ConnectionReset,
            "reset by peer",
        ))
    });
    let context = context_on(client, "web");
    let write = failure_of(&context, Verb::Patch).await;
    assert_eq!((write.reason.as_str(), write.effect), ("NoAnswer", Effect::Unknown));
    assert_eq!(
        write.message,
        "patch of Deployment web in namespace prod: reset by peer"
    );
    let read = failure_of(&context, Verb::Get).await;
    assert_eq!((read.effect, read.retry), (Effect::None, RetryAdvice::Backoff));
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_forever() {
    let service =
        tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, std::io::Error>>());
    let failure = failure_of(&context_on(kube::Client::new(service, "prod"), "web"), Verb::Patch).await;
    assert_eq!((failure.reason.as_str(), failure.effect), ("NoAnswer", Effect::Unknown));
}

#[tokio::test]
async fn a_write_without_leadership_is_not_sent() {
    let client = answering(|_| panic!("nothing may be sent"));
    let context = AttemptContext {
        claim: Arc::new(Leads(AtomicBool::new(false))),
        ..context_on(client, "web")
    };
    for verb in [Verb::Create, Verb::Update, Verb::Patch, Verb::Delete] {
        let failure = failure_of(&context, verb).await;
        assert_eq!(
            (failure.reason.as_str(), failure.effect),
            ("LeadershipLost", Effect::None)
        );
    }
}

#[tokio::test]
async fn a_sensitive_step_records_nothing_of_what_the_server_said() {
    let client = answering(|_| {
        let said = status("Invalid", "hunter2 is not a colour").to_string();
        Ok(Response::builder()
            .status(422)
            .body(Body::from(said.into_bytes()))
            .unwrap())
    });
    let context = AttemptContext {
        sensitive: true,
        ..context_on(client, "web")
    };
    let failure = failure_of(&context, Verb::Patch).await;
    assert!(!failure.message.contains("hunter2"), "{}", failure.message);
}

#[tokio::test]
async fn a_huge_answer_is_not_read_to_its_end() {
    let client = answering(|_| Ok(Response::new(Body::from(vec![b' '; MAX_ANSWER + 1]))));
    let failure = failure_of(&context_on(client, "web"), Verb::Get).await;
    assert_eq!(
        (failure.reason.as_str(), failure.retry),
        ("ResultTooLarge", RetryAdvice::Never)
    );
}
