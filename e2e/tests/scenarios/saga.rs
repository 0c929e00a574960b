//! Undoing what was done: in which order, over a crash, and with a person's help.

use holdfast::api::ActionState::Rejected;
use holdfast::api::{HistoryEvent, OperationState, StepState};
use holdfast_e2e::world::{World, events, find_step, message_of, step};

/// What was called and had its effect, in order.
fn calls(world: &World) -> Vec<String> {
    let effects = world.inventory.effects("/");
    effects
        .iter()
        .map(|seen| format!("{} {}", seen.method, seen.path))
        .collect()
}

#[tokio::test]
async fn what_was_done_is_undone_the_last_first_by_what_it_answered() {
    let world = World::new("saga-order").await;
    let _operator = world.operator();
    world
        .run(
            "move",
            r#"
            failurePolicy: Compensate
            steps:
            - {name: a, http: {method: POST, url: INVENTORY/a}, output: {ok: "${result.body.ok}"}, compensate: {http: {method: DELETE, url: "INVENTORY/a/${string(steps.a.output.ok)}"}}}
            - {name: b, http: {method: POST, url: INVENTORY/b}}
            - {name: c, http: {method: POST, url: INVENTORY/c}, compensate: {http: {method: DELETE, url: INVENTORY/c}}}
            - {name: d, http: {method: POST, url: INVENTORY/status/422}, compensate: {http: {method: DELETE, url: INVENTORY/d}}}
            "#,
        )
        .await;
    let ended = world.ends("move", OperationState::Failed).await;
    assert_eq!(
        calls(&world),
        [
            "POST /a",
            "POST /b",
            "POST /c",
            "POST /status/422",
            "DELETE /c",
            "DELETE /a/true"
        ]
    );
    assert!(message_of(&ended).ends_with("; undone: c, a"), "{}", message_of(&ended));
    assert!(events(&ended, "").contains(&HistoryEvent::Compensating));
    assert!(find_step(&ended, "d:undo").is_none(), "it was not done");
    let (state, message) = world.asked("move", "retry: {}").await;
    assert_eq!(
        (state, message.as_str()),
        (Rejected, "what it did was undone: create another operation")
    );
}

#[tokio::test]
async fn lists_and_groups_are_undone_item_by_item_and_step_by_step_the_last_first() {
    let world = World::new("saga-lists").await;
    let _operator = world.operator();
    // Of the last item of the last list only a part is done.
    world
        .run(
            "move",
            r#"
            failurePolicy: Compensate
            steps:
            - name: zone
              forEach: "['a', 'b', 'c']"
              maxParallel: 1
              http: {method: POST, url: "INVENTORY/zone/${item}"}
              compensate: {http: {method: DELETE, url: "INVENTORY/zone/${item}"}}
            - name: release
              steps:
              - {name: build, http: {method: POST, url: INVENTORY/release/build}, compensate: {http: {method: DELETE, url: INVENTORY/release/build}}}
              - {name: tell, http: {method: POST, url: INVENTORY/release/tell}}
              - {name: ship, http: {method: POST, url: INVENTORY/release/ship}, compensate: {http: {method: DELETE, url: INVENTORY/release/ship}}}
            - name: region
              forEach: "['verify', 'status/422']"
              maxParallel: 1
              compensate: {http: {method: DELETE, url: "INVENTORY/region/${string(index)}"}}
              steps:
              - {name: deploy, http: {method: POST, url: "INVENTORY/region/${string(index)}"}}
              - {name: verify, http: {method: POST, url: "INVENTORY/${item}"}}
            "#,
        )
        .await;
    let ended = world.ends("move", OperationState::Failed).await;
    assert_eq!(
        calls(&world),
        [
            "POST /zone/a",
            "POST /zone/b",
            "POST /zone/c",
            "POST /release/build",
            "POST /release/tell",
            "POST /release/ship",
            "POST /region/0",
            "POST /verify",
            "POST /region/1",
            "POST /status/422",
            "DELETE /region/1",
            "DELETE /region/0",
            "DELETE /release/ship",
            "DELETE /release/build",
            "DELETE /zone/c",
            "DELETE /zone/b",
            "DELETE /zone/a",
        ]
    );
    assert!(
        message_of(&ended).ends_with("; undone: region, release/ship, release/build, zone"),
        "{}",
        message_of(&ended)
    );
}

