//! A namespace that runs so many operations at once, and what that means for those with a concurrency key, and children.

use std::time::Duration;

use holdfast::api::{CloudOperation, OperationLock, OperationState};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::concurrency::{all_end, crash_at, exclusive, limit, patch, plain, under_way};
use crate::sniper::{Crash, Seen, Sniper, but_renewals};
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn crashed_everywhere_a_namespace_runs_no_more_than_it_may_and_in_order() {
    let seen = crash_at(Crash::Never, true).await;
    assert!(seen.requests > 30 && seen.calls == 6, "only {seen:?}");
    for crash in seen.crashes() {
        crash_at(crash, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_operators_and_lost_answers_let_no_more_run_than_a_namespace_may() {
    for seed in 0..6 {
        let mut world = World::new(seed);
        limit(&world, json!("3")).await;
        world.set_unreliable(seed.into(), 20);
        let first = world.start();
        world.start();
        let names: Vec<String> = (0..10).map(|n| format!("o{n}")).collect();
        for name in &names {
            world.apply(&plain(name)).await;
        }
        // In the middle of some, and while others start.
        sleep(Duration::from_secs(60 + 7 * u64::from(seed))).await;
        world.kill(first).await;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        all_end(&world, &names).await;
        let (most, order) = under_way(&world);
        assert_eq!((most, order.len()), (3, 10), "seed {seed}: {order:?}");
        for name in names {
            assert_eq!(world.state(name), Some(OperationState::Succeeded));
        }
        world.check();
        world.kill_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_runs_so_many_at_once_and_its_limit_can_be_changed() {
    let mut world = World::new(1);
    limit(&world, json!("3")).await;
    world.start();
    let names: Vec<String> = (0..12).map(|n| format!("o{n:02}")).collect();
    for name in &names {
        // Those that wait for a key take no room.
        let key = if name < &"o04".to_owned() {
            "'same'"
        } else {
            "operation.name"
        };
        world
            .apply(&exclusive(name, &json!({"concurrency": {"key": key}})))
            .await;
        sleep(Duration::from_millis(1100)).await;
    }
    sleep(Duration::from_secs(40)).await;
    let running = |world: &World| {
        names
            .iter()
            .filter(|name| world.state(name) == Some(OperationState::Waiting))
            .count()
    };
    assert_eq!(running(&world), 3);
    let (most, order) = under_way(&world);
    assert_eq!((most, &order[..3]), (3, &["o00", "o04", "o05"].map(str::to_owned)[..]));
    assert!(
        world.message("o11").contains("runs 3 operations at once"),
        "{}",
        world.message("o11")
    );
    limit(&world, json!("5")).await;
    world.until("five run", |world| running(world) == 5).await;
    limit(&world, Value::Null).await;
    world
        .until("all that may run", |world| {
            running(world) + names.iter().filter(|name| world.finished(name)).count() >= 8
        })
        .await;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    all_end(&world, &names).await;
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_start_takes_no_turn_of_its_namespace() {
    let restored = json!({"metadata": {"labels": {"velero.io/restore-name": "backup"}}});
    let deleted = json!({"metadata": {"finalizers": ["example.com/held"]}, "spec": {"suspend": true}});
    for (fields, delete) in [(restored, false), (deleted, true)] {
        let mut world = World::new(1);
        limit(&world, json!("1")).await;
        world.start();
        let mut manifest = plain("a");
        for part in ["metadata", "spec"] {
            for (field, value) in fields[part].as_object().into_iter().flatten() {
                manifest[part][field] = value.clone();
            }
        }
        world.apply(&manifest).await;
        sleep(Duration::from_secs(1)).await;
        if delete {
            world.delete::<CloudOperation>("a").await;
            patch(&world, "a", json!({"spec": {"suspend": false}})).await;
            sleep(Duration::from_secs(1)).await;
        }
        world.apply(&plain("b")).await;
        all_end(&world, &["b"]).await;
        assert!(!world.finished("a"));
        world.kill_all().await;
    }
}

/// An operation without a key, whose child `eu` is exclusive, and is created after a pause.
fn with_exclusive_child(name: &str) -> Value {
    let mut child = exclusive("eu", &json!({}))["spec"].take();
    let input = child.as_object_mut().unwrap().remove("input");
    let mut manifest = plain(name);
    manifest["spec"]["steps"] = json!([
        {"name": "before", "wait": {"duration": "10s"}},
        {"name": "child", "operation": {"input": input, "spec": child}},
    ]);
    manifest
}

/// In a namespace that runs one operation at once, one whose child waits for a key is before others that want the key; and
/// the operator dies.
async fn place_and_key_at(crash: Crash) -> Seen {
    let mut world = World::new(1);
    limit(&world, json!("1")).await;
    let sniper = Sniper::aim(&world, crash, but_renewals());
    world.apply(&with_exclusive_child("p")).await;
    sleep(Duration::from_secs(1)).await;
    for name in ["b", "a"] {
        world.apply(&exclusive(name, &json!({}))).await;
        sleep(Duration::from_secs(1)).await;
    }
    let mut operator = world.start();
    let ended = async |world: &World| all_end(world, &["p", "b", "a"]).await;
    sniper.watch(&mut world, &mut operator, ended).await;
    let (most, order) = under_way(&world);
    assert_eq!(
        (most, order.len()),
        (2, 4),
        "a parent and its child: {crash:?}: {order:?}"
    );
    assert_eq!((&*order[0], &order[2..]), ("p", &["b", "a"].map(str::to_owned)[..]));
    let operations = world.server.list::<CloudOperation>();
    assert_eq!(operations.len(), 4);
    for operation in operations {
        assert_eq!(operation.status.unwrap().state, Some(OperationState::Succeeded));
    }
    world.check();
    world.kill_all().await;
    sniper.seen()
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_place_holds_no_key_that_the_child_of_one_with_a_place_waits_for() {
    for crash in place_and_key_at(Crash::Never).await.crashes() {
        place_and_key_at(crash).await;
    }
}

/// A leader dies after it took the key for `a`; another operation has the only place by then, and its child wants the key.
#[tokio::test(start_paused = true)]
async fn a_key_that_was_taken_before_a_crash_is_given_up_by_who_waits_for_a_place() {
    let mut world = World::new(1);
    limit(&world, json!("1")).await;
    let mut first = with_exclusive_child("p");
    first["spec"]["suspend"] = json!(true);
    world.apply(&first).await;
    sleep(Duration::from_secs(1)).await;
    let sniper = Sniper::aim(&world, Crash::AtRequest(1, false), |info| {
        info.subresource == "status" && info.name == "a"
    });
    let operator = world.start();
    world.apply(&exclusive("a", &json!({}))).await;
    sniper.shot().await;
    world.kill(operator).await;
    assert_eq!(world.server.list::<OperationLock>()[0].spec.holders[0].name, "a");
    patch(&world, "p", json!({"spec": {"suspend": false}})).await;
    world.start();
    all_end(&world, &["p", "a"]).await;
    let (most, order) = under_way(&world);
    assert_eq!((most, &*order[0], &*order[2]), (2, "p", "a"), "{order:?}");
    world.check();
    world.kill_all().await;
}
