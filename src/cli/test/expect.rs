//! What came of an operation against what was to come of it.

use serde_json::{Value, json};

use super::file::{Expected, ExpectedDetails, ExpectedFailure, ExpectedStep};
use super::simulate::Simulated;
use crate::api::Failure;
use crate::cli::diff::{Others, differences, short};
use crate::cli::tree::message_of;

/// What is not as expected, in the order of the fields.
pub fn compare(expected: &Expected, came: &Simulated) -> Vec<String> {
    let mut wrong = vec![];
    let status = &came.status;
    if let Some(state) = &expected.state {
        let is = status.state.map(|state| state.to_string()).unwrap_or_default();
        if is != *state {
            let message = message_of(status);
            let message = if message.is_empty() {
                message
            } else {
                format!(": {message}")
            };
            wrong.push(format!("state: expected {state}, is {is}{message}"));
        }
    }
    if let Some(output) = &expected.output {
        values("output", output, &json!(status.output), &mut wrong);
    }
    failure(
        "failure",
        expected.failure.as_ref(),
        status.failure.as_ref(),
        &mut wrong,
    );
    for (name, step) in &expected.steps {
        compare_step(name, step, came, &mut wrong);
    }
    order(&expected.order, came, &mut wrong);
    for (name, requests) in &expected.calls {
        let made = came.calls.get(name).map(Vec::as_slice).unwrap_or_default();
        if made.len() != requests.len() {
            wrong.push(format!(
                "calls.{name}: expected {}, made {}",
                requests.len(),
                made.len()
            ));
        }
        for (i, (request, made)) in requests.iter().zip(made).enumerate() {
            values(&format!("calls.{name}[{i}]"), request, made, &mut wrong);
        }
    }
    wrong
}

fn compare_step(name: &str, expected: &ExpectedStep, came: &Simulated, wrong: &mut Vec<String>) {
    let of_state = |state: &String| ExpectedDetails {
        state: Some(state.clone()),
        ..ExpectedDetails::default()
    };
    let ExpectedDetails {
        state,
        attempts,
        output,
        failure: why,
    } = match expected {
        ExpectedStep::State(state) => of_state(state),
        ExpectedStep::More(details) => (**details).clone(),
    };
    let entry = came.status.steps.iter().find(|step| step.name == name);
    let found = came.step(name);
    let is = found
        .as_ref()
        .map_or("NotStarted".to_owned(), |(state, _)| format!("{state:?}"));
    if let Some(state) = state.filter(|state| *state != is) {
        let failed = entry.and_then(|step| step.failure.as_ref());
        let failed = failed.map(|failure| format!(": {}: {}", failure.reason, failure.message));
        wrong.push(format!(
            "steps.{name}: expected {state}, is {is}{}",
            failed.unwrap_or_default()
        ));
    }
    let made = came.calls.get(name).map_or(0, Vec::len);
    if let Some(attempts) = attempts.filter(|attempts| *attempts != made) {
        wrong.push(format!("steps.{name}.attempts: expected {attempts}, made {made}"));
    }
    if let Some(output) = output {
        let is = found.and_then(|(_, output)| output).unwrap_or_default();
        values(&format!("steps.{name}.output"), &output, &is, wrong);
    }
    let is = entry.and_then(|step| step.failure.as_ref());
    failure(&format!("steps.{name}.failure"), why.as_ref(), is, wrong);
}

fn failure(field: &str, expected: Option<&ExpectedFailure>, is: Option<&Failure>, wrong: &mut Vec<String>) {
    let Some(expected) = expected else { return };
    let Some(is) = is else {
        wrong.push(format!("{field}: there is none"));
        return;
    };
    for (name, expected, is) in [
        ("reason", &expected.reason, Some(&is.reason)),
        ("step", &expected.step, is.step.as_ref()),
    ] {
        if expected.as_ref().is_some_and(|expected| Some(expected) != is) {
            let (expected, is) = (
                expected.as_deref().unwrap_or_default(),
                is.map_or("none", String::as_str),
            );
            wrong.push(format!("{field}.{name}: expected {expected}, is {is}"));
        }
    }
    if let Some(message) = expected
        .message
        .as_ref()
        .filter(|message| !is.message.contains(*message))
    {
        wrong.push(format!("{field}.message: {message:?} is not in {:?}", is.message));
    }
}

fn order(expected: &[String], came: &Simulated, wrong: &mut Vec<String>) {
    let is: Vec<&String> = came.order.iter().filter(|name| expected.contains(name)).collect();
    if is.iter().copied().ne(expected) {
        let is: Vec<&str> = is.into_iter().map(String::as_str).collect();
        wrong.push(format!("order: expected {}, is {}", expected.join(", "), is.join(", ")));
    }
}

fn values(field: &str, expected: &Value, is: &Value, wrong: &mut Vec<String>) {
    for difference in differences(expected, is, Others::AreFine) {
        let place = match difference.field.as_str() {
            "" => field.to_owned(),
            inner if inner.starts_with('[') => format!("{field}{inner}"),
            inner => format!("{field}.{inner}"),
        };
        let (expected, is) = (short(difference.from.as_ref()), short(difference.to.as_ref()));
        wrong.push(format!("{place}: expected {expected}, is {is}"));
    }
}
