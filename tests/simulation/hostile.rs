//! Objects that are made to do harm, or by mistake: they stop no other.

use holdfast::api::OperationState;
use serde_json::{Value, json};

use crate::samples::sample;
use crate::world::World;

fn named(name: &str) -> Value {
    let mut manifest = sample("calls").manifest;
    manifest["metadata"]["name"] = json!(name);
    manifest
}

#[tokio::test(start_paused = true)]
async fn an_input_nested_too_deeply_is_invalid_and_holds_up_nothing_else() {
    let mut world = World::new(1);
    // As text, since building it as a value is what the parser refuses.
    let deep = format!("{}1{}", "[".repeat(120), "]".repeat(120));
    let text = named("deep").to_string().replace("\"web\"", &deep);
    world.post(text).await;
    world.apply(&named("calls")).await;
    world.start();
    world.until("the other one ends", |world| world.finished("calls")).await;
    world
        .until("the deep one ends", |world| {
            let found = world
                .server
                .find("cloudoperations.holdfast.dev", crate::world::NAMESPACE, "deep")
                .unwrap();
            found["status"]["state"] == json!(OperationState::InvalidSpec)
        })
        .await;
    assert_eq!(world.state("calls"), Some(OperationState::Succeeded));
    world.kill_all().await;
}
