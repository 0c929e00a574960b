//! Structural schemas of custom resources: pruning, defaulting and validation.
//!
//! CEL rules (`x-kubernetes-validations`) are not evaluated: what they refuse, this server accepts.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::status::FieldError;

/// The part of OpenAPI v3 that structural schemas use.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Schema {
    r#type: Option<String>,
    properties: BTreeMap<String, Schema>,
    additional_properties: Option<Additional>,
    items: Option<Box<Schema>>,
    required: BTreeSet<String>,
    r#enum: Option<Vec<Value>>,
    nullable: bool,
    default: Option<Value>,
    format: Option<String>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    min_length: Option<u64>,
    max_length: Option<u64>,
    #[serde(deserialize_with = "pattern")]
    pattern: Option<Regex>,
    min_items: Option<u64>,
    max_items: Option<u64>,
    min_properties: Option<u64>,
    max_properties: Option<u64>,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    preserve_unknown: bool,
    #[serde(rename = "x-kubernetes-embedded-resource")]
    embedded: bool,
    #[serde(rename = "x-kubernetes-int-or-string")]
    int_or_string: bool,
    #[serde(rename = "x-kubernetes-list-type")]
    list_type: Option<String>,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    list_map_keys: Vec<String>,
    #[serde(rename = "x-kubernetes-map-type")]
    map_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Additional {
    Any(bool),
    Schema(Box<Schema>),
}

fn pattern<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Regex>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| Regex::new(&text).map_err(serde::de::Error::custom))
        .transpose()
}

/// How server-side apply merges a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Merge {
    /// Field by field; the entries of lists are not its matter.
    Fields,
    /// As a whole.
    Atomic,
    /// A list of scalars without order.
    Set,
    /// A list whose entries are known by these fields.
    ByKeys(Vec<String>),
}

impl Schema {
    /// Reads a version's `openAPIV3Schema`; the error says what can't be understood.
    pub fn new(schema: &Value) -> Result<Self, String> {
        Self::deserialize(schema).map_err(|e| e.to_string())
    }

