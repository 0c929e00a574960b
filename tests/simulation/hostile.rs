//! Objects that are made to do harm, or by mistake: they stop no other.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use holdfast::api::OperationState;
use holdfast_apiserver::Fault;
use k8s_openapi::api::events::v1::Event;
use serde_json::{Value, json};
use tokio::time::sleep;

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

#[tokio::test(start_paused = true)]
async fn a_status_that_is_refused_is_told_by_an_event_and_written_once_it_is_accepted() {
    // By a schema, or for as long as a webhook or the storage behind it is out of order.
    for code in [422, 429, 500] {
        is_told_and_written_once_it_is_accepted(code).await;
    }
}

async fn is_told_and_written_once_it_is_accepted(code: u16) {
    let mut world = World::new(1);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    world.server.set_faults(move |info| {
        if info.subresource != "status" || info.name != "refused" {
            return Fault::None;
        }
        counted.fetch_add(1, SeqCst);
        Fault::Fail {
            code,
            retry_after: None,
        }
    });
    world.apply(&named("refused")).await;
    world.apply(&named("calls")).await;
    world.start();
    world.until("the other one ends", |world| world.finished("calls")).await;
    let told = |event: &Event| {
        let of = event.regarding.as_ref().and_then(|regarding| regarding.name.as_deref());
        let note = event.note.as_deref().unwrap_or_default();
        of == Some("refused")
            && event.reason.as_deref() == Some("StatusRefused")
            && note.starts_with("nothing is done until the API server accepts its status: ")
    };
    world
        .until("it is told", |world| world.server.list::<Event>().iter().any(told))
        .await;
    assert_eq!(world.writes_of("refused"), 0);
    let before = asked.load(SeqCst);
    sleep(Duration::from_secs(60)).await;
    let again = asked.load(SeqCst) - before;
    assert!((1..=20).contains(&again), "{code}: {again} writes in a minute");
    world.server.clear_faults();
    world.until("it ends", |world| world.finished("refused")).await;
    assert_eq!(world.state("refused"), Some(OperationState::Succeeded));
    world.check();
    world.kill_all().await;
}
