//! Calls whose work the other side does later, and what it says of it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::activities::callbacks::CALLBACK_KEYS;

/// Callbacks whose keys are these, by name and first letter.
fn callbacks(keys: &[(&str, char)]) -> Arc<Callbacks> {
    let data: BTreeMap<_, _> = keys
        .iter()
        .map(|(id, letter)| (*id, STANDARD.encode(letter.to_string().repeat(32))))
        .collect();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": CALLBACK_KEYS}, "data": data});
    let path = format!("GET /api/v1/namespaces/holdfast-system/secrets/{CALLBACK_KEYS}");
    let cluster = Cluster::default().answering(&path, 200, secret);
    let base = "http://holdfast.holdfast-system.svc:8080/".parse().unwrap();
    Arc::new(Callbacks::new(cluster.client(), "holdfast-system", Some(base)))
}

fn inviting(cluster: Cluster) -> Attempt {
    let mut attempt = Attempt::with(cluster);
    attempt.context.step = "grow[3]/resize".into();
    attempt.context.key = IdempotencyKey::new("u1", "grow[3]/resize", 2);
    attempt.activity = HttpActivity::new(Arc::new(Wire::new()), callbacks(&[("0001", 'a')]));
    attempt
}

#[tokio::test]
async fn a_request_says_where_to_call_back_and_a_202_is_accepted() {
    let server = Server::answering(|_| json_answer(202, &json!({"ticket": 7}))).await;
    let attempt = inviting(Cluster::default());
    let outcome = attempt.run(json!({"url": server.url("/"), "async": true})).await;
    let Outcome::Accepted { external } = outcome else {
        panic!("not accepted: {outcome:?}");
    };
    assert_eq!(
        (external.kind.as_str(), external.name),
        ("Callback", attempt.context.key.to_string())
    );
    let seen = server.seen();
    assert_eq!(
        seen[0].header("holdfast-callback-url"),
        Some("http://holdfast.holdfast-system.svc:8080/callbacks/v1/prod/op/u1/grow%5B3%5D~resize/2/0")
    );
    let token = seen[0].header("holdfast-callback-token").unwrap();
    let known = callbacks(&[("0001", 'a')]);
    assert!(known.verify(&attempt.context.key, 0, token).await.unwrap());
}

#[tokio::test]
async fn any_other_answer_means_what_it_always_does_and_without_async_a_202_is_one() {
    let server = Server::answering(|seen| {
        let status = if seen.uri == "/now" { 200 } else { 202 };
        json_answer(status, &json!({"size": 3}))
    })
    .await;
    let attempt = inviting(Cluster::default());
    let now = attempt.result(json!({"url": server.url("/now"), "async": true})).await;
    assert_eq!(now["body"], json!({"size": 3}));
    let plain = attempt.result(json!({"url": server.url("/later")})).await;
    assert_eq!(plain["status"], 202);
    assert_eq!(server.seen()[1].header("holdfast-callback-url"), None);
}

#[tokio::test]
async fn a_token_that_is_echoed_is_masked() {
    let server = Server::answering(|seen| {
        json_answer(
            422,
            &json!({"message": format!("no: {}", seen.header("holdfast-callback-token").unwrap())}),
        )
    })
    .await;
    let failure = inviting(Cluster::default())
        .failure(json!({"url": server.url("/"), "async": true}))
        .await;
    assert!(failure.message.ends_with("no: ***"), "{}", failure.message);
}

