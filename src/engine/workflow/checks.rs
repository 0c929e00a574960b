//! What the schema can't see, or not in all places, beside expressions.

use serde_json::Value;

use super::{InvalidSpec, Workflow};
use crate::api::{CloudOperationSpec, Duration, Step};
use crate::engine::expression::references_in;
use crate::engine::request::{is_object_name, not_a_name, parse_time};

/// Checks how long is waited, where no template says it.
pub(super) fn check_wait(own: &str, step: &Step) -> Result<(), InvalidSpec> {
    let Some(wait) = &step.wait else { return Ok(()) };
    if let Some(duration) = wait.duration.as_deref().filter(|d| !d.contains("${")) {
        duration
            .parse::<Duration>()
            .map_err(|e| InvalidSpec::new(format!("{own}.wait.duration"), e))?;
    }
    if let Some(time) = wait.until_time.as_deref().filter(|t| !t.contains("${")) {
        parse_time(time).map_err(|e| InvalidSpec::new(format!("{own}.wait.untilTime"), e))?;
    }
    Ok(())
}

/// Checks what only goes with a callback, and what does not.
pub(super) fn check_async(own: &str, step: &Step) -> Result<(), InvalidSpec> {
    let heartbeat = step
        .timeouts
        .as_ref()
        .is_some_and(|timeouts| timeouts.heartbeat.is_some());
    if heartbeat && !step.is_async() {
        let message = "can only be said of an http step with async: true";
        return Err(InvalidSpec::new(format!("{own}.timeouts.heartbeat"), message));
    }
    if step.is_async() && step.local == Some(true) {
        let message = "a step that is completed by a callback can't be local";
        return Err(InvalidSpec::new(format!("{own}.local"), message));
    }
    Ok(())
}

/// Checks that no Secret is to be copied: what is read of one is masked.
pub(super) fn check_no_secret_is_read(field: &str, step: &Step) -> Result<(), InvalidSpec> {
    let Some(kubernetes) = &step.kubernetes else {
        return Ok(());
    };
    let read = [
        kubernetes.get.as_ref().map(|get| &get.resource.kind),
        kubernetes.list.as_ref().map(|list| &list.kind),
    ];
    match read.into_iter().flatten().any(|kind| kind == "Secret") {
        true => Err(InvalidSpec::new(
            field,
            "what is read of a Secret is masked, and would be written so",
        )),
        false => Ok(()),
    }
}

/// Checks the name of a Secret, as far as it is known.
pub(super) fn check_secret_name(field: &str, name: &str, of_items: bool) -> Result<(), InvalidSpec> {
    // What can't be parsed is refused elsewhere.
    let read = references_in(&Value::String(name.into())).unwrap_or_default();
    let differs = ["item", "index"].iter().any(|root| read.roots.contains(*root));
    if differs || name.contains("${") && !of_items {
        return Ok(());
    }
    if of_items {
        let message = "each item's result would replace the one before: name a Secret for each, as with ${index}";
        return Err(InvalidSpec::new(field, message));
    }
    is_object_name(name)
        .then_some(())
        .ok_or_else(|| InvalidSpec::new(field, not_a_name(name)))
}

/// Checks what is said of a group that only its steps can have.
pub(super) fn check_group(own: &str, step: &Step, spec: &CloudOperationSpec) -> Result<(), InvalidSpec> {
    if step.steps.is_empty() {
        return Ok(());
    }
    let start_to_close = step
        .timeouts
        .as_ref()
        .is_some_and(|timeouts| timeouts.start_to_close.is_some());
    for (given, field) in [
        (step.retry.is_some(), "retry"),
        (start_to_close, "timeouts.startToClose"),
        (step.idempotent.is_some(), "idempotent"),
        (step.sensitive.is_some(), "sensitive"),
        (step.output_secret.is_some(), "outputSecret"),
        (step.local.is_some(), "local"),
        (step.compensate.is_some() && step.for_each.is_none(), "compensate"),
    ] {
        if given {
            let message = "can't be said of steps: say it of the steps in it";
            return Err(InvalidSpec::new(format!("{own}.{field}"), message));
        }
    }
    let most = spec.steps.iter().map(|step| step.steps.len().max(1)).sum::<usize>();
    if most > MAX_STEPS {
        let message = format!("spec.steps has {most} steps with those of groups: {MAX_STEPS} at most");
        return Err(InvalidSpec::new(format!("{own}.steps"), message));
    }
    Ok(())
}

/// How many steps an operation has at most, those of groups among them: all of them fit into a status.
const MAX_STEPS: usize = 200;

/// Checks what a child is to run.
pub(super) fn check_child(own: &str, step: &Step) -> Result<(), Vec<InvalidSpec>> {
    let Some(spec) = step.operation.as_ref().and_then(|child| child.spec.as_ref()) else {
        return Ok(());
    };
    let field = format!("{own}.operation.spec");
    let spec: CloudOperationSpec =
        serde_json::from_value(Value::Object(spec.clone())).map_err(|error| vec![InvalidSpec::new(&field, error)])?;
    for (given, name, why) in [
        (
            spec.ttl_seconds_after_finished.is_some(),
            "ttlSecondsAfterFinished",
            "it goes with its parent",
        ),
        (!spec.input.is_empty(), "input", "say it in operation.input"),
        (
            spec.template_ref.is_some(),
            "templateRef",
            "say it in operation.templateRef",
        ),
        (
            spec.service_account_name.is_some(),
            "serviceAccountName",
            "say it in operation.serviceAccountName",
        ),
    ] {
        if given {
            return Err(vec![InvalidSpec::new(
                format!("{field}.{name}"),
                format!("can't be given here: {why}"),
            )]);
        }
    }
    let within = |InvalidSpec { field: inner, message }: InvalidSpec| {
        let inner = inner.strip_prefix("spec").unwrap_or(&inner);
        InvalidSpec::new(format!("{field}{inner}"), message)
    };
    Workflow::compile_all(&spec)
        .map(drop)
        .map_err(|invalid| invalid.into_iter().map(within).collect())
}
