//! One operator for all namespaces.

use holdfast::api::OperationState;
use holdfast_e2e::kubectl::{apply, kubectl};
use holdfast_e2e::operator::Operator;
use holdfast_e2e::world::World;

/// The operator's rights in the whole cluster, for as long as a test lasts.
struct ClusterRights(String);

impl ClusterRights {
    async fn of(world: &World) -> Self {
        let name = format!("holdfast-wide-{}", world.namespace);
        for role in ["holdfast-operations", "holdfast-cluster"] {
            let binding = format!(
                "{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {{name: {role}-{name}, labels: {{e2e: {name}}}}}, roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role}}}, subjects: [{{kind: ServiceAccount, name: holdfast, namespace: {}}}]}}",
                world.namespace
            );
            apply(&binding).await;
        }
        Self(name)
    }
}

impl Drop for ClusterRights {
    fn drop(&mut self) {
        let deleted = std::process::Command::new(holdfast_e2e::kubectl::program())
            .args(["delete", "clusterrolebinding", "-l", &format!("e2e={}", self.0)])
            .output();
        if !deleted.is_ok_and(|output| output.status.success()) {
            eprintln!("the cluster role bindings {} are left behind", self.0);
        }
    }
}

#[tokio::test]
async fn one_operator_serves_all_namespaces_each_by_its_own_rules() {
    let _alone = crate::turn().await;
    let (system, one, held) = (
        World::new("wide-system").await,
        World::new("wide-one").await,
        World::new("wide-held").await,
    );
    let _rights = ClusterRights::of(&system).await;
    held.prints(&["label", "namespace", &held.namespace, "holdfast.dev/suspended=true"])
        .await;
    let start = || {
        let arguments = ["--lease-namespace", &system.namespace, "--allow-http", "127.0.0.1"];
        Operator::start(&system.kubeconfig, &arguments)
    };
    let first = start();
    first.leads().await;
    let second = start();
    second.logs("standing by: another process leads").await;

    let spec = r#"
        serviceAccountName: runner
        steps:
        - {name: call, http: {method: POST, url: INVENTORY/called}}
        - name: apply
          kubernetes: {apply: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: applied}, data: {by: "${operation.namespace}"}}}}
        "#;
    for world in [&one, &held] {
        world.run("same-name", spec).await;
    }
    one.ends("same-name", OperationState::Succeeded).await;
    held.until_state("same-name", OperationState::Suspended).await;
    let by = one
        .prints(&["get", "configmap", "applied", "-o", "jsonpath={.data.by}"])
        .await;
    assert_eq!(by, one.namespace);

    held.prints(&["label", "namespace", &held.namespace, "holdfast.dev/suspended-"])
        .await;
    held.ends("same-name", OperationState::Succeeded).await;

    // A namespace's end takes its operations along, and disturbs nobody.
    one.run("waits", "steps: [{name: pause, wait: {duration: 1h}}]").await;
    one.until_state("waits", OperationState::Waiting).await;
    let deleted = kubectl(&["delete", "namespace", &one.namespace, "--timeout=90s"]).await;
    assert!(deleted.ok, "{}", deleted.err);
    first.stop().await;
    second.leads().await;
    held.run("after", "steps: [{name: call, http: {url: INVENTORY/after}}]")
        .await;
    held.ends("after", OperationState::Succeeded).await;
    assert_eq!(held.inventory.requests("/called").len(), 1);
}
