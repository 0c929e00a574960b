//! Many operations at once, people who ask, and an operator that is killed again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast::api::{ActionState, OperationAction, OperationState};
use holdfast_e2e::kubectl::kubectl_with;
use holdfast_e2e::world::{PATIENCE, World, state_of};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

const OPERATIONS: usize = 200;
const KILLS: usize = 6;

async fn create(world: &World, items: Vec<Value>) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let created = kubectl_with(&list, &["-n", &world.namespace, "create", "-f", "-"]).await;
    assert!(created.ok, "{}", created.err);
}

#[tokio::test]
async fn every_operation_ends_and_every_effect_is_had_once_though_the_operator_is_killed_again_and_again() {
    let _alone = crate::turn().await;
    let world = World::new("storm").await;
    let mut operator = world.operator();
    let name = |n: usize| format!("op{n}");
    let operation = |n: usize| {
        world.manifest(
            &name(n),
            &format!(
                r#"
                steps:
                - {{name: first, http: {{method: POST, url: "INVENTORY/first/{n}"}}, compensate: {{http: {{method: DELETE, url: "INVENTORY/first/{n}"}}}}}}
                - {{name: go, signal: {{}}}}
                - {{name: second, http: {{method: POST, url: "INVENTORY/second/{n}"}}}}
                finally:
                - {{name: last, http: {{method: POST, url: "INVENTORY/last/{n}"}}}}
                "#
            ),
        )
    };
    let action = |n: usize| {
        json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "OperationAction",
            "metadata": {"name": format!("go{n}"), "namespace": world.namespace},
            "spec": {"operationRef": {"name": name(n)}, "signal": {"name": "go"}}})
    };
    // Every fourth is cancelled, and its work undone; the others get their signal.
    let is_cancelled = |n: usize| n.is_multiple_of(4);
    create(&world, (0..OPERATIONS).map(operation).collect()).await;
    let asking = async {
        let signals = (0..OPERATIONS).filter(|n| !is_cancelled(*n)).map(action).collect();
        create(&world, signals).await;
        let cancel = r#"{"spec": {"cancel": {"mode": "Compensate"}}}"#;
        let names: Vec<String> = (0..OPERATIONS).filter(|n| is_cancelled(*n)).map(name).collect();
        let mut all = vec!["patch", "cop", "--type=merge", "-p", cancel];
        all.extend(names.iter().map(String::as_str));
        world.prints(&all).await;
    };
    let killing = async {
        for _ in 0..KILLS {
            operator.leads().await;
            tokio::time::sleep(Duration::from_secs(2)).await; // long enough to be in the middle of something
            operator.kill().await;
            operator = world.operator();
        }
        operator
    };
    let ((), _operator) = tokio::join!(asking, killing);

    let started = std::time::Instant::now();
    let ended = loop {
        let all = world.operations().list(&ListParams::default()).await.unwrap().items;
        let open = all
            .iter()
            .filter(|operation| !state_of(operation).is_some_and(OperationState::is_finished))
            .count();
        if open == 0 {
            break all;
        }
        assert!(started.elapsed() < PATIENCE, "{open} have not ended");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(ended.len(), OPERATIONS);
    let effects = world.inventory.effects("/");
    let keys: BTreeSet<&str> = effects.iter().map(|seen| seen.key.as_str()).collect();
    assert_eq!(keys.len(), effects.len(), "a key of its own for each");
    let had = |method: &str, path: String| {
        let same = effects.iter().filter(|seen| seen.method == method && seen.path == path);
        same.count()
    };
    for n in 0..OPERATIONS {
        let operation = ended.iter().find(|operation| operation.name_any() == name(n)).unwrap();
        let cancelled = is_cancelled(n);
        let state = if cancelled {
            OperationState::Cancelled
        } else {
            OperationState::Succeeded
        };
        assert_eq!(state_of(operation), Some(state), "{n}");
        let first = had("POST", format!("/first/{n}"));
        assert!(first == 1 || (cancelled && first == 0), "{n}: {first}");
        assert_eq!(
            had("DELETE", format!("/first/{n}")),
            usize::from(cancelled && first == 1),
            "{n}"
        );
        assert_eq!(had("POST", format!("/second/{n}")), usize::from(!cancelled), "{n}");
        assert_eq!(had("POST", format!("/last/{n}")), 1, "{n}");
    }
    let mut undecided = OPERATIONS;
    let started = std::time::Instant::now();
    while undecided > 0 {
        let actions = world
            .api::<OperationAction>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let applied = |action: &&OperationAction| {
            action.status.as_ref().and_then(|status| status.state) == Some(ActionState::Applied)
        };
        undecided = actions.items.len() - actions.items.iter().filter(applied).count();
        assert!(
            started.elapsed() < PATIENCE,
            "{undecided} actions don't say that they were applied"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
