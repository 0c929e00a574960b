//! An etcd that is restored while operations run: everything is held until a person has looked, wherever the operator dies.

use std::time::Duration;

use holdfast::api::OperationState;
use holdfast::controllers::HOLD_ALL_ANNOTATION;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::sleep;

use crate::sniper::{Crash, Seen, Sniper};
use crate::takeover::napping;
use crate::world::{NAMESPACE, World};

/// Takes the cluster back to where the nap had begun, once the call after it was made.
async fn restore_after_the_nap(world: &World) {
    sleep(Duration::from_secs(3)).await;
    let snapshot = world.server.revision();
    world
        .until("the nap is over and the next call made", |world| {
            world.service.calls() == 2
        })
        .await;
    world.server.rewind(snapshot);
}

/// Why everything is held, if it is.
fn held(world: &World) -> Option<String> {
    let lease: Lease = world.server.get("holdfast-system", "holdfast").unwrap();
    lease.annotations().get(HOLD_ALL_ANNOTATION).cloned()
}

/// A person lets everything go on.
async fn release(world: &World) {
    let leases: Api<Lease> = Api::namespaced(world.server.client("admin"), "holdfast-system");
    let patch = Patch::Merge(json!({"metadata": {"annotations": {HOLD_ALL_ANNOTATION: null}}}));
    leases.patch("holdfast", &PatchParams::default(), &patch).await.unwrap();
}

/// It ends, and each effect was had once.
async fn ends_well(world: &World) {
    world.until("the operation ends", |world| world.finished("timer")).await;
    assert_eq!(world.state("timer"), Some(OperationState::Succeeded));
    assert!(world.service.effects().values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn a_restored_etcd_holds_everything_until_a_person_has_looked() {
    let mut world = napping().await;
    restore_after_the_nap(&world).await;
    sleep(Duration::from_secs(1200)).await;
    assert_eq!(world.service.calls(), 2, "nothing is sent while everything is held");
    assert!(!world.finished("timer"));
    let why = held(&world).unwrap();
    assert!(why.contains("went backwards"), "{why}");
    release(&world).await;
    ends_well(&world).await;
    world.kill_all().await;
}

/// An etcd is restored while an operation waits; the operator dies at a write from then on, or at a call. Whatever happens,
/// everything is held until a person takes the annotation away.
async fn restored(crash: Crash) -> Seen {
    let mut world = World::new(1);
    let mut operator = world.start();
    let napping = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": "timer", "namespace": NAMESPACE},
        "spec": {"steps": [
            {"name": "before", "http": {"method": "POST", "url": "http://inventory.prod/before"}},
            {"name": "nap", "wait": {"duration": "30s"}},
            {"name": "after", "http": {"method": "POST", "url": "http://inventory.prod/slow/after/5000"}},
        ]},
    });
    world.apply(&napping).await;
    let begun = |world: &World| world.state("timer") == Some(OperationState::Waiting);
    world.until("the nap has begun", begun).await;
    restore_after_the_nap(&world).await;
    let sniper = Sniper::aim(&world, crash, |info| info.resource != "events" && info.is_write());
    let a_while = async |_: &World| sleep(Duration::from_secs(30)).await;
    sniper.watch(&mut world, &mut operator, a_while).await;
    sleep(Duration::from_secs(60)).await;
    // The one that saw it may have died with what it saw before it could write it down: then nobody can know, and the step
    // is made again under its key. What was written down holds.
    if held(&world).is_some() {
        assert_eq!(
            world.service.calls(),
            2,
            "{crash:?}: something was sent while everything is held"
        );
        assert!(!world.finished("timer"));
        release(&world).await;
    } else {
        assert!(crash != Crash::Never, "it was never held");
    }
    ends_well(&world).await;
    world.kill_all().await;
    sniper.seen()
}

#[tokio::test(start_paused = true)]
async fn what_holds_everything_after_a_restore_survives_a_crash_at_every_write_around_it() {
    let seen = restored(Crash::Never).await;
    assert!(seen.requests > 3, "only {seen:?}");
    for crash in seen.crashes() {
        restored(crash).await;
    }
}
