//! The audit log: appended to with every write. Its tail is in the status; what is older goes into OperationHistory
//! objects, chunk by chunk, so that nothing of it is lost and the status stays small.

use crate::api::{HistoryEntry, HistoryEvent, OperationStatus, Time};

/// With so many entries in the status, the oldest [`CHUNK`] go into an OperationHistory.
const SPILL_AT: usize = 150;
/// How many entries a chunk has.
const CHUNK: usize = 100;
/// With so many entries in the status nothing more is started before some of them have gone.
const FULL_AT: usize = 220;
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
    status.seq
}

/// Takes the last entry back, and its number with it: a number that is missing is an entry that was lost.
pub fn take_back(status: &mut OperationStatus) {
    if status.history.pop().is_some() {
        status.seq -= 1;
    }
}

/// The text, or as much of it as fits, with a mark where it was cut.
pub fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    kept + "…"
}

/// The oldest entries, if it is time that they go into an OperationHistory.
pub fn chunk(status: &OperationStatus) -> Option<&[HistoryEntry]> {
    (status.history.len() >= SPILL_AT).then(|| &status.history[..CHUNK])
}

/// Drops the entries up to this sequence number, which an OperationHistory has.
pub fn trim(status: &mut OperationStatus, spilled: i64) {
    let kept = status.history.partition_point(|entry| entry.seq <= spilled);
    if kept > 0 {
        status.history.drain(..kept);
        status.history_spilled = spilled;
    }
}

/// True if nothing more is to be started before a chunk has gone.
pub fn is_full(status: &OperationStatus) -> bool {
    status.history.len() >= FULL_AT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_chunk_has_goes_and_nothing_else() {
        let mut status = OperationStatus::default();
        let now = Time::new("2026-11-24T03:00:00Z".parse().unwrap());
        for attempt in 1..SPILL_AT as i64 {
            append(
                &mut status,
                now,
                HistoryEvent::AttemptStarted,
                Some(("resize", attempt)),
                None,
            );
            assert!(chunk(&status).is_none());
        }
        append(&mut status, now, HistoryEvent::AttemptFailed, None, Some("503"));
        let (first, last) = (chunk(&status).unwrap()[0].seq, chunk(&status).unwrap()[CHUNK - 1].seq);
        assert_eq!((first, last), (1, CHUNK as i64));
        trim(&mut status, last);
        assert_eq!((status.history[0].seq, status.history_spilled), (last + 1, last));
        let same = status.clone();
        trim(&mut status, last);
        assert_eq!(status, same);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(shorten("überlang", 4), "übe…");
        assert_eq!(shorten("kurz", 4), "kurz");
    }
}
