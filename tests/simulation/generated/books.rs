//! What must be so at the end of every run: the history, the status, the books of the service and of the cluster, and
//! the answers to people agree.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast::api::{
    CloudOperation, HistoryEntry, HistoryEvent, OperationHistory, OperationStatus, StepState, StepType,
};
use holdfast::engine::IdempotencyKey;
use kube::ResourceExt;
use serde_json::Value;

use crate::deeds;
use crate::world::World;

/// All that is written of one operation.
#[derive(Default)]
struct Record {
    name: String,
    statuses: Vec<OperationStatus>,
    history: BTreeMap<i64, HistoryEntry>,
}

fn records(world: &World) -> HashMap<String, Record> {
    let mut records: HashMap<String, Record> = HashMap::new();
    for write in world.server.writes() {
        let Some(after) = write
            .change
            .after
            .filter(|_| write.change.key.resource == "cloudoperations")
        else {
            continue;
        };
        let operation: CloudOperation = serde_json::from_value(Value::clone(&after.object)).unwrap();
        let record = records.entry(operation.uid().unwrap()).or_default();
        record.name = operation.name_any();
        if let Some(status) = operation.status.filter(|status| record.statuses.last() != Some(status)) {
            for entry in &status.history {
                let known = record.history.entry(entry.seq).or_insert_with(|| entry.clone());
                assert_eq!(known, entry, "an entry of the history changed");
            }
            record.statuses.push(status);
        }
    }
    records
}

/// What a step's last entry in the history says of its state.
fn explains(event: HistoryEvent, state: StepState) -> bool {
    use HistoryEvent::*;
    match state {
        StepState::Running => event == AttemptStarted,
        StepState::Waiting => matches!(event, StepWaiting | Accepted),
        StepState::BackingOff => matches!(event, AttemptFailed | StepWaiting), // the latter of a retry while it is held
        StepState::Cancelling => event == AttemptFailed,
        StepState::Undecided => event == StepUndecided,
        StepState::Succeeded => event == StepSucceeded,
        StepState::Failed => event == StepFailed,
        StepState::TimedOut => event == StepTimedOut,
        StepState::Cancelled => event == StepCancelled,
        StepState::Skipped => event == StepSkipped,
    }
}

/// What must be so at the end of every run.
pub fn examine(world: &World) {
    world.check();
    let records = records(world);
    // Everything that was asked was answered.
    for (name, state) in world.came_of_it() {
        assert!(state.is_some(), "action {name} was never answered");
    }
    // Nothing is missing in the history.
    let chunks = world.server.list::<OperationHistory>();
    for operation in world.server.list::<CloudOperation>() {
        let uid = operation.uid().unwrap();
        let of_it = chunks.iter().filter(|chunk| chunk.spec.operation_ref.uid == uid);
        let mut entries: Vec<_> = of_it.flat_map(|chunk| chunk.spec.entries.iter()).collect();
        let status = operation.status.as_ref().unwrap();
        entries.extend(&status.history);
        entries.sort_by_key(|entry| entry.seq);
        let seqs: Vec<i64> = entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(
            seqs,
            (1..=status.seq).collect::<Vec<_>>(),
            "{}: the history has gaps",
            operation.name_any()
        );
    }
    for record in records.values() {
        decided_once(record);
        for status in &record.statuses {
            told_by_history(record, status);
        }
    }
    effects(world, &records);
}

/// No action is decided on twice: once it is forgotten, it is never heard of again.
fn decided_once(record: &Record) {
    let (mut known, mut forgotten) = (BTreeSet::new(), BTreeSet::new());
    for status in &record.statuses {
        let decided: BTreeSet<&str> = status.actions.iter().map(|decided| decided.uid.as_str()).collect();
        let again: Vec<_> = decided.intersection(&forgotten).collect();
        assert!(
            again.is_empty(),
            "{}: actions {again:?} were decided on again",
            record.name
        );
        forgotten.extend(known.difference(&decided).copied());
        known.extend(decided);
    }
    let event =
        |entry: &&HistoryEntry| matches!(entry.event, HistoryEvent::ActionApplied | HistoryEvent::ActionRejected);
    assert_eq!(
        record.history.values().filter(event).count(),
        known.len(),
        "{}: an action was decided on twice",
        record.name
    );
}

