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
    pub(super) fn known_step(&self, field: &str, name: &str) -> Result<usize, InvalidSpec> {
        self.index.get(name).copied().ok_or_else(|| {
            let names: Vec<&str> = self.places.iter().map(|place| place.step.name.as_str()).collect();
            InvalidSpec::new(
                field,
                format!("there is no step named {name:?}; there are {}", names.join(", ")),
            )
        })
    }

    pub(super) fn steps_read(&self, field: &str, found: &References) -> Result<BTreeSet<usize>, InvalidSpec> {
        if found.dynamic_steps {
            return Err(InvalidSpec::new(
                field,
                "steps can only be read by name, as steps.<name>: what a step reads must be known before it starts",
            ));
        }
        found.steps.iter().map(|name| self.known_step(field, name)).collect()
    }

    fn in_scope(&self, field: &str, found: &References, scope: &[&str]) -> Result<(), InvalidSpec> {
        match found.roots.iter().find(|root| !scope.contains(&root.as_str())) {
            None => Ok(()),
            Some(root) => Err(InvalidSpec::new(
                field,
                format!("{root:?} is not defined here; there are {}", scope.join(", ")),
            )),
        }
    }

    pub(super) fn condition(&self, field: &str, source: &str, scope: &[&str]) -> Result<Expression, InvalidSpec> {
        let parsed = Expression::parse(source).map_err(|error| InvalidSpec::new(field, error))?;
        self.in_scope(field, &parsed.references(), scope)?;
        Ok(parsed)
    }

    /// Checks every template in a value, each under its own field.
    pub(super) fn templates(&self, field: &str, value: &Value, scope: &[&str]) -> Result<References, InvalidSpec> {
        let mut all = References::default();
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
                    let found =
                        expression::references_in(value).map_err(|error| InvalidSpec::new(&field, error.error))?;
                    self.in_scope(&field, &found, scope)?;
                    self.steps_read(&field, &found)?;
                    all.steps.extend(found.steps);
                }
                _ => {}
            }
        }
        Ok(all)
    }

    /// Checks the request's templates, and its condition fields apart from them.
    pub(super) fn request(&self, field: &str, request: &Value, may_read: &[&str]) -> Result<References, InvalidSpec> {
        let (templates, conditions) = split_conditions(request);
        let mut scope = may_read.to_vec();
        scope.push("step");
        let mut found = self.templates(field, &templates, &scope)?;
        for (path, root, source) in conditions {
            let field = join(field, &path.join("."));
            let mut scope = may_read.to_vec();
            scope.push(root);
            let references = self.condition(&field, &source, &scope)?.references();
            found
                .steps
                .extend(self.steps_read(&field, &references).map(|_| references.steps)?);
        }
        Ok(found)
    }
}

fn join(field: &str, rest: &str) -> String {
    match rest {
        "" => field.to_owned(),
        rest if rest.starts_with('[') => format!("{field}{rest}"),
        rest => format!("{field}.{rest}"),
    }
}
