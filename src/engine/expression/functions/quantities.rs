//! Kubernetes' quantities: `quantity("1.5Gi").add(quantity("512Mi"))`.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Function;
use crate::engine::expression::budget::Fault;
use crate::engine::expression::evaluate::Evaluated;
use crate::engine::expression::operators::no_overload;
use crate::engine::expression::quantity::Quantity;
use crate::engine::expression::value::Value;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::method("add", 2, 2, |_, arguments| combine("add", arguments, Quantity::add)),
    Function::method("asApproximateFloat", 1, 1, |_, arguments| {
        Ok(Value::Double(
            one("asApproximateFloat", arguments)?.as_approximate_float(),
        ))
    }),
    Function::method("asInteger", 1, 1, |_, arguments| {
        one("asInteger", arguments)?
            .as_integer()
            .map(Value::Int)
            .ok_or_else(|| Fault::failed("cannot convert value to integer"))
    }),
    Function::method("compareTo", 2, 2, |_, arguments| {
        Ok(Value::Int(two("compareTo", arguments)? as i64))
    }),
    Function::method("isGreaterThan", 2, 2, |_, arguments| {
        Ok(Value::Bool(two("isGreaterThan", arguments)?.is_gt()))
    }),
    Function::method("isInteger", 1, 1, |_, arguments| {
        Ok(Value::Bool(one("isInteger", arguments)?.as_integer().is_some()))
    }),
    Function::method("isLessThan", 2, 2, |_, arguments| {
        Ok(Value::Bool(two("isLessThan", arguments)?.is_lt()))
    }),
    Function::global("isQuantity", 1, |_, arguments| match &arguments[0] {
        Value::String(s) => Ok(Value::Bool(Quantity::parse(s).is_ok())),
        other => Err(no_overload("isQuantity", &[other])),
    }),
    Function::global("quantity", 1, |_, arguments| match &arguments[0] {
        Value::String(s) => made(Quantity::parse(s)),
        other => Err(no_overload("quantity", &[other])),
    }),
    Function::global("sign", 1, |_, arguments| Ok(Value::Int(one("sign", arguments)?.sign()))),
    Function::method("sub", 2, 2, |_, arguments| {
        combine("sub", arguments, |a, b| b.negated().and_then(|b| a.add(&b)))
    }),
];

fn made<'a>(quantity: Result<Quantity, String>) -> Evaluated<'a> {
    quantity
        .map(|quantity| Value::Quantity(Arc::new(quantity)))
        .map_err(Fault::failed)
}

fn one<'v>(name: &str, arguments: &'v [Value<'_>]) -> Result<&'v Quantity, Fault> {
    match arguments {
        [Value::Quantity(quantity)] => Ok(quantity),
        _ => Err(no_overload(name, &arguments.iter().collect::<Vec<_>>())),
    }
}

fn two(name: &str, arguments: &[Value<'_>]) -> Result<Ordering, Fault> {
    match arguments {
        [Value::Quantity(a), Value::Quantity(b)] => Ok(a.cmp(b)),
        _ => Err(no_overload(name, &arguments.iter().collect::<Vec<_>>())),
    }
}

fn combine<'a>(
    name: &str,
    arguments: &[Value<'a>],
    with: fn(&Quantity, &Quantity) -> Result<Quantity, String>,
) -> Evaluated<'a> {
    match arguments {
        [Value::Quantity(a), Value::Quantity(b)] => made(with(a, b)),
        [Value::Quantity(a), Value::Int(b)] => made(with(a, &Quantity::from(*b))),
        _ => Err(no_overload(name, &arguments.iter().collect::<Vec<_>>())),
    }
}