    /// The schema of a field of an object.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(match &self.additional_properties {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        })
    }

    /// The type that it says: none for int-or-string.
    pub fn type_name(&self) -> &str {
        self.r#type.as_deref().unwrap_or_default()
    }

    /// Does it keep fields that it doesn't name?
    pub fn is_open(&self) -> bool {
        self.preserve_unknown
    }

    /// The schema of a list's entries.
    pub fn entry(&self) -> Option<&Schema> {
        self.items.as_deref()
    }

    /// How server-side apply merges a value of this schema.
    pub fn merge(&self) -> Merge {
        match (self.r#type.as_deref(), self.list_type.as_deref()) {
            (Some("array"), Some("map")) => Merge::ByKeys(self.list_map_keys.clone()),
            (Some("array"), Some("set")) => Merge::Set,
            (Some("array"), _) => Merge::Atomic,
            _ if self.map_type.as_deref() == Some("atomic") => Merge::Atomic,
            _ => Merge::Fields,
        }
    }

    /// Removes what the schema doesn't name, from a whole object.
    pub fn prune_object(&self, object: &mut Value) {
        self.prune(object, true);
    }

    fn prune(&self, value: &mut Value, whole: bool) {
        match value {
            Value::Object(fields) => {
                let any = self.preserve_unknown || matches!(self.additional_properties, Some(Additional::Any(true)));
                fields.retain(|name, field| {
                    if whole && ["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
                        return true;
                    }
                    match self.field(name) {
                        Some(schema) => {
                            schema.prune(field, schema.embedded);
                            true
                        }
                        None => any,
                    }
                });
            }
            Value::Array(entries) => {
                if let Some(schema) = self.entry() {
                    entries
                        .iter_mut()
                        .for_each(|entry| schema.prune(entry, schema.embedded));
                }
            }
            _ => {}
        }
    }

    /// Drops nulls where the schema doesn't allow them, then fills in the defaults.
    pub fn fill_defaults(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, field| !field.is_null() || self.field(name).is_none_or(|s| s.nullable));
                for (name, schema) in &self.properties {
                    if let Some(default) = &schema.default {
                        fields.entry(name.clone()).or_insert_with(|| default.clone());
                    }
                }
                for (name, field) in fields {
                    if let Some(schema) = self.field(name) {
                        schema.fill_defaults(field);
                    }
                }
            }
            Value::Array(entries) => {
                if let Some(schema) = self.entry() {
                    entries.iter_mut().for_each(|entry| schema.fill_defaults(entry));
                }
            }
            _ => {}
        }
    }

    /// All that is wrong with a value; `path` is where it is, empty for the whole object.
    pub fn validate(&self, value: &Value, path: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if value.is_null() && self.nullable {
            return errors;
        }
        if !self.has_type(value) {
            let expected = if self.int_or_string {
                "integer,string"
            } else {
                self.r#type.as_deref().unwrap_or("")
            };
            errors.push(FieldError::wrong_type(path, type_of(value), expected));
            return errors;
        }
        if let Some(allowed) = &self.r#enum
            && !allowed.contains(value)
        {
            let supported: Vec<String> = allowed.iter().map(Value::to_string).collect();
            errors.push(FieldError::unsupported(path, &value.to_string(), &supported));
        }
        match value {
            Value::Object(fields) => self.validate_object(fields, path, &mut errors),
            Value::Array(entries) => self.validate_list(entries, path, &mut errors),
            Value::String(text) => self.validate_text(text, path, &mut errors),
            Value::Number(_) => self.validate_number(value, path, &mut errors),
            Value::Bool(_) | Value::Null => {}
        }
        self.validate_combinations(value, path, &mut errors);
        errors
    }

    fn has_type(&self, value: &Value) -> bool {
        if self.int_or_string {
            return value.is_string() || value.is_i64() || value.is_u64();
        }
        match self.r#type.as_deref() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("number") => value.is_number(),
            Some("integer") => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            _ => true,
        }
    }

    fn validate_object(&self, fields: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
        if let Some(max) = self.max_properties
            && fields.len() as u64 > max
        {
            errors.push(FieldError::too_many(path, fields.len(), max));
        }
        if let Some(min) = self.min_properties
            && (fields.len() as u64) < min
        {
            let why = format!("{path} in body should have at least {min} properties");
            errors.push(FieldError::invalid(path, fields.len(), why));
        }
        for name in self.required.iter().filter(|name| !fields.contains_key(*name)) {
            errors.push(FieldError::required(join(path, name), ""));
        }
        for (name, field) in fields {
            if let Some(schema) = self.field(name) {
                errors.extend(schema.validate(field, &join(path, name)));
            }
        }
    }

    fn validate_list(&self, entries: &[Value], path: &str, errors: &mut Vec<FieldError>) {
        if let Some(max) = self.max_items
            && entries.len() as u64 > max
        {
            errors.push(FieldError::too_many(path, entries.len(), max));
        }
        if let Some(min) = self.min_items
            && (entries.len() as u64) < min
        {
            let why = format!("{path} in body should have at least {min} items");
            errors.push(FieldError::invalid(path, entries.len(), why));
        }
        let mut seen = BTreeSet::new();
        for (index, entry) in entries.iter().enumerate() {
            let at = format!("{path}[{index}]");
            if let Some(identity) = self.identity(entry)
                && !seen.insert(identity.to_string())
            {
                errors.push(FieldError::duplicate(&at, &identity));
            }
            if let Some(schema) = self.entry() {
                errors.extend(schema.validate(entry, &at));
            }
        }
    }

    /// What makes an entry of a set or map-list unique.
    fn identity(&self, entry: &Value) -> Option<Value> {
        match self.merge() {
            Merge::Set => Some(entry.clone()),
            Merge::ByKeys(keys) => Some(
                keys.iter()
                    .filter_map(|key| Some((key.clone(), entry.get(key)?.clone())))
                    .collect(),
            ),
            Merge::Atomic | Merge::Fields => None,
        }
    }

    fn validate_text(&self, text: &str, path: &str, errors: &mut Vec<FieldError>) {
        let quoted = || Value::from(text).to_string();
        let characters = text.chars().count() as u64;
        if let Some(max) = self.max_length
            && characters > max
        {
            errors.push(FieldError::too_long(path, max));
        }
        if let Some(min) = self.min_length
            && characters < min
        {
            errors.push(FieldError::invalid(
                path,
                quoted(),
                format!("{path} in body should be at least {min} chars long"),
            ));
        }
        if let Some(pattern) = &self.pattern
            && !pattern.is_match(text)
        {
            errors.push(FieldError::invalid(
                path,
                quoted(),
                format!("{path} in body should match '{pattern}'"),
            ));
        }
        if self.format.as_deref() == Some("date-time") && text.parse::<Timestamp>().is_err() {
            errors.push(FieldError::wrong_type(path, text, "date-time"));
        }
    }

    fn validate_number(&self, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
        let number = value.as_f64().unwrap_or_default();
        if let Some(max) = self.maximum
            && number > max
        {
            errors.push(FieldError::invalid(
                path,
                value,
                format!("{path} in body should be less than or equal to {max}"),
            ));
        }
        if let Some(min) = self.minimum
            && number < min
        {
            let why = format!("{path} in body should be greater than or equal to {min}");
            errors.push(FieldError::invalid(path, value, why));
        }
        if self.format.as_deref() == Some("int32") && (number > f64::from(i32::MAX) || number < f64::from(i32::MIN)) {
            let why = format!("Checked value must be of type integer with format int32 in {path}");
            errors.push(FieldError::invalid("<nil>", "\"\"", why));
        }
    }

    fn validate_combinations(&self, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
        let passes = |schema: &&Schema| schema.validate(value, path).is_empty();
        let wrong = |why: &str| FieldError::invalid("<nil>", "\"\"", format!("\"{path}\" must {why}"));
        if let Some(first) = self.any_of.first()
            && !self.any_of.iter().any(|schema| passes(&schema))
        {
            errors.push(wrong("validate at least one schema (anyOf)"));
            errors.extend(first.validate(value, path));
        }
        let matching = self.one_of.iter().filter(passes).count();
        if let Some(first) = self.one_of.first()
            && matching != 1
        {
            let only_one = "validate one and only one schema (oneOf).";
            if matching == 0 {
                errors.push(wrong(&format!("{only_one} Found none valid")));
                errors.extend(first.validate(value, path));
            } else {
                errors.push(wrong(&format!("{only_one} Found {matching} valid alternatives")));
            }
        }
        if self.not.as_deref().is_some_and(|schema| passes(&schema)) {
            errors.push(wrong("not validate the schema (not)"));
        }
        for schema in &self.all_of {
            errors.extend(schema.validate(value, path));
        }
    }

    /// All that is wrong with a custom resource's status, which is validated on its own.
    pub fn validate_status(&self, status: &Value) -> Vec<FieldError> {
        let errors = self
            .field("status")
            .filter(|_| !status.is_null())
            .map(|schema| schema.validate(status, ""));
        errors
            .into_iter()
            .flatten()
            .map(|error| error.within("status"))
            .collect()
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        Schema::new(&json!({"type": "object", "properties": {"spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "maximum": 10},
                "mode": {"type": "string", "default": "Fast", "enum": ["Fast", "Slow"]},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "port": {"x-kubernetes-int-or-string": true},
                "steps": {"type": "array", "maxItems": 2, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^[a-z]+$"}},
                        "oneOf": [{"required": ["name"]}, {"required": ["none"]}]}},
            }}}}))
        .unwrap()
    }

    #[test]
    fn what_the_schema_does_not_name_is_pruned() {
        let mut object = json!({"kind": "X", "metadata": {"name": "a"}, "other": 1,
            "spec": {"size": 1, "more": 2, "free": {"any": {"thing": 1}}, "steps": [{"name": "a", "x": 1}]}});
        schema().prune_object(&mut object);
        assert_eq!(
            object,
            json!({"kind": "X", "metadata": {"name": "a"},
                "spec": {"size": 1, "free": {"any": {"thing": 1}}, "steps": [{"name": "a"}]}})
        );
    }

    #[test]
    fn defaults_are_filled_in_also_for_null() {
        let mut object = json!({"spec": {"size": 1, "mode": null, "port": null}});
        schema().fill_defaults(&mut object);
        assert_eq!(object, json!({"spec": {"size": 1, "mode": "Fast"}}));
    }

    #[test]
    fn every_wrong_field_is_reported() {
        let errors = schema().validate(
            &json!({"spec": {"size": 11, "mode": "Odd", "port": true, "steps": [{"name": "a"}, {"name": "a"}, {"name": "B"}]}}),
            "",
        );
        assert_eq!(
            errors,
            vec![
                FieldError::unsupported("spec.mode", "\"Odd\"", &["\"Fast\"".into(), "\"Slow\"".into()]),
                FieldError::wrong_type("spec.port", "boolean", "integer,string"),
                FieldError::invalid("spec.size", 11, "spec.size in body should be less than or equal to 10"),
                FieldError::too_many("spec.steps", 3, 2),
                FieldError::duplicate("spec.steps[1]", json!({"name": "a"})),
                FieldError::invalid(
                    "spec.steps[2].name",
                    "\"B\"",
                    "spec.steps[2].name in body should match '^[a-z]+$'"
                ),
            ]
        );
        assert_eq!(
            schema().validate(&json!({"spec": {}}), ""),
            vec![FieldError::required("spec.size", "")]
        );
    }
}
