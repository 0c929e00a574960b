//! The rules of docs/gitops.md: what Git applies again never runs again, and what does, says so by its name.

use std::path::Path;
use std::time::{Duration, Instant};

use holdfast::api::{ActionState, CloudOperation, OperationState};
use holdfast_e2e::kubectl::{Printed, kubectl_with, project, run};
use holdfast_e2e::world::{PATIENCE, World, message_of, state_of};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const CALL: &str = "steps: [{name: call, http: {method: POST, url: INVENTORY/called}}]";

async fn as_git(world: &World, command: &str, manifest: &Value) -> Printed {
    kubectl_with(&manifest.to_string(), &["-n", &world.namespace, command, "-f", "-"]).await
}

async fn applied(world: &World, manifest: &Value) -> String {
    let printed = as_git(world, "apply", manifest).await;
    assert!(printed.ok, "{}", printed.err);
    printed.out
}

#[tokio::test]
async fn a_named_operation_runs_once_however_often_it_is_applied() {
    let world = World::new("gitops-named").await;
    let _operator = world.operator();
    let running = world.manifest(
        "running",
        "steps: [{name: call, http: {method: POST, url: INVENTORY/gate/running}}]",
    );
    let done = world.manifest("done", CALL);
    let failed = world.manifest("failed", "steps: [{name: call, http: {url: INVENTORY/status/422}}]");
    for manifest in [&running, &done, &failed] {
        applied(&world, manifest).await;
    }
    world.until_called("/gate").await;
    assert!(applied(&world, &running).await.contains("unchanged"));
    world.inventory.open("running");
    world.ends("running", OperationState::Succeeded).await;
    world.ends("done", OperationState::Succeeded).await;
    world.ends("failed", OperationState::Failed).await;
    for manifest in [&running, &done, &failed] {
        assert!(applied(&world, manifest).await.contains("unchanged"));
        let difference = as_git(&world, "diff", manifest).await;
        assert!(
            difference.ok && difference.out.is_empty(),
            "{}{}",
            difference.out,
            difference.err
        );
    }
    // By another tool and manager, too.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), done.to_string()).unwrap();
    let path = file.path().display().to_string();
    world
        .prints(&[
            "apply",
            "--server-side",
            "--field-manager=argocd",
            "--force-conflicts",
            "-f",
            &path,
        ])
        .await;
    let mut changed = done.clone();
    changed["spec"]["steps"][0]["http"]["method"] = "PUT".into();
    let refused = as_git(&world, "apply", &changed).await;
    assert!(
        !refused.ok && refused.err.contains("create another CloudOperation"),
        "{}",
        refused.err
    );
    let world_requests = world.inventory.requests("/");
    assert_eq!(world_requests.len(), 3, "one each");
}

#[tokio::test]
async fn a_generate_name_is_a_new_run_each_time() {
    let world = World::new("gitops-runs").await;
    let _operator = world.operator();
    let mut manifest = world.manifest("", CALL);
    manifest["metadata"] = json!({"generateName": "migrate-"});
    for _ in 0..2 {
        let created = as_git(&world, "create", &manifest).await;
        assert!(created.ok, "{}", created.err);
        let name = created.out.split([' ', '/']).nth(1).unwrap();
        world.ends(name, OperationState::Succeeded).await;
    }
    assert_eq!(world.inventory.effects("/called").len(), 2);
    let refused = as_git(&world, "apply", &manifest).await;
    assert!(!refused.ok, "apply doesn't take a generateName");
}

#[tokio::test]
async fn neither_a_sync_after_the_ttl_nor_a_restore_runs_it_again() {
    let world = World::new("gitops-again").await;
    let _operator = world.operator();
    let with_ttl = world.manifest("with-ttl", &format!("{{ttlSecondsAfterFinished: 0, {CALL}}}"));
    applied(&world, &with_ttl).await;
    world
        .until("with-ttl", "compacted", |operation| {
            operation
                .status
                .as_ref()
                .is_some_and(|status| status.compacted == Some(true))
        })
        .await;
    assert!(applied(&world, &with_ttl).await.contains("unchanged"));

    let restored = world.manifest("restored", CALL);
    applied(&world, &restored).await;
    world.ends("restored", OperationState::Succeeded).await;
    // A backup's restore: the object as it was, its status aside, with Velero's label.
    world.prints(&["delete", "cop", "restored"]).await;
    let mut from_backup = restored.clone();
    from_backup["metadata"]["labels"] = json!({"velero.io/restore-name": "monday"});
    let created = as_git(&world, "create", &from_backup).await;
    assert!(created.ok, "{}", created.err);
    world.until_state("restored", OperationState::Restored).await;
    // Git, which knows no such label, leaves it alone.
    applied(&world, &restored).await;
    let still = world.operations().get("restored").await.unwrap();
    assert_eq!(state_of(&still), Some(OperationState::Restored));
    let ttl = world.operations().get("with-ttl").await.unwrap();
    assert_eq!(state_of(&ttl), Some(OperationState::Succeeded));
    assert_eq!(world.inventory.requests("/called").len(), 2, "one each");
}

