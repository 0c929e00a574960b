//! What expressions may read, and which steps they do.

use std::collections::BTreeSet;

use serde_json::Value;

use super::InvalidSpec;
use super::compile::Compiler;
use super::conditions::split_conditions;
use crate::engine::expression::{self, Expression, References};

/// What an expression of a step may read: what a request sends, it must send again.
pub(super) const STEP_SCOPE: &[&str] = &["input", "steps", "operation"];

impl Compiler<'_> {
    pub(super) fn known_step(&self, field: &str, name: &str) -> Option<usize> {
        let known = self.index.get(name).copied();
        if known.is_none() {
            let names: Vec<&str> = self.places.iter().map(|place| place.step.name.as_str()).collect();
            let names = names.join(", ");
            self.refuse(field, format!("there is no step named {name:?}; there are {names}"));
        }
        known
    }

    pub(super) fn steps_read(&self, field: &str, found: &References) -> BTreeSet<usize> {
        if found.dynamic_steps {
            self.refuse(
                field,
                "steps can only be read by name, as steps.<name>: what a step reads must be known before it starts",
            );
            return BTreeSet::new();
        }
        let steps = found.steps.iter();
        let read: BTreeSet<usize> = steps.filter_map(|name| self.known_step(field, name)).collect();
        self.read.borrow_mut().extend(&read);
        read
    }

    fn in_scope(&self, field: &str, found: &References, scope: &[&str]) -> bool {
        let foreign = found.roots.iter().find(|root| !scope.contains(&root.as_str()));
        if let Some(root) = foreign {
            let scope = scope.join(", ");
            self.refuse(field, format!("{root:?} is not defined here; there are {scope}"));
        }
        foreign.is_none()
    }

    pub(super) fn condition(&self, field: &str, source: &str, scope: &[&str]) -> Option<Expression> {
        let parsed = Expression::parse(source).map_err(|error| InvalidSpec::new(field, error));
        self.note(parsed)
            .filter(|parsed| self.in_scope(field, &parsed.references(), scope))
    }

    /// Checks every template in a value, each under its own field, and answers which steps they read.
    pub(super) fn templates(&self, field: &str, value: &Value, scope: &[&str]) -> BTreeSet<usize> {
        let mut read = BTreeSet::new();
        let mut leaves = vec![(field.to_owned(), value)];
        while let Some((field, value)) = leaves.pop() {
            match value {
                Value::Object(map) => leaves.extend(map.iter().map(|(key, value)| (join(&field, key), value))),
                Value::Array(list) => {
                    leaves.extend(
                        list.iter()
                            .enumerate()
                            .map(|(i, value)| (format!("{field}[{i}]"), value)),
                    );
                }
                Value::String(_) => {
                    let found = expression::references_in(value);
                    let found = self.note(found.map_err(|error| InvalidSpec::new(&field, error.error)));
                    if let Some(found) = found.filter(|found| self.in_scope(&field, found, scope)) {
                        read.extend(self.steps_read(&field, &found));
                    }
                }
                _ => {}
            }
        }
        read
    }

    /// Checks the request's templates, and its condition fields apart from them.
    pub(super) fn request(&self, field: &str, request: &Value, may_read: &[&str]) -> BTreeSet<usize> {
        let (templates, conditions) = split_conditions(request);
        let mut scope = may_read.to_vec();
        scope.push("step");
        let mut read = self.templates(field, &templates, &scope);
        for (path, root, source) in conditions {
            let field = join(field, &path.join("."));
            let mut scope = may_read.to_vec();
            scope.push(root);
            if let Some(condition) = self.condition(&field, &source, &scope) {
                read.extend(self.steps_read(&field, &condition.references()));
            }
        }
        read
    }
}

fn join(field: &str, rest: &str) -> String {
    match rest {
        "" => field.to_owned(),
        rest if rest.starts_with('[') => format!("{field}{rest}"),
        rest => format!("{field}.{rest}"),
    }
}
