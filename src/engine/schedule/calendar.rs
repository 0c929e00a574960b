//! The times that a cron expression names in a time zone.
//!
//! cronexpr says which civil times match. What they are in a time zone is said here, as cron does it when clocks change: a
//! time that doesn't exist is due at the moment when the clocks jumped over it, and one that exists twice is due the first
//! time. An expression whose hour is `*` goes by elapsed time instead: every 5 minutes is every 5 minutes.

use std::time::Duration;

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions, parse_crontab_with};
use k8s_openapi::jiff::civil::DateTime;
use k8s_openapi::jiff::tz::{Offset, TimeZone, TimeZoneTransition};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::api::{self, Time};
use crate::engine::InvalidSpec;

/// How many changes of the clocks are looked past, at most, for the next time: more than the four years that cronexpr looks
/// ahead have.
const MAX_CHANGES: usize = 64;

/// A cron expression in a time zone.
pub struct Calendar {
    /// Both, as people read them.
    pub text: String,
    cron: Crontab,
    zone: TimeZone,
    every_hour: bool,
}

impl Calendar {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong, by its field.
    pub fn parse(schedule: &str, time_zone: Option<&str>) -> Result<Self, InvalidSpec> {
        let invalid = |field: &str, message: String| InvalidSpec {
            field: field.into(),
            message,
        };
        let name = time_zone.unwrap_or("UTC");
        let zone = TimeZone::get(name).map_err(|_| {
            let message = format!("there is no time zone {name:?}: write it as Europe/Berlin");
            invalid("spec.timeZone", message)
        })?;
        let fields: Vec<&str> = schedule.split_ascii_whitespace().collect();
        if fields.len() != 5 {
            let message = format!(
                "{schedule:?} has {} fields: minute, hour, day of the month, month and day of the week are needed, as in 0 3 * * *",
                fields.len()
            );
            return Err(invalid("spec.schedule", message));
        }
        let cron = read(&fields)
            .ok_or_else(|| invalid("spec.schedule", format!("{schedule:?}: {}", what_is_wrong(&fields))))?;
        Ok(Self {
            text: format!("{} {name}", fields.join(" ")),
            cron,
            zone,
            every_hour: fields[1].starts_with('*'),
        })
    }

    /// The first due time after a moment; none if there is none in about four years.
    pub fn after(&self, moment: Time) -> Option<Time> {
        let mut from = moment.timestamp();
        let mut offset = self.zone.to_offset(from);
        let mut civil = offset.to_datetime(from);
        if let Some(change) = self.last_change(from) {
            civil = civil.max(self.resumes(&change)?.checked_sub(TICK).ok()?);
        }
        for _ in 0..MAX_CHANGES {
            let next = self.matching_after(civil)?;
            let Some(change) = self.zone.following(from).next() else {
                return instant(next, offset);
            };
            let (at, until) = (change.timestamp(), offset.to_datetime(change.timestamp()));
            if next < until {
                return instant(next, offset);
            }
            let jumped_to = change.offset().to_datetime(at);
            if !self.every_hour && next < jumped_to {
                return Some(Time::new(at)); // the clocks jumped over it
            }
            civil = self.resumes(&change)?.checked_sub(TICK).ok()?;
            (from, offset) = (at, change.offset());
        }
        None
    }

    /// The change of the clocks before or at a moment.
    fn last_change(&self, moment: Timestamp) -> Option<TimeZoneTransition<'_>> {
        let later = moment.checked_add(SignedDuration::from_nanos(1)).ok()?;
        self.zone.preceding(later).next()
    }

    /// The first civil time after a change that counts: clocks that were set back repeat nothing.
    fn resumes(&self, change: &TimeZoneTransition<'_>) -> Option<DateTime> {
        let at = change.timestamp();
        let now = change.offset().to_datetime(at);
        if self.every_hour {
            return Some(now);
        }
        let just_before = at.checked_sub(SignedDuration::from_nanos(1)).ok()?;
        let until = self.zone.to_offset(just_before).to_datetime(at);
        Some(now.max(until))
    }

    /// The first civil time after one that the expression names.
    fn matching_after(&self, civil: DateTime) -> Option<DateTime> {
        let as_utc = Offset::UTC.to_timestamp(civil).ok()?;
        let next = self.cron.find_next(MakeTimestamp(as_utc)).ok()?;
        Some(next.datetime())
    }

    /// When what is due at a time is started: up to `most` later, and before the next due time. Always the same for the
    /// same schedule and due time.
    pub fn with_jitter(&self, uid: &str, due: Time, most: Duration) -> Time {
        if most.is_zero() {
            return due;
        }
        let room = self.after(due).map_or(most, |next| next.since(due));
        let most = u64::try_from(most.min(room).as_millis()).unwrap_or(u64::MAX);
        let digest = Sha256::digest(format!("{uid}/{}", due.millis()).as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        due.plus(Duration::from_millis(u64::from_be_bytes(first) % most.max(1)))
    }

    /// A moment before every due time that is started after `begin`.
    pub fn before_all_within(&self, begin: Time, jitter: Option<&api::Duration>) -> Time {
        let most = jitter.map(|jitter| jitter.get()).unwrap_or_default();
        begin.minus(most + Duration::from_millis(1))
    }
}

/// The fields of an expression, and what each may name.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of the week", "0 to 7 or SUN to SAT"),
];

fn read(fields: &[&str]) -> Option<Crontab> {
    let mut options = ParseOptions::default();
    options.fallback_timezone_option = FallbackTimezoneOption::UTC;
    parse_crontab_with(&fields.join(" "), options).ok()
}

/// What is wrong with an expression of five fields that can't be read: the first of them that can't be read alone.
fn what_is_wrong(fields: &[&str]) -> String {
    let alone = |i: usize| {
        let mut fields_of_it = ["*"; FIELDS.len()];
        fields_of_it[i] = fields[i];
        read(&fields_of_it)
    };
    let wrong = FIELDS.iter().enumerate().find(|(i, _)| alone(*i).is_none());
    match wrong {
        Some((i, (name, takes))) => format!(
            "the {name} is {:?}, but {takes} is expected: one, several (1,2), a range (1-5), all (*) or every so many (*/2)",
            fields[i]
        ),
        None => "its fields don't go together".into(),
    }
}

/// Less than a minute, by which a search begins before its first minute.
const TICK: SignedDuration = SignedDuration::from_secs(1);

fn instant(civil: DateTime, offset: Offset) -> Option<Time> {
    offset.to_timestamp(civil).ok().map(Time::new)
}
