//! `kubectl holdfast`, as a user runs it.

use std::time::Instant;

use holdfast::api::{OperationHistory, OperationSchedule, OperationState};
use holdfast_e2e::kubectl::{Printed, run};
use holdfast_e2e::operator::built;
use holdfast_e2e::terminal::Terminal;
use holdfast_e2e::world::{PATIENCE, World, message_of, state_of};
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

    let no_template = plugin(&world, &["run", "--template", "sized", "--wait"]).await;
    assert_eq!(no_template.code, Some(2), "{}", no_template.out);
    contains(&no_template.err, &["there is no OperationTemplate sized"]);
    let spec = "{steps: [{name: fits, assert: 'input.size > 0'}]}";
    let (kind, namespace) = (
        "apiVersion: holdfast.dev/v1alpha1\nkind: OperationTemplate",
        &world.namespace,
    );
    let template = format!("{kind}\nmetadata: {{name: sized, namespace: {namespace}}}\nspec: {spec}\n");
    world.apply(&template).await;
    for (size, name, code) in [("size=1", "fits", 0), ("size=0", "fits-not", 1)] {
        let line = ["run", "--template", "sized", "--name", name, "--input", size, "--wait"];
        let ran = plugin(&world, &line).await;
        assert_eq!(ran.code, Some(code), "{}{}", ran.out, ran.err);
        contains(&ran.out, &[&format!("cloudoperation.holdfast.dev/{name} created")]);
    }
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
    contains(
        &again.err,
        &["held has ended already: Cancelled", "kubectl holdfast rerun held"],
    );
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
async fn what_is_rejected_fails_and_a_reset_asks_anew() {
    let world = World::new("plugin-reset").await;
    let _operator = world.operator();
    let spec = r"
        steps:
        - {name: plan, set: {size: 3}}
        - {name: ask, approval: {message: 'really?'}}
        - {name: nap, wait: {duration: 1h}}
        ";
    world.run("no", spec).await;
    world.until_state("no", OperationState::AwaitingApproval).await;
    let refused = ["reject", "no", "--comment", "not today"];
    contains(
        &prints(&world, &refused).await,
        &["Applied: step ask was rejected: not today"],
    );
    world.ends("no", OperationState::Failed).await;
    contains(&prints(&world, &["get", "no"]).await, &["✗ ask", "not today", "○ nap"]);

    world.run("yes", spec).await;
    world.until_state("yes", OperationState::AwaitingApproval).await;
    prints(&world, &["approve", "yes"]).await;
    world.until_state("yes", OperationState::Waiting).await;
    contains(&prints(&world, &["reset", "yes", "--step", "ask"]).await, &["Applied:"]);
    world.until_state("yes", OperationState::AwaitingApproval).await;
    contains(&prints(&world, &["get", "yes"]).await, &["✓ plan", "… ask", "○ nap"]);
    let unknown = plugin(&world, &["reset", "yes", "--step", "lost"]).await;
    assert_eq!(unknown.code, Some(1), "{}", unknown.out);
    prints(&world, &["approve", "yes"]).await;
    world.until_state("yes", OperationState::Waiting).await;

    // What is shown is for programs, too.
    contains(&prints(&world, &["get", "-o", "wide"]).await, &["yes", "no"]);
    contains(
        &prints(&world, &["get", "-o", "name"]).await,
        &["cloudoperation.holdfast.dev/yes\n"],
    );
    let history: Value = serde_json::from_str(&prints(&world, &["history", "yes", "-o", "json"]).await).unwrap();
    assert!(history.to_string().contains("ActionApplied"), "{history}");
    contains(
        &prints(&world, &["graph", "yes"]).await,
        &["flowchart TD", "plan<br/>set\"]:::done"],
    );
    contains(
        &prints(&world, &["version"]).await,
        &["cloudoperations.holdfast.dev: schema"],
    );
    let waited = plugin(&world, &["wait", "yes", "--timeout", "1s"]).await;
    assert_eq!(waited.code, Some(124));
    let rerun = prints(&world, &["rerun", "no", "--dry-run"]).await;
    let rerun: Value = serde_yaml::from_str(&rerun).unwrap();
    assert_eq!(rerun["metadata"]["generateName"], "no-rerun-");
    assert_eq!(
        world.operations().list(&Default::default()).await.unwrap().items.len(),
        2
    );
}

