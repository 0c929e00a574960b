//! `format`: "%s of %d".format(["x", 3]), with the clauses that Kubernetes' version of it knows.

use std::sync::LazyLock;

use regex::Regex;

use super::{Function, convert};
use crate::engine::expression::budget::Fault;
use crate::engine::expression::evaluate::Evaluation;
use crate::engine::expression::operators::no_overload;
use crate::engine::expression::time;
use crate::engine::expression::value::{Key, Value};

/// Digits after the point, when the clause doesn't say.
const DEFAULT_PRECISION: usize = 6;
/// The most that a clause may ask for: Kubernetes has no limit, and no need of more.
const MAX_PRECISION: usize = 1000;
/// How deeply lists and maps are written out.
const MAX_DEPTH: u32 = 100;

pub(super) static FUNCTIONS: &[Function] = &[Function::method("format", 2, 2, |e, arguments| match arguments {
    [Value::String(template), Value::List(list)] => {
        let mut out = String::new();
        let mut rest: &str = template;
        let mut index = 0;
        while let Some(at) = rest.find('%') {
            push(e, &mut out, &rest[..at])?;
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                push(e, &mut out, "%")?;
                rest = after;
                continue;
            }
            let argument = list
                .get(index)
                .ok_or_else(|| Fault::failed(format!("format(): there is no argument for clause {}", index + 1)))?;
            index += 1;
            let (clause, precision, after) = clause(rest)?;
            rest = after;
            let text = formatted(e, clause, precision, &argument)?;
            push(e, &mut out, &text)?;
        }
        push(e, &mut out, rest)?;
        Ok(Value::string(out))
    }
    _ => Err(no_overload("format", &arguments.iter().collect::<Vec<_>>())),
})];

fn push(e: &mut Evaluation<'_, '_>, out: &mut String, text: &str) -> Result<(), Fault> {
    e.budget.lengthen(out.len(), text.len())?;
    out.push_str(text);
    Ok(())
}

/// The clause after a `%`, its precision, and what follows.
fn clause(text: &str) -> Result<(char, Option<usize>, &str), Fault> {
    let (precision, text) = match text.strip_prefix('.') {
        None => (None, text),
        Some(digits) => {
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            let precision = digits[..end]
                .parse()
                .ok()
                .filter(|precision| *precision <= MAX_PRECISION);
            let precision =
                precision.ok_or_else(|| Fault::failed(format!("format(): a wrong precision: {}", &digits[..end])))?;
            (Some(precision), &digits[end..])
        }
    };
    let clause = text
        .chars()
        .next()
        .ok_or_else(|| Fault::failed("format(): a clause is not finished"))?;
    Ok((clause, precision, &text[clause.len_utf8()..]))
}

fn formatted(
    e: &mut Evaluation<'_, '_>,
    clause: char,
    precision: Option<usize>,
    value: &Value<'_>,
) -> Result<String, Fault> {
    let refused = |takes: &str| {
        Err(Fault::failed(format!(
            "format(): %{clause} takes {takes}, not {}",
            value.type_name()
        )))
    };
    let precision = precision.unwrap_or(DEFAULT_PRECISION);
    match (clause, value) {
        ('s', value) => {
            let mut out = String::new();
            write(e, &mut out, value, false, 0)?;
            Ok(out)
        }
        ('d', Value::Int(i)) => Ok(i.to_string()),
        ('d', Value::Uint(u)) => Ok(u.to_string()),
        ('d', _) => refused("integers"),
        ('f', value) => match double(value) {
            Some(d) => Ok(fixed(d, precision)),
            None => refused("doubles"),
        },
        ('e', value) => match double(value) {
            // For Kubernetes the precision is the width: what it formats with is "%6e".
            Some(d) => Ok(format!("{:>precision$}", scientific(d))),
            None => refused("doubles"),
        },
        ('b', Value::Int(i)) => Ok(radix(*i, |u| format!("{u:b}"))),
        ('b', Value::Uint(u)) => Ok(format!("{u:b}")),
        ('b', Value::Bool(b)) => Ok(u8::from(*b).to_string()),
        ('b', _) => refused("integers and bools"),
        ('o', Value::Int(i)) => Ok(radix(*i, |u| format!("{u:o}"))),
        ('o', Value::Uint(u)) => Ok(format!("{u:o}")),
        ('o', _) => refused("integers"),
        ('x' | 'X', value) => {
            let hex = match value {
                Value::Int(i) => radix(*i, |u| format!("{u:x}")),
                Value::Uint(u) => format!("{u:x}"),
                Value::String(s) => hex(e, s.as_bytes())?,
                Value::Bytes(b) => hex(e, b)?,
                _ => return refused("integers, strings and bytes"),
            };
            Ok(if clause == 'X' { hex.to_uppercase() } else { hex })
        }
        _ => Err(Fault::failed(format!("format(): unknown clause %{clause}"))),
    }
}

