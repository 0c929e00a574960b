//! The rules of docs/gitops.md: what applies an operation again never runs it again, and what waits for one sees how it
//! ends.

use holdfast::api::OperationState::{Expired, Restored, Succeeded, Waiting};
use holdfast_e2e::kubectl::{Printed, run};
use holdfast_e2e::world::{World, message_of};
use serde_json::{Value, json};

async fn uid(world: &World, name: &str) -> String {
    world
        .operations()
        .get(name)
        .await
        .unwrap()
        .metadata
        .uid
        .unwrap_or_default()
}

#[tokio::test]
async fn a_named_operation_runs_once_however_often_it_is_applied() {
    let world = World::new("once").await;
    let operator = world.operator();
    // Given an operation that has ended
    world.run("migrate", "{steps: [{name: a, set: {v: 1}}]}").await;
    let first = world.ends("migrate", Succeeded).await;
    // When it is applied again, and by another tool
    world.run("migrate", "{steps: [{name: a, set: {v: 1}}]}").await;
    let manifest = world.manifest("migrate", "{steps: [{name: a, set: {v: 1}}]}");
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), manifest.to_string()).unwrap();
    let file = path.path().display().to_string();
    let synced = world
        .kubectl(&[
            "apply",
            "--server-side",
            "--field-manager=argocd",
            "--force-conflicts",
            "-f",
            &file,
        ])
        .await;
    assert!(synced.ok, "{}", synced.err);
    // Then it is the same, with the same status
    let again = world.ends("migrate", Succeeded).await;
    assert_eq!(again.metadata.uid, first.metadata.uid);
    assert_eq!(again.status, first.status);
    // And there is nothing to sync
    let diff = world
        .kubectl(&["diff", "--server-side", "--force-conflicts", "-f", &file])
        .await;
    assert!(diff.ok, "{}", diff.out);
    operator.kill().await;
}

#[tokio::test]
async fn after_its_ttl_a_named_operation_stays_and_a_run_goes() {
    let world = World::new("ttl").await;
    let operator = world.operator();
    let spec = "{ttlSecondsAfterFinished: 1, steps: [{name: a, set: {v: 1}}], output: {v: '${steps.a.output.v}'}}";
    // Given a named operation and a run, both with a time to live
    world.run("named", spec).await;
    let before = uid(&world, "named").await;
    let mut generated: Value = world.manifest("run", spec);
    generated["metadata"] = json!({"generateName": "run-", "namespace": world.namespace});
    let created =
        holdfast_e2e::kubectl::kubectl_with(&generated.to_string(), &["create", "-f", "-", "-o", "name"]).await;
    assert!(created.ok, "{}", created.err);
    let gone = world
        .kubectl(&["wait", created.out.trim(), "--for=delete", "--timeout=60s"])
        .await;
    // Then the run is deleted
    assert!(gone.ok, "{}", gone.err);
    // And the named one keeps its outcome
    let compacted = world
        .until("named", "compacted", |o| {
            o.status.as_ref().is_some_and(|s| s.compacted == Some(true))
        })
        .await;
    assert_eq!(
        compacted.status.as_ref().unwrap().output,
        Some(serde_json::Map::from_iter([("v".to_owned(), json!(1))]))
    );
    // So that a sync finds it, and runs nothing
    world.run("named", spec).await;
    assert_eq!(uid(&world, "named").await, before);
    assert_eq!(world.ends("named", Succeeded).await.status, compacted.status);
    operator.kill().await;
}

#[tokio::test]
async fn what_comes_back_from_a_backup_waits_for_a_person() {
    let world = World::new("restored").await;
    let operator = world.operator();
    // Given an object that Velero restored: its label, and no status
    let mut object: Value = world.manifest("restored", "{steps: [{name: a, set: {v: 1}}]}");
    object["metadata"]["labels"] = json!({"velero.io/restore-name": "nightly"});
    world.apply(&object.to_string()).await;
    // Then it executes nothing, and says what to do
    let held = world.until_state("restored", Restored).await;
    assert!(held.status.as_ref().unwrap().steps.is_empty());
    assert!(
        message_of(&held).contains("remove the label velero.io/restore-name"),
        "{}",
        message_of(&held)
    );
    // When a person decides that it is to run
    let unlabelled = world
        .kubectl(&["label", "cop", "restored", "velero.io/restore-name-"])
        .await;
    assert!(unlabelled.ok, "{}", unlabelled.err);
    // Then it runs
    world.ends("restored", Succeeded).await;
    operator.kill().await;
}

