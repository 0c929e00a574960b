//! The values that an expression works with, and how they come from JSON and go back to it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use serde_json::{Number, Value as Json};

use super::budget::{Budget, Fault};
use super::quantity::Quantity;
use super::time::{self, Timestamp};

/// How deeply values may nest when they become JSON: what serde_json itself reads back.
const MAX_JSON_DEPTH: u32 = 120;

/// A CEL value. Copies are cheap: what is large is shared, or borrowed from the scope's JSON (`'a`).
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    List(List<'a>),
    Map(Map<'a>),
    /// Nanoseconds, as Go's time.Duration.
    Duration(i64),
    Timestamp(Timestamp),
    Type(&'static str),
    Optional(Option<Arc<Value<'a>>>),
    Quantity(Arc<Quantity>),
}

/// A string, borrowed or shared.
#[derive(Clone, Debug)]
pub(super) enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(s) => s,
            Text::Shared(s) => s,
        }
    }
}

/// A list, as the scope's JSON has it or as the expression made it.
#[derive(Clone, Debug)]
pub(super) enum List<'a> {
    Json(&'a [Json]),
    Made(Arc<Vec<Value<'a>>>),
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Json(list) => list.len(),
            List::Made(list) => list.len(),
        }
    }

    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            List::Json(list) => list.get(index).map(Value::from_json),
            List::Made(list) => list.get(index).cloned(),
        }
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Value<'a>> + '_ {
        // Every index is below the length.
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

/// A map, as the scope's JSON has it or as the expression made it. Iterates in the order of its keys.
#[derive(Clone, Debug)]
pub(super) enum Map<'a> {
    Json(&'a serde_json::Map<String, Json>),
    Made(Arc<BTreeMap<Key<'a>, Value<'a>>>),
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Map::Json(map) => map.len(),
            Map::Made(map) => map.len(),
        }
    }

    pub fn get(&self, key: &Key<'_>) -> Option<Value<'a>> {
        match (self, key) {
            (Map::Json(map), Key::String(key)) => map.get(&**key).map(Value::from_json),
            (Map::Json(_), _) => None,
            (Map::Made(map), key) => {
                // The keys' own lifetime is longer than that of the key sought; comparing needs no more than a borrow.
                let map: &BTreeMap<Key<'_>, Value<'a>> = map;
                map.get(key).cloned()
            }
        }
    }

    pub fn get_str(&self, key: &str) -> Option<Value<'a>> {
        self.get(&Key::String(Text::Borrowed(key)))
    }

    pub fn keys(&self) -> Box<dyn Iterator<Item = Value<'a>> + '_> {
        match self {
            Map::Json(map) => Box::new(map.keys().map(|key| Value::borrowed(key))),
            Map::Made(map) => Box::new(map.keys().map(|key| key.clone().into_value())),
        }
    }

    pub fn entries(&self) -> Vec<(Key<'a>, Value<'a>)> {
        match self {
            Map::Json(map) => map
                .iter()
                .map(|(key, value)| (Key::String(Text::Borrowed(key)), Value::from_json(value)))
                .collect(),
            Map::Made(map) => map.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        }
    }
}

/// What can be the key of a map. Numbers of different types are the same key when they are equal.
#[derive(Clone, Debug)]
pub(super) enum Key<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Text<'a>),
}

