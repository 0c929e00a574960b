//! The vectors that a real API server is held to as well.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use crate::engine::expression::{Expression, Scope};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    expr: String,
    #[serde(default)]
    scope: BTreeMap<String, Json>,
    #[serde(default, deserialize_with = "present")]
    value: Option<Json>,
    #[serde(default)]
    error: bool,
    #[serde(default)]
    #[allow(dead_code)]
    beyond: bool,
}

/// Tells a null from nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

#[test]
fn the_evaluator_gives_what_the_vectors_say() {
    let vectors: Vec<Vector> = serde_yaml::from_str(include_str!("../../../../tests/vectors/cel.yaml")).unwrap();
    let mut wrong = Vec::new();
    for vector in &vectors {
        let scope = vector
            .scope
            .iter()
            .fold(Scope::new(), |scope, (name, value)| scope.with(name, value.clone()));
        let result = Expression::parse(&vector.expr).and_then(|expression| expression.evaluate(&scope));
        match (&result, &vector.value, vector.error) {
            (Ok(result), Some(value), false) if result == value => {}
            (Err(_), None, true) => {}
            (_, Some(_), true) | (_, None, false) => wrong.push(format!("{}: either a value or an error", vector.expr)),
            _ => wrong.push(format!("{}: expected {:?}, got {result:?}", vector.expr, vector.value)),
        }
    }
    assert!(vectors.len() > 500, "only {} vectors", vectors.len());
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        vectors.len(),
        wrong.join("\n")
    );
}
