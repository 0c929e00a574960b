//! Strings with `${...}` parts, and whole JSON values of them.

use serde_json::Value as Json;

use super::budget::{Budget, Fault};
use super::error::{ExpressionError, FieldError, shortened};
use super::evaluate::a;
use super::functions::convert;
use super::scan::expression_end;
use super::value::Value;
use super::{Expression, References, Scope};

/// How deeply a JSON value that is rendered may nest.
const MAX_DEPTH: usize = 150;

/// A string with `${...}` parts. One that is exactly one `${...}` has that value, of whatever type; else the values are
/// written into the text. `$${` is a literal `${`.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Expression(Expression),
}

impl Template {
    /// Parses a string.
    pub fn parse(source: &str) -> Result<Self, ExpressionError> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = source;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                // The first $ of $${ quotes the second.
                text.push_str(&rest[..at - 1]);
                text.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            text.push_str(&rest[..at]);
            let inside = &rest[at + 2..];
            let end = expression_end(inside).ok_or_else(|| ExpressionError::Syntax {
                expression: shortened(&rest[at..]),
                position: None,
                message: "`${` has no matching `}`; write $${ for a literal ${".to_owned(),
            })?;
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(Part::Expression(Expression::parse(&inside[..end])?));
            rest = &inside[end + 1..];
        }
        text.push_str(rest);
        if !text.is_empty() || parts.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self { parts })
    }

    /// The value for these variables.
    pub fn evaluate(&self, scope: &Scope) -> Result<Json, ExpressionError> {
        self.evaluate_within(scope, &mut Budget::new())
    }

    /// What the expressions read.
    pub fn references(&self) -> References {
        let mut references = References::default();
        for part in &self.parts {
            if let Part::Expression(expression) = part {
                references.extend(expression.references());
            }
        }
        references
    }

    fn evaluate_within(&self, scope: &Scope, budget: &mut Budget) -> Result<Json, ExpressionError> {
        if let [Part::Expression(expression)] = self.parts.as_slice() {
            return expression.evaluate_within(scope, budget);
        }
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Expression(expression) => text.push_str(&expression.evaluate_text(scope, budget)?),
            }
        }
        Ok(Json::String(text))
    }
}

/// A value between other text.
pub(super) fn text(value: &Value<'_>, budget: &mut Budget) -> Result<String, Fault> {
    match value {
        Value::Null | Value::List(_) | Value::Map(_) | Value::Optional(_) | Value::Type(_) => {
            Err(Fault::failed(format!(
                "{} can't be part of a text; only strings, numbers, bools, timestamps and durations can",
                a(value.type_name())
            )))
        }
        Value::Quantity(quantity) => Ok(quantity.to_string()),
        value => {
            let text = convert::to_string(value)?;
            budget.output(text.len())?;
            Ok(text.to_string())
        }
    }
}

/// The value with every string in it (not the keys) rendered as a [`Template`]. All together have the budget of one
/// evaluation.
pub fn render(value: &Json, scope: &Scope) -> Result<Json, FieldError> {
    let mut budget = Budget::new();
    let mut path = Vec::new();
    render_at(value, scope, &mut budget, &mut path).map_err(|error| FieldError {
        field: field(&path),
        error,
    })
}

/// What the templates in a value read: also the check that they can be parsed.
pub fn references_in(value: &Json) -> Result<References, FieldError> {
    let mut references = References::default();
    let mut path = Vec::new();
    collect(value, &mut references, &mut path).map_err(|error| FieldError {
        field: field(&path),
        error,
    })?;
    Ok(references)
}

/// A step from a value into one of its parts.
enum Segment<'v> {
    Key(&'v str),
    Index(usize),
}

// On an error, `path` is left where it happened.
fn render_at<'v>(
    value: &'v Json,
    scope: &Scope,
    budget: &mut Budget,
    path: &mut Vec<Segment<'v>>,
) -> Result<Json, ExpressionError> {
    check_depth(path)?;
    Ok(match value {
        Json::String(text) => Template::parse(text)?.evaluate_within(scope, budget)?,
        Json::Array(list) => {
            let mut rendered = Vec::with_capacity(list.len());
            for (index, element) in list.iter().enumerate() {
                path.push(Segment::Index(index));
                rendered.push(render_at(element, scope, budget, path)?);
                path.pop();
            }
            Json::Array(rendered)
        }
        Json::Object(map) => {
            let mut rendered = serde_json::Map::new();
            for (key, element) in map {
                path.push(Segment::Key(key));
                rendered.insert(key.clone(), render_at(element, scope, budget, path)?);
                path.pop();
            }
            Json::Object(rendered)
        }
        other => other.clone(),
    })
}

fn collect<'v>(
    value: &'v Json,
    references: &mut References,
    path: &mut Vec<Segment<'v>>,
) -> Result<(), ExpressionError> {
    check_depth(path)?;
    match value {
        Json::String(text) => references.extend(Template::parse(text)?.references()),
        Json::Array(list) => {
            for (index, element) in list.iter().enumerate() {
                path.push(Segment::Index(index));
                collect(element, references, path)?;
                path.pop();
            }
        }
        Json::Object(map) => {
            for (key, element) in map {
                path.push(Segment::Key(key));
                collect(element, references, path)?;
                path.pop();
            }
        }
        _ => {}
    }
    Ok(())
}

fn check_depth(path: &[Segment<'_>]) -> Result<(), ExpressionError> {
    if path.len() <= MAX_DEPTH {
        return Ok(());
    }
    Err(ExpressionError::Evaluation {
        expression: String::new(),
        message: format!("a value that nests more than {MAX_DEPTH} levels deep"),
    })
}

fn field(path: &[Segment<'_>]) -> String {
    let mut field = String::new();
    for segment in path {
        match segment {
            Segment::Index(index) => field.push_str(&format!("[{index}]")),
            Segment::Key(key)
                if key.is_empty() || key.contains(|c: char| !c.is_alphanumeric() && c != '_' && c != '-') =>
            {
                field.push_str(&format!("[{key:?}]"));
            }
            Segment::Key(key) => {
                if !field.is_empty() {
                    field.push('.');
                }
                field.push_str(key);
            }
        }
    }
    field
}
