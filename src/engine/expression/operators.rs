//! The operators. Arithmetic never wraps: what doesn't fit is an error.

use std::cmp::Ordering;

use super::budget::{Budget, Fault};
use super::compare;
use super::evaluate::Evaluated;
use super::node::Operator;

use super::value::{Key, Value};

/// An operator or function was given what it isn't for.
pub(super) fn no_overload(name: &str, arguments: &[&Value<'_>]) -> Fault {
    let types = arguments
        .iter()
        .map(|argument| argument.type_name())
        .collect::<Vec<_>>()
        .join(", ");
    Fault::failed(format!("no such overload: {name} does not take ({types})"))
}

fn overflow() -> Fault {
    Fault::failed("integer overflow")
}

pub(super) fn negate(operand: Value<'_>) -> Evaluated<'_> {
    match operand {
        Value::Int(i) => i.checked_neg().map(Value::Int).ok_or_else(overflow),
        Value::Double(d) => Ok(Value::Double(-d)),
        Value::Duration(d) => d.checked_neg().map(Value::Duration).ok_or_else(overflow),
        other => Err(no_overload("-", &[&other])),
    }
}

pub(super) fn binary<'a>(operator: Operator, left: Value<'a>, right: Value<'a>, budget: &mut Budget) -> Evaluated<'a> {
    use Operator::*;
    let mut ordered = |symbol: &str, holds: fn(Ordering) -> bool| {
        compare::order(symbol, &left, &right, budget).map(|order| Value::Bool(holds(order)))
    };
    match operator {
        Less => ordered("<", Ordering::is_lt),
        LessOrEqual => ordered("<=", Ordering::is_le),
        Greater => ordered(">", Ordering::is_gt),
        GreaterOrEqual => ordered(">=", Ordering::is_ge),
        Equal => compare::equal(&left, &right, budget).map(Value::Bool),
        NotEqual => compare::same(&left, &right, budget).map(|equal| Value::Bool(!equal)),
        In => contained(&left, &right, budget),
        Add => add(left, right, budget),
        Subtract => subtract(left, right),
        Multiply => number("*", left, right, i64::checked_mul, u64::checked_mul, |a, b| a * b),
        Divide => {
            not_zero(&right, "division")?;
            number("/", left, right, i64::checked_div, u64::checked_div, |a, b| a / b)
        }
        Modulo => {
            not_zero(&right, "modulus")?;
            match (&left, &right) {
                (Value::Double(_), Value::Double(_)) => Err(no_overload("%", &[&left, &right])),
                _ => number("%", left, right, i64::checked_rem, u64::checked_rem, |a, _| a),
            }
        }
    }
}

fn not_zero(divisor: &Value<'_>, what: &str) -> Result<(), Fault> {
    match divisor {
        Value::Int(0) | Value::Uint(0) => Err(Fault::failed(format!("{what} by zero"))),
        _ => Ok(()),
    }
}

fn number<'a>(
    symbol: &str,
    left: Value<'a>,
    right: Value<'a>,
    int: fn(i64, i64) -> Option<i64>,
    uint: fn(u64, u64) -> Option<u64>,
    double: fn(f64, f64) -> f64,
) -> Evaluated<'a> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => int(a, b).map(Value::Int).ok_or_else(overflow),
        (Value::Uint(a), Value::Uint(b)) => uint(a, b).map(Value::Uint).ok_or_else(overflow),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(double(a, b))),
        (left, right) => Err(no_overload(symbol, &[&left, &right])),
    }
}

pub(super) fn add<'a>(left: Value<'a>, right: Value<'a>, budget: &mut Budget) -> Evaluated<'a> {
    match (left, right) {
        (Value::String(a), Value::String(b)) => {
            budget.make(a.len() + b.len())?;
            Ok(Value::string([&*a, &*b].concat()))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.make(a.len() + b.len())?;
            Ok(Value::Bytes([&*a, &*b].concat().into()))
        }
        (Value::List(a), Value::List(b)) => {
            budget.make_elements(a.len() + b.len())?;
            Ok(Value::list(a.iter().chain(b.iter()).collect()))
        }
        (Value::Duration(a), Value::Duration(b)) => a.checked_add(b).map(Value::Duration).ok_or_else(overflow),
        (Value::Timestamp(t), Value::Duration(d)) | (Value::Duration(d), Value::Timestamp(t)) => {
            t.plus(d).map(Value::Timestamp)
        }
        (left, right) => number("+", left, right, i64::checked_add, u64::checked_add, |a, b| a + b),
    }
}

fn subtract<'a>(left: Value<'a>, right: Value<'a>) -> Evaluated<'a> {
    match (left, right) {
        (Value::Duration(a), Value::Duration(b)) => a.checked_sub(b).map(Value::Duration).ok_or_else(overflow),
        (Value::Timestamp(t), Value::Duration(d)) => {
            t.plus(d.checked_neg().ok_or_else(overflow)?).map(Value::Timestamp)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => a.since(&b).map(Value::Duration),
        (left, right) => number("-", left, right, i64::checked_sub, u64::checked_sub, |a, b| a - b),
    }
}

fn contained<'a>(element: &Value<'a>, container: &Value<'a>, budget: &mut Budget) -> Evaluated<'a> {
    match container {
        Value::List(list) => {
            for candidate in list.iter() {
                budget.look(1)?;
                if compare::same(&candidate, element, budget)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        Value::Map(_) if matches!(element, Value::Bytes(_)) => Err(no_overload("in", &[element, container])),
        Value::Map(map) => Ok(Value::Bool(
            Key::from_value(element).is_some_and(|key| map.get(&key).is_some()),
        )),
        other => Err(no_overload("in", &[element, other])),
    }
}
