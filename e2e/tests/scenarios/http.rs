//! `http` steps: what is sent, and what each answer means.

use holdfast::api::{HistoryEvent, OperationState, StepState};
use holdfast_e2e::inventory::Inventory;
use holdfast_e2e::world::{World, events, message_of, output, step};
use serde_json::json;

#[tokio::test]
async fn methods_headers_and_bodies_arrive_as_they_are_written() {
    let world = World::new("http-requests").await;
    let _operator = world.operator();
    world
        .run(
            "calls",
            r#"
            input: {group: web, size: 12, tags: [a, b]}
            steps:
            - {name: get, http: {url: "INVENTORY/get/${input.group}?n=${input.size}"}}
            - {name: head, http: {method: HEAD, url: INVENTORY/head}}
            - name: post
              http:
                method: POST
                url: INVENTORY/post
                headers: [{name: X-Group, value: "the ${input.group}"}, {name: x-key, value: "${step.idempotencyKey}"}]
                body: {size: "${input.size}", tags: "${input.tags}", text: "size ${input.size}", not: "$${input.size}", none: null}
            - {name: put, http: {method: PUT, url: INVENTORY/put, body: "plain ${input.group}"}}
            - {name: patch, http: {method: PATCH, url: INVENTORY/patch, body: [1, "${input.size + 1}"]}}
            - {name: delete, http: {method: DELETE, url: INVENTORY/delete}}
            "#,
        )
        .await;
    world.ends("calls", OperationState::Succeeded).await;

    let seen: Vec<_> = world.inventory.requests("/");
    let methods: Vec<_> = seen.iter().map(|r| (r.method.as_str(), r.path.as_str())).collect();
    let expected = [
        ("GET", "/get/web"),
        ("HEAD", "/head"),
        ("POST", "/post"),
        ("PUT", "/put"),
        ("PATCH", "/patch"),
        ("DELETE", "/delete"),
    ];
    assert_eq!(methods, expected);
    let post = &seen[2];
    let body = json!({"size": 12, "tags": ["a", "b"], "text": "size 12", "not": "${input.size}", "none": null});
    assert_eq!(post.body, body);
    assert_eq!(post.headers["content-type"], "application/json");
    assert_eq!(post.headers["x-group"], "the web");
    assert_eq!(post.headers["x-key"], post.key);
    assert_eq!(seen[3].body, json!("plain web"));
    assert_eq!(seen[3].headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(seen[4].body, json!([1, 13]));
    let mut keys: Vec<_> = seen.iter().map(|r| r.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 6, "every step has a key of its own");
    assert!(keys.iter().all(|key| key.len() == 36), "{keys:?}");
}

#[tokio::test]
async fn what_may_pass_is_retried_under_the_same_key() {
    let world = World::new("http-retries").await;
    let _operator = world.operator();
    world
        .run(
            "retries",
            r#"
            order: Graph
            retry: {initialInterval: 50ms}
            steps:
            - name: unavailable
              http: {method: POST, url: "INVENTORY/status/503?times=2", body: {n: 1}}
              output: {after: "${result.body.after}", attempt: "${step.attempt}"}
            - {name: silent, http: {method: POST, url: "INVENTORY/silent?times=1"}}
            - {name: denied, http: {url: "INVENTORY/status/401?times=1"}}
            - {name: tooMany, http: {url: "INVENTORY/status/429?times=1&retryAfter=2"}}
            "#,
        )
        .await;
    let ended = world.ends("retries", OperationState::Succeeded).await;

    assert_eq!(output(&ended, "unavailable"), json!({"after": 2, "attempt": 3}));
    use HistoryEvent::{AttemptFailed, AttemptStarted, StepSucceeded};
    let expected = [
        AttemptStarted,
        AttemptFailed,
        AttemptStarted,
        AttemptFailed,
        AttemptStarted,
        StepSucceeded,
    ];
    assert_eq!(events(&ended, "unavailable"), expected);
    for (name, path, attempts) in [
        ("unavailable", "/status/503", 3),
        ("silent", "/silent", 2),
        ("denied", "/status/401", 2),
        ("tooMany", "/status/429", 2),
    ] {
        assert_eq!(step(&ended, name).attempt, attempts, "{name}");
        assert_eq!(
            world.inventory.requests(path).len(),
            usize::try_from(attempts).unwrap(),
            "{name}"
        );
        assert_eq!(world.inventory.effects(path).len(), 1, "{name}: one key, so one effect");
    }
    let history = ended.status.iter().flat_map(|status| &status.history);
    let times: Vec<_> = history
        .filter(|entry| entry.step.as_deref() == Some("tooMany"))
        .map(|entry| entry.time)
        .collect();
    let waited = times[2].since(times[1]);
    assert!(waited.as_secs() >= 2, "Retry-After: 2, but it waited {waited:?}");
}

#[tokio::test]
async fn a_definite_no_fails_at_once_with_the_other_sides_reason() {
    let world = World::new("http-no").await;
    let _operator = world.operator();
    world
        .run(
            "refused",
            r#"
            steps:
            - {name: resize, http: {method: POST, url: INVENTORY/groups/web/resize, body: {}}}
            - {name: after, http: {url: INVENTORY/after}}
            "#,
        )
        .await;
    let ended = world.ends("refused", OperationState::Failed).await;

    let resize = step(&ended, "resize");
    assert_eq!((resize.state, resize.attempt), (StepState::Failed, 1));
    let failure = ended.status.as_ref().unwrap().failure.clone().unwrap();
    assert_eq!(
        (failure.reason.as_str(), failure.step.as_deref()),
        ("HttpStatus", Some("resize"))
    );
    assert!(
        message_of(&ended).contains("422 Unprocessable Entity: size is missing"),
        "{}",
        message_of(&ended)
    );
    assert!(
        world.inventory.requests("/after").is_empty(),
        "nothing follows a failure"
    );
}

#[tokio::test]
async fn attempts_end_as_the_retry_policy_says() {
    let world = World::new("http-policy").await;
    let _operator = world.operator();
    world
        .run(
            "attempts",
            r#"
            retry: {initialInterval: 10ms}
            steps:
            - name: call
              http: {url: INVENTORY/status/500}
              retry: {maximumAttempts: 3}
            "#,
        )
        .await;
    world
        .run(
            "reasons",
            r#"
            steps:
            - name: call
              http: {url: INVENTORY/status/403}
              retry: {nonRetryableErrors: [AccessDenied]}
            "#,
        )
        .await;
    let ended = world.ends("attempts", OperationState::Failed).await;
    assert_eq!(step(&ended, "call").attempt, 3);
    assert!(
        message_of(&ended).contains("(after 3 attempts)"),
        "{}",
        message_of(&ended)
    );
    let ended = world.ends("reasons", OperationState::Failed).await;
    assert_eq!(step(&ended, "call").attempt, 1);
}

#[tokio::test]
async fn success_is_what_the_step_says_and_answers_have_a_limit() {
    let world = World::new("http-success").await;
    let _operator = world.operator();
    world
        .run(
            "expected",
            r#"
            input: {expected: 404}
            steps:
            - name: missing
              http: {url: INVENTORY/status/404, success: result.status == input.expected}
              output: {status: "${result.status}", type: "${result.headers['content-type']}"}
            - name: small
              http: {url: INVENTORY/bytes/1000, maxResponseBytes: 1000}
              output: {size: "${size(result.body)}"}
            "#,
        )
        .await;
    world
        .run(
            "unexpected",
            "steps: [{name: a, http: {url: INVENTORY/groups/web, success: result.body.size == 4}}]",
        )
        .await;
    world
        .run(
            "large",
            "steps: [{name: a, http: {url: INVENTORY/bytes/1001, maxResponseBytes: 1000}}]",
        )
        .await;
    let ended = world.ends("expected", OperationState::Succeeded).await;
    assert_eq!(
        output(&ended, "missing"),
        json!({"status": 404, "type": "application/json"})
    );
    assert_eq!(output(&ended, "small"), json!({"size": 1000}));
    for (name, reason, says) in [
        (
            "unexpected",
            "NotSuccessful",
            "http.success is false: result.body.size == 4",
        ),
        (
            "large",
            "ResponseTooLarge",
            "more than the 1000 bytes that are read of it: raise http.maxResponseBytes",
        ),
    ] {
        let ended = world.ends(name, OperationState::Failed).await;
        assert_eq!(step(&ended, "a").failure.as_ref().unwrap().reason, reason);
        assert!(message_of(&ended).contains(says), "{}", message_of(&ended));
    }
}

#[tokio::test]
async fn a_service_of_an_own_authority_is_trusted_by_its_certificate_alone() {
    let world = World::new("http-tls").await;
    let _operator = world.operator();
    let (secure, authority) = Inventory::start_secure().await.unwrap();
    let key = ["--from-literal", &format!("ca.crt={authority}")];
    world
        .prints(&["create", "configmap", "authority", key[0], key[1]])
        .await;
    world
        .prints(&["create", "secret", "generic", "authority", key[0], key[1]])
        .await;
    let spec = r#"
        serviceAccountName: runner
        steps:
        - {name: configMap, http: {url: SECURE/map, tls: {ca: {configMapKeyRef: {name: authority, key: ca.crt}}}}}
        - {name: secret, http: {url: SECURE/secret, tls: {ca: {secretKeyRef: {name: authority, key: ca.crt}}}}}
        - {name: public, http: {url: SECURE/public}, retry: {maximumAttempts: 1}}
        "#;
    world.run("secure", &spec.replace("SECURE", &secure.url(""))).await;

    let ended = world.ends("secure", OperationState::Failed).await;
    assert_eq!(step(&ended, "configMap").state, StepState::Succeeded);
    assert_eq!(step(&ended, "secret").state, StepState::Succeeded);
    assert_eq!(step(&ended, "public").failure.as_ref().unwrap().reason, "TlsFailed");
    assert!(
        message_of(&ended).contains("http.tls.ca says whom to trust"),
        "{}",
        message_of(&ended)
    );
    assert!(
        secure.requests("/public").is_empty(),
        "nothing is sent to who isn't trusted"
    );
}

#[tokio::test]
async fn a_call_that_may_not_be_made_twice_waits_for_a_person() {
    let world = World::new("http-once").await;
    let _operator = world.operator();
    world
        .run(
            "once",
            r#"
            retry: {initialInterval: 50ms}
            steps:
            - {name: busy, idempotent: false, http: {url: "INVENTORY/status/429?times=1"}}
            - {name: pay, idempotent: false, http: {method: POST, url: "INVENTORY/silent"}}
            "#,
        )
        .await;
    let stuck = world.until_state("once", OperationState::Stuck).await;
    assert_eq!(
        step(&stuck, "busy").attempt,
        2,
        "a 429 says that nothing was done: it is retried"
    );
    let pay = step(&stuck, "pay");
    assert_eq!(
        (pay.state, pay.attempt, pay.maybe_done),
        (StepState::Undecided, 1, true)
    );
    assert!(
        message_of(&stuck).contains("step pay needs a person"),
        "{}",
        message_of(&stuck)
    );
    assert!(events(&stuck, "pay").contains(&HistoryEvent::StepUndecided));

    world
        .patch("once", r#"{"spec": {"cancel": {"reason": "looked: it was paid"}}}"#)
        .await;
    world.ends("once", OperationState::Cancelled).await;
    assert_eq!(world.inventory.requests("/silent").len(), 1);
}
