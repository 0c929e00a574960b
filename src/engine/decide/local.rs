//! Local steps: cheap calls that can be made again. Their starts and results are recorded with the next thing that has to
//! be; until then they are in this process alone.

use super::*;

impl Pass<'_> {
    /// Brings back the start of a local step whose result arrived: it was never written.
    pub(super) fn start_local(&mut self, workflow: &Workflow, result: &AttemptResult) {
        let is_local = workflow
            .step(&result.step)
            .is_some_and(|flow| flow.spec.local == Some(true));
        let goes_on = self.inputs.spec.suspend != Some(true)
            && self.inputs.spec.cancel.is_none()
            && self.inputs.namespace_hold.is_none_or(|hold| hold.until.is_some());
        if is_local && goes_on && self.entry(&result.step).is_none() {
            while self.start_ready(workflow) && self.entry(&result.step).is_none() {}
        }
    }
}

/// True if all that a status says beyond the one before it is what local steps did, and what was computed from it.
pub(super) fn can_be_done_again(
    before: &OperationStatus,
    after: &OperationStatus,
    workflow: Option<&Workflow>,
) -> bool {
    let Some(workflow) = workflow.filter(|_| before.start_time.is_some()) else {
        return false;
    };
    let same_but_for_steps = OperationStatus {
        steps: before.steps.clone(),
        history: before.history.clone(),
        seq: before.seq,
        last_time: before.last_time,
        state: before.state,
        conditions: before.conditions.clone(),
        progress: before.progress.clone(),
        current_step: before.current_step.clone(),
        ..after.clone()
    } == *before;
    let finished = after.state.is_some_and(OperationState::is_finished);
    let kept = before
        .steps
        .iter()
        .all(|old| after.steps.iter().any(|new| new.name == old.name));
    let harmless = |step: &StepStatus| {
        let local = workflow
            .step(&step.name)
            .is_some_and(|flow| flow.spec.local == Some(true));
        let computed = matches!(step.step_type, StepType::Set | StepType::Assert) && step.state.satisfies();
        let called = local
            && matches!(
                step.state,
                StepState::Running | StepState::Succeeded | StepState::Skipped
            );
        step.attempt <= 1 && step.failure.is_none() && (called || computed)
    };
    let changed: Vec<_> = after.steps.iter().filter(|step| !before.steps.contains(step)).collect();
    same_but_for_steps && !finished && kept && !changed.is_empty() && changed.into_iter().all(harmless)
}
