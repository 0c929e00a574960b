//! Label and field selectors.

use std::collections::BTreeMap;

use kube::core::{Expression, Selector, SelectorExt};
use serde_json::Value;

use crate::{
    resources::Resource,
    status::{self, Result},
};

/// Which objects a list, watch or deletecollection is about.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    labels: Selector,
    /// Path, value, and whether they must be equal.
    fields: Vec<(String, String, bool)>,
}

impl Filter {
    /// Reads both selectors; an empty one selects everything.
    pub fn new(resource: &Resource, labels: &str, fields: &str) -> Result<Self> {
        let labels = label_selector(labels)?;
        let mut parsed = Vec::new();
        for term in fields.split(',').filter(|term| !term.trim().is_empty()) {
            let (path, value, equal) = match (term.split_once("!="), term.split_once("=")) {
                (Some((path, value)), _) => (path, value, false),
                (None, Some((path, value))) => (path, value.trim_start_matches('='), true),
                (None, None) => {
                    return Err(status::bad_request(format!(
                        "invalid selector: '{fields}'; can't understand '{term}'"
                    )));
                }
            };
            let path = path.trim();
            if !["metadata.name", "metadata.namespace"].contains(&path)
                && !resource.selectable.iter().any(|s| s == path)
            {
                return Err(status::bad_request(format!("field label not supported: {path}")));
            }
            parsed.push((path.to_owned(), value.trim().to_owned(), equal));
        }
        Ok(Self { labels, fields: parsed })
    }

    /// Does it select this object?
    pub fn matches(&self, object: &Value) -> bool {
        self.labels.matches(&labels_of(object))
            && self
                .fields
                .iter()
                .all(|(path, value, equal)| (text_at(object, path) == *value) == *equal)
    }
}

/// The labels of an object.
pub fn labels_of(object: &Value) -> BTreeMap<String, String> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    labels
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect()
}

fn text_at(object: &Value, path: &str) -> String {
    let pointer = format!("/{}", path.replace('.', "/"));
    match object.pointer(&pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
fn label_selector(text: &str) -> Result<Selector> {
    let mut expressions = Vec::new();
    for term in split_terms(text) {
        let term = term.trim();
        let bad = || status::bad_request(format!("unable to parse requirement: found '{term}'"));
        let (words, set) = match term.split_once('(') {
            Some((words, rest)) => {
                let values = rest.strip_suffix(')').ok_or_else(bad)?;
                (
                    words.trim(),
                    Some(values.split(',').map(|v| v.trim().to_owned()).collect()),
                )
            }
            None => (term, None),
        };
        let expression = match set {
            Some(values) => match words.split_once(char::is_whitespace).map(|(key, op)| (key, op.trim())) {
                Some((key, "in")) => Expression::In(key_of(key)?, values),
                Some((key, "notin")) => Expression::NotIn(key_of(key)?, values),
                _ => return Err(bad()),
            },
            None => match (words.strip_prefix('!'), words.split_once("!="), words.split_once('=')) {
                (Some(key), ..) => Expression::DoesNotExist(key_of(key)?),
                (_, Some((key, value)), _) => Expression::NotEqual(key_of(key)?, value.trim().to_owned()),
                (_, _, Some((key, value))) => {
                    Expression::Equal(key_of(key)?, value.strip_prefix('=').unwrap_or(value).trim().to_owned())
                }
                _ => Expression::Exists(key_of(words)?),
            },
        };
        expressions.push(expression);
    }
    Ok(expressions.into_iter().collect())
}

fn key_of(text: &str) -> Result<String> {
    let key = text.trim();
    if key.is_empty() || key.contains(|c: char| c.is_whitespace() || "=!()".contains(c)) {
        return Err(status::bad_request(format!(
            "found '{key}', expected: !, identifier, or 'end of string'"
        )));
    }
    Ok(key.to_owned())
}

/// Splits at the commas that are not within parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms.retain(|term| !term.trim().is_empty());
    terms
}
