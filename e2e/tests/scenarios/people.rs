//! What people and their tools see: kubectl's views, conditions, Events, health, metrics and log lines.

use holdfast::api::{CloudOperation, OperationState};
use holdfast_e2e::world::{PATIENCE, World, condition, message_of, step};
use serde_json::Value;

#[tokio::test]
async fn kubectl_shows_finds_and_explains_operations() {
    let world = World::new("people-kubectl").await;
    let _operator = world.operator();
    world
        .run(
            "fails",
            "{serviceAccountName: runner, steps: [{name: plan, set: {v: 1}}, {name: call, http: {url: INVENTORY/status/422}}]}",
        )
        .await;
    world
        .run(
            "waits",
            "steps: [{name: plan, set: {v: 1}}, {name: pause, wait: {duration: 1h}}]",
        )
        .await;
    world.ends("fails", OperationState::Failed).await;
    world.until_state("waits", OperationState::Waiting).await;

    let columns = world.prints(&["get", "cloudoperations"]).await;
    let rows: Vec<Vec<&str>> = columns.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "STATE", "PROGRESS", "STEP", "MESSAGE", "AGE"]);
    assert_eq!(rows[1][..3], ["fails", "Failed", "1/2"]);
    assert!(
        columns.contains("step call: HttpStatus: POST") || columns.contains("step call: HttpStatus: GET"),
        "{columns}"
    );
    assert_eq!(rows[2][..4], ["waits", "Waiting", "1/2", "pause"]);
    assert!(columns.contains("waiting until"), "{columns}");
    for name in ["cop", "cops", "holdfast", "cloudoperation"] {
        let found = world.prints(&["get", name, "-o", "name"]).await;
        assert!(found.contains("cloudoperation.holdfast.dev/fails"), "{name}: {found}");
    }
    for (selector, expected) in [
        ("status.state=Failed", "fails"),
        ("spec.serviceAccountName=runner", "fails"),
        ("status.state=Waiting", "waits"),
    ] {
        let found = world
            .prints(&["get", "cop", "--field-selector", selector, "-o", "name"])
            .await;
        assert_eq!(
            found.trim(),
            format!("cloudoperation.holdfast.dev/{expected}"),
            "{selector}"
        );
    }

    // `--for=condition=Succeeded` would hang on a failure: Finished returns at any end.
    world
        .prints(&["wait", "--for=condition=Finished", "cop/fails", "--timeout=10s"])
        .await;
    let failed = world
        .kubectl(&["wait", "--for=condition=Finished", "cop/waits", "--timeout=1s"])
        .await;
    assert!(!failed.ok);

    for (path, says) in [
        ("cop", "durable run of a workflow"),
        ("cop.spec.steps.http.maxResponseBytes", "largest answer that is read"),
        ("cop.status.state", "What an operation is doing, or how it ended"),
    ] {
        let explained = world.prints(&["explain", path]).await;
        let words = explained.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(says), "{path}: {explained}");
    }
    let all = world.prints(&["explain", "cop", "--recursive"]).await;
    assert!(all.contains("scheduleToClose"), "{all}");

    let started = std::time::Instant::now();
    loop {
        let described = world.prints(&["describe", "cop", "fails"]).await;
        let events = described
            .split_once("Events:")
            .map(|(_, events)| events.to_owned())
            .unwrap_or_default();
        let tells = |type_: &str, reason: &str| {
            let words = |line: &str| line.split_whitespace().take(2).eq([type_, reason]);
            events.lines().any(words)
        };
        if tells("Warning", "StepFailed") && tells("Warning", "Failed") && events.contains("422") {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{described}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn kstatus_is_told_the_truth() {
    let world = World::new("people-kstatus").await;
    // Not seen yet: the default generation tells tools that it is not done.
    world
        .run("succeeds", "steps: [{name: a, http: {url: INVENTORY/gate/running}}]")
        .await;
    let unseen = world.operations().get("succeeds").await.unwrap();
    assert_eq!(unseen.status.unwrap().observed_generation, Some(-1));

    let _operator = world.operator();
    let look = |operation: &CloudOperation| {
        let of = |kind| condition(operation, kind).0.to_owned();
        [of("Finished"), of("Succeeded"), of("Reconciling"), of("Stalled")]
    };
    let running = world.until_state("succeeds", OperationState::Running).await;
    assert_eq!(look(&running), ["False", "Unknown", "True", "False"]);
    world.run("waits", "steps: [{name: a, wait: {duration: 1h}}]").await;
    let waiting = world.until_state("waits", OperationState::Waiting).await;
    assert_eq!(look(&waiting), ["False", "Unknown", "True", "False"]);
    world.inventory.open("running");
    let succeeded = world.ends("succeeds", OperationState::Succeeded).await;
    assert_eq!(look(&succeeded), ["True", "True", "False", "False"]);
    world.run("fails", "steps: [{name: a, assert: 1 == 2}]").await;
    let failed = world.ends("fails", OperationState::Failed).await;
    assert_eq!(look(&failed), ["True", "False", "False", "True"]);
    for (operation, kind) in [
        (&running, "Reconciling"),
        (&waiting, "Reconciling"),
        (&failed, "Stalled"),
    ] {
        let conditions = &operation.status.as_ref().unwrap().conditions;
        let told = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        assert!(!told.message.is_empty(), "{kind}");
        assert_eq!(
            told.message,
            message_of(operation),
            "{kind}: what tools show is what kubectl does"
        );
    }
    for operation in [running, waiting, succeeded, failed] {
        let status = operation.status.unwrap();
        assert_eq!(status.observed_generation, Some(1));
        assert!(
            status
                .conditions
                .iter()
                .all(|c| c.observed_generation == Some(1) && !c.reason.is_empty())
        );
    }
}

#[tokio::test]
async fn a_field_manager_of_git_and_the_operator_never_conflict() {
    let world = World::new("people-apply").await;
    let _operator = world.operator();
    let mut manifest = world.manifest(
        "managed",
        "steps: [{name: a, http: {url: INVENTORY/a}}, {name: b, wait: {duration: 1h}}]",
    );
    let apply = async |manifest: &Value| {
        let file = tempfile(manifest);
        let path = file.path().display().to_string();
        world
            .prints(&["apply", "--server-side", "--field-manager=git", "-f", &path])
            .await
    };
    apply(&manifest).await;
    world.until_state("managed", OperationState::Waiting).await;
    apply(&manifest).await;
    manifest["spec"]["suspend"] = true.into();
    apply(&manifest).await;
    world.until_state("managed", OperationState::Suspended).await;
    manifest["spec"].as_object_mut().unwrap().remove("suspend");
    apply(&manifest).await;
    let resumed = world.until_state("managed", OperationState::Waiting).await;
    assert_eq!(step(&resumed, "a").attempt, 1);
    assert_eq!(world.inventory.requests("/a").len(), 1);
}

fn tempfile(manifest: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), manifest.to_string()).unwrap();
    file
}

