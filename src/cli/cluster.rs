//! The cluster that the user's kubeconfig names.

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{ListParams, PatchParams, PostParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{CliError, Global, NAME};
use crate::api::{CloudOperation, OPERATION_UID_LABEL, OperationHistory, OperationTemplate};
use crate::engine;

/// The name under which the API server keeps what the plugin writes.
const FIELD_MANAGER: &str = "kubectl-holdfast";

/// How an object is created.
pub fn creation() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    }
}

/// How an object is changed.
pub fn change() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    }
}

/// The flags that a command needs beside its own to be about the same place, as text: ` --context blue -n prod`.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Those that name the cluster, and as whom it is asked.
    pub cluster: String,
    /// The one that names the namespace.
    pub namespace: String,
}

impl std::fmt::Display for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.cluster, self.namespace)
    }
}

/// A cluster, and the namespace that commands are about.
pub struct Cluster {
    /// The client, with the user's rights.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    /// The flags that a command needs beside its own to be about the same place.
    pub flags: Flags,
}

impl Cluster {
    /// Reads the kubeconfig. Nothing is sent yet.
    pub(super) async fn connect(global: &Global) -> Result<Self, CliError> {
        let options = KubeConfigOptions {
            context: global.context.clone(),
            ..KubeConfigOptions::default()
        };
        let wrong = |error: &dyn std::fmt::Display| CliError::Kubeconfig(error.to_string());
        let mut config = match (&global.kubeconfig, &global.context) {
            (Some(path), _) => {
                let kubeconfig = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
                Config::from_custom_kubeconfig(kubeconfig, &options)
                    .await
                    .map_err(|error| wrong(&error))?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| wrong(&error))?,
            (None, None) => Config::infer().await.map_err(|error| wrong(&error))?,
        };
        config.default_retry = false; // an answer that says nothing of a creation may hide one that was made
        let mut flags = Flags::default();
        let flag = |name: &str, value: &str| format!(" {name} {}", quoted(value));
        if let Some(path) = &global.kubeconfig {
            flags.cluster += &flag("--kubeconfig", &path.display().to_string());
        }
        if let Some(context) = &global.context {
            flags.cluster += &flag("--context", context);
        }
        if let Some(user) = &global.as_user {
            flags.cluster += &flag("--as", user);
            config.auth_info.impersonate = Some(user.clone());
        }
        if let Some(namespace) = global
            .namespace
            .as_ref()
            .filter(|given| **given != config.default_namespace)
        {
            flags.namespace = flag("-n", namespace);
        }
        let namespace = global
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| wrong(&error))?;
        Ok(Self {
            client,
            namespace,
            flags,
        })
    }

    /// The objects of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A command line that does something to an operation here: `kubectl holdfast retry web -n prod`.
    pub fn command(&self, command: &str, operation: &str, rest: &str) -> String {
        let space = if rest.is_empty() { "" } else { " " };
        format!("{NAME} {command} {operation}{space}{rest}{}", self.flags)
    }

    /// Checks that a manifest is for the namespace that commands are about.
    ///
    /// # Errors
    /// When it names another.
    pub fn is_for(&self, manifest: &Value) -> Result<(), CliError> {
        let namespace = manifest["metadata"]["namespace"].as_str();
        match namespace.filter(|namespace| *namespace != self.namespace) {
            None => Ok(()),
            Some(namespace) => Err(CliError::Usage(format!(
                "what is in the file is for namespace {namespace}, and this is {}: give -n {namespace}",
                self.namespace
            ))),
        }
    }

    /// An operation by its name.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    pub async fn operation(&self, name: &str) -> Result<CloudOperation, CliError> {
        let name = bare(name);
        let found = self.api::<CloudOperation>().get_opt(name).await;
        match found.map_err(CliError::cluster(format!("CloudOperation {name} can't be read")))? {
            Some(operation) => Ok(operation),
            None => Err(self.no_operation(name)),
        }
    }

    /// The parts of an operation's journal that have no room in its status, the oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn journal(&self, operation: &CloudOperation) -> Result<Vec<OperationHistory>, kube::Error> {
        let uid = operation.uid().unwrap_or_default();
        let of_it = ListParams::default().labels(&format!("{OPERATION_UID_LABEL}={uid}"));
        let mut parts = self.api::<OperationHistory>().list(&of_it).await?.items;
        parts.retain(|part| part.spec.operation_ref.uid == uid);
        parts.sort_by_key(|part| part.spec.from);
        Ok(parts)
    }

    /// The template that an operation runs, as it was when the operation started; `None` where it was not recorded.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn pinned(&self, operation: &CloudOperation) -> Result<Option<Map<String, Value>>, kube::Error> {
        let parts = self.journal(operation).await?;
        Ok(parts
            .into_iter()
            .find_map(|part| part.spec.template)
            .map(|pinned| pinned.spec))
    }

    /// The spec of a template as it is now; `None` if there is none.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn template(&self, name: &str) -> Result<Option<Map<String, Value>>, kube::Error> {
        let found = self.api::<OperationTemplate>().get_opt(name).await?;
        Ok(found.and_then(|template| serde_json::to_value(template.spec).ok()?.as_object().cloned()))
    }

    /// The operation with the steps of the template that it runs, if it runs one: as it was when the operation started, or
    /// else as it is now. As it is where neither can be read.
    pub async fn whole(&self, mut operation: CloudOperation) -> CloudOperation {
        let Some(reference) = &operation.spec.template_ref else {
            return operation;
        };
        let template = match self.pinned(&operation).await.unwrap_or_default() {
            Some(pinned) => Some(pinned),
            None => self.template(&reference.name).await.ok().flatten(),
        };
        if let Some(template) = template {
            operation.spec = engine::resolve(&operation.spec, &template).spec;
        }
        operation
    }

    /// Says that there is no such operation, and how to find it.
    pub fn no_operation(&self, name: &str) -> CliError {
        CliError::NoOperation {
            name: name.into(),
            namespace: self.namespace.clone(),
            hint: format!("; all operations: {NAME} get -A{}", self.flags.cluster),
        }
    }

    /// Follows one object: as it is, then every change of it; `None` when it is gone, whoever has its name then. Goes on
    /// after a lost connection.
    ///
    /// What it yields as an error is that watching isn't allowed, or can't be.
    pub fn follow<K>(&self, name: &str) -> impl Stream<Item = Result<Option<K>, CliError>> + use<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + 'static,
    {
        let what = format!("{} {name} can't be watched", K::kind(&()));
        let mut uid = None;
        let itself = move |object: Option<K>| object.filter(|it| *uid.get_or_insert_with(|| it.uid()) == it.uid());
        tolerant(watcher::watch_object(self.api::<K>(), name).default_backoff(), what).map_ok(itself)
    }
}

