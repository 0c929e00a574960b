//! Operations that run a template: docs/templates.md, on a real API server.

use holdfast::api::{OperationHistory, OperationState, OperationTemplate};
use holdfast_e2e::kubectl::kubectl_with;
use holdfast_e2e::world::{World, message_of, output, state_of};
use kube::ResourceExt;
use serde_json::{Value, json};

/// Calls `/<path>/<group>`, waits at a gate, and answers the size.
fn template(world: &World, path: &str) -> String {
    let url = world.inventory.url("");
    format!(
        "apiVersion: holdfast.dev/v1alpha1
kind: OperationTemplate
metadata: {{name: resize}}
spec:
  inputSchema:
    type: object
    required: [group]
    additionalProperties: false
    properties:
      group: {{type: string}}
      size: {{type: integer, default: 3, maximum: 10}}
  steps:
  - name: resize
    http: {{method: POST, url: '{url}/{path}/${{input.group}}', body: {{size: '${{input.size}}'}}}}
  - name: gate
    http: {{method: POST, url: '{url}/gate/${{input.group}}'}}
  - name: done
    set: {{size: '${{input.size}}'}}
  output: {{size: '${{steps.done.output.size}}'}}
"
    )
}

fn operation(name: &str, input: &Value) -> Value {
    json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation", "metadata": {"name": name},
        "spec": {"templateRef": {"name": "resize"}, "input": input},
    })
}

#[tokio::test]
async fn what_started_runs_to_its_end_as_it_was_and_the_next_runs_what_is_new() {
    let world = World::new("templates-change").await;
    let operator = world.operator();
    world.apply(&template(&world, "old")).await;
    world
        .apply(&operation("web", &json!({"group": "web"})).to_string())
        .await;
    world.until_called("/gate/web").await;
    let shown = world.prints(&["get", "optpl"]).await;
    assert!(shown.contains("ACCOUNT") && shown.contains("resize"), "{shown}");

    world.apply(&template(&world, "new")).await;
    operator.kill().await;
    let _operator = world.operator();
    world
        .apply(&operation("db", &json!({"group": "db", "size": 5})).to_string())
        .await;
    world.until_called("/gate/db").await;
    world.prints(&["delete", "optpl", "resize"]).await;
    for group in ["web", "db"] {
        world.inventory.open(group);
    }
    let web = world.ends("web", OperationState::Succeeded).await;
    let db = world.ends("db", OperationState::Succeeded).await;
    assert_eq!(output(&web, "done"), json!({"size": 3}));
    assert_eq!(output(&db, "done"), json!({"size": 5}));
    assert_eq!(world.inventory.effects("/old/web").len(), 1);
    assert_eq!(world.inventory.effects("/new/db").len(), 1);
    assert_eq!(world.inventory.effects("/new/web").len(), 0);

    // What each runs can be looked at, and by nobody be changed; it goes with its operation.
    let pins = world.prints(&["get", "ophist"]).await;
    assert!(pins.contains("TEMPLATE") && pins.contains("web-"), "{pins}");
    let pin = format!("web-{}-template", &web.uid().unwrap()[..8]);
    let kept = world.api::<OperationHistory>().get(&pin).await.unwrap();
    let kept = json!(kept.spec.template);
    assert!(
        kept["spec"]["steps"][0]["http"]["url"]
            .as_str()
            .unwrap()
            .contains("/old/"),
        "{kept}"
    );
    for patch in [
        r#"{"spec":{"template":{"name":"other"}}}"#,
        r#"{"spec":{"template":{"spec":{"steps":[{"name":"resize","http":{"url":"http://elsewhere"}}]}}}}"#,
    ] {
        let refused = world
            .kubectl(&["patch", "ophist", &pin, "--type=merge", "-p", patch])
            .await;
        assert!(
            !refused.ok && refused.err.contains("is immutable"),
            "{}{}",
            refused.out,
            refused.err
        );
    }
    world.prints(&["delete", "cop", "web"]).await;
    world.until_gone::<OperationHistory>(&pin).await;
}

#[tokio::test]
async fn a_template_may_come_after_its_operation() {
    let world = World::new("templates-late").await;
    let _operator = world.operator();
    world.inventory.open("web");
    world
        .apply(&operation("web", &json!({"group": "web"})).to_string())
        .await;
    let waits = world.until_state("web", OperationState::Waiting).await;
    let missing = format!(
        "OperationTemplate resize, which spec.templateRef names, isn't in namespace {}: the operation starts once it is",
        world.namespace
    );
    assert_eq!(message_of(&waits), missing);
    let columns = world.prints(&["get", "cop", "web"]).await;
    assert!(columns.contains("Waiting") && columns.contains(&missing), "{columns}");
    world.apply(&template(&world, "late")).await;
    world.ends("web", OperationState::Succeeded).await;
    assert_eq!(world.inventory.effects("/late/web").len(), 1);
}

