//! Who waits for whom: operations with the same concurrency key, and those of a namespace that runs only so many at once.
//! Kept in memory, from what the cache has; what may never be wrong, who holds a key, is in OperationLock objects.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use super::cached::Cached;
use super::cloud_operation::identity;
use crate::api::{LockHolder, OPERATION_LABEL, OperationState, RESTORED_LABEL, Time};
use crate::engine::concurrency_key;

/// True if an operation was created by another's step: it is a part of that one, which has a place in its namespace's line
/// already. If it stood in that line, too, it could wait for the one that waits for it.
pub fn is_part(operation: &impl ResourceExt) -> bool {
    operation.labels().contains_key(OPERATION_LABEL)
}

/// A line in which operations stand: by namespace, that of a concurrency key, or that of the whole namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The namespace.
    pub namespace: String,
    /// The key.
    pub key: Option<String>,
}

/// The lines.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: HashMap<Line, Standing>,
    /// Where an operation stands, by its uid.
    places: HashMap<String, HashMap<Line, Turn>>,
}

/// Who stands in a line.
#[derive(Default)]
struct Standing {
    /// The uids of those that run.
    running: HashSet<String>,
    /// Those that wait, the first one first.
    waiting: BTreeSet<Turn>,
}

/// Who comes first: who was created first, of those that need no place in their namespace before the others. Who has such
/// a place may wait for one without, its child, and so may not wait behind one that waits for a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    needs_place: bool,
    created: Option<Time>,
    name: String,
    uid: String,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in an operation as it is now; `capped` if its namespace runs only so many at once. Answers the operations
    /// that are to be looked at: for which there may be room.
    pub fn see(&self, operation: &Cached, capped: bool) -> Vec<ObjectRef<Cached>> {
        let uid = operation.uid().unwrap_or_default();
        if operation.state().is_some_and(OperationState::is_finished) {
            // One that is to run again keeps its place: this may be older than what let it in.
            let comes_back = self.state().comes_back(&uid);
            return if comes_back { vec![] } else { self.leave(&uid) };
        }
        let line = |key| Line {
            namespace: operation.namespace().unwrap_or_default(),
            key,
        };
        let (started, mut lines) = (operation.is_started(), vec![]);
        let in_line = capped && !is_part(operation);
        let reads = operation.excludes_others() || (in_line && !started);
        let whole = if reads { operation.parse().ok() } else { None };
        if reads && !started {
            // One that can't be read, or is being deleted, starts as little as one that is held.
            let held = operation.labels().contains_key(RESTORED_LABEL)
                || operation.meta().deletion_timestamp.is_some()
                || whole.as_ref().is_none_or(|whole| whole.spec.suspend == Some(true));
            if held {
                return self.leave(&uid); // it takes no turn from another meanwhile
            }
        }
        if let Some(whole) = &whole
            && let Some(concurrency) = &whole.spec.concurrency
        {
            // One without a key ends as soon as it is looked at.
            lines.extend(concurrency_key(concurrency, &whole.spec.input, &identity(whole)).map(|key| line(Some(key))));
        }
        // One that waits for a key waits in that line alone, until it is its turn there.
        if in_line && (started || !operation.excludes_others()) {
            lines.push(line(None));
        }
        let turn = Turn::of(operation, capped);
        let mut state = self.state();
        for line in lines {
            if started {
                state.run(line, &turn);
            } else if !state.runs(&line, &uid) {
                state.wait(line, turn.clone());
            }
        }
        vec![]
    }

    /// Lets an operation leave: it has ended or is gone. Answers whose turn it may be now.
    pub fn leave(&self, uid: &str) -> Vec<ObjectRef<Cached>> {
        self.state().leave(uid)
    }

    /// Lets an operation leave one line. Answers whose turn it may be now.
    pub fn step_out(&self, line: &Line, uid: &str) -> Option<ObjectRef<Cached>> {
        let mut state = self.state();
        let turn = state.places.get_mut(uid)?.remove(line)?;
        state.vacate(line, &turn);
        state.next(line)
    }

    /// Lets all leave but these.
    pub fn keep(&self, uids: &HashSet<String>) -> Vec<ObjectRef<Cached>> {
        let mut state = self.state();
        let gone: Vec<String> = state
            .places
            .keys()
            .filter(|uid| !uids.contains(*uid))
            .cloned()
            .collect();
        gone.iter().flat_map(|uid| state.leave(uid)).collect()
    }

    /// True if it is an operation's turn to run in a line of which so many run at once; it counts as one that runs from
    /// then on. Else it waits, and is woken when its turn may have come.
    pub fn enter(&self, line: &Line, turn: Turn, most: usize) -> bool {
        let mut state = self.state();
        if state.runs(line, &turn.uid) {
            return true;
        }
        state.wait(line.clone(), turn.clone());
        let standing = &state.lines[line];
        let room = standing.running.len() + standing.waiting.range(..&turn).take(most).count() < most;
        if room {
            state.run(line.clone(), &turn);
        }
        room
    }

    /// Lets an operation that entered wait again, as these hold the key. Answers those of them that stand in line: they
    /// need not wait for it, and count as running.
    pub fn back(&self, line: &Line, turn: Turn, holders: &[LockHolder]) -> Vec<ObjectRef<Cached>> {
        let mut state = self.state();
        if let Some(standing) = state.lines.get_mut(line) {
            standing.running.remove(&turn.uid);
        }
        state.wait(line.clone(), turn);
        let mut let_in = vec![];
        for LockHolder { name, uid, .. } in holders {
            let place = state.places.get(uid).and_then(|place| place.get(line)).cloned();
            if let Some(turn) = place.filter(|_| !state.runs(line, uid)) {
                state.run(line.clone(), &turn);
                let_in.push(ObjectRef::new(name).within(&line.namespace));
            }
        }
        let_in
    }

    /// Whose turn it may be in a line, after another has entered, or waits for something else.
    pub fn next(&self, line: &Line) -> Option<ObjectRef<Cached>> {
        self.state().next(line)
    }

    /// True if an operation counts as one that runs.
    pub fn runs(&self, line: &Line, uid: &str) -> bool {
        self.state().runs(line, uid)
    }

    /// True if an operation waits for a place in its namespace: it can't start before it has one.
    pub fn waits_for_place(&self, namespace: &str, uid: &str) -> bool {
        self.state().waits_for_place(namespace, uid)
    }

    /// True if nobody stands in a line.
    pub fn is_empty(&self, line: &Line) -> bool {
        !self.state().lines.contains_key(line)
    }
}

