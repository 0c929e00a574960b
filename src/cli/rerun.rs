//! `rerun`: an operation as one that has ended was, or the rest of it.

use std::process::ExitCode;

use clap::Args;
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::cluster::Cluster;
use super::output::{Format, Output, machine};
use super::run::Then;
use super::{CliError, get};
use crate::api::{CloudOperation, CloudOperationSpec, FailurePolicy, Order, Step, StepState};
use crate::engine::{self, Workflow};

/// The longest name that an operation may have, less what the API server appends.
const MAX_PREFIX: usize = 190;

#[derive(Args)]
pub struct Rerun {
    /// The operation, which has ended.
    name: String,
    /// Leave out the steps before this one; where later ones read them, what was recorded stands in for them.
    #[arg(long, value_name = "STEP")]
    from_step: Option<String>,
    /// Print what would be created, and create nothing.
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    then: Then,
}

impl Rerun {
    pub async fn run(&self, cluster: &Cluster, out: &mut Output) -> Result<ExitCode, CliError> {
        let operation = cluster.operation(&self.name).await?;
        let name = operation.name_any();
        if !get::ended(&operation) {
            return Err(CliError::Usage(format!(
                "{name} has not ended, and two at once would do everything twice: wait for its end, or cancel it:\n    {}",
                cluster.command("cancel", &name, "")
            )));
        }
        let mut notes = vec![];
        let spec = match &self.from_step {
            Some(step) => {
                let whole = with_steps(cluster, operation).await?;
                rest(&whole, step, &mut notes).map_err(CliError::Usage)?
            }
            None => operation.spec.clone(),
        };
        let mut fresh = fresh(&name, spec, &mut notes);
        self.then.set_input(&mut fresh)?;
        for note in notes {
            anstream::eprintln!("{note}");
        }
        if self.dry_run {
            out.print(&machine(&fresh, Format::Yaml)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        self.then.create(cluster, out, &fresh).await
    }
}

/// The operation, with the steps of the template that it ran in place of the template's name: the rest of them is no
/// operation of that template.
async fn with_steps(cluster: &Cluster, operation: CloudOperation) -> Result<CloudOperation, CliError> {
    let Some(template) = &operation.spec.template_ref else {
        return Ok(operation);
    };
    let (name, template) = (operation.name_any(), template.name.clone());
    let unreadable = CliError::cluster(format!("the OperationHistory of {name} can't be read"));
    let Some(pinned) = cluster.pinned(&operation).await.map_err(unreadable)? else {
        return Err(CliError::Usage(format!(
            "it isn't recorded how the template {template} was when {name} ran it: run all of it, without --from-step"
        )));
    };
    Ok(of_steps(operation, &pinned))
}

fn of_steps(mut operation: CloudOperation, template: &Map<String, Value>) -> CloudOperation {
    operation.spec = engine::resolve(&operation.spec, template).spec;
    operation.spec.template_ref = None;
    operation
}

/// A new operation with this spec, control fields left out.
fn fresh(name: &str, mut spec: CloudOperationSpec, notes: &mut Vec<String>) -> Value {
    spec.suspend = None;
    spec.cancel = None;
    spec.ttl_seconds_after_finished = None;
    if spec.start_deadline.take().is_some() {
        notes.push("left out: spec.startDeadline, which was for the first run".into());
    }
    let prefix: String = name.chars().take(MAX_PREFIX - "-rerun-".len()).collect();
    json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"generateName": format!("{prefix}-rerun-")},
        "spec": spec,
    })
}

