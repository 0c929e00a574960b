//! The evaluator: a node and the variables to a value, within a budget.

use std::collections::BTreeMap;

use super::budget::{Budget, Fault};
use super::compare;
use super::node::{Node, Operator, Optional};
use super::operators;
use super::patterns::Patterns;
use super::scope::Scope;
use super::value::{Key, Map, Value};

pub(super) type Evaluated<'a> = Result<Value<'a>, Fault>;

/// One evaluation.
pub(super) struct Evaluation<'a, 'b> {
    pub scope: &'a Scope,
    pub budget: &'b mut Budget,
    pub patterns: Patterns,
    /// The variables that enclosing macros declare, outermost first.
    locals: Vec<Value<'a>>,
}

impl<'a, 'b> Evaluation<'a, 'b> {
    pub fn new(scope: &'a Scope, budget: &'b mut Budget) -> Self {
        Self {
            scope,
            budget,
            patterns: Patterns::default(),
            locals: Vec::new(),
        }
    }

    // A short match over functions of their own: this recurses, and what each arm needs on the stack adds up.
    pub fn node(&mut self, node: &'a Node) -> Evaluated<'a> {
        self.budget.step()?;
        match node {
            Node::Literal(value) => Ok(value.clone()),
            Node::Local(index) => self.local(*index),
            Node::Variable(name) => self.variable(name),
            Node::Select(operand, field) => self.select(operand, field),
            Node::OptionalSelect(operand, field) => self.optional_select(operand, field),
            Node::Has(operand, field) => self.has(operand, field),
            Node::Index(operand, index) => self.index(operand, index),
            Node::OptionalIndex(operand, index) => self.optional_index(operand, index),
            Node::Not(operand) => self.not(operand),
            Node::Negate(operand) => operators::negate(self.node(operand)?),
            Node::And(left, right) => self.logical(left, right, false),
            Node::Or(left, right) => self.logical(left, right, true),
            Node::Conditional(parts) => self.conditional(parts),
            Node::Binary(operator, left, right) => self.binary(*operator, left, right),
            Node::List(elements) => self.list(elements),
            Node::Map(entries) => self.map(entries),
            Node::Call(function, arguments) => {
                let arguments = self.arguments(arguments)?;
                // Texts that are looked at count, whatever is done with them.
                self.budget.read(arguments.iter().map(Value::text_size).sum())?;
                function.call(self, &arguments)
            }
            Node::Loop(each) => self.each(each),
            Node::OrElse { left, right, value } => self.or_else(left, right, *value),
            Node::OptionalMap {
                operand,
                local,
                body,
                flat,
            } => self.optional_map(operand, *local, body, *flat),
        }
    }

    /// A node that must be a bool.
    pub fn condition(&mut self, node: &'a Node, place: &str) -> Result<bool, Fault> {
        match self.node(node)? {
            Value::Bool(b) => Ok(b),
            other => Err(Fault::failed(format!(
                "{place} must be a bool, not {}",
                a(other.type_name())
            ))),
        }
    }

    /// Declares variables while `evaluate` runs.
    pub fn with_locals<T>(
        &mut self,
        local: usize,
        values: impl IntoIterator<Item = Value<'a>>,
        evaluate: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.locals.truncate(local);
        self.locals.extend(values);
        let result = evaluate(self);
        self.locals.truncate(local);
        result
    }

    fn local(&self, index: usize) -> Evaluated<'a> {
        self.locals
            .get(index)
            .cloned()
            .ok_or_else(|| Fault::failed("a variable is out of scope"))
    }

