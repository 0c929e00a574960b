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
