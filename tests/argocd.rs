//! Argo CD's view of a CloudOperation: its health and actions, run by a real Lua engine over the test data, as Argo CD's
//! own tests of resource customisations do.

use std::path::{Path, PathBuf};

use holdfast::api::OperationState;
use mlua::serde::{LuaSerdeExt, SerializeOptions};
use mlua::{Lua, StdLib};
use serde::Deserialize;
use serde_json::Value;

fn customisation() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/argocd/resource_customizations/holdfast.dev/CloudOperation")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_yaml::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a script with the object as `obj`, with no more of Lua than Argo CD gives it.
fn run(script: &Path, object: &Value) -> Value {
    let lua = Lua::new_with(
        StdLib::TABLE | StdLib::STRING | StdLib::MATH,
        mlua::LuaOptions::default(),
    )
    .unwrap();
    let plain = SerializeOptions::new().set_array_metatable(false);
    lua.globals()
        .set("obj", lua.to_value_with(object, plain).unwrap())
        .unwrap();
    let result: mlua::Value = lua
        .load(read(script))
        .eval()
        .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    lua.from_value(result).unwrap()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HealthTests {
    tests: Vec<HealthTest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HealthTest {
    health_status: Value,
    input_path: String,
}

#[test]
fn health_is_as_its_tests_say() {
    let suite: HealthTests = yaml(&customisation().join("health_test.yaml"));
    for test in &suite.tests {
        let health = run(
            &customisation().join("health.lua"),
            &yaml(&customisation().join(&test.input_path)),
        );
        assert_eq!(health, test.health_status, "{}", test.input_path);
    }
}

#[test]
fn every_state_has_a_health() {
    use OperationState::*;
    let suite: HealthTests = yaml(&customisation().join("health_test.yaml"));
    for state in OperationState::ALL {
        let wanted = match state {
            Queued | Running | Waiting | BackingOff | Compensating => "Progressing",
            Suspended | Restored | Stuck | AwaitingApproval => "Suspended",
            Succeeded => "Healthy",
            Failed | Cancelled | TimedOut | Expired | InvalidSpec | SpecChanged => "Degraded",
        };
        let test = suite.tests.iter().find(|test| {
            let object: Value = yaml(&customisation().join(&test.input_path));
            object["status"]["state"] == state.to_string()
        });
        let test = test.unwrap_or_else(|| panic!("health_test.yaml has no operation that is {state}"));
        assert_eq!(test.health_status["status"], wanted, "{state}");
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Actions {
    action_tests: Vec<ActionTest>,
    discovery_tests: Vec<DiscoveryTest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ActionTest {
    action: String,
    input_path: String,
    expected_output_path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiscoveryTest {
    input_path: String,
    result: Vec<Discovered>,
}

#[derive(Deserialize)]
struct Discovered {
    name: String,
    disabled: bool,
}

#[test]
fn actions_change_what_their_tests_say() {
    let actions = customisation().join("actions");
    let suite: Actions = yaml(&actions.join("action_test.yaml"));
    for test in &suite.action_tests {
        let changed = run(
            &actions.join(&test.action).join("action.lua"),
            &yaml(&actions.join(&test.input_path)),
        );
        // Lua has no difference between an empty list and an empty object: these objects have neither.
        let expected: Value = yaml(&actions.join(&test.expected_output_path));
        assert_eq!(
            changed["spec"], expected["spec"],
            "{} on {}",
            test.action, test.input_path
        );
        assert_eq!(
            changed["metadata"], expected["metadata"],
            "{} on {}",
            test.action, test.input_path
        );
    }
}

#[test]
fn actions_are_offered_where_they_do_something() {
    let actions = customisation().join("actions");
    let suite: Actions = yaml(&actions.join("action_test.yaml"));
    for test in &suite.discovery_tests {
        let offered = run(&actions.join("discovery.lua"), &yaml(&actions.join(&test.input_path)));
        let offered = offered.as_object().unwrap();
        assert_eq!(offered.len(), test.result.len(), "{}", test.input_path);
        for wanted in &test.result {
            assert_eq!(
                offered[&wanted.name]["disabled"], wanted.disabled,
                "{} of {}",
                wanted.name, test.input_path
            );
        }
    }
}

#[test]
fn the_config_map_has_the_same_scripts() {
    let config: Value = yaml(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config/argocd/argocd-cm.yaml"));
    let health = &config["data"]["resource.customizations.health.holdfast.dev_CloudOperation"];
    assert_eq!(
        health,
        &read(&customisation().join("health.lua")),
        "run config/argocd/generate"
    );

    let text = config["data"]["resource.customizations.actions.holdfast.dev_CloudOperation"]
        .as_str()
        .unwrap();
    let actions: Value = serde_yaml::from_str(text).unwrap();
    let directory = customisation().join("actions");
    assert_eq!(
        actions["discovery.lua"],
        read(&directory.join("discovery.lua")),
        "run config/argocd/generate"
    );
    let definitions = actions["definitions"].as_array().unwrap();
    assert_eq!(definitions.len(), 3);
    for action in definitions {
        let script = directory.join(action["name"].as_str().unwrap()).join("action.lua");
        assert_eq!(action["action.lua"], read(&script), "run config/argocd/generate");
    }
}