/// With a sign of its own, where Rust would write two's complement.
fn radix(int: i64, digits: fn(u64) -> String) -> String {
    format!("{}{}", if int < 0 { "-" } else { "" }, digits(int.unsigned_abs()))
}

fn hex(e: &mut Evaluation<'_, '_>, bytes: &[u8]) -> Result<String, Fault> {
    e.budget.make(2 * bytes.len())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(d) => Some(*d),
        Value::String(s) => match &**s {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// What English writes for numbers that are none.
fn not_finite(double: f64) -> Option<String> {
    match double {
        d if d.is_nan() => Some("NaN".to_owned()),
        f64::INFINITY => Some("∞".to_owned()),
        f64::NEG_INFINITY => Some("-∞".to_owned()),
        _ => None,
    }
}

/// As English groups it: 1,234.500000.
fn fixed(double: f64, precision: usize) -> String {
    if let Some(text) = not_finite(double) {
        return text;
    }
    let plain = format!("{:.precision$}", double.abs());
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if double < 0.0 { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{point}{fraction}")
}

/// As English writes it: 1.052033×10⁰³.
fn scientific(double: f64) -> String {
    if let Some(text) = not_finite(double) {
        return text;
    }
    // Zero has no sign.
    let double = if double == 0.0 { 0.0 } else { double };
    let plain = format!("{double:.DEFAULT_PRECISION$e}");
    let (digits, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ("⁻", exponent),
        None => ("", exponent),
    };
    let raised: String = format!("{exponent:0>2}").chars().map(superscript).collect();
    format!("{digits}×10{sign}{raised}")
}

fn superscript(digit: char) -> char {
    let superscripts = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    digit
        .to_digit(10)
        .and_then(|digit| superscripts.get(digit as usize))
        .copied()
        .unwrap_or(digit)
}

/// A value as %s has it; inside a list or map (`nested`) as a literal.
fn write(
    e: &mut Evaluation<'_, '_>,
    out: &mut String,
    value: &Value<'_>,
    nested: bool,
    depth: u32,
) -> Result<(), Fault> {
    if depth > MAX_DEPTH {
        return Err(Fault::failed(format!(
            "format(): a value nests more than {MAX_DEPTH} levels deep"
        )));
    }
    e.budget.step()?;
    let text = match value {
        Value::Null => "null".to_owned(),
        Value::Type(name) => (*name).to_owned(),
        Value::List(list) => {
            push(e, out, "[")?;
            for (index, element) in list.iter().enumerate() {
                push(e, out, if index > 0 { ", " } else { "" })?;
                write(e, out, &element, true, depth + 1)?;
            }
            "]".to_owned()
        }
        Value::Map(map) => {
            let mut entries = Vec::with_capacity(map.len());
            for (key, value) in map.entries() {
                let mut entry = match &key {
                    Key::String(s) => go_quote(s),
                    key => convert::to_string(&key.clone().into_value())?.to_string(),
                };
                entry.push(':');
                let key_size = entry.len();
                write(e, &mut entry, &value, true, depth + 1)?;
                entries.push((key_size, entry));
            }
            entries.sort_by(|(a_size, a), (b_size, b)| a[..*a_size - 1].cmp(&b[..*b_size - 1]));
            let entries = entries.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Double(d) if nested && d.is_finite() => format!("{d:.DEFAULT_PRECISION$}"),
        Value::String(s) if nested => go_quote(s),
        Value::Bytes(_) if nested => format!("b{}", go_quote(&convert::to_string(value)?)),
        Value::Double(d) if nested => go_quote(&convert::double_to_string(*d)),
        Value::Timestamp(t) if nested => format!("timestamp({})", go_quote(&t.to_string())),
        Value::Duration(d) if nested => format!("duration({})", go_quote(&time::duration_to_string(*d))),
        Value::Optional(_) | Value::Quantity(_) => {
            return Err(Fault::failed(format!(
                "format(): %s does not take {}",
                value.type_name()
            )));
        }
        value => convert::to_string(value)?.to_string(),
    };
    push(e, out, &text)
}

/// What Go's %q writes as it is: letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_printed(c: char) -> bool {
    static PRINTED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[\pL\pM\pN\pP\pS]$").ok());
    match c {
        ' '..='~' => true,
        c if c.is_ascii() => false,
        c => PRINTED
            .as_ref()
            .is_some_and(|printed| printed.is_match(c.encode_utf8(&mut [0; 4]))),
    }
}

/// As Go's %q.
fn go_quote(s: &str) -> String {
    let mut quoted = String::with_capacity(s.len() + 2);
    quoted.push('"');
    for c in s.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\u{b}' => quoted.push_str("\\v"),
            c if is_printed(c) => quoted.push(c),
            c if c.is_ascii() => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c if c <= '\u{ffff}' => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    quoted.push('"');
    quoted
}
