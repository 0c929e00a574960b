//! A document against the rules that the schema has, evaluated as the API server does it.

use serde_json::Value;

use crate::api::IF_NEW;
use crate::engine::expression::{Expression, Scope, is_cel_word};

/// Adds what breaks a rule of this schema, or of one within it. Rules on changes say nothing of a new object.
pub fn check(schema: &Value, value: &Value, field: &str, problems: &mut Vec<(String, String)>) {
    if value.is_null() {
        return;
    }
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let text = |name: &str| rule[name].as_str().unwrap_or_default();
        let rule = text("rule").strip_prefix(IF_NEW).unwrap_or(text("rule"));
        if !rule.contains("oldSelf") && is_broken(rule, value) {
            let place = format!("{field}{}", text("fieldPath"));
            problems.push((place.trim_start_matches('.').to_owned(), text("message").to_owned()));
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let known = schema["properties"].get(name).or(schema.get("additionalProperties"));
                let field = if field.is_empty() {
                    name.clone()
                } else {
                    format!("{field}.{name}")
                };
                if let Some(schema) = known {
                    check(schema, value, &field, problems);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{field}[{index}]"), problems);
            }
        }
        _ => {}
    }
}

/// True if the rule is surely broken. Where it can't be evaluated, the value has another type than it should, which the
/// schema says better.
fn is_broken(rule: &str, value: &Value) -> bool {
    let scope = Scope::new().with("self", escaped(value));
    let holds = Expression::parse(rule).and_then(|rule| rule.evaluate_bool(&scope));
    holds == Ok(false)
}

/// A value with its fields named as rules name them: one that is called like a word of the language has underscores.
fn escaped(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let name = if is_cel_word(name) {
                    format!("__{name}__")
                } else {
                    name.clone()
                };
                (name, escaped(value))
            };
            Value::Object(fields.iter().map(field).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(escaped).collect()),
        other => other.clone(),
    }
}
