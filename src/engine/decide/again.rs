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
            let mut keys = Keys::default();
            self.status.epoch += 1; // what runs again with it, runs under a new key
            self.reopen_around(workflow, &skip.step, &mut keys);
            if self.is_at_the_end(&skip.step) {
                self.reopen_end(workflow);
            } else if self.is_ending() {
                self.reopen(workflow, &mut keys);
            }
        }
        Ok(format!("step {} was skipped", skip.step))
    }

    pub(super) fn retry(&mut self, workflow: &Workflow, retry: &RetryStep) -> Verdict {
        let new_key = retry.new_key == Some(true);
        let names = match &retry.step {
            Some(name) => vec![name.clone()],
            None => self.to_retry(workflow),
        };
        if names.is_empty() && self.status.failure.is_none() {
            return Err("no step ended badly or needs a person".into());
        }
        let mut late = !names.is_empty();
        let mut taken_back = names.is_empty();
        for name in &names {
            let i = self.position(name)?;
            late &= self.is_undo(name) || self.is_at_the_end(name);
            if self.status.steps[i].state != StepState::Undecided {
                self.may_run_again(workflow, i)?;
                taken_back = true;
            }
        }
        let reopens = self.is_ending() && !late;
        if reopens {
            self.may_reopen(workflow)?;
        }
        let before = self.status.clone();
        self.status.epoch += 1;
        let mut keys = Keys::default();
        for name in &names {
            self.run_again(workflow, name, new_key, &mut keys);
        }
        if reopens {
            let mut with_them = Keys::default();
            self.reopen(workflow, &mut with_them);
            if names.is_empty() {
                keys = with_them;
            }
        } else if late && taken_back {
            self.reopen_end(workflow);
        }
        if !late && let Some(why) = retry.step.as_ref().and_then(|name| self.ends_again(workflow, name)) {
            self.status = before;
            return Err(why);
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

    /// The steps that a retry is about that names none: those that need a person; where these are not of what comes after
    /// the steps of `spec.steps`, those that ended badly, too. What runs at the end runs again with what it is the end of.
    fn to_retry(&self, workflow: &Workflow) -> Vec<String> {
        let stuck = |step: &StepStatus| step.state == StepState::Undecided;
        let is_late = |name: &str| self.is_undo(name) || self.is_at_the_end(name);
        let late = self.status.steps.iter().any(|step| stuck(step) && is_late(&step.name));
        let failed = self.status.failure.as_ref().and_then(|failure| failure.step.as_ref());
        let end_failed = failed.is_some_and(|name| self.is_at_the_end(name));
        let needs_it = |step: &&StepStatus| {
            let bad = matches!(step.state, StepState::Failed | StepState::TimedOut)
                && !is_part(&step.name)
                && !workflow.step(&step.name).is_some_and(|flow| satisfies(flow, step));
            match late {
                true => stuck(step) && is_late(&step.name),
                false => stuck(step) || (bad && self.is_at_the_end(&step.name) == end_failed),
            }
        };
        let steps = self.status.steps.iter().filter(needs_it);
        steps.map(|step| step.name.clone()).collect()
    }

    fn is_at_the_end(&self, name: &str) -> bool {
        self.flow(name).is_some_and(|flow| flow.role == Role::Finally)
    }

    /// True if the operation has ended or is going to.
    fn is_ending(&self) -> bool {
        self.status.failure.is_some() || self.status.state.is_some_and(OperationState::is_finished)
    }

    /// Why a step that was let run again would not get far: what else ended badly ends it with the rest.
    fn ends_again(&self, workflow: &Workflow, name: &str) -> Option<String> {
        if let Some(other) = self.status.failure.as_ref().and_then(|failure| failure.step.as_ref()) {
            return Some(format!(
                "step {other} ended badly, too: retry all that did, naming none, or skip {other} first"
            ));
        }
        wholes(name).find_map(|whole| self.whole_fails(workflow, whole))
    }

    /// Why a list or a group, or one item of it, fails by what is in it, if it does.
    fn whole_fails(&self, workflow: &Workflow, whole: &str) -> Option<String> {
        if self.entry(whole).is_some_and(|entry| entry.items.is_some()) {
            let fails = workflow.step(whole).is_some_and(|flow| self.too_many_failed(flow));
            return fails.then(|| {
                format!("more items of {whole} failed than may: retry {whole} as a whole, or skip the others first")
            });
        }
        let other = &self.failed_member(whole)?.name;
        Some(format!(
            "step {other} ended badly, too: retry {whole} as a whole, or skip {other} first"
        ))
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
        for whole in self.around(name).filter_map(|whole| self.entry(whole)) {
            if whole.state.satisfies() {
                return Err(format!(
                    "step {} ended without it, as {:?}: reset goes back to it",
                    whole.name, whole.state
                ));
            }
        }
        let consumed = |entry: &StepStatus| {
            let flow = workflow.step(&entry.name);
            flow.is_some_and(|flow| satisfies(flow, entry)) && self.is_consumed(workflow, &entry.name)
        };
        let around = self.around(name).filter_map(|whole| self.entry(whole));
        if consumed(step) || around.into_iter().any(consumed) {
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
        // Without its entry, nothing would follow or stop what it started, and its next attempt would have another key.
        let at_the_end = |step: &&StepStatus| {
            let unknown = step.maybe_done || step.external.is_some() || step.state == StepState::Running;
            !step.state.is_closed() && unknown && self.is_at_the_end(&step.name)
        };
        if let Some(step) = self.status.steps.iter().find(at_the_end) {
            let name = &step.name;
            return Err(format!(
                "step {name} of finally is under way: ask again once it has ended"
            ));
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

    /// True if a step was started that may read this one: of the same item, where it is in one.
    fn is_consumed(&self, workflow: &Workflow, name: &str) -> bool {
        let group = workflow.step(name).and_then(|flow| flow.group);
        let own = |flow: &WorkflowStep| workflow.step(name).is_some_and(|own| own.name == flow.name);
        let own = workflow.steps.iter().position(own);
        self.status.steps.iter().any(|step| {
            let follows = |flow: &WorkflowStep| {
                let elsewhere = group.is_some() && flow.group == group && group_name(&step.name) != group_name(name);
                flow.role == Role::Main && own.is_some_and(|own| flow.ancestors.contains(&own)) && !elsewhere
            };
            workflow.step(&step.name).is_some_and(follows)
        })
    }

    /// Lets a step run again: under its key where it isn't known whether its last attempt had its effect, unless the
    /// person wants another; else from its beginning, under the new epoch.
    fn run_again(&mut self, workflow: &Workflow, name: &str, new_key: bool, keys: &mut Keys) {
        let Ok(i) = self.position(name) else { return };
        let step = &self.status.steps[i];
        // A group that has none of its steps failed before it began: whether it is to run at all is asked again.
        if step.items.is_some() || (is_group(step) && self.members_of(name).next().is_some()) {
            self.run_parts_again(workflow, name, new_key, keys);
            return self.reopen_around(workflow, name, keys);
        }
        let step = &mut self.status.steps[i];
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
            step.callback = None; // what completed it once, does so again
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
            let step = self.status.steps.remove(i);
            self.remember_done(&step);
            if let (list, Some(index)) = split_item(name)
                && let Some(list) = self.status.steps.iter_mut().find(|step| step.name == list)
                && let Some(items) = &mut list.items
            {
                items.again.insert(0, i64::try_from(index).unwrap_or_default());
            }
        }
        self.reopen_around(workflow, name, keys);
    }

    /// Lets a list or a group go on, and what ended badly in it run again.
    fn run_parts_again(&mut self, workflow: &Workflow, whole: &str, new_key: bool, keys: &mut Keys) {
        self.wait_again(workflow, whole);
        let ended_badly = |step: &StepStatus| {
            let borne = workflow.step(&step.name).is_some_and(|flow| satisfies(flow, step));
            step.state.is_closed() && !borne
        };
        for part in self.parts_of(whole, ended_badly) {
            self.run_again(workflow, &part, new_key, keys);
        }
    }

    /// The paths of what is in a list or a group, or one item of it, and is so.
    fn parts_of(&self, whole: &str, is_so: impl Fn(&StepStatus) -> bool) -> Vec<String> {
        let steps = self.status.steps.iter();
        let parts = steps.filter(|step| wholes(&step.name).next() == Some(whole) && is_so(step));
        parts.map(|step| step.name.clone()).collect()
    }

    /// The lists and groups that a step is in, from the inside out. What undoes a step of a group is not in the group.
    fn around<'n>(&self, name: &'n str) -> impl Iterator<Item = &'n str> {
        let undoes = self.is_undo(name);
        wholes(name).filter(move |whole| self.is_undo(whole) == undoes)
    }

    /// Lets the lists and groups go on that a step is in, with what was ended in them.
    fn reopen_around(&mut self, workflow: &Workflow, name: &str, keys: &mut Keys) {
        let around: Vec<_> = self.around(name).collect();
        for whole in around {
            self.go_on(workflow, whole, keys);
        }
    }

    /// Lets a list or a group go on, if it had ended otherwise than well, and what was ended in it run again.
    fn go_on(&mut self, workflow: &Workflow, whole: &str, keys: &mut Keys) {
        if self.wait_again(workflow, whole) {
            let ended = self.parts_of(whole, |step| step.state == StepState::Cancelled);
            self.run_ended_again(workflow, &ended, keys);
        }
    }

    /// Lets a list or a group wait again for what is in it, if it had ended otherwise than well.
    fn wait_again(&mut self, workflow: &Workflow, whole: &str) -> bool {
        let Ok(i) = self.position(whole) else { return false };
        let step = &self.status.steps[i];
        if next(step.state, StepEvent::Observe).is_none() {
            return false;
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
        true
    }

    /// Lets steps run again that were ended before their time: unless what they are in has ended in another way, or is
    /// going to; and each once, though it is let run with others.
    fn run_ended_again(&mut self, workflow: &Workflow, names: &[String], keys: &mut Keys) {
        for name in names {
            let ended = |step: &StepStatus| step.state == StepState::Cancelled;
            let goes_on = |whole| {
                let entry = self.entry(whole);
                entry.is_none_or(|entry| !entry.state.is_closed() || ended(entry))
                    && self.whole_fails(workflow, whole).is_none()
            };
            let Some(entry) = self
                .entry(name)
                .filter(|entry| ended(entry) && wholes(name).all(goes_on))
            else {
                continue;
            };
            let bears = (entry.items.is_some() || is_group(entry)) && self.whole_fails(workflow, name).is_none();
            if bears {
                // Nobody asked for what failed in it, and it goes on without that.
                self.go_on(workflow, name, keys);
                self.reopen_around(workflow, name, keys);
            } else {
                self.run_again(workflow, name, false, keys);
            }
        }
    }

    /// Lets an operation go on that had ended or was ending: what was ended before its time, or at the end, runs again.
    /// Notes under which keys the first of these do.
    fn reopen(&mut self, workflow: &Workflow, keys: &mut Keys) {
        self.status
            .steps
            .retain(|step| workflow.step(&step.name).is_none_or(|flow| flow.role != Role::Finally));
        // Where another step ended badly, too, the operation ends as that one lets it.
        self.status.failure = self.failed_step(workflow, Role::Main);
        if self.status.failure.is_none() {
            let ended = self.status.steps.iter();
            let ended = ended.filter(|step| step.state == StepState::Cancelled);
            let ended: Vec<String> = ended.map(|step| step.name.clone()).collect();
            self.run_ended_again(workflow, &ended, keys);
        }
        self.status.deadline = self
            .inputs
            .spec
            .timeout
            .as_ref()
            .map(|timeout| self.now.plus(timeout.get()));
        self.begin_again();
    }

    /// Lets an operation end anew with what was changed of its `finally`: all else stays as it was.
    fn reopen_end(&mut self, workflow: &Workflow) {
        let failed = self.status.failure.as_ref().and_then(|failure| failure.step.as_ref());
        if failed.is_some_and(|name| self.is_at_the_end(name)) {
            self.status.failure = self.failed_step(workflow, Role::Finally);
        }
        self.begin_again();
    }

    fn begin_again(&mut self) {
        self.status.completion_time = None;
        self.status.output = None;
        self.status.state = Some(OperationState::Running);
    }

    /// What the operation fails with by the first of its steps that ended badly.
    fn failed_step(&self, workflow: &Workflow, role: Role) -> Option<Failure> {
        let fails = |step: &&StepStatus| {
            let counts = |flow: &WorkflowStep| flow.role == role && !satisfies(flow, step);
            let bad = matches!(step.state, StepState::Failed | StepState::TimedOut) && !is_part(&step.name);
            bad && workflow.step(&step.name).is_some_and(counts)
        };
        let step = self.status.steps.iter().find(fails)?;
        Some(Failure {
            step: Some(step.name.clone()),
            ..step.failure.clone().unwrap_or_default()
        })
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
        let is_cut = |step: &str| {
            workflow.step(step).is_some_and(|flow| {
                let is_group = group.is_some_and(|group| workflow.steps[group].name == flow.name);
                let follows = flow.group == Some(own) || flow.ancestors.contains(&own);
                flow.role == Role::Finally || flow.name == name || is_group || follows
            })
        };
        let under_way = |step: &&StepStatus| {
            is_cut(&step.name)
                && match step.state {
                    StepState::Running => true,
                    StepState::BackingOff if may_have_started(step) => true,
                    state => step.external.is_some() && !state.is_closed(),
                }
        };
        if let Some(step) = self.status.steps.iter().find(under_way) {
            return Err(format!(
                "step {} is under way: suspend the operation and wait for its end",
                step.name
            ));
        }
        let before = self.status.clone();
        let cut = self.status.steps.iter().filter(|step| is_cut(&step.name)).count();
        let left = self.done_of(workflow, is_cut);
        self.status.steps.retain(|step| !is_cut(&step.name));
        self.status.maybe_done_before.retain(|step| !is_cut(step));
        self.status.epoch += 1;
        // A word that was given for what is no more doesn't count.
        self.status.received.retain(|received| received.step.is_none());
        self.reopen(workflow, &mut Keys::default());
        if let Some(why) = self.ends_again(workflow, name) {
            self.status = before;
            return Err(why);
        }
        let mut message = format!("back to step {name}: {cut} steps run again");
        if !left.is_empty() {
            let left = left.join(", ");
            message = format!("{message}; what was done of {left} until now stays, and no later failure undoes it");
        }
        Ok(message)
    }
}
