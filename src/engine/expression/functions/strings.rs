//! Strings. Positions count characters (code points), not bytes.

use super::{Body, Function};
use crate::engine::expression::budget::Fault;
use crate::engine::expression::evaluate::{Evaluated, Evaluation};
use crate::engine::expression::operators::no_overload;
use crate::engine::expression::value::Value;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::method("charAt", 2, 2, |_, arguments| match arguments {
        [Value::String(s), Value::Int(index)] => {
            let at = position(s, *index)?;
            Ok(Value::string(s[at..].chars().take(1).collect::<String>()))
        }
        _ => wrong("charAt", arguments),
    }),
    Function::method("contains", 2, 2, |_, arguments| {
        search("contains", arguments, |s, part| s.contains(part))
    }),
    Function::method("endsWith", 2, 2, |_, arguments| {
        search("endsWith", arguments, |s, part| s.ends_with(part))
    }),
    Function::method("join", 1, 2, JOIN),
    Function::method("lowerAscii", 1, 1, |e, arguments| {
        same_size(e, "lowerAscii", arguments, str::to_ascii_lowercase)
    }),
    Function::method("replace", 3, 4, REPLACE),
    Function::method("split", 2, 3, SPLIT),
    Function::method("startsWith", 2, 2, |_, arguments| {
        search("startsWith", arguments, |s, part| s.starts_with(part))
    }),
    Function::global("strings.quote", 1, |e, arguments| match &arguments[0] {
        Value::String(s) => {
            e.budget.make(2 * s.len() + 2)?;
            Ok(Value::string(quote(s)))
        }
        _ => wrong("strings.quote", arguments),
    }),
    Function::method("substring", 2, 3, |e, arguments| {
        let (s, start, end) = match arguments {
            [Value::String(s), Value::Int(start)] => (s, *start, None),
            [Value::String(s), Value::Int(start), Value::Int(end)] => (s, *start, Some(*end)),
            _ => return wrong("substring", arguments),
        };
        e.budget.make(s.len())?;
        if end.is_some_and(|end| start > end) {
            return Err(Fault::failed(format!(
                "substring(): the start, {start}, is after the end"
            )));
        }
        let from = position(s, start)?;
        let to = end.map_or(Ok(s.len()), |end| position(s, end))?;
        Ok(Value::string(&s[from..to]))
    }),
    // Go's white space is Unicode's, as Rust's is.
    Function::method("trim", 1, 1, |e, arguments| {
        same_size(e, "trim", arguments, |s| s.trim().to_owned())
    }),
    Function::method("upperAscii", 1, 1, |e, arguments| {
        same_size(e, "upperAscii", arguments, str::to_ascii_uppercase)
    }),
];

fn wrong<'a>(name: &str, arguments: &[Value<'a>]) -> Evaluated<'a> {
    Err(no_overload(name, &arguments.iter().collect::<Vec<_>>()))
}

/// The byte at which the character of this index starts; the index after the last character is the end.
fn position(s: &str, index: i64) -> Result<usize, Fault> {
    usize::try_from(index)
        .ok()
        .and_then(|index| s.char_indices().map(|(at, _)| at).chain([s.len()]).nth(index))
        .ok_or_else(|| Fault::failed(format!("index out of range: {index}")))
}

fn search<'a>(name: &str, arguments: &[Value<'a>], holds: fn(&str, &str) -> bool) -> Evaluated<'a> {
    match arguments {
        [Value::String(s), Value::String(part)] => Ok(Value::Bool(holds(s, part))),
        _ => wrong(name, arguments),
    }
}

fn same_size<'a>(
    e: &mut Evaluation<'a, '_>,
    name: &str,
    arguments: &[Value<'a>],
    change: fn(&str) -> String,
) -> Evaluated<'a> {
    match arguments {
        [Value::String(s)] => {
            e.budget.make(s.len())?;
            Ok(Value::string(change(s)))
        }
        _ => wrong(name, arguments),
    }
}

