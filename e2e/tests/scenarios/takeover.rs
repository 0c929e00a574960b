//! Two operators: the second takes over from one that was killed, and from one that was only paused and still believes
//! in itself; no attempt is executed by both.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holdfast::api::OperationState;
use holdfast_e2e::operator::Operator;
use holdfast_e2e::witness::Witness;
use holdfast_e2e::world::{PATIENCE, World};
use serde_json::json;

const OPERATIONS: usize = 5;
const STEPS: usize = 12;
/// In how many seconds another leads: 15, and as many on a machine that is busy with other tests.
const MOST: u64 = 30;

/// Starts operations of many calls each, all of which take some time, so that any moment is in the middle of several.
async fn start_many(world: &World) {
    let all = (0..OPERATIONS).map(|n| {
        let steps: Vec<_> = (0..STEPS)
            .map(|s| format!("{{name: s{s}, http: {{method: POST, url: INVENTORY/slow/200/op{n}/s{s}}}}}"))
            .collect();
        world.manifest(&format!("op{n}"), &format!("steps: [{}]", steps.join(", ")))
    });
    // At once: one kubectl for each would take as long as the operations do.
    let list = json!({"apiVersion": "v1", "kind": "List", "items": all.collect::<Vec<_>>()});
    world.apply(&list.to_string()).await;
}

/// Waits until so many calls came.
async fn until_called(world: &World, calls: usize) {
    let started = Instant::now();
    while world.inventory.requests("/slow").len() < calls {
        assert!(started.elapsed() < PATIENCE, "{calls} calls do not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All operations end, each effect is there once, and no attempt was given to, or sent by, more than one process.
async fn all_is_done_once(world: &World, witness: &Witness) {
    for n in 0..OPERATIONS {
        world.ends(&format!("op{n}"), OperationState::Succeeded).await;
    }
    let runners = witness.runners();
    let mut attempts = BTreeMap::<String, usize>::new();
    for (attempt, runners) in &runners {
        assert_eq!(runners.len(), 1, "{attempt:?} was given to {runners:?}");
        *attempts
            .entry(format!("/slow/200/{}/{}", attempt.operation, attempt.step))
            .or_default() += 1;
    }
    assert_eq!(attempts.len(), OPERATIONS * STEPS);
    for (path, recorded) in attempts {
        let mut sent = world.inventory.requests(&path);
        sent.retain(|request| request.path == path); // not s10 for s1
        assert!(
            sent.len() <= recorded,
            "{path} was sent {} times in {recorded} attempts",
            sent.len()
        );
        assert!(
            sent.iter().all(|request| request.key == sent[0].key),
            "{path} had several keys"
        );
    }
    assert_eq!(
        world.inventory.effects("/slow").len(),
        OPERATIONS * STEPS,
        "every effect is there once"
    );
}

async fn two(world: &World) -> (Operator, Operator) {
    let first = world.operator();
    first.leads().await;
    let second = world.operator();
    second.logs("standing by: another process leads").await;
    (first, second)
}

#[tokio::test]
async fn the_second_takes_over_from_one_that_was_killed() {
    let world = World::new("takeover-kill").await;
    let (first, second) = two(&world).await;
    let witness = Witness::of(world.operations());
    start_many(&world).await;
    until_called(&world, 12).await;
    first.kill().await;
    let killed = Instant::now();

    second.leads().await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(MOST), "the second leads after {took:?}");
    all_is_done_once(&world, &witness).await;
}

#[tokio::test]
async fn one_that_was_paused_beyond_its_claim_sends_nothing_when_it_goes_on() {
    let world = World::new("takeover-pause").await;
    let (first, second) = two(&world).await;
    let witness = Witness::of(world.operations());
    start_many(&world).await;
    until_called(&world, 12).await;
    first.signal("STOP").await;
    let paused = Instant::now();

    let leader = second.leads().await;
    let took = paused.elapsed();
    assert!(took < Duration::from_secs(MOST), "the second leads after {took:?}");
    // The first goes on in the middle of what the second does, with the answers of its own calls waiting for it.
    until_called(&world, world.inventory.requests("/slow").len() + 5).await;
    first.signal("CONT").await;
    first.logs("the claim to leadership ended").await;
    first.logs("standing by: another process leads").await;
    all_is_done_once(&world, &witness).await;
    let after_takeover = witness
        .runners()
        .into_iter()
        .filter(|(_, runners)| runners.contains(&leader))
        .count();
    assert!(after_takeover >= OPERATIONS, "the second did {after_takeover} attempts");

    // And it is of use again: it takes over from the second.
    second.stop().await;
    world
        .run("later", "steps: [{name: call, http: {url: INVENTORY/later}}]")
        .await;
    world.ends("later", OperationState::Succeeded).await;
}