#[tokio::test]
async fn after_a_persons_delete_the_start_deadline_decides() {
    let world = World::new("deleted").await;
    let operator = world.operator();
    for (name, deadline, end) in [
        ("late", "2020-01-01T00:00:00Z", Expired),
        ("early", "2999-01-01T00:00:00Z", Succeeded),
    ] {
        let spec = format!("{{startDeadline: '{deadline}', steps: [{{name: a, set: {{v: 1}}}}]}}");
        // Given an operation of Git's that a person deletes
        world.run(name, &spec).await;
        world.ends(name, end).await;
        let deleted = world.kubectl(&["delete", "cop", name, "--timeout=30s"]).await;
        assert!(deleted.ok, "{}", deleted.err);
        // When a sync brings it back
        world.run(name, &spec).await;
        // Then it runs only before its deadline
        let ended = world.ends(name, end).await;
        assert_eq!(ended.status.as_ref().unwrap().steps.is_empty(), end == Expired);
    }
    operator.kill().await;
}

/// A chart of one operation whose name has the release's revision in it.
struct Chart {
    directory: tempfile::TempDir,
}

impl Chart {
    fn new(spec: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let chart = Self { directory };
        std::fs::create_dir(chart.directory.path().join("templates")).unwrap();
        std::fs::write(
            chart.directory.path().join("Chart.yaml"),
            "{apiVersion: v2, name: app, version: 0.1.0}",
        )
        .unwrap();
        chart.template("migrate.yaml", "", spec);
        chart
    }

    fn template(&self, file: &str, annotations: &str, spec: &str) {
        let name = file.trim_end_matches(".yaml");
        let template = format!(
            "apiVersion: holdfast.dev/v1alpha1\nkind: CloudOperation\nmetadata:\n  name: {name}-{{{{ .Release.Revision }}}}\n  annotations: {{{annotations}}}\nspec: {spec}\n"
        );
        std::fs::write(self.directory.path().join("templates").join(file), template).unwrap();
    }

    async fn upgrade(&self, world: &World) -> Printed {
        let helm = concat!(env!("CARGO_MANIFEST_DIR"), "/helm/run");
        let chart = self.directory.path().display().to_string();
        run(
            helm,
            "",
            &[
                "upgrade",
                "--install",
                "app",
                &chart,
                "--namespace",
                &world.namespace,
                "--wait",
                "--timeout",
                "60s",
            ],
        )
        .await
    }
}

#[tokio::test]
async fn helm_waits_for_the_operation_of_each_revision() {
    let world = World::new("helm").await;
    // Given an operator that comes only after Helm has begun to wait
    let chart = Chart::new("{steps: [{name: pause, wait: {duration: 1s}}, {name: done, set: {v: 1}}]}");
    let late = async {
        let there = world
            .kubectl(&["wait", "cop/migrate-1", "--for=create", "--timeout=60s"])
            .await;
        assert!(there.ok, "{}", there.err);
        world.operator()
    };
    let (first, operator) = tokio::join!(chart.upgrade(&world), late);
    // Then Helm returns once the operation has succeeded
    assert!(first.ok, "{}{}", first.out, first.err);
    world.ends("migrate-1", Succeeded).await;

    // When the next revision's operation fails
    chart.template("migrate.yaml", "", "{steps: [{name: check, assert: 'false'}]}");
    let started = std::time::Instant::now();
    let failed = chart.upgrade(&world).await;
    // Then Helm fails at once, and says which
    assert!(
        !failed.ok && failed.err.contains("migrate-2"),
        "{}{}",
        failed.out,
        failed.err
    );
    assert!(
        started.elapsed().as_secs() < 50,
        "Helm waited for its timeout: {}",
        failed.err
    );

    // When it is fixed, the third revision's operation is another one
    chart.template("migrate.yaml", "", "{steps: [{name: done, set: {v: 1}}]}");
    let fixed = chart.upgrade(&world).await;
    assert!(fixed.ok, "{}{}", fixed.out, fixed.err);
    world.ends("migrate-3", Succeeded).await;

    // And an operation as a hook isn't waited for
    chart.template(
        "hook.yaml",
        "helm.sh/hook: post-upgrade",
        "{steps: [{name: pause, wait: {duration: 1h}}]}",
    );
    let hooked = chart.upgrade(&world).await;
    assert!(hooked.ok, "{}{}", hooked.out, hooked.err);
    world.until_state("hook-4", Waiting).await;
    operator.kill().await;
}