/// The spec from a step on. What later steps read of those before it is put in as it was recorded.
fn rest(operation: &CloudOperation, from: &str, notes: &mut Vec<String>) -> Result<CloudOperationSpec, String> {
    let spec = &operation.spec;
    let name = operation.name_any();
    let workflow = Workflow::compile(spec).map_err(|error| format!("{name} can't be executed: {error}"))?;
    let main = &workflow.steps[..workflow.total];
    let Some(own) = main.iter().position(|flow| flow.name == from) else {
        let names: Vec<&str> = spec.steps.iter().map(|step| step.name.as_str()).collect();
        return Err(format!(
            "there is no step {from:?} in the steps of {name}; there are {}",
            names.join(", ")
        ));
    };
    let before: Vec<&str> = match spec.order.unwrap_or_default() {
        Order::Sequence => main[..own].iter().map(|flow| flow.name.as_str()).collect(),
        Order::Graph => main[own].ancestors.iter().map(|i| main[*i].name.as_str()).collect(),
    };

    // First all of them stay, as steps that read nothing; then each goes that nobody misses.
    let mut kept = spec.clone();
    for step in kept
        .steps
        .iter_mut()
        .filter(|step| before.contains(&step.name.as_str()))
    {
        *step = Step {
            name: step.name.clone(),
            set: Some(Map::new()),
            ..Step::default()
        };
    }
    let mut left_out = vec![];
    for step in &before {
        let without = without(&kept, step);
        if Workflow::compile(&without).is_ok() {
            kept = without;
            left_out.push(*step);
        }
    }
    let mut recorded = vec![];
    for step in kept
        .steps
        .iter_mut()
        .filter(|step| before.contains(&step.name.as_str()))
    {
        *step = stand_in(operation, &step.name)?;
        recorded.push(step.name.clone());
    }
    Workflow::compile(&kept).map_err(|error| format!("the steps from {from} on can't be run alone: {error}"))?;

    if !left_out.is_empty() {
        notes.push(format!("left out: {}", left_out.join(", ")));
    }
    if !recorded.is_empty() {
        notes.push(format!("as recorded: {}", recorded.join(", ")));
    }
    let undone = spec
        .steps
        .iter()
        .filter(|step| before.contains(&step.name.as_str()) && step.compensate.is_some());
    let undone: Vec<&str> = undone.map(|step| step.name.as_str()).collect();
    if !undone.is_empty() && spec.failure_policy == Some(FailurePolicy::Compensate) {
        notes.push(format!(
            "if it fails, it will not undo what was done before it: {}",
            undone.join(", ")
        ));
    }
    Ok(kept)
}

/// The spec without a step, and without the needs that name it.
fn without(spec: &CloudOperationSpec, name: &str) -> CloudOperationSpec {
    let mut spec = spec.clone();
    spec.steps.retain(|step| step.name != name);
    for step in &mut spec.steps {
        step.needs.retain(|need| need != name);
    }
    spec
}

/// A step that gives what the journal says of a step of this name.
fn stand_in(operation: &CloudOperation, name: &str) -> Result<Step, String> {
    let status = operation.status.clone().unwrap_or_default();
    if status.compacted == Some(true) {
        return Err(format!(
            "later steps read step {name}, and what was recorded of it was removed (spec.ttlSecondsAfterFinished)"
        ));
    }
    let Some(entry) = status.steps.into_iter().find(|entry| entry.name == name) else {
        return Err(format!(
            "later steps read step {name}, which was never run: start from it, or from one before it"
        ));
    };
    let output = entry.output.clone().unwrap_or_default();
    let mut step = Step {
        name: name.to_owned(),
        ..Step::default()
    };
    match entry.state {
        StepState::Succeeded => {}
        StepState::Skipped if output.is_empty() => step.when = Some("false".into()),
        StepState::Skipped => {} // a person gave it an output
        state => {
            return Err(format!(
                "later steps read step {name}, which ended as {state:?}: only what was done can stand in for it; start from {name}"
            ));
        }
    }
    let Value::Object(literal) = literal(Value::Object(output)) else {
        return Err(format!("the output of step {name} is no object"));
    };
    step.set = Some(literal);
    Ok(step)
}