    fn variable(&self, name: &str) -> Evaluated<'a> {
        self.scope.get(name).map(Value::from_json).ok_or_else(|| {
            let known = self.scope.names().collect::<Vec<_>>().join(", ");
            Fault::failed(format!("unknown variable {name} (there are: {known})"))
        })
    }

    fn arguments(&mut self, nodes: &'a [Node]) -> Result<Vec<Value<'a>>, Fault> {
        nodes.iter().map(|node| self.node(node)).collect()
    }

    fn binary(&mut self, operator: Operator, left: &'a Node, right: &'a Node) -> Evaluated<'a> {
        let left = self.node(left)?;
        let right = self.node(right)?;
        operators::binary(operator, left, right, self.budget)
    }

    fn not(&mut self, operand: &'a Node) -> Evaluated<'a> {
        match self.node(operand)? {
            Value::Bool(b) => Ok(Value::Bool(!b)),
            other => Err(operators::no_overload("!", &[&other])),
        }
    }

    /// `||` when `decisive` is true, else `&&`. A side that decides alone does so even if the other side fails.
    fn logical(&mut self, left: &'a Node, right: &'a Node, decisive: bool) -> Evaluated<'a> {
        let left = self.side(left, decisive)?;
        if left == Ok(decisive) {
            return Ok(Value::Bool(decisive));
        }
        match (left, self.side(right, decisive)?) {
            (_, Ok(right)) if right == decisive => Ok(Value::Bool(decisive)),
            (Err(failure), _) | (_, Err(failure)) => Err(Fault::Failed(failure)),
            _ => Ok(Value::Bool(!decisive)),
        }
    }

    /// One side of `||` or `&&`: its value, or its failure for as long as the other side may make up for it.
    fn side(&mut self, side: &'a Node, decisive: bool) -> Result<Result<bool, String>, Fault> {
        match self.node(side) {
            Ok(Value::Bool(b)) => Ok(Ok(b)),
            Ok(other) => {
                let operator = if decisive { "||" } else { "&&" };
                Ok(Err(format!("{operator} takes bools, not {}", a(other.type_name()))))
            }
            Err(Fault::Failed(failure)) => Ok(Err(failure)),
            Err(fault) => Err(fault),
        }
    }

    fn conditional(&mut self, [condition, then, otherwise]: &'a [Node; 3]) -> Evaluated<'a> {
        if self.condition(condition, "what stands before `?`")? {
            self.node(then)
        } else {
            self.node(otherwise)
        }
    }

    fn list(&mut self, elements: &'a [(Node, Optional)]) -> Evaluated<'a> {
        self.budget.make_elements(elements.len())?;
        let mut list = Vec::with_capacity(elements.len());
        for (element, optional) in elements {
            let value = self.node(element)?;
            list.extend(if *optional {
                unwrap_optional(value)?
            } else {
                Some(value)
            });
        }
        Ok(Value::list(list))
    }

    fn map(&mut self, entries: &'a [(Node, Node, Optional)]) -> Evaluated<'a> {
        self.budget.make_elements(entries.len())?;
        let mut map = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.node(key)?;
            let value = self.node(value)?;
            if let Some(value) = if *optional {
                unwrap_optional(value)?
            } else {
                Some(value)
            } {
                // Of a key that is there twice the last value counts, as for Kubernetes.
                self.budget.read(key.text_size())?;
                map.insert(key_of(key)?, value);
            }
        }
        Ok(Value::map(map))
    }

    fn or_else(&mut self, left: &'a Node, right: &'a Node, value: bool) -> Evaluated<'a> {
        match self.node(left)? {
            Value::Optional(Some(inner)) if value => Ok((*inner).clone()),
            some @ Value::Optional(Some(_)) => Ok(some),
            Value::Optional(None) => self.node(right),
            other => {
                let name = if value { "orValue" } else { "or" };
                Err(Fault::failed(format!(
                    "{name}() is for optionals, as .? and [?] give them, not for {}",
                    a(other.type_name())
                )))
            }
        }
    }

    fn optional_map(&mut self, operand: &'a Node, local: usize, body: &'a Node, flat: bool) -> Evaluated<'a> {
        match self.node(operand)? {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => {
                let result = self.with_locals(local, [(*value).clone()], |this| this.node(body))?;
                Ok(if flat { result } else { Value::some(result) })
            }
            other => Err(operators::no_overload(
                if flat { "optFlatMap" } else { "optMap" },
                &[&other],
            )),
        }
    }

    fn select(&mut self, operand: &'a Node, field: &str) -> Evaluated<'a> {
        match self.node(operand)? {
            Value::Map(map) => map.get_str(field).ok_or_else(|| missing_key(operand, &map, field)),
            // A selection from an optional gives an optional.
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => Ok(Value::Optional(field_of(&value, field)?.map(Into::into))),
            other => Err(Fault::failed(format!(
                "no such key: {field} ({} is {}, which has no fields)",
                describe(operand),
                a(other.type_name())
            ))),
        }
    }

    fn optional_select(&mut self, operand: &'a Node, field: &str) -> Evaluated<'a> {
        Ok(match self.node(operand)? {
            Value::Optional(None) => Value::Optional(None),
            Value::Optional(Some(value)) => Value::Optional(field_of(&value, field)?.map(Into::into)),
            value => Value::Optional(field_of(&value, field)?.map(Into::into)),
        })
    }

    fn has(&mut self, operand: &'a Node, field: &str) -> Evaluated<'a> {
        let present = match self.node(operand)? {
            Value::Optional(None) => false,
            Value::Optional(Some(value)) => field_of(&value, field)?.is_some(),
            value => field_of(&value, field)?.is_some(),
        };
        Ok(Value::Bool(present))
    }

    fn index(&mut self, operand: &'a Node, index: &'a Node) -> Evaluated<'a> {
        let value = self.node(operand)?;
        let index = self.node(index)?;
        self.budget.read(index.text_size())?;
        match &value {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => Ok(Value::Optional(element(value, &index)?.map(Into::into))),
            value => element(value, &index)?.ok_or_else(|| match value {
                Value::Map(map) => match Key::from_value(&index) {
                    Some(Key::String(key)) => missing_key(operand, map, &key),
                    _ => Fault::failed(format!("no such key: {}", shown(&index))),
                },
                Value::List(list) => Fault::failed(format!(
                    "index out of bounds: {} ({} has {} elements)",
                    shown(&index),
                    describe(operand),
                    list.len()
                )),
                other => operators::no_overload("[]", &[other, &index]),
            }),
        }
    }

    fn optional_index(&mut self, operand: &'a Node, index: &'a Node) -> Evaluated<'a> {
        let value = self.node(operand)?;
        let index = self.node(index)?;
        self.budget.read(index.text_size())?;
        Ok(Value::Optional(match &value {
            Value::Optional(None) => None,
            Value::Optional(Some(value)) => element(value, &index)?.map(Into::into),
            value => element(value, &index)?.map(Into::into),
        }))
    }
}

