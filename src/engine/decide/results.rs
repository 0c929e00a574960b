//! What arrived: results of attempts, and what they make of a step.

use super::*;
use crate::api::FailurePolicy;

impl Pass<'_> {
    pub(super) fn apply(&mut self, workflow: &Workflow, result: &AttemptResult) {
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
            AttemptOutcome::Stopped => match &self.status.steps[i].failure {
                Some(failure) if failure.reason == TIMED_OUT => {
                    let message = failure.message.clone();
                    self.time_out(i, &message);
                }
                _ => self.advance(i, StepEvent::Cancel, HistoryEvent::StepCancelled, ""),
            },
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

    pub(super) fn succeed(&mut self, i: usize, output: Option<Map<String, Value>>) {
        if let Some(output) = output {
            if depth(output.values()) > MAX_DEPTH {
                let message =
                    format!("the step did its work, but its output is nested more than {MAX_DEPTH} levels deep");
                return self.fail(i, "OutputTooLarge", &message);
            }
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
            return self.fail(i, &failure.reason, &format!("{}{attempts}", failure.message));
        }
        let ending = self.ends(flow, &name) || self.inputs.spec.cancel.is_some();
        let must_end = self.status.steps[i].maybe_done && self.must_end_first(&self.status.steps[i]);
        if ending && flow.role == Role::Main && !must_end {
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
    fn fails_all(&self, flow: &WorkflowStep, name: &str) -> bool {
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
}