#[tokio::test]
async fn a_history_that_went_into_objects_is_shown_as_one() {
    let world = World::new("plugin-history").await;
    let _operator = world.operator();
    world
        .run(
            "long",
            "steps: [{name: each, forEach: lists.range(350), assert: item >= 0}]",
        )
        .await;
    world.ends("long", OperationState::Succeeded).await;
    let spilled = world
        .until("long", "in more than one object", |operation| {
            operation
                .status
                .as_ref()
                .is_some_and(|status| status.history_spilled >= 200)
        })
        .await;
    let last = spilled.status.unwrap().seq;
    let objects = world.api::<OperationHistory>().list(&Default::default()).await.unwrap();
    assert!(objects.items.len() >= 2, "{} objects", objects.items.len());

    let all: Vec<Value> = serde_json::from_str(&prints(&world, &["history", "long", "-o", "json"]).await).unwrap();
    let numbers: Vec<i64> = all.iter().map(|entry| entry["seq"].as_i64().unwrap()).collect();
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(
        (&all[0]["type"], &all[all.len() - 1]["type"]),
        (&"Started".into(), &"Finished".into())
    );
    let table = prints(&world, &["history", "long"]).await;
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), all.len() + 1, "with its heading");
    contains(rows[1], &["Started"]);
    contains(rows[rows.len() - 1], &["Finished"]);
}

#[tokio::test]
async fn on_a_terminal_a_watch_draws_over_itself_and_ends_with_the_operation() {
    if !cfg!(target_os = "linux") {
        return holdfast_e2e::skipped("script is another program elsewhere");
    }
    let world = World::new("plugin-watch").await;
    let _operator = world.operator();
    world
        .run(
            "rolls",
            r"
            steps:
            - {name: plan, set: {size: 3}}
            - {name: slow, http: {method: POST, url: INVENTORY/gate/slow}}
            - {name: next, http: {method: POST, url: INVENTORY/gate/next}}
            ",
        )
        .await;
    let watch = ["get", "rolls", "-w", "-n", &world.namespace];
    let terminal = Terminal::run(&built("kubectl-holdfast"), &watch);
    let first = ["rolls  Running  1/3", "✓ plan", "● slow", "○ next"];
    let first = terminal.until_shows(&first).await;
    world.inventory.open("slow");
    let second = ["rolls  Running  2/3", "✓ plan", "✓ slow", "● next"];
    let second = terminal.until_shows(&second).await;
    world.inventory.open("next");
    let (code, last) = terminal.ends().await;
    assert_eq!(code, Some(0), "{last}");
    contains(&last, &["rolls  Succeeded  3/3", "✓ plan", "✓ slow", "✓ next"]);
    for screen in [first, second, last] {
        let begin = |with: &[&str]| {
            screen
                .lines()
                .filter(|line| with.iter().any(|part| line.starts_with(part)))
                .count()
        };
        assert_eq!(
            (begin(&["rolls "]), begin(&["✓ ", "● ", "○ "])),
            (1, 3),
            "nothing is left of what was drawn before:\n{screen}"
        );
    }
}

#[tokio::test]
async fn cancelled_with_compensate_it_is_undone() {
    let world = World::new("plugin-undo").await;
    let _operator = world.operator();
    world
        .apply(
            r"
apiVersion: holdfast.dev/v1alpha1
kind: OperationTemplate
metadata: {name: undoes}
spec:
  serviceAccountName: runner
  steps:
  - name: make
    kubernetes: {apply: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: made}}}}
    compensate: {kubernetes: {delete: {resource: {apiVersion: v1, kind: ConfigMap, name: made}}}}
  - {name: nap, wait: {duration: 1h}}
",
        )
        .await;
    world.run("undone", "templateRef: {name: undoes}").await;
    world.until_state("undone", OperationState::Waiting).await;
    prints(&world, &["cancel", "undone", "--compensate"]).await;
    world.ends("undone", OperationState::Cancelled).await;
    contains(
        &prints(&world, &["get", "undone"]).await,
        &["✓ make", "\nundo\n✓ make:undo"],
    );
    assert!(!world.kubectl(&["get", "configmap", "made"]).await.ok);
}

