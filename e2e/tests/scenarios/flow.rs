//! What runs when: `set`, `assert`, `when`, `needs`, orders, outputs and waits.

use std::time::{Duration, SystemTime};

use holdfast::api::{HistoryEvent, OperationState, StepState};
use holdfast_e2e::world::{World, events, find_step, message_of, output, step};
use serde_json::json;

#[tokio::test]
async fn values_flow_from_input_through_steps_to_the_output() {
    let world = World::new("flow-values").await;
    let _operator = world.operator();
    world
        .run(
            "values",
            r#"
            input: {group: web, sizes: [3, 4, 5]}
            steps:
            - name: plan
              set: {total: "${input.sizes.map(s, s * 2).sum()}", name: "${input.group}-${operation.name}", list: ["${size(input.sizes)}"], fixed: 1}
            - name: read
              http: {url: "INVENTORY/groups/${input.group}"}
              output: {size: "${result.body.size}"}
            - {name: skipped, when: steps.plan.output.total > 100, http: {url: INVENTORY/never}}
            - {name: check, assert: steps.read.output.size + steps.plan.output.total == 27 && !has(steps.skipped.output)}
            output: {total: "${steps.plan.output.total}", text: "${input.group}: ${steps.read.output.size}", skipped: "${steps.skipped.state}"}
            "#,
        )
        .await;
    let ended = world.ends("values", OperationState::Succeeded).await;

    let planned = json!({"total": 24, "name": "web-values", "list": [3], "fixed": 1});
    assert_eq!(output(&ended, "plan"), planned);
    assert_eq!(step(&ended, "skipped").state, StepState::Skipped);
    assert_eq!(events(&ended, "skipped"), [HistoryEvent::StepSkipped]);
    assert!(world.inventory.requests("/never").is_empty());
    let status = ended.status.unwrap();
    assert_eq!(
        json!(status.output),
        json!({"total": 24, "text": "web: 3", "skipped": "Skipped"})
    );
    assert_eq!(status.progress.as_deref(), Some("4/4"));
}

#[tokio::test]
async fn a_false_assertion_and_a_wrong_expression_name_step_field_and_expression() {
    let world = World::new("flow-errors").await;
    let _operator = world.operator();
    world
        .run(
            "assertion",
            "{input: {n: 1}, steps: [{name: first, set: {n: 2}}, {name: enough, assert: steps.first.output.n > 2}]}",
        )
        .await;
    world
        .run(
            "runtime",
            "{input: {}, steps: [{name: ok, http: {url: INVENTORY/ok}}, {name: bad, set: {v: '${input.missing + 1}'}}]}",
        )
        .await;
    world
        .run(
            "unknown",
            "steps: [{name: never, http: {url: INVENTORY/unknown}}, {name: bad, set: {v: '${steps.nobody.output.x}'}}]",
        )
        .await;
    let ended = world.ends("assertion", OperationState::Failed).await;
    assert_eq!(
        message_of(&ended),
        "step enough: AssertFailed: steps.first.output.n > 2 is false"
    );
    let ended = world.ends("runtime", OperationState::Failed).await;
    let message = message_of(&ended);
    for part in ["step bad", "spec.steps[1].set.v", "missing"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let ended = world.ends("unknown", OperationState::InvalidSpec).await;
    let message = message_of(&ended);
    for part in ["spec.steps[1].set.v", "nobody"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(
        world.inventory.requests("/unknown").is_empty(),
        "nothing is executed of a spec that can't be"
    );
}

#[tokio::test]
async fn a_graph_runs_what_is_ready_side_by_side() {
    let world = World::new("flow-graph").await;
    let _operator = world.operator();
    world
        .run(
            "graph",
            r#"
            order: Graph
            steps:
            - {name: join, needs: [left], set: {right: "${steps.right.output.done}"}}
            - {name: left, http: {url: INVENTORY/gate/left}}
            - {name: right, http: {url: INVENTORY/gate/right}, output: {done: "${result.body.ok}"}}
            - {name: off, when: "false", set: {v: 1}}
            - {name: afterOff, needs: [off], set: {v: 2}}
            "#,
        )
        .await;
    let running = world
        .until("graph", "running both", |operation| {
            ["left", "right"]
                .iter()
                .all(|name| find_step(operation, name).is_some_and(|step| step.state == StepState::Running))
        })
        .await;
    assert!(find_step(&running, "join").is_none());
    assert_eq!(
        step(&running, "afterOff").state,
        StepState::Succeeded,
        "a skipped step satisfies what needs it"
    );
    for gate in ["right", "left"] {
        world.inventory.open(gate);
    }
    let ended = world.ends("graph", OperationState::Succeeded).await;
    assert_eq!(output(&ended, "join"), json!({"right": true}));
    let last = ["left", "right"].map(|name| step(&ended, name).end_time.unwrap());
    assert!(step(&ended, "join").start_time >= last[0].max(last[1]));
}

#[tokio::test]
async fn a_failure_lets_what_runs_beside_it_end() {
    let world = World::new("flow-beside").await;
    let _operator = world.operator();
    world
        .run(
            "beside",
            r#"
            order: Graph
            steps:
            - {name: slow, http: {method: POST, url: INVENTORY/gate/slow}}
            - {name: fails, http: {url: INVENTORY/status/422}}
            - {name: waits, wait: {duration: 1h}}
            - {name: after, needs: [slow], http: {url: INVENTORY/after}}
            "#,
        )
        .await;
    let failing = world
        .until("beside", "failing", |operation| {
            find_step(operation, "fails").is_some_and(|step| step.state == StepState::Failed)
        })
        .await;
    assert_eq!(step(&failing, "slow").state, StepState::Running);
    world.inventory.open("slow");
    let ended = world.ends("beside", OperationState::Failed).await;
    assert_eq!(step(&ended, "slow").state, StepState::Succeeded);
    assert_eq!(step(&ended, "waits").state, StepState::Cancelled);
    assert!(find_step(&ended, "after").is_none());
    assert!(message_of(&ended).contains("step fails"), "{}", message_of(&ended));
}

#[tokio::test]
async fn waits_end_at_their_time() {
    let world = World::new("flow-waits").await;
    let _operator = world.operator();
    let until = SystemTime::now() + Duration::from_secs(15);
    let until = k8s_openapi::jiff::Timestamp::try_from(until).unwrap();
    let spec = r#"
        order: Graph
        input: {pause: 1500ms, at: "TIME"}
        steps:
        - {name: duration, wait: {duration: "${input.pause}"}}
        - {name: untilTime, wait: {untilTime: "${input.at}"}}
        - {name: past, wait: {untilTime: "2020-01-01T00:00:00Z"}}
        "#;
    world.run("waits", &spec.replace("TIME", &until.to_string())).await;
    let waiting = world.until_state("waits", OperationState::Waiting).await;
    assert!(
        message_of(&waiting).contains("waiting until"),
        "{}",
        message_of(&waiting)
    );

    let ended = world.ends("waits", OperationState::Succeeded).await;
    let took = |name: &str| {
        step(&ended, name)
            .end_time
            .unwrap()
            .since(step(&ended, name).start_time)
    };
    assert!(
        took("duration") >= Duration::from_millis(1500),
        "{:?}",
        took("duration")
    );
    assert_eq!(took("past"), Duration::ZERO);
    let end = step(&ended, "untilTime").end_time.unwrap();
    assert!(end.millis() >= until.as_millisecond(), "{end} is before {until}");
}
