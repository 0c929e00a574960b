//! Lists, as sets too.

use std::cmp::Ordering;

use super::{Function, strings};
use crate::engine::expression::budget::{Budget, Fault};
use crate::engine::expression::compare;
use crate::engine::expression::evaluate::{Evaluated, Evaluation};
use crate::engine::expression::operators::{self, no_overload};
use crate::engine::expression::value::{List, Value};

/// How deeply lists are flattened, whatever was asked for.
const MAX_FLATTENED: u32 = 200;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::method("distinct", 1, 1, |e, arguments| {
        let mut distinct: Vec<Value<'_>> = Vec::new();
        for element in list(e, "distinct", arguments)?.iter() {
            if !contains(&distinct, &element, e.budget)? {
                e.budget.grow(distinct.len())?;
                distinct.push(element);
            }
        }
        Ok(Value::list(distinct))
    }),
    Function::method("flatten", 1, 2, |e, arguments| {
        let depth = match arguments {
            [_] => 1,
            [_, Value::Int(depth)] if *depth >= 0 => *depth,
            [_, Value::Int(_)] => return Err(Fault::failed("flatten(): the depth must not be negative")),
            _ => return Err(no_overload("flatten", &arguments.iter().collect::<Vec<_>>())),
        };
        let mut flat = Vec::new();
        flatten(list(e, "flatten", arguments)?, depth, 0, &mut flat, e.budget)?;
        Ok(Value::list(flat))
    }),
    Function::method("includes", 2, 2, |e, arguments| match &arguments[0] {
        Value::List(list) => Ok(Value::Bool(position(list.iter(), &arguments[1], e.budget)?.is_some())),
        other => compare::equal(other, &arguments[1], e.budget).map(Value::Bool),
    }),
    Function::method("indexOf", 2, 3, |e, arguments| match arguments {
        [Value::List(list), element] => {
            let found = position(list.iter(), element, e.budget)?;
            Ok(Value::Int(found.map_or(-1, |index| index as i64)))
        }
        _ => strings::index_of(arguments),
    }),
    Function::method("isSorted", 1, 1, |e, arguments| {
        let mut previous: Option<Value<'_>> = None;
        for element in list(e, "isSorted", arguments)?.iter() {
            let order = order("isSorted", previous.as_ref(), &element, e.budget)?;
            if order == Some(Ordering::Greater) {
                return Ok(Value::Bool(false));
            }
            previous = Some(element);
        }
        Ok(Value::Bool(true))
    }),
    Function::method("lastIndexOf", 2, 3, |e, arguments| match arguments {
        [Value::List(list), element] => {
            let found = position(list.iter().rev(), element, e.budget)?;
            Ok(Value::Int(found.map_or(-1, |index| (list.len() - 1 - index) as i64)))
        }
        _ => strings::last_index_of(arguments),
    }),
    Function::global("lists.range", 1, |e, arguments| match &arguments[0] {
        Value::Int(count) if *count < 0 => Err(Fault::failed("lists.range(): the size must not be negative")),
        Value::Int(count) => {
            e.budget.make_elements(usize::try_from(*count).unwrap_or(usize::MAX))?;
            Ok(Value::list((0..*count).map(Value::Int).collect()))
        }
        other => Err(no_overload("lists.range", &[other])),
    }),
    Function::method("max", 1, 1, |e, arguments| extreme(e, "max", arguments, Ordering::Less)),
    Function::method("min", 1, 1, |e, arguments| {
        extreme(e, "min", arguments, Ordering::Greater)
    }),
    Function::method("reverse", 1, 1, |e, arguments| {
        let list = list(e, "reverse", arguments)?;
        e.budget.make_elements(list.len())?;
        Ok(Value::list(list.iter().rev().collect()))
    }),
    Function::global("sets.contains", 2, |e, arguments| {
        let (set, subset) = sets("sets.contains", arguments)?;
        covers(set, subset, e.budget).map(Value::Bool)
    }),
    Function::global("sets.equivalent", 2, |e, arguments| {
        let (a, b) = sets("sets.equivalent", arguments)?;
        Ok(Value::Bool(covers(a, b, e.budget)? && covers(b, a, e.budget)?))
    }),
    Function::global("sets.intersects", 2, |e, arguments| {
        let (a, b) = sets("sets.intersects", arguments)?;
        for element in a.iter() {
            if position(b.iter(), &element, e.budget)?.is_some() {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
    Function::method("slice", 3, 3, |e, arguments| match arguments {
        [Value::List(list), Value::Int(start), Value::Int(end)] => {
            let length = list.len();
            match (usize::try_from(*start), usize::try_from(*end)) {
                (Ok(start), Ok(end)) if start <= end && end <= length => {
                    e.budget.make_elements(end - start)?;
                    Ok(Value::list((start..end).filter_map(|index| list.get(index)).collect()))
                }
                _ => Err(Fault::failed(format!(
                    "cannot slice({start}, {end}) a list of {length} elements"
                ))),
            }
        }
        _ => Err(no_overload("slice", &arguments.iter().collect::<Vec<_>>())),
    }),
    Function::method("sort", 1, 1, |e, arguments| {
        let elements = list(e, "sort", arguments)?.iter().collect::<Vec<_>>();
        compare::sort(elements.clone(), elements, e.budget)
    }),
    Function::method("sum", 1, 1, |e, arguments| {
        let mut sum = None;
        for element in list(e, "sum", arguments)?.iter() {
            if !matches!(
                element,
                Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_)
            ) {
                return Err(no_overload("sum", &[&arguments[0], &element]));
            }
            sum = Some(match sum {
                None => element,
                Some(sum) => operators::add(sum, element, e.budget)?,
            });
        }
        Ok(sum.unwrap_or(Value::Int(0)))
    }),
];

/// The list that a function goes through.
fn list<'v, 'a>(e: &mut Evaluation<'a, '_>, name: &str, arguments: &'v [Value<'a>]) -> Result<&'v List<'a>, Fault> {
    match arguments {
        [Value::List(list), ..] => {
            e.budget.look(list.len())?;
            Ok(list)
        }
        _ => Err(no_overload(name, &arguments.iter().collect::<Vec<_>>())),
    }
}

fn sets<'v, 'a>(name: &str, arguments: &'v [Value<'a>]) -> Result<(&'v List<'a>, &'v List<'a>), Fault> {
    match arguments {
        [Value::List(a), Value::List(b)] => Ok((a, b)),
        _ => Err(no_overload(name, &arguments.iter().collect::<Vec<_>>())),
    }
}