#[tokio::test]
async fn the_operator_says_how_it_is_and_what_it_does() {
    let world = World::new("people-metrics").await;
    let operator = world.operator();
    operator.leads().await;
    world
        .run(
            "fails",
            "steps: [{name: call, http: {url: INVENTORY/status/503}, retry: {initialInterval: 10ms, maximumAttempts: 2}}]",
        )
        .await;
    world.run("waits", "steps: [{name: pause, wait: {duration: 1h}}]").await;
    world.ends("fails", OperationState::Failed).await;
    world.until_state("waits", OperationState::Waiting).await;

    assert_eq!(operator.get("/healthz").await, (200, "ok".into()));
    assert_eq!(operator.get("/readyz").await, (200, "ok".into()));
    assert_eq!(operator.get("/nothing").await.0, 404);
    let metrics = operator
        .measures(&[
            r#"holdfast_operations{state="Waiting"} 1"#,
            r#"holdfast_operations{state="Failed"} 1"#,
            r#"holdfast_operations_finished_total{state="Failed"} 1"#,
            r#"holdfast_step_attempts_total{type="http",result="retryable",reason="HttpStatus"} 2"#,
            "holdfast_leading 1",
            "holdfast_backlog 0",
            "holdfast_status_write_conflicts_total 0",
            r#"holdfast_operation_duration_seconds_count{state="Failed"} 1"#,
            r#"holdfast_step_attempt_duration_seconds_count{type="http"} 2"#,
        ])
        .await;
    assert!(metrics.contains("holdfast_status_writes_total"), "{metrics}");

    let ended = operator.logs("operation ended").await;
    let log = operator.log();
    let attempts: Vec<_> = log.iter().filter(|line| line["message"] == "attempt ended").collect();
    assert_eq!(attempts.len(), 2, "{log:#?}");
    for (line, attempt) in attempts.into_iter().zip(1..) {
        assert_eq!(line["namespace"], world.namespace.as_str(), "{line}");
        assert_eq!(line["name"], "fails", "{line}");
        assert_eq!(line["step"], "call", "{line}");
        assert_eq!(line["attempt"], attempt, "{line}");
        assert_eq!(
            (&line["result"], &line["reason"]),
            (&"failed".into(), &"HttpStatus".into())
        );
    }
    assert_eq!(
        (&ended["namespace"], &ended["name"]),
        (&world.namespace.as_str().into(), &"fails".into())
    );
}

#[tokio::test]
async fn an_operator_without_its_crd_or_its_cluster_is_not_ready() {
    let world = World::new("people-ready").await;
    // A token that isn't one: the CRD can't be read.
    let text = std::fs::read_to_string(&world.kubeconfig).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"]["token"] = "none".into();
    let path = format!("{}.broken", world.kubeconfig);
    std::fs::write(&path, config.to_string()).unwrap();
    let operator = holdfast_e2e::operator::Operator::start(&path, &["--namespace", &world.namespace]);
    operator.logs("the CRD can't be read: is it installed?").await;
    assert_eq!(operator.get("/healthz").await.0, 200);
    assert_eq!(operator.get("/readyz").await.0, 503);
    operator.stop().await;
}
