//! One decision: from a status, the spec and what arrived to the next status, the work that it calls for and the time of
//! the next look. A pure function: the same arguments give the same answer, whoever asks and whenever.
//!
//! The order within a pass is fixed: results, actions, cancel, expiry, new intents. Work is not a list of deltas: it is all that
//! should be under way given the status returned, so that a process that starts anew, or lost an answer, need not know
//! what another did: it starts what is missing and stops what is too much.

mod actions;
mod again;
mod endings;
mod groups;
mod intents;
mod lists;
mod local;
mod results;
mod undo;

pub use self::local::STAYS_UNWRITTEN;
pub use self::undo::undoes;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use self::groups::{is_group, is_part};
use self::intents::{retry_event, satisfies};
use self::lists::is_open_list;
use self::results::may_have_started;
use self::undo::may_be_done;
use super::expression::{self, Expression, Scope};
use super::history::{self, MAX_MESSAGE, shorten};
use super::outcome::{AttemptFailure, Effect, RetryAdvice};
use super::request::{
    self, CANCELLED, MAX_DEPTH, MAX_OUTPUTS, MAX_STEP_OUTPUT, TIMED_OUT, depth, failed_state, json_size,
};
use super::retry::schedule_to_close;
use super::summary;
#[cfg(test)]
use super::transitions::coverage;
use super::transitions::{StepEvent, next};
use super::workflow::{
    InvalidSpec, Role, Workflow, WorkflowStep, group_name, item_name, member_name, split_item, wholes,
};
use super::{AttemptOutcome, AttemptResult, Callback, Decision, ENGINE, IdempotencyKey, Inputs, Work, WorkKind};
use crate::api::{
    Failure, HistoryEvent, Items, OnFailure, OperationState, OperationStatus, RESTORED_LABEL, StepState, StepStatus,
    StepType, Time,
};

/// Decides one pass.
pub fn decide<'a>(status: &'a OperationStatus, inputs: &'a Inputs<'a>) -> Decision {
    if status.engine.is_some_and(|engine| engine > ENGINE) {
        return Decision {
            status: status.clone(),
            durable: true,
            work: vec![],
            wake: None,
            delete: false,
        };
    }
    let now = status.last_time.map_or(inputs.now, |last| last.max(inputs.now));
    let mut pass = Pass {
        before: status,
        status: status.clone(),
        inputs,
        now,
        size: OnceCell::new(),
        more_actions: false,
    };
    history::trim(&mut pass.status, inputs.spilled);
    if status.state.is_some_and(OperationState::is_finished) {
        pass.decide_actions();
        if pass.status.completion_time.is_some() {
            let delete = pass.expire_finished();
            summary::comes_back(&mut pass.status, None, inputs.identity.generation, now);
            summary::observe(&mut pass.status, inputs.identity.generation);
            if pass.status != *status {
                pass.forget_actions();
                summary::bound(&mut pass.status);
                pass.status.last_time = Some(now);
            }
            return pass.decision(delete);
        }
    }
    let held_for = pass.held_for();
    if !pass.is_held() || !inputs.results.is_empty() {
        pass.move_deadlines(held_for); // before they are looked at
    }
    let end = pass.run().or_else(|| pass.full());
    let progress = pass.progress();
    let undoing = pass.compensates();
    summary::summarise(
        &mut pass.status,
        end,
        progress,
        undoing,
        inputs.identity.generation,
        now,
    );
    if pass.status != *status {
        if pass.is_held() {
            pass.move_deadlines(held_for); // with the write that moves `last_time`; nothing is written for it alone
        }
        pass.forget_actions();
        summary::bound(&mut pass.status);
        pass.status.last_time = Some(now);
    }
    pass.decision(false)
}

type End = Option<(OperationState, String)>;

struct Pass<'a> {
    before: &'a OperationStatus,
    status: OperationStatus,
    inputs: &'a Inputs<'a>,
    now: Time,
    /// How large the status was before, in bytes of JSON.
    size: OnceCell<usize>,
    /// True if there are actions left for the next write.
    more_actions: bool,
}

