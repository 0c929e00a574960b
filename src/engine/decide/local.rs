//! Local steps: cheap calls that can be made again. Their starts and results are recorded with the next thing that has to
//! be; until then they are in this process alone. Where an operation begins with them, so is its own start.

use super::*;

/// For how long what can be done again stays unwritten, at most: so that a call that takes long is seen as `Running`, and few
/// that are short cost a write.
pub const STAYS_UNWRITTEN: Duration = Duration::from_secs(2);

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

/// True if all that a status says beyond the one before it is what local steps did, and what was computed from it; and,
/// where nothing was ever written of the operation, that it started.
pub(super) fn can_be_done_again(before: &OperationStatus, after: &OperationStatus, inputs: &Inputs<'_>) -> bool {
    let Ok(workflow) = inputs.workflow else { return false };
    let first = before.start_time.is_none();
    if first && (before.state.is_some() || start_counts(inputs)) {
        return false;
    }
    let mut rest = OperationStatus {
        steps: before.steps.clone(),
        history: before.history.clone(),
        seq: before.seq,
        last_time: before.last_time,
        state: before.state,
        conditions: before.conditions.clone(),
        progress: before.progress.clone(),
        current_step: before.current_step.clone(),
        ..after.clone()
    };
    if first {
        // But not its deadline: after a crash that would be another.
        rest.start_time = None;
        rest.engine = before.engine;
        rest.spec_digest.clone_from(&before.spec_digest);
        rest.observed_generation = before.observed_generation;
    }
    let finished = after.state.is_some_and(OperationState::is_finished);
    let to_spill = history::chunk(after).is_some(); // which only an accepted status can
    let kept = before
        .steps
        .iter()
        .all(|old| after.steps.iter().any(|new| new.name == old.name));
    let changed: Vec<_> = after.steps.iter().filter(|step| !before.steps.contains(step)).collect();
    let calls = changed.iter().any(|step| step.state == StepState::Running);
    rest == *before
        && !finished
        && !to_spill
        && kept
        && !changed.is_empty()
        && (calls || !first)
        && changed.into_iter().all(|step| harmless(workflow, step))
}

/// True if other objects, or a time, depend on when the operation started.
fn start_counts(inputs: &Inputs<'_>) -> bool {
    let spec = inputs.spec;
    spec.start_deadline.is_some() || spec.concurrency.is_some() || spec.template_ref.is_some() || inputs.limited
}

/// True if what a step did is computed anew from what it read, or is a call that can be made again.
fn harmless(workflow: &Workflow, step: &StepStatus) -> bool {
    let computed = matches!(step.step_type, StepType::Set | StepType::Assert) && step.state.satisfies();
    let called = workflow.step(&step.name).is_some_and(|flow| {
        let group = workflow.group(flow);
        let undone = flow.undo.is_some() || group.is_some_and(|group| group.undo.is_some());
        // What is to be undone must be known, whatever happens.
        flow.spec.local == Some(true) && !undone
    }) && matches!(
        step.state,
        StepState::Running | StepState::Succeeded | StepState::Skipped
    );
    // Until it is written, its deadline moves with each pass.
    let may_expire = step
        .deadline
        .is_some_and(|deadline| deadline.since(step.start_time) <= STAYS_UNWRITTEN);
    // What is about to be removed must be known.
    let removes = step.target.is_some();
    step.attempt <= 1 && step.failure.is_none() && !removes && !may_expire && (called || computed)
}
