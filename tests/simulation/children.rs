//! Operations that run for a step of another: what becomes of one is what becomes of the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use holdfast::api::{CloudOperation, MAX_OPERATIONS_ANNOTATION, OperationState, StepState};
use holdfast_apiserver::{Fault, Verb};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{NAMESPACE, World, of_operator};

fn parent(policy: Option<&str>, steps: &Value) -> Value {
    let mut operation = json!({"spec": {"steps": steps}});
    if let Some(policy) = policy {
        operation["parentClosePolicy"] = json!(policy);
    }
    json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": "parent", "namespace": NAMESPACE},
        "spec": {"steps": [{"name": "child", "operation": operation}]},
    })
}

fn child(world: &World) -> Option<CloudOperation> {
    let operations = world.server.list::<CloudOperation>().into_iter();
    operations
        .into_iter()
        .find(|operation| !["parent", "parent2"].contains(&&*operation.name_any()))
}

fn child_state(world: &World) -> Option<OperationState> {
    child(world)?.status?.state
}

/// A parent whose child waits, and is then cancelled.
async fn cancelled(policy: Option<&str>) -> World {
    let mut world = World::new(1);
    world.start();
    world
        .apply(&parent(policy, &json!([{"name": "nap", "wait": {"duration": "2m"}}])))
        .await;
    let followed = |world: &World| {
        let waits = child_state(world) == Some(OperationState::Waiting);
        waits
            && world
                .operation("parent")
                .status
                .is_some_and(|s| s.steps[0].state == StepState::Waiting)
    };
    world.until("the child waits", followed).await;
    let api: Api<CloudOperation> = Api::namespaced(world.server.client("user"), NAMESPACE);
    let cancel = Patch::Merge(json!({"spec": {"cancel": {"reason": "stop"}}}));
    api.patch("parent", &PatchParams::default(), &cancel).await.unwrap();
    world.until("the parent ends", |world| world.finished("parent")).await;
    assert_eq!(world.state("parent"), Some(OperationState::Cancelled));
    world
}

