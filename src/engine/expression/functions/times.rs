//! The parts of timestamps and durations.

use jiff::civil::DateTime;

use super::Function;
use crate::engine::expression::evaluate::Evaluated;
use crate::engine::expression::operators::no_overload;

use crate::engine::expression::value::Value;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::method("getDate", 1, 2, |_, a| part("getDate", a, |t| t.day().into(), None)),
    Function::method("getDayOfMonth", 1, 2, |_, a| {
        part("getDayOfMonth", a, |t| i64::from(t.day()) - 1, None)
    }),
    Function::method("getDayOfWeek", 1, 2, |_, a| {
        part("getDayOfWeek", a, |t| t.weekday().to_sunday_zero_offset().into(), None)
    }),
    Function::method("getDayOfYear", 1, 2, |_, a| {
        part("getDayOfYear", a, |t| i64::from(t.day_of_year()) - 1, None)
    }),
    Function::method("getFullYear", 1, 2, |_, a| {
        part("getFullYear", a, |t| t.year().into(), None)
    }),
    Function::method("getHours", 1, 2, |_, a| {
        part("getHours", a, |t| t.hour().into(), Some(3_600_000_000_000))
    }),
    Function::method("getMilliseconds", 1, 2, |_, a| {
        part("getMilliseconds", a, |t| t.millisecond().into(), Some(1_000_000))
    }),
    Function::method("getMinutes", 1, 2, |_, a| {
        part("getMinutes", a, |t| t.minute().into(), Some(60_000_000_000))
    }),
    Function::method("getMonth", 1, 2, |_, a| {
        part("getMonth", a, |t| i64::from(t.month()) - 1, None)
    }),
    Function::method("getSeconds", 1, 2, |_, a| {
        part("getSeconds", a, |t| t.second().into(), Some(1_000_000_000))
    }),
];

/// A part of a timestamp in a zone, or a duration in whole units of so many nanoseconds.
fn part<'a>(name: &str, arguments: &[Value<'a>], get: fn(&DateTime) -> i64, unit: Option<i64>) -> Evaluated<'a> {
    match (arguments, unit) {
        ([Value::Timestamp(timestamp)], _) => Ok(Value::Int(get(&timestamp.in_zone("")?))),
        ([Value::Timestamp(timestamp), Value::String(zone)], _) => Ok(Value::Int(get(&timestamp.in_zone(zone)?))),
        ([Value::Duration(duration)], Some(unit)) => Ok(Value::Int(duration / unit)),
        _ => Err(no_overload(name, &arguments.iter().collect::<Vec<_>>())),
    }
}
