//! A document against the schema that the API server has of it.

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::{Value, json};

use crate::cli::CliError;
use crate::cli::values::kind;

/// The schema of a kind, as its definition has it.
fn of(kind: &str) -> Value {
    let crds = crate::api::crds();
    let crd = crds.into_iter().find(|crd| crd.spec.names.kind == kind);
    let version = crd.and_then(|crd| crd.spec.versions.into_iter().next());
    let schema = version.and_then(|version| version.schema?.open_api_v3_schema);
    let mut schema = serde_json::to_value(schema).unwrap_or_default();
    // What every object has is in no definition.
    if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        fields.insert(
            "apiVersion".into(),
            json!({"type": "string", "enum": ["holdfast.dev/v1alpha1"]}),
        );
        fields.insert("kind".into(), json!({"type": "string"}));
        fields.insert("metadata".into(), metadata());
    }
    schema
}

/// What people write of an object's metadata, and what a server adds, as far as a file can tell that it is wrong
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>).
fn metadata() -> Value {
    let any = json!({"x-kubernetes-preserve-unknown-fields": true});
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    json!({"type": "object", "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"},
        "generateName": {"type": "string"},
        "namespace": {"type": "string"},
        "labels": texts,
        "annotations": texts,
        "finalizers": {"type": "array", "items": {"type": "string"}},
        "ownerReferences": any,
        "uid": any, "resourceVersion": any, "generation": any, "creationTimestamp": any, "deletionTimestamp": any,
        "deletionGracePeriodSeconds": any, "selfLink": any, "managedFields": any,
    }})
}

/// What checks documents against the schema.
pub struct Checker {
    schema: Value,
    validator: jsonschema::Validator,
}

impl Checker {
    /// Of a kind.
    ///
    /// # Errors
    /// When its schema can't be used.
    pub fn new(kind: &str) -> Result<Self, CliError> {
        let schema = of(kind);
        let mut strict = schema.clone();
        make_strict(&mut strict);
        let unusable = |error| CliError::Usage(format!("the schema of {kind} can't be used: {error}"));
        let validator = jsonschema::validator_for(&strict).map_err(unusable)?;
        Ok(Self { schema, validator })
    }

    /// The schema as its definition has it, with its rules.
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// What of a document doesn't conform: fields and messages.
    pub fn check(&self, document: &Value) -> Vec<(String, String)> {
        let errors = self.validator.iter_errors(document);
        errors
            .flat_map(|error| problems(&self.schema, document, &error))
            .collect()
    }
}

/// From a schema as Kubernetes has it to a JSON Schema that means the same: fields that aren't named aren't allowed, and a
/// null is as good as absent.
fn make_strict(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    let is = |map: &serde_json::Map<String, Value>, flag: &str| map.get(flag) == Some(&Value::Bool(true));
    if is(map, "x-kubernetes-int-or-string") {
        map.insert("type".into(), json!(["integer", "string", "null"]));
    } else if let Some(name) = map.get("type").and_then(Value::as_str) {
        let types = json!([name, "null"]);
        map.insert("type".into(), types);
    }
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.push(Value::Null);
    }
    let open = is(map, "x-kubernetes-preserve-unknown-fields") || map.contains_key("additionalProperties");
    if map.contains_key("properties") && !open {
        map.insert("additionalProperties".into(), json!(false));
    }
    for fields in map.get_mut("properties").and_then(Value::as_object_mut).into_iter() {
        fields.values_mut().for_each(make_strict);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(inner) {
            make_strict(inner);
        }
    }
}

/// The part of a schema that is about a place in a document.
fn schema_at<'a>(schema: &'a Value, pointer: &str) -> Option<&'a Value> {
    pointer.split('/').skip(1).try_fold(schema, |schema, part| {
        let field = schema.get("properties").and_then(|fields| fields.get(unescaped(part)));
        field.or(schema.get("items")).or(schema.get("additionalProperties"))
    })
}

fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// A place in a document, as people write it: `spec.steps[2].http.url`.
fn field(document: &Value, pointer: &str) -> String {
    let mut text = String::new();
    let mut value = Some(document);
    for part in pointer.split('/').skip(1).map(unescaped) {
        if let Some(Value::Array(list)) = value {
            text.push_str(&format!("[{part}]"));
            value = part.parse::<usize>().ok().and_then(|index| list.get(index));
        } else {
            text = within(&text, &part);
            value = value.and_then(|value| value.get(&part));
        }
    }
    text
}

fn within(field: &str, name: &str) -> String {
    if field.is_empty() {
        name.to_owned()
    } else {
        format!("{field}.{name}")
    }
}

fn problems(schema: &Value, document: &Value, error: &ValidationError) -> Vec<(String, String)> {
    let pointer = error.instance_path().as_str();
    let at = field(document, pointer);
    use ValidationErrorKind::*;
    let message = match error.kind() {
        AdditionalProperties { unexpected } => {
            let known = schema_at(schema, pointer).and_then(|schema| schema.get("properties")?.as_object());
            let known: Vec<&str> = known
                .map(|fields| fields.keys().map(String::as_str).collect())
                .unwrap_or_default();
            let unknown = |name: &String| (within(&at, name), format!("unknown field{}", suggestion(name, &known)));
            return unexpected.iter().map(unknown).collect();
        }
        Required { property } => format!("{} is missing", property.as_str().unwrap_or_default()),
        Type { kind: types } => {
            let name = |name: String| match name.as_str() {
                "integer" => "a number".to_owned(),
                "number" => "a number".to_owned(),
                "string" => "text".to_owned(),
                "boolean" => "true or false".to_owned(),
                "array" => "a list".to_owned(),
                "object" => "an object".to_owned(),
                _ => name,
            };
            let types: Vec<String> = match types {
                TypeKind::Single(one) => vec![name(one.to_string())],
                TypeKind::Multiple(several) => several
                    .iter()
                    .map(|one| one.to_string())
                    .filter(|one| one != "null")
                    .map(name)
                    .collect(),
            };
            format!("must be {}, not {}", types.join(" or "), kind(error.instance()))
        }
        Enum { options } => {
            let options = options.as_array().into_iter().flatten().filter_map(Value::as_str);
            format!("must be one of {}", options.collect::<Vec<_>>().join(", "))
        }
        Pattern { pattern } => format!("must match {pattern}"),
        MinLength { .. } => "must not be empty".into(),
        MaxLength { limit } => format!("must have at most {limit} characters"),
        MinItems { limit } => format!("must have at least {limit} entries"),
        MaxItems { limit } => format!("must have at most {limit} entries"),
        MinProperties { limit } => format!("must have at least {limit} fields"),
        MaxProperties { limit } => format!("must have at most {limit} fields"),
        Minimum { limit } => format!("must be at least {limit}"),
        Maximum { limit } => format!("must be at most {limit}"),
        _ => error.masked_with("it").to_string(),
    };
    vec![(at, message)]
}

/// What else may be meant by a name that isn't known.
pub fn suggestion(name: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known));
    match near.min() {
        Some((distance, known)) if distance <= 1 + name.len() / 4 => format!("; did you mean {known}?"),
        _ if known.is_empty() => String::new(),
        _ => format!("; there are {}", known.join(", ")),
    }
}
