//! Deleting and evicting a Pod that something else makes anew at once: only the one that was there goes, whatever happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast::api::OperationState;
use holdfast_apiserver::{ApiServer, Fault, RequestInfo};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::sniper::{Crash, Seen, Sniper, but_renewals};
use crate::world::{NAMESPACE, World, of_operator};

/// Makes the Pod, as a StatefulSet's controller does, if there is none.
fn make(server: &ApiServer) {
    if server.get::<Pod>(NAMESPACE, "web-0").is_none() {
        let pod = json!({
            "metadata": {"name": "web-0", "namespace": NAMESPACE},
            "spec": {"containers": [{"name": "main", "image": "x"}]},
            "status": {"phase": "Running"},
        });
        server.put::<Pod>(&serde_json::from_value(pod).unwrap());
    }
}

/// Picks what [`but_renewals`] picks; the Pod that was removed is there again before any request of an operator.
fn beside_a_controller(world: &World) -> impl Fn(&RequestInfo) -> bool + Send + Sync + use<> {
    let (server, counts) = (world.server.clone(), but_renewals());
    make(&server);
    move |info| {
        make(&server);
        counts(info)
    }
}

async fn apply(world: &World, request: &Value) {
    let manifest = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": "drain", "namespace": NAMESPACE},
        "spec": {"serviceAccountName": "releaser", "steps": [{"name": "remove", "kubernetes": request}]},
    });
    world.apply(&manifest).await;
}

fn check(world: &World, what: &str) {
    assert_eq!(world.state("drain"), Some(OperationState::Succeeded), "{what}");
    let writes = world.server.writes();
    let removed = writes.iter().map(|write| &write.change);
    let removed = removed.filter(|change| change.key.resource == "pods" && change.after.is_none());
    assert_eq!(removed.count(), 1, "{what}");
    world.check();
}

async fn crash_at(crash: Crash, request: &Value) -> Seen {
    let mut world = World::new(1);
    let counts = beside_a_controller(&world);
    let sniper = Sniper::aim(&world, crash, counts);
    apply(&world, request).await;
    let mut operator = world.start();
    let ended = async |world: &World| world.until("it ends", |world| world.finished("drain")).await;
    sniper.watch(&mut world, &mut operator, ended).await;
    check(&world, &format!("{request}: {crash:?}"));
    world.kill_all().await;
    sniper.seen()
}

async fn answer_lost_at(number: usize, request: &Value) {
    let mut world = World::new(1);
    let (counts, seen) = (beside_a_controller(&world), Arc::new(AtomicUsize::new(0)));
    world.server.set_faults(move |info| {
        match of_operator(info) && counts(info) && seen.fetch_add(1, Ordering::Relaxed) + 1 == number {
            true => Fault::LoseAnswer,
            false => Fault::None,
        }
    });
    apply(&world, request).await;
    world.start();
    world.until("it ends", |world| world.finished("drain")).await;
    check(&world, &format!("{request}: the answer to {number} was lost"));
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_made_anew_stays_wherever_a_process_dies_or_an_answer_is_lost() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": "web-0"});
    for request in [json!({"delete": {"resource": pod}}), json!({"evict": {"pod": "web-0"}})] {
        let seen = crash_at(Crash::Never, &request).await;
        assert!(seen.requests > 10, "only {seen:?}");
        for crash in seen.crashes() {
            crash_at(crash, &request).await;
        }
        for number in 1..=seen.requests {
            answer_lost_at(number, &request).await;
        }
    }
}

/// The first request is refused; before the next attempt something else removes the Pod, and makes it anew.
#[tokio::test(start_paused = true)]
async fn what_was_made_anew_between_two_attempts_stays() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": "web-0"});
    for request in [json!({"delete": {"resource": pod}}), json!({"evict": {"pod": "web-0"}})] {
        let mut world = World::new(1);
        make(&world.server);
        world
            .server
            .set_faults(|info| match info.is_write() && info.resource == "pods" {
                true if info.user.starts_with("system:serviceaccount:") => Fault::Fail {
                    code: 429,
                    retry_after: None,
                },
                _ => Fault::None,
            });
        apply(&world, &request).await;
        world.start();
        world
            .until("an attempt failed", |world| {
                world.state("drain") == Some(OperationState::BackingOff)
            })
            .await;
        world.delete::<Pod>("web-0").await;
        make(&world.server);
        world.server.clear_faults();
        world.until("it ends", |world| world.finished("drain")).await;
        check(&world, &request.to_string());
        world.kill_all().await;
    }
}
