//! What a world's accepted writes say, one after the other: which transitions they were.

use std::collections::{BTreeMap, BTreeSet};

use holdfast::api::OperationState;
use holdfast::controllers::transitions::{
    AskEvent, AskState, KeyEvent, KeyState, LeaseEvent, LeaseState, PartEvent, PartState, PinEvent, PinState,
};
use holdfast::engine::OperationEvent;
use holdfast_apiserver::Write;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::DECIDED;
use crate::report::{Taken, Transition, of_operation, transition};
use crate::world::LEASE;

/// Follows the writes, in their order.
#[derive(Default)]
pub struct Observer {
    /// What was taken, by machine.
    pub seen: BTreeMap<&'static str, Taken>,
    /// The operations that there are, by uid.
    operations: BTreeMap<String, Operation>,
    /// The actions that there are, by uid.
    asks: BTreeMap<String, AskState>,
    /// Where an operation's template is, by the operation's uid.
    pins: BTreeMap<String, PinState>,
    /// The parts of operations' histories that are in objects: by the operation's uid and their last sequence number.
    parts: BTreeMap<(String, i64), PartState>,
    /// When the Lease was last written by its holder.
    renewed: Option<Timestamp>,
}

/// What an operation's object says, as far as it counts here.
#[derive(Clone, Debug, Default)]
struct Operation {
    started: bool,
    state: Option<OperationState>,
    compacted: bool,
    spilled: i64,
    /// The uids of actions that were decided on.
    decided: BTreeSet<String>,
    /// True if it can't go on, as what it runs is gone.
    lost: bool,
}

impl Operation {
    fn of(object: &Value) -> Self {
        let status = &object["status"];
        let succeeded = status["conditions"].as_array().into_iter().flatten();
        let message = succeeded
            .filter(|condition| condition["type"] == "Succeeded")
            .map(|condition| &condition["message"]);
        let decided = status["actions"].as_array().into_iter().flatten();
        Self {
            started: !status["startTime"].is_null(),
            state: serde_json::from_value(status["state"].clone()).ok(),
            compacted: !status["compacted"].is_null(),
            spilled: status["historySpilled"].as_i64().unwrap_or_default(),
            decided: decided
                .filter_map(|action| action["uid"].as_str().map(str::to_owned))
                .collect(),
            lost: message
                .filter_map(Value::as_str)
                .any(|said| said.contains("which holds the template that it runs, is gone")),
        }
    }

    /// True while it may call somebody.
    fn runs(&self) -> bool {
        self.started && !self.state.is_some_and(OperationState::is_finished)
    }
}

impl Observer {
    fn note(&mut self, machine: &'static str, transition: Transition) {
        *self.seen.entry(machine).or_default().entry(transition).or_default() += 1;
    }

    /// Takes in the next write.
    pub fn see(&mut self, write: &Write) {
        let (before, after) = (
            write.change.before.as_deref(),
            write.change.after.as_ref().map(|stored| &*stored.object),
        );
        match &*write.change.key.resource {
            "cloudoperations" => self.see_operation(before, after),
            "operationactions" => self.see_action(before, after),
            "operationlocks" => self.see_lock(write, before, after),
            "operationhistories" => self.see_history(write, before, after),
            "leases" => self.see_lease(write, before, after),
            _ => {}
        }
    }

    fn see_operation(&mut self, before: Option<&Value>, after: Option<&Value>) {
        let uid = uid_of(after.or(before).unwrap());
        let was = before.map(Operation::of);
        let is = after.map(Operation::of);
        if let (Some(was), Some(is)) = (&was, &is)
            && let Some(to) = is.state.filter(|to| was.state != Some(*to))
        {
            let from = was.state.filter(|_| was.started);
            let waits = !is.started && to != OperationState::Restored;
            if waits || (to == OperationState::Stuck && is.lost) {
                self.note("operation", of_operation(from, OperationEvent::HoldUp, to));
            } else {
                self.note(DECIDED, of_operation(from, OperationEvent::Decide, to));
            }
        }
        let decided = |operation: &Option<Operation>| {
            operation
                .as_ref()
                .map(|operation| operation.decided.clone())
                .unwrap_or_default()
        };
        let (before, now) = (decided(&was), decided(&is));
        for action in now.difference(&before) {
            self.ask(action, AskEvent::Decide, |_| AskState::Decided);
        }
        for action in before.difference(&now) {
            match (self.asks.get(action), &is) {
                (Some(AskState::Decided), None) => self.ask(action, AskEvent::Lose, |_| AskState::Asked),
                _ => self.ask(action, AskEvent::Forget, |_| AskState::Settled),
            }
        }
        let Some(is) = is else {
            self.operations.remove(&uid);
            return;
        };
        let moved = |(part, state): &(&(String, i64), &PartState)| {
            **state == PartState::InBoth && part.0 == uid && (part.1 <= is.spilled || is.compacted)
        };
        for part in self
            .parts
            .iter()
            .filter(moved)
            .map(|(part, _)| part.clone())
            .collect::<Vec<_>>()
        {
            self.note(
                "history",
                transition(PartState::InBoth, PartEvent::Trim, PartState::Moved),
            );
            self.parts.insert(part, PartState::Moved);
        }
        self.operations.insert(uid, is);
    }

    /// Moves an action along, if there is one.
    fn ask(&mut self, uid: &str, event: AskEvent, to: impl Fn(AskState) -> AskState) {
        if let Some(state) = self.asks.get_mut(uid) {
            let from = *state;
            *state = to(from);
            let to = *state;
            self.note("action", transition(from, event, to));
        }
    }