/// The history up to a status tells the state of each step in it.
fn told_by_history(record: &Record, status: &OperationStatus) {
    let mut last: HashMap<&str, HistoryEvent> = HashMap::new();
    for entry in record.history.range(..=status.seq).map(|(_, entry)| entry) {
        if let Some(step) = &entry.step {
            last.insert(step, entry.event);
        }
    }
    for step in &status.steps {
        let event = last.get(step.name.as_str()).copied();
        assert!(
            event.is_some_and(|event| explains(event, step.state)),
            "{}: step {} is {:?}, its history says {event:?}",
            record.name,
            step.name,
            step.state
        );
    }
}

/// The service's book, that of the cluster and the journals agree: the service was called under known keys alone, each
/// for one thing; an effect has one key, but for what a person had done again; and what succeeded was done.
fn effects(world: &World, records: &HashMap<String, Record>) {
    let mut keys = HashMap::new();
    let (mut again, mut by_hand) = (0, BTreeSet::new());
    for (uid, record) in records {
        for step in record.statuses.iter().flat_map(|status| &status.steps) {
            let key = IdempotencyKey::new(uid, &step.name, step.epoch).to_string();
            keys.insert(key, (&record.name, &step.name));
        }
        for entry in record
            .history
            .values()
            .filter(|entry| entry.event == HistoryEvent::ActionApplied)
        {
            let message = entry.message.as_deref().unwrap_or_default();
            if message.ends_with("was completed") || message.ends_with("was skipped") {
                by_hand.insert((uid.clone(), message.split(' ').nth(1).unwrap_or_default().to_owned()));
            }
            again += usize::from(!message.ends_with("was received") && !message.contains("approved"));
        }
    }
    let mut paths_of = HashMap::<String, BTreeSet<String>>::new();
    for (key, path) in world.service.asked() {
        assert!(
            keys.contains_key(&key) || path.starts_with("/local/"),
            "{path} was asked under an unknown key"
        );
        paths_of.entry(key).or_default().insert(path);
    }
    for (key, paths) in &paths_of {
        assert_eq!(paths.len(), 1, "{:?} used one key for {paths:?}", keys.get(key));
    }
    for (path, times) in world.service.effects() {
        assert!(
            times <= 1 + again,
            "{path} was done under {times} keys, though people asked {again} times"
        );
    }
    let created = deeds::created(&world.server);
    for ((uid, step), epochs) in &created {
        assert!(
            epochs.len() <= 1 + again,
            "{step} of {uid} created something in epochs {epochs:?}, though people asked {again} times"
        );
    }
    for (uid, record) in records {
        let Some(status) = record.statuses.last() else { continue };
        for step in status
            .steps
            .iter()
            .filter(|step| step.state == StepState::Succeeded && step.items.is_none())
        {
            let key = IdempotencyKey::new(uid, &step.name, step.epoch).to_string();
            let epochs = created.get(&(uid.clone(), step.name.clone()));
            let done = match step.step_type {
                StepType::Http => paths_of.contains_key(&key),
                StepType::Job | StepType::Operation => epochs.is_some_and(|epochs| epochs.contains(&step.epoch)),
                _ => true,
            };
            let by_hand = by_hand.contains(&(uid.clone(), step.name.clone()));
            assert!(done || by_hand, "{} succeeded, but was never done", step.name);
        }
    }
}

/// What was written, as far as it must be the same in each run of a seed: without the names of processes.
pub fn told(world: &World) -> Vec<String> {
    let writes = world.server.writes().into_iter();
    let lines = writes
        .filter(|write| write.change.key.resource == "cloudoperations")
        .map(|write| {
            let status = write
                .change
                .after
                .as_ref()
                .map(|after| after.object["status"].clone())
                .unwrap_or_default();
            let status: OperationStatus = serde_json::from_value(status).unwrap_or_default();
            let steps: Vec<_> = status
                .steps
                .iter()
                .map(|step| (&step.name, step.state, step.attempt, step.epoch))
                .collect();
            format!("{} {} {} {steps:?}", write.time, write.change.key.name, status.seq)
        });
    lines.collect()
}
