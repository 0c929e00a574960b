//! Conversions between types, and `size`, `type` and `dyn`.

use std::sync::Arc;

use super::{Body, Function};
use crate::engine::expression::budget::Fault;
use crate::engine::expression::evaluate::Evaluated;
use crate::engine::expression::operators::no_overload;
use crate::engine::expression::time::{self, Timestamp};
use crate::engine::expression::value::Value;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::global("bool", 1, |_, arguments| to_bool(&arguments[0])),
    Function::global("bytes", 1, |e, arguments| match &arguments[0] {
        Value::String(s) => {
            e.budget.make(s.len())?;
            Ok(Value::Bytes(s.as_bytes().into()))
        }
        bytes @ Value::Bytes(_) => Ok(bytes.clone()),
        other => Err(no_overload("bytes", &[other])),
    }),
    Function::global("double", 1, |_, arguments| to_double(&arguments[0])),
    Function::global("duration", 1, |_, arguments| match &arguments[0] {
        Value::String(s) => time::parse_duration(s).map(Value::Duration),
        duration @ Value::Duration(_) => Ok(duration.clone()),
        other => Err(no_overload("duration", &[other])),
    }),
    Function::global("dyn", 1, |_, arguments| Ok(arguments[0].clone())),
    Function::global("int", 1, |_, arguments| to_int(&arguments[0])),
    Function::global("size", 1, SIZE),
    Function::method("size", 1, 1, SIZE),
    Function::global("string", 1, |e, arguments| {
        let text = to_string(&arguments[0])?;
        e.budget.make(text.len())?;
        Ok(Value::String(crate::engine::expression::value::Text::Shared(text)))
    }),
    Function::global("timestamp", 1, |_, arguments| match &arguments[0] {
        Value::String(s) => Timestamp::parse(s).map(Value::Timestamp),
        Value::Int(seconds) => Timestamp::from_seconds(*seconds).map(Value::Timestamp),
        timestamp @ Value::Timestamp(_) => Ok(timestamp.clone()),
        other => Err(no_overload("timestamp", &[other])),
    }),
    Function::global("type", 1, |_, arguments| Ok(Value::Type(arguments[0].type_name()))),
    Function::global("uint", 1, |_, arguments| to_uint(&arguments[0])),
];

const SIZE: Body = |_, arguments| {
    let size = match &arguments[0] {
        Value::String(s) => s.chars().count(),
        Value::Bytes(b) => b.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        other => return Err(no_overload("size", &[other])),
    };
    Ok(Value::Int(size as i64))
};

fn to_bool<'a>(value: &Value<'a>) -> Evaluated<'a> {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(s) => match &**s {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            other => Err(Fault::failed(format!("not a bool: {other:?}"))),
        },
        other => Err(no_overload("bool", &[other])),
    }
}

fn to_int<'a>(value: &Value<'a>) -> Evaluated<'a> {
    let int = match value {
        Value::Int(i) => Some(*i),
        Value::Uint(u) => i64::try_from(*u).ok(),
        // The bounds themselves are out: as doubles they stand for numbers on either side.
        Value::Double(d) => (*d > -(2f64.powi(63)) && *d < 2f64.powi(63)).then_some(*d as i64),
        Value::String(s) => {
            return s
                .parse()
                .map(Value::Int)
                .map_err(|_| Fault::failed(format!("not an int: {:?}", &**s)));
        }
        Value::Timestamp(t) => Some(t.seconds()),
        Value::Duration(d) => Some(*d),
        other => return Err(no_overload("int", &[other])),
    };
    int.map(Value::Int).ok_or_else(|| Fault::failed("integer overflow"))
}

fn to_uint<'a>(value: &Value<'a>) -> Evaluated<'a> {
    let uint = match value {
        Value::Uint(u) => Some(*u),
        Value::Int(i) => u64::try_from(*i).ok(),
        Value::Double(d) => (*d >= 0.0 && *d < 2f64.powi(64)).then_some(*d as u64),
        Value::String(s) if s.starts_with('+') => None,
        Value::String(s) => {
            return s
                .parse()
                .map(Value::Uint)
                .map_err(|_| Fault::failed(format!("not a uint: {:?}", &**s)));
        }
        other => return Err(no_overload("uint", &[other])),
    };
    uint.map(Value::Uint)
        .ok_or_else(|| Fault::failed("unsigned integer overflow"))
}

fn to_double<'a>(value: &Value<'a>) -> Evaluated<'a> {
    match value {
        Value::Double(_) => Ok(value.clone()),
        Value::Int(i) => Ok(Value::Double(*i as f64)),
        Value::Uint(u) => Ok(Value::Double(*u as f64)),
        Value::String(s) => parse_double(s).map(Value::Double),
        other => Err(no_overload("double", &[other])),
    }
}

/// As Go reads it, but for hexadecimal: digits may be grouped by underscores.
fn parse_double(text: &str) -> Result<f64, Fault> {
    let refused = || Fault::failed(format!("not a double: {text:?}"));
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let grouped = |at: usize| is_digit(at.checked_sub(1)) && is_digit(Some(at + 1));
    if !(0..bytes.len()).all(|at| bytes[at] != b'_' || grouped(at)) {
        return Err(refused());
    }
    let double: f64 = text.replace('_', "").parse().map_err(|_| refused())?;
    // A number too large for a double is an error, where Rust gives infinity.
    if double.is_infinite() && bytes.iter().any(u8::is_ascii_digit) {
        return Err(Fault::failed(format!("out of a double's range: {text:?}")));
    }
    Ok(double)
}

/// What `string()` gives.
pub(in crate::engine::expression) fn to_string(value: &Value<'_>) -> Result<Arc<str>, Fault> {
    Ok(match value {
        Value::String(s) => Arc::from(&**s),
        Value::Bool(b) => b.to_string().into(),
        Value::Int(i) => i.to_string().into(),
        Value::Uint(u) => u.to_string().into(),
        Value::Double(d) => double_to_string(*d).into(),
        Value::Bytes(b) => std::str::from_utf8(b)
            .map_err(|_| Fault::failed("the bytes are not UTF-8"))?
            .into(),
        Value::Timestamp(t) => t.to_string().into(),
        Value::Duration(d) => time::duration_to_string(*d).into(),
        other => return Err(no_overload("string", &[other])),
    })
}

/// As Go's %g: the fewest digits that say it, with an exponent below 1e-4 and from 1e6 on.
pub(in crate::engine::expression) fn double_to_string(double: f64) -> String {
    if double.is_nan() {
        return "NaN".to_owned();
    }
    if double.is_infinite() {
        return if double > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{double:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if double == 0.0 || (-4..6).contains(&exponent) {
        format!("{double}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}
