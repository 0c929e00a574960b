//! What can be wrong with an expression.

use super::budget::Fault;
use super::compile::Refusal;

/// How much of an expression an error shows.
const SHOWN: usize = 500;

/// An expression that can't be parsed, or gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It is not CEL, or not what Holdfast evaluates of it.
    #[error("invalid expression{}: {message} (in: {expression})", place(.position))]
    Syntax {
        expression: String,
        /// Line and column, from 1, if they are known.
        position: Option<(u32, u32)>,
        message: String,
    },
    /// It calls a function that there isn't, or not so.
    #[error("unknown function {name}: {hint} (in: {expression})")]
    UnknownFunction {
        expression: String,
        name: String,
        hint: String,
    },
    /// It failed on the values that it was given.
    #[error("{message} (in: {expression})")]
    Evaluation { expression: String, message: String },
    /// It took more than an evaluation may: always for the same values, on every machine.
    #[error("too expensive: {limit} (in: {expression})")]
    TooExpensive { expression: String, limit: String },
}

fn place(position: &Option<(u32, u32)>) -> String {
    position
        .map(|(line, column)| format!(" at line {line}, column {column}"))
        .unwrap_or_default()
}

/// An expression of a field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{error}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub struct FieldError {
    /// Where it is in the value that was rendered, such as `body.items[0].size`; empty for the value itself.
    pub field: String,
    /// What is wrong.
    #[source]
    pub error: ExpressionError,
}

impl ExpressionError {
    pub(super) fn from_fault(fault: Fault, expression: &str) -> Self {
        let expression = shortened(expression);
        match fault {
            Fault::Failed(message) => ExpressionError::Evaluation { expression, message },
            Fault::TooExpensive(limit) => ExpressionError::TooExpensive { expression, limit },
        }
    }

    pub(super) fn from_refusal(refusal: Refusal, expression: &str) -> Self {
        let expression = shortened(expression);
        match refusal {
            Refusal::Syntax(message) => ExpressionError::Syntax {
                expression,
                position: None,
                message,
            },
            Refusal::UnknownFunction { name, hint } => ExpressionError::UnknownFunction { expression, name, hint },
        }
    }
}

/// The expression as errors show it.
pub(super) fn shortened(expression: &str) -> String {
    match expression.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &expression[..end]),
        None => expression.to_owned(),
    }
}
