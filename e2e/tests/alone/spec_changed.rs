//! A spec that is changed behind admission's back: in a cluster whose policy and CRD somebody has weakened.

use holdfast::api::{OperationState, StepState};
use holdfast_e2e::install;
use holdfast_e2e::kubectl::{kubectl, kubectl_with};
use holdfast_e2e::world::{PATIENCE, World, message_of, step};
use serde_json::Value;

const BINDING: &str = "validatingadmissionpolicybinding/holdfast-immutable-spec";

/// Removes the policy, and every rule from the CRD.
async fn weaken_admission() {
    let deleted = kubectl(&["delete", BINDING]).await;
    assert!(deleted.ok, "{}", deleted.err);
    let found = kubectl(&["get", "crd", "cloudoperations.holdfast.dev", "-o", "json"]).await;
    let mut crd: Value = serde_json::from_str(&found.out).unwrap();
    remove_rules(&mut crd["spec"]);
    let replaced = kubectl_with(&crd.to_string(), &["replace", "-f", "-"]).await;
    assert!(replaced.ok, "{}", replaced.err);
}

fn remove_rules(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("x-kubernetes-validations");
            map.values_mut().for_each(remove_rules);
        }
        Value::Array(list) => list.iter_mut().for_each(remove_rules),
        _ => {}
    }
}

#[tokio::test]
async fn nothing_more_is_executed_of_a_spec_that_was_changed() {
    let _alone = crate::turn().await;
    let world = World::new("spec-changed").await;
    let _operator = world.operator();
    let steps = |size: u32| {
        format!(
            "steps: [{{name: first, http: {{method: POST, url: INVENTORY/gate/first}}}}, {{name: second, http: {{method: POST, url: INVENTORY/second, body: {{size: {size}}}}}}}]"
        )
    };
    world.run("changed", &steps(1)).await;
    world.until_called("/gate").await;
    let changed = world.manifest("changed", &steps(2)).to_string();
    let apply = ["-n", &world.namespace, "apply", "--server-side", "-f", "-"];
    let refused = kubectl_with(&changed, &apply).await;
    assert!(!refused.ok, "the policy refuses it");

    weaken_admission().await;
    // The API server takes it up in its own time.
    let started = std::time::Instant::now();
    while !kubectl_with(&changed, &apply).await.ok {
        assert!(started.elapsed() < PATIENCE, "the change is still refused");
    }
    install::install().await;
    world.inventory.open("first");

    let ended = world.ends("changed", OperationState::SpecChanged).await;
    assert_eq!(step(&ended, "first").state, StepState::Cancelled);
    assert!(step(&ended, "first").maybe_done);
    assert!(
        message_of(&ended).contains("nothing more was executed"),
        "{}",
        message_of(&ended)
    );
    assert!(world.inventory.requests("/second").is_empty());
}
