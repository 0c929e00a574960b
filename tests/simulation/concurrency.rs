//! Operations that exclude each other: never more at once than may be, who was created first first, and nothing leaked.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast::api::{CloudOperation, MAX_OPERATIONS_ANNOTATION, OperationAction, OperationLock, OperationState};
use holdfast_apiserver::Fault;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::sniper::{Crash, Seen, Sniper, but_renewals};
use crate::world::{NAMESPACE, World};

/// An operation that holds the key `eu`, by its name, for a minute and two calls.
pub fn exclusive(name: &str, fields: &Value) -> Value {
    let mut manifest = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "input": {"region": "eu"},
            "concurrency": {"key": "'deploy-' + input.region"},
            "steps": [
                {"name": "first", "http": {"method": "POST", "url": format!("http://inventory.prod/{name}/first")}},
                {"name": "nap", "wait": {"duration": "1m"}},
                {"name": "last", "http": {"method": "POST", "url": format!("http://inventory.prod/{name}/last")}},
            ],
        },
    });
    for (field, value) in fields.as_object().unwrap() {
        manifest["spec"][field] = value.clone();
    }
    manifest
}

/// The most operations that were under way at once, by what was written; and the order in which they started.
pub fn under_way(world: &World) -> (usize, Vec<String>) {
    let (mut now, mut most, mut order) = (BTreeSet::new(), 0, vec![]);
    for write in world.server.writes() {
        let change = &write.change;
        if change.key.resource != "cloudoperations" {
            continue;
        }
        let runs = change.after.as_ref().is_some_and(|after| {
            let status = &after.object["status"];
            let state = serde_json::from_value::<OperationState>(status["state"].clone());
            status.get("startTime").is_some() && !state.is_ok_and(OperationState::is_finished)
        });
        if !runs {
            now.remove(&change.key.name);
        } else if now.insert(change.key.name.clone()) {
            order.push(change.key.name.clone());
        }
        most = most.max(now.len());
    }
    (most, order)
}

