//! Operations of operations on the real API server: created once whatever dies, and ended with their parent as it says.

use holdfast::api::{CloudOperation, OperationState, StepState};
use holdfast_e2e::world::{World, find_step, message_of, output, state_of, step};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

/// Steps act as `runner`, which may run operations in its namespace.
async fn world(name: &str) -> World {
    let world = World::new(name).await;
    let namespace = &world.namespace;
    world
        .apply(&format!(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: operations, namespace: {namespace}}}
rules:
- {{apiGroups: [holdfast.dev], resources: [cloudoperations], verbs: [create, get, list, watch, patch, update]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: operations, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: operations}}
subjects: [{{kind: ServiceAccount, name: runner, namespace: {namespace}}}]
"
        ))
        .await;
    holdfast_e2e::install::until_may(namespace, "runner", "create", "cloudoperations").await;
    world
}

/// The operations that run for a step of this one.
async fn children(world: &World, parent: &str) -> Vec<CloudOperation> {
    let all = world.operations().list(&ListParams::default()).await.unwrap();
    let is_child = |operation: &CloudOperation| operation.name_any().starts_with(&format!("{parent}-"));
    all.into_iter().filter(is_child).collect()
}

#[tokio::test]
async fn children_are_created_once_and_followed_though_the_operator_is_killed_twice() {
    let world = world("children-killed").await;
    let url = world.inventory.url("");
    world
        .apply(&format!(
            "
apiVersion: holdfast.dev/v1alpha1
kind: OperationTemplate
metadata: {{name: callee}}
spec:
  steps:
  - {{name: call, http: {{method: POST, url: '{url}/template/${{input.group}}'}}}}
  - {{name: wait, http: {{method: POST, url: '{url}/gate/template'}}}}
  output: {{group: '${{input.group}}'}}
"
        ))
        .await;
    let first = world.operator();
    world
        .run(
            "parent",
            r#"
            serviceAccountName: runner
            steps:
            - name: inline
              operation:
                input: {n: 3}
                spec:
                  steps:
                  - {name: call, http: {method: POST, url: 'INVENTORY/inline/${string(input.n)}'}}
                  - {name: wait, http: {method: POST, url: INVENTORY/gate/inline}}
                  output: {n: '${input.n * 2}'}
            - name: named
              operation: {templateRef: {name: callee}, input: {group: web}}
            - {name: after, http: {method: POST, url: 'INVENTORY/after/${string(steps.inline.output.n)}/${steps.named.output.group}'}}
            "#,
        )
        .await;
    world.until_called("/gate/inline").await;
    first.kill().await;
    let second = world.operator();
    world.inventory.open("inline");
    world.until_called("/gate/template").await;
    second.kill().await;
    let _third = world.operator();
    world.inventory.open("template");
    let ended = world.ends("parent", OperationState::Succeeded).await;

    assert_eq!(output(&ended, "inline"), json!({"n": 6}));
    assert_eq!(output(&ended, "named"), json!({"group": "web"}));
    let children = children(&world, "parent").await;
    assert_eq!(children.len(), 2, "one a step");
    for child in &children {
        assert_eq!(state_of(child), Some(OperationState::Succeeded));
        assert_eq!(child.owner_references()[0].uid, ended.uid().unwrap());
    }
    for path in [
        "/inline/3",
        "/gate/inline",
        "/template/web",
        "/gate/template",
        "/after/6/web",
    ] {
        assert_eq!(world.inventory.effects(path).len(), 1, "{path}");
    }
}

#[tokio::test]
async fn what_becomes_of_a_child_when_its_parent_is_cancelled_is_what_the_parent_says() {
    let world = world("children-cancel").await;
    let _operator = world.operator();
    for (policy, expected) in [
        ("Cancel", OperationState::Cancelled),
        ("Wait", OperationState::Succeeded),
        ("Abandon", OperationState::Succeeded),
    ] {
        let name = policy.to_lowercase();
        world
            .run(
                &name,
                &format!(
                    "
                    serviceAccountName: runner
                    steps:
                    - name: child
                      operation:
                        parentClosePolicy: {policy}
                        spec: {{steps: [{{name: wait, http: {{method: POST, url: INVENTORY/gate/{name}}}}}]}}
                    "
                ),
            )
            .await;
        world.until_called(&format!("/gate/{name}")).await;
        world
            .patch(&name, r#"{"spec": {"cancel": {"reason": "enough"}}}"#)
            .await;
        if policy != "Wait" {
            world.ends(&name, OperationState::Cancelled).await;
        }
        let child = &children(&world, &name).await[0];
        if policy == "Abandon" {
            assert!(child.owner_references().is_empty(), "nobody's any more");
        }
        world.inventory.open(&name);
        world.ends(&child.name_any(), expected).await;
        let parent = world.ends(&name, OperationState::Cancelled).await;
        assert!(message_of(&parent).contains("enough"), "{}", message_of(&parent));
    }
}

#[tokio::test]
async fn how_a_child_ends_is_how_its_step_ends() {
    let world = world("children-end").await;
    let _operator = world.operator();
    world
        .run(
            "parent",
            r#"
            serviceAccountName: runner
            order: Graph
            steps:
            - {name: cancelled, onFailure: Continue, operation: {spec: {steps: [{name: nap, wait: {duration: 1h}}]}}}
            - {name: late, onFailure: Continue, operation: {spec: {timeout: 1s, steps: [{name: nap, wait: {duration: 1h}}]}}}
            - name: fails
              needs: [cancelled, late]
              operation: {spec: {steps: [{name: check, assert: 1 == 2}]}}
            "#,
        )
        .await;
    let waiting = world
        .until("parent", "waiting for its child", |operation| {
            find_step(operation, "cancelled").is_some_and(|step| step.external.is_some())
        })
        .await;
    let child = step(&waiting, "cancelled").external.clone().unwrap().name;
    world
        .patch(&child, r#"{"spec": {"cancel": {"reason": "wrong zone"}}}"#)
        .await;
    let ended = world.ends("parent", OperationState::Failed).await;
    for (name, reason, says) in [
        ("cancelled", "Cancelled", "wrong zone"),
        ("late", "TimedOut", "spec.timeout (1s) passed"),
        ("fails", "Failed", "1 == 2 is false"),
    ] {
        let step = step(&ended, name);
        let failure = step.failure.clone().unwrap();
        assert_eq!((step.state, failure.reason.as_str()), (StepState::Failed, reason));
        let child = step.external.clone().unwrap().name;
        assert!(
            failure.message.starts_with(&format!("CloudOperation {child} ended: ")) && failure.message.contains(says),
            "{name}: {}",
            failure.message
        );
        assert_eq!(step.attempt, 1, "{name}: it is not run again");
    }
    assert!(
        message_of(&ended).starts_with("step fails: Failed: CloudOperation parent-fails-"),
        "{}",
        message_of(&ended)
    );
    assert_eq!(children(&world, "parent").await.len(), 3);
}
