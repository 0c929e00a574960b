//! Undoing, going on, and what runs at the end.

use super::*;
use crate::api::{ActionState::Rejected, CancelMode};

const SAGA: &str = "
failurePolicy: Compensate
steps:
- {name: a, http: {url: 'http://a'}, output: {id: '${result.id}'}, compensate: {http: {method: DELETE, url: 'http://a/${steps.a.output.id}'}}}
- {name: b, http: {url: 'http://b'}}
- {name: c, http: {url: 'http://c'}, compensate: {http: {method: DELETE, url: 'http://c'}}}
- {name: d, http: {url: 'http://d'}}
";

fn failed_at_d() -> Case {
    let mut case = case(SAGA);
    case.visit()
        .succeed("a", json!({"id": "x"}))
        .succeed("b", nothing())
        .succeed("c", nothing())
        .fail("d", refused());
    case
}

#[test]
fn what_was_done_is_undone_the_last_first() {
    let mut case = failed_at_d();
    case.assert_state(Compensating)
        .assert_step("c:undo", StepState::Running, 1);
    assert!(case.status.steps.iter().all(|step| step.name != "a:undo"));
    case.succeed("c:undo", nothing())
        .assert_step("a:undo", StepState::Running, 1);
    case.succeed("a:undo", nothing()).assert_state(Failed);
    assert_eq!(
        case.message(),
        "step d: HttpStatus: 422: the group is frozen; undone: c, a"
    );
    let (state, message) = case.asks(json!({"retry": {}}));
    assert_eq!(state, Rejected);
    assert!(message.contains("was undone"), "{message}");
}

#[test]
fn an_undo_is_retried_and_survives_a_crash() {
    let mut case = failed_at_d();
    case.fail("c:undo", busy())
        .assert_state(Compensating)
        .assert_step("c:undo", StepState::BackingOff, 1);
    case.later(10 * SECOND).assert_step("c:undo", StepState::Running, 2);
    case.crash().visit().assert_step("c:undo", StepState::Running, 3);
    case.succeed("c:undo", nothing())
        .succeed("a:undo", nothing())
        .assert_state(Failed);
}

#[test]
fn an_undo_that_fails_for_good_waits_for_a_person() {
    let mut case = failed_at_d();
    case.fail("c:undo", refused()).assert_state(Stuck);
    assert!(
        case.message().contains("step c:undo needs a person"),
        "{}",
        case.message()
    );
    case.later(72 * 3600 * SECOND).assert_state(Stuck);
    case.asks(json!({"retry": {"step": "c:undo"}}));
    case.assert_step("c:undo", StepState::Running, 1);
    case.fail("c:undo", refused()).asks(json!({"skip": {"step": "c:undo"}}));
    case.assert_step("a:undo", StepState::Running, 1);
    case.succeed("a:undo", nothing()).assert_state(Failed);
}

#[test]
fn an_attempt_of_unknown_outcome_is_finished_before_it_is_undone() {
    let mut case = case(SAGA);
    case.visit().succeed("a", json!({"id": "x"})).succeed("b", nothing());
    case.fail("c", no_answer()).assert_step("c", StepState::BackingOff, 1);
    case.spec.cancel = Some(Cancel {
        mode: Some(CancelMode::Compensate),
        reason: None,
    });
    case.visit().assert_step("c", StepState::BackingOff, 1);
    case.later(10 * SECOND).assert_step("c", StepState::Running, 2);
    case.crash().visit().assert_step("c", StepState::Running, 3);
    case.succeed("c", nothing())
        .assert_step("c:undo", StepState::Running, 1);
    case.succeed("c:undo", nothing())
        .succeed("a:undo", nothing())
        .assert_state(Cancelled);
}

#[test]
fn a_step_that_may_have_been_done_is_undone() {
    let mut case = case(SAGA);
    case.spec.steps[2].retry = serde_json::from_value(json!({"maximumAttempts": 1})).unwrap();
    case.visit()
        .succeed("a", json!({"id": "x"}))
        .succeed("b", nothing())
        .fail("c", no_answer());
    case.assert_step("c", StepState::Failed, 1)
        .assert_step("c:undo", StepState::Running, 1);
}

#[test]
fn a_cancel_undoes_only_if_it_says_so_and_stops_an_undo_if_not() {
    let mut case = case(SAGA);
    case.visit().succeed("a", json!({"id": "x"}));
    case.spec.cancel = Some(Cancel::default());
    case.visit().assert_state(Cancelled);
    let mut undoing = failed_at_d();
    undoing.spec.cancel = Some(Cancel::default());
    undoing
        .visit()
        .assert_state(Failed)
        .assert_step("c:undo", StepState::Cancelled, 1);
}

