//! Durations and timestamps, as Go has them: nanoseconds in an i64, and instants of the years 1 to 9999.

use std::cmp::Ordering;
use std::fmt;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZoneDatabase};

use super::budget::Fault;

/// An instant, and the offset of the zone in which it was written: that has no part in comparisons.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timestamp {
    utc: DateTime,
    offset_minutes: i32,
}

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

fn out_of_range() -> Fault {
    Fault::failed("timestamp out of range: it must be of the years 1 to 9999")
}

impl Timestamp {
    fn new(utc: DateTime, offset_minutes: i32) -> Result<Self, Fault> {
        if utc.year() < 1 {
            Err(out_of_range())
        } else {
            Ok(Self { utc, offset_minutes })
        }
    }

    pub fn from_seconds(seconds: i64) -> Result<Self, Fault> {
        Self::new(EPOCH, 0)?.shifted(SignedDuration::from_secs(seconds))
    }

    /// Since 1970, rounded down.
    pub fn seconds(&self) -> i64 {
        let since = self.utc.duration_since(EPOCH);
        since.as_secs() - i64::from(since.subsec_nanos() < 0)
    }

    fn shifted(&self, by: SignedDuration) -> Result<Self, Fault> {
        let utc = self.utc.checked_add(by).map_err(|_| out_of_range())?;
        Self::new(utc, self.offset_minutes)
    }

    pub fn plus(&self, nanoseconds: i64) -> Result<Self, Fault> {
        self.shifted(SignedDuration::from_nanos(nanoseconds))
    }

    /// In nanoseconds.
    pub fn since(&self, other: &Self) -> Result<i64, Fault> {
        i64::try_from(self.utc.duration_since(other.utc).as_nanos())
            .map_err(|_| Fault::failed("duration out of range: it must be less than 292 years"))
    }

    /// Whether it is the zero of Go's time.Time: the start of year 1.
    pub fn is_zero(&self) -> bool {
        self.utc == DateTime::constant(1, 1, 1, 0, 0, 0, 0)
    }

    /// RFC 3339, as Go reads it: a date, `T`, a time with or without fraction, `Z` or an offset.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let refused = || Fault::failed(format!("not an RFC 3339 timestamp (2026-01-31T12:00:00Z): {text:?}"));
        let (date_and_time, offset_minutes) = split_offset(text).ok_or_else(refused)?;
        // Go takes an hour of one digit.
        let date_and_time = match date_and_time.as_bytes().get(12) {
            Some(b':') if date_and_time.is_char_boundary(11) => {
                format!("{}0{}", &date_and_time[..11], &date_and_time[11..])
            }
            _ => date_and_time.to_owned(),
        };
        let bytes = date_and_time.as_bytes();
        let shape = bytes.len() >= 19
            && bytes
                .iter()
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
        // A 60th second is none for Go, where jiff takes it for the 59th.
        if !shape || &bytes[17..19] >= b"60".as_slice() {
            return Err(refused());
        }
        let nanoseconds = format!("{:0<9.9}", date_and_time.get(20..).unwrap_or_default());
        let nanoseconds = nanoseconds.parse().map_err(|_| refused())?;
        let civil = date_and_time[..19]
            .parse::<DateTime>()
            .and_then(|civil| civil.with().subsec_nanosecond(nanoseconds).build())
            .map_err(|_| refused())?;
        let written = Self {
            utc: civil,
            offset_minutes,
        };
        written.shifted(SignedDuration::from_mins(-i64::from(offset_minutes)))
    }

    /// The date and time in a zone: an IANA name, or an offset such as `+02:00` or `-5:30`; UTC without one.
    ///
    /// Names are looked up in the tables that are part of the program, so that every replica gives the same answer.
    pub fn in_zone(&self, zone: &str) -> Result<DateTime, Fault> {
        let refused = || Fault::failed(format!("unknown time zone: {zone:?}"));
        if zone.is_empty() || zone == "UTC" {
            return Ok(self.utc);
        }
        if let Some((hours, minutes)) = zone.split_once(':') {
            let (hours, minutes): (i32, i32) = hours.parse().ok().zip(minutes.parse().ok()).ok_or_else(refused)?;
            let minutes = if zone.starts_with('-') {
                -i64::from(minutes)
            } else {
                i64::from(minutes)
            };
            let offset = SignedDuration::from_mins(i64::from(hours) * 60 + minutes);
            return self.utc.checked_add(offset).map_err(|_| out_of_range());
        }
        let found = TimeZoneDatabase::bundled().get(zone).map_err(|_| refused())?;
        // The lookup ignores case, Go's doesn't.
        if found.iana_name() != Some(zone) {
            return Err(refused());
        }
        let instant = Offset::UTC.to_timestamp(self.utc).map_err(|_| out_of_range())?;
        Ok(found.to_datetime(instant))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> Ordering {
        self.utc.cmp(&other.utc)
    }
}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.utc == other.utc
    }
}

impl Eq for Timestamp {}

/// RFC 3339 with the digits of the fraction that count, in the zone in which it was written.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An instant in the first or last hours of the range may have no date in its zone: then it is written in UTC.
        let local = self
            .utc
            .checked_add(SignedDuration::from_mins(self.offset_minutes.into()));
        let (local, offset) = local.map_or((self.utc, 0), |local| (local, self.offset_minutes));
        write!(f, "{:04}-{:02}-{:02}", local.year(), local.month(), local.day())?;
        write!(f, "T{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second())?;
        if local.subsec_nanosecond() != 0 {
            f.write_str(format!(".{:09}", local.subsec_nanosecond()).trim_end_matches('0'))?;
        }
        match offset {
            0 => f.write_str("Z"),
            offset => {
                let sign = if offset < 0 { '-' } else { '+' };
                write!(f, "{sign}{:02}:{:02}", offset.abs() / 60, offset.abs() % 60)
            }
        }
    }
}

/// What stands before the offset, and the offset in minutes.
fn split_offset(text: &str) -> Option<(&str, i32)> {
    if let Some(rest) = text.strip_suffix('Z') {
        return Some((rest, 0));
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
    if hours > 24 || minutes > 60 {
        return None;
    }
    let minutes = hours * 60 + minutes;
    Some((rest, if sign == b'-' { -minutes } else { minutes }))
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
