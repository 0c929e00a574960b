//! Expressions: CEL as Kubernetes has it, over JSON.
//!
//! Parsing is the `cel` crate's. What is evaluated is this module's own, because three things have to hold that a library
//! for all uses doesn't promise: that the result is the API server's (the vectors in `tests/vectors/cel.yaml` are run
//! against a real one), that it is bounded by a count and not by a clock, and that it never panics.
//!
//! There are the standard library, optionals, macros with one and two variables, and Kubernetes' libraries for strings,
//! lists, sets, regular expressions and quantities.
//!
//! **Beyond the API server**: values have types only when they are evaluated, so `[1, "a"]` or `{"a": 1, "b": "c"}` need
//! no `dyn()`, and `1 == "a"` is false rather than refused. Maps with keys other than strings, and quantities, can be
//! results. Numbers in JSON are ints when they are written without fraction and fit, else doubles.
//!
//! **Refused when parsed**: the libraries for URLs, IP addresses, CIDRs, named formats, semantic versions and
//! authorization, and the making of messages (`Type{...}`).
//!
//! **An error where the API server has a value**: quantities of more than 38 digits, `%.Nf` with N above 1000,
//! hexadecimal floats in `double()`, keys of maps that are neither string, int, uint nor bool, the last day of the year
//! 9999 in another time zone, and what is beyond the limits in `budget.rs` and `source.rs`. Maps are gone through in the
//! order of their keys, where the API server's order is any.

mod budget;
mod compare;
mod compile;
mod comprehension;
mod error;
mod evaluate;
mod functions;
mod loops;
mod node;
mod operators;
mod patterns;
mod quantity;
mod references;
mod scan;
mod scope;
mod source;
mod template;
mod time;
mod value;
mod words;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use self::budget::Budget;
use self::evaluate::Evaluation;
use self::node::Node;

pub use self::error::{ExpressionError, FieldError};
pub use self::references::References;
pub use self::scope::Scope;
pub use self::template::{Template, references_in, render};
pub use self::words::is_cel_word;

/// A CEL expression, parsed: the form of condition fields (`when`, `until`, `assert`, ...).
///
/// Cheap to clone.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    node: Arc<Node>,
}

impl Expression {
    /// Parses an expression of at most 4 KiB. Unknown functions are found here; unknown variables when it is evaluated,
    /// or by the caller, from [`Expression::references`].
    pub fn parse(source: &str) -> Result<Self, ExpressionError> {
        Ok(Self {
            node: Arc::new(source::parse(source)?),
            source: source.into(),
        })
    }

    /// The value for these variables.
    pub fn evaluate(&self, scope: &Scope) -> Result<Json, ExpressionError> {
        self.evaluate_within(scope, &mut Budget::new())
    }

    /// The value for these variables, which must be a bool.
    pub fn evaluate_bool(&self, scope: &Scope) -> Result<bool, ExpressionError> {
        match self.evaluate(scope)? {
            Json::Bool(b) => Ok(b),
            other => Err(ExpressionError::Evaluation {
                expression: error::shortened(&self.source),
                message: format!("the result must be true or false, not {}", json_type(&other)),
            }),
        }
    }

    /// What the expression reads.
    pub fn references(&self) -> References {
        let mut references = References::default();
        references.visit(&self.node);
        references
    }

    /// The text that was parsed.
    pub fn source(&self) -> &str {
        &self.source
    }

    fn evaluate_within(&self, scope: &Scope, budget: &mut Budget) -> Result<Json, ExpressionError> {
        Evaluation::new(scope, budget)
            .node(&self.node)
            .and_then(|value| value.to_json(budget))
            .map_err(|fault| ExpressionError::from_fault(fault, &self.source))
    }

    /// The value as text, to stand between other text.
    fn evaluate_text(&self, scope: &Scope, budget: &mut Budget) -> Result<String, ExpressionError> {
        Evaluation::new(scope, budget)
            .node(&self.node)
            .and_then(|value| template::text(&value, budget))
            .map_err(|fault| ExpressionError::from_fault(fault, &self.source))
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

fn json_type(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a bool",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "a map",
    }
}