#[tokio::test]
async fn after_a_persons_delete_the_start_deadline_decides() {
    let world = World::new("gitops-delete").await;
    let operator = world.operator();
    operator.leads().await;
    // Long enough for the first run, also on a machine with much else to do.
    let deadline = Timestamp::now() + SignedDuration::from_secs(40);
    let free = world.manifest(
        "free",
        "steps: [{name: call, http: {method: POST, url: INVENTORY/free}}]",
    );
    let bounded = world.manifest(
        "bounded",
        &format!(
            "{{startDeadline: \"{deadline}\", steps: [{{name: call, http: {{method: POST, url: INVENTORY/bounded}}}}]}}"
        ),
    );
    for (name, manifest) in [("bounded", &bounded), ("free", &free)] {
        applied(&world, manifest).await;
        world.ends(name, OperationState::Succeeded).await;
        world.prints(&["delete", "cop", name]).await;
    }
    while Timestamp::now() <= deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for manifest in [&bounded, &free] {
        applied(&world, manifest).await;
    }
    let expired = world.ends("bounded", OperationState::Expired).await;
    assert!(
        message_of(&expired).contains("spec.startDeadline"),
        "{}",
        message_of(&expired)
    );
    world.ends("free", OperationState::Succeeded).await;
    assert_eq!(world.inventory.requests("/bounded").len(), 1);
    assert_eq!(
        world.inventory.requests("/free").len(),
        2,
        "to Kubernetes it is a new object"
    );
}

/// Writes a chart of these templates, and answers where. `INVENTORY` in them is the service's address.
fn chart_of(directory: &Path, world: &World, values: &str, templates: &[(&str, &str)]) -> String {
    let chart = [
        ("Chart.yaml", "{apiVersion: v2, name: app, version: 1.0.0}"),
        ("values.yaml", values),
    ];
    std::fs::create_dir(directory.join("templates")).unwrap();
    for (file, text) in chart.iter().chain(templates) {
        let text = text.replace("INVENTORY", &world.inventory.url(""));
        std::fs::write(directory.join(file), text).unwrap();
    }
    directory.display().to_string()
}

async fn helm(world: &World, arguments: &[&str]) -> Printed {
    let mut all = vec!["--namespace", &world.namespace];
    all.extend(arguments);
    run(&project("e2e/helm/run"), "", &all).await
}

/// A chart of two operations, named by the release's revision. One is kept when its revision is over.
fn chart(directory: &Path, world: &World) -> String {
    let template = r#"
{{- range $name := list "migrate" "kept" }}
---
apiVersion: holdfast.dev/v1alpha1
kind: CloudOperation
metadata:
  name: {{ $name }}-{{ $.Release.Revision }}
  {{- if eq $name "kept" }}
  annotations: {helm.sh/resource-policy: keep}
  {{- end }}
spec:
  steps:
  - {name: pause, wait: {duration: 1500ms}}
  - {name: call, http: {method: POST, url: "INVENTORY/{{ $name }}"}}
  - {name: check, assert: "{{ $.Values.check }}"}
{{- end }}
"#;
    let hook = r#"
{{- if .Values.hook }}
apiVersion: holdfast.dev/v1alpha1
kind: CloudOperation
metadata: {name: hook, annotations: {helm.sh/hook: post-upgrade}}
spec: {steps: [{name: pause, wait: {duration: 1h}}]}
{{- end }}
"#;
    let templates = [("templates/hook.yaml", hook), ("templates/operations.yaml", template)];
    chart_of(directory, world, "{check: 1 == 1, hook: false}", &templates)
}

