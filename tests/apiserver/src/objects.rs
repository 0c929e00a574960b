//! The rules for objects that all resources share: names, metadata, what a write may change.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use crate::{
    resources::Resource,
    status::{self, FieldError, Result},
};

/// A name of one or more labels.
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
/// A key, without its prefix.
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// A literal pattern; the tests below compile them all.
fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap_or_else(|e| panic!("a pattern of this file is wrong: {e}"))
}

static NAME: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"));
static KEY: LazyLock<Regex> = LazyLock::new(|| regex(r"^([^/]+/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$"));
static VALUE: LazyLock<Regex> = LazyLock::new(|| regex(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"));

/// What the server sets, whatever a client sends.
const SYSTEM_FIELDS: [&str; 5] = [
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// A text in an object's metadata, or an empty one.
pub fn meta<'o>(object: &'o Value, field: &str) -> &'o str {
    object
        .get("metadata")
        .and_then(|m| m.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Is it being deleted?
pub fn is_terminating(object: &Value) -> bool {
    !meta(object, "deletionTimestamp").is_empty()
}

/// The finalizers that an object waits for.
pub fn finalizers(object: &Value) -> Vec<String> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|f| f.as_str().map(str::to_owned))
        .collect()
}

/// The owners of an object: its `ownerReferences`.
pub fn owner_references(object: &Value) -> &[Value] {
    object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// Reads a body as an object of `resource`, of the name and namespace in its path.
pub fn parse(resource: &Resource, body: &[u8], namespace: &str, name: &str) -> Result<Value> {
    let object: Value = serde_json::from_slice(body).map_err(|e| {
        status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {e}",
            resource.kind
        ))
    })?;
    identify(resource, object, namespace, name)
}

