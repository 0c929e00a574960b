//! Server-side apply reads what it is given by its schema first; what doesn't fit is an error of its own, a 500.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::schema::{Merge, Schema};

/// What doesn't fit of a whole object, if anything: the first place and why.
pub fn mismatch(schema: &Schema, object: &Value) -> Option<String> {
    let fields = object.as_object()?.iter();
    let mut own = fields.filter(|(name, _)| !["apiVersion", "kind", "metadata"].contains(&name.as_str()));
    own.find_map(|(name, field)| in_field(schema, name, field, ""))
}

fn in_field(schema: &Schema, name: &str, field: &Value, path: &str) -> Option<String> {
    let at = format!("{path}.{name}");
    match schema.field(name) {
        Some(schema) => in_value(schema, field, &at),
        None => (!schema.is_open()).then(|| format!("{at}: field not declared in schema")),
    }
}

fn in_value(schema: &Schema, value: &Value, path: &str) -> Option<String> {
    let plain = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let got = match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int",
        _ => "map or list",
    };
    match (schema.type_name(), value) {
        (_, Value::Null) => None,
        ("object", Value::Object(fields)) => fields
            .iter()
            .find_map(|(name, field)| in_field(schema, name, field, path)),
        ("array", Value::Array(entries)) => in_list(schema, entries, path),
        ("object", _) => Some(format!("{path}: expected map, got &{{{plain}}}")),
        ("array", _) => Some(format!("{path}: expected list, got &{{{plain}}}")),
        ("string", Value::String(_)) | ("boolean", Value::Bool(_)) | ("integer" | "number", Value::Number(_)) => None,
        ("string", _) => Some(format!(
            "{path}: expected string, got &value.valueUnstructured{{Value:{plain}}}"
        )),
        ("boolean", _) => Some(format!(
            "{path}: expected boolean, got &value.valueUnstructured{{Value:{plain}}}"
        )),
        ("integer" | "number", _) => Some(format!("{path}: expected numeric (int or float), got {got}")),
        _ => None,
    }
}

fn in_list(schema: &Schema, entries: &[Value], path: &str) -> Option<String> {
    let how = schema.merge();
    let mut seen = BTreeSet::new();
    for (index, entry) in entries.iter().enumerate() {
        let name = match &how {
            Merge::Set => format!("[={entry}]"),
            Merge::ByKeys(keys) => {
                let known = keys.iter().filter_map(|key| Some(format!("{key}={}", entry.get(key)?)));
                let known: Vec<String> = known.collect();
                if known.is_empty() {
                    return Some(format!(
                        "{path}: element {index}: associative list with keys has an element that omits all key fields {keys:?} (and doesn't have default values for any key fields)"
                    ));
                }
                format!("[{}]", known.join(","))
            }
            Merge::Atomic | Merge::Fields => format!("[{index}]"),
        };
        if !seen.insert(name.clone()) {
            return Some(format!("{path}: duplicate entries for key {name}"));
        }
        if let Some(why) = schema
            .entry()
            .and_then(|schema| in_value(schema, entry, &format!("{path}{name}")))
        {
            return Some(why);
        }
    }
    None
}
