//! In which fields two values differ.

use serde::Serialize;
use serde_json::Value;

use super::table::{cut, one_line};

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The field: `spec.replicas`, `spec.template.spec.containers[0].image`.
    pub field: String,
    /// What was there, or was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What is there instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// What is said of fields that the first value doesn't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They differ.
    Differ,
    /// Nothing: the first value says only what matters.
    AreFine,
}

/// The fields in which the second value differs from the first, in the order of their names.
pub fn differences(from: &Value, to: &Value, others: Others) -> Vec<Difference> {
    let mut found = vec![];
    compare("", Some(from), Some(to), others, &mut found);
    found
}

fn compare(field: &str, from: Option<&Value>, to: Option<&Value>, others: Others, found: &mut Vec<Difference>) {
    match (from, to) {
        (Some(Value::Object(from)), Some(Value::Object(to))) => {
            for (name, value) in from {
                compare(&within(field, name), Some(value), to.get(name), others, found);
            }
            for (name, value) in to.iter().filter(|(name, _)| !from.contains_key(*name)) {
                if others == Others::Differ {
                    compare(&within(field, name), None, Some(value), others, found);
                }
            }
        }
        (Some(Value::Array(from)), Some(Value::Array(to))) => {
            for index in 0..from.len().max(to.len()) {
                let field = format!("{field}[{index}]");
                compare(&field, from.get(index), to.get(index), others, found);
            }
        }
        (from, to) if from == to => {}
        (from, to) => found.push(Difference {
            field: field.to_owned(),
            from: from.cloned(),
            to: to.cloned(),
        }),
    }
}

fn within(field: &str, name: &str) -> String {
    match (field, name.contains(['.', '/'])) {
        (_, true) => format!("{field}[{name}]"),
        ("", false) => name.to_owned(),
        (_, false) => format!("{field}.{name}"),
    }
}

/// A value, short enough to stand in a line; `none` where there is none.
pub fn short(value: Option<&Value>) -> String {
    value.map_or("none".to_owned(), |value| cut(&one_line(&value.to_string()), 60))
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { field, from, to } = self;
        write!(f, "{field} {} → {}", short(from.as_ref()), short(to.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(from: Value, to: Value, others: Others) -> Vec<String> {
        let found = differences(&from, &to, others);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_field_is_named() {
        let from = json!({"a": 1, "list": [{"x": 1}, 2], "gone": {"deep": true}, "same": [1]});
        let to = json!({"a": 2, "list": [{"x": 3}], "new": "n", "same": [1]});
        assert_eq!(
            said(from.clone(), to.clone(), Others::Differ),
            [
                "a 1 → 2",
                "gone {\"deep\":true} → none",
                "list[0].x 1 → 3",
                "list[1] 2 → none",
                "new none → \"n\""
            ]
        );
        assert_eq!(said(from, to, Others::AreFine).len(), 4);
    }
}
