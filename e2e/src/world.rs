//! A namespace of one's own on the cluster, with a service to call and an operator that serves it alone.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use holdfast::api::{CloudOperation, OperationState};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};

use crate::inventory::Inventory;
use crate::kubectl::{Printed, kubectl, kubectl_with};
use crate::operator::Operator;

/// How long anything may take before a test gives up, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Where a test lives.
pub struct World {
    /// Its namespace.
    pub namespace: String,
    /// Its service.
    pub inventory: Inventory,
    /// The cluster, as its administrator.
    pub client: Client,
    /// The operator's kubeconfig: the rights of its service account, and no more.
    pub kubeconfig: String,
    _directory: tempfile::TempDir,
}

impl World {
    /// Makes a namespace, a service account `runner` that steps act as, and the operator's own access.
    ///
    /// # Panics
    /// If the cluster refuses.
    pub async fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("{name}-{}-{number}", std::process::id());
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig").display().to_string();
        let manifests = include_str!("world.yaml").replace("NAMESPACE", &namespace);
        apply(&manifests).await;
        let token = kubectl(&["create", "token", "holdfast", "-n", &namespace, "--duration", "4h"]).await;
        assert!(token.ok, "{}", token.err);
        let admin = std::env::var("KUBECONFIG").expect("KUBECONFIG: run the end-to-end tests by make e2e");
        let config: serde_json::Value = serde_yaml::from_str(&std::fs::read_to_string(&admin).unwrap()).unwrap();
        let mut config = config;
        config["users"][0]["user"] = serde_json::json!({"token": token.out.trim()});
        let context = &mut config["contexts"][0]["context"];
        context["namespace"] = serde_json::json!(namespace);
        std::fs::write(&kubeconfig, serde_json::to_string(&config).unwrap()).unwrap();
        let client = Client::try_default().await.unwrap();
        let inventory = Inventory::start().await.unwrap();
        Self {
            namespace,
            inventory,
            client,
            kubeconfig,
            _directory: directory,
        }
    }

    /// Starts an operator that serves this namespace.
    pub fn operator(&self) -> Operator {
        self.operator_with(&[])
    }

    /// Starts an operator that serves this namespace, with further arguments.
    pub fn operator_with(&self, arguments: &[&str]) -> Operator {
        let mut all = vec![
            "--namespace",
            &self.namespace,
            "--lease-namespace",
            &self.namespace,
            "--lease-duration",
            "4s",
            "--allow-http",
            "127.0.0.1",
        ];
        all.extend(arguments);
        Operator::start(&self.kubeconfig, &all)
    }

    /// A CloudOperation's manifest from its spec: `INVENTORY` in it is the service's address.
    pub fn manifest(&self, name: &str, spec: &str) -> String {
        let spec = spec.replace("INVENTORY", &format!("http://{}", self.inventory.address));
        let spec: serde_json::Value = serde_yaml::from_str(&spec).unwrap_or_else(|e| panic!("{e}\n{spec}"));
        serde_json::json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        })
        .to_string()
    }

    /// Applies a CloudOperation.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn run(&self, name: &str, spec: &str) {
        apply(&self.manifest(name, spec)).await;
    }

    /// Runs kubectl in this namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Printed {
        let mut all = vec!["-n", &self.namespace];
        all.extend(arguments);
        kubectl(&all).await
    }

    /// Changes a CloudOperation by a merge patch.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn patch(&self, name: &str, patch: &str) {
        let printed = self.kubectl(&["patch", "cop", name, "--type=merge", "-p", patch]).await;
        assert!(printed.ok, "{}", printed.err);
    }

    /// The operations of this namespace.
    pub fn operations(&self) -> Api<CloudOperation> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until an operation is as wanted, by watch, and answers it.
    ///
    /// # Panics
    /// If it isn't in time: with what it is.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        mut wanted: impl FnMut(&CloudOperation) -> bool,
    ) -> CloudOperation {
        let started = Instant::now();
        loop {
            let operation = self
                .operations()
                .get(name)
                .await
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            if wanted(&operation) {
                return operation;
            }
            let status = serde_yaml::to_string(&operation.status).unwrap_or_default();
            assert!(
                started.elapsed() < PATIENCE,
                "{name} is not {what} after {PATIENCE:?}:\n{status}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until an operation has this state.
    pub async fn until_state(&self, name: &str, state: OperationState) -> CloudOperation {
        self.until(name, &state.to_string(), |operation| state_of(operation) == Some(state))
            .await
    }

    /// Waits until an operation has ended, and checks that it ended so.
    ///
    /// # Panics
    /// If it ended otherwise.
    pub async fn ends(&self, name: &str, state: OperationState) -> CloudOperation {
        let ended = self
            .until(name, "finished", |operation| {
                state_of(operation).is_some_and(OperationState::is_finished)
            })
            .await;
        assert_eq!(
            state_of(&ended),
            Some(state),
            "{}",
            serde_yaml::to_string(&ended.status).unwrap()
        );
        ended
    }

    /// Creates any object.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn create<K>(&self, object: &K)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + serde::Serialize
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        api.create(&PostParams::default(), object)
            .await
            .unwrap_or_else(|e| panic!("{}: {e}", object.name_any()));
    }

    /// Removes the namespace with all that is in it.
    pub async fn end(self) {
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client.clone());
        let _ = api.delete(&self.namespace, &DeleteParams::background()).await;
    }
}

/// What an operation is doing, or how it ended.
pub fn state_of(operation: &CloudOperation) -> Option<OperationState> {
    operation.status.as_ref().and_then(|status| status.state)
}

/// What people read of an operation: the message of its condition `Succeeded`.
pub fn message_of(operation: &CloudOperation) -> String {
    let conditions = operation
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    conditions
        .iter()
        .find(|c| c.type_ == "Succeeded")
        .map(|c| c.message.clone())
        .unwrap_or_default()
}

/// Applies manifests.
///
/// # Panics
/// If one is refused.
pub async fn apply(manifests: &str) {
    let printed = kubectl_with(manifests, &["apply", "-f", "-"]).await;
    assert!(printed.ok, "{}", printed.err);
}
