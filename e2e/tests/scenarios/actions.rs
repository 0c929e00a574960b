//! What people and programs do to operations with `kubectl create`: each verb, who asked, what came of it.

use holdfast::api::ActionState::{Applied, Rejected};
use holdfast::api::{CloudOperation, HistoryEvent, OperationAction, OperationState, StepState};
use holdfast_e2e::world::{World, message_of, output, step};
use kube::ResourceExt;
use serde_json::json;

/// The history's entries of actions: applied or not, who asked, and the message.
fn told(operation: &CloudOperation) -> Vec<(HistoryEvent, String, String)> {
    let history = operation.status.iter().flat_map(|status| &status.history);
    history
        .filter(|entry| matches!(entry.event, HistoryEvent::ActionApplied | HistoryEvent::ActionRejected))
        .map(|entry| {
            (
                entry.event,
                entry.actor.clone().unwrap_or_default(),
                entry.message.clone().unwrap_or_default(),
            )
        })
        .collect()
}

/// Lets somebody do all that an editor of this namespace may, and waits until the API server knows.
async fn make_editor(world: &World, user: &str) {
    make_editors(world, &format!("--user={user}"), &[&format!("--as={user}")]).await;
}

/// Lets these do all that editors of this namespace may, and waits until the API server knows it of one of them.
async fn make_editors(world: &World, these: &str, one: &[&str]) {
    let name = these.rsplit('=').next().unwrap();
    world
        .prints(&["create", "rolebinding", name, "--clusterrole=holdfast-edit", these])
        .await;
    let started = std::time::Instant::now();
    let may = [&["auth", "can-i", "create", "operationactions.holdfast.dev"], one].concat();
    while !world.kubectl(&may).await.ok {
        assert!(
            started.elapsed() < holdfast_e2e::world::PATIENCE,
            "{these} gets no rights"
        );
    }
}

#[tokio::test]
async fn signals_and_approvals_move_an_operation_on_and_tell_who_gave_them() {
    let world = World::new("actions-words").await;
    let _operator = world.operator();
    make_editor(&world, "alice").await;
    make_editor(&world, "bob").await;
    world
        .run(
            "resize",
            r#"
            steps:
            - {name: review, approval: {message: "resize web?", users: [alice], groups: [sre], excludeRequester: true}}
            - {name: go, signal: {schema: {type: object, required: [size], properties: {size: {type: integer}}}}}
            - {name: call, http: {method: POST, url: INVENTORY/resize, body: {size: "${steps.go.output.size}", by: "${steps.review.output.by}"}}}
            "#,
        )
        .await;
    let asks = world.until_state("resize", OperationState::AwaitingApproval).await;
    assert_eq!(message_of(&asks), "step review: waiting for an approval: resize web?");

    // A signal before its turn counts; one that doesn't conform, or that nobody waits for, is rejected.
    let (state, message) = world
        .asked("resize", "signal: {name: go, payload: {size: large}}")
        .await;
    assert_eq!(state, Rejected);
    assert!(
        message.contains("payload.size doesn't conform to spec.steps[1].signal.schema"),
        "{message}"
    );
    let (state, message) = world.asked("resize", "signal: {name: stop}").await;
    assert_eq!(
        (state, message.as_str()),
        (Rejected, "no step waits for a signal named \"stop\"; there are go")
    );
    let early = world.ask("resize", "signal: {name: go, payload: {size: 7}}").await;
    assert_eq!(world.came_of(&early).await, (Applied, "signal go was received".into()));

    // A word of one who may create the action, but is not named.
    let given = world
        .ask_as(&["--as=bob", "--as-group=dev"], "resize", "approve: {step: review}")
        .await;
    assert!(given.ok, "{}", given.err);
    let (state, message) = world.came_of(given.out.trim().rsplit('/').next().unwrap()).await;
    assert_eq!(
        (state, message.as_str()),
        (Rejected, "bob may not approve step review: alice, sre may")
    );
    // The administrator created it: in the group or not.
    let given = world
        .ask_as(
            &["--as=admin", "--as-group=system:masters", "--as-group=sre"],
            "resize",
            "approve: {step: review}",
        )
        .await;
    let (state, message) = world.came_of(given.out.trim().rsplit('/').next().unwrap()).await;
    assert_eq!(
        (state, message.as_str()),
        (
            Rejected,
            "admin created the operation and may not approve it: excludeRequester"
        )
    );
    let given = world
        .ask_as(
            &["--as=alice", "--as-group=dev"],
            "resize",
            "approve: {step: review, comment: fine, epoch: 0}",
        )
        .await;
    let approved = given.out.trim().rsplit('/').next().unwrap().to_owned();
    assert_eq!(
        world.came_of(&approved).await,
        (Applied, "step review was approved: fine".into())
    );

    let ended = world.ends("resize", OperationState::Succeeded).await;
    assert_eq!(output(&ended, "review"), json!({"by": "alice", "comment": "fine"}));
    assert_eq!(
        world.inventory.effects("/resize")[0].body,
        json!({"size": 7, "by": "alice"})
    );
    let actors: Vec<String> = told(&ended).into_iter().map(|(_, actor, _)| actor).collect();
    let expected = [
        "admin",
        "admin",
        "admin",
        "bob (groups: dev",
        "admin (groups: ",
        "alice (groups: dev",
    ];
    assert_eq!(actors.len(), expected.len(), "{actors:?}");
    for (actor, expected) in actors.iter().zip(expected) {
        assert!(actor.starts_with(expected), "{actors:?}");
    }

    // An action belongs to the operation: it goes with it.
    let action = world.api::<OperationAction>().get(&early).await.unwrap();
    let owner = &action.owner_references()[0];
    assert_eq!(
        (&owner.kind, &owner.uid),
        (&"CloudOperation".to_owned(), &ended.uid().unwrap())
    );
    assert_ne!(owner.controller, Some(true));
    let listed = world.prints(&["get", "opact"]).await;
    assert!(listed.contains("step review was approved: fine"), "{listed}");
    let (state, message) = world.asked("resize", "signal: {name: go, payload: {size: 8}}").await;
    assert_eq!(
        (state, message.as_str()),
        (Rejected, "the operation has ended: Succeeded")
    );
    world.prints(&["delete", "cop", "resize"]).await;
    world.until_gone::<OperationAction>(&early).await;
    world.until_gone::<OperationAction>(&approved).await;
}

