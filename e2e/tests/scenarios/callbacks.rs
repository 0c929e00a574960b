//! Work that a service does later: it calls back, at any replica, until that is recorded.

use std::time::Duration;

use holdfast::api::{OperationState, StepState};
use holdfast_e2e::replicas::Replicas;
use holdfast_e2e::world::{World, find_step, message_of, output, step};
use serde_json::json;

#[tokio::test]
async fn a_service_takes_work_and_calls_back_when_it_is_done() {
    let world = World::new("callbacks").await;
    let replicas = Replicas::start().await;
    let operator = replicas.operator(&world).await;
    world
        .run(
            "grow",
            r#"
            input: {group: web, size: 12}
            steps:
            - name: resize
              http: {method: POST, url: "INVENTORY/later/web", async: true, body: {size: "${input.size}"}}
              timeouts: {heartbeat: 30s}
              output: {size: "${result.body.size}"}
            - name: refused
              onFailure: Continue
              http: {method: POST, url: "INVENTORY/later/refused", async: true}
            output: {size: "${steps.resize.output.size}", why: "${steps.refused.failure.message}"}
            "#,
        )
        .await;
    let waits = world
        .until("grow", "waiting for its callback", |operation| {
            find_step(operation, "resize").is_some_and(|step| step.state == StepState::Waiting)
        })
        .await;
    assert_eq!(message_of(&waits), "step resize: accepted; waiting for its callback");

    let beat = world
        .inventory
        .call_back("/later/web", "heartbeat", &json!({"done": 5}))
        .await;
    assert_eq!(beat.0, 200, "{}", beat.1);
    let shown = world
        .until("grow", "showing the heartbeat", |operation| {
            step(operation, "resize").heartbeat.is_some()
        })
        .await;
    let heartbeat = step(&shown, "resize").heartbeat.clone().unwrap();
    assert_eq!(heartbeat.details, Some(json!({"done": 5})));

    let done = json!({"size": 12});
    let (status, body) = world.inventory.call_back("/later/web", "complete", &done).await;
    assert_eq!((status, body), (200, json!({"state": "Succeeded"})));
    let recorded = world.operations().get("grow").await.unwrap();
    assert_eq!(
        step(&recorded, "resize").state,
        StepState::Succeeded,
        "recorded before it was answered"
    );
    assert_eq!(output(&recorded, "resize"), done);
    assert_eq!(
        world.inventory.call_back("/later/web", "complete", &done).await.0,
        200,
        "a repeat"
    );
    assert_eq!(
        world.inventory.call_back("/later/web", "fail", &json!({})).await.0,
        410,
        "another"
    );

    world.until_called("/later/refused").await;
    let no = json!({"reason": "Frozen", "message": "the group is frozen"});
    assert_eq!(world.inventory.call_back("/later/refused", "fail", &no).await.0, 200);
    let ended = world.ends("grow", OperationState::Succeeded).await;
    let answered = ended.status.as_ref().unwrap().output.clone();
    assert_eq!(json!(answered), json!({"size": 12, "why": "the group is frozen"}));
    assert_eq!(world.inventory.effects("/later/web").len(), 1);

    // No token is recorded, and nobody without one is heard.
    let token = world.inventory.requests("/later/web")[0].headers["holdfast-callback-token"].clone();
    let all = world.prints(&["get", "cop,ophist,events", "-o", "yaml"]).await;
    assert!(!all.contains(&token), "the token is recorded");
    let logged = serde_json::to_string(&operator.log()).unwrap();
    assert!(!logged.contains(&token), "the token is logged");
    let url = world.inventory.requests("/later/web")[0].headers["holdfast-callback-url"].clone();
    let (status, _) = holdfast_e2e::replicas::post(&format!("{url}/complete"), "0001.AAAA", "{}").await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn a_callback_finds_the_leader_by_any_replica_and_survives_its_death() {
    let world = World::new("callbacks-takeover").await;
    let replicas = Replicas::start().await;
    let first = replicas.operator(&world).await;
    first.leads().await;
    let second = replicas.operator(&world).await;
    second.logs("standing by: another process leads").await;
    world
        .run(
            "work",
            r#"
            order: Graph
            steps:
            - {name: one, http: {method: POST, url: INVENTORY/later/one, async: true}}
            - {name: two, http: {method: POST, url: INVENTORY/later/two, async: true}}
            "#,
        )
        .await;
    world
        .until("work", "waiting for both", |operation| {
            ["one", "two"]
                .iter()
                .all(|name| find_step(operation, name).is_some_and(|step| step.state == StepState::Waiting))
        })
        .await;
    replicas.only(&second).await;
    let (status, body) = world.inventory.call_back("/later/one", "complete", &json!({})).await;
    assert_eq!(status, 200, "forwarded by the replica that stands by: {body}");

    first.kill().await;
    let mut times = 0;
    loop {
        let (status, body) = world.inventory.call_back("/later/two", "complete", &json!({})).await;
        if status == 200 {
            break;
        }
        assert_eq!(status, 503, "{body}");
        times += 1;
        assert!(times < 300, "nobody takes the callback: {body}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.ends("work", OperationState::Succeeded).await;
    for path in ["/later/one", "/later/two"] {
        assert_eq!(world.inventory.requests(path).len(), 1, "{path} was asked for once");
    }
}

#[tokio::test]
async fn a_failure_that_may_pass_is_tried_again_and_a_callback_may_come_before_the_202() {
    let world = World::new("callbacks-order").await;
    let replicas = Replicas::start().await;
    let _operator = replicas.operator(&world).await;
    world
        .run(
            "grow",
            r#"
            retry: {initialInterval: 50ms}
            steps:
            - name: busy
              http: {method: POST, url: INVENTORY/later/busy, async: true}
            - name: early
              http: {method: POST, url: "INVENTORY/later/early?gate=early", async: true}
              output: {size: "${result.body.size}"}
            - {name: after, http: {method: POST, url: INVENTORY/after, body: {size: "${steps.early.output.size}"}}}
            "#,
        )
        .await;
    world
        .until("grow", "waiting for the first callback", |operation| {
            find_step(operation, "busy").is_some_and(|step| step.state == StepState::Waiting)
        })
        .await;
    let failure = json!({"reason": "OutOfCapacity", "message": "no machines", "retryable": true});
    let (status, body) = world.inventory.call_back("/later/busy", "fail", &failure).await;
    assert_eq!((status, body), (200, json!({"state": "BackingOff"})));
    let again = world
        .until("grow", "asked again", |operation| {
            let step = step(operation, "busy");
            step.attempt == 2 && step.state == StepState::Waiting
        })
        .await;
    let busy = step(&again, "busy");
    assert_eq!(
        (busy.epoch, busy.failures, busy.maybe_done),
        (0, 1, false),
        "it was not done"
    );
    let failed = again.status.as_ref().unwrap().history.iter();
    let failed: Vec<_> = failed.filter_map(|entry| entry.message.as_deref()).collect();
    assert!(
        failed
            .iter()
            .any(|message| message.contains("OutOfCapacity: no machines")),
        "{failed:?}"
    );
    let requests = world.inventory.requests("/later/busy");
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].key, requests[1].key, "one key");
    world.inventory.call_back("/later/busy", "complete", &json!({})).await;

    // The request of the next one is not answered yet.
    world.until_called("/later/early").await;
    let done = json!({"size": 12});
    let (status, body) = world.inventory.call_back("/later/early", "complete", &done).await;
    assert_eq!((status, body), (200, json!({"state": "Succeeded"})));
    world.until_called("/after").await;
    world.inventory.open("early");
    let ended = world.ends("grow", OperationState::Succeeded).await;
    assert_eq!(output(&ended, "early"), done);
    assert_eq!(step(&ended, "early").attempt, 1);
    assert_eq!(world.inventory.requests("/later/early").len(), 1);
    assert_eq!(world.inventory.requests("/after")[0].body, done);
}

#[tokio::test]
async fn silence_is_noticed_and_asked_about_under_the_same_key() {
    let world = World::new("callbacks-silence").await;
    let replicas = Replicas::start().await;
    let _operator = replicas.operator(&world).await;
    world
        .run(
            "silent",
            r#"
            steps:
            - name: work
              http: {method: POST, url: INVENTORY/later/work, async: true}
              timeouts: {heartbeat: 1s}
              retry: {initialInterval: 50ms}
            "#,
        )
        .await;
    world
        .until("silent", "tried again", |operation| {
            find_step(operation, "work").is_some_and(|step| {
                step.attempt >= 2 && step.failure.as_ref().is_some_and(|f| f.reason == "HeartbeatTimeout")
            })
        })
        .await;
    // The work had been begun all the same.
    let (status, body) = world.inventory.call_back("/later/work", "complete", &json!({})).await;
    assert_eq!(status, 200, "{body}");
    world.ends("silent", OperationState::Succeeded).await;
    assert_eq!(world.inventory.effects("/later/work").len(), 1, "one key");
}

#[tokio::test]
async fn without_an_address_for_callbacks_a_step_says_what_to_set() {
    let world = World::new("callbacks-none").await;
    let _operator = world.operator();
    world
        .run(
            "none",
            "steps: [{name: work, http: {method: POST, url: INVENTORY/later/work, async: true}}]",
        )
        .await;
    let ended = world.ends("none", OperationState::Failed).await;
    let failure = step(&ended, "work").failure.clone().unwrap();
    assert_eq!(failure.reason, "CallbacksNotConfigured");
    assert!(failure.message.contains("--callback-url"), "{}", failure.message);
    assert!(world.inventory.requests("/later/work").is_empty(), "nothing was sent");
}
