//! Equality and order. Numbers compare across their types; values of other different types are unequal, and have no order.

use std::cmp::Ordering;

use super::budget::{Budget, Fault};
use super::operators::no_overload;
use super::value::Value;

/// How deeply values are compared.
const MAX_DEPTH: u32 = 200;

pub(super) fn equal(left: &Value<'_>, right: &Value<'_>, budget: &mut Budget) -> Result<bool, Fault> {
    equal_at(left, right, budget, 0)
}

/// Equality where values are sought or compared by `!=`: what can't be compared is not equal.
pub(super) fn same(left: &Value<'_>, right: &Value<'_>, budget: &mut Budget) -> Result<bool, Fault> {
    match equal(left, right, budget) {
        Err(Fault::Failed(_)) => Ok(false),
        equal => equal,
    }
}

fn equal_at(left: &Value<'_>, right: &Value<'_>, budget: &mut Budget, depth: u32) -> Result<bool, Fault> {
    if depth > MAX_DEPTH {
        return Err(Fault::failed(format!(
            "values that nest more than {MAX_DEPTH} levels deep can't be compared"
        )));
    }
    Ok(match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => {
            budget.read(a.len().min(b.len()))?;
            **a == **b
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.read(a.len().min(b.len()))?;
            a == b
        }
        (Value::List(a), Value::List(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b.iter()) {
                budget.look(1)?;
                if !equal_at(&a, &b, budget, depth + 1)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Map(a), Value::Map(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            budget.look(a.len())?;
            for (key, a) in a.entries() {
                match b.get(&key) {
                    Some(b) if equal_at(&a, &b, budget, depth + 1)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::Quantity(a), Value::Quantity(b)) => a == b,
        (Value::Quantity(_), _) => return Err(no_overload("==", &[left, right])),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => equal_at(a, b, budget, depth + 1)?,
            _ => false,
        },
        _ => numbers(left, right) == Some(Some(Ordering::Equal)),
    })
}

/// The order of two numbers: `None` if one isn't a number, `Some(None)` if one is NaN.
fn numbers(left: &Value<'_>, right: &Value<'_>) -> Option<Option<Ordering>> {
    Some(match (left, right) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => whole(b).map(|b| double_and_whole(*a, b))?,
        (a, Value::Double(b)) => whole(a).map(|a| double_and_whole(*b, a).map(Ordering::reverse))?,
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    })
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(i) => Some(i128::from(*i)),
        Value::Uint(u) => Some(i128::from(*u)),
        _ => None,
    }
}

/// As doubles, as Kubernetes compares them; but a double beyond the integers is beyond all of them.
fn double_and_whole(double: f64, whole: i128) -> Option<Ordering> {
    if double < i64::MIN as f64 {
        Some(Ordering::Less)
    } else if double > u64::MAX as f64 {
        Some(Ordering::Greater)
    } else {
        double.partial_cmp(&(whole as f64))
    }
}

/// A number without fraction, as an index is.
pub(super) fn whole_number(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int(i) => Some(*i),
        Value::Uint(u) => i64::try_from(*u).ok(),
        Value::Double(d) if d.fract() == 0.0 && d.abs() < 2f64.powi(63) => Some(*d as i64),
        _ => None,
    }
}

/// The order of two values; an error if they have none.
pub(super) fn order(
    operator: &str,
    left: &Value<'_>,
    right: &Value<'_>,
    budget: &mut Budget,
) -> Result<Ordering, Fault> {
    if let Some(order) = numbers(left, right) {
        return order.ok_or_else(|| Fault::failed("NaN has no order"));
    }
    match (left, right) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::String(a), Value::String(b)) => {
            budget.read(a.len().min(b.len()))?;
            Ok((**a).cmp(&**b))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.read(a.len().min(b.len()))?;
            Ok(a.cmp(b))
        }
        (Value::Duration(a), Value::Duration(b)) => Ok(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(a.cmp(b)),
        _ => Err(no_overload(operator, &[left, right])),
    }
}

/// The values in the order of their keys, which must be of one type; equal ones stay in their order.
pub(super) fn sort<'a>(values: Vec<Value<'a>>, keys: Vec<Value<'a>>, budget: &mut Budget) -> Result<Value<'a>, Fault> {
    budget.make_elements(values.len())?;
    if let Some(other) = keys.iter().find(|key| key.type_name() != keys[0].type_name()) {
        return Err(Fault::failed(format!(
            "only values of one type can be sorted, not {} and {}",
            keys[0].type_name(),
            other.type_name()
        )));
    }
    if let Some(first) = keys.first() {
        order("sort", first, first, budget)?;
    }
    let mut fault = None;
    let mut pairs = keys.into_iter().zip(values).collect::<Vec<_>>();
    pairs.sort_by(|(a, _), (b, _)| {
        if fault.is_some() {
            return Ordering::Equal;
        }
        budget
            .look(1)
            .and_then(|()| order("sort", a, b, budget))
            .unwrap_or_else(|f| {
                fault = Some(f);
                Ordering::Equal
            })
    });
    match fault {
        Some(fault) => Err(fault),
        None => Ok(Value::list(pairs.into_iter().map(|(_, value)| value).collect())),
    }
}
