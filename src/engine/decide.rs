//! One decision: from a status, the spec and what arrived to the next status, the work that it calls for and the time of
//! the next look. A pure function: the same arguments give the same answer, whoever asks and whenever.
//!
//! The order within a pass is fixed: results, cancel, expiry, new intents. Work is not a list of deltas: it is all that
//! should be under way given the status returned, so that a process that starts anew, or lost an answer, need not know
//! what another did: it starts what is missing and stops what is too much.

use std::time::Duration;

use serde_json::{Map, Value};

use super::history::{self, MAX_MESSAGE, shorten};
use super::outcome::{AttemptFailure, Effect, RetryAdvice};
use super::request::{self, MAX_OUTPUTS, MAX_STEP_OUTPUT, json_size};
use super::retry::schedule_to_close;
use super::summary;
use super::transitions::{StepEvent, next};
use super::workflow::{InvalidSpec, Workflow, WorkflowStep};
use super::{AttemptOutcome, AttemptResult, Decision, ENGINE, IdempotencyKey, Inputs, Work, WorkKind};
use crate::api::{Failure, HistoryEvent, OperationState, OperationStatus, Step, StepState, StepStatus, StepType, Time};

/// Decides one pass.
pub fn decide(status: &OperationStatus, inputs: &Inputs<'_>) -> Decision {
    if status.engine.is_some_and(|engine| engine > ENGINE) {
        return Decision {
            status: status.clone(),
            work: vec![],
            wake: None,
            delete: false,
        };
    }
    let now = status.last_time.map_or(inputs.now, |last| last.max(inputs.now));
    let mut pass = Pass {
        status: status.clone(),
        inputs,
        now,
    };
    if status.state.is_some_and(OperationState::is_finished) {
        let delete = pass.expire_finished();
        summary::observe(&mut pass.status, inputs.identity.generation);
        return pass.decision(delete);
    }
    let end = pass.run();
    let quiet = inputs.namespace_hold.is_some_and(|hold| hold.until.is_none());
    if quiet && status.start_time.is_some() && pass.status == *status {
        return pass.decision(false); // a held namespace costs no write
    }
    let total = inputs.spec.steps.len();
    summary::summarise(&mut pass.status, end, total, inputs.identity.generation, now);
    if pass.status != *status {
        summary::bound(&mut pass.status);
        pass.status.last_time = Some(now);
    }
    pass.decision(false)
}

type End = Option<(OperationState, String)>;

struct Pass<'a> {
    status: OperationStatus,
    inputs: &'a Inputs<'a>,
    now: Time,
}

impl<'a> Pass<'a> {
    /// Runs the pass. Answers the state where the journal alone doesn't say it.
    fn run(&mut self) -> End {
        let workflow = match self.start() {
            Ok(workflow) => workflow,
            Err(end) => return Some(end),
        };
        self.freeze_deadlines();
        for result in self.inputs.results {
            self.apply(workflow, result);
        }
        let held = self.hold();
        let idle = held || self.inputs.draining;
        self.cancel();
        if !idle {
            self.take_over(workflow);
            self.expire();
        }
        loop {
            self.wind_down();
            if idle || self.status.failure.is_some() || !self.start_ready_steps(workflow) {
                break;
            }
        }
        self.wind_down();
        let end = self.finish(workflow);
        end.or_else(|| held.then(|| (OperationState::Suspended, self.hold_message())))
    }