#[test]
fn a_failure_pauses_the_operation_until_a_person_decides() {
    let mut case = case(THREE_CALLS);
    case.spec.failure_policy = Some(crate::api::FailurePolicy::Pause);
    case.visit()
        .succeed("describe", json!({"size": 1}))
        .fail("resize", refused())
        .assert_state(Stuck);
    case.later(100 * 3600 * SECOND).assert_state(Stuck);
    case.asks(json!({"retry": {}}));
    case.assert_step("resize", StepState::Running, 1);
    case.fail("resize", refused()).asks(json!({"fail": {"step": "resize"}}));
    case.assert_state(Failed);
}

#[test]
fn what_is_said_to_go_on_goes_on_and_tells_what_follows() {
    let spec = "
steps:
- {name: try, http: {url: 'http://x'}, onFailure: Continue}
- {name: after, set: {state: '${steps.try.state}', why: '${steps.try.failure.reason}'}}
";
    let mut case = case(spec);
    case.visit().fail("try", refused()).assert_state(Succeeded);
    assert_eq!(
        case.step("after").output,
        json!({"state": "Failed", "why": "HttpStatus"}).as_object().cloned()
    );
    assert_eq!(case.status.progress.as_deref(), Some("2/2"));
}

const FINALLY: &str = "
timeout: 1h
steps:
- {name: a, http: {url: 'http://a'}}
- {name: b, wait: {duration: 10h}}
finally:
- {name: tell, http: {url: 'http://chat/${operation.state}/${steps.b.state}'}}
- {name: tidy, http: {url: 'http://tidy'}, when: steps.a.state == 'Succeeded'}
";

#[test]
fn what_is_at_the_end_runs_whatever_happened() {
    let rendered = |case: &Case| {
        let workflow = Workflow::compile(&case.spec).unwrap();
        let flow = workflow.step("tell").unwrap();
        let scope = scope(&workflow, flow, "tell", &case.identity, &case.spec, &case.status).unwrap();
        let key = IdempotencyKey::new("u1", "tell", 0);
        request(flow, &scope, &key).unwrap().value["url"].clone()
    };
    let mut failed = case(FINALLY);
    failed
        .visit()
        .fail("a", refused())
        .assert_step("tell", StepState::Running, 1);
    assert_eq!(rendered(&failed), "http://chat/Failed/NotStarted");
    failed
        .succeed("tell", nothing())
        .assert_step("tidy", StepState::Skipped, 0)
        .assert_state(Failed);

    let mut timed_out = case(FINALLY);
    timed_out
        .visit()
        .succeed("a", nothing())
        .later(3600 * SECOND)
        .assert_step("b", StepState::Cancelled, 0);
    assert_eq!(rendered(&timed_out), "http://chat/TimedOut/Cancelled");
    timed_out
        .fail("tell", busy())
        .later(10 * SECOND)
        .assert_step("tell", StepState::Running, 2);
    timed_out
        .crash()
        .visit()
        .succeed("tell", nothing())
        .succeed("tidy", nothing())
        .assert_state(TimedOut);

    let mut cancelled = case(FINALLY);
    cancelled.visit();
    cancelled.spec.cancel = Some(Cancel::default());
    cancelled.visit().succeed("tell", nothing()).assert_state(Cancelled);

    let mut succeeded = case(FINALLY);
    succeeded.spec.timeout = None;
    succeeded.visit().succeed("a", nothing()).later(36000 * SECOND);
    assert_eq!(rendered(&succeeded), "http://chat/Succeeded/Succeeded");
    succeeded
        .succeed("tell", nothing())
        .succeed("tidy", nothing())
        .assert_state(Succeeded);
}

#[test]
fn a_failure_at_the_end_fails_the_operation_and_the_rest_of_the_end_runs() {
    let mut case = case(FINALLY);
    case.spec.timeout = None;
    case.spec.failure_policy = Some(crate::api::FailurePolicy::Compensate);
    case.visit()
        .succeed("a", nothing())
        .later(36000 * SECOND)
        .fail("tell", refused());
    case.assert_step("tidy", StepState::Running, 1);
    case.succeed("tidy", nothing()).assert_state(Failed);
    assert!(case.message().starts_with("step tell: "), "{}", case.message());
}

#[test]
fn a_retried_operation_runs_its_end_again() {
    let mut case = case(FINALLY);
    case.visit()
        .fail("a", refused())
        .succeed("tell", nothing())
        .assert_state(Failed);
    case.asks(json!({"retry": {}}));
    case.assert_step("a", StepState::Running, 1);
    assert!(case.status.steps.iter().all(|step| step.name != "tell"));
}

