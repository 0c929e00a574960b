//! Operations that exclude each other, on the real API server, while operators are killed.

use holdfast::api::{CloudOperation, OperationLock, OperationState};
use holdfast_e2e::world::{World, message_of, state_of};
use kube::ResourceExt;
use kube::api::ListParams;

const EXCLUSIVE: &str = r#"
    input: {region: eu}
    concurrency: {key: "'deploy-' + input.region"}
    steps:
    - {name: begin, http: {method: POST, url: "INVENTORY/begin"}}
    - {name: nap, wait: {duration: 300ms}}
    - {name: end, http: {method: POST, url: "INVENTORY/end"}}
"#;

/// From when to when each ran, the first one first.
async fn times(world: &World) -> Vec<(String, String, String)> {
    let all = world.operations().list(&ListParams::default()).await.unwrap();
    let time = |time: Option<holdfast::api::Time>| time.unwrap().to_string();
    let times = all.into_iter().map(|operation: CloudOperation| {
        let status = operation.status.clone().unwrap();
        (
            time(status.start_time),
            time(status.completion_time),
            operation.name_any(),
        )
    });
    let mut times: Vec<_> = times.collect();
    times.sort();
    times
}

#[tokio::test]
async fn one_runs_at_a_time_in_order_though_the_operator_is_killed_again_and_again() {
    let world = World::new("concurrency-order").await;
    let mut operator = world.operator();
    let names: Vec<String> = (0..8).map(|n| format!("deploy-{n}")).collect();
    for name in &names {
        world.run(name, EXCLUSIVE).await;
    }
    for name in ["deploy-1", "deploy-3", "deploy-5"] {
        world
            .until(name, "it has started", |operation| {
                operation
                    .status
                    .as_ref()
                    .is_some_and(|status| status.start_time.is_some())
            })
            .await;
        operator.kill().await;
        operator = world.operator();
    }
    for name in &names {
        world.ends(name, OperationState::Succeeded).await;
    }
    let times = times(&world).await;
    for pair in times.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "two ran at once: {pair:?}");
    }
    let second = |name: &str| name.trim_start_matches("deploy-").parse::<usize>().unwrap();
    assert!(times.iter().map(|(_, _, name)| second(name)).is_sorted(), "{times:?}");
    assert_eq!(world.inventory.effects("/end").len(), 8);
}

#[tokio::test]
async fn who_waits_is_queued_and_kubectl_shows_who_holds_the_key() {
    let world = World::new("concurrency-kubectl").await;
    let _operator = world.operator();
    let slow = EXCLUSIVE.replace("300ms", "1h");
    world.run("first", &slow).await;
    world.until_state("first", OperationState::Waiting).await;
    world.run("second", &slow).await;
    let queued = world.until_state("second", OperationState::Queued).await;
    assert!(
        message_of(&queued).contains("concurrency key \"deploy-eu\""),
        "{}",
        message_of(&queued)
    );
    let locks = world.prints(&["get", "oplock"]).await;
    assert!(
        locks.contains("deploy-eu") && locks.contains("first") && !locks.contains("second"),
        "{locks}"
    );
    world
        .run(
            "third",
            &slow.replace("'deploy-' + input.region\"", "'deploy-eu'\", policy: Reject"),
        )
        .await;
    let rejected = world.ends("third", OperationState::Failed).await;
    assert!(
        message_of(&rejected).starts_with("ConcurrencyLimit: others hold"),
        "{}",
        message_of(&rejected)
    );

    world.prints(&["delete", "cop", "first"]).await;
    world.until_state("second", OperationState::Waiting).await;
    world.patch("second", r#"{"spec": {"cancel": {}}}"#).await;
    world.ends("second", OperationState::Cancelled).await;
    let api = world.api::<OperationLock>();
    let gone = async { while !api.list(&ListParams::default()).await.unwrap().items.is_empty() {} };
    tokio::time::timeout(holdfast_e2e::world::PATIENCE, gone)
        .await
        .expect("the lock goes with the last");
}

#[tokio::test]
async fn as_many_run_at_once_as_max_says() {
    let world = World::new("concurrency-max").await;
    let _operator = world.operator();
    for name in ["a", "b", "c"] {
        world
            .run(
                name,
                &format!("{{concurrency: {{key: \"'deploy'\", max: 2}}, steps: [{{name: call, http: {{method: POST, url: INVENTORY/gate/{name}}}}}]}}"),
            )
            .await;
    }
    world.until_called("/gate/a").await;
    world.until_called("/gate/b").await;
    world.until_state("c", OperationState::Queued).await;
    let locks = world.api::<OperationLock>().list(&ListParams::default()).await.unwrap();
    let holders = locks.iter().flat_map(|lock| &lock.spec.holders);
    let mut holders: Vec<_> = holders.map(|holder| holder.name.as_str()).collect();
    holders.sort_unstable();
    assert_eq!(holders, ["a", "b"]);

    world.inventory.open("a");
    world.ends("a", OperationState::Succeeded).await;
    world.until_called("/gate/c").await;
    let b = world.operations().get("b").await.unwrap();
    assert_eq!(state_of(&b), Some(OperationState::Running), "c runs beside it");
    for name in ["b", "c"] {
        world.inventory.open(name);
        world.ends(name, OperationState::Succeeded).await;
    }
}

#[tokio::test]
async fn a_namespace_runs_as_many_as_its_annotation_says() {
    let world = World::new("concurrency-namespace").await;
    let annotation = |value: &str| {
        [
            "annotate".to_owned(),
            "namespace".into(),
            world.namespace.clone(),
            format!("holdfast.dev/max-operations{value}"),
        ]
    };
    let annotate = async |value: &str| {
        let arguments = annotation(value);
        world.prints(&arguments.each_ref().map(String::as_str)).await;
    };
    annotate("=2").await;
    let _operator = world.operator();
    for name in ["a", "b", "c", "d"] {
        world.run(name, "steps: [{name: nap, wait: {duration: 1h}}]").await;
    }
    for name in ["c", "d"] {
        world.until_state(name, OperationState::Queued).await;
    }
    world.until_state("b", OperationState::Waiting).await;
    let states = world.operations().list(&ListParams::default()).await.unwrap();
    let queued = states
        .iter()
        .filter(|operation| state_of(operation) == Some(OperationState::Queued))
        .count();
    assert_eq!(queued, 2);
    annotate("-").await;
    world.until_state("d", OperationState::Waiting).await;
    world.until_state("c", OperationState::Waiting).await;
}
