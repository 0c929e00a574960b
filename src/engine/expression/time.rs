//! Durations and timestamps, as Go has them: nanoseconds in an i64, and instants of the years 1 to 9999.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::budget::Fault;
use super::evaluate::Evaluated;
use super::value::Value;

const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;
/// The zero of Go's time.Time: the start of year 1.
pub(super) const GO_ZERO: Timestamp = Timestamp::constant(FIRST, 0);

fn in_range(timestamp: Timestamp) -> Evaluated<'static> {
    let seconds = timestamp.as_second() - i64::from(timestamp.subsec_nanosecond() < 0);
    if (FIRST..=LAST).contains(&seconds) {
        Ok(Value::Timestamp(timestamp))
    } else {
        Err(Fault::failed(
            "timestamp out of range: it must be of the years 1 to 9999",
        ))
    }
}

pub(super) fn from_seconds(seconds: i64) -> Evaluated<'static> {
    Timestamp::from_second(seconds)
        .map_err(|_| Fault::failed("timestamp out of range: it must be of the years 1 to 9999"))
        .and_then(in_range)
}

pub(super) fn seconds(timestamp: Timestamp) -> i64 {
    // jiff's seconds are rounded towards zero, Go's down.
    timestamp.as_second() - i64::from(timestamp.subsec_nanosecond() < 0)
}

pub(super) fn add<'a>(timestamp: Timestamp, nanoseconds: i64) -> Evaluated<'a> {
    timestamp
        .checked_add(SignedDuration::from_nanos(nanoseconds))
        .map_err(|_| Fault::failed("timestamp out of range: it must be of the years 1 to 9999"))
        .and_then(in_range)
}

pub(super) fn between<'a>(from: Timestamp, to: Timestamp) -> Evaluated<'a> {
    i64::try_from(to.as_nanosecond() - from.as_nanosecond())
        .map(Value::Duration)
        .map_err(|_| Fault::failed("duration out of range: it must be less than 292 years"))
}

/// RFC 3339, as Go reads it: a date, `T`, a time with or without fraction, `Z` or an offset.
pub(super) fn parse_timestamp(text: &str) -> Evaluated<'static> {
    let refused = || Fault::failed(format!("not an RFC 3339 timestamp (2026-01-31T12:00:00Z): {text:?}"));
    let (date_and_time, offset) = split_offset(text).ok_or_else(refused)?;
    let bytes = date_and_time.as_bytes();
    let shape = bytes.len() >= 19
        && bytes
            .iter()
            .take(19)
            .zip(b"0000-00-00T00:00:00")
            .all(|(byte, shape)| match shape {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            })
        && match &bytes[19..] {
            [] => true,
            [b'.' | b',', fraction @ ..] => !fraction.is_empty() && fraction.iter().all(u8::is_ascii_digit),
            _ => false,
        };
    if !shape {
        return Err(refused());
    }
    // Go keeps nine digits of a fraction; a 60th second it refuses, where jiff would not.
    let fraction = date_and_time.get(20..).unwrap_or_default();
    let whole = &date_and_time[..19];
    let nanoseconds = format!("{:0<9.9}", fraction).parse::<i32>().map_err(|_| refused())?;
    if &whole[17..] >= "60" {
        return Err(refused());
    }
    let civil = whole
        .parse::<DateTime>()
        .and_then(|civil| civil.with().subsec_nanosecond(nanoseconds).build())
        .and_then(|civil| offset.to_timestamp(civil))
        .map_err(|_| refused())?;
    in_range(civil)
}

fn split_offset(text: &str) -> Option<(&str, Offset)> {
    if let Some(rest) = text.strip_suffix('Z') {
        return Some((rest, Offset::UTC));
    }
    let at = text.len().checked_sub(6)?;
    let (rest, offset) = (text.get(..at)?, text.get(at..)?);
    let [sign, h1, h2, b':', m1, m2] = *offset.as_bytes() else {
        return None;
    };
    let digits = [h1, h2, m1, m2];
    if !matches!(sign, b'+' | b'-') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let [h1, h2, m1, m2] = digits.map(|digit| i32::from(digit - b'0'));
    let (hours, minutes) = (h1 * 10 + h2, m1 * 10 + m2);
    if hours > 24 || minutes > 59 {
        return None;
    }
    let seconds = (hours * 60 + minutes) * 60;
    Offset::from_seconds(if sign == b'-' { -seconds } else { seconds })
        .ok()
        .map(|offset| (rest, offset))
}

/// In UTC, with the digits of the fraction that count.
pub(super) fn timestamp_to_string(timestamp: Timestamp) -> String {
    let utc = Offset::UTC.to_datetime(timestamp);
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        utc.year(),
        utc.month(),
        utc.day(),
        utc.hour(),
        utc.minute(),
        utc.second()
    );
    if utc.subsec_nanosecond() != 0 {
        text.push_str(format!(".{:09}", utc.subsec_nanosecond()).trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Go's form of a duration: a sequence of numbers with units, such as `1h30m` or `-1.5s`.
pub(super) fn parse_duration(text: &str) -> Result<i64, Fault> {
    let refused = || {
        Fault::failed(format!(
            "not a duration such as 1h30m (units: h, m, s, ms, us, ns): {text:?}"
        ))
    };
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(refused());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(refused)?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(refused()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 20 {
            return Err(refused());
        }
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| refused())?
        };
        // Digits beyond the 18th are below a nanosecond of an hour.
        let fraction = &fraction[..fraction.len().min(18)];
        let part = match fraction {
            "" => 0,
            digits => digits.parse::<i128>().map_err(|_| refused())? * scale / 10i128.pow(digits.len() as u32),
        };
        total += whole * scale + part;
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return Err(refused());
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| refused())
}

/// As seconds, `90s` or `0.5s`: how CEL writes durations.
pub(super) fn duration_to_string(nanoseconds: i64) -> String {
    let seconds = (nanoseconds / 1_000_000_000) as f64 + (nanoseconds % 1_000_000_000) as f64 / 1e9;
    format!("{seconds}s")
}

/// The timestamp in a time zone: an IANA name, or an offset such as `+02:00` or `-5:30`; UTC without one.
///
/// Names are looked up in the tables that are part of the program, so that every replica gives the same answer.
pub(super) fn in_zone(timestamp: Timestamp, zone: Option<&str>) -> Result<Zoned, Fault> {
    let refused = || Fault::failed(format!("unknown time zone: {:?}", zone.unwrap_or_default()));
    let zone = match zone {
        None | Some("" | "UTC") => TimeZone::UTC,
        Some(offset) if offset.contains(':') => {
            let (hours, minutes) = offset.split_once(':').ok_or_else(refused)?;
            let hours_and_sign: i32 = hours.parse().map_err(|_| refused())?;
            let minutes: i32 = minutes.parse().map_err(|_| refused())?;
            if !(0..60).contains(&minutes) || !(-25..=25).contains(&hours_and_sign) {
                return Err(refused());
            }
            let minutes = if offset.starts_with('-') { -minutes } else { minutes };
            Offset::from_seconds((hours_and_sign * 60 + minutes) * 60)
                .map_err(|_| refused())?
                .to_time_zone()
        }
        Some(name) => TimeZoneDatabase::bundled().get(name).map_err(|_| refused())?,
    };
    Ok(timestamp.to_zoned(zone))
}
