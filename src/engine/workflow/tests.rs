//! What compiling comes to, whatever it is given.

use proptest::strategy::Strategy;
use serde_json::{Value, json};

use super::Workflow;
use crate::api::CloudOperationSpec;

#[test]
fn what_is_too_large_is_refused_by_its_field() {
    let refusal = |fields: Value| {
        let mut spec = json!({"steps": [{"name": "a", "set": {"v": 1}}]});
        spec.as_object_mut()
            .unwrap()
            .extend(fields.as_object().cloned().unwrap());
        let spec = serde_json::from_value(spec).unwrap();
        Workflow::compile(&spec)
            .err()
            .map(|invalid| (invalid.field, invalid.message))
    };
    let text = |size: usize| "x".repeat(size);
    assert_eq!(refusal(json!({"input": {"text": text(100_000)}})), None);
    let (field, message) = refusal(json!({"input": {"text": text(131_072)}})).unwrap();
    assert_eq!(field, "spec.input");
    assert!(
        message.starts_with("it has 131083 bytes as JSON: 131072 at most"),
        "{message}"
    );
    let (field, _) = refusal(json!({"steps": [{"name": "a", "set": {"v": text(600_000)}}]})).unwrap();
    assert_eq!(field, "spec");
}

/// Where a result goes is known before there is one.
#[test]
fn a_secret_for_results_has_a_name_that_can_be_written_and_one_for_each_item() {
    let refusal = |name: &str, for_each: Option<&str>| {
        let spec = json!({"steps": [
            {"name": "a", "set": {"v": 1}},
            {"name": "b", "forEach": for_each, "http": {"url": "http://x"},
             "outputSecret": {"name": name, "data": {"token": "${result.body.token}"}}},
        ]});
        let spec = serde_json::from_value(spec).unwrap();
        let invalid = Workflow::compile(&spec).err()?;
        assert_eq!(invalid.field, "spec.steps[1].outputSecret.name");
        Some(invalid.message)
    };
    for (name, for_each) in [
        ("token", None),
        ("my.token-1", None),
        ("t-${operation.name}", None),
        ("t-${string(steps.a.output.v)}", None),
        ("t-${item}", Some("['a', 'b']")),
    ] {
        assert_eq!(refusal(name, for_each), None, "{name}");
    }
    for (name, for_each, message) in [
        (
            "t-${operation.name}",
            Some("['a', 'b']"),
            "each item's result would replace the one before",
        ),
        ("Token", None, "is no name of an object"),
        ("a..b", None, "is no name of an object"),
        ("-a", None, "is no name of an object"),
        ("t-${result.body.name}", None, "\"result\" is not defined here"),
        ("t-${item}", None, "\"item\" is not defined here"),
        (
            "token",
            Some("['a', 'b']"),
            "each item's result would replace the one before",
        ),
    ] {
        let said = refusal(name, for_each).unwrap_or_default();
        assert!(said.contains(message), "{name}: {said}");
    }
}

/// Whatever is wrong with a spec is said, all of it, and nothing else happens: parts of the samples, in wrong places.
#[test]
fn a_spec_that_is_wrong_anywhere_is_refused_in_one_piece() {
    let samples = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/simulation/samples")).unwrap();
    let specs: Vec<Value> = samples
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .filter_map(|text| serde_yaml::from_str::<Value>(&text).unwrap().get("spec").cloned())
        .collect();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut number = |below: usize| {
        let drawn = (0..below.max(1)).new_tree(&mut runner).unwrap();
        proptest::strategy::ValueTree::current(&drawn)
    };
    let (mut refused, mut several) = (0, 0);
    for round in 0..3000 {
        let mut spec = specs[round % specs.len()].clone();
        for _ in 0..=number(3) {
            let mut pointers = vec![];
            places(&spec, String::new(), &mut pointers);
            let from = spec.pointer(&pointers[number(pointers.len())]).unwrap().clone();
            *spec.pointer_mut(&pointers[number(pointers.len())]).unwrap() = from;
        }
        let Ok(spec) = serde_json::from_value::<CloudOperationSpec>(spec) else {
            continue;
        };
        if let Err(all) = Workflow::compile_all(&spec) {
            refused += 1;
            several += usize::from(all.len() > 1);
            assert_eq!(Workflow::compile(&spec).err(), all.into_iter().next());
        }
    }
    assert!(refused > 200 && several > 20, "{refused}, {several}");
}

/// The pointer of each value within one.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            places(
                value,
                format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
                found,
            );
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(i, value)| places(value, format!("{at}/{i}"), found)),
        _ => {}
    }
    if !at.is_empty() {
        found.push(at);
    }
}
