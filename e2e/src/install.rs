//! What the cluster needs before an operator can run on it: the CRDs, the roles and the admission policy.

use std::time::Instant;

use tokio::sync::OnceCell;

use crate::kubectl::{kubectl, project};
use crate::world::PATIENCE;

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
    let crds = ["crd/cloudoperations.holdfast.dev", "crd/operationactions.holdfast.dev"];
    must(&["wait", "--for=condition=Established", crds[0], crds[1], "--timeout=60s"]).await;
    // Its short names come a little later; and kubectl would keep what it found without them for hours.
    let started = Instant::now();
    loop {
        let listed = kubectl(&["api-resources", "--api-group=holdfast.dev"]).await.out;
        if listed.contains("cops") && listed.contains("opact") {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "the API server does not tell of the CRDs");
    }
}

async fn apply(how: &str, path: &str) {
    must(&["apply", "--server-side", "--force-conflicts", how, &project(path)]).await;
}

async fn must(arguments: &[&str]) {
    let printed = kubectl(arguments).await;
    assert!(printed.ok, "kubectl {arguments:?}: {}", printed.err);
}