#[tokio::test]
async fn helm_gives_up_the_operation_goes_on_and_a_persons_retry_makes_no_difference_to_git() {
    let world = World::new("gitops-retry").await;
    let _operator = world.operator();
    let spec = |first: &str| {
        format!(
            "{{serviceAccountName: runner, steps: [{first}{{name: read, kubernetes: {{get: {{resource: {{apiVersion: v1, kind: ConfigMap, name: late}}}}}}}}]}}"
        )
    };
    let slow = spec("{name: call, http: {method: POST, url: INVENTORY/gate/slow}}, ");
    let template = format!(
        "{{apiVersion: holdfast.dev/v1alpha1, kind: CloudOperation, metadata: {{name: charted}}, spec: {slow}}}"
    );
    let directory = tempfile::tempdir().unwrap();
    let chart = chart_of(directory.path(), &world, "{}", &[("templates/charted.yaml", &template)]);
    let by_hand = world.manifest("applied", &spec(""));
    let upgrade = async |timeout: &str| {
        let line = ["upgrade", "--install", "app", &chart, "--wait", "--timeout", timeout];
        helm(&world, &line).await
    };

    // Helm's time is over, the operation's is not.
    let waited = upgrade("5s").await;
    assert!(
        !waited.ok && waited.err.contains("deadline exceeded"),
        "{}{}",
        waited.out,
        waited.err
    );
    world.until_called("/gate/slow").await;
    let goes_on = world.operations().get("charted").await.unwrap();
    assert_eq!(state_of(&goes_on), Some(OperationState::Running));
    world.inventory.open("slow");
    // It fails, as one does that is applied by hand; both are retried once the cause is gone.
    applied(&world, &by_hand).await;
    for name in ["charted", "applied"] {
        world.ends(name, OperationState::Failed).await;
    }
    world.prints(&["create", "configmap", "late"]).await;
    let mut before = vec![];
    for name in ["charted", "applied"] {
        assert_eq!(world.asked(name, "retry: {}").await.0, ActionState::Applied);
        before.push(world.ends(name, OperationState::Succeeded).await.metadata);
    }

    let again = upgrade("100s").await;
    assert!(again.ok, "{}", again.err);
    assert!(applied(&world, &by_hand).await.contains("unchanged"));
    let difference = as_git(&world, "diff", &by_hand).await;
    assert!(difference.ok && difference.out.is_empty(), "{}", difference.out);
    for before in before {
        let name = before.name.unwrap();
        let after = world.operations().get(&name).await.unwrap();
        assert_eq!(state_of(&after), Some(OperationState::Succeeded), "{name}");
        assert_eq!(
            (after.metadata.uid, after.metadata.generation),
            (before.uid, before.generation),
            "{name} is the same object, unchanged"
        );
    }
    assert_eq!(world.inventory.requests("/gate/slow").len(), 1, "nothing ran again");
}

