//! What the cluster needs before an operator can run on it: the CRDs, the roles and the admission policy.

use tokio::sync::OnceCell;

use crate::kubectl::{kubectl, project};

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
    PRESENT
        .get_or_init(async || {
            for directory in KUSTOMIZATIONS {
                must(&["apply", "--server-side", "--force-conflicts", "-k", &project(directory)]).await;
            }
            for file in FILES {
                must(&["apply", "--server-side", "--force-conflicts", "-f", &project(file)]).await;
            }
            let crd = "crd/cloudoperations.holdfast.dev";
            must(&["wait", "--for=condition=Established", crd, "--timeout=60s"]).await;
        })
        .await;
}

/// Removes it, and with it every operation.
///
/// # Panics
/// If the cluster refuses.
pub async fn remove() {
    for file in FILES {
        must(&["delete", "--ignore-not-found", "-f", &project(file)]).await;
    }
    for directory in KUSTOMIZATIONS {
        must(&["delete", "--ignore-not-found", "-k", &project(directory)]).await;
    }
}

async fn must(arguments: &[&str]) {
    let printed = kubectl(arguments).await;
    assert!(printed.ok, "kubectl {arguments:?}: {}", printed.err);
}
