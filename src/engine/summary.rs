//! What people and tools read of an operation: state, conditions, progress. Derived from the journal, never decided on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time as MetaTime};

use super::history::{MAX_MESSAGE, shorten};
use super::workflow::split_item;
use crate::api::{OperationState, OperationStatus, StepState, StepStatus, StepType, Time};

/// Brings `state`, `conditions`, `progress` and `currentStep` up to what the journal says. `state` is given where the
/// journal alone doesn't say it: an end, a hold. `undoing` while what was done is being undone.
pub fn summarise(
    status: &mut OperationStatus,
    state: Option<(OperationState, String)>,
    progress: String,
    undoing: bool,
    generation: Option<i64>,
    now: Time,
) {
    let (state, message) = state.unwrap_or_else(|| active(status, undoing));
    let message = shorten(&message, MAX_MESSAGE);
    status.observed_generation = generation;
    status.state = Some(state);
    status.progress = Some(progress);
    status.current_step = current(status).map(|s| told_of(status, s).name.clone());
    use OperationState::*;
    let finished = state.is_finished();
    let stalled = finished && state != Succeeded;
    let reason = state.to_string();
    let mut set = |kind: &str, value: &str, reason: &str, message: &str| {
        condition(&mut status.conditions, kind, value, reason, message, generation, now);
    };
    set(
        "Finished",
        truth(finished),
        if finished { &reason } else { "Active" },
        "",
    );
    set(
        "Succeeded",
        if !finished {
            "Unknown"
        } else {
            truth(state == Succeeded)
        },
        &reason,
        &message,
    );
    set(
        "Reconciling",
        truth(!finished),
        if finished { "Finished" } else { &reason },
        if finished { "" } else { &message }, // what a tool that gives up waiting shows
    );
    set(
        "Stalled",
        truth(stalled),
        if stalled { &reason } else { "AsExpected" },
        if stalled { &message } else { "" },
    );
}

/// What stands between why an operation that has ended doesn't run again yet, and how it had ended.
const BEFORE: &str = "; before: ";

/// Says of an operation that has ended why it doesn't run again yet, though a person wants it to; or, without a reason, no
/// more of it. How it ended stays.
pub fn comes_back(status: &mut OperationStatus, waits: Option<&str>, generation: Option<i64>, now: Time) {
    let find = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
    let (Some(reconciling), Some(ended)) = (find("Reconciling"), find("Succeeded").cloned()) else {
        return;
    };
    let waited = reconciling.status == truth(true);
    if waits.is_none() && !waited {
        return;
    }
    let how = match ended.message.split_once(BEFORE) {
        Some((_, how)) if waited => how,
        _ => &ended.message,
    };
    let (state, reason, message) = match waits {
        Some(waits) => (
            true,
            OperationState::Queued.to_string(),
            format!("{waits}{BEFORE}{how}"),
        ),
        None => (false, "Finished".to_owned(), how.to_owned()),
    };
    let mut set = |kind: &str, value: &str, reason: &str, message: &str| {
        let message = shorten(message, 2 * MAX_MESSAGE);
        condition(&mut status.conditions, kind, value, reason, &message, generation, now);
    };
    set("Succeeded", &ended.status, &ended.reason, &message);
    set("Reconciling", truth(state), &reason, waits.unwrap_or_default());
}

/// True of an operation that has ended, and waits to run again, as a person wants it to.
pub fn is_to_run_again(status: &OperationStatus) -> bool {
    let waits = |condition: &Condition| condition.type_ == "Reconciling" && condition.status == truth(true);
    status.completion_time.is_some() && status.conditions.iter().any(waits)
}

/// Notes that a spec was seen whose change (of a control field) changes nothing else.
pub fn observe(status: &mut OperationStatus, generation: Option<i64>) {
    if status.observed_generation != generation {
        status.observed_generation = generation;
        for condition in &mut status.conditions {
            condition.observed_generation = generation;
        }
    }
}