impl<'a> Key<'a> {
    pub fn from_value(value: &Value<'a>) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(Key::Bool(*b)),
            Value::Int(i) => Some(Key::Int(*i)),
            Value::Uint(u) => Some(Key::Uint(*u)),
            Value::String(s) => Some(Key::String(s.clone())),
            // A double finds the whole number that it equals.
            Value::Double(d) if d.fract() == 0.0 && *d >= -(2f64.powi(63)) && *d < 2f64.powi(63) => {
                Some(Key::Int(*d as i64))
            }
            _ => None,
        }
    }

    pub fn into_value(self) -> Value<'a> {
        match self {
            Key::Bool(b) => Value::Bool(b),
            Key::Int(i) => Value::Int(i),
            Key::Uint(u) => Value::Uint(u),
            Key::String(s) => Value::String(s),
        }
    }

    fn order(&self) -> (u8, i128, &str) {
        match self {
            Key::Bool(b) => (0, i128::from(*b), ""),
            Key::Int(i) => (1, i128::from(*i), ""),
            Key::Uint(u) => (1, i128::from(*u), ""),
            Key::String(s) => (2, 0, s),
        }
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Key<'_> {}

impl<'a> Value<'a> {
    pub fn borrowed(text: &'a str) -> Self {
        Value::String(Text::Borrowed(text))
    }

    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Value::String(Text::Shared(text.into()))
    }

    pub fn list(values: Vec<Value<'a>>) -> Self {
        Value::List(List::Made(Arc::new(values)))
    }

    pub fn map(entries: BTreeMap<Key<'a>, Value<'a>>) -> Self {
        Value::Map(Map::Made(Arc::new(entries)))
    }

    pub fn some(value: Value<'a>) -> Self {
        Value::Optional(Some(Arc::new(value)))
    }

    /// Numbers as Kubernetes reads them: an int when it is one, else a double.
    pub fn from_json(json: &'a Json) -> Self {
        match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => match n.as_i64() {
                Some(i) => Value::Int(i),
                None => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(s) => Value::borrowed(s),
            Json::Array(list) => Value::List(List::Json(list)),
            Json::Object(map) => Value::Map(Map::Json(map)),
        }
    }

    /// As JSON: bytes in base64, durations and timestamps as `string()` gives them. What JSON can't hold is an error.
    pub fn to_json(&self, budget: &mut Budget) -> Result<Json, Fault> {
        self.to_json_at(budget, 0)
    }

    fn to_json_at(&self, budget: &mut Budget, depth: u32) -> Result<Json, Fault> {
        if depth > MAX_JSON_DEPTH {
            return Err(Fault::failed(format!(
                "the result nests more than {MAX_JSON_DEPTH} levels deep"
            )));
        }
        budget.output(16)?;
        Ok(match self {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(i) => Json::from(*i),
            Value::Uint(u) => Json::from(*u),
            Value::Double(d) => Number::from_f64(*d).map(Json::Number).ok_or_else(|| {
                Fault::failed(format!(
                    "{} has no form in JSON",
                    super::functions::convert::double_to_string(*d)
                ))
            })?,
            Value::String(s) => {
                budget.output(s.len())?;
                Json::String(s.to_string())
            }
            Value::Bytes(b) => {
                budget.output(b.len())?;
                Json::String(BASE64_STANDARD.encode(b))
            }
            Value::List(list) => Json::Array(
                list.iter()
                    .map(|v| v.to_json_at(budget, depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Map(map) => {
                let mut object = serde_json::Map::new();
                for (key, value) in map.entries() {
                    let key = match key {
                        Key::String(s) => s.to_string(),
                        Key::Bool(b) => b.to_string(),
                        Key::Int(i) => i.to_string(),
                        Key::Uint(u) => u.to_string(),
                    };
                    budget.output(key.len())?;
                    object.insert(key, value.to_json_at(budget, depth + 1)?);
                }
                Json::Object(object)
            }
            Value::Duration(d) => Json::String(time::duration_to_string(*d)),
            Value::Timestamp(t) => Json::String(t.to_string()),
            Value::Quantity(q) => Json::String(q.to_string()),
            Value::Type(_) => {
                return Err(Fault::failed(
                    "a type has no form in JSON; compare it with another type",
                ));
            }
            Value::Optional(Some(value)) => value.to_json_at(budget, depth + 1)?,
            Value::Optional(None) => {
                return Err(Fault::failed(
                    "the result is an optional without a value; give it one by .orValue(...)",
                ));
            }
        })
    }

    /// The name of the value's type, as `type()` knows it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Type(_) => "type",
            Value::Optional(_) => "optional_type",
            Value::Quantity(_) => "kubernetes.Quantity",
        }
    }

    /// The bytes of a string or of bytes; other values count as nothing.
    pub fn text_size(&self) -> usize {
        match self {
            Value::String(s) => s.len(),
            Value::Bytes(b) => b.len(),
            _ => 0,
        }
    }

    /// What `optional.ofNonZeroValue` treats as no value.
    pub fn is_zero(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(b) => !b,
            Value::Int(i) => *i == 0,
            Value::Uint(u) => *u == 0,
            Value::Double(d) => *d == 0.0,
            Value::String(s) => s.is_empty(),
            Value::Bytes(b) => b.is_empty(),
            Value::List(list) => list.len() == 0,
            Value::Map(map) => map.len() == 0,
            Value::Duration(d) => *d == 0,
            Value::Timestamp(t) => t.is_zero(),
            Value::Type(_) | Value::Optional(_) | Value::Quantity(_) => false,
        }
    }
}

/// The types that an expression can name, for comparison with `type(x)`.
pub(super) fn named_type(name: &str) -> Option<&'static str> {
    [
        "bool",
        "bytes",
        "double",
        "google.protobuf.Duration",
        "google.protobuf.Timestamp",
        "int",
        "kubernetes.Quantity",
        "list",
        "map",
        "null_type",
        "optional_type",
        "string",
        "type",
        "uint",
    ]
    .into_iter()
    .find(|known| *known == name)
}
