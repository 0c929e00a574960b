//! The audit log: appended to with every write, and kept short.

use crate::api::{HistoryEntry, HistoryEvent, OperationStatus, Time};

/// How many entries the status keeps. Beyond it the oldest entries of attempts go first: a step that fails for days
/// keeps its first and its last failures' neighbours, and every other entry stays.
pub const MAX_HISTORY: usize = 150;
/// The longest message, in characters, that a status keeps.
pub const MAX_MESSAGE: usize = 512;
/// The longest message of an entry of the history.
const MAX_HISTORY_MESSAGE: usize = 160;

/// Appends an entry, and gives its sequence number.
pub fn append(
    status: &mut OperationStatus,
    time: Time,
    event: HistoryEvent,
    step: Option<(&str, i64)>,
    message: Option<&str>,
) -> i64 {
    status.seq += 1;
    status.history.push(HistoryEntry {
        seq: status.seq,
        time,
        event,
        step: step.map(|(name, _)| name.to_owned()),
        attempt: step.map_or(0, |(_, attempt)| attempt),
        message: message
            .filter(|m| !m.is_empty())
            .map(|m| shorten(m, MAX_HISTORY_MESSAGE)),
        actor: None,
    });
    trim(status);
    status.seq
}

/// The text, or as much of it as fits, with a mark where it was cut.
pub fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    kept + "…"
}

/// Drops the oldest entries of attempts but for the very first of each step.
fn trim(status: &mut OperationStatus) {
    while status.history.len() > MAX_HISTORY {
        let mut seen = std::collections::BTreeSet::new();
        let droppable = status.history.iter().position(|entry| {
            use HistoryEvent::*;
            let of_an_attempt = matches!(
                entry.event,
                AttemptStarted | AttemptFailed | AttemptLost | Accepted | Other
            );
            of_an_attempt && !seen.insert((entry.event, entry.step.clone()))
        });
        // With 100 steps at most, what is never dropped fits; should it not, the oldest goes.
        status.history.remove(droppable.unwrap_or(0));
        status.history_dropped += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_for_days_keeps_the_log_short_and_its_first_failure() {
        let mut status = OperationStatus::default();
        let now = Time::new("2026-11-24T03:00:00Z".parse().unwrap());
        append(&mut status, now, HistoryEvent::Started, None, None);
        for attempt in 1..2000 {
            append(
                &mut status,
                now,
                HistoryEvent::AttemptStarted,
                Some(("resize", attempt)),
                None,
            );
            append(
                &mut status,
                now,
                HistoryEvent::AttemptFailed,
                Some(("resize", attempt)),
                Some("503"),
            );
        }
        assert_eq!(status.history.len(), MAX_HISTORY);
        assert_eq!(status.history[0].event, HistoryEvent::Started);
        assert_eq!((status.history[1].attempt, status.history[2].attempt), (1, 1));
        assert_eq!(status.history.last().map(|e| (e.attempt, e.seq)), Some((1999, 3999)));
        assert_eq!(status.history_dropped, 3999 - MAX_HISTORY as i64);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(shorten("überlang", 4), "übe…");
        assert_eq!(shorten("kurz", 4), "kurz");
    }
}