#[test]
fn specs_of_undo_and_end_are_checked_too() {
    for (spec, field, word) in [
        (
            "steps: [{name: a, http: {url: x}, compensate: {http: {url: '${steps.b.state}'}}}, {name: b, set: {}}]",
            "spec.steps[0].compensate",
            "b",
        ),
        (
            "steps: [{name: a, set: {x: '${steps.z.state}'}}]\nfinally: [{name: z, set: {}}]",
            "spec.steps[0]",
            "spec.finally",
        ),
        (
            "steps: [{name: a, set: {}}]\nfinally: [{name: a, set: {}}]",
            "spec.finally[0].name",
            "exists already",
        ),
        (
            "steps: [{name: a, set: {}}]\nfinally: [{name: y, set: {x: '${steps.z.state}'}}, {name: z, set: {}}]",
            "spec.finally[0]",
            "comes later",
        ),
    ] {
        let error = Workflow::compile(&serde_yaml::from_str(spec).unwrap()).unwrap_err();
        assert_eq!(error.field, field);
        assert!(error.message.contains(word), "{error}");
    }
}

#[test]
fn the_items_of_a_list_that_were_done_are_undone_one_after_the_other_the_last_first() {
    let mut case = case(
        "
failurePolicy: Compensate
steps:
- name: deploy
  forEach: '[10, 20, 30, 40]'
  maxParallel: 2
  http: {url: 'http://x/${string(item)}'}
  output: {id: '${result.id}'}
  compensate: {http: {method: DELETE, url: 'http://x/${string(item)}/${steps.deploy.output.items[index].id}'}}
",
    );
    case.visit()
        .succeed("deploy[0]", json!({"id": "a"}))
        .succeed("deploy[1]", json!({"id": "b"}));
    case.fail("deploy[2]", refused())
        .succeed("deploy[3]", json!({"id": "d"}));
    case.assert_state(Compensating)
        .assert_step("deploy:undo[3]", StepState::Running, 1);
    let url = |case: &Case, name: &str| {
        let workflow = Workflow::compile(&case.spec).unwrap();
        let flow = workflow.step(name).unwrap();
        let scope = scope(&workflow, flow, name, &case.identity, &case.spec, &case.status).unwrap();
        request(flow, &scope, &IdempotencyKey::new("u1", name, 0))
            .unwrap()
            .value["url"]
            .clone()
    };
    assert_eq!(url(&case, "deploy:undo[3]"), "http://x/40/d");
    case.succeed("deploy:undo[3]", nothing());
    assert_eq!(url(&case, "deploy:undo[1]"), "http://x/20/b");
    case.fail("deploy:undo[1]", refused()).assert_state(Stuck);
    case.asks(json!({"retry": {}}));
    case.assert_step("deploy:undo[1]", StepState::Running, 1);
    case.succeed("deploy:undo[1]", nothing())
        .succeed("deploy:undo[0]", nothing())
        .assert_state(Failed);
    assert!(case.message().ends_with("; undone: deploy"), "{}", case.message());
}

#[test]
fn the_operations_timeout_does_not_undo_what_is_done_while_its_end_runs() {
    let mut case = case(
        "
timeout: 1h
failurePolicy: Compensate
steps: [{name: a, http: {url: 'http://a'}, compensate: {http: {url: 'http://undo'}}}]
finally: [{name: tell, http: {url: 'http://tell'}, retry: {initialInterval: 50m}}]
",
    );
    case.visit()
        .succeed("a", nothing())
        .fail("tell", busy())
        .later(90 * 60 * SECOND);
    case.succeed("tell", nothing()).assert_state(Succeeded);
}

#[test]
fn an_item_that_a_person_skipped_is_not_undone() {
    let mut case = case(
        "
failurePolicy: Compensate
steps:
- name: deploy
  forEach: '[10, 20, 30]'
  maxFailures: 1
  http: {url: 'http://x/${string(item)}'}
  compensate: {http: {method: DELETE, url: 'http://x/${string(item)}'}}
- {name: check, http: {url: 'http://x'}}
",
    );
    case.visit().fail("deploy[1]", refused());
    assert_eq!(
        case.asks(json!({"skip": {"step": "deploy[1]", "output": {"n": 2}}})).0,
        crate::api::ActionState::Applied
    );
    case.succeed("deploy[0]", nothing()).succeed("deploy[2]", nothing());
    let output = case.step("deploy").output.clone().unwrap();
    assert_eq!(output["items"][1], json!({"n": 2}));
    case.fail("check", refused()).assert_state(Compensating);
    case.succeed("deploy:undo[2]", nothing())
        .succeed("deploy:undo[0]", nothing())
        .assert_state(Failed);
}

