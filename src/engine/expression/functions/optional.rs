//! Optionals.

use super::{Body, Function};
use crate::engine::expression::budget::Fault;
use crate::engine::expression::operators::no_overload;
use crate::engine::expression::value::Value;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::method("first", 1, 1, |_, arguments| match &arguments[0] {
        Value::List(list) => Ok(Value::Optional(list.get(0).map(Into::into))),
        other => Err(no_overload("first", &[other])),
    }),
    Function::method("hasValue", 1, 1, |_, arguments| match &arguments[0] {
        Value::Optional(value) => Ok(Value::Bool(value.is_some())),
        other => Err(no_overload("hasValue", &[other])),
    }),
    Function::method("last", 1, 1, |_, arguments| match &arguments[0] {
        Value::List(list) => Ok(Value::Optional(list.iter().next_back().map(Into::into))),
        other => Err(no_overload("last", &[other])),
    }),
    Function::global("optional.none", 0, |_, _| Ok(Value::Optional(None))),
    Function::global("optional.of", 1, |_, arguments| Ok(Value::some(arguments[0].clone()))),
    Function::global("optional.ofNonZeroValue", 1, |_, arguments| {
        Ok(if arguments[0].is_zero() {
            Value::Optional(None)
        } else {
            Value::some(arguments[0].clone())
        })
    }),
    Function::global("optional.unwrap", 1, UNWRAP),
    Function::method("unwrapOpt", 1, 1, UNWRAP),
    Function::method("value", 1, 1, |_, arguments| match &arguments[0] {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        Value::Optional(None) => Err(Fault::failed("optional.none() has no value")),
        other => Err(no_overload("value", &[other])),
    }),
];

const UNWRAP: Body = |e, arguments| {
    let Value::List(list) = &arguments[0] else {
        return Err(no_overload("unwrapOpt", &[&arguments[0]]));
    };
    e.budget.make_elements(list.len())?;
    let mut values = Vec::new();
    for element in list.iter() {
        match element {
            Value::Optional(value) => values.extend(value.map(|value| (*value).clone())),
            other => return Err(no_overload("unwrapOpt", &[&other])),
        }
    }
    Ok(Value::list(values))
};
