//! What ends before its time, and how the operation ends: cancel, takeover, expiry, winding down, the outcome.

use super::*;

impl Pass<'_> {
    pub(super) fn cancel(&mut self, workflow: &Workflow) {
        let Some(cancel) = &self.inputs.spec.cancel else { return };
        let all_done = self.satisfied(workflow) == workflow.total;
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
    pub(super) fn take_over(&mut self, workflow: &Workflow) {
        for i in 0..self.status.steps.len() {
            let step = &self.status.steps[i];
            if step.state != StepState::Running || step.runner.as_deref() == Some(self.inputs.runner) {
                continue;
            }
            let is_main = self.flow(&step.name).is_none_or(|flow| flow.role == Role::Main);
            if is_main && self.ending_now() && !self.must_end_first(step) {
                continue; // what is ended now is not made again
            }
            let (name, attempt) = (step.name.clone(), step.attempt);
            let lost_runner = step.runner.clone().unwrap_or_default();
            let once = self.flow(&name).is_some_and(|flow| flow.spec.idempotent == Some(false));
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
                let message = "the process that made the call is gone, so whether it had its effect is unknown, and the step is not idempotent: look at the other side, then complete, retry or skip the step";
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

    pub(super) fn expire(&mut self, workflow: &Workflow) {
        // Once all steps are done, what runs at the end is not cut short.
        let passed = self.status.deadline.is_some_and(|deadline| deadline <= self.now);
        if passed && self.status.failure.is_none() && self.satisfied(workflow) < workflow.total {
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
            } else if due(step.deadline)
                && let Some(default) = self
                    .flow(&step.name)
                    .and_then(|flow| flow.spec.signal.as_ref()?.default.clone())
            {
                self.succeed(i, Some(default));
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
        let step = &self.status.steps[i];
        let open_group = is_group(step) && self.is_open_within(&step.name);
        let step = &mut self.status.steps[i];
        // What goes on at the other side may have done a part of it.
        step.maybe_done |= step.state == StepState::Running || step.external.is_some();
        let goes_on = step.step_type.goes_on_by_itself() && step.items.is_none() && step.state != StepState::Undecided;
        if goes_on || open_group {
            step.failure = Some(Failure {
                reason: TIMED_OUT.into(),
                message: shorten(message, MAX_MESSAGE),
                step: None,
            });
            step.next_attempt_time = None;
            self.advance(i, StepEvent::Stop, HistoryEvent::AttemptFailed, message);
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

    /// True if something in a list or a group has not ended.
    fn is_open_within(&self, whole: &str) -> bool {
        let within = |step: &&StepStatus| wholes(&step.name).any(|around| around == whole);
        self.status
            .steps
            .iter()
            .filter(within)
            .any(|step| !step.state.is_closed())
    }

    /// Once the operation, or a group, is going to end: ends what only waits; and, on a cancel or timeout, what is under
    /// way.
    pub(super) fn wind_down(&mut self) {
        // Lists and groups after what is in them.
        let depth = |i: &usize| self.status.steps[*i].name.matches(['/', '[']).count();
        let mut inside_out: Vec<usize> = (0..self.status.steps.len()).collect();
        inside_out.sort_by_key(|i| std::cmp::Reverse(depth(i)));
        let mut a_group_ended = false;
        for i in inside_out {
            let Some(flow) = self.flow(&self.status.steps[i].name) else {
                continue;
            };
            let step = &self.status.steps[i];
            let name = &step.name;
            if is_group(step) && step.state == StepState::Cancelling {
                if !self.is_open_within(name) {
                    let message = step.failure.as_ref().map(|failure| failure.message.clone());
                    self.time_out(i, &message.unwrap_or_default());
                    a_group_ended = true;
                }
                continue;
            }
            let now = matches!(flow.role, Role::Undo(_)) || (flow.role == Role::Main && self.ending_now());
            let now_or_with_group = now || self.group_is_stopped(name);
            // What is followed is known, however it was found: it is stopped.
            let followed = step.step_type.goes_on_by_itself() && step.state == StepState::Waiting;
            let unknown = step.maybe_done || step.state == StepState::Running || step.awaits_callback();
            if !self.ends(flow, name) || (unknown && !followed && self.must_end_first(step)) {
                continue;
            }
            if is_open_list(step) || (is_group(step) && step.state == StepState::Waiting) {
                if !self.is_open_within(name) {
                    let message = match is_group(step) {
                        true => "before all of its steps were done",
                        false => "before all of its items were done",
                    };
                    self.advance(i, StepEvent::Cancel, HistoryEvent::StepCancelled, message);
                }
                continue;
            }
            let step = &mut self.status.steps[i];
            let job = step.step_type.goes_on_by_itself();
            let accepted = step.awaits_callback();
            let mine = step.runner.as_deref() == Some(self.inputs.runner);
            let stop = match step.state {
                StepState::Running if job => now && !mine, // a call of ours that starts it is short: it ends first
                StepState::Waiting if job => now_or_with_group,
                StepState::BackingOff if job => step.maybe_done,
                _ => false,
            };
            let cancel = match step.state {
                StepState::Running => now && !job,
                StepState::Waiting if accepted => now_or_with_group,
                StepState::Waiting => !job,
                StepState::BackingOff => !stop,
                StepState::Undecided => true,
                _ => false,
            };
            if stop {
                step.maybe_done |= step.external.is_some();
                step.next_attempt_time = None;
                self.advance(i, StepEvent::Stop, HistoryEvent::AttemptFailed, "it is being stopped");
            } else if cancel {
                let message = match step.state {
                    StepState::Running => {
                        "it was ended while a call was under way: whether that had its effect is unknown"
                    }
                    StepState::Waiting if accepted => {
                        "it was ended before its callback came: whether the other side does its work is unknown"
                    }
                    StepState::Undecided if step.maybe_done => "whether it had its effect is unknown",
                    _ => "",
                };
                step.maybe_done |= step.state == StepState::Running || accepted;
                step.message = Some(message.to_owned()).filter(|m| !m.is_empty());
                self.advance(i, StepEvent::Cancel, HistoryEvent::StepCancelled, message);
            }
        }
        if a_group_ended {
            self.wind_down(); // with it, the operation may end
        }
    }

    /// Closes what is open without a look at the other side: for a spec that may not be executed any more.
    pub(super) fn abandon_open_steps(&mut self, why: &str) {
        for i in 0..self.status.steps.len() {
            let step = &mut self.status.steps[i];
            if step.state.is_closed() {
                continue;
            }
            step.maybe_done |= step.state == StepState::Running || step.awaits_callback();
            self.advance(i, StepEvent::Cancel, HistoryEvent::StepCancelled, why);
        }
    }

    pub(super) fn finish(&mut self, workflow: &Workflow) -> End {
        if self.status.steps.iter().any(|s| !s.state.is_closed()) {
            return None;
        }
        let at_the_end = workflow.steps.iter().filter(|flow| flow.role == Role::Finally);
        let all_ran = at_the_end.into_iter().all(|flow| self.entry(&flow.name).is_some());
        if !self.main_is_over(workflow) || !self.is_undone(workflow) || !all_ran {
            return None; // held before the next one
        }
        if let Some(failure) = self.status.failure.clone() {
            let mut message = failure_message(&failure);
            let undone: Vec<&str> = self
                .status
                .steps
                .iter()
                .filter(|step| step.state.satisfies() && self.is_undo(&step.name))
                .map(|step| step.name.trim_end_matches(":undo"))
                .collect();
            if !undone.is_empty() {
                message = format!("{message}; undone: {}", undone.join(", "));
            }
            return Some(self.end(failed_state(&failure), message));
        }
        if let Some(output) = &workflow.output {
            let scope = request::final_scope(self.inputs.identity, self.inputs.spec, &self.status);
            let failed = match expression::render(output, &scope) {
                Ok(Value::Object(output))
                    if json_size(&output) <= MAX_STEP_OUTPUT && depth(output.values()) <= MAX_DEPTH =>
                {
                    self.status.output = Some(output);
                    None
                }
                Ok(_) => Some(Failure {
                    reason: "OutputTooLarge".into(),
                    message: format!(
                        "spec.output has more than {MAX_STEP_OUTPUT} bytes, or more than {MAX_DEPTH} levels"
                    ),
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
        let total = workflow.total;
        let message = if total == 1 {
            "its step succeeded".to_owned()
        } else {
            format!("all {total} steps succeeded")
        };
        Some(self.end(OperationState::Succeeded, message))
    }

    /// When a finished operation's time to live ends.
    pub(super) fn ttl_time(&self) -> Option<Time> {
        let ttl = u64::try_from(self.inputs.spec.ttl_seconds_after_finished?).ok()?;
        Some(self.status.completion_time?.plus(Duration::from_secs(ttl)))
    }

    /// Deletes or compacts an operation whose time to live is over. Answers whether to delete it.
    pub(super) fn expire_finished(&mut self) -> bool {
        if self.ttl_time().is_none_or(|time| time > self.now) {
            return false;
        }
        if self.inputs.identity.disposable {
            return true;
        }
        if self.status.compacted.is_none() {
            self.status.compacted = Some(true);
            self.status.steps.clear();
            self.status.maybe_done_before.clear();
            self.status.history.clear();
        }
        false
    }
}

fn failure_message(failure: &Failure) -> String {
    match &failure.step {
        Some(step) => format!("step {step}: {}: {}", failure.reason, failure.message),
        None => format!("{}: {}", failure.reason, failure.message),
    }
}