#[test]
fn a_job_or_an_operation_that_ran_and_failed_is_undone_and_one_that_was_never_created_is_not() {
    let failed = || AttemptFailure::retryable("JobFailed", "exit code 3");
    for what in ["job: {image: x}", "operation: {templateRef: {name: x}}"] {
        for (around, path, undo) in [
            ("{STEP, UNDO}", "m", "m:undo"),
            ("{STEP, UNDO, forEach: '[1]'}", "m[0]", "m:undo[0]"),
            ("{name: g, steps: [{STEP, UNDO}]}", "g/m", "g/m:undo"),
            (
                "{name: g, forEach: '[1]', UNDO, steps: [{STEP}]}",
                "g[0]/m",
                "g:undo[0]",
            ),
        ] {
            let spec = |most: i64| {
                let step = format!("name: m, retry: {{maximumAttempts: {most}}}, {what}");
                let steps = around.replace("STEP", &step);
                let steps = steps.replace("UNDO", "compensate: {http: {url: 'http://undo'}}");
                format!(
                    "{{failurePolicy: Compensate, order: Graph, steps: [{steps}, {{name: other, http: {{url: 'http://x'}}}}]}}"
                )
            };
            // For good.
            let mut last = case(&spec(1));
            last.visit().accept(path).succeed("other", nothing());
            last.fail(path, failed()).assert_state(Compensating);
            last.succeed(undo, nothing()).assert_state(Failed);
            // At first, and then it could not be created again.
            let mut refused_then = case(&spec(2));
            refused_then.visit().accept(path).succeed("other", nothing());
            refused_then.fail(path, failed()).later(10 * SECOND);
            refused_then.fail(path, refused()).assert_state(Compensating);
            refused_then.succeed(undo, nothing()).assert_state(Failed);
            // It would have been tried again, but another step failed: nothing is tried again for that.
            let mut ended = case(&spec(9));
            ended.visit().accept(path).fail(path, failed());
            ended
                .fail("other", refused())
                .assert_step(path, StepState::Cancelled, 1);
            ended.succeed(undo, nothing()).assert_state(Failed);
            // Never created.
            let mut never = case(&spec(1));
            never.visit().succeed("other", nothing()).fail(path, busy());
            never.assert_state(Failed);
            assert!(!never.events().iter().any(|event| event.contains(":undo")));
        }
    }
}

#[test]
fn a_job_that_a_person_skipped_after_it_ran_is_undone() {
    let mut case = case(
        "
failurePolicy: Compensate
steps:
- {name: l, forEach: '[1, 2]', maxParallel: 1, maxFailures: 1, job: {image: x}, retry: {maximumAttempts: 1}, compensate: {http: {url: 'http://undo'}}}
- {name: check, http: {url: 'http://x'}}
",
    );
    case.visit()
        .accept("l[0]")
        .fail("l[0]", AttemptFailure::retryable("JobFailed", "exit code 3"));
    case.asks(json!({"skip": {"step": "l[0]"}}));
    case.fail("l[1]", refused()).fail("check", refused());
    case.assert_step("l:undo[0]", StepState::Running, 1);
    case.succeed("l:undo[0]", nothing()).assert_state(Failed);
}

#[test]
fn what_may_have_been_done_under_an_earlier_key_is_undone() {
    let call = "name: m, idempotent: false, http: {method: POST, url: 'http://x'}";
    let undo = "compensate: {http: {url: 'http://undo'}}";
    for (step, path, undone) in [
        (format!("{{{call}, {undo}}}"), "m", "m:undo"),
        (format!("{{{call}, {undo}, forEach: '[1]'}}"), "m[0]", "m:undo[0]"),
        (format!("{{name: g, steps: [{{{call}, {undo}}}]}}"), "g/m", "g/m:undo"),
        (
            format!("{{name: g, forEach: '[1]', {undo}, steps: [{{{call}}}]}}"),
            "g[0]/m",
            "g:undo[0]",
        ),
    ] {
        let again = || {
            let mut case = case(&format!(
                "{{failurePolicy: Compensate, steps: [{step}, {{name: check, http: {{url: 'http://y'}}}}]}}"
            ));
            case.visit().fail(path, no_answer()).assert_state(Stuck);
            case
        };
        let new_key = json!({"retry": {"step": path, "newKey": true}});

        let mut refused_then = again();
        refused_then.asks(new_key.clone());
        refused_then.assert_step(path, StepState::Running, 1);
        assert!(!refused_then.step(path).maybe_done, "of the new key nothing is unknown");
        assert_eq!(refused_then.status.maybe_done_before, [path]);
        refused_then.fail(path, refused()).assert_state(Compensating);
        refused_then.succeed(undone, nothing()).assert_state(Failed);

        // Once it has succeeded, it is undone for that.
        let mut succeeded = again();
        succeeded.asks(new_key.clone());
        succeeded.succeed(path, nothing());
        assert!(succeeded.status.maybe_done_before.is_empty());
        succeeded
            .fail("check", refused())
            .succeed(undone, nothing())
            .assert_state(Failed);

        // It could not even begin again.
        let mut held = again();
        held.spec.suspend = Some(true);
        held.asks(new_key);
        assert!(held.status.steps.iter().all(|entry| entry.name != path));
        held.spec.cancel = Some(Cancel {
            mode: Some(CancelMode::Compensate),
            reason: None,
        });
        held.spec.suspend = None;
        held.visit().succeed(undone, nothing()).assert_state(Cancelled);
    }
}

