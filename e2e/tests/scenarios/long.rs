//! Histories without limit on the real API server: what is stored in etcd stays small, and nothing is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use holdfast::api::{CloudOperation, OperationHistory, OperationState};
use holdfast_e2e::world::{World, state_of, step};
use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::AbortHandle;

/// How large an object may be in etcd, which takes 1.5 MiB.
const MOST: usize = 700 * 1024;
/// How large a status may be.
const MOST_STATUS: usize = 128 * 1024;
/// How long it may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Sees each version of a kind's objects, and remembers how large the largest was, and its status.
struct Scale {
    largest: Arc<(AtomicUsize, AtomicUsize)>,
    task: AbortHandle,
}

impl Scale {
    fn of<K>(world: &World) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned
            + Send
            + 'static,
    {
        let largest = Arc::<(AtomicUsize, AtomicUsize)>::default();
        let (seen, api) = (largest.clone(), world.api::<K>());
        let task = tokio::spawn(async move {
            let mut objects = watcher(api, watcher::Config::default())
                .default_backoff()
                .touched_objects()
                .boxed();
            while let Some(object) = objects.next().await {
                // An error is followed by another try.
                let Some(object) = object.ok().and_then(|object| serde_json::to_value(object).ok()) else {
                    continue;
                };
                seen.0.fetch_max(object.to_string().len(), Ordering::Relaxed);
                seen.1.fetch_max(object["status"].to_string().len(), Ordering::Relaxed);
            }
        });
        Self {
            largest,
            task: task.abort_handle(),
        }
    }

    fn check(&self, what: &str) {
        let (object, status) = (
            self.largest.0.load(Ordering::Relaxed),
            self.largest.1.load(Ordering::Relaxed),
        );
        println!("the largest {what} had {object} bytes, its status {status}");
        assert!(object > 0 && object <= MOST, "{what}: {object} bytes");
        assert!(status <= MOST_STATUS, "{what}: a status of {status} bytes");
    }
}

impl Drop for Scale {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn succeeds(world: &World, name: &str) -> CloudOperation {
    let started = Instant::now();
    loop {
        let operation = world.operations().get(name).await.unwrap();
        let state = state_of(&operation);
        if state.is_some_and(OperationState::is_finished) {
            assert_eq!(
                state,
                Some(OperationState::Succeeded),
                "{:?}",
                operation.status.unwrap().failure
            );
            return operation;
        }
        let progress = operation.status.map(|status| (status.seq, status.steps.len()));
        assert!(
            started.elapsed() < PATIENCE,
            "{name} is not done after {PATIENCE:?}: {progress:?}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Every entry of the history, from its chunks and the status: none is missing.
async fn whole_history(world: &World, operation: &CloudOperation) -> usize {
    let chunks = world
        .api::<OperationHistory>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let uid = operation.uid().unwrap();
    let of_it = chunks.iter().filter(|chunk| chunk.spec.operation_ref.uid == uid);
    let status = operation.status.as_ref().unwrap();
    // What went into a chunk after the status was read is in both.
    let known: BTreeSet<i64> = of_it
        .flat_map(|chunk| &chunk.spec.entries)
        .chain(&status.history)
        .map(|entry| entry.seq)
        .collect();
    let missing: Vec<i64> = (1..=status.seq).filter(|seq| !known.contains(seq)).collect();
    assert!(missing.is_empty(), "the history lacks {missing:?}");
    known.len()
}

#[tokio::test]
async fn an_operation_with_twenty_thousand_events_ends_and_stays_small() {
    let world = World::new("long-events").await;
    let first = world.operator();
    let (operations, histories) = (
        Scale::of::<CloudOperation>(&world),
        Scale::of::<OperationHistory>(&world),
    );
    let lists: Vec<String> = (0..20)
        .map(|n| format!("- {{name: list{n}, forEach: lists.range(1000), assert: 'item >= 0'}}"))
        .collect();
    let steps = format!(
        "steps:\n{}\n- {{name: after, http: {{method: POST, url: INVENTORY/after}}}}",
        lists.join("\n")
    );
    world.run("events", &steps).await;
    let a_quarter = |operation: &CloudOperation| operation.status.as_ref().is_some_and(|status| status.seq > 5000);
    world.until("events", "a quarter done", a_quarter).await;
    first.kill().await;
    let _second = world.operator();
    let ended = succeeds(&world, "events").await;

    assert!(whole_history(&world, &ended).await >= 20_000);
    assert_eq!(world.inventory.effects("/after").len(), 1);
    operations.check("CloudOperation");
    histories.check("OperationHistory");
}

#[tokio::test]
async fn an_operation_with_five_thousand_items_at_once_ends_and_stays_small() {
    let world = World::new("long-items").await;
    let _operator = world.operator();
    let (operations, histories) = (
        Scale::of::<CloudOperation>(&world),
        Scale::of::<OperationHistory>(&world),
    );
    world
        .run(
            "items",
            r#"
            steps:
            - name: each
              forEach: lists.range(5000)
              maxParallel: 1000
              http: {method: POST, url: 'INVENTORY/item/${string(item)}'}
            "#,
        )
        .await;
    let ended = succeeds(&world, "items").await;

    assert_eq!(step(&ended, "each").items.as_ref().unwrap().total, 5000);
    assert_eq!(world.inventory.effects("/item").len(), 5000, "one a key");
    assert!(whole_history(&world, &ended).await >= 10_000);
    operations.check("CloudOperation");
    histories.check("OperationHistory");
}
