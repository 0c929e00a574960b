//! `kubernetes` steps: each request about objects, as the operation's service account.

use holdfast::api::{OperationState, StepState};
use holdfast_e2e::image;
use holdfast_e2e::world::{World, message_of, output, state_of, step};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use serde_json::json;

#[tokio::test]
async fn objects_are_applied_created_patched_read_and_deleted() {
    let world = World::new("kube-objects").await;
    let _operator = world.operator();
    world
        .run(
            "objects",
            r#"
            serviceAccountName: runner
            input: {mode: "on", replicas: 2}
            steps:
            - name: apply
              kubernetes:
                apply:
                  manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: applied, labels: {app: web}}, data: {mode: "${input.mode}", old: "1"}}
              output: {uid: "${result.metadata.uid}"}
            - name: create
              kubernetes:
                create:
                  manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: created, labels: {app: web}}, data: {count: "${string(input.replicas)}"}}
            - name: merge
              kubernetes:
                patch: {resource: {apiVersion: v1, kind: ConfigMap, name: applied}, patch: {data: {mode: "off", old: null}}}
            - name: json
              kubernetes:
                patch:
                  resource: {apiVersion: v1, kind: ConfigMap, name: created}
                  type: JSON
                  patch: [{op: test, path: /data/count, value: "2"}, {op: add, path: /data/more, value: "yes"}]
            - name: get
              kubernetes: {get: {resource: {apiVersion: v1, kind: ConfigMap, name: applied}}}
              output: {data: "${result.data}"}
            - name: list
              kubernetes: {list: {apiVersion: v1, kind: ConfigMap, labelSelector: "app=web,!absent"}}
              output: {names: "${result.items.map(o, o.metadata.name)}"}
            - name: delete
              kubernetes: {delete: {resource: {apiVersion: v1, kind: ConfigMap, name: created}, propagationPolicy: Foreground}}
            - name: gone
              kubernetes: {delete: {resource: {apiVersion: v1, kind: ConfigMap, name: created}}}
            - name: deleted
              kubernetes: {wait: {resource: {apiVersion: v1, kind: ConfigMap, name: created}, for: Deleted}}
            "#,
        )
        .await;
    let ended = world.ends("objects", OperationState::Succeeded).await;

    let applied = world.api::<ConfigMap>().get("applied").await.unwrap();
    assert_eq!(output(&ended, "apply")["uid"], json!(applied.uid()));
    assert_eq!(output(&ended, "get"), json!({"data": {"mode": "off"}}));
    assert_eq!(output(&ended, "list"), json!({"names": ["applied", "created"]}));
    let managers: Vec<_> = applied
        .managed_fields()
        .iter()
        .filter_map(|m| m.manager.clone())
        .collect();
    assert!(managers.iter().all(|manager| manager == "holdfast"), "{managers:?}");
    assert!(world.api::<ConfigMap>().get_opt("created").await.unwrap().is_none());
}

#[tokio::test]
async fn another_namespaces_objects_are_read_changed_and_evicted_where_the_account_may() {
    let world = World::new("kube-here").await;
    let other = World::new("kube-there").await;
    let _operator = world.operator();
    let runner = format!("--serviceaccount={}:runner", world.namespace);
    other
        .prints(&["create", "rolebinding", "theirs", "--clusterrole=edit", &runner])
        .await;
    // A Pod that no node takes: evicted, it is gone at once.
    other
        .apply(
            r#"
{apiVersion: v1, kind: ConfigMap, metadata: {name: first, labels: {app: web}}, data: {size: "3"}}
---
apiVersion: v1
kind: Pod
metadata: {name: idle}
spec: {serviceAccountName: runner, nodeSelector: {holdfast.dev/none: "true"}, containers: [{name: main, image: localhost/nobody:1}]}
"#,
        )
        .await;
    // One of the same name here must not be taken for it.
    world
        .apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: first, labels: {app: web}}, data: {size: '1'}}")
        .await;
    world
        .run(
            "reaches",
            &r#"
            serviceAccountName: runner
            input: {there: THERE}
            steps:
            - name: read
              kubernetes: {get: {resource: {apiVersion: v1, kind: ConfigMap, name: first, namespace: "${input.there}"}}}
              output: {size: "${result.data.size}"}
            - name: make
              kubernetes: {apply: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: second, namespace: "${input.there}", labels: {app: web}}}}}
            - name: list
              kubernetes: {list: {apiVersion: v1, kind: ConfigMap, namespace: "${input.there}", labelSelector: app=web}}
              output: {names: "${result.items.map(o, o.metadata.namespace + '/' + o.metadata.name)}"}
            - name: evict
              kubernetes: {evict: {pod: idle, namespace: "${input.there}"}}
            - name: gone
              kubernetes: {wait: {resource: {apiVersion: v1, kind: Pod, name: idle, namespace: "${input.there}"}, for: Deleted}}
            "#
            .replace("THERE", &other.namespace),
        )
        .await;
    let ended = world.ends("reaches", OperationState::Succeeded).await;
    assert_eq!(output(&ended, "read"), json!({"size": "3"}));
    let there = |name: &str| format!("{}/{name}", other.namespace);
    assert_eq!(
        output(&ended, "list"),
        json!({"names": [there("first"), there("second")]})
    );
    assert!(other.api::<Pod>().get_opt("idle").await.unwrap().is_none());
    assert!(world.api::<ConfigMap>().get_opt("second").await.unwrap().is_none());
}