#[tokio::test]
async fn an_undo_survives_the_death_of_the_operator() {
    let world = World::new("saga-crash").await;
    let first = world.operator();
    world
        .run(
            "move",
            r#"
            failurePolicy: Compensate
            steps:
            - {name: a, http: {method: POST, url: INVENTORY/a}, compensate: {http: {method: DELETE, url: INVENTORY/a}}}
            - {name: b, http: {method: POST, url: INVENTORY/b}, compensate: {http: {method: DELETE, url: INVENTORY/gate/b}}}
            - {name: c, assert: "false"}
            "#,
        )
        .await;
    world.until_called("/gate/b").await;
    let undoing = world.until_state("move", OperationState::Compensating).await;
    assert_eq!(step(&undoing, "b:undo").state, StepState::Running);
    first.kill().await;
    world.inventory.open("b");
    let _second = world.operator();
    let ended = world.ends("move", OperationState::Failed).await;
    assert_eq!(calls(&world), ["POST /a", "POST /b", "DELETE /gate/b", "DELETE /a"]);
    let sent = world.inventory.requests("/gate/b");
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].key, sent[1].key);
    let done = world.inventory.requests("/b");
    assert_ne!(done[0].key, sent[0].key, "doing and undoing have keys of their own");
    assert_eq!(step(&ended, "b:undo").lost, 1);
}

#[tokio::test]
async fn an_undo_that_fails_for_good_waits_for_a_person_who_skips_it() {
    let world = World::new("saga-stuck").await;
    let _operator = world.operator();
    world
        .run(
            "move",
            r#"
            failurePolicy: Compensate
            steps:
            - {name: a, http: {method: POST, url: INVENTORY/a}, compensate: {http: {method: DELETE, url: INVENTORY/a}}}
            - {name: b, http: {method: POST, url: INVENTORY/b}, compensate: {http: {method: DELETE, url: INVENTORY/status/422}}}
            - {name: c, assert: "false"}
            "#,
        )
        .await;
    let stuck = world.until_state("move", OperationState::Stuck).await;
    assert!(
        message_of(&stuck).contains("step b:undo needs a person: HttpStatus"),
        "{}",
        message_of(&stuck)
    );
    assert!(find_step(&stuck, "a:undo").is_none(), "the next one waits");
    // Tried again, it fails again.
    world.asked("move", "retry: {}").await;
    world
        .until("move", "stuck again", |operation| {
            let undo = step(operation, "b:undo");
            undo.epoch == 1 && undo.state == StepState::Undecided
        })
        .await;
    world.asked("move", "skip: {step: 'b:undo'}").await;
    let ended = world.ends("move", OperationState::Failed).await;
    assert_eq!(step(&ended, "b:undo").state, StepState::Skipped);
    assert_eq!(world.inventory.effects("/a").len(), 2, "done and undone");
}

#[tokio::test]
async fn a_cancel_undoes_if_it_says_so_once_the_call_under_way_has_ended() {
    let world = World::new("saga-cancel").await;
    let _operator = world.operator();
    let spec = |gate: &str| {
        format!(
            r#"
            steps:
            - {{name: a, http: {{method: POST, url: INVENTORY/{gate}/a}}, compensate: {{http: {{method: DELETE, url: INVENTORY/{gate}/a}}}}}}
            - {{name: b, http: {{method: POST, url: INVENTORY/gate/{gate}}}, compensate: {{http: {{method: DELETE, url: INVENTORY/{gate}/b}}}}}}
            - {{name: c, http: {{method: POST, url: INVENTORY/{gate}/c}}}}
            "#
        )
    };
    for name in ["undone", "stopped"] {
        world.run(name, &spec(name)).await;
        world.until_called(&format!("/gate/{name}")).await;
    }
    world.patch("stopped", r#"{"spec": {"cancel": {}}}"#).await;
    world.ends("stopped", OperationState::Cancelled).await;
    world
        .patch(
            "undone",
            r#"{"spec": {"cancel": {"mode": "Compensate", "reason": "wrong size"}}}"#,
        )
        .await;
    // The call is not given up: what overtook it would undo nothing.
    let cancelled = world
        .until("undone", "about to end", |operation| {
            operation.status.as_ref().is_some_and(|status| status.failure.is_some())
        })
        .await;
    assert_eq!(step(&cancelled, "b").state, StepState::Running);
    world.inventory.open("undone");
    let ended = world.ends("undone", OperationState::Cancelled).await;
    assert_eq!(message_of(&ended), "Cancelled: wrong size; undone: b, a");
    let of = |path: &str| -> Vec<String> { calls(&world).into_iter().filter(|call| call.contains(path)).collect() };
    assert_eq!(
        of("undone"),
        [
            "POST /undone/a",
            "POST /gate/undone",
            "DELETE /undone/b",
            "DELETE /undone/a"
        ]
    );
    assert_eq!(of("stopped"), ["POST /stopped/a", "POST /gate/stopped"]);
}