#[tokio::test]
async fn a_schedule_is_paused_backfilled_and_told_of() {
    let world = World::new("plugin-schedule").await;
    let _operator = world.operator();
    world
        .apply(
            r#"
apiVersion: holdfast.dev/v1alpha1
kind: OperationSchedule
metadata: {name: report}
spec:
  schedule: "0 3 * * *"
  operation: {spec: {steps: [{name: report, set: {v: 1}}]}}
"#,
        )
        .await;
    prints(&world, &["schedule", "pause", "report", "--note", "while we migrate"]).await;
    let paused = |schedule: &OperationSchedule| {
        let conditions = schedule.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.reason == "Paused")
    };
    let _: OperationSchedule = world.until_object("report", "paused", paused).await;
    let range = ["--from", "2026-11-01T00:00:00Z", "--to", "2026-11-02T12:00:00Z"];
    prints(&world, &[&["schedule", "backfill", "report"], &range[..]].concat()).await;
    let done = |schedule: &OperationSchedule| {
        let status = schedule.status.as_ref();
        status.is_some_and(|status| status.active.is_empty() && status.backfills.iter().any(|range| range.done))
    };
    let _: OperationSchedule = world.until_object("report", "done with its backfill", done).await;
    contains(
        &prints(&world, &["schedule", "describe", "report"]).await,
        &[
            ": Paused",
            "while we migrate",
            "Backfill: 2026-11-01 00:00:00Z to 2026-11-02 12:00:00Z: 2 started, done",
            &format!("kubectl holdfast schedule resume report -n {}", world.namespace),
        ],
    );
    prints(&world, &["schedule", "resume", "report"]).await;
    let _: OperationSchedule = world.until_object("report", "resumed", |it| !paused(it)).await;
    contains(
        &prints(&world, &["schedule", "describe", "report"]).await,
        &[": Scheduled", "Next: in "],
    );
}

#[tokio::test]
async fn a_plan_shows_what_would_be_done_and_does_nothing() {
    let world = World::new("plugin-plan").await;
    world
        .apply(
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: there}, data: {size: '3'}}\n---\n\
             {apiVersion: v1, kind: ConfigMap, metadata: {name: old}}",
        )
        .await;
    world
        .apply(
            r"
apiVersion: holdfast.dev/v1alpha1
kind: OperationTemplate
metadata: {name: size}
spec:
  inputSchema:
    type: object
    properties:
      size: {type: string, default: '5', maxLength: 3}
  steps:
  - name: now
    kubernetes: {get: {resource: {apiVersion: v1, kind: ConfigMap, name: there}}}
    output: {size: '${result.data.size}'}
  - {name: differs, assert: steps.now.output.size != input.size}
  - {name: never, when: steps.now.output.size == '9', wait: {duration: 1h}}
  - name: change
    kubernetes: {patch: {resource: {apiVersion: v1, kind: ConfigMap, name: there}, patch: {data: {size: '${input.size}'}}}}
  - name: fresh
    kubernetes: {apply: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: 'fresh-${input.size}'}}}}
  - {name: gone, kubernetes: {delete: {resource: {apiVersion: v1, kind: ConfigMap, name: old}}}}
  - name: call
    http: {method: POST, url: 'http://nobody.invalid/', auth: {bearer: {secretKeyRef: {name: shop, key: token}}}}
    output: {id: '${result.body.id}'}
  - name: later
    kubernetes: {apply: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: later}, data: {id: '${steps.call.output.id}'}}}}
  - {name: work, job: {image: 'registry.invalid/x:1'}}
