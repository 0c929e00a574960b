//! The workflows that are crashed at every point.

use std::collections::BTreeMap;

use holdfast::api::OperationState;
use serde_json::{Value, json};

/// A workflow and how it must end.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    pub manifest: Value,
    /// What people ask as soon as it exists, and what once it is stuck.
    pub actions: Vec<Value>,
    pub later: Vec<Value>,
    /// The templates that it needs, by name: their specs.
    pub templates: BTreeMap<String, Value>,
    pub expect: OperationState,
    /// How many writes of its status it costs, where that is the same whatever crashes.
    pub writes: Option<usize>,
}

/// Reads a sample by the name of its file.
pub fn sample(name: &str) -> Sample {
    let path = format!("{}/tests/simulation/samples/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let file: Value = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut manifest = json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation"});
    manifest["metadata"] = file["metadata"].clone();
    manifest["metadata"]["namespace"] = json!(crate::world::NAMESPACE);
    manifest["spec"] = file["spec"].clone();
    Sample {
        name: name.into(),
        manifest,
        actions: file["actions"].as_array().cloned().unwrap_or_default(),
        later: file["later"].as_array().cloned().unwrap_or_default(),
        templates: serde_json::from_value(file.get("templates").cloned().unwrap_or(json!({}))).unwrap(),
        expect: serde_json::from_value(file["expect"].clone()).unwrap(),
        writes: serde_json::from_value(file["writes"].clone()).unwrap(),
    }
}