#[tokio::test]
async fn whoever_is_in_a_group_that_may_approve_may() {
    let world = World::new("actions-group").await;
    let _operator = world.operator();
    let carol = ["--as=carol", "--as-group=sre"];
    make_editors(&world, "--group=sre", &carol).await;
    world
        .run(
            "asks",
            "steps: [{name: review, approval: {users: [alice], groups: [oncall, sre]}}]",
        )
        .await;
    world.until_state("asks", OperationState::AwaitingApproval).await;
    let alone = world.ask_as(&["--as=carol"], "asks", "approve: {step: review}").await;
    assert!(
        !alone.ok && alone.err.contains("carol"),
        "without her group she may nothing: {}{}",
        alone.out,
        alone.err
    );
    let given = world.ask_as(&carol, "asks", "approve: {step: review}").await;
    assert!(given.ok, "{}", given.err);
    let (state, message) = world.came_of(given.out.trim().rsplit('/').next().unwrap()).await;
    assert_eq!((state, message.as_str()), (Applied, "step review was approved"));
    let ended = world.ends("asks", OperationState::Succeeded).await;
    assert_eq!(output(&ended, "review"), json!({"by": "carol"}));
    assert!(
        told(&ended)[0].1.starts_with("carol (groups: sre"),
        "{:?}",
        told(&ended)
    );
}