",
        )
        .await;
    let plan = prints(&world, &["plan", "--template", "size"]).await;
    contains(
        &plan,
        &[
            "a plan, nothing was changed",
            r#"input: {"size":"5"}"#,
            "read           get ConfigMap there → {\"size\":\"3\"}",
            "✓ differs  holds",
            "– never    skipped        when steps.now.output.size == '9' is false",
            "~ change   would change   patch ConfigMap there: data.size \"3\" → \"5\"",
            "+ fresh    would create   apply ConfigMap fresh-5",
            "- gone     would delete   delete ConfigMap old",
            "→ call     would call     POST http://nobody.invalid/ (with token of Secret shop)",
            "? later    not known yet  apply ConfigMap later (known after call)",
            "+ work     would create   a Job of registry.invalid/x:1",
        ],
    );
    let same = plugin(
        &world,
        &["plan", "--template", "size", "--input", "size=\"3\"", "-o", "json"],
    )
    .await;
    assert_eq!(same.code, Some(1), "its assert fails: {}", same.out);
    let same: Value = serde_json::from_str(&same.out).unwrap();
    assert_eq!(same["steps"][1]["action"], "Fails");
    assert_eq!(same["steps"][3]["action"], "NotReached");
    let wrong = ["plan", "--template", "size", "--input", "size=10000"];
    let said = plugin(&world, &wrong).await;
    assert_eq!(said.code, Some(1));
    contains(&said.out, &["✗ spec.input.size: 10000 is not of type"]);
    let said = plugin(&world, &[&wrong[..], &["-o", "yaml"]].concat()).await;
    let said: Value = serde_yaml::from_str(&said.out).unwrap();
    assert_eq!(said["invalid"][0]["field"], "spec.input.size");

    // With another's rights it is refused what that one may not do.
    let nobody = format!("system:serviceaccount:{}:default", world.namespace);
    let denied = plugin(&world, &["plan", "--template", "size", "--as", &nobody]).await;
    assert_eq!(denied.code, Some(2), "may not even read the template: {}", denied.out);
    let file = world
        .manifest("alone", "steps: [{name: make, kubernetes: {apply: {manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}}}}]")
        .to_string();
    let denied = plugin_with(&world, &file, &["plan", "-f", "-", "--as", &nobody]).await;
    assert_eq!(denied.code, Some(1), "{}", denied.err);
    contains(&denied.out, &["✗ make  refused  AccessDenied:", &nobody]);

    let left = world
        .prints(&["get", "configmaps,jobs,cloudoperations", "-o", "name"])
        .await;
    contains(&left, &["configmap/there", "configmap/old"]);
    assert!(
        !left.contains("fresh") && !left.contains("job") && !left.contains("cloudoperation"),
        "{left}"
    );
    let there = world
        .prints(&["get", "configmap", "there", "-o", "jsonpath={.data.size}"])
        .await;
    assert_eq!(there, "3");
}

#[tokio::test]
async fn kubectl_completes_names_of_the_cluster() {
    let world = World::new("plugin-complete").await;
    world
        .run("webshop", "steps: [{name: first, set: {}}, {name: ask, approval: {}}]")
        .await;
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("kubectl_complete-holdfast");
    std::os::unix::fs::symlink(built("kubectl-holdfast"), &link).unwrap();
    let link = link.display().to_string();
    for (words, expected) in [
        (&["get", "web"][..], "webshop\n:4\n"),
        (&["reset", "webshop", "--step", ""], "ask\nfirst\n:4\n"),
        (&["approve", "webshop", "--step", ""], "ask\n:4\n"),
        (&["lint", ""], ":0\n"),
    ] {
        let mut all = vec!["-n", &world.namespace];
        all.extend(words);
        // The cluster has two seconds to answer a tab.
        let begun = Instant::now();
        loop {
            let out = run(&link, "", &all).await.out;
            if out == expected {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{words:?}: {out}");
        }
    }
}

#[tokio::test]
async fn tests_of_operations_need_no_cluster() {
    let plugin = built("kubectl-holdfast").display().to_string();
    let samples = holdfast_e2e::kubectl::project("tests/data/test");
    let ran = run(&plugin, "", &["test", &samples, "--kubeconfig", "/none"]).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    contains(&ran.out, &["ok: 5 passed, 0 failed"]);

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.test.yaml").display().to_string();
    let test = "{operation: {spec: {steps: [{name: a, set: {v: 1}}], output: {v: '${steps.a.output.v}'}}}, expect: {output: {v: 2}}}";
    std::fs::write(&file, test).unwrap();
    let ran = run(&plugin, "", &["test", &file]).await;
    assert_eq!(ran.code, Some(1));
    contains(&ran.out, &["FAILED", "output.v: expected 2, is 1", "StepSucceeded   a"]);
    let ran = run(&plugin, "", &["test", &file, "-o", "junit"]).await;
    contains(&ran.out, &["<testsuite name=\"holdfast\" tests=\"1\" failures=\"1\">"]);
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
