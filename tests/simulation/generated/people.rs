//! What people do: of their own accord, as it was drawn, and once an operation waits for them.

use fastrand::Rng;
use holdfast::api::{CloudOperation, OperationState, StepState, StepStatus, StepType};
use serde_json::{Value, json};

use super::plan::{percent, pick};

/// What a person does.
pub enum Deed {
    Ask(Value),
    Patch(Value),
}

/// What somebody asks at any time, whether it fits or not.
pub fn deed(rng: &mut Rng, steps: &[Value]) -> Deed {
    let step = pick(rng, steps);
    let name = step["name"].as_str().unwrap().to_owned();
    let mut step = match step.get("forEach").is_some() || percent(rng, 10) {
        true if percent(rng, 70) => format!("{name}[{}]", rng.u8(..3)),
        _ => name.clone(),
    };
    if percent(rng, 25) {
        step = format!("{step}/{name}{}", pick(rng, &["a", "b"]));
    }
    Deed::Ask(match rng.u8(..12) {
        0 | 1 => json!({"signal": {"name": "go", "payload": {"n": rng.u8(..)}}}),
        2 => json!({"approve": {"step": step}}),
        3 => json!({"reject": {"step": step}}),
        4 => json!({"retry": {"step": step}}),
        5 => json!({"retry": {}}),
        6 => json!({"retryNow": {"step": step}}),
        7 => json!({"skip": {"step": step, "output": {"n": 1}}}),
        8 => json!({"complete": {"step": step, "output": {"n": 2}}}),
        9 => json!({"fail": {"step": step}}),
        10 => json!({"retry": {"step": step, "newKey": true}}),
        _ => json!({"reset": {"step": step}}),
    })
}

/// What a person does about an operation that waits for one.
pub fn decision(rng: &mut Rng, operation: &CloudOperation) -> Vec<Value> {
    let status = operation.status.clone().unwrap_or_default();
    use StepState::{Cancelled, Failed, TimedOut, Undecided};
    let mut deeds = vec![];
    let bad = |step: &&StepStatus| matches!(step.state, Failed | TimedOut | Cancelled | Undecided);
    for step in &status.steps {
        let name = &step.name;
        match (step.state, step.step_type) {
            (StepState::Waiting, StepType::Signal) => deeds.push(json!({"signal": {"name": "go"}})),
            (StepState::Waiting, StepType::Approval) => {
                let word = *pick(rng, &["approve", "reject"]);
                deeds.push(json!({ word: {"step": name} }));
            }
            (Undecided, _) if step.items.is_some() => {
                let items = status
                    .steps
                    .iter()
                    .filter(|item| item.name.starts_with(&format!("{name}[")));
                deeds.extend(items.filter(bad).map(|item| json!({"skip": {"step": item.name}})));
            }
            (Undecided, _) => deeds.push(match rng.u8(..3) {
                0 => json!({"retry": {"step": name}}),
                _ => json!({"skip": {"step": name}}),
            }),
            _ => {}
        }
    }
    if status.state == Some(OperationState::Stuck) && deeds.is_empty() {
        let bad = status.steps.iter().filter(bad);
        deeds.extend(bad.map(|step| json!({"skip": {"step": step.name}})));
    }
    deeds
}
