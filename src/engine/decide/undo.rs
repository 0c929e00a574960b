//! The saga: what was done is undone, the last first.

use super::*;
use crate::api::{CancelMode, CloudOperationSpec, FailurePolicy};
use crate::engine::undo_name;

/// True if an operation that fails, or was cancelled, undoes what it did.
pub fn undoes(spec: &CloudOperationSpec) -> bool {
    match &spec.cancel {
        Some(cancel) => cancel.mode == Some(CancelMode::Compensate),
        None => spec.failure_policy == Some(FailurePolicy::Compensate),
    }
}

impl Pass<'_> {
    /// True if what was done is to be undone: the operation failed or was cancelled, and says so.
    pub(super) fn compensates(&self) -> bool {
        let Some(failure) = &self.status.failure else {
            return false;
        };
        let at_the_end = failure.step.as_ref().and_then(|step| self.flow(step));
        if at_the_end.is_some_and(|flow| flow.role == Role::Finally) {
            return false; // everything had succeeded by then
        }
        undoes(self.inputs.spec) && !self.end_began_without_undo()
    }

    /// True if what runs at the end has begun with nothing undone before it: it may have released what an undo needs.
    fn end_began_without_undo(&self) -> bool {
        let has = |of: fn(&Role) -> bool| {
            let mut steps = self.status.steps.iter();
            steps.any(|step| self.flow(&step.name).is_some_and(|flow| of(&flow.role)))
        };
        has(|role| *role == Role::Finally) && !has(|role| matches!(role, Role::Undo(_)))
    }

    /// True if an attempt of this step has to end before the step can be undone: what overtakes it would undo nothing.
    pub(super) fn must_end_first(&self, step: &StepStatus) -> bool {
        (self.compensates() || self.group_will_fail(&step.name)) && self.says_how_it_is_undone(&step.name)
    }

    /// True if a step has a `compensate`, or its group.
    pub(super) fn says_how_it_is_undone(&self, name: &str) -> bool {
        let undone = |flow: &WorkflowStep| {
            let group = self.inputs.workflow.ok().and_then(|workflow| workflow.group(flow));
            flow.undo.is_some() || group.is_some_and(|group| group.undo.is_some())
        };
        self.flow(name).is_some_and(undone)
    }

    /// True if a step is in a group whose end, once what is in it has ended, makes the operation undo what it did.
    fn group_will_fail(&self, name: &str) -> bool {
        undoes(self.inputs.spec)
            && self.group_is_stopped(name)
            && group_name(name).is_some_and(|group| self.flow(group).is_some_and(|flow| self.fails_all(flow, group)))
    }

    /// The steps that are still to be undone, the last one to end first.
    fn to_undo<'w>(&self, workflow: &'w Workflow) -> Vec<&'w WorkflowStep> {
        if !self.compensates() {
            return vec![];
        }
        let mut done: Vec<_> = workflow
            .main()
            .filter_map(|(_, flow)| {
                let undo = &workflow.steps[flow.undo?];
                let entry = self.entry(&flow.name);
                let done = self.was_done(flow);
                // One that was to run again, and didn't any more, would have come after all others.
                let end = entry.map_or(Some(i64::MAX), |entry| entry.end_seq);
                (done && self.entry(&undo_name(&flow.name)).is_none()).then_some((end, undo))
            })
            .collect();
        done.sort_by_key(|(end, _)| std::cmp::Reverse(*end));
        done.into_iter().map(|(_, undo)| undo).collect()
    }

    /// True if a step was done, or may have been, or a part of it.
    fn was_done(&self, flow: &WorkflowStep) -> bool {
        let entry = self.entry(&flow.name);
        match entry.and_then(|entry| entry.items.as_ref()) {
            Some(items) => !self.done_items(&flow.name, items).is_empty(),
            None => entry.is_some_and(may_be_done) || self.may_be_done_before(&flow.name),
        }
    }

    /// Starts to undo the next step, once the one before it is undone.
    pub(super) fn undo_next(&mut self, workflow: &Workflow) {
        if self.undoing(workflow) {
            return;
        }
        if let Some(undo) = self.to_undo(workflow).first() {
            if !self.status.steps.iter().any(|step| self.is_undo(&step.name)) {
                history::append(&mut self.status, self.now, HistoryEvent::Compensating, None, None);
            }
            self.undo(workflow, undo);
        }
    }

    fn undo(&mut self, workflow: &Workflow, undo: &WorkflowStep) {
        let Role::Undo(of) = undo.role else { return };
        let list = self
            .entry(&workflow.steps[of].name)
            .and_then(|entry| entry.items.clone());
        let Some(list) = list else {
            return self.start_step(workflow, undo, &undo.name);
        };
        let mut done = self.done_items(&workflow.steps[of].name, &list);
        done.reverse();
        let message = format!("{} items", done.len());
        self.enter(
            undo,
            &undo.name,
            StepState::Waiting,
            HistoryEvent::StepWaiting,
            &message,
        );
        if let Some(step) = self.status.steps.last_mut() {
            step.items = Some(Items {
                total: list.total,
                next: list.total,
                again: done,
                ..Items::default()
            });
        }
    }

    /// The items of a list that were done, or may have been, by index: those that have no entry of their own any more,
    /// those whose outcome is unknown, and those of which a part was done.
    fn done_items(&self, name: &str, list: &Items) -> Vec<i64> {
        let done = |index: &i64| {
            let item = item_name(name, usize::try_from(*index).unwrap_or_default());
            let entry = self.entry(&item);
            let is_done = |entry: &StepStatus| may_be_done(entry) || self.members_of(&item).any(may_be_done);
            self.may_be_done_before(&item) || (!list.again.contains(index) && entry.is_none_or(is_done))
        };
        (0..list.next).filter(done).collect()
    }

    /// True if a step may have been done under an earlier key; or one that is in it, where it is an item of a list.
    fn may_be_done_before(&self, name: &str) -> bool {
        let mut before = self.status.maybe_done_before.iter();
        before.any(|step| step == name || (split_item(name).1.is_some() && group_name(step) == Some(name)))
    }

    /// Remembers of a step that runs again under a new key that it may have been done under the one before.
    pub(super) fn remember_done(&mut self, step: &StepStatus) {
        let known = self.status.maybe_done_before.contains(&step.name);
        if !known && may_be_done(step) && self.says_how_it_is_undone(&step.name) {
            self.status.maybe_done_before.push(step.name.clone());
        }
    }

    /// The steps of these that were done, or may have been, and say how they are undone.
    pub(super) fn done_of(&self, workflow: &Workflow, these: impl Fn(&str) -> bool) -> Vec<String> {
        let undone = workflow
            .main()
            .filter(|(_, flow)| flow.undo.is_some() && these(&flow.name));
        let done = undone.filter(|(_, flow)| self.was_done(flow));
        done.map(|(_, flow)| flow.name.clone()).collect()
    }

    /// True once nothing is left to be undone.
    pub(super) fn is_undone(&self, workflow: &Workflow) -> bool {
        !self.undoing(workflow) && self.to_undo(workflow).is_empty()
    }

    fn undoing(&self, _: &Workflow) -> bool {
        self.status
            .steps
            .iter()
            .any(|step| !step.state.is_closed() && self.is_undo(&step.name))
    }

    pub(super) fn is_undo(&self, name: &str) -> bool {
        self.flow(name).is_some_and(|flow| matches!(flow.role, Role::Undo(_)))
    }
}

/// True if a step was done, or may have been, or a part of it. What ran by itself and failed may have done anything until then.
pub(super) fn may_be_done(step: &StepStatus) -> bool {
    let ran = step.step_type.goes_on_by_itself() && (step.external.is_some() || step.failures > 0);
    step.state == StepState::Succeeded || step.maybe_done || ran
}