#[tokio::test(start_paused = true)]
async fn a_child_is_cancelled_with_its_parent_which_waits_for_its_end() {
    let mut world = cancelled(None).await;
    assert_eq!(child_state(&world), Some(OperationState::Cancelled));
    assert!(
        child(&world)
            .unwrap()
            .spec
            .cancel
            .unwrap()
            .reason
            .unwrap()
            .contains("parent")
    );
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_whose_cancel_conflicts_is_cancelled_all_the_same() {
    let mut world = World::new(1);
    world.start();
    world
        .apply(&parent(None, &json!([{"name": "nap", "wait": {"duration": "2m"}}])))
        .await;
    let waits = |world: &World| {
        let status = world.operation("parent").status;
        let step = status.and_then(|status| Some(status.steps.first()?.state));
        child_state(world) == Some(OperationState::Waiting) && step == Some(StepState::Waiting)
    };
    world.until("the child waits", waits).await;
    let conflicts = AtomicUsize::new(0);
    world.server.set_faults(move |info| {
        let cancels = info.is(Verb::Patch, "cloudoperations") && of_operator(info);
        match cancels && conflicts.fetch_add(1, Ordering::Relaxed) < 2 {
            true => Fault::Fail {
                code: 409,
                retry_after: None,
            },
            false => Fault::None,
        }
    });
    let api: Api<CloudOperation> = Api::namespaced(world.server.client("user"), NAMESPACE);
    let cancel = Patch::Merge(json!({"spec": {"cancel": {"reason": "stop"}}}));
    api.patch("parent", &PatchParams::default(), &cancel).await.unwrap();
    world.until("the parent ends", |world| world.finished("parent")).await;
    assert_eq!(child_state(&world), Some(OperationState::Cancelled));
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_to_end_by_itself_is_waited_for() {
    let mut world = cancelled(Some("Wait")).await;
    assert_eq!(child_state(&world), Some(OperationState::Succeeded));
    world.check();
    world.kill_all().await;
}

/// A child that needs a person keeps its parent waiting, which says so; a person may give it up there.
#[tokio::test(start_paused = true)]
async fn a_parent_says_which_child_it_waits_for_while_it_is_cancelled_and_a_person_ends_the_wait() {
    let mut world = World::new(1);
    world.start();
    world
        .apply(&parent(
            Some("Wait"),
            &json!([{"name": "review", "approval": {"message": "resize?"}}]),
        ))
        .await;
    let asks = |world: &World| child_state(world) == Some(OperationState::AwaitingApproval);
    world.until("the child asks", asks).await;
    let api: Api<CloudOperation> = Api::namespaced(world.server.client("user"), NAMESPACE);
    let cancel = Patch::Merge(json!({"spec": {"cancel": {"reason": "stop"}}}));
    api.patch("parent", &PatchParams::default(), &cancel).await.unwrap();
    let name = child(&world).unwrap().name_any();
    let says =
        format!("step child is being stopped: waiting for CloudOperation {name} to end, which is AwaitingApproval: ");
    world
        .until("the parent says what it waits for", |world| {
            world.message("parent").starts_with(&says)
        })
        .await;

    world.ask("parent", 1, &json!({"fail": {"step": "child"}})).await;
    world.until("the parent ends", |world| world.finished("parent")).await;
    assert_eq!(world.state("parent"), Some(OperationState::Cancelled));
    let step = &world.operation("parent").status.unwrap().steps[0];
    assert_eq!(
        step.failure.as_ref().unwrap().message,
        format!("a person said so; CloudOperation {name} is no longer waited for, and may go on")
    );
    assert_eq!(
        child_state(&world),
        Some(OperationState::AwaitingApproval),
        "it goes on"
    );
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_child_goes_on_and_is_not_its_parents() {
    let mut world = cancelled(Some("Abandon")).await;
    assert_eq!(child_state(&world), Some(OperationState::Waiting));
    assert!(child(&world).unwrap().owner_references().is_empty());
    world
        .until("the child ends", |world| {
            child_state(world) == Some(OperationState::Succeeded)
        })
        .await;
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_childs_failure_is_the_steps_with_its_words() {
    let mut world = World::new(1);
    world.start();
    let refused = json!([{"name": "bad", "http": {"method": "POST", "url": "http://inventory.prod/status/422"}}]);
    world.apply(&parent(None, &refused)).await;
    world.until("the parent ends", |world| world.finished("parent")).await;
    assert_eq!(world.state("parent"), Some(OperationState::Failed));
    let message = world.message("parent");
    assert!(
        message.contains("step child: Failed: CloudOperation parent-child-"),
        "{message}"
    );
    assert!(message.contains("step bad: HttpStatus"), "{message}");
    world.check();
    world.kill_all().await;
}

/// Somebody cancels the child alone, or its own time passes: the step failed, and says which.
#[tokio::test(start_paused = true)]
async fn a_childs_cancel_and_timeout_are_the_steps() {
    for (timeout, state) in [(None, "Cancelled"), (Some("30s"), "TimedOut")] {
        let mut world = World::new(1);
        world.start();
        let mut manifest = parent(None, &json!([{"name": "nap", "wait": {"duration": "2m"}}]));
        if let Some(timeout) = timeout {
            manifest["spec"]["steps"][0]["operation"]["spec"]["timeout"] = json!(timeout);
        }
        world.apply(&manifest).await;
        world
            .until("the child waits", |world| {
                child_state(world) == Some(OperationState::Waiting)
            })
            .await;
        if timeout.is_none() {
            let api: Api<CloudOperation> = Api::namespaced(world.server.client("user"), NAMESPACE);
            let cancel = Patch::Merge(json!({"spec": {"cancel": {"reason": "not tonight"}}}));
            let name = child(&world).unwrap().name_any();
            api.patch(&name, &PatchParams::default(), &cancel).await.unwrap();
        }
        world.until("the parent ends", |world| world.finished("parent")).await;
        assert_eq!(child_state(&world).unwrap().to_string(), state);
        assert_eq!(world.state("parent"), Some(OperationState::Failed));
        let step = &world.operation("parent").status.unwrap().steps[0];
        assert_eq!(step.state, StepState::Failed);
        assert_eq!(step.failure.as_ref().unwrap().reason, state);
        world.check();
        world.kill_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_child_may_not_be_is_an_invalid_spec() {
    for (spec, field) in [
        (
            json!({"steps": [{"name": "a", "set": {"x": "${steps.b.output}"}}]}),
            "spec.steps[0].operation.spec.steps[0].set.x",
        ),
        (
            json!({"steps": [{"name": "a", "set": {}}], "ttlSecondsAfterFinished": 1}),
            "spec.steps[0].operation.spec.ttlSecondsAfterFinished",
        ),
    ] {
        let mut world = World::new(1);
        world.start();
        let mut manifest = parent(None, &json!([]));
        manifest["spec"]["steps"][0]["operation"]["spec"] = spec;
        world.apply(&manifest).await;
        world.until("the parent ends", |world| world.finished("parent")).await;
        assert_eq!(world.state("parent"), Some(OperationState::InvalidSpec));
        assert!(
            world.message("parent").starts_with(field),
            "{}",
            world.message("parent")
        );
        world.kill_all().await;
    }
}

/// A parent that is cancelled with `mode: Compensate` while its child waits, after a call that says how it is undone.
async fn undone(with_its_own: bool) -> World {
    let post = |path: &str| json!({"method": "POST", "url": format!("http://inventory.prod/{path}")});
    let mut manifest = parent(
        None,
        &json!([
            {"name": "call", "http": post("child"), "compensate": {"http": post("child/undo")}},
            {"name": "nap", "wait": {"duration": "2m"}},
        ]),
    );
    if with_its_own {
        manifest["spec"]["steps"][0]["compensate"] = json!({"http": post("parent/undo")});
    }
    let mut world = World::new(1);
    world.start();
    world.apply(&manifest).await;
    let waits = |world: &World| child_state(world) == Some(OperationState::Waiting);
    world.until("the child waits", waits).await;
    let api: Api<CloudOperation> = Api::namespaced(world.server.client("user"), NAMESPACE);
    let cancel = Patch::Merge(json!({"spec": {"cancel": {"mode": "Compensate"}}}));
    api.patch("parent", &PatchParams::default(), &cancel).await.unwrap();
    world.until("the parent ends", |world| world.finished("parent")).await;
    assert_eq!(world.state("parent"), Some(OperationState::Cancelled));
    world.check();
    world
}

#[tokio::test(start_paused = true)]
async fn what_a_child_did_is_undone_with_its_parent() {
    let mut world = undone(false).await;
    assert_eq!(child_state(&world), Some(OperationState::Cancelled));
    assert_eq!(world.service.effects()["/child/undo"], 1);
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_says_how_it_is_undone_undoes_its_child_itself() {
    let mut world = undone(true).await;
    assert_eq!(
        child_state(&world),
        Some(OperationState::Cancelled),
        "it ends before it is undone"
    );
    let effects = world.service.effects();
    assert_eq!((effects.get("/child/undo"), effects["/parent/undo"]), (None, 1));
    world.kill_all().await;
}

async fn cancel(world: &World, name: &str, cancel: Value) {
    let api: Api<CloudOperation> = Api::namespaced(world.server.client("user"), NAMESPACE);
    let patch = Patch::Merge(json!({"spec": {"cancel": cancel}}));
    api.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

fn undoable(path: &str) -> Value {
    let post = |path: &str| json!({"method": "POST", "url": format!("http://inventory.prod/{path}")});
    json!({"name": "call", "http": post("child"), "compensate": {"http": post(path)}})
}

#[tokio::test(start_paused = true)]
async fn a_child_that_a_person_has_undone_goes_on_undoing_when_its_parent_is_stopped() {
    let mut world = World::new(1);
    world.start();
    let undo = "slow/undo/5000";
    let steps = json!([undoable(undo), {"name": "nap", "wait": {"duration": "2m"}}]);
    world.apply(&parent(None, &steps)).await;
    let is = |state| move |world: &World| child_state(world) == Some(state);
    world.until("the child waits", is(OperationState::Waiting)).await;
    let name = child(&world).unwrap().name_any();
    cancel(&world, &name, json!({"mode": "Compensate"})).await;
    world.until("it undoes", is(OperationState::Compensating)).await;
    cancel(&world, "parent", json!({"reason": "stop"})).await;
    world.until("the parent ends", |world| world.finished("parent")).await;
    let undone = child(&world).unwrap().status.unwrap().steps;
    assert!(
        undone
            .iter()
            .any(|step| step.name == "call:undo" && step.state == StepState::Succeeded)
    );
    assert_eq!(world.service.effects()[&format!("/{undo}")], 1);
    world.check();
    world.kill_all().await;
}

/// While what the child started is being stopped, a person asks for more.
#[tokio::test(start_paused = true)]
async fn a_child_is_undone_too_if_that_is_said_of_its_parent_while_it_is_being_stopped() {
    let mut world = World::new(1);
    let stays = Arc::new(AtomicBool::new(true));
    let job_stays = stays.clone();
    world.server.set_faults(
        move |info| match info.is(Verb::Delete, "jobs") && job_stays.load(Ordering::Relaxed) {
            true => Fault::Fail {
                code: 500,
                retry_after: None,
            },
            false => Fault::None,
        },
    );
    world.start();
    let steps = json!([undoable("child/undo"), {"name": "long", "job": {"image": "long:1", "args": ["never"]}}]);
    let mut manifest = parent(None, &steps);
    manifest["spec"]["serviceAccountName"] = json!("releaser");
    world.apply(&manifest).await;
    let of_child = |world: &World, state: StepState| {
        let steps = child(world).and_then(|child| child.status).map(|status| status.steps);
        steps.is_some_and(|steps| steps.iter().any(|step| step.name == "long" && step.state == state))
    };
    world
        .until("the Job runs", |world| of_child(world, StepState::Waiting))
        .await;
    cancel(&world, "parent", json!({"reason": "stop"})).await;
    world
        .until("it is being stopped", |world| of_child(world, StepState::Cancelling))
        .await;
    cancel(&world, "parent", json!({"mode": "Compensate"})).await;
    sleep(Duration::from_secs(5)).await;
    stays.store(false, Ordering::Relaxed);
    world.until("the parent ends", |world| world.finished("parent")).await;
    assert_eq!(child_state(&world), Some(OperationState::Cancelled));
    assert_eq!(world.service.effects()["/child/undo"], 1);
    world.check();
    world.kill_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_takes_no_place_in_its_namespace_as_its_parent_has_one() {
    let mut world = World::new(1);
    let namespaces: Api<Namespace> = Api::all(world.server.client("user"));
    let limit = Patch::Merge(json!({"metadata": {"annotations": {MAX_OPERATIONS_ANNOTATION: "1"}}}));
    namespaces
        .patch(NAMESPACE, &PatchParams::default(), &limit)
        .await
        .unwrap();
    world.start();
    for policy in [None, Some("Abandon")] {
        let manifest = parent(policy, &json!([{"name": "nap", "wait": {"duration": "2m"}}]));
        world.apply(&manifest).await;
        world
            .until("the child runs", |world| child_state(world).is_some())
            .await;
        let mut other = manifest.clone();
        other["metadata"]["name"] = json!("parent2");
        other["spec"]["steps"] = json!([{"name": "done", "set": {"a": 1}}]);
        world.apply(&other).await;
        world
            .until("the other waits", |world| world.state("parent2").is_some())
            .await;
        assert_eq!(world.state("parent2"), Some(OperationState::Queued), "{policy:?}");
        assert_eq!(child_state(&world), Some(OperationState::Waiting), "{policy:?}");
        let ended = |world: &World| world.finished("parent") && world.finished("parent2");
        world.until("all end", ended).await;
        assert_eq!(world.state("parent"), Some(OperationState::Succeeded), "{policy:?}");
        for operation in world.server.list::<CloudOperation>() {
            world.delete::<CloudOperation>(&operation.name_any()).await;
        }
    }
    world.kill_all().await;
}
