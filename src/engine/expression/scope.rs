//! The variables that an expression can read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

/// Names and their JSON values. Cheap to clone, and to extend for one step or one item: values are shared.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    variables: BTreeMap<Arc<str>, Arc<Json>>,
}

impl Scope {
    /// A scope without variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// This scope and one more variable; it takes the place of one of the same name.
    pub fn with(mut self, name: &str, value: impl Into<Arc<Json>>) -> Self {
        self.set(name, value);
        self
    }

    /// Adds a variable; it takes the place of one of the same name.
    pub fn set(&mut self, name: &str, value: impl Into<Arc<Json>>) {
        self.variables.insert(Arc::from(name), value.into());
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.variables.get(name).map(Arc::as_ref)
    }

    /// The names of the variables, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(|name| &**name)
    }
}