#[test]
fn a_job_that_failed_and_could_not_be_created_again_under_a_new_key_is_undone() {
    let mut case = case(
        "steps: [{name: m, job: {image: x}, retry: {maximumAttempts: 1}, compensate: {http: {url: 'http://undo'}}}]",
    );
    case.visit()
        .accept("m")
        .fail("m", AttemptFailure::retryable("JobFailed", "exit code 3"))
        .assert_state(Failed);
    assert_eq!(case.asks(json!({"retry": {}})).1, "m runs again, under a new key");
    case.spec.cancel = Some(Cancel {
        mode: Some(CancelMode::Compensate),
        reason: None,
    });
    case.visit().fail("m", refused());
    case.assert_step("m:undo", StepState::Running, 1);
}

#[test]
fn a_reset_says_what_it_leaves_as_it_is() {
    let mut case = case(&SAGA.replace("failurePolicy: Compensate", ""));
    case.visit()
        .succeed("a", json!({"id": "x"}))
        .succeed("b", nothing())
        .succeed("c", nothing())
        .fail("d", refused());
    let (state, message) = case.asks(json!({"reset": {"step": "b"}}));
    assert_eq!(
        (state, &*message),
        (
            crate::api::ActionState::Applied,
            "back to step b: 3 steps run again; what was done of c until now stays, and no later failure undoes it"
        )
    );
    case.spec.cancel = Some(Cancel {
        mode: Some(CancelMode::Compensate),
        reason: None,
    });
    case.visit().succeed("a:undo", nothing()).assert_state(Cancelled);
    assert!(!case.events().iter().any(|event| event.contains("c:undo")));
}

#[test]
fn a_cancel_undoes_nothing_once_the_end_runs() {
    let spec = SAGA.replace(
        "failurePolicy: Compensate",
        "finally: [{name: unlock, http: {url: 'http://e'}}]",
    );
    let mut case = case(&spec);
    case.visit().succeed("a", json!({"id": "x"})).fail("b", refused());
    case.assert_step("unlock", StepState::Running, 1);
    case.spec.cancel = Some(Cancel {
        mode: Some(CancelMode::Compensate),
        reason: None,
    });
    case.visit().succeed("unlock", nothing());
    assert!(case.status.steps.iter().all(|step| step.name != "a:undo"));
    case.assert_state(Failed);
}

#[test]
fn an_undo_in_a_group_is_retried_without_what_the_group_has_ended() {
    let mut case = case(
        "
failurePolicy: Compensate
order: Graph
steps:
- name: release
  steps:
  - {name: create, http: {url: 'http://c'}, compensate: {http: {method: DELETE, url: 'http://c'}}}
  - {name: attach, http: {url: 'http://a'}}
- {name: check, http: {url: 'http://x'}}
",
    );
    case.visit().succeed("release/create", nothing());
    case.fail("release/attach", no_answer()).fail("check", refused());
    case.assert_step("release/attach", StepState::Cancelled, 1)
        .assert_step("release", StepState::Cancelled, 0)
        .assert_step("release/create:undo", StepState::Running, 1);
    case.fail("release/create:undo", refused()).assert_state(Stuck);
    case.asks(json!({"retry": {"step": "release/create:undo"}}));
    case.assert_step("release/create:undo", StepState::Running, 1)
        .assert_step("release/attach", StepState::Cancelled, 1)
        .assert_step("release", StepState::Cancelled, 0);
    case.succeed("release/create:undo", nothing()).assert_state(Failed);
}
