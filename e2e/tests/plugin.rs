//! `kubectl holdfast`, as a user runs it.

use holdfast::api::OperationState;
use holdfast_e2e::kubectl::{Printed, run};
use holdfast_e2e::operator::built;
use holdfast_e2e::world::{World, message_of, state_of};
use serde_json::Value;

/// Runs the plugin in the world's namespace.
async fn plugin_with(world: &World, input: &str, arguments: &[&str]) -> Printed {
    let mut all = arguments.to_vec();
    all.extend(["-n", &world.namespace]);
    run(&built("kubectl-holdfast").display().to_string(), input, &all).await
}

async fn plugin(world: &World, arguments: &[&str]) -> Printed {
    plugin_with(world, "", arguments).await
}

/// Runs the plugin, and answers what it prints.
async fn prints(world: &World, arguments: &[&str]) -> String {
    let printed = plugin(world, arguments).await;
    assert_eq!(printed.code, Some(0), "{arguments:?}: {}{}", printed.out, printed.err);
    printed.out
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[tokio::test]
async fn run_creates_waits_and_exits_by_how_it_ended() {
    let world = World::new("plugin-run").await;
    let _operator = world.operator();
    let mut manifest = world.manifest(
        "",
        r"
        input: {size: 3}
        steps:
        - {name: plan, set: {size: '${input.size}'}}
        - {name: sane, assert: steps.plan.output.size > 0}
        finally:
        - {name: tell, set: {text: done}}
        output: {size: '${steps.plan.output.size}'}
        ",
    );
    manifest["metadata"] = serde_json::json!({"generateName": "nightly-"});
    let manifest = manifest.to_string();

    let ran = plugin_with(&world, &manifest, &["run", "-f", "-", "--input", "size=12", "--wait"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let (created, ended) = ran.out.split_once('\n').unwrap();
    let name = created
        .strip_prefix("cloudoperation.holdfast.dev/")
        .and_then(|name| name.strip_suffix(" created"));
    let name = name.unwrap_or_else(|| panic!("{created}"));
    assert!(name.starts_with("nightly-"), "{name}");
    contains(ended, &[name, "Succeeded"]);

    let tree = prints(&world, &["get", name]).await;
    contains(
        &tree,
        &[
            "Succeeded  2/2",
            "✓ plan",
            "✓ sane",
            "\nfinally\n✓ tell",
            r#"output: {"size":12}"#,
        ],
    );
    assert!(!tree.contains('\x1b'), "no colours where no terminal is: {tree:?}");
    contains(&prints(&world, &["get"]).await, &["NAME", name, "Succeeded"]);
    let object: Value = serde_json::from_str(&prints(&world, &["get", name, "-o", "json"]).await).unwrap();
    assert_eq!(object["spec"]["input"]["size"], 12);
    contains(
        &prints(&world, &["history", name]).await,
        &["SEQ", "Started", "StepSucceeded", "plan", "Finished"],
    );
    // On a pipe, -w prints the history, and ends with the operation.
    contains(
        &prints(&world, &["get", name, "-w"]).await,
        &["Started", "StepSucceeded    plan", "Finished"],
    );
    assert_eq!(plugin(&world, &["wait", name]).await.code, Some(0));

    let failed = plugin_with(&world, &manifest, &["run", "-f", "-", "--input", "size=0", "--wait"]).await;
    assert_eq!(failed.code, Some(1), "{}{}", failed.out, failed.err);
    contains(&failed.out, &["Failed", "sane"]);
    let failed = failed.out.split(['/', ' ']).nth(1).unwrap();
    contains(
        &prints(&world, &["describe", failed]).await,
        &[
            "step sane failed for good",
            &format!("kubectl holdfast rerun {failed} -n {}", world.namespace),
        ],
    );
    assert_eq!(plugin(&world, &["wait", failed]).await.code, Some(1));

    let rerun = plugin(&world, &["rerun", failed, "--input", "size=1", "--wait"]).await;
    assert_eq!(rerun.code, Some(0), "{}{}", rerun.out, rerun.err);
    contains(&rerun.out, &[&format!("{failed}-rerun-")]);
    let rest = plugin(&world, &["rerun", name, "--from-step", "sane", "--wait"]).await;
    assert_eq!(rest.code, Some(0), "{}{}", rest.out, rest.err);
    contains(&rest.err, &["as recorded: plan"]);
}

#[tokio::test]
async fn what_is_wrong_has_an_exit_code_of_its_own() {
    let world = World::new("plugin-wrong").await;
    let missing = plugin(&world, &["get", "nothing"]).await;
    assert_eq!(missing.code, Some(2));
    contains(
        &missing.err,
        &["there is no CloudOperation nothing in namespace", &world.namespace],
    );
    assert_eq!(plugin(&world, &["wait", "nothing"]).await.code, Some(2));
    assert_eq!(plugin(&world, &["get", "--no-such-flag"]).await.code, Some(2));

    // Without an operator nothing ends, and nothing decides on an action.
    world.run("alone", "steps: [{name: ask, approval: {}}]").await;
    let waited = plugin(&world, &["wait", "alone", "--timeout", "1s"]).await;
    assert_eq!(waited.code, Some(124), "{}", waited.err);
    contains(
        &prints(&world, &["get", "alone"]).await,
        &["not seen by an operator yet", "○ ask"],
    );
    let asked = plugin(&world, &["approve", "alone", "--step", "ask", "--timeout", "1s"]).await;
    assert_eq!(asked.code, Some(124), "{}", asked.err);

    let unknown = world
        .manifest("unknown", "{steps: [{name: a, set: {}}], orders: Graph}")
        .to_string();
    let refused = plugin_with(&world, &unknown, &["run", "-f", "-"]).await;
    assert_eq!(refused.code, Some(2));
    contains(&refused.err, &["spec.orders"]);
}

#[tokio::test]
async fn suspend_resume_and_cancel() {
    let world = World::new("plugin-control").await;
    let _operator = world.operator();
    world
        .run(
            "held",
            r"
            steps:
            - {name: slow, http: {method: POST, url: INVENTORY/gate/slow}}
            - {name: nap, wait: {duration: 1h}}
            ",
        )
        .await;
    world.until_called("/gate").await;
    let early = plugin(&world, &["rerun", "held"]).await;
    assert_eq!(early.code, Some(2));
    contains(&early.err, &["has not ended"]);

    contains(&prints(&world, &["suspend", "held"]).await, &["held is suspended"]);
    world.until_state("held", OperationState::Suspended).await;
    contains(
        &prints(&world, &["get", "held"]).await,
        &["Suspended", "held by spec.suspend", "● slow"],
    );
    contains(
        &prints(&world, &["describe", "held"]).await,
        &["kubectl holdfast resume held"],
    );
    world.inventory.open("slow");
    prints(&world, &["resume", "held"]).await;
    world.until_state("held", OperationState::Waiting).await;
    contains(&prints(&world, &["get", "held"]).await, &["✓ slow", "… nap", "left)"]);

    let nothing = plugin(&world, &["cancel", "held", "--compensate"]).await;
    assert_eq!(nothing.code, Some(2));
    contains(&nothing.err, &["no step of held says how it is undone"]);
    prints(&world, &["cancel", "held", "--reason", "wrong group"]).await;
    let waited = plugin(&world, &["wait", "held"]).await;
    assert_eq!(waited.code, Some(1));
    contains(&waited.out, &["held Cancelled", "wrong group"]);
    let again = plugin(&world, &["suspend", "held"]).await;
    assert_eq!(again.code, Some(2));
    contains(&again.err, &["held has ended already: Cancelled"]);
}

#[tokio::test]
async fn what_a_person_does_is_told_what_came_of_it() {
    let world = World::new("plugin-actions").await;
    let _operator = world.operator();
    world
        .run(
            "asks",
            r"
            steps:
            - {name: ask, approval: {message: 'really?'}}
            - {name: ready, signal: {name: capacity, schema: {required: [n]}}}
            - {name: done, assert: steps.ready.output.n == 3}
            - {name: nap, wait: {duration: 1h}}
            ",
        )
        .await;
    world.until_state("asks", OperationState::AwaitingApproval).await;
    contains(
        &prints(&world, &["describe", "asks"]).await,
        &[
            "waiting for an approval",
            "really?",
            "kubectl holdfast approve asks --step ask",
        ],
    );
    contains(
        &prints(&world, &["approve", "asks", "--comment", "go"]).await,
        &["Applied: step ask was approved: go"],
    );
    let twice = plugin(&world, &["approve", "asks"]).await;
    assert_eq!(twice.code, Some(2));
    contains(&twice.err, &["no step waits for an approval"]);

    world.until_state("asks", OperationState::Waiting).await;
    contains(
        &prints(&world, &["describe", "asks"]).await,
        &["kubectl holdfast signal asks capacity --payload n=..."],
    );
    let empty = plugin(&world, &["signal", "asks", "capacity"]).await;
    assert_eq!(empty.code, Some(1), "{}", empty.out);
    contains(&empty.err, &["rejected", "signal.schema"]);
    prints(&world, &["signal", "asks", "capacity", "--payload", "n=3"]).await;
    world
        .until("asks", "at its nap", |operation| {
            message_of(operation).contains("step nap")
        })
        .await;
    let early = plugin(&world, &["retry-now", "asks", "--step", "nap"]).await;
    assert_eq!(early.code, Some(1), "{}", early.out);
    prints(&world, &["skip", "asks", "--step", "nap"]).await;
    let ended = world.ends("asks", OperationState::Succeeded).await;
    assert_eq!(state_of(&ended), Some(OperationState::Succeeded));
    contains(
        &prints(&world, &["history", "asks"]).await,
        &["ActionApplied", "ActionRejected", "StepSkipped"],
    );
}

#[tokio::test]
async fn one_that_failed_goes_on_by_retry() {
    let world = World::new("plugin-retry").await;
    let _operator = world.operator();
    world
        .run(
            "calls",
            "steps: [{name: call, http: {url: 'http://127.0.0.1:1/'}, retry: {initialInterval: 1h}}]",
        )
        .await;
    world.until_state("calls", OperationState::BackingOff).await;
    contains(
        &prints(&world, &["describe", "calls"]).await,
        &[
            "Attempt 1 of step call failed: ConnectionFailed",
            "kubectl holdfast retry-now calls --step call",
        ],
    );
    contains(
        &prints(&world, &["retry-now", "calls"]).await,
        &["step call is tried again now"],
    );
    world
        .until("calls", "at its second failure", |operation| {
            message_of(operation).contains("attempt 2 failed")
        })
        .await;
    prints(&world, &["fail", "calls", "--step", "call", "--message", "given up"]).await;
    world.ends("calls", OperationState::Failed).await;
    contains(
        &prints(&world, &["describe", "calls"]).await,
        &["given up", "kubectl holdfast retry calls --step call"],
    );
    prints(&world, &["retry", "calls"]).await;
    world.until_state("calls", OperationState::BackingOff).await;
    let output = ["complete", "calls", "--step", "call", "--output", "id=7"];
    prints(&world, &output).await;
    let ended = world.ends("calls", OperationState::Succeeded).await;
    assert_eq!(holdfast_e2e::world::output(&ended, "call")["id"], 7);
}

#[tokio::test]
async fn files_are_checked_without_a_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.yaml");
    let text = "apiVersion: holdfast.dev/v1alpha1\nkind: CloudOperation\nmetadata: {name: a}\nspec:\n  steps:\n  - name: a\n    sett: {}\n";
    std::fs::write(&file, text).unwrap();
    let plugin = built("kubectl-holdfast").display().to_string();
    let path = file.display().to_string();
    let no_cluster = directory.path().join("none").display().to_string();
    let linted = run(&plugin, "", &["lint", &path, "--kubeconfig", &no_cluster]).await;
    assert_eq!(linted.code, Some(1));
    contains(
        &linted.out,
        &[&format!(
            "{path}:7: spec.steps[0].sett: unknown field; did you mean set?"
        )],
    );
    let right = text.replace("sett", "set");
    let linted = run(&plugin, &right, &["lint", "-"]).await;
    assert_eq!(linted.code, Some(0), "{}", linted.out);
    let graph = run(&plugin, &right, &["graph", "-f", "-"]).await;
    contains(&graph.out, &["flowchart TD", "a<br/>set"]);
}