fn truth(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// Sets a condition; the time of its transition moves only when its value does.
pub(super) fn condition(
    conditions: &mut Vec<Condition>,
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Time,
) {
    let old = conditions.iter().position(|c| c.type_ == kind);
    let since = old
        .map(|i| &conditions[i])
        .filter(|c| c.status == value)
        .map(|c| c.last_transition_time.clone());
    // Whole seconds, as metav1.Time has: what is read back must equal what was written.
    let whole = k8s_openapi::jiff::Timestamp::from_second(now.timestamp().as_second()).unwrap_or(now.timestamp());
    let condition = Condition {
        type_: kind.into(),
        status: value.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: since.unwrap_or(MetaTime(whole)),
    };
    match old {
        Some(i) => conditions[i] = condition,
        None => conditions.push(condition),
    }
}

/// The step that is under way: the first open one that most needs attention.
fn current(status: &OperationStatus) -> Option<&StepStatus> {
    status
        .steps
        .iter()
        .filter(|s| !s.state.is_closed())
        .min_by_key(|s| urgency(s))
}

/// Which of several open steps tells the operation's state: one that needs a person, then one that fails.
fn urgency(step: &StepStatus) -> u8 {
    match step.state {
        StepState::Undecided => 0,
        StepState::BackingOff => 1,
        StepState::Waiting if step.step_type == StepType::Approval => 2,
        StepState::Cancelling if step.step_type != StepType::Steps => 3,
        StepState::Running => 4,
        _ if step.items.is_some() || step.step_type == StepType::Steps => 6, // what is in it tells more
        _ => 5,
    }
}

fn active(status: &OperationStatus, undoing: bool) -> (OperationState, String) {
    let Some(step) = current(status) else {
        return (OperationState::Running, String::new());
    };
    let state = match step.state {
        StepState::Undecided => OperationState::Stuck,
        _ if undoing => OperationState::Compensating,
        StepState::BackingOff => OperationState::BackingOff,
        StepState::Waiting if step.step_type == StepType::Approval => OperationState::AwaitingApproval,
        StepState::Waiting => OperationState::Waiting,
        _ => OperationState::Running,
    };
    (state, describe(told_of(status, step)))
}

/// What is said of a step: where it is an item of a list and all is well, how far the list is.
fn told_of<'s>(status: &'s OperationStatus, step: &'s StepStatus) -> &'s StepStatus {
    let well = matches!(step.state, StepState::Running | StepState::Waiting) && step.failure.is_none();
    match split_item(&step.name) {
        (list, Some(_)) if well => status.steps.iter().find(|s| s.name == list).unwrap_or(step),
        _ => step,
    }
}

/// What an open step does or waits for, in a sentence.
fn describe(step: &StepStatus) -> String {
    let StepStatus { name, attempt, .. } = step;
    let failed = step
        .failure
        .as_ref()
        .map(|f| format!("{}: {}", f.reason, f.message))
        .unwrap_or_default();
    let said = step.message.clone().unwrap_or_default();
    match step.state {
        StepState::Running if step.failure.is_some() => {
            format!("step {name}: attempt {attempt} is under way; before it: {failed}")
        }
        StepState::Running => format!("step {name}: attempt {attempt} is under way"),
        StepState::BackingOff => {
            let at = step
                .next_attempt_time
                .map(|t| format!("; the next one starts at {t}"))
                .unwrap_or_default();
            format!("step {name}: attempt {attempt} failed{at}: {failed}")
        }
        StepState::Undecided => format!("step {name} needs a person: {failed}"),
        StepState::Cancelling => {
            let told: Vec<String> = [said, failed].into_iter().filter(|told| !told.is_empty()).collect();
            let why = if told.is_empty() { "" } else { ": " };
            format!("step {name} is being stopped{why}{}", told.join("; "))
        }
        _ => format!("step {name}: {said}"),
    }
}

/// Keeps a status below [`MAX_STATUS`] whatever its operation does: the details of heartbeats go, and long messages are
/// shortened.
pub fn bound(status: &mut OperationStatus) {
    if serde_json::to_string(status).map_or(0, |text| text.len()) > MAX_STATUS {
        for heartbeat in status.steps.iter_mut().filter_map(|step| step.heartbeat.as_mut()) {
            heartbeat.details = None;
        }
    }
    for most in [400, 160, 80, 40] {
        if serde_json::to_string(status).map_or(0, |text| text.len()) <= MAX_STATUS {
            return;
        }
        for step in &mut status.steps {
            step.message = step.message.take().map(|m| shorten(&m, most));
            if let Some(failure) = &mut step.failure {
                failure.message = shorten(&failure.message, most);
            }
        }
        for entry in &mut status.history {
            entry.message = entry.message.take().map(|m| shorten(&m, most / 2));
        }
    }
}

/// The largest status, in bytes of JSON.
pub const MAX_STATUS: usize = 128 * 1024;
