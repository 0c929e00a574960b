//! What the cluster needs before an operator can run on it: the CRDs, the roles and the admission policy.

use std::time::Instant;

use tokio::sync::OnceCell;

use crate::kubectl::{kubectl, kubectl_with, project};
use crate::world::PATIENCE;

const KINDS: [&str; 6] = [
    "cloudoperations",
    "operationactions",
    "operationhistories",
    "operationlocks",
    "operationschedules",
    "operationtemplates",
];
const KUSTOMIZATIONS: &[&str] = &["config/crd", "config/admission"];
/// config/rbac but for the Lease's role, which is in the namespace of an operator that runs in the cluster.
const FILES: &[&str] = &[
    "config/rbac/operations.yaml",
    "config/rbac/cluster.yaml",
    "config/rbac/users.yaml",
];

/// Installs it, once a process.
///
/// # Panics
/// If the cluster refuses.
pub async fn present() {
    static PRESENT: OnceCell<()> = OnceCell::const_new();
    PRESENT.get_or_init(install).await;
}

/// Installs it.
///
/// # Panics
/// If the cluster refuses.
pub async fn install() {
    for directory in KUSTOMIZATIONS {
        apply("-k", directory).await;
    }
    for file in FILES {
        apply("-f", file).await;
    }
    let crds = KINDS.map(|kind| format!("crd/{kind}.holdfast.dev"));
    let wait = ["wait", "--for=condition=Established", "--timeout=300s"];
    must(
        &wait
            .into_iter()
            .chain(crds.iter().map(String::as_str))
            .collect::<Vec<_>>(),
    )
    .await;
    // Its short names come a little later; and kubectl would keep what it found without them for hours.
    until("the API server tells of the short names", async || {
        let listed = kubectl(&["api-resources", "--api-group=holdfast.dev"]).await.out;
        listed.contains("cops") && listed.contains("opact")
    })
    .await;
    // As docs/install.md says of the first seconds: admission learns of the kinds late, and of its own policies.
    for (stamp, object) in [
        (
            "holdfast.dev/created-by",
            "{kind: CloudOperation, spec: {steps: [{name: a, set: {v: 1}}]}",
        ),
        (
            "requestedBy",
            "{kind: OperationAction, spec: {operationRef: {name: a}, signal: {name: a}}",
        ),
    ] {
        let manifest =
            format!("{object}, apiVersion: holdfast.dev/v1alpha1, metadata: {{name: a, namespace: default}}}}");
        until("admission says who asks", async || {
            let arguments = ["create", "--dry-run=server", "-o", "yaml", "-f", "-"];
            kubectl_with(&manifest, &arguments).await.out.contains(stamp)
        })
        .await;
    }
}

/// Waits until a service account of a namespace has a right that was just given: the API server learns of it by a watch.
///
/// # Panics
/// If it never has.
pub async fn until_may(namespace: &str, account: &str, verb: &str, resource: &str) {
    let user = format!("--as=system:serviceaccount:{namespace}:{account}");
    until(&format!("{account} may {verb} {resource}"), async || {
        let asked = kubectl(&["auth", "can-i", verb, resource, "-n", namespace, &user]).await;
        asked.out.trim() == "yes"
    })
    .await;
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < PATIENCE, "it never came true that {what}");
    }
}

async fn apply(how: &str, path: &str) {
    must(&["apply", "--server-side", "--force-conflicts", how, &project(path)]).await;
}

async fn must(arguments: &[&str]) {
    let printed = kubectl(arguments).await;
    assert!(printed.ok, "kubectl {arguments:?}: {}", printed.err);
}