    /// The first visit pins what is to run; every visit checks it.
    fn start(&mut self) -> Result<&'a Workflow, (OperationState, String)> {
        let inputs = self.inputs;
        if self.status.start_time.is_none() {
            if inputs.identity.restored {
                return Err((OperationState::Restored, "it came back from a backup without its status: remove the label velero.io/restore-name to run it, or delete it".into()));
            }
            self.status.start_time = Some(self.now);
            self.status.engine = Some(ENGINE);
            self.status.spec_digest = Some(inputs.spec_digest.into());
            if let Some(deadline) = inputs.spec.start_deadline.filter(|deadline| self.now > *deadline) {
                return Err(self.end(
                    OperationState::Expired,
                    format!("it was first seen after spec.startDeadline ({deadline}): nothing was executed"),
                ));
            }
            history::append(&mut self.status, self.now, HistoryEvent::Started, None, None);
            self.status.deadline = inputs.spec.timeout.as_ref().map(|t| self.now.plus(t.get()));
        } else if self.status.spec_digest.as_deref() != Some(inputs.spec_digest) {
            self.abandon_open_steps();
            return Err(self.end(OperationState::SpecChanged, "the spec was changed after the start: nothing more was executed; create another CloudOperation to run the new one".into()));
        }
        inputs.workflow.map_err(|InvalidSpec { field, message }| {
            self.end(OperationState::InvalidSpec, format!("{field}: {message}"))
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

    /// Moves open deadlines by the time since the last write in which the operation was held: suspended time doesn't
    /// count, whoever held it.
    fn freeze_deadlines(&mut self) {
        let from = self.status.last_time.unwrap_or(self.now);
        let overlap = |since: Time, until: Time| until.min(self.now).since(since.max(from));
        let held = match (self.status.suspended_at, self.inputs.namespace_hold) {
            (Some(since), _) => overlap(since, self.now),
            (None, Some(hold)) => overlap(hold.since, hold.until.unwrap_or(self.now)),
            (None, None) => Duration::ZERO,
        };
        // Nothing is written for this alone: it goes with the next write, which is when `last_time` moves.
        if held.is_zero() || !self.something_else_changes() {
            return;
        }
        self.status.deadline = self.status.deadline.map(|d| d.plus(held));
        for step in self.status.steps.iter_mut().filter(|s| !s.state.is_closed()) {
            step.deadline = step.deadline.map(|d| d.plus(held));
        }
    }

    /// True if this pass is going to write whatever deadlines do: a hold ends or begins, or something arrived.
    fn something_else_changes(&self) -> bool {
        let suspended = self.inputs.spec.suspend == Some(true);
        suspended != self.status.suspended_at.is_some()
            || !self.inputs.results.is_empty()
            || self.inputs.namespace_hold.is_none_or(|hold| hold.until.is_some())
    }

    /// Notes that the operation is held or goes on, and says which.
    fn hold(&mut self) -> bool {
        let suspended = self.inputs.spec.suspend == Some(true);
        match (suspended, self.status.suspended_at) {
            (true, None) => {
                self.status.suspended_at = Some(self.now);
                history::append(
                    &mut self.status,
                    self.now,
                    HistoryEvent::Suspended,
                    None,
                    Some("spec.suspend"),
                );
            }
            (false, Some(_)) => {
                self.status.suspended_at = None;
                history::append(&mut self.status, self.now, HistoryEvent::Resumed, None, None);
            }
            _ => {}
        }
        suspended || self.inputs.namespace_hold.is_some_and(|hold| hold.until.is_none())
    }

    fn hold_message(&self) -> String {
        let by = if self.status.suspended_at.is_some() {
            "spec.suspend"
        } else {
            "its namespace's label holdfast.dev/suspended, or --hold-all"
        };
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

    // --- results ---------------------------------------------------------------------------------------------------

    fn apply(&mut self, workflow: &Workflow, result: &AttemptResult) {
        let Some(i) = self.status.steps.iter().position(|s| {
            s.name == result.step && s.epoch == result.epoch && s.attempt == result.attempt && !s.state.is_closed()
        }) else {
            return; // of an attempt that was closed meanwhile: too late
        };
        match &result.outcome {
            AttemptOutcome::Succeeded { output } => self.succeed(i, output.clone()),
            AttemptOutcome::Accepted { external } => {
                let step = &mut self.status.steps[i];
                step.external = Some(external.clone());
                step.message = Some(format!("waiting for {} {} to end", external.kind, external.name));
                self.advance(
                    i,
                    StepEvent::Accept,
                    HistoryEvent::Accepted,
                    &format!("{} {}", external.kind, external.name),
                );
            }
            AttemptOutcome::Noted { message } => self.status.steps[i].message = Some(shorten(message, MAX_MESSAGE)),
            AttemptOutcome::Failed(failure) => self.fail_attempt(workflow, i, failure),
            AttemptOutcome::Stopped => {
                let expired = self.status.steps[i]
                    .failure
                    .as_ref()
                    .is_some_and(|f| f.reason == TIMED_OUT);
                let (event, entry) = if expired {
                    (StepEvent::Expire, HistoryEvent::StepTimedOut)
                } else {
                    (StepEvent::Cancel, HistoryEvent::StepCancelled)
                };
                self.advance(i, event, entry, "");
            }
            AttemptOutcome::StopFailed(failure) => {
                let wait = self.wait_after(workflow, i, failure.retry);
                let step = &mut self.status.steps[i];
                step.attempt += 1;
                step.next_attempt_time = Some(self.now.plus(wait));
                step.message = Some(shorten(
                    &format!("could not be stopped: {}: {}", failure.reason, failure.message),
                    MAX_MESSAGE,
                ));
                self.advance(i, StepEvent::StopAgain, HistoryEvent::AttemptFailed, &failure.message);
            }
        }
    }

    fn succeed(&mut self, i: usize, output: Option<Map<String, Value>>) {
        if let Some(output) = output {
            let size = json_size(&output);
            let all: usize = self
                .status
                .steps
                .iter()
                .filter_map(|s| s.output.as_ref())
                .map(json_size)
                .sum();
            if size > MAX_STEP_OUTPUT || all + size > MAX_OUTPUTS {
                let message = format!(
                    "the step did its work, but its output has {size} bytes: a step's may have {MAX_STEP_OUTPUT}, all steps' together {MAX_OUTPUTS}; name less in output, or use outputSecret"
                );
                return self.fail(i, "OutputTooLarge", &message);
            }
            self.status.steps[i].output = Some(output).filter(|o| !o.is_empty());
        }
        self.status.steps[i].failure = None;
        self.status.steps[i].message = None;
        self.advance(i, StepEvent::Succeed, HistoryEvent::StepSucceeded, "");
    }

    fn fail_attempt(&mut self, workflow: &Workflow, i: usize, failure: &AttemptFailure) {
        let unknown = failure.effect == Effect::Unknown;
        let step = &mut self.status.steps[i];
        step.maybe_done |= unknown;
        let vanished = step.external.is_some() && unknown;
        let created = step.external.is_some();
        step.failure = Some(Failure {
            reason: failure.reason.clone(),
            message: shorten(&failure.message, MAX_MESSAGE),
            step: None,
        });
        let name = step.name.clone();
        let counted = step.attempt - step.lost;
        let Some((spec, flow)) = self.spec_of(workflow, &name) else {
            return;
        };
        let once = spec.idempotent == Some(false);
        if vanished || (once && unknown) {
            return self.advance(i, StepEvent::Doubt, HistoryEvent::StepUndecided, &failure.message);
        }
        let final_failure = failure.retry == RetryAdvice::Never
            || flow.retry.non_retryable_errors.contains(&failure.reason)
            || flow.retry.maximum_attempts.is_some_and(|most| counted >= most);
        if final_failure {
            let attempts = if counted > 1 {
                format!(" (after {counted} attempts)")
            } else {
                String::new()
            };
            return self.fail(i, &failure.reason, &format!("{}{attempts}", failure.message));
        }
        if self.status.failure.is_some() || self.inputs.spec.cancel.is_some() {
            return self.advance(i, StepEvent::Cancel, HistoryEvent::StepCancelled, &failure.message);
        }
        let wait = self.wait_after(workflow, i, failure.retry);
        let at = self.now.plus(wait);
        if let Some(deadline) = self.status.steps[i].deadline.filter(|deadline| at >= *deadline) {
            let message = format!(
                "no other attempt fits before its deadline ({deadline}); the last one: {}: {}",
                failure.reason, failure.message
            );
            return self.time_out(i, &message);
        }
        let step = &mut self.status.steps[i];
        step.next_attempt_time = Some(at);
        step.runner = None;
        if created {
            step.failures += 1;
            step.external = None;
        }
        self.advance(
            i,
            StepEvent::FailRetryably,
            HistoryEvent::AttemptFailed,
            &format!("{}: {}", failure.reason, failure.message),
        );
    }

    fn wait_after(&self, workflow: &Workflow, i: usize, advice: RetryAdvice) -> Duration {
        let step = &self.status.steps[i];
        match (advice, workflow.step(&step.name)) {
            (RetryAdvice::After(wait), _) => wait,
            (_, Some((_, flow))) => flow
                .retry
                .interval(step.attempt - step.lost, &self.key(step).to_string()),
            (_, None) => Duration::from_secs(1),
        }
    }

    /// Fails a step for good, and with it the operation.
    fn fail(&mut self, i: usize, reason: &str, message: &str) {
        self.close_with(i, StepEvent::Fail, HistoryEvent::StepFailed, reason, message);
    }

    fn time_out(&mut self, i: usize, message: &str) {
        self.close_with(i, StepEvent::Expire, HistoryEvent::StepTimedOut, TIMED_OUT, message);
    }

    fn close_with(&mut self, i: usize, event: StepEvent, entry: HistoryEvent, reason: &str, message: &str) {
        let failure = Failure {
            reason: reason.into(),
            message: shorten(message, MAX_MESSAGE),
            step: None,
        };
        let step = &mut self.status.steps[i];
        step.message = None;
        step.failure = Some(failure.clone());
        let name = step.name.clone();
        self.advance(i, event, entry, &format!("{reason}: {message}"));
        if self.status.failure.is_none() {
            self.status.failure = Some(Failure {
                step: Some(name),
                ..failure
            });
        }
    }

    /// Moves a step along and writes it into the history. What the transition table doesn't know is left as it is.
    fn advance(&mut self, i: usize, event: StepEvent, entry: HistoryEvent, message: &str) {
        let step = &mut self.status.steps[i];
        let Some(state) = next(step.state, event) else { return };
        step.state = state;
        let (name, attempt) = (step.name.clone(), step.attempt);
        let seq = history::append(&mut self.status, self.now, entry, Some((&name, attempt)), Some(message));
        if state.is_closed() {
            let step = &mut self.status.steps[i];
            step.end_time = Some(self.now);
            step.end_seq = Some(seq);
            step.runner = None;
            step.next_attempt_time = None;
            step.deadline = None;
        } else if state != StepState::Running {
            self.status.steps[i].runner = None;
        }
        if state == StepState::Cancelling {
            self.status.steps[i].deadline = None; // it has passed, or no longer counts
        }
    }

    // --- cancel, takeover and expiry -------------------------------------------------------------------------------

    fn cancel(&mut self) {
        let Some(cancel) = &self.inputs.spec.cancel else { return };
        let all_done = self.status.steps.len() == self.inputs.spec.steps.len()
            && self.status.steps.iter().all(|step| step.state.satisfies());
        if self.status.failure.is_none() && !all_done {
            let reason = cancel.reason.clone().unwrap_or_else(|| "no reason was given".into());
            self.status.failure = Some(Failure {
                reason: CANCELLED.into(),
                message: shorten(&reason, MAX_MESSAGE),
                step: None,
            });
            history::append(
                &mut self.status,
                self.now,
                HistoryEvent::CancelRequested,
                None,
                Some(&reason),
            );
        }
    }

    /// Attempts of a process that is gone: closed as lost, and made again under the same key.
    fn take_over(&mut self, workflow: &Workflow) {
        for i in 0..self.status.steps.len() {
            let step = &self.status.steps[i];
            if step.state != StepState::Running || step.runner.as_deref() == Some(self.inputs.runner) {
                continue;
            }
            if self.ending_now() {
                continue; // what is ended now is not made again
            }
            let (name, attempt) = (step.name.clone(), step.attempt);
            let lost_runner = step.runner.clone().unwrap_or_default();
            let once = self
                .spec_of(workflow, &name)
                .is_some_and(|(spec, _)| spec.idempotent == Some(false));
            let message = format!("its process {lost_runner} is gone");
            history::append(
                &mut self.status,
                self.now,
                HistoryEvent::AttemptLost,
                Some((&name, attempt)),
                Some(&message),
            );
            let step = &mut self.status.steps[i];
            step.maybe_done = true;
            step.lost += 1;
            if once {
                let message = "the process that made the call is gone, so whether it had its effect is unknown, and the step is not idempotent: look at the other side, then cancel the operation or run another";
                step.failure = Some(Failure {
                    reason: "Lost".into(),
                    message: message.into(),
                    step: None,
                });
                self.advance(i, StepEvent::Doubt, HistoryEvent::StepUndecided, message);
            } else {
                self.attempt(workflow, i, StepEvent::TakeOver);
            }
        }
    }

    fn expire(&mut self) {
        if self.status.deadline.is_some_and(|deadline| deadline <= self.now) && self.status.failure.is_none() {
            let timeout = self
                .inputs
                .spec
                .timeout
                .as_ref()
                .map(|t| format!("{:?}", t.get()))
                .unwrap_or_default();
            self.status.failure = Some(Failure {
                reason: TIMED_OUT.into(),
                message: format!("spec.timeout ({timeout}) passed"),
                step: None,
            });
        }
        for i in 0..self.status.steps.len() {
            let step = &self.status.steps[i];
            let due = |time: Option<Time>| time.is_some_and(|time| time <= self.now);
            if step.state.is_closed() || step.state == StepState::Cancelling {
                continue;
            }
            if step.state == StepState::Waiting && step.step_type == StepType::Wait && due(step.next_attempt_time) {
                self.succeed(i, None);
            } else if due(step.deadline) {
                let last = step
                    .failure
                    .as_ref()
                    .map(|f| format!("; the last attempt: {}: {}", f.reason, f.message))
                    .unwrap_or_default();
                let message = format!("timeouts.scheduleToClose passed{last}");
                self.expire_step(i, &message);
            }
        }
    }

    fn expire_step(&mut self, i: usize, message: &str) {
        let step = &mut self.status.steps[i];
        step.maybe_done |= step.state == StepState::Running;
        if step.step_type == StepType::Job && step.state != StepState::Undecided {
            let failure = Failure {
                reason: TIMED_OUT.into(),
                message: shorten(message, MAX_MESSAGE),
                step: None,
            };
            step.failure = Some(failure.clone());
            step.next_attempt_time = None;
            let name = step.name.clone();
            self.advance(i, StepEvent::Stop, HistoryEvent::AttemptFailed, message);
            self.status.failure.get_or_insert(Failure {
                step: Some(name),
                ..failure
            });
        } else {
            self.time_out(i, message);
        }
    }

    /// True if the operation ends now, with nothing of it going on: a cancel or its own timeout.
    fn ending_now(&self) -> bool {
        self.inputs.spec.cancel.is_some()
            || self
                .status
                .failure
                .as_ref()
                .is_some_and(|f| f.step.is_none() && (f.reason == TIMED_OUT || f.reason == CANCELLED))
    }

    /// Once the operation is going to end: ends what only waits; and, on a cancel or timeout, what is under way.
    fn wind_down(&mut self) {
        if self.status.failure.is_none() {
            return;
        }
        let now = self.ending_now();
        for i in 0..self.status.steps.len() {
            let step = &mut self.status.steps[i];
            let job = step.step_type == StepType::Job;
            let mine = step.runner.as_deref() == Some(self.inputs.runner);
            let stop = match step.state {
                StepState::Running if job => now && !mine, // a call of ours that creates a Job is short: it ends first
                StepState::Waiting if job => now,
                StepState::BackingOff if job => step.maybe_done,
                _ => false,
            };
            let cancel = match step.state {
                StepState::Running => now && !job,
                StepState::Waiting => !job,
                StepState::BackingOff => !stop,
                StepState::Undecided => true,
                _ => false,
            };
            if stop {
                step.next_attempt_time = None;
                self.advance(i, StepEvent::Stop, HistoryEvent::AttemptFailed, "it is being stopped");
            } else if cancel {
                let message = match step.state {
                    StepState::Running => {
                        "it was ended while a call was under way: whether that had its effect is unknown"
                    }
                    StepState::Undecided => "whether it had its effect is unknown",
                    _ => "",
                };
                step.maybe_done |= step.state == StepState::Running;
                step.message = Some(message.to_owned()).filter(|m| !m.is_empty());
                self.advance(i, StepEvent::Cancel, HistoryEvent::StepCancelled, message);
            }
        }
    }

    /// Closes what is open without a look at the other side: for a spec that may not be executed any more.
    fn abandon_open_steps(&mut self) {
        for i in 0..self.status.steps.len() {
            self.status.steps[i].maybe_done |= self.status.steps[i].state == StepState::Running;
            self.advance(
                i,
                StepEvent::Cancel,
                HistoryEvent::StepCancelled,
                "the spec was changed",
            );
        }
    }

    // --- new intents -----------------------------------------------------------------------------------------------

    /// Starts what is ready and what is due again. Answers whether anything was started or ended by it.
    fn start_ready_steps(&mut self, workflow: &Workflow) -> bool {
        let before = self.status.seq;
        for i in 0..self.status.steps.len() {
            let step = &self.status.steps[i];
            if step.state == StepState::BackingOff && step.next_attempt_time.is_some_and(|at| at <= self.now) {
                let waits = self
                    .spec_of(workflow, &step.name)
                    .is_some_and(|(spec, _)| spec.is_kubernetes_wait());
                self.attempt(workflow, i, if waits { StepEvent::Observe } else { StepEvent::Retry });
            }
        }
        for (i, flow) in workflow.steps.iter().enumerate() {
            let started = |name: &str| self.status.steps.iter().find(|s| s.name == name);
            let ready = started(&flow.name).is_none()
                && flow
                    .needs
                    .iter()
                    .all(|n| started(&workflow.steps[*n].name).is_some_and(|s| s.state.satisfies()));
            if ready && self.status.failure.is_none() {
                self.start_step(workflow, i, flow);
            }
        }
        self.status.seq != before
    }

    fn start_step(&mut self, workflow: &Workflow, i: usize, flow: &WorkflowStep) {
        let spec = &self.inputs.spec.steps[i];
        let scope = request::scope(workflow, flow, self.inputs.identity, self.inputs.spec, &self.status);
        let at = |field: &str| format!("spec.steps[{i}].{field}");
        if let Some(when) = &flow.when {
            match when.evaluate_bool(&scope) {
                Ok(true) => {}
                Ok(false) => {
                    return self.enter(flow, StepState::Skipped, HistoryEvent::StepSkipped, "its when is false");
                }
                Err(error) => return self.enter_failed(flow, INVALID_EXPRESSION, &format!("{}: {error}", at("when"))),
            }
        }
        if let Some(assert) = &flow.assert {
            return match assert.evaluate_bool(&scope) {
                Ok(true) => self.enter(flow, StepState::Succeeded, HistoryEvent::StepSucceeded, ""),
                Ok(false) => self.enter_failed(flow, "AssertFailed", &format!("{} is false", assert.source())),
                Err(error) => self.enter_failed(flow, INVALID_EXPRESSION, &format!("{}: {error}", at("assert"))),
            };
        }
        let key = IdempotencyKey::new(&self.inputs.identity.uid, &flow.name, 0);
        let request = match request::request(i, flow, &scope, &key) {
            Ok(request) => request,
            Err(error) => return self.enter_failed(flow, INVALID_EXPRESSION, &error.to_string()),
        };
        match flow.step_type {
            StepType::Set => {
                self.enter(flow, StepState::Waiting, HistoryEvent::StepWaiting, "");
                self.status.history.pop(); // computed at once: its start is not worth an entry
                let last = self.status.steps.len() - 1;
                self.succeed(last, request.value.as_object().cloned());
            }
            StepType::Wait => match wait_until(&request.value, self.now) {
                Ok(until) => {
                    self.enter(
                        flow,
                        StepState::Waiting,
                        HistoryEvent::StepWaiting,
                        &format!("until {until}"),
                    );
                    if let Some(step) = self.status.steps.last_mut() {
                        step.next_attempt_time = Some(until);
                        step.message = Some(format!("waiting until {until}"));
                    }
                    if until <= self.now {
                        self.succeed(self.status.steps.len() - 1, None);
                    }
                }
                Err(error) => self.enter_failed(flow, INVALID_EXPRESSION, &format!("{}: {error}", at("wait"))),
            },
            _ => {
                let waits = spec.is_kubernetes_wait();
                let (state, entry) = if waits {
                    (StepState::Waiting, HistoryEvent::StepWaiting)
                } else {
                    (StepState::Running, HistoryEvent::AttemptStarted)
                };
                let message = if waits {
                    waits_for(&request.value)
                } else {
                    String::new()
                };
                self.enter_attempt(flow, state, entry, &message, spec, request.digest);
            }
        }
    }

    /// Enters a step into the journal.
    fn enter(&mut self, flow: &WorkflowStep, state: StepState, entry: HistoryEvent, message: &str) {
        let attempt = i64::from(entry == HistoryEvent::AttemptStarted);
        let seq = history::append(
            &mut self.status,
            self.now,
            entry,
            Some((&flow.name, attempt)),
            Some(message),
        );
        self.status.steps.push(StepStatus {
            name: flow.name.clone(),
            step_type: flow.step_type,
            state,
            attempt,
            epoch: 0,
            runner: None,
            request_digest: None,
            failures: 0,
            lost: 0,
            maybe_done: false,
            external: None,
            start_time: self.now,
            attempt_time: None,
            end_time: state.is_closed().then_some(self.now),
            next_attempt_time: None,
            deadline: None,
            message: None,
            output: None,
            failure: None,
            start_seq: seq,
            end_seq: state.is_closed().then_some(seq),
            other: Map::new(),
        });
    }

    fn enter_failed(&mut self, flow: &WorkflowStep, reason: &str, message: &str) {
        self.enter(
            flow,
            StepState::Failed,
            HistoryEvent::StepFailed,
            &format!("{reason}: {message}"),
        );
        let failure = Failure {
            reason: reason.into(),
            message: shorten(message, MAX_MESSAGE),
            step: None,
        };
        if let Some(step) = self.status.steps.last_mut() {
            step.failure = Some(failure.clone());
        }
        self.status.failure.get_or_insert(Failure {
            step: Some(flow.name.clone()),
            ..failure
        });
    }

    fn enter_attempt(
        &mut self,
        flow: &WorkflowStep,
        state: StepState,
        entry: HistoryEvent,
        message: &str,
        spec: &Step,
        digest: String,
    ) {
        self.enter(flow, state, entry, message);
        let now = self.now;
        if let Some(step) = self.status.steps.last_mut() {
            step.attempt = 1;
            step.request_digest = Some(digest);
            step.attempt_time = (state == StepState::Running).then_some(now);
            step.runner = (state == StepState::Running).then(|| self.inputs.runner.to_owned());
            step.deadline = schedule_to_close(spec).map(|most| now.plus(most));
            step.message = Some(message.to_owned()).filter(|m| !m.is_empty());
        }
    }

    /// Records the intent of another attempt, unless what it would send is not what the first one sent.
    fn attempt(&mut self, workflow: &Workflow, i: usize, event: StepEvent) {
        let step = &self.status.steps[i];
        let Some((n, flow)) = workflow.step(&step.name) else {
            return;
        };
        let scope = request::scope(workflow, flow, self.inputs.identity, self.inputs.spec, &self.status);
        match request::request(n, flow, &scope, &self.key(step)) {
            Err(error) => return self.fail(i, INVALID_EXPRESSION, &error.to_string()),
            Ok(request) if step.request_digest.as_ref() != Some(&request.digest) => {
                return self.fail(
                    i,
                    "InputChanged",
                    "what this attempt would send is not what the first one sent under the same key: nothing was sent",
                );
            }
            Ok(_) => {}
        }
        let entry = if event == StepEvent::Observe {
            HistoryEvent::StepWaiting
        } else {
            HistoryEvent::AttemptStarted
        };
        let now = self.now;
        let runner = self.inputs.runner.to_owned();
        let step = &mut self.status.steps[i];
        step.attempt += 1;
        step.next_attempt_time = None;
        if event != StepEvent::Observe {
            step.runner = Some(runner);
            step.attempt_time = Some(now);
        }
        self.advance(i, event, entry, "");
    }

    // --- the end ---------------------------------------------------------------------------------------------------

    fn finish(&mut self, workflow: &Workflow) -> End {
        if self.status.steps.iter().any(|s| !s.state.is_closed()) {
            return None;
        }
        if let Some(failure) = self.status.failure.clone() {
            let state = match (&failure.step, failure.reason.as_str()) {
                (None, CANCELLED) => OperationState::Cancelled,
                (None, TIMED_OUT) => OperationState::TimedOut,
                _ => OperationState::Failed,
            };
            let message = failure_message(&failure);
            return Some(self.end(state, message));
        }
        if self.status.steps.len() < workflow.steps.len() {
            return None; // held before the next one
        }
        if let Some(output) = &workflow.output {
            let scope = request::final_scope(self.inputs.identity, self.inputs.spec, &self.status);
            let failed = match super::expression::render(output, &scope) {
                Ok(Value::Object(output)) if json_size(&output) <= MAX_STEP_OUTPUT => {
                    self.status.output = Some(output);
                    None
                }
                Ok(_) => Some(Failure {
                    reason: "OutputTooLarge".into(),
                    message: format!("spec.output has more than {MAX_STEP_OUTPUT} bytes"),
                    step: None,
                }),
                Err(error) => Some(Failure {
                    reason: INVALID_EXPRESSION.into(),
                    message: shorten(&format!("spec.output.{}: {}", error.field, error.error), MAX_MESSAGE),
                    step: None,
                }),
            };
            if let Some(failure) = failed {
                let message = failure_message(&failure);
                self.status.failure = Some(failure);
                return Some(self.end(OperationState::Failed, message));
            }
        }
        let total = workflow.steps.len();
        let message = if total == 1 {
            "its step succeeded".to_owned()
        } else {
            format!("all {total} steps succeeded")
        };
        Some(self.end(OperationState::Succeeded, message))
    }

    /// When a finished operation's time to live ends.
    fn ttl_time(&self) -> Option<Time> {
        let ttl = u64::try_from(self.inputs.spec.ttl_seconds_after_finished?).ok()?;
        Some(self.status.completion_time?.plus(Duration::from_secs(ttl)))
    }

    /// Deletes or compacts an operation whose time to live is over. Answers whether to delete it.
    fn expire_finished(&mut self) -> bool {
        if self.ttl_time().is_none_or(|time| time > self.now) {
            return false;
        }
        if self.inputs.identity.disposable {
            return true;
        }
        if self.status.compacted.is_none() {
            self.status.compacted = Some(true);
            self.status.steps.clear();
            self.status.history.clear();
        }
        false
    }

    // --- what follows ----------------------------------------------------------------------------------------------

    fn key(&self, step: &StepStatus) -> IdempotencyKey {
        IdempotencyKey::new(&self.inputs.identity.uid, &step.name, step.epoch)
    }

    fn spec_of<'w>(&self, workflow: &'w Workflow, name: &str) -> Option<(&'a Step, &'w WorkflowStep)> {
        let (i, flow) = workflow.step(name)?;
        Some((&self.inputs.spec.steps[i], flow))
    }

    fn decision(self, delete: bool) -> Decision {
        let finished = self.status.state.is_some_and(OperationState::is_finished);
        let held =
            self.status.suspended_at.is_some() || self.inputs.namespace_hold.is_some_and(|hold| hold.until.is_none());
        let mut work = Vec::new();
        let mut wake: Option<Time> = None;
        let mut wake_at = |time: Option<Time>| wake = [wake, time].into_iter().flatten().min();
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
                    (StepState::Waiting, None) => (step.step_type == StepType::Kubernetes).then_some(WorkKind::Attempt),
                    (StepState::Cancelling, external) => due.then(|| WorkKind::Stop(external.clone())),
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
                if !held || step.state == StepState::Cancelling {
                    wake_at(step.next_attempt_time.filter(|_| !step.state.is_closed()));
                    wake_at(step.deadline);
                }
            }
            if !held && self.status.failure.is_none() {
                wake_at(self.status.deadline);
            }
        }
        Decision {
            status: self.status,
            work,
            wake,
            delete,
        }
    }
}