#[tokio::test]
async fn what_exists_and_what_others_own_is_not_taken_over_unasked() {
    let world = World::new("kube-others").await;
    let _operator = world.operator();
    let theirs =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}, "data": {"mode": "their"}});
    world.apply(&theirs.to_string()).await;
    let apply = |force: bool| {
        format!(
            "{{serviceAccountName: runner, steps: [{{name: a, kubernetes: {{apply: {{force: {force}, manifest: {{apiVersion: v1, kind: ConfigMap, metadata: {{name: theirs}}, data: {{mode: ours}}}}}}}}}}]}}"
        )
    };
    world.run("conflict", &apply(false)).await;
    world
        .run(
            "exists",
            "{serviceAccountName: runner, steps: [{name: a, kubernetes: {create: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: theirs}}}}}]}",
        )
        .await;
    world
        .run(
            "missing",
            "{serviceAccountName: runner, steps: [{name: a, kubernetes: {get: {resource: {apiVersion: v1, kind: ConfigMap, name: nobody}}}}]}",
        )
        .await;
    for (name, reason, says) in [
        ("conflict", "FieldConflict", ".data.mode"),
        ("exists", "AlreadyExists", "ConfigMap theirs"),
        ("missing", "NotFound", "ConfigMap nobody"),
    ] {
        let ended = world.ends(name, OperationState::Failed).await;
        let failure = step(&ended, "a").failure.clone().unwrap();
        assert_eq!(failure.reason, reason);
        assert!(failure.message.contains(says), "{}", failure.message);
        assert_eq!(step(&ended, "a").attempt, 1);
    }
    world.run("forced", &apply(true)).await;
    world.ends("forced", OperationState::Succeeded).await;
    let taken = world.api::<ConfigMap>().get("theirs").await.unwrap();
    assert_eq!(taken.data.unwrap()["mode"], "ours");
}

#[tokio::test]
async fn a_secret_that_is_read_or_written_is_not_recorded() {
    let world = World::new("kube-secrets").await;
    let _operator = world.operator();
    world
        .run(
            "secret",
            r#"
            serviceAccountName: runner
            steps:
            - name: write
              kubernetes: {apply: {manifest: {apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {token: t0p-secret}}}}
              output: {all: "${result}"}
            - name: read
              kubernetes: {get: {resource: {apiVersion: v1, kind: Secret, name: s}}}
              output: {keys: "${result.data}"}
            "#,
        )
        .await;
    let ended = world.ends("secret", OperationState::Succeeded).await;
    assert_eq!(output(&ended, "read"), json!({"keys": {"token": "***"}}));
    let status = serde_json::to_string(&ended.status).unwrap();
    for secret in ["t0p-secret", "dDBwLXNlY3JldA=="] {
        assert!(!status.contains(secret), "{status}");
    }
}

#[tokio::test]
async fn waits_follow_objects_until_they_are_as_wanted_or_never_will_be() {
    let world = World::new("kube-waits").await;
    let _operator = world.operator();
    let wait = |condition: &str| {
        format!(
            "{{serviceAccountName: runner, input: {{want: ready}}, steps: [{{name: w, kubernetes: {{wait: {{resource: {{apiVersion: v1, kind: ConfigMap, name: state}}, {condition}}}}}, output: {{phase: \"${{result.?data.phase.orValue('none')}}\"}}}}]}}"
        )
    };
    let until = "until: object.data.phase == input.want, failWhen: object.data.phase == 'broken'";
    world.run("until", &wait(until)).await;
    world.run("current", &wait("for: Current")).await;
    world.run("deleted", &wait("for: Deleted")).await;
    // An operation's own kind: one that is found by discovery, and whose failure kstatus sees.
    world
        .run(
            "follows",
            r#"
            serviceAccountName: runner
            steps:
            - name: child
              kubernetes:
                apply:
                  manifest:
                    apiVersion: holdfast.dev/v1alpha1
                    kind: CloudOperation
                    metadata: {name: child}
                    spec: {steps: [{name: pause, wait: {duration: 1s}}, {name: fails, assert: 1 == 2}]}
            - name: w
              kubernetes: {wait: {resource: {apiVersion: holdfast.dev/v1alpha1, kind: CloudOperation, name: child}, for: Current}}
            "#,
        )
        .await;
    world.ends("deleted", OperationState::Succeeded).await;
    let waiting = world.until_state("until", OperationState::Waiting).await;
    assert_eq!(
        message_of(&waiting),
        "step w: waiting for ConfigMap state to fulfil object.data.phase == input.want"
    );
    world
        .prints(&["create", "configmap", "state", "--from-literal=phase=new"])
        .await;
    let ended = world.ends("current", OperationState::Succeeded).await;
    assert_eq!(output(&ended, "w"), json!({"phase": "new"}));
    assert_eq!(
        state_of(&world.operations().get("until").await.unwrap()),
        Some(OperationState::Waiting)
    );

    let phase = async |phase: &str| {
        let patch = json!({"data": {"phase": phase}}).to_string();
        world
            .prints(&["patch", "configmap", "state", "--type=merge", "-p", &patch])
            .await;
    };
    phase("ready").await;
    let ended = world.ends("until", OperationState::Succeeded).await;
    assert_eq!(output(&ended, "w"), json!({"phase": "ready"}));
    phase("broken").await;
    world.run("broken", &wait(until)).await;
    let ended = world.ends("broken", OperationState::Failed).await;
    assert!(
        message_of(&ended).contains("failWhen is true"),
        "{}",
        message_of(&ended)
    );
    let ended = world.ends("follows", OperationState::Failed).await;
    assert!(
        message_of(&ended).contains("1 == 2 is false"),
        "it says why the other failed: {}",
        message_of(&ended)
    );
}

