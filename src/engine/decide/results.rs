//! What arrived: results of attempts, and what they make of a step.

use super::*;
use crate::api::FailurePolicy;

/// True if it isn't known whether a step created what then goes on by itself.
pub(super) fn may_have_started(step: &StepStatus) -> bool {
    step.step_type.goes_on_by_itself() && step.external.is_none() && step.maybe_done
}

impl Pass<'_> {
    pub(super) fn apply(&mut self, workflow: &Workflow, result: &AttemptResult) {
        if let AttemptOutcome::CalledBack(callback) = &result.outcome {
            return self.called_back(workflow, result, callback);
        }
        let Some(i) = self.status.steps.iter().position(|s| {
            s.name == result.step && s.epoch == result.epoch && s.attempt == result.attempt && !s.state.is_closed()
        }) else {
            return; // of an attempt that was closed meanwhile: too late
        };
        let over = matches!(self.status.steps[i].state, StepState::BackingOff | StepState::Undecided);
        let stopping = self.status.steps[i].state == StepState::Cancelling;
        match &result.outcome {
            // What it comes to while it is being stopped, changes nothing any more; only what is to be stopped counts.
            AttemptOutcome::Accepted { external } if stopping => {
                self.status.steps[i].external = Some(external.clone());
            }
            AttemptOutcome::Succeeded { .. } | AttemptOutcome::Failed(_) | AttemptOutcome::Aimed { .. } if stopping => {
            }
            // A callback said how it went before its request was answered.
            AttemptOutcome::Accepted { .. } | AttemptOutcome::Failed(_) if over => {}
            AttemptOutcome::Succeeded { output } => self.succeed(i, output.clone()),
            AttemptOutcome::Accepted { external } => {
                let step = &mut self.status.steps[i];
                step.external = Some(external.clone());
                step.message = Some(match step.step_type {
                    StepType::Http => "accepted; waiting for its callback".to_owned(),
                    _ => format!("waiting for {} {} to end", external.kind, external.name),
                });
                self.advance(
                    i,
                    StepEvent::Accept,
                    HistoryEvent::Accepted,
                    &format!("{} {}", external.kind, external.name),
                );
            }
            AttemptOutcome::Noted { message } => self.status.steps[i].message = Some(shorten(message, MAX_MESSAGE)),
            AttemptOutcome::Aimed { uid } => self.status.steps[i].target = Some(uid.clone()),
            AttemptOutcome::Beat(heartbeat) => self.status.steps[i].heartbeat = Some(heartbeat.clone()),
            AttemptOutcome::Failed(failure) => self.fail_attempt(workflow, i, failure),
            AttemptOutcome::CalledBack(_) => {} // it is about the key, not the attempt: see above
            AttemptOutcome::Stopped => {
                let step = &self.status.steps[i];
                let ends = self.flow(&step.name).is_none_or(|flow| self.ends(flow, &step.name));
                match step.failure.clone() {
                    Some(Failure { reason, message, .. }) if reason == TIMED_OUT => self.time_out(i, &message),
                    Some(Failure { reason, message, .. }) if !ends => self.fail(i, &reason, &message),
                    _ => self.advance(i, StepEvent::Cancel, HistoryEvent::StepCancelled, ""),
                }
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

    /// What the other side says by a callback is about the key: whatever became of the attempt, as long as the step is
    /// open.
    fn called_back(&mut self, workflow: &Workflow, result: &AttemptResult, callback: &Callback) {
        let Some(i) = self.status.steps.iter().position(|step| {
            step.name == result.step
                && step.epoch == result.epoch
                && !step.state.is_closed()
                && step.state != StepState::Cancelling
        }) else {
            return;
        };
        let step = &mut self.status.steps[i];
        if let Some(digest) = &callback.completes {
            step.callback = Some(digest.clone());
        } else if callback.run != step.failures {
            return; // a repeat: the failure was recorded
        }
        match &callback.said {
            Ok(output) => self.succeed(i, output.clone()),
            Err(failure) => {
                step.failures += i64::from(callback.completes.is_none());
                self.fail_attempt(workflow, i, failure);
            }
        }
    }

    pub(super) fn succeed(&mut self, i: usize, output: Option<Map<String, Value>>) {
        if let Some(output) = output {
            if let Err(why) = self.fits(&output) {
                let message = format!("the step did its work, but {why}; name less in output, or use outputSecret");
                self.status.steps[i].maybe_done |= self.status.steps[i].attempt > 0;
                return self.fail(i, "OutputTooLarge", &message);
            }
            self.status.steps[i].output = Some(output).filter(|o| !o.is_empty());
        }
        self.status.steps[i].failure = None;
        self.status.steps[i].message = None;
        self.status.steps[i].heartbeat = None;
        self.advance(i, StepEvent::Succeed, HistoryEvent::StepSucceeded, "");
    }

    /// Whether one more output has room among the others; why not, if it hasn't.
    pub(super) fn fits(&self, output: &Map<String, Value>) -> Result<(), String> {
        if depth(output.values()) > MAX_DEPTH {
            return Err(format!("its output is nested more than {MAX_DEPTH} levels deep"));
        }
        let recorded = |step: &StepStatus| {
            let items = step.items.as_ref().map_or(0, |items| json_size(&items.outputs));
            items + step.output.as_ref().map_or(0, json_size)
        };
        let (size, all) = (json_size(output), self.status.steps.iter().map(recorded).sum::<usize>());
        if size > MAX_STEP_OUTPUT || all + size > MAX_OUTPUTS {
            return Err(format!(
                "its output has {size} bytes: a step's may have {MAX_STEP_OUTPUT}, all steps' together {MAX_OUTPUTS}"
            ));
        }
        Ok(())
    }

    fn fail_attempt(&mut self, workflow: &Workflow, i: usize, failure: &AttemptFailure) {
        let unknown = failure.effect == Effect::Unknown;
        let step = &mut self.status.steps[i];
        step.maybe_done |= unknown;
        let created = step.external.is_some() && step.step_type.goes_on_by_itself();
        // What ended, and answered what can't be recorded, is not one that has vanished.
        let vanished = created && unknown && failure.retry != RetryAdvice::Never;
        if !created {
            step.external = None; // no callback is awaited any more, though one still counts
        }
        step.failure = Some(Failure {
            reason: failure.reason.clone(),
            message: shorten(&failure.message, MAX_MESSAGE),
            step: None,
        });
        let name = step.name.clone();
        let counted = step.attempt - step.lost;
        let Some(flow) = workflow.step(&name) else {
            return;
        };
        let once = flow.spec.idempotent == Some(false);
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
            let message = format!("{}{attempts}", failure.message);
            if !self.stop_first(i, &failure.reason, &message) {
                self.fail(i, &failure.reason, &message);
            }
            return;
        }
        let ending = self.ends(flow, &name) || self.inputs.spec.cancel.is_some();
        let must_end = self.status.steps[i].maybe_done && self.must_end_first(&self.status.steps[i]);
        if ending && flow.role == Role::Main && !must_end {
            if self.stop_first(i, &failure.reason, &failure.message) {
                return;
            }
            return self.advance(i, StepEvent::Cancel, HistoryEvent::StepCancelled, &failure.message);
        }
        let wait = self.wait_after(workflow, i, failure.retry);
        let at = self.now.plus(wait);
        if let Some(deadline) = self.status.steps[i].deadline.filter(|deadline| at >= *deadline) {
            let message = format!(
                "no other attempt fits before its deadline ({deadline}); the last one: {}: {}",
                failure.reason, failure.message
            );
            if !self.stop_first(i, TIMED_OUT, &message) {
                self.time_out(i, &message);
            }
            return;
        }
        let step = &mut self.status.steps[i];
        step.next_attempt_time = Some(at);
        step.runner = None;
        if created {
            step.failures += 1;
            step.external = None;
            step.maybe_done = false; // what may have been created was found, and has ended
        }
        self.advance(
            i,
            StepEvent::FailRetryably,
            HistoryEvent::AttemptFailed,
            &format!("{}: {}", failure.reason, failure.message),
        );
    }

    /// Stops what a step may have created though nobody was told of it, before the step ends with this failure. False if
    /// there is no such thing.
    pub(super) fn stop_first(&mut self, i: usize, reason: &str, message: &str) -> bool {
        let step = &mut self.status.steps[i];
        let may_go_on = may_have_started(step);
        if may_go_on {
            step.failure = Some(Failure {
                reason: reason.into(),
                message: shorten(message, MAX_MESSAGE),
                step: None,
            });
            step.next_attempt_time = None;
            self.advance(
                i,
                StepEvent::Stop,
                HistoryEvent::AttemptFailed,
                &format!("{reason}: {message}"),
            );
        }
        may_go_on
    }

    fn wait_after(&self, workflow: &Workflow, i: usize, advice: RetryAdvice) -> Duration {
        let step = &self.status.steps[i];
        match (advice, workflow.step(&step.name)) {
            // Another's word for zero, or a time that has passed, is no reason to call without a pause.
            (RetryAdvice::After(wait), Some(flow)) => wait.max(flow.retry.initial_interval),
            (_, Some(flow)) => flow
                .retry
                .interval(step.attempt - step.lost, &self.key(step).to_string()),
            (_, None) => Duration::from_secs(1),
        }
    }

    /// Fails a step for good, and with it the operation.
    pub(super) fn fail(&mut self, i: usize, reason: &str, message: &str) {
        self.close_with(i, StepEvent::Fail, HistoryEvent::StepFailed, reason, message);
    }

    pub(super) fn time_out(&mut self, i: usize, message: &str) {
        self.close_with(i, StepEvent::Expire, HistoryEvent::StepTimedOut, TIMED_OUT, message);
    }

    /// Closes a step with a failure; or leaves it to a person, where it may not fail.
    fn close_with(&mut self, i: usize, event: StepEvent, entry: HistoryEvent, reason: &str, message: &str) {
        let name = &self.status.steps[i].name;
        let ending = self.status.failure.is_some() || self.inputs.spec.cancel.is_some();
        let pauses = self.inputs.spec.failure_policy == Some(FailurePolicy::Pause) && !ending;
        let for_a_person = self.flow(name).is_some_and(|flow| match flow.role {
            Role::Undo(_) => true,
            Role::Main => pauses && self.fails_all(flow, name),
            Role::Finally => false,
        });
        if for_a_person {
            let step = &mut self.status.steps[i];
            step.failure = Some(Failure {
                reason: reason.into(),
                message: shorten(message, MAX_MESSAGE),
                step: None,
            });
            step.deadline = None;
            step.next_attempt_time = None;
            return self.advance(
                i,
                StepEvent::Doubt,
                HistoryEvent::StepUndecided,
                &format!("{reason}: {message}"),
            );
        }
        self.close_for_good(i, event, entry, reason, message);
    }

    /// True if a failure of this step is the operation's: neither the step nor the group that it is in goes on, and no
    /// list has room for it.
    pub(super) fn fails_all(&self, flow: &WorkflowStep, name: &str) -> bool {
        let group = self.inputs.workflow.ok().and_then(|workflow| workflow.group(flow));
        let goes_on = |flow: &WorkflowStep| flow.spec.on_failure == Some(OnFailure::Continue);
        !goes_on(flow) && !group.is_some_and(goes_on) && !name.contains('[')
    }

    /// Closes a step with a failure, and with it the operation, unless it goes on without it.
    pub(super) fn close_for_good(
        &mut self,
        i: usize,
        event: StepEvent,
        entry: HistoryEvent,
        reason: &str,
        message: &str,
    ) {
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
        let goes_on = |flow: &WorkflowStep| flow.spec.on_failure == Some(OnFailure::Continue);
        let goes_on = is_part(&name) || self.flow(&name).is_some_and(goes_on);
        if self.status.failure.is_none() && !goes_on {
            self.status.failure = Some(Failure {
                step: Some(name),
                ..failure
            });
        }
    }

    /// Moves a step along and writes it into the history. What the transition table doesn't know is left as it is.
    pub(super) fn advance(&mut self, i: usize, event: StepEvent, entry: HistoryEvent, message: &str) {
        let step = &mut self.status.steps[i];
        let state = next(step.state, event);
        #[cfg(test)]
        coverage::record("step", step.state, event, state);
        let Some(state) = state else { return };
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
            let step = &mut self.status.steps[i];
            step.deadline = None; // it has passed, or no longer counts
            if event == StepEvent::Stop {
                step.message = None; // what it waited for; from now on, why it hasn't stopped yet
            }
        }
        if state == StepState::Succeeded {
            self.status.maybe_done_before.retain(|step| *step != name); // it is undone for that
        }
        if state.is_closed() || state == StepState::Undecided {
            // Words that were given for what is over don't count for what may run again.
            self.status
                .received
                .retain(|received| received.step.as_deref() != Some(&*name));
        }
    }
}