/// Checks that an object is of `resource` and of the name and namespace in its path, and fills them in.
pub fn identify(resource: &Resource, mut object: Value, namespace: &str, name: &str) -> Result<Value> {
    if !object.is_object() {
        return Err(status::bad_request(format!(
            "the object provided is unrecognized (must be of type {})",
            resource.kind
        )));
    }
    let (api_version, kind) = (resource.api_version(), resource.kind.as_str());
    match object["apiVersion"].as_str() {
        None | Some("") if resource.custom => {
            let why = format!("Object 'Kind' is missing in '{object}'");
            return Err(status::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): {why}"
            )));
        }
        Some(given) if !given.is_empty() && given != api_version => {
            return Err(status::bad_request(format!(
                "the API version in the data ({given}) does not match the expected API version ({api_version})"
            )));
        }
        _ => object["apiVersion"] = api_version.into(),
    }
    match object["kind"].as_str() {
        Some(given) if !given.is_empty() && given != kind => {
            let error = FieldError::invalid("kind", format!("\"{given}\""), format!("must be {kind}"));
            return Err(status::invalid(resource, meta(&object, "name"), vec![error]));
        }
        _ => object["kind"] = kind.into(),
    }
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    for map in ["labels", "annotations"] {
        if let Some((key, _)) = object["metadata"][map]
            .as_object()
            .and_then(|m| m.iter().find(|(_, v)| !v.is_string()))
        {
            return Err(status::bad_request(format!(
                "{kind} in version \"{}\" cannot be handled as a {kind}: metadata.{map}.{key} must be a string",
                resource.version
            )));
        }
    }
    let given = meta(&object, "namespace");
    if resource.namespaced && !given.is_empty() && given != namespace {
        return Err(status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let given = meta(&object, "name");
    if !name.is_empty() && given != name && !given.is_empty() {
        return Err(status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    if !name.is_empty() {
        object["metadata"]["name"] = name.into();
    }
    match resource.namespaced {
        true => object["metadata"]["namespace"] = namespace.into(),
        false => drop(object["metadata"].as_object_mut().map(|m| m.remove("namespace"))),
    }
    Ok(object)
}

/// Brings an object into the form in which it is stored: nothing unknown, nothing empty, defaults filled in.
pub fn normalize(resource: &Resource, object: &mut Value) {
    if let Some(schema) = &resource.schema {
        schema.prune_object(object);
        schema.fill_defaults(object);
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        const KNOWN: [&str; 8] = [
            "name",
            "namespace",
            "generateName",
            "labels",
            "annotations",
            "finalizers",
            "ownerReferences",
            "resourceVersion",
        ];
        metadata.retain(|field, value| {
            let known = KNOWN.contains(&field.as_str()) || SYSTEM_FIELDS.contains(&field.as_str());
            let empty = match value {
                Value::Null => true,
                Value::String(text) => text.is_empty(),
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            known && !empty
        });
    }
}

/// Refuses an object whose metadata is wrong, or what its schema says of the part that is written. `live` is what it
/// replaces.
pub fn validate(resource: &Resource, live: Option<&Value>, object: &Value, part: Part) -> Result<()> {
    let name = meta(object, "name");
    let mut errors: Vec<FieldError> = live
        .and_then(|live| late_finalizers(live, object))
        .into_iter()
        .collect();
    if name.is_empty() {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if name.len() > 253 {
        errors.push(FieldError::invalid(
            "metadata.name",
            format!("\"{name}\""),
            "must be no more than 253 bytes",
        ));
    } else if !NAME.is_match(name) {
        errors.push(FieldError::invalid("metadata.name", format!("\"{name}\""), SUBDOMAIN));
    }
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        if !KEY.is_match(key) {
            errors.push(FieldError::invalid("metadata.labels", format!("\"{key}\""), QUALIFIED));
        }
        let text = value.as_str().unwrap_or_default();
        if text.len() > 63 {
            errors.push(FieldError::invalid(
                "metadata.labels",
                value,
                "must be no more than 63 bytes",
            ));
        } else if !VALUE.is_match(text) {
            errors.push(FieldError::invalid("metadata.labels", value, LABEL_VALUE));
        }
    }
    for key in object["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
    {
        if !KEY.is_match(key) {
            errors.push(FieldError::invalid(
                "metadata.annotations",
                format!("\"{key}\""),
                QUALIFIED,
            ));
        }
    }
    for (index, owner) in owner_references(object).iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                let at = format!("metadata.ownerReferences[{index}].{field}");
                errors.push(FieldError::required(at, "must not be empty"));
            }
        }
    }
    for finalizer in finalizers(object).iter().filter(|finalizer| !KEY.is_match(finalizer)) {
        errors.push(FieldError::invalid(
            "metadata.finalizers",
            format!("\"{finalizer}\""),
            QUALIFIED,
        ));
    }
    if let Some(schema) = &resource.schema {
        errors.extend(match part {
            Part::Main => schema.validate(object, ""),
            Part::Status => schema.validate_status(&object["status"]),
        });
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(status::invalid(resource, name, errors))
    }
}

/// Which part of an object an endpoint writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// The object itself: all but `status`, where that has an endpoint of its own.
    Main,
    /// `/status`: nothing but `status`.
    Status,
}

/// What an update comes to: `new` with everything it may not change taken from `live`.
pub fn carry_over(resource: &Resource, live: &Value, new: Value, part: Part) -> Value {
    let mut result = match part {
        Part::Main => new,
        Part::Status => {
            let mut whole = live.clone();
            put_or_remove(&mut whole, "status", new.get("status").cloned());
            whole["metadata"]["resourceVersion"] = new["metadata"]["resourceVersion"].clone();
            return whole;
        }
    };
    if resource.status {
        put_or_remove(&mut result, "status", live.get("status").cloned());
    }
    for field in SYSTEM_FIELDS {
        put_or_remove(&mut result["metadata"], field, live["metadata"].get(field).cloned());
    }
    result
}

fn put_or_remove(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    match value {
        Some(value) => fields.insert(field.to_owned(), value),
        None => fields.remove(field),
    };
}

/// Is it a change that `metadata.generation` counts: of neither metadata nor, where it is separate, status?
pub fn changes_generation(resource: &Resource, live: &Value, new: &Value) -> bool {
    let counted = |object: &Value| {
        let mut object = object.clone();
        put_or_remove(&mut object, "metadata", None);
        if resource.status {
            put_or_remove(&mut object, "status", None);
        }
        object
    };
    resource.generation && counted(live) != counted(new)
}

/// New finalizers on an object that is being deleted are wrong.
fn late_finalizers(live: &Value, new: &Value) -> Option<FieldError> {
    let had = finalizers(live);
    let added: Vec<String> = finalizers(new).into_iter().filter(|f| !had.contains(f)).collect();
    if !is_terminating(live) || added.is_empty() {
        return None;
    }
    let listed: Vec<String> = added.iter().map(|f| format!("\"{f}\"")).collect();
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        listed.join(", ")
    );
    Some(FieldError::forbidden("metadata.finalizers", why))
}