#[tokio::test]
async fn a_wait_goes_on_after_a_crash() {
    let world = World::new("kube-crash").await;
    let first = world.operator();
    world
        .run(
            "waits",
            "{serviceAccountName: runner, steps: [{name: w, kubernetes: {wait: {resource: {apiVersion: v1, kind: ConfigMap, name: late}, until: 'true'}}}]}",
        )
        .await;
    world.until_state("waits", OperationState::Waiting).await;
    first.kill().await;
    // What happens while no operator looks.
    world.prints(&["create", "configmap", "late"]).await;
    let _second = world.operator();
    let ended = world.ends("waits", OperationState::Succeeded).await;
    assert_eq!(step(&ended, "w").attempt, 1, "waiting is no call that can be lost");
}

#[tokio::test]
async fn a_deployment_is_rolled_out_scaled_and_removed_and_a_pod_is_evicted() {
    let Some(image) = image::task().await else { return };
    let world = World::new("kube-pods").await;
    let _operator = world.operator();
    let spec = r#"
        serviceAccountName: runner
        input: {replicas: 2}
        retry: {initialInterval: 200ms, maximumInterval: 1s}
        steps:
        - name: apply
          kubernetes:
            apply:
              manifest:
                apiVersion: apps/v1
                kind: Deployment
                metadata: {name: web}
                spec:
                  replicas: 1
                  selector: {matchLabels: {app: web}}
                  template:
                    metadata: {labels: {app: web}}
                    spec:
                      terminationGracePeriodSeconds: 0
                      containers: [{name: main, image: IMAGE, command: [/task, sleep, "3600"]}]
        - name: current
          kubernetes: {wait: {resource: {apiVersion: apps/v1, kind: Deployment, name: web}, for: Current}}
        - name: scale
          kubernetes: {scale: {resource: {apiVersion: apps/v1, kind: Deployment, name: web}, replicas: "${input.replicas}"}}
        - name: scaled
          kubernetes: {wait: {resource: {apiVersion: apps/v1, kind: Deployment, name: web}, until: object.status.?readyReplicas.orValue(0) == input.replicas}}
        - name: pods
          kubernetes: {list: {apiVersion: v1, kind: Pod, labelSelector: app=web}}
          output: {first: "${result.items[0].metadata.name}"}
        - name: evict
          kubernetes: {evict: {pod: "${steps.pods.output.first}"}}
        - name: evicted
          kubernetes: {wait: {resource: {apiVersion: v1, kind: Pod, name: "${steps.pods.output.first}"}, for: Deleted}}
        - name: remove
          kubernetes: {delete: {resource: {apiVersion: apps/v1, kind: Deployment, name: web}}}
        - name: removed
          kubernetes: {wait: {resource: {apiVersion: apps/v1, kind: Deployment, name: web}, for: Deleted}}
        "#;
    world
        .apply(
            &json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
            "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}})
            .to_string(),
        )
        .await;
    world.run("rollout", &spec.replace("IMAGE", image)).await;
    let held_up = world
        .until("rollout", "held up by the disruption budget", |operation| {
            state_of(operation) == Some(OperationState::BackingOff)
                && message_of(operation).contains("DisruptionBudget")
        })
        .await;
    assert_eq!(step(&held_up, "evict").state, StepState::BackingOff);
    let deployment = world.api::<Deployment>().get("web").await.unwrap();
    assert_eq!(deployment.spec.replicas, Some(2));
    world.prints(&["delete", "pdb", "web"]).await;

    let ended = world.ends("rollout", OperationState::Succeeded).await;
    let evicted = output(&ended, "pods")["first"].as_str().unwrap().to_owned();
    assert!(world.api::<Pod>().get_opt(&evicted).await.unwrap().is_none());
    assert!(world.api::<Deployment>().get_opt("web").await.unwrap().is_none());
}
