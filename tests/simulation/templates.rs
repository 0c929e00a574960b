//! Operations that run a template: what they run is what was there when they started, whatever happens to the template, to
//! the operator, or to the copy that was kept.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast::api::{CloudOperation, OperationHistory, OperationState, OperationTemplate};
use holdfast_apiserver::Verb;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::samples::sample;
use crate::sniper::{Crash, Sniper};
use crate::world::{NAMESPACE, World};

/// Another workflow under the template's name.
fn changed() -> Value {
    json!({"steps": [{"name": "other", "http": {"method": "POST", "url": "http://inventory.prod/other"}}]})
}

fn old_effects() -> BTreeMap<String, usize> {
    BTreeMap::from([("/groups/web/resize".into(), 1), ("/check".into(), 1)])
}

fn new_effects() -> BTreeMap<String, usize> {
    BTreeMap::from([("/other".into(), 1)])
}

fn pin(world: &World) -> Option<OperationHistory> {
    let mut pins = world.server.list::<OperationHistory>();
    assert!(pins.len() <= 1, "one a run");
    pins.pop()
}

/// A world whose operation is in the middle: its first call was made, and it naps.
async fn napping() -> (World, usize) {
    let mut world = World::new(1);
    let operator = world.start();
    world.apply_sample(&sample("template")).await;
    world
        .until("it naps", |world| {
            world.state("template") == Some(OperationState::Waiting)
        })
        .await;
    (world, operator)
}