fn contains<'a>(elements: &[Value<'a>], sought: &Value<'a>, budget: &mut Budget) -> Result<bool, Fault> {
    Ok(position(elements.iter().cloned(), sought, budget)?.is_some())
}

fn position<'a>(
    elements: impl Iterator<Item = Value<'a>>,
    sought: &Value<'a>,
    budget: &mut Budget,
) -> Result<Option<usize>, Fault> {
    for (index, element) in elements.enumerate() {
        budget.look(1)?;
        if compare::same(&element, sought, budget)? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// Whether each element of `subset` is in `set`.
fn covers<'a>(set: &List<'a>, subset: &List<'a>, budget: &mut Budget) -> Result<bool, Fault> {
    for element in subset.iter() {
        if position(set.iter(), &element, budget)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn flatten<'a>(
    list: &List<'a>,
    depth: i64,
    level: u32,
    flat: &mut Vec<Value<'a>>,
    budget: &mut Budget,
) -> Result<(), Fault> {
    if level > MAX_FLATTENED {
        return Err(Fault::failed(format!(
            "flatten(): a list nests more than {MAX_FLATTENED} levels deep"
        )));
    }
    for element in list.iter() {
        budget.grow(flat.len())?;
        match element {
            Value::List(inner) if depth > 0 => flatten(&inner, depth - 1, level + 1, flat, budget)?,
            element => flat.push(element),
        }
    }
    Ok(())
}

/// The order of an element after another. Elements of different types have none, and are passed over; an element of a
/// type that has no order at all is an error.
fn order<'a>(
    name: &str,
    previous: Option<&Value<'a>>,
    element: &Value<'a>,
    budget: &mut Budget,
) -> Result<Option<Ordering>, Fault> {
    if !matches!(element, Value::Double(_)) {
        compare::order(name, element, element, budget)?;
    }
    match previous.map(|previous| compare::order(name, previous, element, budget)) {
        Some(Err(Fault::Failed(_))) | None => Ok(None),
        Some(order) => order.map(Some),
    }
}

/// The first element from which no other differs in this way.
fn extreme<'a>(e: &mut Evaluation<'a, '_>, name: &str, arguments: &[Value<'a>], worse: Ordering) -> Evaluated<'a> {
    let mut best: Option<Value<'a>> = None;
    for element in list(e, name, arguments)?.iter() {
        let order = order(name, best.as_ref(), &element, e.budget)?;
        if best.is_none() || order == Some(worse) {
            best = Some(element);
        }
    }
    best.ok_or_else(|| Fault::failed(format!("{name}() of an empty list")))
}
