//! When a schedule is due.

use super::*;

fn due_times(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let calendar = Calendar::parse(schedule, Some(zone)).unwrap();
    let mut last = at(after);
    let mut times = vec![];
    while times.len() < count
        && let Some(next) = calendar.after(last)
    {
        assert!(next > last, "{next} after {last}");
        last = next;
        times.push(next.to_string().replace(":00.000Z", "Z"));
    }
    times
}

#[test]
fn due_times_are_those_of_cron() {
    let of = |schedule| due_times(schedule, "UTC", "2026-11-24T10:00:00Z", 3);
    for (schedule, expected) in [
        (
            "* * * * *",
            ["2026-11-24T10:01Z", "2026-11-24T10:02Z", "2026-11-24T10:03Z"],
        ),
        (
            "*/20 10-11 * * *",
            ["2026-11-24T10:20Z", "2026-11-24T10:40Z", "2026-11-24T11:00Z"],
        ),
        (
            "0 3 * * MON-FRI",
            ["2026-11-25T03:00Z", "2026-11-26T03:00Z", "2026-11-27T03:00Z"],
        ),
        (
            "0 0 31 * *",
            ["2026-12-31T00:00Z", "2027-01-31T00:00Z", "2027-03-31T00:00Z"],
        ),
        (
            "30 4 1,15 JAN *",
            ["2027-01-01T04:30Z", "2027-01-15T04:30Z", "2028-01-01T04:30Z"],
        ),
        (
            "0 12 13 * 5",
            ["2026-11-27T12:00Z", "2026-12-04T12:00Z", "2026-12-11T12:00Z"],
        ),
    ] {
        assert_eq!(of(schedule), expected, "{schedule}");
    }
    assert_eq!(of("0 0 30 2 *"), Vec::<String>::new());
}

#[test]
fn a_time_that_the_clocks_jump_over_is_due_when_they_do() {
    // Berlin: 02:00 becomes 03:00, at 01:00 UTC on 2027-03-28.
    assert_eq!(
        due_times("30 2 * * *", "Europe/Berlin", "2027-03-26T12:00:00Z", 4),
        [
            "2027-03-27T01:30Z",
            "2027-03-28T01:00Z",
            "2027-03-29T00:30Z",
            "2027-03-30T00:30Z"
        ]
    );
    // Several of them are due once, and so is one at the end of the gap.
    assert_eq!(
        due_times("0,30 2-3 * * *", "Europe/Berlin", "2027-03-27T23:00:00Z", 4),
        [
            "2027-03-28T01:00Z",
            "2027-03-28T01:30Z",
            "2027-03-29T00:00Z",
            "2027-03-29T00:30Z"
        ]
    );
    // New York: 02:00 becomes 03:00, at 07:00 UTC on 2027-03-14.
    assert_eq!(
        due_times("15 2 * * *", "America/New_York", "2027-03-12T12:00:00Z", 3),
        ["2027-03-13T07:15Z", "2027-03-14T07:00Z", "2027-03-15T06:15Z"]
    );
}

#[test]
fn a_time_that_exists_twice_is_due_once() {
    // Berlin: 03:00 becomes 02:00, at 01:00 UTC on 2026-10-25.
    assert_eq!(
        due_times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3),
        ["2026-10-25T00:30Z", "2026-10-26T01:30Z", "2026-10-27T01:30Z"]
    );
    // Also as seen from within the repeated hour.
    for within in ["2026-10-25T01:00:00Z", "2026-10-25T01:20:00Z", "2026-10-25T01:59:59Z"] {
        assert_eq!(
            due_times("30 2,3 * * *", "Europe/Berlin", within, 1),
            ["2026-10-25T02:30Z"],
            "{within}"
        );
    }
    // New York: 02:00 becomes 01:00, at 06:00 UTC on 2026-11-01.
    assert_eq!(
        due_times("0,45 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 4),
        [
            "2026-11-01T05:00Z",
            "2026-11-01T05:45Z",
            "2026-11-02T06:00Z",
            "2026-11-02T06:45Z"
        ]
    );
}

#[test]
fn every_so_often_goes_by_elapsed_time() {
    for (zone, from) in [
        ("Europe/Berlin", "2026-10-25T00:00:00Z"),
        ("Europe/Berlin", "2027-03-28T00:00:00Z"),
        ("America/New_York", "2026-11-01T04:00:00Z"),
        ("America/New_York", "2027-03-14T06:00:00Z"),
    ] {
        let times = due_times("*/30 * * * *", zone, from, 8);
        let expected: Vec<_> = (1..=8)
            .map(|n| {
                at(from)
                    .plus(Duration::from_secs(n * 1800))
                    .to_string()
                    .replace(":00.000Z", "Z")
            })
            .collect();
        assert_eq!(times, expected, "{zone} from {from}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let wrong = |schedule, zone| Calendar::parse(schedule, zone).err().unwrap().to_string();
    assert_eq!(
        wrong("0 3 * * *", Some("Europe/Berlinn")),
        "spec.timeZone: there is no time zone \"Europe/Berlinn\": write it as Europe/Berlin"
    );
    assert!(wrong("0 3 * *", None).starts_with("spec.schedule: \"0 3 * *\" has 4 fields"));
    let how = "one, several (1,2), a range (1-5), all (*) or every so many (*/2)";
    for (schedule, what) in [
        ("61 3 * * *", "the minute is \"61\", but 0 to 59 is expected"),
        ("0 3,25 * * *", "the hour is \"3,25\", but 0 to 23 is expected"),
        ("0 3 0 * *", "the day of the month is \"0\", but 1 to 31 is expected"),
        (
            "0 3 * Juli *",
            "the month is \"Juli\", but 1 to 12 or JAN to DEC is expected",
        ),
        (
            "0 3 * * 5-",
            "the day of the week is \"5-\", but 0 to 7 or SUN to SAT is expected",
        ),
    ] {
        assert_eq!(
            wrong(schedule, None),
            format!("spec.schedule: {schedule:?}: {what}: {how}")
        );
    }
}

#[test]
fn jitter_is_the_same_each_time_and_never_reaches_the_next_due_time() {
    let calendar = Calendar::parse("*/5 * * * *", None).unwrap();
    let mut due = at("2026-11-24T10:00:00Z");
    let mut delays = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let start = calendar.with_jitter("u1", due, Duration::from_secs(3600));
        assert_eq!(start, calendar.with_jitter("u1", due, Duration::from_secs(3600)));
        let next = calendar.after(due).unwrap();
        assert!(due <= start && start < next, "{start}");
        delays.insert(start.since(due));
        due = next;
    }
    assert!(delays.len() > 190, "they are spread");
    assert_ne!(
        calendar.with_jitter("u1", due, Duration::from_secs(60)),
        calendar.with_jitter("u2", due, Duration::from_secs(60))
    );
    assert_eq!(calendar.with_jitter("u1", due, Duration::ZERO), due);
}
