//! The little that defaulting, admission and controllers do to built-in objects and that an operator relies on.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    objects::meta,
    resources::Resource,
    status::{self, FieldError, Result},
};

/// Completes a new object, before it is stored.
pub fn prepare(object: &mut Value) {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let api_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    match (api_version.as_str(), kind.as_str()) {
        ("v1", "Namespace") => {
            let name = meta(object, "name").to_owned();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            object["status"] = json!({"phase": "Active"});
        }
        ("v1", "Pod") => object["status"] = json!({"phase": "Pending"}),
        ("v1", "Secret") => {
            default(object, "type", "Opaque".into());
            encode_string_data(object);
        }
        ("apps/v1", "Deployment" | "ReplicaSet" | "StatefulSet") => default(&mut object["spec"], "replicas", 1.into()),
        ("batch/v1", "Job") => label_job(object),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => establish(object),
        _ => {}
    }
}

/// Completes a changed object, before it is stored.
pub fn prepare_update(object: &mut Value) {
    if object["apiVersion"] == "v1" && object["kind"] == "Secret" {
        encode_string_data(object);
    }
    if object["kind"] == "CustomResourceDefinition" {
        establish(object);
    }
}

/// Refuses a change to what `immutable: true` fixes.
pub fn check_update(resource: &Resource, live: &Value, new: &Value) -> Result<()> {
    let fixed = resource.group.is_empty() && ["ConfigMap", "Secret"].contains(&resource.kind.as_str());
    if !fixed || live["immutable"] != true {
        return Ok(());
    }
    let changed = ["immutable", "data", "binaryData"]
        .into_iter()
        .filter(|field| live.get(*field) != new.get(*field));
    let errors: Vec<FieldError> = changed
        .map(|field| FieldError::forbidden(field, "field is immutable when `immutable` is set"))
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(status::invalid(resource, meta(live, "name"), errors))
    }
}

fn default(object: &mut Value, field: &str, value: Value) {
    if object[field].is_null() {
        object[field] = value;
    }
}

/// A Secret's `stringData` is a way to write `data`, and is never read back.
fn encode_string_data(object: &mut Value) {
    let texts = object.as_object_mut().and_then(|fields| fields.remove("stringData"));
    for (key, text) in texts.iter().filter_map(Value::as_object).flatten() {
        object["data"][key] = STANDARD.encode(text.as_str().unwrap_or_default()).into();
    }
}

/// A Job's pods are found by labels that the server gives to their template.
fn label_job(object: &mut Value) {
    let (name, uid) = (meta(object, "name").to_owned(), meta(object, "uid").to_owned());
    let spec = &mut object["spec"];
    for (field, value) in [("parallelism", 1), ("completions", 1), ("backoffLimit", 6)] {
        default(spec, field, value.into());
    }
    if spec["manualSelector"] == true {
        return;
    }
    spec["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"] = uid.clone().into();
    let labels = &mut spec["template"]["metadata"]["labels"];
    for prefix in ["", "batch.kubernetes.io/"] {
        labels[format!("{prefix}controller-uid")] = uid.clone().into();
        labels[format!("{prefix}job-name")] = name.clone().into();
    }
}

/// A definition is served at once.
fn establish(object: &mut Value) {
    let kind = object
        .pointer("/spec/names/kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    default(&mut object["spec"]["names"], "listKind", format!("{kind}List").into());
    default(&mut object["spec"]["names"], "singular", kind.to_lowercase().into());
    if !object["status"]["conditions"].is_null() {
        return;
    }
    let at = meta(object, "creationTimestamp").to_owned();
    let condition = |name: &str, reason: &str, message: &str| json!({"type": name, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at});
    let versions = object["spec"]["versions"].as_array().cloned().unwrap_or_default();
    let stored = versions
        .into_iter()
        .filter(|v| v["storage"] == true)
        .map(|v| v["name"].clone());
    object["status"] = json!({
        "acceptedNames": object["spec"]["names"],
        "storedVersions": stored.collect::<Vec<_>>(),
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    });
}
