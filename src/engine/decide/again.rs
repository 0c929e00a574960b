//! What people take back: steps that ended badly run again, are skipped, or are gone back to; and with them the operation.

use std::fmt;

use super::actions::Verdict;
use super::*;
use crate::api::{RetryStep, WithOutput};

/// Under which idempotency keys steps run again: what they did before is done anew under a new one, and recognised under the
/// same. Those that call nothing have none.
#[derive(Default)]
struct Keys {
    same: Vec<String>,
    new: Vec<String>,
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.same.as_slice(), self.new.as_slice()) {
            ([], []) => Ok(()),
            ([_], []) => f.write_str(", under the same key"),
            (_, []) => f.write_str(", under the same keys"),
            ([], [_]) => f.write_str(", under a new key"),
            ([], _) => f.write_str(", under new keys"),
            (same, new) => write!(
                f,
                ": {} under the same key, {} under a new one",
                same.join(", "),
                new.join(", ")
            ),
        }
    }
}

impl Pass<'_> {
    pub(super) fn skip(&mut self, workflow: &Workflow, skip: &WithOutput) -> Verdict {
        let i = self.position(&skip.step)?;
        let ended = self.status.steps[i].state.is_closed();
        let i = if ended {
            self.may_run_again(workflow, i)?;
            i
        } else {
            self.waiting_step(&skip.step)?
        };
        let output = skip.output.clone();
        output.as_ref().map_or(Ok(()), |output| self.fits(output))?;
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

    pub(super) fn retry(&mut self, workflow: &Workflow, retry: &RetryStep) -> Verdict {
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
        let before = self.status.clone();
        self.status.epoch += 1;
        let mut keys = Keys::default();
        for name in &positions {
            self.run_again(workflow, name, new_key, &mut keys);
        }
        if ended {
            let with_them = self.reopen(workflow);
            if names.is_empty() {
                keys = with_them;
            }
            if let Some(why) = retry.step.as_ref().and_then(|name| self.ends_again(workflow, name)) {
                self.status = before;
                return Err(why);
            }
        }
        Ok(match names.as_slice() {
            [] => format!("what was ended before its time runs again{keys}"),
            names => format!(
                "{} {} again{keys}",
                names.join(", "),
                if names.len() == 1 { "runs" } else { "run" }
            ),
        })
    }

    /// Why a step that was let run again would not get far: what else ended badly ends it with the rest.
    fn ends_again(&self, workflow: &Workflow, name: &str) -> Option<String> {
        if let Some(other) = self.status.failure.as_ref().and_then(|failure| failure.step.as_ref()) {
            return Some(format!(
                "step {other} ended badly, too: retry all that did, naming none, or skip {other} first"
            ));
        }
        let list = split_item(name).0;
        let fails = list != name && workflow.step(list).is_some_and(|flow| self.too_many_failed(flow));
        fails
            .then(|| format!("more items of {list} failed than may: retry {list} as a whole, or skip the others first"))
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
        if let Some(step) = self
            .status
            .steps
            .iter()
            .find(|step| step.state == StepState::Cancelling)
        {
            let name = &step.name;
            return Err(format!("step {name} is being stopped: ask again once it has ended"));
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
    fn run_again(&mut self, workflow: &Workflow, name: &str, new_key: bool, keys: &mut Keys) {
        let Ok(i) = self.position(name) else { return };
        let step = &mut self.status.steps[i];
        if step.items.is_some() || is_group(step) {
            self.run_parts_again(workflow, name, new_key, keys);
            return self.reopen_around(workflow, name);
        }
        let attempts = matches!(
            step.step_type,
            StepType::Http | StepType::Kubernetes | StepType::Job | StepType::Operation
        );
        if step.maybe_done && !new_key && attempts {
            keys.same.push(name.to_owned());
            // Deadlines begin anew.
            step.failure = None;
            step.end_time = None;
            step.end_seq = None;
            let created = step.external.take().is_some() && step.step_type.goes_on_by_itself();
            step.failures += i64::from(created);
            step.lost = step.attempt;
            let deadline = workflow.step(name).and_then(|flow| schedule_to_close(&flow.spec));
            step.deadline = deadline.map(|most| self.now.plus(most));
            if self.is_idle() {
                self.status.steps[i].next_attempt_time = Some(self.now);
                let message = "its next attempt starts once the operation goes on";
                self.advance(i, StepEvent::Postpone, HistoryEvent::StepWaiting, message);
            } else {
                self.attempt(workflow, i, retry_event(workflow, name));
            }
        } else {
            if attempts {
                keys.new.push(name.to_owned());
            }
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
    fn run_parts_again(&mut self, workflow: &Workflow, whole: &str, new_key: bool, keys: &mut Keys) {
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
            self.run_again(workflow, &part, new_key, keys);
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
    /// Answers under which keys the first of these do.
    fn reopen(&mut self, workflow: &Workflow) -> Keys {
        let mut keys = Keys::default();
        let again: Vec<String> = self
            .status
            .steps
            .iter()
            .filter(|step| step.state == StepState::Cancelled)
            .map(|step| step.name.clone())
            .collect();
        for name in again {
            self.run_again(workflow, &name, false, &mut keys);
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
        keys
    }

    pub(super) fn reset(&mut self, workflow: &Workflow, name: &str) -> Verdict {
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
