//! A namespace of one's own on the cluster, with a service to call and an operator that serves it alone.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use holdfast::api::{ActionState, CloudOperation, HistoryEvent, OperationAction, OperationState, StepStatus};
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::inventory::Inventory;
use crate::kubectl::{Printed, apply, kubectl};
use crate::operator::Operator;

/// How long anything may take before a test gives up, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How long a poll waits before it asks again.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a test lives. Removed when it is dropped, with all that is in it.
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
        crate::install::present().await;
        apply(&include_str!("world.yaml").replace("NAMESPACE", &namespace)).await;
        crate::install::until_may(&namespace, "runner", "create", "configmaps").await;
        let token = kubectl(&["create", "token", "holdfast", "-n", &namespace, "--duration", "4h"]).await;
        assert!(token.ok, "{}", token.err);
        let admin = std::env::var("KUBECONFIG").expect("KUBECONFIG: run the end-to-end tests by make e2e");
        let mut config: Value = serde_yaml::from_str(&std::fs::read_to_string(&admin).unwrap()).unwrap();
        config["users"][0]["user"] = json!({"token": token.out.trim()});
        config["contexts"][0]["context"]["namespace"] = json!(namespace);
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig").display().to_string();
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        Self {
            namespace,
            inventory: Inventory::start().await.unwrap(),
            client: Client::try_default().await.unwrap(),
            kubeconfig,
            _directory: directory,
        }
    }

    /// Starts an operator that serves this namespace.
    pub fn operator(&self) -> Operator {
        self.operator_with(&["--allow-http", "127.0.0.1"])
    }

    /// Starts an operator that serves this namespace, with further arguments.
    pub fn operator_with(&self, arguments: &[&str]) -> Operator {
        let mut all = vec!["--namespace", &self.namespace];
        all.extend(arguments);
        Operator::start(&self.kubeconfig, &all)
    }

    /// A CloudOperation's manifest from its spec: `INVENTORY` in it is the service's address.
    ///
    /// # Panics
    /// If the spec is no YAML.
    pub fn manifest(&self, name: &str, spec: &str) -> Value {
        let spec = spec.replace("INVENTORY", &self.inventory.url(""));
        let spec: Value = serde_yaml::from_str(&spec).unwrap_or_else(|error| panic!("{error}\n{spec}"));
        json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        })
    }

    /// Applies a CloudOperation.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn run(&self, name: &str, spec: &str) {
        self.apply(&self.manifest(name, spec).to_string()).await;
    }

    /// Applies manifests of any kind in this namespace.
    ///
    /// # Panics
    /// If one is refused.
    pub async fn apply(&self, manifests: &str) {
        let printed =
            crate::kubectl::kubectl_with(manifests, &["-n", &self.namespace, "apply", "--server-side", "-f", "-"])
                .await;
        assert!(printed.ok, "{}", printed.err);
    }

    /// Runs kubectl in this namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Printed {
        let mut all = vec!["-n", &self.namespace];
        all.extend(arguments);
        kubectl(&all).await
    }

    /// Runs kubectl in this namespace, and answers what it prints.
    ///
    /// # Panics
    /// If it fails.
    pub async fn prints(&self, arguments: &[&str]) -> String {
        let printed = self.kubectl(arguments).await;
        assert!(printed.ok, "kubectl {arguments:?}: {}", printed.err);
        printed.out
    }

    /// Changes a CloudOperation by a merge patch.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn patch(&self, name: &str, patch: &str) {
        self.prints(&["patch", "cop", name, "--type=merge", "-p", patch]).await;
    }

    /// Creates an OperationAction on an operation: `verb` is what it asks, such as `retry: {}`. Answers its name.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn ask(&self, operation: &str, verb: &str) -> String {
        let printed = self.ask_as(&[], operation, verb).await;
        assert!(printed.ok, "{verb}: {}", printed.err);
        printed.out.trim().rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// Creates an OperationAction as somebody: with further arguments of kubectl, such as `--as=alice`.
    ///
    /// # Panics
    /// If `verb` is no YAML.
    pub async fn ask_as(&self, arguments: &[&str], operation: &str, verb: &str) -> Printed {
        let mut spec: Value = serde_yaml::from_str(verb).unwrap_or_else(|error| panic!("{error}\n{verb}"));
        spec["operationRef"]["name"] = operation.into();
        let manifest = json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "OperationAction",
            "metadata": {"generateName": "ask-"}, "spec": spec,
        });
        let mut all = vec!["-n", &self.namespace, "create", "-f", "-", "-o", "name"];
        all.extend(arguments);
        crate::kubectl::kubectl_with(&manifest.to_string(), &all).await
    }

    /// Waits until an OperationAction says what came of it, and answers that.
    pub async fn came_of(&self, action: &str) -> (ActionState, String) {
        let decided = self
            .until_object::<OperationAction>(action, "decided", |action| {
                action.status.as_ref().is_some_and(|status| status.state.is_some())
            })
            .await;
        let status = decided.status.unwrap_or_default();
        let state = status.state.expect("it is decided");
        (state, status.message.unwrap_or_default())
    }

    /// Asks, and answers what came of it.
    pub async fn asked(&self, operation: &str, verb: &str) -> (ActionState, String) {
        let action = self.ask(operation, verb).await;
        self.came_of(&action).await
    }

    /// The objects of a kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The operations of this namespace.
    pub fn operations(&self) -> Api<CloudOperation> {
        self.api()
    }

    /// Waits until an object is as wanted, and answers it.
    ///
    /// # Panics
    /// If it isn't in time: with what it is.
    pub async fn until_object<K>(&self, name: &str, what: &str, mut wanted: impl FnMut(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + serde::Serialize,
    {
        let started = Instant::now();
        loop {
            let object = self
                .api::<K>()
                .get_opt(name)
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            if let Some(object) = object.as_ref().filter(|object| wanted(object)) {
                return object.clone();
            }
            if started.elapsed() > PATIENCE {
                let mut object = json!(object);
                if let Some(metadata) = object["metadata"].as_object_mut() {
                    metadata.remove("managedFields");
                }
                let object = serde_yaml::to_string(&object).unwrap_or_default();
                panic!("{name} is not {what} after {PATIENCE:?}:\n{object}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until an operation is as wanted, and answers it.
    pub async fn until(&self, name: &str, what: &str, wanted: impl FnMut(&CloudOperation) -> bool) -> CloudOperation {
        self.until_object(name, what, wanted).await
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
        let status = || serde_yaml::to_string(&ended.status).unwrap_or_default();
        assert_eq!(state_of(&ended), Some(state), "{name}:\n{}", status());
        ended
    }

    /// Waits until nothing has this name any more.
    ///
    /// # Panics
    /// If something still does in the end.
    pub async fn until_gone<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let started = Instant::now();
        while self.api::<K>().get_opt(name).await.unwrap().is_some() {
            assert!(started.elapsed() < PATIENCE, "{name} is not gone after {PATIENCE:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until the service was called at a path, and by that the call is under way.
    ///
    /// # Panics
    /// If it isn't in time.
    pub async fn until_called(&self, path: &str) {
        let started = Instant::now();
        while self.inventory.requests(path).is_empty() {
            assert!(started.elapsed() < PATIENCE, "{path} is not called after {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let namespace = format!("namespace/{}", self.namespace);
        let role = format!("clusterrole/holdfast-e2e-{}", self.namespace);
        let binding = format!("clusterrolebinding/holdfast-e2e-{}", self.namespace);
        let deleted = std::process::Command::new(crate::kubectl::program())
            .args([
                "delete",
                "--wait=false",
                "--ignore-not-found",
                &namespace,
                &role,
                &binding,
            ])
            .output();
        if !deleted.is_ok_and(|output| output.status.success()) {
            eprintln!("namespace {} is left behind", self.namespace);
        }
    }
}

/// What an operation is doing, or how it ended.
pub fn state_of(operation: &CloudOperation) -> Option<OperationState> {
    operation.status.as_ref().and_then(|status| status.state)
}

/// The status of a condition, and its reason.
pub fn condition<'a>(operation: &'a CloudOperation, kind: &str) -> (&'a str, &'a str) {
    let conditions = operation.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .find(|condition| condition.type_ == kind)
        .map_or(("", ""), |condition| (&condition.status, &condition.reason))
}

/// What people read of an operation: the message of its condition `Succeeded`.
pub fn message_of(operation: &CloudOperation) -> &str {
    let conditions = operation.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .find(|condition| condition.type_ == "Succeeded")
        .map_or("", |condition| &condition.message)
}

/// The journal's entry of a step.
///
/// # Panics
/// If the step wasn't started.
pub fn step<'a>(operation: &'a CloudOperation, name: &str) -> &'a StepStatus {
    find_step(operation, name).unwrap_or_else(|| {
        panic!(
            "step {name} of {} was not started:\n{}",
            operation.name_any(),
            serde_yaml::to_string(&operation.status).unwrap_or_default()
        )
    })
}

/// The journal's entry of a step, if it was started.
pub fn find_step<'a>(operation: &'a CloudOperation, name: &str) -> Option<&'a StepStatus> {
    let status = operation.status.as_ref()?;
    status.steps.iter().find(|step| step.name == name)
}

/// A step's output.
pub fn output(operation: &CloudOperation, name: &str) -> Value {
    json!(step(operation, name).output)
}

/// What the history says of a step, or of the operation itself (`""`).
pub fn events(operation: &CloudOperation, name: &str) -> Vec<HistoryEvent> {
    let history = operation.status.iter().flat_map(|status| &status.history);
    history
        .filter(|entry| entry.step.as_deref().unwrap_or_default() == name)
        .map(|entry| entry.event)
        .collect()
}
