//! Ends by time: timeouts of attempts, steps and operations, start deadlines, and what becomes of what has ended.

use std::time::Duration;

use holdfast::api::{CloudOperation, OperationState, StepState};
use holdfast_e2e::world::{World, condition, message_of, step};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};

#[tokio::test]
async fn attempts_steps_and_operations_end_at_their_timeouts() {
    let world = World::new("time-outs").await;
    let _operator = world.operator();
    world
        .run(
            "attempt",
            r#"
            steps:
            - name: call
              http: {method: POST, url: INVENTORY/slow/60000/attempt}
              timeouts: {startToClose: 2s}
              retry: {initialInterval: 10ms, maximumAttempts: 2}
            "#,
        )
        .await;
    world
        .run(
            "step",
            r#"
            steps:
            - name: call
              http: {url: INVENTORY/status/503}
              timeouts: {scheduleToClose: 5s}
              retry: {initialInterval: 400ms, backoffCoefficient: 1}
            "#,
        )
        .await;
    world
        .run(
            "call",
            "steps: [{name: call, http: {url: INVENTORY/slow/60000/call}, timeouts: {scheduleToClose: 1s}}]",
        )
        .await;
    world
        .run(
            "operation",
            "{timeout: 1s, steps: [{name: call, http: {url: INVENTORY/slow/60000/operation}}]}",
        )
        .await;

    let ended = world.ends("attempt", OperationState::Failed).await;
    let call = step(&ended, "call");
    assert_eq!((call.attempt, call.maybe_done), (2, true));
    assert_eq!(call.failure.as_ref().unwrap().reason, "StartToClose");
    assert_eq!(world.inventory.requests("/slow/60000/attempt").len(), 2);

    let ended = world.ends("step", OperationState::Failed).await;
    let call = step(&ended, "call");
    assert_eq!(call.state, StepState::TimedOut);
    assert!(call.attempt >= 2, "{} attempts", call.attempt);
    assert!(call.end_time.unwrap().since(call.start_time) <= Duration::from_secs(30));
    assert!(
        message_of(&ended).contains("503"),
        "it says what the last attempt said: {}",
        message_of(&ended)
    );

    let ended = world.ends("call", OperationState::Failed).await;
    assert_eq!(step(&ended, "call").state, StepState::TimedOut);
    assert!(step(&ended, "call").maybe_done);

    let ended = world.ends("operation", OperationState::TimedOut).await;
    assert!(
        message_of(&ended).contains("spec.timeout (1s) passed"),
        "{}",
        message_of(&ended)
    );
    assert_eq!(condition(&ended, "Finished"), ("True", "TimedOut"));
}

#[tokio::test]
async fn an_operation_that_is_first_seen_after_its_start_deadline_executes_nothing() {
    let world = World::new("time-start").await;
    let _operator = world.operator();
    let at = |offset: SignedDuration| (Timestamp::now() + offset).to_string();
    let spec = |deadline: &str| {
        format!("{{startDeadline: \"{deadline}\", steps: [{{name: a, http: {{url: INVENTORY/called}}}}]}}")
    };
    world.run("late", &spec(&at(SignedDuration::from_secs(-1)))).await;
    let ended = world.ends("late", OperationState::Expired).await;
    assert!(
        message_of(&ended).contains("nothing was executed"),
        "{}",
        message_of(&ended)
    );
    assert!(world.inventory.requests("/called").is_empty());
    world.run("early", &spec(&at(SignedDuration::from_hours(1)))).await;
    world.ends("early", OperationState::Succeeded).await;
    assert_eq!(world.inventory.requests("/called").len(), 1);
}

#[tokio::test]
async fn what_has_ended_is_deleted_or_compacted_when_its_time_to_live_is_over() {
    let world = World::new("time-ttl").await;
    let _operator = world.operator();
    let spec =
        "{ttlSecondsAfterFinished: 1, steps: [{name: a, http: {method: POST, url: INVENTORY/called}}], output: {v: 1}}";
    let named = world.manifest("named", spec);
    let mut run = named.clone();
    run["metadata"] = serde_json::json!({"generateName": "run-", "namespace": world.namespace});
    let created: CloudOperation = world
        .operations()
        .create(&Default::default(), &serde_json::from_value(run).unwrap())
        .await
        .unwrap();
    world.apply(&named.to_string()).await;

    world.until_gone::<CloudOperation>(&created.name_any()).await;
    let compacted = world
        .until("named", "compacted", |operation| {
            operation
                .status
                .as_ref()
                .is_some_and(|status| status.compacted == Some(true))
        })
        .await;
    let status = compacted.status.as_ref().unwrap();
    assert!(status.steps.is_empty() && status.history.is_empty());
    assert_eq!(
        (status.state, &status.output),
        (
            Some(OperationState::Succeeded),
            &serde_json::from_str("{\"v\": 1}").unwrap()
        )
    );
    assert_eq!(condition(&compacted, "Succeeded"), ("True", "Succeeded"));

    // Git applies it again, with and without a change of a control field.
    world.apply(&named.to_string()).await;
    world
        .patch("named", r#"{"spec": {"ttlSecondsAfterFinished": 0, "suspend": true}}"#)
        .await;
    let observed = world
        .until("named", "observed", |operation| {
            operation.status.as_ref().and_then(|status| status.observed_generation) == operation.meta().generation
        })
        .await;
    assert_eq!(
        observed.status.as_ref().unwrap().state,
        Some(OperationState::Succeeded),
        "what has ended stays so"
    );
    assert_eq!(world.inventory.requests("/called").len(), 2, "one of each operation");
}

#[tokio::test]
async fn what_comes_back_from_a_backup_waits_until_a_person_says_so() {
    let world = World::new("time-restore").await;
    let _operator = world.operator();
    let mut manifest = world.manifest("restored", "steps: [{name: a, http: {url: INVENTORY/called}}]");
    manifest["metadata"]["labels"] = serde_json::json!({"velero.io/restore-name": "monday"});
    world.apply(&manifest.to_string()).await;
    let restored = world.until_state("restored", OperationState::Restored).await;
    assert!(
        message_of(&restored).contains("remove the label velero.io/restore-name to run it"),
        "{}",
        message_of(&restored)
    );
    assert!(world.inventory.requests("/").is_empty());
    world
        .prints(&["label", "cop", "restored", "velero.io/restore-name-"])
        .await;
    world.ends("restored", OperationState::Succeeded).await;
}
