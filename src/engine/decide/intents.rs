//! What starts: steps that are ready, and attempts that are due.

use super::*;

impl Pass<'_> {
    /// Starts what is ready and what is due again. Answers whether anything was started or ended by it.
    pub(super) fn start_ready_steps(&mut self, workflow: &Workflow) -> bool {
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
    pub(super) fn attempt(&mut self, workflow: &Workflow, i: usize, event: StepEvent) {
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
