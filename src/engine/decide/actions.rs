//! What people and programs ask: OperationActions, each decided on once, in the order of their creation.

use super::*;
use crate::api::{ActionState, Decide, DecidedAction, Received, RetryStep, SendSignal, WithOutput};
use crate::engine::Action;

/// What was done, or why nothing was.
type Verdict = Result<String, String>;

/// How many signals and approvals wait for their step at most, and how large they are together, in bytes of JSON.
const MAX_RECEIVED: usize = 100;
const MAX_RECEIVED_SIZE: usize = 16 * 1024;

impl Pass<'_> {
    /// Decides on the actions that wait for it, and notes what came of each until the action says it itself.
    pub(super) fn decide_actions(&mut self) {
        for action in self.inputs.actions {
            if self.status.actions.iter().any(|decided| decided.uid == action.uid) {
                continue;
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

    /// Forgets what came of actions that say it themselves by now, or are gone.
    pub(super) fn forget_actions(&mut self) {
        let waiting = |uid: &str| self.inputs.actions.iter().any(|action| action.uid == uid);
        self.status.actions.retain(|decided| waiting(&decided.uid));
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
        let Ok(workflow) = self.inputs.workflow else {
            return Err("the operation's spec is invalid: nothing can be done to it".into());
        };
        if self.status.compacted.is_some() {
            return Err("the operation has ended, and its details are gone".into());
        }
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
            let message = fail.message.clone().unwrap_or_else(|| "a person said so".into());
            let i = self.waiting_step(&fail.step)?;
            self.close_for_good(i, StepEvent::Fail, HistoryEvent::StepFailed, "FailedByHand", &message);
            Ok(format!("step {} failed: {message}", fail.step))
        } else if let Some(of) = &spec.reset {
            self.reset(workflow, &of.step)
        } else {
            Err("it asks for something that this version doesn't know".into())
        }
    }

    fn receive_signal(&mut self, workflow: &Workflow, signal: &SendSignal) -> Verdict {
        self.is_active()?;
        let SendSignal { name, payload } = signal;
        let waits = workflow.steps.iter().find(|flow| flow.signal() == Some(name));
        let Some(flow) = waits else {
            let known: Vec<&str> = workflow.steps.iter().filter_map(WorkflowStep::signal).collect();
            return Err(match known.as_slice() {
                [] => "no step waits for a signal".into(),
                known => format!(
                    "no step waits for a signal named {name:?}; there are {}",
                    known.join(", ")
                ),
            });
        };
        let payload = payload.clone().unwrap_or_default();
        if depth(payload.values()) > MAX_DEPTH {
            return Err(format!("its payload is nested more than {MAX_DEPTH} levels deep"));
        }
        if let Some(schema) = &flow.schema
            && let Some(error) = schema.iter_errors(&Value::Object(payload.clone())).next()
        {
            let field = error.instance_path().to_string().replace('/', ".");
            return Err(format!(
                "payload{field} doesn't conform to {}.signal.schema: {error}",
                flow.field
            ));
        }
        self.receive(Received {
            signal: Some(name.clone()),
            payload,
            ..Received::default()
        })?;
        Ok(format!("signal {name} was received"))
    }

    fn receive_word(&mut self, workflow: &Workflow, action: &Action, word: &Decide, approved: bool) -> Verdict {
        self.is_active()?;
        let flow = workflow
            .step(&word.step)
            .filter(|flow| flow.step_type == StepType::Approval);
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
        let size = serde_json::to_string(&self.status.received).map_or(usize::MAX, |text| text.len());
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
                StepType::Signal => received.signal.as_deref() == flow.signal(),
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

    fn is_active(&self) -> Result<(), String> {
        match self.status.state.filter(|state| state.is_finished()) {
            Some(state) => Err(format!("the operation has ended: {state}")),
            None if self.status.failure.is_some() => Err("the operation is ending".into()),
            None => Ok(()),
        }
    }

    fn position(&self, name: &str) -> Result<usize, String> {
        let found = self.status.steps.iter().position(|step| step.name == name);
        found.ok_or_else(
            || match self.inputs.workflow.ok().and_then(|workflow| workflow.step(name)) {
                Some(_) => format!("step {name} has not been started"),
                None => format!("there is no step {name:?}"),
            },
        )
    }

    /// A step that waits, or whose outcome a person decides.
    fn waiting_step(&self, name: &str) -> Result<usize, String> {
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
            StepState::Waiting if step.external.is_some() => Err(format!(
                "what step {name} started is under way: cancel the operation, or wait for its end"
            )),
            StepState::Waiting | StepState::BackingOff | StepState::Undecided => Ok(i),
            state => Err(format!(
                "step {name} neither waits nor needs a decision: it is {state:?}"
            )),
        }
    }

    fn complete(&mut self, complete: &WithOutput) -> Verdict {
        let i = self.waiting_step(&complete.step)?;
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

    fn skip(&mut self, workflow: &Workflow, skip: &WithOutput) -> Verdict {
        let i = self.position(&skip.step)?;
        let ended = self.status.steps[i].state.is_closed();
        let i = if ended {
            self.may_run_again(workflow, i)?;
            i
        } else {
            self.waiting_step(&skip.step)?
        };
        let output = skip.output.clone();
        if output
            .as_ref()
            .is_some_and(|output| json_size(output) > MAX_STEP_OUTPUT || depth(output.values()) > MAX_DEPTH)
        {
            return Err(format!(
                "its output has more than {MAX_STEP_OUTPUT} bytes, or more than {MAX_DEPTH} levels"
            ));
        }
        let step = &mut self.status.steps[i];
        step.output = output.filter(|output| !output.is_empty());
        step.failure = None;
        step.message = None;
        self.advance(
            i,
            StepEvent::Skip,
            HistoryEvent::StepSkipped,
            "a person said to go on without it",
        );
        if ended {
            self.reopen_around(workflow, &skip.step);
            self.status.epoch += 1; // what runs again with it, runs under a new key
            self.reopen(workflow);
        }
        Ok(format!("step {} was skipped", skip.step))
    }

    fn retry(&mut self, workflow: &Workflow, retry: &RetryStep) -> Verdict {
        let new_key = retry.new_key == Some(true);
        let names = match &retry.step {
            Some(name) => vec![name.clone()],
            None => {
                use StepState::{Failed, TimedOut, Undecided};
                let stuck = |step: &StepStatus| step.state == Undecided;
                let undoing = self
                    .status
                    .steps
                    .iter()
                    .any(|step| stuck(step) && self.is_undo(&step.name));
                let needs_it = |step: &&StepStatus| match undoing {
                    true => stuck(step) && self.is_undo(&step.name),
                    false => matches!(step.state, Failed | TimedOut | Undecided) && !is_part(&step.name),
                };
                self.status
                    .steps
                    .iter()
                    .filter(needs_it)
                    .map(|step| step.name.clone())
                    .collect()
            }
        };
        let only_undo = !names.is_empty() && names.iter().all(|name| self.is_undo(name));
        let ending = self.status.failure.is_some() || self.status.state.is_some_and(OperationState::is_finished);
        let ended = ending && !only_undo;
        if names.is_empty() && self.status.failure.is_none() {
            return Err("no step ended badly or needs a person".into());
        }
        let mut positions = vec![];
        for name in &names {
            let i = self.position(name)?;
            match self.status.steps[i].state {
                StepState::Undecided => {}
                _ => self.may_run_again(workflow, i)?,
            }
            positions.push(name.clone());
        }
        if ended {
            self.may_reopen(workflow)?;
        }
        self.status.epoch += 1;
        for name in &positions {
            self.run_again(workflow, name, new_key);
        }
        if ended {
            self.reopen(workflow);
        }
        Ok(match names.as_slice() {
            [] => "what was ended before its time runs again".into(),
            names => format!(
                "{} {} again",
                names.join(", "),
                if names.len() == 1 { "runs" } else { "run" }
            ),
        })
    }

    /// An end that nothing has consumed can be taken back.
    fn may_run_again(&self, workflow: &Workflow, i: usize) -> Result<(), String> {
        let step = &self.status.steps[i];
        let name = &step.name;
        if !matches!(
            step.state,
            StepState::Failed | StepState::TimedOut | StepState::Cancelled
        ) {
            return Err(format!(
                "step {name} didn't end badly: it is {:?}; reset goes back to it",
                step.state
            ));
        }
        let Some(flow) = workflow.step(name) else {
            return Err(format!("there is no step {name:?}"));
        };
        let consumed = |flow: &WorkflowStep| {
            flow.spec.on_failure == Some(OnFailure::Continue) && self.is_consumed(workflow, &flow.name)
        };
        if consumed(flow) || workflow.group(flow).is_some_and(consumed) {
            return Err(format!(
                "what follows has read how step {name} ended: reset goes back to it"
            ));
        }
        self.may_reopen(workflow)
    }

    /// An operation that was cancelled, undone, or never ran, stays so.
    fn may_reopen(&self, workflow: &Workflow) -> Result<(), String> {
        use OperationState::*;
        if self.inputs.spec.cancel.is_some() {
            return Err("the operation was cancelled: create another".into());
        }
        if let Some(state) = self
            .status
            .state
            .filter(|state| matches!(state, Expired | InvalidSpec | SpecChanged))
        {
            return Err(format!("the operation ended as {state}: create another"));
        }
        let undone = |step: &StepStatus| {
            workflow
                .step(&step.name)
                .is_some_and(|flow| matches!(flow.role, Role::Undo(_)))
        };
        if self.status.steps.iter().any(undone) {
            return Err("what it did was undone: create another operation".into());
        }
        Ok(())
    }

    fn is_consumed(&self, workflow: &Workflow, name: &str) -> bool {
        let own = workflow.steps.iter().position(|flow| flow.name == name);
        workflow
            .main()
            .any(|(_, flow)| own.is_some_and(|own| flow.ancestors.contains(&own)) && self.entry(&flow.name).is_some())
    }

    /// Lets a step run again: under its key where it isn't known whether its last attempt had its effect, unless the
    /// person wants another; else from its beginning, under the new epoch.
    fn run_again(&mut self, workflow: &Workflow, name: &str, new_key: bool) {
        let Ok(i) = self.position(name) else { return };
        let step = &mut self.status.steps[i];
        if step.items.is_some() || is_group(step) {
            self.run_parts_again(workflow, name, new_key);
            return self.reopen_around(workflow, name);
        }
        let attempts = matches!(
            step.step_type,
            StepType::Http | StepType::Kubernetes | StepType::Job | StepType::Operation
        );
        if step.maybe_done && !new_key && attempts {
            // Deadlines begin anew.
            step.failure = None;
            step.end_time = None;
            step.end_seq = None;
            step.failures += i64::from(step.external.take().is_some());
            step.lost = step.attempt;
            let deadline = workflow.step(name).and_then(|flow| schedule_to_close(&flow.spec));
            step.deadline = deadline.map(|most| self.now.plus(most));
            self.attempt(workflow, i, retry_event(workflow, name));
        } else {
            self.status.steps.remove(i);
            if let (list, Some(index)) = split_item(name)
                && let Some(list) = self.status.steps.iter_mut().find(|step| step.name == list)
                && let Some(items) = &mut list.items
            {
                items.again.insert(0, i64::try_from(index).unwrap_or_default());
            }
        }
        self.reopen_around(workflow, name);
    }

    /// Lets what ended badly in a list or a group run again; and the list or group go on.
    fn run_parts_again(&mut self, workflow: &Workflow, whole: &str, new_key: bool) {
        let ended_badly = |step: &&StepStatus| {
            let is_part = match split_item(&step.name) {
                (list, Some(_)) => list == whole,
                _ => group_name(&step.name) == Some(whole),
            };
            is_part && !step.state.satisfies() && step.state.is_closed()
        };
        let parts = self.status.steps.iter().filter(ended_badly);
        let parts: Vec<String> = parts.map(|step| step.name.clone()).collect();
        for part in parts {
            self.run_again(workflow, &part, new_key);
        }
        self.go_on(workflow, whole);
    }

    /// Lets the list and the group go on that a step is in.
    fn reopen_around(&mut self, workflow: &Workflow, name: &str) {
        let mut inner = name;
        loop {
            inner = match (split_item(inner), group_name(inner)) {
                ((list, Some(_)), _) => list,
                (_, Some(group)) => group,
                _ => return,
            };
            self.go_on(workflow, inner);
        }
    }

    /// Lets a list or a group go on that had ended.
    fn go_on(&mut self, workflow: &Workflow, whole: &str) {
        let Ok(i) = self.position(whole) else { return };
        let step = &self.status.steps[i];
        if !(step.items.is_some() || is_group(step)) || step.state == StepState::Waiting {
            return;
        }
        let deadline = workflow.step(whole).and_then(|flow| schedule_to_close(&flow.spec));
        self.advance(i, StepEvent::Observe, HistoryEvent::StepWaiting, "it goes on");
        let step = &mut self.status.steps[i];
        step.failure = None;
        step.end_time = None;
        step.end_seq = None;
        step.deadline = deadline
            .filter(|_| step.items.is_none())
            .map(|most| self.now.plus(most));
    }

    /// Lets an operation go on that had ended or was ending: what was ended before its time, or at the end, runs again.
    fn reopen(&mut self, workflow: &Workflow) {
        let again: Vec<String> = self
            .status
            .steps
            .iter()
            .filter(|step| step.state == StepState::Cancelled)
            .map(|step| step.name.clone())
            .collect();
        for name in again {
            self.run_again(workflow, &name, false);
        }
        self.status
            .steps
            .retain(|step| workflow.step(&step.name).is_none_or(|flow| flow.role != Role::Finally));
        // Where another step ended badly, too, the operation ends as that one lets it.
        let bad = self.status.steps.iter().find(|step| {
            let fails = |flow: &WorkflowStep| flow.role == Role::Main && !satisfies(flow, step);
            step.state.is_closed() && !is_part(&step.name) && workflow.step(&step.name).is_some_and(fails)
        });
        self.status.failure = bad.map(|step| Failure {
            step: Some(step.name.clone()),
            ..step.failure.clone().unwrap_or_default()
        });
        self.status.completion_time = None;
        self.status.output = None;
        self.status.state = Some(OperationState::Running);
        self.status.deadline = self
            .inputs
            .spec
            .timeout
            .as_ref()
            .map(|timeout| self.now.plus(timeout.get()));
    }

    fn reset(&mut self, workflow: &Workflow, name: &str) -> Verdict {
        if let Some((list, _)) = name.split_once('[') {
            return Err(format!("a list is reset as a whole: reset {list}, or retry the item"));
        }
        self.position(name)?;
        let Some((own, flow)) = workflow.main().find(|(_, flow)| flow.name == name) else {
            return Err(format!("only one of spec.steps can be reset, not {name}"));
        };
        self.may_reopen(workflow)?;
        // The group of a step that is reset runs again with those of its steps that are left.
        let group = flow.group;
        let is_cut = |step: &StepStatus| {
            workflow.step(&step.name).is_some_and(|flow| {
                let is_group = group.is_some_and(|group| workflow.steps[group].name == flow.name);
                let follows = flow.group == Some(own) || flow.ancestors.contains(&own);
                flow.role == Role::Finally || flow.name == name || is_group || follows
            })
        };
        let under_way = |step: &&StepStatus| {
            is_cut(step) && (step.state == StepState::Running || step.external.is_some()) && !step.state.is_closed()
        };
        if let Some(step) = self.status.steps.iter().find(under_way) {
            return Err(format!(
                "step {} is under way: suspend the operation and wait for its end",
                step.name
            ));
        }
        let cut = self.status.steps.iter().filter(|step| is_cut(step)).count();
        self.status.steps.retain(|step| !is_cut(step));
        self.status.epoch += 1;
        // A word that was given for what is no more doesn't count.
        self.status.received.retain(|received| received.step.is_none());
        self.reopen(workflow);
        Ok(format!("back to step {name}: {cut} steps run again"))
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
