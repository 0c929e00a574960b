//! What people and programs ask: OperationActions, each decided on once, in the order of their creation.

use super::*;
use crate::api::{ActionState, Decide, DecidedAction, Received, SendSignal, WithOutput};
use crate::engine::Action;

/// What was done, or why nothing was.
pub(super) type Verdict = Result<String, String>;

/// The reason of a failure that a person said.
const BY_HAND: &str = "FailedByHand";
/// How many signals and approvals wait for their step at most, and how large they are together, in bytes of JSON.
const MAX_RECEIVED: usize = 100;
const MAX_RECEIVED_SIZE: usize = 16 * 1024;

/// How many actions the status notes at once that don't say yet themselves what came of them.
const MAX_DECIDED: usize = 20;

impl Pass<'_> {
    /// Decides on the actions that wait for it, as many as have room in one write, and notes what came of each until the
    /// action says it itself.
    pub(super) fn decide_actions(&mut self) {
        for action in self.inputs.actions {
            if self.status.actions.iter().any(|decided| decided.uid == action.uid) {
                continue;
            }
            if history::is_full(&self.status) {
                return;
            }
            if self.decided_actions() >= MAX_DECIDED {
                self.more_actions = true;
                return;
            }
            let verdict = self.decide_action(action);
            let (state, event, message) = match verdict {
                Ok(message) => (ActionState::Applied, HistoryEvent::ActionApplied, message),
                Err(message) => (ActionState::Rejected, HistoryEvent::ActionRejected, message),
            };
            let message = shorten(&message, MAX_MESSAGE);
            history::append(&mut self.status, self.now, event, None, Some(&message));
            if let Some(entry) = self.status.history.last_mut() {
                entry.actor = Some(actor(action));
            }
            self.status.actions.push(DecidedAction {
                name: action.name.clone(),
                uid: action.uid.clone(),
                state,
                message,
                time: self.now,
            });
        }
    }

    /// How many actions were decided on that don't say it themselves yet.
    fn decided_actions(&self) -> usize {
        let decided = self.status.actions.iter();
        decided.filter(|decided| self.waits(&decided.uid)).count()
    }

    /// True if an action doesn't say yet what came of it.
    fn waits(&self, uid: &str) -> bool {
        self.inputs.actions.iter().any(|action| action.uid == uid)
    }

    /// Forgets what came of actions that say it themselves by now, or are gone.
    pub(super) fn forget_actions(&mut self) {
        let mut decided = std::mem::take(&mut self.status.actions);
        decided.retain(|decided| self.waits(&decided.uid));
        self.status.actions = decided;
    }

    fn decide_action(&mut self, action: &Action) -> Verdict {
        let identity = self.inputs.identity;
        let spec = &action.spec;
        if spec.operation_ref.uid.as_ref().is_some_and(|uid| *uid != identity.uid) {
            return Err("it is about another operation of this name".into());
        }
        if action.created < identity.created {
            return Err("it was created before the operation was: create it again, if it is meant for this one".into());
        }
        if self.status.compacted.is_some() {
            return Err("the operation has ended, and its details are gone".into());
        }
        let Ok(workflow) = self.inputs.workflow else {
            return Err("the operation's spec is invalid: nothing can be done to it".into());
        };
        if let Some(signal) = &spec.signal {
            self.receive_signal(workflow, signal)
        } else if let Some(word) = &spec.approve {
            self.receive_word(workflow, action, word, true)
        } else if let Some(word) = &spec.reject {
            self.receive_word(workflow, action, word, false)
        } else if let Some(retry) = &spec.retry {
            self.retry(workflow, retry)
        } else if let Some(of) = &spec.retry_now {
            self.retry_now(&of.step)
        } else if let Some(skip) = &spec.skip {
            self.skip(workflow, skip)
        } else if let Some(complete) = &spec.complete {
            self.complete(complete)
        } else if let Some(fail) = &spec.fail {
            let mut message = fail.message.clone().unwrap_or_else(|| "a person said so".into());
            let i = self.position(&fail.step)?;
            let step = &self.status.steps[i];
            if step.state == StepState::BackingOff && may_have_started(step) {
                self.stop_first(i, BY_HAND, &message);
                return Ok(format!("step {} fails once it is stopped: {message}", fail.step));
            }
            // It can't be stopped, or doesn't end: a person may say that it no longer counts.
            if step.state == StepState::Cancelling && step.message.is_some() {
                let started = step.external.as_ref().map(|it| format!("{} {}", it.kind, it.name));
                let started = started.unwrap_or_else(|| "what it may have started".into());
                message = format!("{message}; {started} is no longer waited for, and may go on");
            } else {
                self.waiting_step(&fail.step)?;
            }
            self.close_for_good(i, StepEvent::Fail, HistoryEvent::StepFailed, BY_HAND, &message);
            Ok(format!("step {} failed: {message}", fail.step))
        } else if let Some(of) = &spec.reset {
            self.reset(workflow, &of.step)
        } else {
            Err("it asks for something that this version doesn't know".into())
        }
    }

    fn receive_signal(&mut self, workflow: &Workflow, signal: &SendSignal) -> Verdict {
        let SendSignal { name, payload } = signal;
        let waits = workflow.steps.iter().filter(|flow| flow.signal() == Some(name));
        self.is_active(waits.clone().any(|flow| flow.role == Role::Finally))?;
        let mut takers: Vec<&WorkflowStep> = waits.collect();
        if takers.is_empty() {
            let known: Vec<&str> = workflow.steps.iter().filter_map(WorkflowStep::signal).collect();
            return Err(match known.as_slice() {
                [] => "no step waits for a signal".into(),
                known => format!(
                    "no step waits for a signal named {name:?}; there are {}",
                    known.join(", ")
                ),
            });
        }
        let payload = payload.clone().unwrap_or_default();
        if depth(payload.values()) > MAX_DEPTH {
            return Err(format!("its payload is nested more than {MAX_DEPTH} levels deep"));
        }
        // Each of those that may still take it has a schema of its own.
        if takers.iter().any(|flow| self.may_take_signal(workflow, flow)) {
            takers.retain(|flow| self.may_take_signal(workflow, flow));
        }
        let refusals: Vec<String> = takers.iter().filter_map(|flow| flow.refuses_signal(&payload)).collect();
        if refusals.len() == takers.len() {
            return Err(refusals.join("; "));
        }
        // What it is taken as: the output of a step.
        self.fits(&payload)
            .map_err(|why| why.replacen("its output", "its payload", 1))?;
        self.receive(Received {
            signal: Some(name.clone()),
            payload,
            ..Received::default()
        })?;
        Ok(match refusals.first() {
            None => format!("signal {name} was received"),
            Some(why) => format!("signal {name} was received, but not every step that waits for it may take it: {why}"),
        })
    }

    /// True if a step waits for a signal, or may come to.
    fn may_take_signal(&self, workflow: &Workflow, flow: &WorkflowStep) -> bool {
        let has_ended = |flow: &WorkflowStep| self.entry(&flow.name).is_some_and(|entry| entry.state.is_closed());
        !has_ended(flow) && !workflow.group(flow).is_some_and(has_ended)
    }

    fn receive_word(&mut self, workflow: &Workflow, action: &Action, word: &Decide, approved: bool) -> Verdict {
        let flow = workflow
            .step(&word.step)
            .filter(|flow| flow.step_type == StepType::Approval);
        self.is_active(flow.is_some_and(|flow| flow.role == Role::Finally))?;
        let Some(flow) = flow else {
            return Err(format!("there is no approval step {:?}", word.step));
        };
        let entry = self.entry(&word.step);
        if entry.is_some_and(|entry| entry.state.is_closed()) {
            return Err(format!("step {} has ended already", word.step));
        }
        let epoch = entry.map_or(self.status.epoch, |entry| entry.epoch);
        if let Some(meant) = word.epoch.filter(|meant| *meant != epoch) {
            return Err(format!(
                "it is about epoch {meant} of step {}, which is at {epoch}: it was reset",
                word.step
            ));
        }
        let approval = flow.spec.approval.clone().unwrap_or_default();
        let requester = action.spec.requested_by.clone().unwrap_or_default();
        let restricted = !approval.users.is_empty() || !approval.groups.is_empty();
        let excludes = approval.exclude_requester == Some(true);
        // Where no policy stamps it, who asks may leave out who they are: then they could be the one who may not.
        let known = action.verified && !requester.user.is_empty();
        if (restricted || excludes) && !known {
            return Err("nobody vouches for who asks: install the admission policies of config/admission".into());
        }
        let named = approval.users.contains(&requester.user)
            || approval.groups.iter().any(|group| requester.groups.contains(group));
        if restricted && !named {
            let who = [approval.users, approval.groups].concat().join(", ");
            return Err(format!(
                "{} may not approve step {}: {who} may",
                requester.user, word.step
            ));
        }
        if excludes {
            match &self.inputs.identity.creator {
                None => return Err("nobody vouches for who created the operation, who may not approve it".into()),
                Some(creator) if *creator == requester.user => {
                    return Err(format!(
                        "{creator} created the operation and may not approve it: excludeRequester"
                    ));
                }
                Some(_) => {}
            }
        }
        let mut payload = Map::new();
        payload.insert("by".into(), json!(who(action)));
        if let Some(comment) = &word.comment {
            payload.insert("comment".into(), json!(comment));
        }
        self.receive(Received {
            step: Some(word.step.clone()),
            approved: Some(approved),
            payload,
            ..Received::default()
        })?;
        let comment = word
            .comment
            .as_ref()
            .map(|comment| format!(": {comment}"))
            .unwrap_or_default();
        let what = if approved { "approved" } else { "rejected" };
        Ok(format!("step {} was {what}{comment}", word.step))
    }

    fn receive(&mut self, received: Received) -> Result<(), String> {
        self.status.received.push(received);
        let size = json_size(&self.status.received);
        if self.status.received.len() > MAX_RECEIVED || size > MAX_RECEIVED_SIZE {
            self.status.received.pop();
            return Err(format!(
                "too much has arrived that no step has taken: {MAX_RECEIVED} signals and approvals with {MAX_RECEIVED_SIZE} bytes at most"
            ));
        }
        Ok(())
    }

    /// Gives what arrived to the steps that wait for it, the oldest first.
    pub(super) fn take_received(&mut self, workflow: &Workflow) {
        for i in 0..self.status.steps.len() {
            let step = &self.status.steps[i];
            if step.state != StepState::Waiting || step.items.is_some() {
                continue;
            }
            let Some(flow) = workflow.step(&step.name) else {
                continue;
            };
            let name = step.name.clone();
            let found = self.status.received.iter().position(|received| match flow.step_type {
                StepType::Signal => {
                    received.signal.as_deref() == flow.signal() && flow.refuses_signal(&received.payload).is_none()
                }
                StepType::Approval => received.step.as_ref() == Some(&name),
                _ => false,
            });
            let Some(found) = found else { continue };
            let Received { approved, payload, .. } = self.status.received.remove(found);
            if approved == Some(false) {
                let text = |field: &str| payload.get(field).and_then(Value::as_str).unwrap_or_default();
                let message = format!("{} rejected it: {}", text("by"), text("comment"));
                self.fail(i, "Rejected", message.trim_end_matches(": "));
            } else {
                self.succeed(i, Some(payload));
            }
        }
    }

    /// What is given to steps counts as long as they may take it: those of `finally` while the operation ends, too.
    fn is_active(&self, at_the_end: bool) -> Result<(), String> {
        match self.status.state.filter(|state| state.is_finished()) {
            Some(state) => Err(format!("the operation has ended: {state}")),
            None if self.status.failure.is_some() && !at_the_end => Err("the operation is ending".into()),
            None => Ok(()),
        }
    }

    pub(super) fn position(&self, name: &str) -> Result<usize, String> {
        let found = self.status.steps.iter().position(|step| step.name == name);
        found.ok_or_else(
            || match self.inputs.workflow.ok().and_then(|workflow| workflow.step(name)) {
                Some(_) => format!("step {name} has not been started"),
                None => format!("there is no step {name:?}"),
            },
        )
    }

    /// A step that waits, or whose outcome a person decides.
    pub(super) fn waiting_step(&self, name: &str) -> Result<usize, String> {
        let i = self.position(name)?;
        let step = &self.status.steps[i];
        match step.state {
            _ if step.items.is_some() => Err(format!(
                "step {name} is a list: name one of its items, such as {name}[0]"
            )),
            StepState::Waiting if is_group(step) => Err(format!(
                "step {name} is a group: name one of its steps, such as {}",
                self.members_of(name).next().map_or(name, |member| &member.name)
            )),
            StepState::Waiting if step.external.is_some() && !step.awaits_callback() => Err(format!(
                "what step {name} started is under way: cancel the operation, or wait for its end"
            )),
            StepState::BackingOff if may_have_started(step) => Err(format!(
                "it isn't known whether step {name} started what it should: ask again once its next attempt has found out"
            )),
            StepState::Waiting | StepState::BackingOff | StepState::Undecided => Ok(i),
            state => Err(format!(
                "step {name} neither waits nor needs a decision: it is {state:?}"
            )),
        }
    }

    fn complete(&mut self, complete: &WithOutput) -> Verdict {
        let i = self.waiting_step(&complete.step)?;
        complete.output.as_ref().map_or(Ok(()), |output| self.fits(output))?;
        self.succeed(i, complete.output.clone());
        Ok(format!("step {} was completed", complete.step))
    }

    fn retry_now(&mut self, name: &str) -> Verdict {
        let i = self.position(name)?;
        let step = &mut self.status.steps[i];
        if step.state != StepState::BackingOff {
            return Err(format!(
                "step {name} doesn't wait for another attempt: it is {:?}",
                step.state
            ));
        }
        step.next_attempt_time = Some(self.now);
        Ok(format!("step {name} is tried again now"))
    }
}

/// Who asks, for the history.
fn actor(action: &Action) -> String {
    let word = action.spec.approve.as_ref().or(action.spec.reject.as_ref());
    let groups = action
        .spec
        .requested_by
        .as_ref()
        .map(|by| by.groups.join(", "))
        .unwrap_or_default();
    match (word, groups.as_str()) {
        (None, _) | (_, "") => who(action),
        (Some(_), groups) => shorten(&format!("{} (groups: {groups})", who(action)), 200),
    }
}

fn who(action: &Action) -> String {
    match &action.spec.requested_by {
        Some(by) if action.verified => by.user.clone(),
        Some(by) => format!("{} (unverified)", by.user),
        None => "unknown (unverified)".into(),
    }
}
