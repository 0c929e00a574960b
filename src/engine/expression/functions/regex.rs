//! Regular expressions, with RE2's syntax.

use super::{Body, Function};
use crate::engine::expression::operators::no_overload;
use crate::engine::expression::value::Value;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::method("find", 2, 2, |e, arguments| match arguments {
        [Value::String(text), Value::String(pattern)] => {
            let found = e.patterns.get(pattern, text, e.budget)?.find(text).unwrap_or_default();
            e.budget.make(found.len())?;
            Ok(Value::string(found))
        }
        _ => Err(no_overload("find", &arguments.iter().collect::<Vec<_>>())),
    }),
    Function::method("findAll", 2, 3, |e, arguments| {
        let (text, pattern, limit) = match arguments {
            [Value::String(text), Value::String(pattern)] => (text, pattern, -1),
            [Value::String(text), Value::String(pattern), Value::Int(limit)] => (text, pattern, *limit),
            _ => return Err(no_overload("findAll", &arguments.iter().collect::<Vec<_>>())),
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut list = Vec::new();
        let pattern = e.patterns.get(pattern, text, e.budget)?;
        for found in pattern.find_all(text).take(limit) {
            e.budget.make(found.len())?;
            e.budget.grow(list.len())?;
            list.push(Value::string(found));
        }
        Ok(Value::list(list))
    }),
    Function::global("matches", 2, MATCHES),
    Function::method("matches", 2, 2, MATCHES),
];

const MATCHES: Body = |e, arguments| match arguments {
    [Value::String(text), Value::String(pattern)] => {
        Ok(Value::Bool(e.patterns.get(pattern, text, e.budget)?.is_match(text)))
    }
    _ => Err(no_overload("matches", &arguments.iter().collect::<Vec<_>>())),
};