pub async fn patch(world: &World, name: &str, patch: Value) {
    let api: Api<CloudOperation> = Api::namespaced(world.server.client("user"), NAMESPACE);
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

pub async fn all_end(world: &World, names: &[&str]) {
    let ended = |world: &World| names.iter().all(|name| world.finished(name));
    world.until("all end", ended).await;
}

/// As `exclusive`, but without a key.
pub fn plain(name: &str) -> Value {
    let mut manifest = exclusive(name, &json!({}));
    manifest["spec"].as_object_mut().unwrap().remove("concurrency");
    manifest
}

/// Lets so many of the namespace's operations run at once.
pub async fn limit(world: &World, most: Value) {
    let namespaces: Api<Namespace> = Api::all(world.server.client("user"));
    let patch = json!({"metadata": {"annotations": {MAX_OPERATIONS_ANNOTATION: most}}});
    namespaces
        .patch(NAMESPACE, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

/// Two operations with one key, or three of a namespace that runs two at once, created a second apart; the operator dies.
pub async fn crash_at(crash: Crash, by_namespace: bool) -> Seen {
    let (names, at_once) = match by_namespace {
        true => (vec!["c", "b", "a"], 2),
        false => (vec!["b", "a"], 1),
    };
    let mut world = World::new(1);
    if by_namespace {
        limit(&world, json!(at_once.to_string())).await;
    }
    let sniper = Sniper::aim(&world, crash, but_renewals());
    for name in &names {
        let manifest = match by_namespace {
            true => plain(name),
            false => exclusive(name, &json!({})),
        };
        world.apply(&manifest).await;
        sleep(Duration::from_secs(1)).await;
    }
    let mut operator = world.start();
    let ended = async |world: &World| all_end(world, &names).await;
    sniper.watch(&mut world, &mut operator, ended).await;
    let a_minute = async |_: &World| sleep(Duration::from_secs(60)).await;
    sniper.watch(&mut world, &mut operator, a_minute).await;
    let (most, order) = under_way(&world);
    assert_eq!(most, at_once, "{crash:?}");
    for (started, expected) in order.chunks(at_once).zip(names.chunks(at_once)) {
        let started: BTreeSet<&str> = started.iter().map(String::as_str).collect();
        let expected = expected.iter().copied().collect(); // who may start at the same time starts in any order
        assert_eq!(
            started, expected,
            "who was created first starts first: {crash:?}: {order:?}"
        );
    }
    for name in names {
        assert_eq!(world.state(name), Some(OperationState::Succeeded));
        for call in ["first", "last"] {
            assert_eq!(world.service.effects()[&format!("/{name}/{call}")], 1, "{crash:?}");
        }
    }
    if crash == Crash::Never {
        assert_eq!(
            world.server.list::<OperationLock>(),
            vec![],
            "the lock is gone with the last"
        );
    }
    world.check();
    world.kill_all().await;
    sniper.seen()
}

#[tokio::test(start_paused = true)]
async fn crashed_everywhere_one_runs_at_a_time_and_in_order() {
    let seen = crash_at(Crash::Never, false).await;
    assert!(seen.requests > 20 && seen.calls == 4, "only {seen:?}");
    for crash in seen.crashes() {
        crash_at(crash, false).await;
    }
}

/// One holds the key for longer than a takeover takes, and another of the key won't wait; the operator dies.
async fn crash_one_that_rejects_at(crash: Crash) -> Seen {
    let mut world = World::new(1);
    let sniper = Sniper::aim(&world, crash, but_renewals());
    let mut operator = world.start();
    world.apply(&exclusive("a", &json!({}))).await;
    let holds = async |world: &World| {
        let waits = |world: &World| world.state("a") == Some(OperationState::Waiting);
        world.until("one holds the key", waits).await;
    };
    sniper.watch(&mut world, &mut operator, holds).await;
    let policy = json!({"concurrency": {"key": "'deploy-eu'", "policy": "Reject"}});
    world.apply(&exclusive("b", &policy)).await;
    let ended = async |world: &World| all_end(world, &["a", "b"]).await;
    sniper.watch(&mut world, &mut operator, ended).await;
    let states = ["a", "b"].map(|name| world.state(name));
    assert_eq!(
        states,
        [Some(OperationState::Succeeded), Some(OperationState::Failed)],
        "{crash:?}"
    );
    assert!(!world.service.effects().contains_key("/b/first"), "{crash:?}");
    world.check();
    world.kill_all().await;
    sniper.seen()
}

#[tokio::test(start_paused = true)]
async fn crashed_everywhere_one_that_rejects_executes_nothing() {
    let seen = crash_one_that_rejects_at(Crash::Never).await;
    assert!(seen.requests > 10 && seen.calls == 2, "only {seen:?}");
    for crash in seen.crashes() {
        crash_one_that_rejects_at(crash).await;
    }
}

/// The process died between the lock and the start: an older operation must not wait for one that waits for it.
#[tokio::test(start_paused = true)]
async fn who_took_the_key_and_had_no_time_to_start_comes_first() {
    let mut world = World::new(1);
    world.apply(&exclusive("older", &json!({}))).await;
    sleep(Duration::from_secs(1)).await;
    let younger = world.apply(&exclusive("younger", &json!({}))).await;
    let holder = json!({"name": "younger", "uid": younger.metadata.uid, "since": "2026-11-24T00:00:01Z"});
    let spec = json!({"key": "deploy-eu", "holders": [holder]});
    let mut lock = OperationLock::new(
        &holdfast::controllers::lock_name("deploy-eu"),
        serde_json::from_value(spec).unwrap(),
    );
    lock.metadata.namespace = Some(NAMESPACE.into());
    world.server.put(&lock);
    world.start();
    all_end(&world, &["older", "younger"]).await;
    assert_eq!(under_way(&world), (1, ["younger", "older"].map(str::to_owned).to_vec()));
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn two_operators_and_lost_answers_let_no_two_run_at_once() {
    for seed in 0..6 {
        let mut world = World::new(seed);
        world.set_unreliable(seed.into(), 20);
        let first = world.start();
        world.start();
        let names: Vec<String> = (0..8).map(|n| format!("o{n}")).collect();
        for name in &names {
            world
                .apply(&exclusive(
                    name,
                    &json!({"concurrency": {"key": "input.region", "max": 2}}),
                ))
                .await;
        }
        sleep(Duration::from_secs(150)).await;
        world.kill(first).await;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        all_end(&world, &names).await;
        let (most, order) = under_way(&world);
        assert_eq!((most, order.len()), (2, 8), "seed {seed}: {order:?}");
        world.check();
        world.kill_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_says_for_what_and_a_cancel_or_deletion_of_the_holder_lets_it_start() {
    let mut world = World::new(1);
    world.start();
    for name in ["a", "b", "c", "d"] {
        world.apply(&exclusive(name, &json!({}))).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.state("b"), Some(OperationState::Queued));
    let lock = &world.server.list::<OperationLock>()[0];
    assert_eq!(lock.spec.key, "deploy-eu");
    assert_eq!(
        lock.spec.holders.iter().map(|holder| &*holder.name).collect::<Vec<_>>(),
        ["a"]
    );
    let message = world.message("b");
    assert!(
        message.contains("the concurrency key \"deploy-eu\"") && message.contains(lock.metadata.name.as_ref().unwrap()),
        "{message}"
    );

    patch(&world, "c", json!({"spec": {"cancel": {"reason": "no longer needed"}}})).await;
    world
        .until("the one that waits is cancelled", |world| {
            world.state("c") == Some(OperationState::Cancelled)
        })
        .await;
    assert_eq!(world.state("a"), Some(OperationState::Waiting));
    patch(&world, "a", json!({"spec": {"cancel": {}}})).await;
    world
        .until("the next starts", |world| {
            world.state("b") == Some(OperationState::Waiting)
        })
        .await;
    world.delete::<CloudOperation>("b").await;
    world
        .until("the next starts", |world| {
            world.state("d") == Some(OperationState::Waiting)
        })
        .await;
    all_end(&world, &["d"]).await;
    assert!(
        !world.service.effects().contains_key("/c/first"),
        "nothing of it was executed"
    );
    assert_eq!(under_way(&world), (1, ["a", "b", "d"].map(str::to_owned).to_vec()));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.server.list::<OperationLock>(), vec![]);
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_rejects_ends_with_nothing_executed() {
    let mut world = World::new(1);
    world.start();
    world.apply(&exclusive("a", &json!({}))).await;
    sleep(Duration::from_secs(1)).await;
    let policy = json!({"concurrency": {"key": "'deploy-eu'", "policy": "Reject"}});
    world.apply(&exclusive("b", &policy)).await;
    all_end(&world, &["a", "b"]).await;
    assert_eq!(world.state("b"), Some(OperationState::Failed));
    assert!(
        world.message("b").starts_with("ConcurrencyLimit: others hold"),
        "{}",
        world.message("b")
    );
    assert!(!world.service.effects().contains_key("/b/first"));
    world.apply(&exclusive("c", &policy)).await;
    all_end(&world, &["c"]).await;
    assert_eq!(
        world.state("c"),
        Some(OperationState::Succeeded),
        "nobody holds it any more"
    );
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_a_person_lets_go_on_after_its_end_waits_for_its_key() {
    let mut world = World::new(1);
    world.start();
    let fails = json!({"steps": [
        {"name": "nap", "wait": {"duration": "10s"}},
        {"name": "call", "http": {"method": "POST", "url": "http://inventory.prod/status/422"}},
    ]});
    world.apply(&exclusive("a", &fails)).await;
    all_end(&world, &["a"]).await;
    assert_eq!(world.state("a"), Some(OperationState::Failed));
    for name in ["b", "c"] {
        world.apply(&exclusive(name, &json!({}))).await;
        sleep(Duration::from_secs(1)).await;
    }
    world.ask("a", 1, &json!({"reset": {"step": "nap"}})).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.state("a"), Some(OperationState::Failed), "another holds the key");
    let message = world.message("a");
    assert!(
        message.starts_with("to run again, as it was asked to, it waits for the concurrency key \"deploy-eu\"")
            && message.contains("; before: step call: HttpStatus: ")
            && message.ends_with("422 Unprocessable Entity: not now"),
        "{message}"
    );
    assert_eq!(reconciling(&world, "a"), ("True".into(), "Queued".into()));
    all_end(&world, &["b"]).await;
    world
        .until("it goes on", |world| world.state("a") == Some(OperationState::Waiting))
        .await;
    assert_eq!(world.state("c"), Some(OperationState::Queued));
    all_end(&world, &["a", "c"]).await;
    assert_eq!(under_way(&world), (1, ["a", "b", "a", "c"].map(str::to_owned).to_vec()));
    world.kill_all().await;
}

/// The leader is cut off after it took the key for one that a person lets go on; the write that says so arrives much later.
#[tokio::test(start_paused = true)]
async fn a_late_write_lets_nobody_go_on_whose_key_another_took() {
    let mut world = World::new(1);
    world.start();
    let fails = json!({"steps": [
        {"name": "nap", "wait": {"duration": "10s"}},
        {"name": "call", "http": {"method": "POST", "url": "http://inventory.prod/status/422"}},
    ]});
    world.apply(&exclusive("z", &fails)).await;
    all_end(&world, &["z"]).await;
    sleep(Duration::from_secs(30)).await;
    world.server.set_faults(|info| {
        let late = info.resource == "leases" || (info.is_write() && info.resource == "cloudoperations");
        match info.user == "operator0" && late {
            true => Fault::Delay(Duration::from_secs(45)),
            false => Fault::None,
        }
    });
    world.start();
    world.ask("z", 1, &json!({"reset": {"step": "nap"}})).await;
    sleep(Duration::from_secs(1)).await;
    let lock = &world.server.list::<OperationLock>()[0];
    assert_eq!(lock.spec.holders[0].name, "z", "the key is taken");
    assert_eq!(
        world.state("z"),
        Some(OperationState::Failed),
        "its status is on its way"
    );
    world.delete::<OperationAction>("z-1").await; // so that the next leader doesn't let it go on itself
    world.apply(&exclusive("b", &json!({}))).await;
    all_end(&world, &["b"]).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(under_way(&world), (1, ["z", "b"].map(str::to_owned).to_vec()));
    assert_eq!(world.state("z"), Some(OperationState::Failed));
    world.check();
    world.kill_all().await;
}

fn reconciling(world: &World, name: &str) -> (String, String) {
    let conditions = world.operation(name).status.unwrap().conditions;
    let found = conditions
        .into_iter()
        .find(|condition| condition.type_ == "Reconciling");
    found.map(|condition| (condition.status, condition.reason)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_that_no_longer_is_to_run_again_says_how_it_ended_and_holds_up_nobody() {
    let mut world = World::new(1);
    world.start();
    let fails =
        json!({"steps": [{"name": "call", "http": {"method": "POST", "url": "http://inventory.prod/status/422"}}]});
    world.apply(&exclusive("a", &fails)).await;
    all_end(&world, &["a"]).await;
    let ended = world.operation("a").status.unwrap();
    for name in ["b", "c"] {
        world.apply(&exclusive(name, &json!({}))).await;
        sleep(Duration::from_secs(1)).await;
    }
    world.ask("a", 1, &json!({"retry": {}})).await;
    world
        .until("it says that it waits", |world| {
            reconciling(world, "a") == ("True".into(), "Queued".into())
        })
        .await;
    let waits = world.operation("a").status.unwrap();
    patch(&world, "a", json!({"metadata": {"labels": {"seen": "by-the-queue"}}})).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(world.operation("a").status.unwrap(), waits, "it says so once");
    world.delete::<OperationAction>("a-1").await;
    world
        .until("it says how it ended", |world| reconciling(world, "a").0 == "False")
        .await;
    let mut now = world.operation("a").status.unwrap();
    now.write_id.clone_from(&ended.write_id);
    now.last_time = ended.last_time;
    for (now, then) in now.conditions.iter_mut().zip(&ended.conditions) {
        now.last_transition_time = then.last_transition_time.clone();
    }
    assert_eq!(now, ended);
    all_end(&world, &["b", "c"]).await;
    assert_eq!(under_way(&world), (1, ["a", "b", "c"].map(str::to_owned).to_vec()));
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_held_or_suspended_holds_up_nobody() {
    let mut world = World::new(1);
    world.start();
    world.apply(&exclusive("a", &json!({"suspend": true}))).await;
    sleep(Duration::from_secs(1)).await;
    world.apply(&exclusive("b", &json!({}))).await;
    world
        .until("the other starts", |world| {
            world.state("b") == Some(OperationState::Waiting)
        })
        .await;
    assert_eq!(world.state("a"), Some(OperationState::Suspended));
    patch(&world, "a", json!({"spec": {"suspend": false}})).await;
    world
        .until("it waits", |world| world.state("a") == Some(OperationState::Queued))
        .await;
    all_end(&world, &["a", "b"]).await;
    assert_eq!(under_way(&world).0, 1);
    world.kill_all().await;
}

/// Waits until both have run, in this order.
async fn one_after_the_other(mut world: World, order: [&str; 2]) {
    all_end(&world, &order).await;
    assert_eq!(under_way(&world), (1, order.map(str::to_owned).to_vec()));
    world.check();
    world.kill_all().await;
}

/// An operation `a` that took its key and was suspended before it started, and its operator, that died in between.
async fn suspended_with_its_key() -> World {
    let mut world = World::new(1);
    let sniper = Sniper::aim(&world, Crash::AtRequest(1, false), |info| {
        info.subresource == "status" && info.name == "a"
    });
    let operator = world.start();
    world.apply(&exclusive("a", &json!({}))).await;
    sniper.shot().await;
    world.kill(operator).await;
    patch(&world, "a", json!({"spec": {"suspend": true}})).await;
    assert_eq!(world.server.list::<OperationLock>()[0].spec.holders[0].name, "a");
    world
}

#[tokio::test(start_paused = true)]
async fn one_that_took_its_key_and_was_suspended_before_it_started_holds_up_nobody() {
    let mut world = suspended_with_its_key().await;
    world.start();
    world.apply(&exclusive("b", &json!({}))).await;
    world
        .until("the other starts", |world| {
            world.state("b") == Some(OperationState::Waiting)
        })
        .await;
    assert_eq!(world.state("a"), Some(OperationState::Suspended));
    patch(&world, "a", json!({"spec": {"suspend": false}})).await;
    one_after_the_other(world, ["b", "a"]).await;
}

/// A leader is cut off while it takes the key of one that is suspended for another; that write arrives much later.
#[tokio::test(start_paused = true)]
async fn a_late_write_takes_out_nobody_who_was_let_go_on_meanwhile() {
    let mut world = suspended_with_its_key().await;
    world.start();
    world
        .until("it leads", |world| world.state("a") == Some(OperationState::Suspended))
        .await;
    world.server.set_faults(|info| {
        let late = info.resource == "leases" || (info.is_write() && info.resource == "operationlocks");
        match info.user == "operator1" && late {
            true => Fault::Delay(Duration::from_secs(45)),
            false => Fault::None,
        }
    });
    world.apply(&exclusive("b", &json!({}))).await;
    sleep(Duration::from_secs(1)).await;
    world.start();
    patch(&world, "a", json!({"spec": {"suspend": false}})).await;
    world
        .until("it starts", |world| world.state("a") == Some(OperationState::Waiting))
        .await;
    sleep(Duration::from_secs(40)).await;
    let lock = &world.server.list::<OperationLock>()[0];
    assert_eq!(lock.spec.holders[0].name, "a", "it runs: {:?}", world.state("a"));
    one_after_the_other(world, ["a", "b"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_known_is_refused_by_its_field() {
    let mut world = World::new(1);
    world.start();
    world
        .apply(&exclusive("a", &json!({"concurrency": {"key": "input.lost"}})))
        .await;
    world
        .apply(&exclusive("b", &json!({"concurrency": {"key": "7"}})))
        .await;
    all_end(&world, &["a", "b"]).await;
    assert_eq!(world.state("a"), Some(OperationState::InvalidSpec));
    assert!(
        world.message("a").starts_with("spec.concurrency.key: "),
        "{}",
        world.message("a")
    );
    assert_eq!(
        world.message("b"),
        "spec.concurrency.key: a text is needed, not 7: use string()"
    );
    world.kill_all().await;
}
