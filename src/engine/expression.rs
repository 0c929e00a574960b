use serde_json::Value;
use std::collections::BTreeSet;
#[derive(Debug, Clone)]
pub struct Expression {
    source: String,
}
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ExpressionError(String);
#[derive(Debug, Clone)]
pub struct FieldError {
    pub field: String,
    pub error: ExpressionError,
}
#[derive(Debug, Clone, Default)]
pub struct References {
    pub roots: BTreeSet<String>,
    pub steps: BTreeSet<String>,
    pub dynamic_steps: bool,
}
#[derive(Debug, Clone, Default)]
pub struct Scope;
impl Scope {
    pub fn with(self, _: &str, _: Value) -> Self {
        self
    }
}
impl Expression {
    pub fn parse(source: &str) -> Result<Self, ExpressionError> {
        Ok(Self { source: source.into() })
    }
    pub fn evaluate(&self, _: &Scope) -> Result<Value, ExpressionError> {
        Ok(Value::Null)
    }
    pub fn evaluate_bool(&self, _: &Scope) -> Result<bool, ExpressionError> {
        Ok(true)
    }
    pub fn references(&self) -> References {
        References::default()
    }
    pub fn source(&self) -> &str {
        &self.source
    }
}
pub fn render(v: &Value, _: &Scope) -> Result<Value, FieldError> {
    Ok(v.clone())
}
pub fn references_in(_: &Value) -> Result<References, FieldError> {
    Ok(References::default())
}
pub fn is_cel_word(_: &str) -> bool {
    false
}