impl<'a> Pass<'a> {
    /// Runs the pass. Answers the state where the journal alone doesn't say it.
    fn run(&mut self) -> End {
        let workflow = match self.start() {
            Ok(workflow) => workflow,
            Err(end) => return Some(end),
        };
        for result in self.inputs.results {
            self.start_local(workflow, result);
            self.apply(workflow, result);
        }
        self.decide_actions();
        let held = self.hold();
        let idle = self.is_idle();
        if !idle {
            self.take_received(workflow); // what came in time counts, though its time has passed by now
        }
        self.cancel(workflow);
        if !idle {
            self.take_over(workflow);
            self.expire(workflow);
        }
        loop {
            self.wind_down();
            if idle || history::is_full(&self.status) || !self.start_ready(workflow) {
                break;
            }
        }
        let end = self.finish(workflow);
        end.or_else(|| held.then(|| (OperationState::Suspended, self.hold_message())))
    }

    /// The first visit pins what is to run; every visit checks it.
    fn start(&mut self) -> Result<&'a Workflow, (OperationState, String)> {
        let inputs = self.inputs;
        if self.status.start_time.is_none() {
            if inputs.identity.restored {
                return Err((
                    OperationState::Restored,
                    format!(
                        "it came back from a backup without its status: remove the label {RESTORED_LABEL} to run it, or delete it"
                    ),
                ));
            }
            let begun = inputs.begun.map_or(self.now, |begun| begun.min(self.now));
            self.status.start_time = Some(begun);
            self.status.engine = Some(ENGINE);
            self.status.spec_digest = Some(inputs.spec_digest.into());
            if let Some(deadline) = inputs.spec.start_deadline.filter(|deadline| self.now > *deadline) {
                return Err(self.end(
                    OperationState::Expired,
                    format!("it was first seen after spec.startDeadline ({deadline}): nothing was executed"),
                ));
            }
            if let Some(why) = inputs.refused {
                if inputs.spec.cancel.is_some() {
                    return Err(self.end(OperationState::Cancelled, why.into()));
                }
                self.status.failure = Some(Failure {
                    reason: "ConcurrencyLimit".into(),
                    message: shorten(why, MAX_MESSAGE),
                    step: None,
                });
                return Err(self.end(OperationState::Failed, format!("ConcurrencyLimit: {why}")));
            }
            history::append(&mut self.status, begun, HistoryEvent::Started, None, None);
            self.status.deadline = inputs.spec.timeout.as_ref().map(|t| self.now.plus(t.get()));
        } else if self.status.spec_digest.as_deref() != Some(inputs.spec_digest) {
            self.abandon_open_steps("the spec was changed");
            return Err(self.end(OperationState::SpecChanged, "the spec was changed after the start: nothing more was executed; create another CloudOperation to run the new one".into()));
        }
        inputs.workflow.map_err(|InvalidSpec { field, message }| {
            if self.before.start_time.is_some() && inputs.spec.cancel.is_none() {
                let message = format!(
                    "this version of the operator refuses what the one that started it took: {field}: {message}. Nothing more is started until one leads that takes it; cancel ends it as it is"
                );
                return (OperationState::Stuck, message);
            }
            if self.before.start_time.is_some() {
                self.abandon_open_steps("the operation was cancelled, and this version can't stop it");
            }
            let state = match inputs.spec.cancel {
                Some(_) => OperationState::Cancelled, // before anything of it ran
                None => OperationState::InvalidSpec,
            };
            self.end(state, format!("{field}: {message}"))
        })
    }

    /// Ends the operation.
    fn end(&mut self, state: OperationState, message: String) -> (OperationState, String) {
        self.status.completion_time = Some(self.now);
        self.status.suspended_at = None;
        if state != OperationState::Succeeded && self.status.failure.is_none() {
            self.status.failure = Some(Failure {
                reason: state.to_string(),
                message: shorten(&message, MAX_MESSAGE),
                step: None,
            });
        }
        history::append(
            &mut self.status,
            self.now,
            HistoryEvent::Finished,
            None,
            Some(&format!("{state}: {message}")),
        );
        (state, message)
    }

    /// True if no attempt starts: the operation or its namespace is held.
    fn is_held(&self) -> bool {
        let namespace = self.inputs.namespace_hold;
        self.inputs.spec.suspend == Some(true) || namespace.is_some_and(|hold| hold.until.is_none())
    }

    /// True while no attempt may start.
    fn is_idle(&self) -> bool {
        self.is_held() || self.inputs.draining
    }

    /// For how long the operation was held since the last write, whoever held it.
    fn held_for(&self) -> Duration {
        let from = self.before.last_time.unwrap_or(self.now);
        let overlap = |since: Time, until: Time| until.min(self.now).since(since.max(from));
        match (self.before.suspended_at, self.inputs.namespace_hold) {
            (Some(since), _) => overlap(since, self.now),
            (None, Some(hold)) => overlap(hold.since, hold.until.unwrap_or(self.now)),
            (None, None) => Duration::ZERO,
        }
    }

    /// Moves open deadlines that stood already: suspended time doesn't count.
    fn move_deadlines(&mut self, held: Duration) {
        if held.is_zero() {
            return;
        }
        if self.status.deadline == self.before.deadline {
            self.status.deadline = self.status.deadline.map(|deadline| deadline.plus(held));
        }
        let before: HashMap<_, _> = self
            .before
            .steps
            .iter()
            .map(|step| (&*step.name, step.deadline))
            .collect();
        for step in self.status.steps.iter_mut().filter(|step| !step.state.is_closed()) {
            if before.get(&*step.name) == Some(&step.deadline) {
                step.deadline = step.deadline.map(|deadline| deadline.plus(held));
            }
        }
    }

    /// Notes that the operation is held or goes on, and says which. Whoever holds it: who leads when the hold ends need not
    /// have seen it, and the time must not count all the same.
    fn hold(&mut self) -> bool {
        let by = self.held_by();
        match (self.is_held(), self.status.suspended_at) {
            (true, None) => {
                self.status.suspended_at = Some(self.now);
                history::append(&mut self.status, self.now, HistoryEvent::Suspended, None, Some(by));
            }
            (false, Some(_)) => {
                self.status.suspended_at = None;
                history::append(&mut self.status, self.now, HistoryEvent::Resumed, None, None);
            }
            _ => {}
        }
        self.is_held()
    }

    fn held_by(&self) -> &'static str {
        if self.inputs.spec.suspend == Some(true) {
            "spec.suspend"
        } else {
            "its namespace's label holdfast.dev/suspended, or a hold of everything (--hold-all, or the annotation holdfast.dev/hold-all of the operator's Lease)"
        }
    }

    fn hold_message(&self) -> String {
        let by = self.held_by();
        let open = self
            .status
            .steps
            .iter()
            .filter(|s| s.state == StepState::Running)
            .count();
        match open {
            0 => format!("held by {by}: no attempt starts"),
            n => format!("held by {by}: {n} under way end, no other attempt starts"),
        }
    }

    /// Nothing starts before a part of the history has gone, and it can't go.
    fn full(&self) -> End {
        let why = self.inputs.unspilled.filter(|_| history::is_full(&self.status))?;
        let message = format!("nothing more starts, as its history can't be moved to an OperationHistory: {why}");
        Some((OperationState::Stuck, message))
    }

    fn key(&self, step: &StepStatus) -> IdempotencyKey {
        IdempotencyKey::new(&self.inputs.identity.uid, &step.name, step.epoch)
    }

    fn flow(&self, name: &str) -> Option<&'a WorkflowStep> {
        self.inputs.workflow.ok()?.step(name)
    }

    fn entry(&self, name: &str) -> Option<&StepStatus> {
        request::entry(&self.status, name)
    }

    /// True once no step of `spec.steps` is open and none is to be started.
    fn main_is_over(&self, workflow: &Workflow) -> bool {
        let is_main = |step: &&StepStatus| workflow.step(&step.name).is_some_and(|flow| flow.role == Role::Main);
        let open = self
            .status
            .steps
            .iter()
            .filter(is_main)
            .any(|step| !step.state.is_closed());
        !open && (self.status.failure.is_some() || self.satisfied(workflow) == workflow.total)
    }

    /// True if the status has no room for more items of lists before others are done: with what is still to come of the
    /// groups that were started.
    fn is_crowded(&self) -> bool {
        let size = *self.size.get_or_init(|| json_size(self.before));
        let entered = self.status.steps.len().saturating_sub(self.before.steps.len());
        let open = self
            .status
            .steps
            .iter()
            .filter(|step| is_group(step) && !step.state.is_closed());
        let to_come = open.map(|group| {
            let members = self.flow(&group.name).map_or(0, |flow| flow.members.len());
            members.saturating_sub(self.members_of(&group.name).count())
        });
        size + (entered + to_come.sum::<usize>()) * ENTRY > ROOM
    }

    /// How many steps of `spec.steps` have ended so that what needs them may run.
    fn satisfied(&self, workflow: &Workflow) -> usize {
        let steps = workflow.steps[..workflow.total].iter();
        steps
            .filter(|flow| self.entry(&flow.name).is_some_and(|entry| satisfies(flow, entry)))
            .count()
    }

    fn progress(&self) -> String {
        match self.inputs.workflow {
            Ok(workflow) => format!("{}/{}", self.satisfied(workflow), workflow.total),
            Err(_) => format!("0/{}", self.inputs.spec.steps.len()),
        }
    }

    fn decision(self, delete: bool) -> Decision {
        let finished = self.status.state.is_some_and(OperationState::is_finished);
        let idle = self.is_held() || self.inputs.draining;
        let mut work = Vec::new();
        let mut wake: Option<Time> = None;
        // What is due by now was seen to in this pass, or waits for something else.
        let mut wake_at = |time: Option<Time>| {
            wake = [wake, time.filter(|at| *at > self.now)].into_iter().flatten().min();
        };
        if finished {
            if self.status.compacted.is_none() {
                wake_at(self.ttl_time());
            }
        } else {
            for step in &self.status.steps {
                let due = step.next_attempt_time.is_none_or(|at| at <= self.now);
                let kind = match (step.state, &step.external) {
                    (StepState::Running, _) => {
                        (step.runner.as_deref() == Some(self.inputs.runner)).then_some(WorkKind::Attempt)
                    }
                    (StepState::Waiting, Some(external)) => Some(WorkKind::Follow(external.clone())),
                    (StepState::Waiting, None) => {
                        let waits = step.step_type == StepType::Kubernetes && step.items.is_none();
                        waits.then_some(WorkKind::Attempt)
                    }
                    (StepState::Cancelling, external) => {
                        let is_child = step.step_type == StepType::Operation;
                        let (external, undoes) = (external.clone(), is_child && undoes(self.inputs.spec));
                        (due && !is_group(step)).then_some(WorkKind::Stop { external, undoes })
                    }
                    _ => None,
                };
                if let Some(kind) = kind {
                    work.push(Work {
                        step: step.name.clone(),
                        epoch: step.epoch,
                        attempt: step.attempt,
                        kind,
                    });
                }
                if !idle || step.state == StepState::Cancelling {
                    wake_at(step.next_attempt_time.filter(|_| !step.state.is_closed()));
                    wake_at(step.deadline);
                }
            }
            let steps_are_done = |workflow| self.satisfied(workflow) == workflow.total;
            if !idle && self.status.failure.is_none() && !self.inputs.workflow.is_ok_and(steps_are_done) {
                wake_at(self.status.deadline);
            }
        }
        if self.more_actions {
            wake = Some(self.now);
        }
        let durable = self.inputs.draining || !local::can_be_done_again(self.before, &self.status, self.inputs);
        Decision {
            status: self.status,
            durable,
            work,
            wake,
            delete,
        }
    }
}

/// How large a step's entry is, with that of its start in the history, in bytes of JSON: about as large as one without a
/// message gets.
const ENTRY: usize = 500;
/// As large as a status may get by lists: what is under way needs room for how it ends.
const ROOM: usize = summary::MAX_STATUS * 3 / 4;

const INVALID_EXPRESSION: &str = "InvalidExpression";