pub(super) fn index_of<'a>(arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (s, part, offset) = match arguments {
        [Value::String(s), Value::String(part)] => (s, part, 0),
        [Value::String(s), Value::String(part), Value::Int(offset)] => (s, part, *offset),
        _ => return wrong("indexOf", arguments),
    };
    let length = s.chars().count() as i64;
    let index = match offset {
        ..0 => return Err(Fault::failed(format!("index out of range: {offset}"))),
        _ if part.is_empty() => offset.min(length),
        _ if offset >= length => -1,
        _ => {
            let from = position(s, offset)?;
            s[from..]
                .find(&**part)
                .map_or(-1, |at| s[..from + at].chars().count() as i64)
        }
    };
    Ok(Value::Int(index))
}

pub(super) fn last_index_of<'a>(arguments: &[Value<'a>]) -> Evaluated<'a> {
    let (s, part, offset) = match arguments {
        [Value::String(s), Value::String(part)] => (s, part, None),
        [Value::String(s), Value::String(part), Value::Int(offset)] => (s, part, Some(*offset)),
        _ => return wrong("lastIndexOf", arguments),
    };
    let length = s.chars().count() as i64;
    let index = match offset {
        Some(offset @ ..0) => return Err(Fault::failed(format!("index out of range: {offset}"))),
        offset if part.is_empty() => offset.map_or(length, |offset| offset.min(length)),
        Some(offset) if offset >= length => -1,
        // A match must start at the offset or before it.
        offset => {
            let last_start = offset.map_or(Ok(s.len()), |offset| position(s, offset))?;
            let end = (last_start + part.len()).min(s.len());
            let end = (end..=s.len()).find(|end| s.is_char_boundary(*end)).unwrap_or(s.len());
            s[..end]
                .rmatch_indices(&**part)
                .map(|(at, _)| at)
                .find(|at| *at <= last_start)
                .map_or(-1, |at| s[..at].chars().count() as i64)
        }
    };
    Ok(Value::Int(index))
}

const REPLACE: Body = |e, arguments| {
    let (s, old, new, limit) = match arguments {
        [Value::String(s), Value::String(old), Value::String(new)] => (s, old, new, -1),
        [
            Value::String(s),
            Value::String(old),
            Value::String(new),
            Value::Int(limit),
        ] => (s, old, new, *limit),
        _ => return wrong("replace", arguments),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // An empty string is found before each character and at the end, in Go as in Rust.
    let count = s.matches(&**old).take(limit).count();
    e.budget
        .make(s.len() - count * old.len() + count.saturating_mul(new.len()))?;
    Ok(Value::string(s.replacen(&**old, new, count)))
};

const SPLIT: Body = |e, arguments| {
    let (s, separator, limit) = match arguments {
        [Value::String(s), Value::String(separator)] => (s, separator, -1),
        [Value::String(s), Value::String(separator), Value::Int(limit)] => (s, separator, *limit),
        _ => return wrong("split", arguments),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    e.budget.make(s.len())?;
    let mut parts = Vec::new();
    let mut part = |e: &mut Evaluation<'_, '_>, text: &str| {
        e.budget.grow(parts.len())?;
        parts.push(Value::string(text));
        Ok(())
    };
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    if separator.is_empty() {
        // Into characters, the last part being the rest.
        let mut rest = &**s;
        let mut count = 1;
        while let Some(c) = rest.chars().next() {
            let end = if count == limit { rest.len() } else { c.len_utf8() };
            part(e, &rest[..end])?;
            rest = &rest[end..];
            count += 1;
        }
    } else {
        s.splitn(limit, &**separator).try_for_each(|text| part(e, text))?;
    }
    Ok(Value::list(parts))
};

const JOIN: Body = |e, arguments| {
    let (list, separator) = match arguments {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, &**separator),
        _ => return wrong("join", arguments),
    };
    let mut size = separator.len() * list.len().saturating_sub(1);
    for element in list.iter() {
        match element {
            Value::String(s) => size += s.len() + 1,
            other => return Err(no_overload("join", &[&arguments[0], &other])),
        }
        e.budget.step()?;
    }
    e.budget.make(size)?;
    let mut joined = String::with_capacity(size);
    for (index, element) in list.iter().enumerate() {
        if index > 0 {
            joined.push_str(separator);
        }
        if let Value::String(s) = element {
            joined.push_str(&s);
        }
    }
    Ok(Value::string(joined))
};

/// With CEL's escapes, in double quotes.
fn quote(s: &str) -> String {
    let mut quoted = String::with_capacity(s.len() + 2);
    quoted.push('"');
    for c in s.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