/// Passes over what a watch recovers from by itself, and says so once; ends at what it doesn't.
pub fn tolerant<T>(
    events: impl Stream<Item = Result<T, watcher::Error>>,
    what: String,
) -> impl Stream<Item = Result<T, CliError>> {
    let mut said = false;
    events
        .filter_map(move |event| {
            let event = match event {
                Ok(event) => {
                    said = false;
                    Some(Ok(event))
                }
                Err(error) => match final_error(error) {
                    Ok(error) => Some(Err(CliError::Cluster {
                        what: what.clone(),
                        error,
                    })),
                    Err(passing) => {
                        if !std::mem::replace(&mut said, true) {
                            anstream::eprintln!("{what} at the moment, trying again: {passing}");
                        }
                        None
                    }
                },
            };
            std::future::ready(event)
        })
        .into_stream()
}

/// The error if asking again can't help; else what there is to say of it.
fn final_error(error: watcher::Error) -> Result<kube::Error, String> {
    use watcher::Error::*;
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => match error {
            kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404) => Ok(kube::Error::Api(status)),
            unreadable @ kube::Error::SerdeError(_) => Ok(unreadable), // of a newer version
            error => Err(error.to_string()),
        },
        error => Err(error.to_string()),
    }
}

/// A name without its kind: people copy it from the output of other commands.
pub fn bare(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// A word of a command line, in quotes where a shell would take it apart.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
