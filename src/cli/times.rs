//! Times and durations, as people say them.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::Time;

/// The time now.
pub fn now() -> Time {
    Time::new(Timestamp::now())
}

/// How long something took or takes: `120ms`, `4.2s`, `2m10s`, `3h5m`, `2d4h`.
pub fn short(duration: Duration) -> String {
    let (millis, seconds) = (duration.as_millis(), duration.as_secs());
    match seconds {
        0 => format!("{millis}ms"),
        1..10 => format!("{seconds}.{}s", millis % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// How long ago or ahead something is, in whole seconds: it changes once a second at most.
pub fn whole(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        _ => short(duration),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    }
}

/// A moment that is to come, as a person reads it: `in 40s, at 03:12:04Z`; `now` where it is less than a second ahead.
pub fn ahead(at: Time, now: Time) -> String {
    if at.since(now) < Duration::from_secs(1) {
        return "now".into();
    }
    format!("in {}, at {}", whole(at.since(now)), clock(at, now))
}

/// The time of day, and the day where it is another.
pub fn clock(at: Time, now: Time) -> String {
    let (text, today) = (at.to_string(), now.to_string());
    match (text.get(..10), today.get(..10), text.get(11..19)) {
        (Some(day), Some(today), Some(time)) if day == today => format!("{time}Z"),
        (Some(day), _, Some(time)) => format!("{day} {time}Z"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        Time::new(text.parse().unwrap())
    }

    #[test]
    fn durations_are_short() {
        let said: Vec<_> = [120, 4_250, 59_900, 60_000, 130_000, 11_100_000, 187_200_000]
            .map(|millis| short(Duration::from_millis(millis)))
            .into();
        assert_eq!(said, ["120ms", "4.2s", "59s", "1m", "2m10s", "3h5m", "2d4h"]);
    }

    #[test]
    fn what_is_to_come_is_said_from_now() {
        let now = at("2026-11-24T23:59:30Z");
        assert_eq!(ahead(at("2026-11-24T23:59:50Z"), now), "in 20s, at 23:59:50Z");
        assert_eq!(ahead(at("2026-11-25T01:00:00Z"), now), "in 1h, at 2026-11-25 01:00:00Z");
        assert_eq!(ahead(now, now), "now");
    }
}