#[tokio::test]
async fn what_nobody_says_in_time_is_the_signals_default_or_a_timeout() {
    let world = World::new("actions-late").await;
    let _operator = world.operator();
    let words = [
        ("defaulted", "signal: {name: go, default: {size: 3}}"),
        ("silent", "signal: {name: go}"),
        ("unapproved", "approval: {message: 'may it?'}"),
    ];
    for (name, word) in words {
        let call =
            format!("http: {{method: POST, url: 'INVENTORY/{name}', body: '${{steps.word.?output.orValue(null)}}'}}");
        world
            .run(
                name,
                &format!("steps: [{{name: word, {word}, timeouts: {{scheduleToClose: 1s}}}}, {{name: call, {call}}}]"),
            )
            .await;
    }
    let ended = world.ends("defaulted", OperationState::Succeeded).await;
    assert_eq!(output(&ended, "word"), json!({"size": 3}));
    assert_eq!(world.inventory.requests("/defaulted")[0].body, json!({"size": 3}));
    for name in ["silent", "unapproved"] {
        let ended = world.ends(name, OperationState::Failed).await;
        assert_eq!(step(&ended, "word").state, StepState::TimedOut, "{name}");
        assert_eq!(
            message_of(&ended),
            "step word: TimedOut: timeouts.scheduleToClose passed",
            "{name}"
        );
        assert!(world.inventory.requests(&format!("/{name}")).is_empty());
        let word = step(&ended, "word");
        let took = word.end_time.unwrap().since(word.start_time);
        assert!(took >= std::time::Duration::from_secs(1), "{name}: {took:?}");
    }
    for (name, word) in [
        ("silent", "signal: {name: go}"),
        ("unapproved", "approve: {step: word}"),
    ] {
        let (state, message) = world.asked(name, word).await;
        assert_eq!(
            (state, message.as_str()),
            (Rejected, "the operation has ended: Failed"),
            "{name}: it comes too late"
        );
    }
}

#[tokio::test]
async fn a_rejection_fails_the_step_with_its_words() {
    let world = World::new("actions-reject").await;
    let _operator = world.operator();
    world
        .run(
            "asks",
            "steps: [{name: review, approval: {}}, {name: after, http: {url: INVENTORY/after}}]",
        )
        .await;
    world.until_state("asks", OperationState::AwaitingApproval).await;
    let (state, message) = world
        .asked("asks", "reject: {step: review, comment: not on a Friday}")
        .await;
    assert_eq!(
        (state, message.as_str()),
        (Applied, "step review was rejected: not on a Friday")
    );
    let ended = world.ends("asks", OperationState::Failed).await;
    assert_eq!(
        message_of(&ended),
        "step review: Rejected: admin rejected it: not on a Friday"
    );
    assert!(world.inventory.requests("/").is_empty());
}

#[tokio::test]
async fn a_failed_operation_is_retried_under_a_new_key_and_a_backoff_is_ended_by_hand() {
    let world = World::new("actions-retry").await;
    let _operator = world.operator();
    world
        .run(
            "failed",
            "steps: [{name: first, http: {url: INVENTORY/first}}, {name: call, http: {url: 'INVENTORY/status/422?times=1'}, retry: {nonRetryableErrors: [HttpStatus]}}, {name: after, approval: {}}]",
        )
        .await;
    let failed = world.ends("failed", OperationState::Failed).await;
    let (state, message) = world.asked("failed", "retry: {step: first}").await;
    assert_eq!(
        (state, message.as_str()),
        (
            Rejected,
            "step first didn't end badly: it is Succeeded; reset goes back to it"
        )
    );
    assert_eq!(
        world.asked("failed", "retry: {}").await,
        (Applied, "call runs again, under a new key".into())
    );
    // The service fails the first request of each key.
    let again = world
        .until("failed", "failed again", |operation| {
            let step = step(operation, "call");
            step.epoch == 1 && step.state == StepState::Failed
        })
        .await;
    assert_eq!(step(&failed, "call").epoch, 0);
    assert!(again.status.as_ref().unwrap().completion_time.is_some());
    let keys: Vec<String> = world
        .inventory
        .requests("/status")
        .into_iter()
        .map(|request| request.key)
        .collect();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1], "the outcome was definite");
    // Skipped after its end, the operation goes on.
    let (state, message) = world.asked("failed", "skip: {step: call, output: {size: 3}}").await;
    assert_eq!((state, message.as_str()), (Applied, "step call was skipped"));
    let goes_on = world.until_state("failed", OperationState::AwaitingApproval).await;
    assert_eq!(output(&goes_on, "call"), json!({"size": 3}));
    assert_eq!(world.inventory.requests("/first").len(), 1, "what was done stays done");
    world.ask("failed", "approve: {step: after}").await;
    world.ends("failed", OperationState::Succeeded).await;

    world
        .run(
            "backoff",
            "steps: [{name: call, http: {url: 'INVENTORY/status/503?times=1'}, retry: {initialInterval: 1h}}]",
        )
        .await;
    world.until_state("backoff", OperationState::BackingOff).await;
    let (state, message) = world.asked("backoff", "retryNow: {step: call}").await;
    assert_eq!((state, message.as_str()), (Applied, "step call is tried again now"));
    let ended = world.ends("backoff", OperationState::Succeeded).await;
    assert_eq!((step(&ended, "call").attempt, step(&ended, "call").epoch), (2, 0));
    assert_eq!(told(&ended)[0].1, "admin");
}