#[tokio::test]
async fn without_an_address_for_callbacks_nothing_is_sent() {
    let server = Server::answering(|_| json_answer(200, &json!({}))).await;
    let failure = Attempt::first()
        .failure(json!({"url": server.url("/"), "async": true}))
        .await;
    assert_eq!(failure.reason, "CallbacksNotConfigured");
    assert_eq!((failure.retry, failure.effect), (RetryAdvice::Never, Effect::None));
    assert!(failure.message.contains("--callback-url"), "{}", failure.message);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_step_may_not_set_the_headers_of_callbacks() {
    let failure = inviting(Cluster::default())
        .failure(json!({"url": "http://127.0.0.1:9/", "headers": [{"name": "Holdfast-Callback-Token", "value": "x"}]}))
        .await;
    assert_eq!(failure.reason, "InvalidRequest");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_of_one_key_and_run_and_outlives_the_key_that_signs_after_it() {
    let (old, both, new) = (
        callbacks(&[("0001", 'a')]),
        callbacks(&[("0001", 'a'), ("0002", 'b')]),
        callbacks(&[("0002", 'b')]),
    );
    let context = Attempt::first().context;
    let first = old.invite(&context).await.unwrap().token;
    let second = both.invite(&context).await.unwrap().token;
    assert!(
        first.starts_with("0001.") && second.starts_with("0002."),
        "{first} {second}"
    );
    let key = &context.key;
    assert!(both.verify(key, 0, &first).await.unwrap());
    assert!(both.verify(key, 0, &second).await.unwrap());
    assert!(!new.verify(key, 0, &first).await.unwrap(), "the old key is gone");
    assert!(!old.verify(key, 1, &first).await.unwrap(), "another run");
    let other = IdempotencyKey::new("u1", "resize", 1);
    assert!(!old.verify(&other, 0, &first).await.unwrap(), "another epoch");
    for bad in [
        "",
        "0001",
        "0001.",
        "0001.AAAA",
        ".AAAA",
        &first[..first.len() - 1],
        &second.replace("0002", "0001"),
    ] {
        assert!(!both.verify(key, 0, bad).await.unwrap(), "{bad:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_too_short_are_none_and_say_so() {
    let secret =
        json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": CALLBACK_KEYS}, "data": {"0001": "YWJj"}});
    let path = "/api/v1/namespaces/holdfast-system/secrets";
    let cluster = Cluster::default()
        .answering(&format!("GET {path}/{CALLBACK_KEYS}"), 200, secret)
        .refusing(&format!("POST {path}"), 409, "AlreadyExists", "it exists");
    let base = "http://holdfast".parse().unwrap();
    let callbacks = Callbacks::new(cluster.client(), "holdfast-system", Some(base));
    let failure = callbacks.invite(&Attempt::first().context).await.err().unwrap();
    assert_eq!(failure.reason, "CallbackKeys");
    assert!(failure.message.contains("32 bytes"), "{}", failure.message);
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn what_a_callback_says_is_masked_and_of_a_sensitive_step_nothing_is_quoted() {
    let cluster = || Cluster::default().secret("inventory", &[("key", "hunter2")]);
    let request = step(json!({
        "url": "http://x", "async": true,
        "auth": {"bearer": {"secretKeyRef": {"name": "inventory", "key": "key"}}},
    }));
    let attempt = inviting(cluster());
    let failed = Report::Failed {
        reason: "Denied".into(),
        message: "hunter2 and t0ken".into(),
        retryable: false,
    };
    let body = Report::Completed(json!({"was": "hunter2", "size": 3}));
    let say = |report| {
        attempt
            .activity
            .called_back(&attempt.context, &request, "t0ken", report)
    };
    let Ok(Outcome::Succeeded { result, .. }) = say(body).await else {
        panic!("no success");
    };
    assert_eq!(result["body"], json!({"was": "***", "size": 3}));
    let Ok(Outcome::Failed(failure)) = say(failed.clone()).await else {
        panic!("no failure");
    };
    assert_eq!(
        (failure.reason.as_str(), failure.message.as_str()),
        ("Denied", "*** and ***")
    );
    assert_eq!((failure.retry, failure.effect), (RetryAdvice::Never, Effect::None));

    let mut sensitive = inviting(cluster());
    sensitive.context.sensitive = true;
    let said = sensitive
        .activity
        .called_back(&sensitive.context, &request, "t0ken", failed)
        .await;
    let Ok(Outcome::Failed(failure)) = said else {
        panic!("no failure");
    };
    assert!(!format!("{failure:?}").contains("Denied"));

    let missing = inviting(Cluster::default());
    let held_up = missing
        .activity
        .called_back(&missing.context, &request, "t0ken", Report::Completed(json!({})))
        .await;
    assert_eq!(
        held_up.unwrap_err().reason,
        "SecretNotFound",
        "what could not be masked is not recorded"
    );
}