/// The value in an optional that stands where one is expected.
fn unwrap_optional(value: Value<'_>) -> Result<Option<Value<'_>>, Fault> {
    match value {
        Value::Optional(value) => Ok(value.map(|value| (*value).clone())),
        other => Err(Fault::failed(format!(
            "`?` is for optionals, not for {}",
            a(other.type_name())
        ))),
    }
}

/// Adds an entry that must be new to a map that is being made.
pub(super) fn insert<'a>(
    map: &mut BTreeMap<Key<'a>, Value<'a>>,
    key: Value<'a>,
    value: Value<'a>,
    budget: &mut Budget,
) -> Result<(), Fault> {
    budget.read(key.text_size())?;
    let key = key_of(key)?;
    match map.insert(key.clone(), value) {
        None => Ok(()),
        Some(_) => Err(Fault::failed(format!(
            "the key {} is twice in a map",
            shown(&key.into_value())
        ))),
    }
}

fn key_of(value: Value<'_>) -> Result<Key<'_>, Fault> {
    match value {
        Value::Double(_) => None,
        ref value => Key::from_value(value),
    }
    .ok_or_else(|| Fault::failed(format!("{} can't be the key of a map", a(value.type_name()))))
}

/// The field of a map, if it has it. A list has none, and asking it is an error.
fn field_of<'a>(value: &Value<'a>, field: &str) -> Result<Option<Value<'a>>, Fault> {
    match value {
        Value::Map(map) => Ok(map.get_str(field)),
        Value::List(_) => Err(operators::no_overload("a field selection", &[value])),
        _ => Ok(None),
    }
}

/// The element of a list or map, if there is one. An index of a wrong type is an error.
fn element<'a>(value: &Value<'a>, index: &Value<'a>) -> Result<Option<Value<'a>>, Fault> {
    match value {
        Value::List(list) => match compare::whole_number(index) {
            Some(i) => Ok(usize::try_from(i).ok().and_then(|i| list.get(i))),
            None => Err(operators::no_overload("[]", &[value, index])),
        },
        Value::Map(map) => match (index, Key::from_value(index)) {
            (_, Some(key)) => Ok(map.get(&key)),
            (Value::Double(_), None) => Ok(None),
            (_, None) => Err(operators::no_overload("[]", &[value, index])),
        },
        _ => Ok(None),
    }
}

fn missing_key(operand: &Node, map: &Map<'_>, key: &str) -> Fault {
    const SHOWN: usize = 20;
    let keys = map.keys().take(SHOWN).map(|key| shown(&key));
    let mut keys = keys.collect::<Vec<_>>().join(", ");
    match map.len() {
        0 => keys.push_str("nothing"),
        n if n > SHOWN => keys.push_str(", ..."),
        _ => {}
    }
    Fault::failed(format!("no such key: {key} ({} has {keys})", describe(operand)))
}

/// How a person would point at the operand.
fn describe(node: &Node) -> String {
    match node {
        Node::Variable(name) => name.clone(),
        Node::Select(operand, field) => format!("{}.{field}", describe(operand)),
        Node::Index(operand, index) => match &**index {
            Node::Literal(index) => format!("{}[{}]", describe(operand), shown(index)),
            _ => format!("{}[...]", describe(operand)),
        },
        _ => "it".to_owned(),
    }
}

/// A key or index in a message.
fn shown(value: &Value<'_>) -> String {
    const LONGEST: usize = 60;
    match value {
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => u.to_string(),
        Value::Double(d) => d.to_string(),
        Value::String(s) if s.chars().count() > LONGEST => {
            format!("{}...", s.chars().take(LONGEST).collect::<String>())
        }
        Value::String(s) => s.to_string(),
        other => a(other.type_name()),
    }
}

/// A type's name with its article.
pub(super) fn a(type_name: &str) -> String {
    let article = if type_name.starts_with(['a', 'e', 'i', 'o']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {type_name}")
}