#[tokio::test(start_paused = true)]
async fn a_template_that_is_changed_or_deleted_changes_no_operation_that_has_started() {
    for deleted in [false, true] {
        let (mut world, operator) = napping().await;
        if deleted {
            world.delete::<OperationTemplate>("resize").await;
        } else {
            world.put_template("resize", &changed());
        }
        world.kill(operator).await;
        world.start();
        world.until("it ends", |world| world.finished("template")).await;
        assert_eq!(world.state("template"), Some(OperationState::Succeeded));
        assert_eq!(
            world.operation("template").status.unwrap().output,
            json!({"size": 4}).as_object().cloned()
        );
        assert_eq!(world.service.effects(), old_effects());
        let reads = world.server.request_counts()[&(Verb::Get, "operationtemplates".into())];
        assert_eq!(reads, 1, "it is read once, at the start");
        world.check();
        world.kill_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_pinned_before_a_crash_is_what_runs_and_else_what_is_there_then() {
    for deleted in [false, true] {
        let mut ends = BTreeMap::new();
        for number in 1.. {
            for applied in [false, true] {
                let mut world = World::new(1);
                let sniper = Sniper::aim(&world, Crash::AtRequest(number, applied), |info| {
                    info.resource.starts_with("operation") || info.resource == "cloudoperations"
                });
                let operator = world.start();
                world.apply_sample(&sample("template")).await;
                tokio::select! {
                    () = sniper.shot() => {}
                    () = world.until("it ends", |world| world.finished("template")) => {}
                }
                let all_seen = world.finished("template");
                let pinned = pin(&world).is_some();
                world.kill(operator).await;
                if deleted {
                    world.delete::<OperationTemplate>("resize").await;
                } else {
                    world.put_template("resize", &changed());
                }
                world.start();
                if deleted && !pinned {
                    world
                        .until("it waits for the template", |world| {
                            world.message("template").contains("OperationTemplate resize")
                        })
                        .await;
                    assert_eq!(world.state("template"), Some(OperationState::Waiting));
                    world.put_template("resize", &changed());
                }
                world.until("it ends", |world| world.finished("template")).await;
                assert_eq!(world.state("template"), Some(OperationState::Succeeded));
                let expected = if pinned { old_effects() } else { new_effects() };
                assert_eq!(world.service.effects(), expected, "crashed at {number}, {applied}");
                *ends.entry(pinned).or_insert(0) += 1;
                world.check();
                world.kill_all().await;
                if all_seen {
                    assert!(ends[&true] > 3 && ends[&false] > 3, "{ends:?}");
                    break;
                }
            }
            if ends.get(&true).is_some_and(|n| *n > 12) {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_template_that_is_not_there_yet_is_waited_for_visibly_and_without_haste() {
    let mut world = World::new(1);
    world.start();
    let sample = sample("template");
    world.apply(&sample.manifest).await;
    world
        .until("it waits", |world| {
            world.state("template") == Some(OperationState::Waiting)
        })
        .await;
    let status = world.operation("template").status.unwrap();
    assert_eq!(status.start_time, None);
    assert_eq!(
        world.message("template"),
        "OperationTemplate resize, which spec.templateRef names, isn't in namespace prod: the operation starts once it is"
    );
    sleep(Duration::from_secs(6 * 3600)).await;
    let reads = world.server.request_counts()[&(Verb::Get, "operationtemplates".into())];
    assert!((10..100).contains(&reads), "{reads} reads in six hours");
    let writes = world.operation("template").status.unwrap();
    assert_eq!(writes, status, "it says so once");
    world.put_template("resize", &sample.templates["resize"]);
    let applied = Instant::now();
    world.until("it ends", |world| world.finished("template")).await;
    assert!(applied.elapsed() < Duration::from_secs(300 + 600 + 60));
    assert_eq!(world.state("template"), Some(OperationState::Succeeded));
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_template_can_be_cancelled_and_expires() {
    let mut world = World::new(1);
    world.start();
    let mut cancelled = sample("template").manifest;
    cancelled["metadata"]["name"] = json!("cancelled");
    cancelled["spec"]["cancel"] = json!({"reason": "never mind"});
    let mut expires = sample("template").manifest;
    expires["metadata"]["name"] = json!("expires");
    expires["spec"]["startDeadline"] = json!("2026-11-24T05:00:00Z");
    for manifest in [&cancelled, &expires] {
        world.apply(manifest).await;
    }
    world.until("one ends", |world| world.finished("cancelled")).await;
    assert_eq!(world.state("cancelled"), Some(OperationState::Cancelled));
    world.until("the other ends", |world| world.finished("expires")).await;
    assert_eq!(world.state("expires"), Some(OperationState::Expired));
    let ended = world.operation("expires").status.unwrap().completion_time.unwrap();
    assert!(ended.to_string().starts_with("2026-11-24T05:00:00"), "{ended}");
    assert_eq!(world.service.calls(), 0);
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn an_input_that_does_not_conform_ends_before_any_effect() {
    let mut world = World::new(1);
    world.start();
    let mut sample = sample("template");
    sample.manifest["spec"]["input"] = json!({"group": "web", "size": "large"});
    world.apply_sample(&sample).await;
    world.until("it ends", |world| world.finished("template")).await;
    assert_eq!(world.state("template"), Some(OperationState::InvalidSpec));
    assert_eq!(
        world.message("template"),
        "spec.input.size: \"large\" is not of type \"integer\""
    );
    assert_eq!(world.service.calls(), 0);
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn steps_that_are_wrong_are_named_as_the_templates() {
    let mut world = World::new(1);
    world.start();
    let mut sample = sample("template");
    sample.templates.get_mut("resize").unwrap()["steps"][0]["http"]["url"] = json!("http://x/${nothing}");
    world.apply_sample(&sample).await;
    world.until("it ends", |world| world.finished("template")).await;
    assert_eq!(world.state("template"), Some(OperationState::InvalidSpec));
    let message = world.message("template");
    assert!(
        message.starts_with("spec.steps[0].http.url of OperationTemplate resize: "),
        "{message}"
    );
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_tampered_with_executes_nothing_more() {
    let (mut world, operator) = napping().await;
    world.kill(operator).await;
    let mut tampered = pin(&world).unwrap();
    tampered.spec.template.as_mut().unwrap().spec["steps"] = changed()["steps"].clone();
    world.server.put(&tampered);
    world.start();
    world.until("it ends", |world| world.finished("template")).await;
    assert_eq!(world.state("template"), Some(OperationState::SpecChanged));
    assert_eq!(world.service.calls(), 1, "only what was before");
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_gone_stops_the_operation_until_it_is_back() {
    let (mut world, operator) = napping().await;
    world.kill(operator).await;
    let lost = pin(&world).unwrap();
    world.delete::<OperationHistory>(&lost.name_any()).await;
    world.start();
    world
        .until("it is stuck", |world| {
            world.state("template") == Some(OperationState::Stuck)
        })
        .await;
    let message = world.message("template");
    assert!(message.contains(&lost.name_any()), "{message}");
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.service.calls(), 1, "nothing is done meanwhile");
    assert!(
        pin(&world).is_none(),
        "it is not made anew from what the template is now"
    );
    world.server.put(&lost);
    world.until("it ends", |world| world.finished("template")).await;
    assert_eq!(world.state("template"), Some(OperationState::Succeeded));
    assert_eq!(world.service.effects(), old_effects());
    world.check();
    world.kill_all().await;
}

/// The process that has a call under way reads the copy anew when a control field changes.
#[tokio::test(start_paused = true)]
async fn a_call_under_way_is_made_once_though_the_copy_is_gone_for_a_while() {
    // Back before the call ends, and after.
    for gone in [100, 1000] {
        let mut world = World::new(1);
        world.start();
        let mut sample = sample("template");
        let slow = json!({"method": "POST", "url": "http://inventory.prod/slow/600000"});
        sample.templates.insert(
            "resize".into(),
            json!({"steps": [
                {"name": "slow", "http": slow, "timeouts": {"startToClose": "30m"}},
                {"name": "last", "http": {"method": "POST", "url": "http://inventory.prod/last"}},
            ]}),
        );
        let operation = world.apply_sample(&sample).await;
        world.until("it calls", |world| world.service.calls() == 1).await;
        let lost = pin(&world).unwrap();
        world.delete::<OperationHistory>(&lost.name_any()).await;
        let operations: Api<CloudOperation> = Api::namespaced(world.server.client("user"), NAMESPACE);
        let other_ttl = json!({"spec": {"ttlSecondsAfterFinished": 86400}});
        operations
            .patch(&operation.name_any(), &PatchParams::default(), &Patch::Merge(other_ttl))
            .await
            .unwrap();
        world
            .until("it is stuck", |world| {
                world.state("template") == Some(OperationState::Stuck)
            })
            .await;
        let message = world.message("template");
        assert!(message.contains("what is under way goes on"), "{message}");
        sleep(Duration::from_secs(gone)).await;
        assert_eq!(world.service.calls(), 1, "nothing else starts");
        world.server.put(&lost);
        world.until("it ends", |world| world.finished("template")).await;
        assert_eq!(world.state("template"), Some(OperationState::Succeeded));
        assert_eq!(world.service.calls(), 2, "each step was called once");
        let steps = world.operation("template").status.unwrap().steps;
        assert!(steps.iter().all(|step| step.attempt == 1), "{steps:?}");
        world.check();
        world.kill_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_whose_copy_is_gone_can_be_ended() {
    let (mut world, operator) = napping().await;
    world.kill(operator).await;
    world.delete::<OperationHistory>(&pin(&world).unwrap().name_any()).await;
    let mut cancelled = world.operation("template");
    cancelled.spec.cancel = Some(holdfast::api::Cancel::default());
    world.server.put(&cancelled);
    world.start();
    world.until("it ends", |world| world.finished("template")).await;
    assert_eq!(world.state("template"), Some(OperationState::SpecChanged));
    assert_eq!(world.service.calls(), 1);
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn the_copy_goes_with_its_operation() {
    let (mut world, _) = napping().await;
    assert_eq!(pin(&world).unwrap().owner_references()[0].name, "template");
    world.delete::<CloudOperation>("template").await;
    world.until("it is gone", |world| pin(world).is_none()).await;
    world.kill_all().await;
}