/// A call that may not be made twice, whose process was killed: the operation waits for a person.
async fn stuck(world: &World, name: &str) {
    world
        .run(
            name,
            &format!("steps: [{{name: pay, idempotent: false, http: {{method: POST, url: INVENTORY/gate/{name}}}}}, {{name: after, set: {{was: '${{steps.pay.state}}', output: '${{steps.pay.?output.orValue({{}})}}'}}}}]"),
        )
        .await;
}

#[tokio::test]
async fn what_is_stuck_is_completed_failed_skipped_or_retried_by_a_person() {
    let world = World::new("actions-stuck").await;
    let first = world.operator();
    let names = ["completed", "failed", "skipped", "retried"];
    for name in names {
        stuck(&world, name).await;
    }
    for name in names {
        world.until_called(&format!("/gate/{name}")).await;
    }
    first.kill().await;
    let _second = world.operator();
    for name in names {
        world.until_state(name, OperationState::Stuck).await;
        world.inventory.open(name);
    }
    for (name, verb, state, message) in [
        (
            "completed",
            "complete: {step: pay, output: {id: 7}}",
            OperationState::Succeeded,
            "step pay was completed",
        ),
        (
            "failed",
            "fail: {step: pay, message: it never arrived}",
            OperationState::Failed,
            "step pay failed: it never arrived",
        ),
        (
            "skipped",
            "skip: {step: pay}",
            OperationState::Succeeded,
            "step pay was skipped",
        ),
        (
            "retried",
            "retry: {}",
            OperationState::Succeeded,
            "pay runs again, under the same key",
        ),
    ] {
        assert_eq!(world.asked(name, verb).await, (Applied, message.into()), "{name}");
        world.ends(name, state).await;
    }
    let after = async |name: &str| output(&world.operations().get(name).await.unwrap(), "after");
    assert_eq!(
        after("completed").await,
        json!({"was": "Succeeded", "output": {"id": 7}})
    );
    assert_eq!(after("skipped").await, json!({"was": "Skipped", "output": {}}));
    let failed = world.operations().get("failed").await.unwrap();
    assert_eq!(message_of(&failed), "step pay: FailedByHand: it never arrived");
    for name in names {
        let sent = world.inventory.requests(&format!("/gate/{name}"));
        assert_eq!(sent.len(), if name == "retried" { 2 } else { 1 }, "{name}");
        assert!(sent.iter().all(|request| request.key == sent[0].key), "{name}: one key");
    }
}

#[tokio::test]
async fn a_retry_keeps_the_key_of_an_unknown_outcome_unless_it_says_new_key() {
    let world = World::new("actions-new-key").await;
    let _operator = world.operator();
    // Of each key the first request has its effect and no answer.
    world
        .run(
            "pays",
            r#"
            failurePolicy: Compensate
            steps:
            - name: pay
              idempotent: false
              http: {method: POST, url: "INVENTORY/silent?times=1"}
              compensate: {http: {method: DELETE, url: INVENTORY/paid}}
            - {name: check, assert: "false"}
            "#,
        )
        .await;
    world.until_state("pays", OperationState::Stuck).await;
    assert_eq!(
        world.asked("pays", "retry: {step: pay, newKey: true}").await,
        (Applied, "pay runs again, under a new key".into())
    );
    let again = world
        .until("pays", "stuck again", |operation| {
            let pay = step(operation, "pay");
            pay.epoch == 1 && pay.state == StepState::Undecided
        })
        .await;
    assert_eq!(again.status.unwrap().maybe_done_before, ["pay"]);
    assert_eq!(
        world.asked("pays", "retry: {step: pay}").await,
        (Applied, "pay runs again, under the same key".into())
    );
    let ended = world.ends("pays", OperationState::Failed).await;
    let keys: Vec<String> = world
        .inventory
        .requests("/silent")
        .into_iter()
        .map(|request| request.key)
        .collect();
    assert_eq!(keys.len(), 3);
    assert_ne!(keys[0], keys[1], "a new key");
    assert_eq!(keys[1], keys[2], "the same key");
    assert_eq!(
        world.inventory.requests("/paid").len(),
        1,
        "had twice, it is undone once"
    );
    assert!(message_of(&ended).ends_with("; undone: pay"), "{}", message_of(&ended));
}

