//! The vectors of expressions, and how a real API server is made to evaluate one.
//!
//! A `MutatingAdmissionPolicy` puts the expression's value into an object that is created as a dry run. Its variables are
//! literals bound by a macro, `[dyn({...})].map(input, <expression>)[0]`, so that the expression stands as it is; each
//! value in the literals is `dyn(...)`, so that they have no types before the expression runs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

/// The group of the objects that the policies write to.
pub const GROUP: &str = "e2e.holdfast.dev";
/// Marks everything that belongs to this.
pub const LABEL: &str = "e2e.holdfast.dev/cel-vector";

/// An entry of tests/vectors/cel.yaml.
#[derive(Clone, Debug, Deserialize)]
pub struct Vector {
    /// The expression.
    pub expr: String,
    /// Its variables.
    #[serde(default)]
    pub scope: BTreeMap<String, Value>,
    /// Its value; else it is an error.
    #[serde(default, deserialize_with = "present")]
    pub value: Option<Value>,
    /// The API server refuses it, so the value is Holdfast's alone.
    #[serde(default)]
    pub beyond: bool,
}

/// Tells a null from nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// All vectors.
///
/// # Panics
/// If the file is not as it should be.
pub fn vectors() -> Vec<Vector> {
    serde_yaml::from_str(include_str!("../../tests/vectors/cel.yaml")).unwrap()
}

impl Vector {
    /// The expression with its variables around it.
    fn bound(&self) -> String {
        self.scope.iter().fold(self.expr.clone(), |inner, (name, value)| {
            // On lines of its own, as it may end with a comment.
            format!("[{}].map({name},\n{inner}\n)[0]", literal(value))
        })
    }

    /// A policy that evaluates the vector for objects with this number as label, and puts type and value into `result`.
    pub fn policy(&self, number: usize) -> Value {
        let types = [
            "int",
            "uint",
            "double",
            "string",
            "bool",
            "null_type",
            "bytes",
            "list",
            "map",
        ];
        let type_name = types.iter().rfold("'other'".to_owned(), |otherwise, name| {
            format!("type(dyn(variables.result)) == {name} ? '{name}' : {otherwise}")
        });
        // JSON numbers are doubles on their way to the patch, so integers go as text.
        let value = "type(dyn(variables.result)) == int || type(dyn(variables.result)) == uint \
            ? dyn(string(dyn(variables.result))) : dyn(variables.result)";
        let patch =
            format!("[JSONPatch{{op: 'add', path: '/result', value: {{'type': dyn({type_name}), 'value': {value}}}}}]");
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name(number), "labels": {LABEL: number.to_string()}},
            "spec": {
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "matchConstraints": {
                    "resourceRules": [{
                        "apiGroups": [GROUP], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["celvectors"],
                    }],
                    "objectSelector": {"matchLabels": {LABEL: number.to_string()}},
                },
                "variables": [{"name": "result", "expression": self.bound()}],
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
            },
        })
    }

    /// Whether what the API server answered is what the vector says.
    pub fn agrees(&self, answer: &Answer) -> bool {
        match (answer, &self.value) {
            (Answer::Refused(_) | Answer::Failed(_), Some(_)) => self.beyond,
            (Answer::Refused(_) | Answer::Failed(_), None) => true,
            (Answer::Value { .. }, None) => false,
            (Answer::Value { .. }, Some(_)) if self.beyond => false,
            (Answer::Value { type_name, value }, Some(expected)) => match (type_name.as_str(), expected) {
                ("int" | "uint", Value::Number(n)) => !n.is_f64() && *value == json!(n.to_string()),
                ("int" | "uint", _) => false,
                ("double", Value::Number(n)) => n.is_f64() && same(value, expected),
                ("double", _) => false,
                _ => same(value, expected),
            },
        }
    }
}

/// What the API server made of a vector.
#[derive(Debug)]
pub enum Answer {
    /// Its compiler refused the policy.
    Refused(String),
    /// The evaluation failed.
    Failed(String),
    /// A value; an integer as text.
    Value { type_name: String, value: Value },
}

/// The name of a vector's policy and of its binding.
pub fn name(number: usize) -> String {
    format!("holdfast-cel-vector-{number}")
}

/// What puts the policy in force.
pub fn binding(number: usize) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name(number), "labels": {LABEL: number.to_string()}},
        "spec": {"policyName": name(number)},
    })
}

/// The object whose creation makes the API server evaluate a vector.
pub fn object(number: usize) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "CelVector",
        "metadata": {"name": name(number), "labels": {LABEL: number.to_string()}},
    })
}

/// The kind of that object.
pub fn crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("celvectors.{GROUP}")},
        "spec": {
            "group": GROUP,
            "names": {"kind": "CelVector", "plural": "celvectors", "singular": "celvector"},
            "scope": "Cluster",
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

/// Equal, where numbers inside of a value need not have the same type: it has been lost on the way.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// A JSON value as a CEL literal without types.
fn literal(value: &Value) -> String {
    let literal = match value {
        // The escapes of JSON are CEL's.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(list) => format!("[{}]", list.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let entries = map
                .iter()
                .map(|(key, value)| format!("{}: {}", json!(key), literal(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    };
    format!("dyn({literal})")
}