/// Argo CD is not here; what it asks of the API server is.
#[tokio::test]
async fn argo_cds_hooks_run_for_each_sync_and_what_it_prunes_stops_at_once() {
    let world = World::new("gitops-argo").await;
    let _operator = world.operator();
    // The hook is the page's own.
    let page = std::fs::read_to_string(project("docs/gitops.md")).unwrap();
    let mut examples = page.split("```").filter_map(|block| block.strip_prefix("yaml"));
    let example = examples.find(|example| example.contains("argocd.argoproj.io/hook"));
    let example: Value = serde_yaml::from_str(example.unwrap()).unwrap();
    let mut hook = world.manifest("", CALL);
    hook["metadata"] = example["metadata"].clone();
    hook["spec"]["ttlSecondsAfterFinished"] = example["spec"]["ttlSecondsAfterFinished"].clone();
    // Argo CD makes a name of it by itself, of commit, phase and time, and leaves generateName where it is.
    for sync in 1..=2 {
        let name = format!("migrate-5f0c1ab-presync-{sync}");
        hook["metadata"]["name"] = name.clone().into();
        applied(&world, &hook).await;
        world.ends(&name, OperationState::Succeeded).await;
        assert!(applied(&world, &hook).await.contains("unchanged"));
    }
    assert_eq!(world.inventory.effects("/called").len(), 2, "one each");
    let delete = json!({"spec": {"ttlSecondsAfterFinished": 0}}).to_string();
    for sync in 1..=2 {
        let name = format!("migrate-5f0c1ab-presync-{sync}");
        world.patch(&name, &delete).await;
        world.until_gone::<CloudOperation>(&name).await;
    }

    // What is pruned is deleted: nothing of it goes on, and nothing is undone.
    let mut kept = world.manifest("kept", CALL);
    let mut pruned = world.manifest(
        "pruned",
        r#"
        failurePolicy: Compensate
        steps:
        - {name: done, http: {method: POST, url: INVENTORY/done}, compensate: {http: {method: DELETE, url: INVENTORY/done}}}
        - {name: slow, http: {method: POST, url: INVENTORY/gate/slow}}
        - {name: after, http: {method: POST, url: INVENTORY/after}}
        "#,
    );
    for manifest in [&mut kept, &mut pruned] {
        manifest["metadata"]["labels"] = json!({"app": "web"});
        applied(&world, manifest).await;
    }
    world.until_called("/gate/slow").await;
    let kinds = "--prune-allowlist=holdfast.dev/v1alpha1/CloudOperation";
    let synced = kubectl_with(
        &kept.to_string(),
        &[
            "-n",
            &world.namespace,
            "apply",
            "--prune",
            "-l",
            "app=web",
            kinds,
            "-f",
            "-",
        ],
    )
    .await;
    assert!(
        synced.ok && synced.out.contains("pruned"),
        "{}{}",
        synced.out,
        synced.err
    );
    world.until_gone::<CloudOperation>("pruned").await;
    let started = Instant::now();
    while !world.inventory.abandoned().contains(&"/gate/slow".to_owned()) {
        assert!(started.elapsed() < PATIENCE, "the call goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nothing more comes of it while another one runs from its begin to its end.
    world.run("later", CALL).await;
    world.ends("later", OperationState::Succeeded).await;
    assert!(world.inventory.requests("/after").is_empty());
    assert_eq!(world.inventory.requests("/done").len(), 1, "nothing is undone");
}

#[tokio::test]
async fn helm_waits_for_the_operations_of_each_revision() {
    let world = World::new("gitops-helm").await;
    let directory = tempfile::tempdir().unwrap();
    let chart = chart(directory.path(), &world);
    let helm = async |arguments: &[&str]| helm(&world, arguments).await;
    let state = async |name: &str| state_of(&world.operations().get(name).await.unwrap());
    let upgrade = |set: &'static str| {
        [
            "upgrade",
            "--install",
            "app",
            &chart,
            "--wait",
            "--timeout",
            "100s",
            "--set",
            set,
        ]
    };

    // An operator that comes only when Helm waits already.
    let install = upgrade("hook=false");
    let late = async {
        world
            .prints(&["wait", "cop/migrate-1", "--for=create", "--timeout=300s"])
            .await;
        world.operator()
    };
    let (installed, _operator) = tokio::join!(helm(&install), late);
    assert!(installed.ok, "{}", installed.err);
    assert_eq!(
        state("migrate-1").await,
        Some(OperationState::Succeeded),
        "helm returns when it is done"
    );

    let failed = helm(&upgrade("check=1 == 2")).await;
    assert!(!failed.ok && failed.err.contains("-2"), "{}{}", failed.out, failed.err);
    assert!(
        !failed.err.contains("deadline exceeded"),
        "helm waited for its timeout: {}",
        failed.err
    );
    assert_eq!(state("migrate-2").await, Some(OperationState::Failed));

    let back = helm(&["rollback", "app", "1", "--wait", "--timeout", "100s"]).await;
    assert!(back.ok, "{}", back.err);
    assert_eq!(state("migrate-1").await, Some(OperationState::Succeeded));
    assert_eq!(
        world.inventory.effects("/migrate").len(),
        3,
        "what Helm had deleted runs again"
    );
    assert_eq!(world.inventory.effects("/kept").len(), 2, "what was kept does not");

    let hooked = helm(&upgrade("hook=true")).await;
    assert!(hooked.ok, "{}", hooked.err);
    // Helm doesn't wait for an operation in a hook.
    world.until_state("hook", OperationState::Waiting).await;
    let removed = helm(&["uninstall", "app", "--wait", "--timeout", "300s"]).await;
    assert!(removed.ok, "{}", removed.err);
    world.until_gone::<CloudOperation>("migrate-4").await;
}