impl Turn {
    /// That of an operation that has not started; `capped` if its namespace runs only so many at once.
    pub fn of(operation: &impl ResourceExt, capped: bool) -> Self {
        Self {
            needs_place: capped && !is_part(operation),
            created: operation.creation_timestamp().map(|time| Time::new(time.0)),
            name: operation.name_any(),
            uid: operation.uid().unwrap_or_default(),
        }
    }

    /// That of an operation that had ended, and which a person lets go on: it is older than all that wait.
    pub fn back_again(operation: &impl ResourceExt) -> Self {
        Self {
            created: None,
            ..Self::of(operation, false)
        }
    }
}

impl State {
    fn runs(&self, line: &Line, uid: &str) -> bool {
        self.lines
            .get(line)
            .is_some_and(|standing| standing.running.contains(uid))
    }

    fn comes_back(&self, uid: &str) -> bool {
        let mut turns = self.places.get(uid).into_iter().flat_map(HashMap::values);
        turns.any(|turn| turn.created.is_none())
    }

    fn wait(&mut self, line: Line, turn: Turn) {
        let place = self.places.entry(turn.uid.clone()).or_default();
        let before = place.insert(line.clone(), turn.clone());
        let standing = self.lines.entry(line).or_default();
        before.map(|before| standing.waiting.remove(&before));
        standing.waiting.insert(turn);
    }

    fn run(&mut self, line: Line, turn: &Turn) {
        let place = self.places.entry(turn.uid.clone()).or_default();
        let before = place.insert(line.clone(), turn.clone());
        let standing = self.lines.entry(line).or_default();
        before.map(|before| standing.waiting.remove(&before));
        standing.running.insert(turn.uid.clone());
    }

    fn leave(&mut self, uid: &str) -> Vec<ObjectRef<Cached>> {
        let place = self.places.remove(uid).unwrap_or_default();
        for (line, turn) in &place {
            self.vacate(line, turn);
        }
        place.keys().filter_map(|line| self.next(line)).collect()
    }

    fn vacate(&mut self, line: &Line, turn: &Turn) {
        if let Some(standing) = self.lines.get_mut(line) {
            standing.running.remove(&turn.uid);
            standing.waiting.remove(turn);
            if standing.running.is_empty() && standing.waiting.is_empty() {
                self.lines.remove(line);
            }
        }
    }

    fn waits_for_place(&self, namespace: &str, uid: &str) -> bool {
        let place = Line {
            namespace: namespace.to_owned(),
            key: None,
        };
        let stands = self
            .places
            .get(uid)
            .is_some_and(|place_of| place_of.contains_key(&place));
        stands && !self.runs(&place, uid)
    }

    fn next(&self, line: &Line) -> Option<ObjectRef<Cached>> {
        let first = self.lines.get(line)?.waiting.first()?;
        if line.key.is_some() && self.waits_for_place(&line.namespace, &first.uid) {
            return None; // woken once there is one
        }
        Some(ObjectRef::new(&first.name).within(&line.namespace))
    }
}