#[tokio::test]
async fn a_reset_runs_a_step_and_what_followed_again_under_new_keys() {
    let world = World::new("actions-reset").await;
    let _operator = world.operator();
    world
        .run(
            "done",
            r#"
            steps:
            - {name: a, http: {method: POST, url: INVENTORY/a}}
            - {name: b, http: {method: POST, url: INVENTORY/b}}
            - {name: c, http: {method: POST, url: INVENTORY/c}}
            "#,
        )
        .await;
    world.ends("done", OperationState::Succeeded).await;
    let (state, message) = world.asked("done", "reset: {step: nobody}").await;
    assert_eq!((state, message.as_str()), (Rejected, "there is no step \"nobody\""));
    let (state, message) = world.asked("done", "reset: {step: b}").await;
    assert_eq!(
        (state, message.as_str()),
        (Applied, "back to step b: 2 steps run again")
    );
    let again = world
        .until("done", "done again", |operation| {
            let status = operation.status.as_ref();
            status.is_some_and(|status| status.epoch == 1 && status.state == Some(OperationState::Succeeded))
        })
        .await;
    assert_eq!((step(&again, "a").epoch, step(&again, "c").epoch), (0, 1));
    for (path, effects) in [("/a", 1), ("/b", 2), ("/c", 2)] {
        assert_eq!(world.inventory.effects(path).len(), effects, "{path}");
    }
}

#[tokio::test]
async fn an_action_for_an_operation_that_is_not_there_is_rejected() {
    let world = World::new("actions-missing").await;
    let _operator = world.operator();
    let (state, message) = world.asked("nobody", "retry: {}").await;
    assert_eq!(
        (state, message),
        (
            Rejected,
            format!("there is no CloudOperation nobody in namespace {}", world.namespace)
        )
    );
    // One that was meant for an earlier operation of that name.
    let (state, message) = {
        world.run("there", "steps: [{name: review, approval: {}}]").await;
        world.until_state("there", OperationState::AwaitingApproval).await;
        world
            .asked("there", "{operationRef: {uid: other}, approve: {step: review}}")
            .await
    };
    assert_eq!(
        (state, message.as_str()),
        (Rejected, "it is about another operation of this name")
    );
}

#[tokio::test]
async fn what_is_asked_while_no_operator_runs_is_done_in_order_by_the_next_one() {
    let world = World::new("actions-down").await;
    let first = world.operator();
    world
        .run(
            "waits",
            "steps: [{name: one, signal: {name: go}}, {name: two, signal: {name: go}}, {name: call, http: {method: POST, url: INVENTORY/call}}]",
        )
        .await;
    world.until_state("waits", OperationState::Waiting).await;
    first.kill().await;
    let mut actions = vec![];
    for n in 1..=2 {
        let action = world
            .ask("waits", &format!("signal: {{name: go, payload: {{n: {n}}}}}"))
            .await;
        // Their order is that of their creation, which has whole seconds.
        let created = world.api::<OperationAction>().get(&action).await.unwrap();
        let created = created.creation_timestamp().unwrap().0.as_second();
        while k8s_openapi::jiff::Timestamp::now().as_second() <= created {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        actions.push(action);
    }
    let _second = world.operator();
    let ended = world.ends("waits", OperationState::Succeeded).await;
    assert_eq!(output(&ended, "one"), json!({"n": 1}));
    assert_eq!(output(&ended, "two"), json!({"n": 2}));
    for action in &actions {
        assert_eq!(world.came_of(action).await.0, Applied);
    }
    assert_eq!(world.inventory.requests("/call").len(), 1);
    assert_eq!(told(&ended).len(), 2, "each is decided once");
}
