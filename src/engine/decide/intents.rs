//! What starts: steps that are ready, and attempts that are due.

use super::*;

impl Pass<'_> {
    /// Starts what is ready and what is due again. Answers whether anything was started or ended by it.
    pub(super) fn start_ready(&mut self, workflow: &Workflow) -> bool {
        let before = self.status.seq;
        self.start_due_attempts(workflow);
        self.take_received(workflow);
        if self.status.failure.is_none() {
            self.start_main(workflow);
        }
        self.advance_groups(workflow);
        self.advance_lists(workflow);
        if self.main_is_over(workflow) {
            self.undo_next(workflow);
            if self.is_undone(workflow) {
                self.start_finally(workflow);
            }
        }
        self.status.seq != before
    }

    fn start_due_attempts(&mut self, workflow: &Workflow) {
        for i in 0..self.status.steps.len() {
            let step = &self.status.steps[i];
            if step.state == StepState::BackingOff && step.next_attempt_time.is_some_and(|at| at <= self.now) {
                self.attempt(workflow, i, retry_event(workflow, &step.name));
            }
        }
    }

    fn start_main(&mut self, workflow: &Workflow) {
        for flow in &workflow.steps[..workflow.total] {
            let ready = self.entry(&flow.name).is_none()
                && flow.needs.iter().all(|n| {
                    let needed = &workflow.steps[*n];
                    self.entry(&needed.name).is_some_and(|entry| satisfies(needed, entry))
                });
            if ready && self.status.failure.is_none() {
                self.start_step(workflow, flow, &flow.name);
            }
        }
    }

    fn start_finally(&mut self, workflow: &Workflow) {
        for flow in workflow.steps.iter().filter(|flow| flow.role == Role::Finally) {
            match self.entry(&flow.name) {
                Some(entry) if entry.state.is_closed() => {}
                Some(_) => return,
                None => {
                    self.start_step(workflow, flow, &flow.name);
                    if self.entry(&flow.name).is_some_and(|entry| !entry.state.is_closed()) {
                        return;
                    }
                }
            }
        }
    }

    /// Starts a step, under its path in the journal.
    pub(super) fn start_step(&mut self, workflow: &Workflow, flow: &WorkflowStep, name: &str) {
        let scope = match self.scope_of_all(workflow, flow, name) {
            Ok(scope) => scope,
            Err(error) => return self.enter_failed(flow, name, INVALID_EXPRESSION, &error.to_string()),
        };
        if let Some(when) = &flow.when {
            match when.evaluate_bool(&scope) {
                Ok(true) => {}
                Ok(false) => {
                    return self.enter(
                        flow,
                        name,
                        StepState::Skipped,
                        HistoryEvent::StepSkipped,
                        "its when is false",
                    );
                }
                Err(error) => {
                    let message = format!("{}.when: {error}", flow.field);
                    return self.enter_failed(flow, name, INVALID_EXPRESSION, &message);
                }
            }
        }
        match &flow.for_each {
            Some(for_each) => self.start_list(flow, for_each, &scope),
            None => self.start_one(flow, name, &scope),
        }
    }

    pub(super) fn scope_of_all(
        &self,
        workflow: &Workflow,
        flow: &WorkflowStep,
        name: &str,
    ) -> Result<Scope, request::ExpressionFailure> {
        let Inputs { identity, spec, .. } = self.inputs;
        request::scope_of_all(workflow, flow, name, identity, spec, &self.status)
    }

    /// Starts a step without a list, or one item of one with.
    pub(super) fn start_one(&mut self, flow: &WorkflowStep, name: &str, scope: &Scope) {
        let at = |field: &str| format!("{}.{field}", flow.field);
        if let Some(assert) = &flow.assert {
            return match assert.evaluate_bool(scope) {
                Ok(true) => self.enter(flow, name, StepState::Succeeded, HistoryEvent::StepSucceeded, ""),
                Ok(false) => self.enter_failed(flow, name, "AssertFailed", &format!("{} is false", assert.source())),
                Err(error) => self.enter_failed(flow, name, INVALID_EXPRESSION, &format!("{}: {error}", at("assert"))),
            };
        }
        let key = IdempotencyKey::new(&self.inputs.identity.uid, name, self.status.epoch);
        let request = match request::request(flow, scope, &key) {
            Ok(request) => request,
            Err(error) => return self.enter_failed(flow, name, INVALID_EXPRESSION, &error.to_string()),
        };
        match flow.step_type {
            StepType::Set => {
                self.enter(flow, name, StepState::Waiting, HistoryEvent::StepWaiting, "");
                history::take_back(&mut self.status); // computed at once: its start is not worth an entry
                let last = self.status.steps.len() - 1;
                self.succeed(last, request.value.as_object().cloned());
            }
            StepType::Wait => match wait_until(&request.value, self.now) {
                Ok(until) => {
                    let message = format!("waiting until {until}");
                    self.enter_waiting(flow, name, &message);
                    if let Some(step) = self.status.steps.last_mut() {
                        step.next_attempt_time = Some(until);
                    }
                    if until <= self.now {
                        self.succeed(self.status.steps.len() - 1, None);
                    }
                }
                Err(error) => self.enter_failed(flow, name, INVALID_EXPRESSION, &format!("{}: {error}", at("wait"))),
            },
            StepType::Steps => self.enter_waiting(flow, name, &format!("{} steps", flow.members.len())),
            StepType::Signal => {
                let message = format!("waiting for the signal {}", flow.signal().unwrap_or(name));
                self.enter_waiting(flow, name, &message);
            }
            StepType::Approval => {
                let asked = request.value.get("message").and_then(Value::as_str).unwrap_or_default();
                let message = match asked {
                    "" => "waiting for an approval".to_owned(),
                    asked => format!("waiting for an approval: {asked}"),
                };
                self.enter_waiting(flow, name, &message);
            }
            _ if flow.spec.is_kubernetes_wait() => {
                self.enter_waiting(flow, name, &waits_for(&request.value));
                if let Some(step) = self.status.steps.last_mut() {
                    step.attempt = 1;
                    step.request_digest = Some(request.digest);
                }
            }
            _ => {
                self.enter(flow, name, StepState::Running, HistoryEvent::AttemptStarted, "");
                let now = self.now;
                if let Some(step) = self.status.steps.last_mut() {
                    step.request_digest = Some(request.digest);
                    step.attempt_time = Some(now);
                    step.runner = Some(self.inputs.runner.to_owned());
                    step.deadline = schedule_to_close(&flow.spec).map(|most| now.plus(most));
                }
            }
        }
    }

    /// Enters a step into the journal.
    pub(super) fn enter(
        &mut self,
        flow: &WorkflowStep,
        name: &str,
        state: StepState,
        entry: HistoryEvent,
        message: &str,
    ) {
        #[cfg(test)]
        coverage::started(state);
        let attempt = i64::from(entry == HistoryEvent::AttemptStarted);
        let step = Some((name, attempt));
        let seq = history::append(&mut self.status, self.now, entry, step, Some(message));
        self.status.steps.push(StepStatus {
            name: name.to_owned(),
            step_type: flow.step_type,
            state,
            attempt,
            epoch: self.status.epoch,
            runner: None,
            request_digest: None,
            failures: 0,
            lost: 0,
            maybe_done: false,
            target: None,
            external: None,
            heartbeat: None,
            callback: None,
            start_time: self.now,
            attempt_time: None,
            end_time: state.is_closed().then_some(self.now),
            next_attempt_time: None,
            deadline: None,
            message: None,
            output: None,
            failure: None,
            items: None,
            start_seq: seq,
            end_seq: state.is_closed().then_some(seq),
            other: Map::new(),
        });
    }

    pub(super) fn enter_waiting(&mut self, flow: &WorkflowStep, name: &str, message: &str) {
        self.enter(flow, name, StepState::Waiting, HistoryEvent::StepWaiting, message);
        let deadline = schedule_to_close(&flow.spec).map(|most| self.now.plus(most));
        if let Some(step) = self.status.steps.last_mut() {
            step.message = Some(shorten(message, MAX_MESSAGE));
            step.deadline = deadline;
        }
    }

    /// Enters a step that fails before it did anything.
    pub(super) fn enter_failed(&mut self, flow: &WorkflowStep, name: &str, reason: &str, message: &str) {
        self.enter(flow, name, StepState::Waiting, HistoryEvent::StepWaiting, "");
        history::take_back(&mut self.status); // it failed at once: its start is not worth an entry
        self.fail(self.status.steps.len() - 1, reason, message);
    }

    /// Records the intent of another attempt, unless what it would send is not what the first one sent.
    pub(super) fn attempt(&mut self, workflow: &Workflow, i: usize, event: StepEvent) {
        let step = &self.status.steps[i];
        let Some(flow) = workflow.step(&step.name).filter(|_| next(step.state, event).is_some()) else {
            return;
        };
        let key = self.key(step);
        let scope = request::scope(
            workflow,
            flow,
            &step.name,
            self.inputs.identity,
            self.inputs.spec,
            &self.status,
        );
        match scope.and_then(|scope| request::request(flow, &scope, &key)) {
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
        self.advance(i, event, entry, "");
        if event != StepEvent::Observe {
            let step = &mut self.status.steps[i];
            step.runner = Some(runner);
            step.attempt_time = Some(now);
        }
    }
}

/// How another attempt of this step begins.
pub(super) fn retry_event(workflow: &Workflow, name: &str) -> StepEvent {
    let waits = workflow.step(name).is_some_and(|flow| flow.spec.is_kubernetes_wait());
    if waits { StepEvent::Observe } else { StepEvent::Retry }
}

/// True if what needs this step may run. An item that failed is its list's to bear, not what follows'.
pub(super) fn satisfies(flow: &WorkflowStep, entry: &StepStatus) -> bool {
    let goes_on = flow.spec.on_failure == Some(OnFailure::Continue)
        && split_item(&entry.name).1.is_none()
        && matches!(entry.state, StepState::Failed | StepState::TimedOut);
    entry.state.satisfies() || goes_on
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
