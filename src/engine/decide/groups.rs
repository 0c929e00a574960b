//! `steps` in a step: a group that runs as one.
//!
//! A group has an entry of its own, which waits as long as its steps are under way; with `forEach`, each item has. A step in
//! a group that fails for good fails the group; what that means for the operation, the group says. A group whose time is up is
//! `Cancelling` until nothing in it is under way: nothing that follows runs beside what it started.

use super::*;

impl Pass<'_> {
    /// Starts what is ready in groups, and ends those whose steps have ended.
    pub(super) fn advance_groups(&mut self, workflow: &Workflow) {
        let open = |step: &&StepStatus| is_group(step) && step.state == StepState::Waiting;
        let groups: Vec<String> = self.status.steps.iter().filter(open).map(|s| s.name.clone()).collect();
        for name in groups {
            if let Some(group) = workflow.step(&name) {
                self.advance_group(workflow, group, &name);
            }
        }
    }

    fn advance_group(&mut self, workflow: &Workflow, group: &WorkflowStep, name: &str) {
        let members = &workflow.steps[group.members.clone()];
        for flow in members {
            let path = member_name(name, &flow.spec.name);
            let ready = self.entry(&path).is_none()
                && flow.needs.iter().all(|n| {
                    let needed = &workflow.steps[*n];
                    let entry = self.entry(&member_name(name, &needed.spec.name));
                    entry.is_some_and(|entry| satisfies(needed, entry))
                });
            if ready && !self.ends(group, name) && !self.group_fails(name) && !history::is_full(&self.status) {
                self.start_step(workflow, flow, &path);
            }
        }
        let Some(i) = self.status.steps.iter().position(|step| step.name == name) else {
            return;
        };
        if self.members_of(name).any(|step| !step.state.is_closed()) {
            let is_done = |step: &&StepStatus| step.state.is_closed() && split_item(&step.name).1.is_none();
            let done = self.members_of(name).filter(is_done).count();
            self.status.steps[i].message = Some(format!("{done} of {} steps are done", members.len()));
            return;
        }
        let failed = self
            .failed_member(name)
            .and_then(|step| Some((step.name.clone(), step.failure.clone()?)));
        if let Some((member, Failure { reason, message, .. })) = failed {
            return self.fail(i, &reason, &format!("step {member}: {message}"));
        }
        let satisfied = |flow: &WorkflowStep| {
            let entry = self.entry(&member_name(name, &flow.spec.name));
            entry.is_some_and(|entry| satisfies(flow, entry))
        };
        if members.iter().all(satisfied) {
            let Inputs { identity, spec, .. } = self.inputs;
            match request::group_output(workflow, group, name, identity, spec, &self.status) {
                Ok(output) => self.succeed(i, output),
                Err(error) => self.fail(i, INVALID_EXPRESSION, &error.to_string()),
            }
        }
    }

    /// The entries of a group's steps, by the path of the group or of one of its items.
    pub(super) fn members_of(&self, group: &str) -> impl Iterator<Item = &StepStatus> {
        let steps = self.status.steps.iter();
        steps.filter(move |step| group_name(&step.name) == Some(group))
    }

    /// The step that makes its group fail.
    pub(super) fn failed_member(&self, group: &str) -> Option<&StepStatus> {
        let fails = |step: &&StepStatus| {
            let goes_on = |flow: &WorkflowStep| flow.spec.on_failure == Some(OnFailure::Continue);
            let bad =
                matches!(step.state, StepState::Failed | StepState::TimedOut) && split_item(&step.name).1.is_none();
            bad && !self.flow(&step.name).is_some_and(goes_on)
        };
        let mut members = self.members_of(group);
        members.find(fails)
    }

    /// True if a step of the group failed so that the others end.
    pub(super) fn group_fails(&self, group: &str) -> bool {
        self.failed_member(group).is_some()
    }

    /// True if a step is in a group whose time is up: what it started is stopped, and then the group ends.
    pub(super) fn group_is_stopped(&self, name: &str) -> bool {
        wholes(name).any(|whole| {
            self.entry(whole)
                .is_some_and(|entry| entry.state == StepState::Cancelling)
        })
    }

    /// True if what waits of a step, by its path in the journal, is to end: with the operation, its list or its group.
    pub(super) fn ends(&self, flow: &WorkflowStep, name: &str) -> bool {
        match flow.role {
            Role::Main => {}
            Role::Undo(_) => return !self.compensates(),
            Role::Finally => return false,
        }
        let (step, item) = split_item(name);
        let of_list = item.is_some() && self.flow(step).is_some_and(|list| self.stops_list(list));
        let of_group = group_name(step).is_some_and(|group| {
            let closed = self.entry(group).is_some_and(|entry| entry.state.is_closed());
            let of_group = self.flow(group).is_some_and(|flow| self.ends(flow, group));
            closed || of_group || self.group_fails(group) || self.group_is_stopped(name)
        });
        self.status.failure.is_some() || of_list || of_group
    }
}

/// True for the entry of a group, or of one of its items.
pub(super) fn is_group(step: &StepStatus) -> bool {
    step.step_type == StepType::Steps && step.items.is_none()
}

/// True if a failure of this step is its list's or its group's to tell of.
pub(super) fn is_part(name: &str) -> bool {
    split_item(name).1.is_some() || group_name(name).is_some()
}
