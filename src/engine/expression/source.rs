//! From text to [`Node`]s, by the `cel` crate's parser, with what it needs to be safe on any text.

use cel::parser::{ParseErrors, PrattParser};

use super::compile::Compiler;
use super::error::{ExpressionError, shortened};
use super::node::Node;
use super::scan;

/// The longest expression, in bytes.
const MAX_LENGTH: usize = 4096;
/// How deeply parentheses, brackets, braces and arguments nest. The parser recurses: at this depth it needs a fraction of
/// the 2 MiB of a thread's stack, in debug builds too.
const MAX_NESTING: u16 = 40;
/// The most question marks, as `a ? b : c ? d : ...` recurses without nesting.
const MAX_QUESTION_MARKS: usize = 100;

pub(super) fn parse(text: &str) -> Result<Node, ExpressionError> {
    let syntax = |message: String| ExpressionError::Syntax {
        expression: shortened(text),
        position: None,
        message,
    };
    if text.len() > MAX_LENGTH {
        return Err(syntax(format!(
            "{} bytes long; at most {MAX_LENGTH} are allowed",
            text.len()
        )));
    }
    if text.trim().is_empty() {
        return Err(syntax("it is empty".to_owned()));
    }
    if text.matches('?').count() > MAX_QUESTION_MARKS {
        return Err(syntax(format!("more than {MAX_QUESTION_MARKS} question marks")));
    }
    if scan::broken_string(text).is_some() {
        return Err(syntax(
            "a line break in a string; write \\n, or use three quotes".to_owned(),
        ));
    }
    let tree = PrattParser::new()
        .max_recursion_depth(MAX_NESTING)
        .enable_optional_syntax(true)
        .enable_ident_escape_syntax(true)
        .parse(text)
        .map_err(|errors| parse_error(&errors, text))?;
    Compiler::default()
        .node(&tree)
        .map_err(|refusal| ExpressionError::from_refusal(refusal, text))
}

/// The first of the parser's errors: the others tend to follow from it.
fn parse_error(errors: &ParseErrors, text: &str) -> ExpressionError {
    let nesting = errors.errors.iter().any(|error| error.msg.contains("recursion limit"));
    let first = errors
        .errors
        .iter()
        .find(|error| error.pos.0 > 0)
        .or(errors.errors.first());
    let (position, message) = match first {
        _ if nesting => (None, format!("nested more than {MAX_NESTING} levels deep")),
        Some(error) => {
            let line_and_column = u32::try_from(error.pos.0).ok().zip(u32::try_from(error.pos.1).ok());
            let message = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
            (line_and_column.filter(|(line, _)| *line > 0), message.to_owned())
        }
        None => (None, "it can't be parsed".to_owned()),
    };
    ExpressionError::Syntax {
        expression: shortened(text),
        position,
        message,
    }
}