    fn see_action(&mut self, before: Option<&Value>, after: Option<&Value>) {
        let uid = uid_of(after.or(before).unwrap());
        let says = |object: Option<&Value>| object.is_some_and(|object| !object["status"]["state"].is_null());
        match (before, after) {
            (None, _) => drop(self.asks.insert(uid, AskState::Asked)),
            (_, None) => {
                self.ask(&uid, AskEvent::Delete, |_| AskState::Gone);
                self.asks.remove(&uid);
            }
            _ if says(before) == says(after) => {}
            _ if self.asks.get(&uid) == Some(&AskState::Asked) => {
                self.ask(&uid, AskEvent::Refuse, |_| AskState::Settled)
            }
            _ => self.ask(&uid, AskEvent::Answer, |_| AskState::Answered),
        }
    }

    fn see_lock(&mut self, write: &Write, before: Option<&Value>, after: Option<&Value>) {
        let (was, is) = (holders(before), holders(after));
        for (uid, since) in &is {
            match was.get(uid) {
                None => self.key(uid, KeyState::Outside, KeyEvent::Take, KeyState::Holder),
                Some(before) if before != since => {
                    self.key(uid, KeyState::Holder, KeyEvent::TakeAnew, KeyState::Holder)
                }
                Some(_) => {}
            }
        }
        for uid in was.keys().filter(|uid| !is.contains_key(*uid)) {
            let event = match (after, self.operations.get(uid)) {
                (None, _) if write.user.ends_with(":generic-garbage-collector") => KeyEvent::Collect,
                (None, _) => KeyEvent::Tidy,
                (_, None) => KeyEvent::Gone,
                (_, Some(operation)) if operation.started => KeyEvent::Ended,
                (_, Some(_)) => KeyEvent::Unstarted,
            };
            self.key(uid, KeyState::Holder, event, KeyState::Outside);
        }
    }

    /// An operation that runs holds its key, and nothing happens to that.
    fn key(&mut self, uid: &str, from: KeyState, event: KeyEvent, to: KeyState) {
        let runs = self.operations.get(uid).is_some_and(Operation::runs);
        let event = if runs {
            format!("{event:?} while it runs")
        } else {
            format!("{event:?}")
        };
        self.note("key", [format!("{from:?}"), event, format!("{to:?}")]);
    }

    fn see_history(&mut self, write: &Write, before: Option<&Value>, after: Option<&Value>) {
        let object = after.or(before).unwrap();
        let operation = object["spec"]["operationRef"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let by_operator = write.user.starts_with("operator");
        let of = self.operations.get(&operation).cloned();
        if object["spec"]["template"].is_null() {
            let part = (operation, object["spec"]["to"].as_i64().unwrap_or_default());
            let from = self.parts.get(&part).copied().unwrap_or(PartState::InStatus);
            let (event, to) = match (before, after, of) {
                (None, _, _) => (PartEvent::Spill, PartState::InBoth),
                (_, Some(_), _) => return,
                (_, None, None) => (PartEvent::Collect, PartState::Gone),
                (_, None, Some(_)) => (PartEvent::Prune, PartState::Gone),
            };
            self.note("history", transition(from, event, to));
            self.parts.insert(part, to);
            return;
        }
        let from = self.pins.get(&operation).copied().unwrap_or(PinState::Unpinned);
        let (event, to) = match (before, after, of) {
            (None, _, _) if by_operator => (PinEvent::Pin, PinState::Pinned),
            (None, _, _) => (PinEvent::Restore, PinState::Pinned),
            (Some(before), Some(after), _) if before["spec"] == after["spec"] => return,
            (_, Some(_), _) => (PinEvent::Change, PinState::Pinned),
            (_, None, None) => (PinEvent::Collect, PinState::Gone),
            (_, None, Some(operation)) if operation.compacted => (PinEvent::Prune, PinState::Gone),
            (_, None, Some(operation)) if operation.started => (PinEvent::Lose, PinState::Lost),
            (_, None, Some(_)) => (PinEvent::Lose, PinState::Unpinned),
        };
        self.note("template", transition(from, event, to));
        self.pins.insert(operation, to);
    }

    fn see_lease(&mut self, write: &Write, before: Option<&Value>, after: Option<&Value>) {
        let holder = |lease: Option<&Value>| {
            lease.map(|lease| lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
        };
        let state = |holder: &Option<String>| match holder.as_deref() {
            None => LeaseState::Absent,
            Some("") => LeaseState::Free,
            Some(_) => LeaseState::Held,
        };
        let (was, is) = (holder(before), holder(after));
        let (from, to) = (state(&was), state(&is));
        let lasts = self
            .renewed
            .is_some_and(|renewed| write.time.duration_since(renewed).unsigned_abs() < LEASE);
        let event = match (from, to) {
            (_, LeaseState::Absent) => LeaseEvent::Delete,
            (LeaseState::Held, LeaseState::Free) => LeaseEvent::Release,
            (LeaseState::Held, LeaseState::Held) if was == is => LeaseEvent::Renew,
            (LeaseState::Held, LeaseState::Held) if lasts => {
                return self.note("lease", transition(from, "take over too early", to));
            }
            (LeaseState::Held, LeaseState::Held) => LeaseEvent::TakeOver,
            _ => LeaseEvent::Acquire,
        };
        if write.user.starts_with("operator") {
            self.renewed = Some(write.time);
        }
        self.note("lease", transition(from, event, to));
    }
}

fn uid_of(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

/// Who holds a lock, and since when.
fn holders(lock: Option<&Value>) -> BTreeMap<String, Value> {
    let holders = lock
        .and_then(|lock| lock["spec"]["holders"].as_array())
        .into_iter()
        .flatten();
    let text = |holder: &Value| holder["uid"].as_str().unwrap_or_default().to_owned();
    holders.map(|holder| (text(holder), holder["since"].clone())).collect()
}