#[tokio::test]
async fn an_input_that_does_not_conform_names_the_field_and_does_nothing() {
    let world = World::new("templates-input").await;
    let _operator = world.operator();
    world.apply(&template(&world, "call")).await;
    for (name, input, says) in [
        ("missing", json!({}), "spec.input.group: the template requires it"),
        (
            "large",
            json!({"group": "web", "size": 11}),
            "spec.input.size: 11 is greater than the maximum of 10",
        ),
        (
            "unknown",
            json!({"group": "web", "colour": "red"}),
            "spec.input: Additional properties are not allowed ('colour' was unexpected)",
        ),
    ] {
        world.apply(&operation(name, &input).to_string()).await;
        let ended = world.ends(name, OperationState::InvalidSpec).await;
        assert_eq!(message_of(&ended), says);
    }
    assert_eq!(world.inventory.requests("/call").len(), 0);
}

#[tokio::test]
async fn the_api_server_says_what_does_not_go_with_a_template() {
    let world = World::new("templates-admission").await;
    let try_spec = async |spec: Value| {
        let mut manifest = operation("tried", &json!({}));
        manifest["spec"] = spec;
        kubectl_with(
            &manifest.to_string(),
            &["-n", &world.namespace, "create", "--dry-run=server", "-f", "-"],
        )
        .await
    };
    let step = json!([{"name": "a", "set": {"v": 1}}]);
    for (spec, says) in [
        (json!({}), "spec has exactly one of steps and templateRef"),
        (
            json!({"steps": step, "templateRef": {"name": "resize"}}),
            "spec has exactly one of steps and templateRef",
        ),
        (
            json!({"templateRef": {"name": "resize"}, "output": {"a": 1}}),
            "finally, output and order come from the template",
        ),
        (
            json!({"templateRef": {"name": "resize"}, "finally": step}),
            "finally, output and order come from the template",
        ),
    ] {
        let refused = try_spec(spec).await;
        assert!(!refused.ok && refused.err.contains(says), "{says}: {}", refused.err);
    }
    let whole = json!({
        "templateRef": {"name": "resize"}, "serviceAccountName": "runner", "timeout": "1h", "failurePolicy": "Pause",
        "retry": {"maximumAttempts": 3}, "input": {"group": "web"}, "suspend": true,
    });
    let taken = try_spec(whole.clone()).await;
    assert!(taken.ok, "{}", taken.err);

    // Once created, only control fields change.
    let mut manifest = operation("kept", &json!({"group": "web"}));
    manifest["spec"]["suspend"] = json!(true);
    world.apply(&manifest.to_string()).await;
    for (patch, says) in [
        (
            r#"{"spec":{"templateRef":{"name":"other"}}}"#,
            "spec.templateRef is immutable",
        ),
        (r#"{"spec":{"input":{"group":"db"}}}"#, "spec.input is immutable"),
        (
            r#"{"spec":{"templateRef":null,"steps":[{"name":"a","set":{"v":1}}]}}"#,
            "is immutable",
        ),
    ] {
        let refused = world
            .kubectl(&["patch", "cop", "kept", "--type=merge", "-p", patch])
            .await;
        assert!(
            !refused.ok && refused.err.contains(says),
            "{says}: {}{}",
            refused.out,
            refused.err
        );
    }
    world
        .patch("kept", r#"{"spec":{"cancel":{"reason":"not needed"}}}"#)
        .await;

    let bad = "{apiVersion: holdfast.dev/v1alpha1, kind: OperationTemplate, metadata: {name: bad}, spec: {steps: [{name: a, set: {}, assert: 'true'}]}}";
    let refused = kubectl_with(bad, &["-n", &world.namespace, "create", "-f", "-"]).await;
    assert!(
        !refused.ok && refused.err.contains("a step has exactly one of"),
        "{}",
        refused.err
    );
    // A template, unlike an operation, may be changed.
    world.apply(&template(&world, "one")).await;
    world.apply(&template(&world, "two")).await;
    assert_eq!(
        world
            .api::<OperationTemplate>()
            .list(&Default::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let kept = world.operations().get("kept").await.unwrap();
    assert_eq!(state_of(&kept), None, "no operator has seen it");
}