/// A value as a template that gives just this value.
fn literal(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("${", "$${")),
        Value::Array(list) => list.into_iter().map(literal).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, literal(value))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::operation;
    use super::*;

    const ENDED: &str = r"
        state: Failed
        steps:
        - {name: describe, type: Http, state: Succeeded, startSeq: 1, startTime: '2026-11-24T03:00:00.000Z', output: {size: 4, note: 'costs ${5}'}}
        - {name: warn, type: Http, state: Skipped, startSeq: 2, startTime: '2026-11-24T03:00:00.000Z'}
        - {name: buy, type: Http, state: Succeeded, startSeq: 3, startTime: '2026-11-24T03:00:00.000Z'}
        - {name: resize, type: Http, state: Failed, startSeq: 4, startTime: '2026-11-24T03:00:00.000Z'}
    ";

    fn spec(order: &str, last: &str) -> String {
        format!(
            "
            order: {order}
            suspend: true
            cancel: {{}}
            ttlSecondsAfterFinished: 3
            startDeadline: '2026-11-24T03:00:00Z'
            steps:
            - {{name: describe, http: {{url: 'http://a/'}}}}
            - {{name: warn, when: 'false', http: {{url: 'http://a/'}}}}
            - {{name: buy, http: {{url: 'http://a/'}}}}
            - {{name: resize, needs: [buy], http: {{url: 'http://a/${{steps.describe.output.size}}'}}}}
            - {last}"
        )
    }

    const LAST: &str = "{name: last, set: {x: '${steps.warn.state}'}}";

    #[test]
    fn what_later_steps_read_is_put_in_as_it_was() {
        let operation = operation("web", &spec("Sequence", LAST), ENDED);
        let mut notes = vec![];
        let fresh = fresh("web", rest(&operation, "resize", &mut notes).unwrap(), &mut notes);
        assert_eq!(
            fresh,
            json!({
                "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
                "metadata": {"generateName": "web-rerun-"},
                "spec": {
                    "order": "Sequence",
                    "steps": [
                        {"name": "describe", "set": {"size": 4, "note": "costs $${5}"}},
                        {"name": "warn", "when": "false", "set": {}},
                        {"name": "resize", "http": {"url": "http://a/${steps.describe.output.size}"}},
                        {"name": "last", "set": {"x": "${steps.warn.state}"}},
                    ],
                },
            })
        );
        assert_eq!(
            notes,
            [
                "left out: buy",
                "as recorded: describe, warn",
                "left out: spec.startDeadline, which was for the first run"
            ]
        );
    }

    #[test]
    fn the_rest_of_a_template_is_its_steps() {
        let operation = operation("web", "{templateRef: {name: resize}, input: {size: 5}}", ENDED);
        let template = "{failurePolicy: Stop, inputSchema: {properties: {by: {default: me}}}, steps: [{name: describe, set: {}}, {name: resize, set: {n: '${input.size}'}}]}";
        let whole = of_steps(operation, &serde_yaml::from_str(template).unwrap());
        let spec = rest(&whole, "resize", &mut vec![]).unwrap();
        assert_eq!(
            json!(spec),
            json!({
                "input": {"size": 5, "by": "me"},
                "failurePolicy": "Stop",
                "steps": [{"name": "resize", "set": {"n": "${input.size}"}}],
            })
        );
    }

    #[test]
    fn of_a_graph_only_what_the_step_needs_is_left_out() {
        let operation = operation("web", &spec("Graph", LAST), ENDED);
        let spec = rest(&operation, "resize", &mut vec![]).unwrap();
        let names: Vec<&str> = spec.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["describe", "warn", "resize", "last"]);
        assert!(spec.steps[1].http.is_some(), "warn is not before it");
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let refused = |last: &str, from: &str| {
            let operation = operation("web", &spec("Sequence", last), ENDED);
            rest(&operation, from, &mut vec![]).unwrap_err()
        };
        assert!(refused(LAST, "lost").starts_with("there is no step \"lost\" in the steps of web; there are describe"));
        let reads_failed = "{name: last, set: {x: '${steps.resize.state}'}}";
        assert!(refused(reads_failed, "last").contains("step resize, which ended as Failed"));
        let reads_none = "{name: never, set: {}}\n            - {name: last, set: {x: '${steps.never.state}'}}";
        assert!(refused(reads_none, "last").contains("step never, which was never run"));
    }
}