const TIMED_OUT: &str = "TimedOut";
const CANCELLED: &str = "Cancelled";
const INVALID_EXPRESSION: &str = "InvalidExpression";

fn failure_message(failure: &Failure) -> String {
    match &failure.step {
        Some(step) => format!("step {step}: {}: {}", failure.reason, failure.message),
        None => format!("{}: {}", failure.reason, failure.message),
    }
}

/// Until when a `wait` waits.
fn wait_until(request: &Value, now: Time) -> Result<Time, String> {
    match (request.get("duration"), request.get("untilTime")) {
        (Some(Value::String(duration)), _) => {
            let duration: crate::api::Duration =
                duration.parse().map_err(|e: crate::api::DurationError| e.to_string())?;
            Ok(now.plus(duration.get()))
        }
        (_, Some(Value::String(time))) => request::parse_time(time),
        (duration, time) => Err(format!(
            "a text is needed, not {}",
            duration.or(time).unwrap_or(&Value::Null)
        )),
    }
}

/// What a `kubernetes.wait` waits for, in words.
fn waits_for(request: &Value) -> String {
    let text = |path: &str| request.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let what = match request.pointer("/wait/for").and_then(Value::as_str) {
        Some("Deleted") => "be gone".to_owned(),
        Some(status) => format!("be {status}"),
        None => format!("fulfil {}", text("/wait/until")),
    };
    format!(
        "waiting for {} {} to {what}",
        text("/wait/resource/kind"),
        text("/wait/resource/name")
    )
}
