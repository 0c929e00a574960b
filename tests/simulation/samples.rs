//! The workflows that are crashed at every point, and what people do to them meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use holdfast::api::{CloudOperation, Duration, OperationState};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{NAMESPACE, World};

/// A workflow, what is done to it, and how it must end.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    pub manifest: Value,
    /// What is done, one thing after the other.
    pub script: Vec<Deed>,
    /// The templates that it needs, by name: their specs.
    pub templates: BTreeMap<String, Value>,
    pub expect: OperationState,
    /// How many writes of its status it costs, where that is the same whatever crashes.
    pub writes: Option<usize>,
    /// The paths of calls that may not be repeated: where the operator dies before one of them, it is never made.
    pub never_repeated: BTreeSet<String>,
}

/// What is done to an operation, or to the service that it calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Deed {
    /// Once this is so, and all that was asked before is answered; if absent, right after the deed before it.
    ///
    /// - `operation is Failed`: the operation's state.
    /// - `review is Waiting`: a step's.
    /// - `child.nap is Waiting`: that of a step of the operation that step `child` runs.
    /// - `child was created`: there is such an operation.
    /// - `/pay was called`: the service has taken a request for this path.
    when: Option<String>,
    /// And so much later.
    after: Option<Duration>,
    /// The service's paths that begin so, and are broken, are mended.
    mend: Option<String>,
    /// This is asked of the operation, as an OperationAction's spec says it.
    ask: Option<Value>,
    /// True if that is rejected.
    #[serde(default)]
    rejected: bool,
    /// The operation's spec is changed.
    patch: Option<Value>,
}

impl Deed {
    /// Waits until it is time for it.
    pub async fn wait(&self, world: &World, operation: &str) {
        if let Some(when) = &self.when {
            world
                .until(when, |world| all_answered(world) && is_so(world, operation, when))
                .await;
        }
        if let Some(after) = &self.after {
            sleep(after.get()).await;
        }
    }

    /// Does it, as number n of the script.
    pub async fn be_done(&self, world: &World, operation: &str, number: usize) {
        if let Some(path) = &self.mend {
            world.service.mend(path);
        }
        if let Some(what) = &self.ask {
            world.ask(operation, number, what).await;
        }
        if let Some(spec) = &self.patch {
            let api: Api<CloudOperation> = Api::namespaced(world.server.client("user"), NAMESPACE);
            let patch = Patch::Merge(json!({"spec": spec}));
            api.patch(operation, &PatchParams::default(), &patch).await.unwrap();
        }
    }

    /// Whether what is asked by it, if anything, is applied.
    pub fn is_applied(&self) -> Option<bool> {
        self.ask.as_ref().map(|_| !self.rejected)
    }
}

/// True once everything that was asked has an answer.
pub fn all_answered(world: &World) -> bool {
    world.came_of_it().iter().all(|(_, state)| state.is_some())
}

fn is_so(world: &World, operation: &str, what: &str) -> bool {
    if let Some(path) = what.strip_suffix(" was called") {
        return world.service.effects().contains_key(path);
    }
    let child = |step: &str| {
        let name = format!("{operation}-{step}-");
        let mut operations = world.server.list::<CloudOperation>().into_iter();
        operations.find(|child| child.name_any().starts_with(&name))
    };
    if let Some(step) = what.strip_suffix(" was created") {
        return child(step).is_some();
    }
    let (what, state) = what
        .split_once(" is ")
        .unwrap_or_else(|| panic!("{what:?}: what is so?"));
    let (operation, what) = match what.split_once('.') {
        Some((step, what)) => (child(step), what),
        None => (Some(world.operation(operation)), what),
    };
    let Some(status) = operation.and_then(|operation| operation.status) else {
        return false;
    };
    let is = match what {
        "operation" => status.state.map(|state| state.to_string()),
        _ => {
            let step = status.steps.iter().find(|step| step.name == what);
            step.map(|step| format!("{:?}", step.state))
        }
    };
    is.as_deref() == Some(state)
}

/// Reads a sample by the name of its file.
pub fn sample(name: &str) -> Sample {
    let path = format!("{}/tests/simulation/samples/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let file: Value = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
    let field = |name: &str| file.get(name).cloned();
    let mut manifest = json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation"});
    manifest["metadata"] = file["metadata"].clone();
    manifest["metadata"]["namespace"] = json!(NAMESPACE);
    manifest["spec"] = file["spec"].clone();
    Sample {
        name: manifest["metadata"]["name"].as_str().unwrap().into(),
        manifest,
        script: serde_json::from_value(field("script").unwrap_or(json!([]))).unwrap(),
        templates: serde_json::from_value(field("templates").unwrap_or(json!({}))).unwrap(),
        expect: serde_json::from_value(file["expect"].clone()).unwrap(),
        writes: serde_json::from_value(file["writes"].clone()).unwrap(),
        never_repeated: serde_json::from_value(field("neverRepeated").unwrap_or(json!([]))).unwrap(),
    }
}
