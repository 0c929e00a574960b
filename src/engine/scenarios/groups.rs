//! Groups: steps in a step, that run as one.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::api::ActionState;

const RELEASE: &str = "
steps:
- name: release
  output: {url: '${steps.deploy.output.url}'}
  steps:
  - {name: deploy, http: {method: POST, url: 'http://deploy'}, output: {url: '${result.body.url}'}}
  - {name: verify, http: {url: '${steps.deploy.output.url}'}}
- {name: tell, http: {url: 'http://chat/${steps.release.output.url}/${steps.deploy.state}'}}
";

#[test]
fn its_steps_run_one_after_the_other_and_then_what_follows() {
    let mut case = case(RELEASE);
    case.visit();
    case.assert_step("release", StepState::Waiting, 0);
    case.assert_step("release/deploy", StepState::Running, 1);
    assert_eq!(case.status.steps.len(), 2);
    case.succeed("release/deploy", json!({"url": "http://web"}));
    assert_eq!(case.writes, 2, "a result and the intent that follows are one write");
    case.assert_step("release/verify", StepState::Running, 1);
    assert_eq!(case.step("release").message.as_deref(), Some("1 of 2 steps are done"));
    case.succeed("release/verify", nothing());
    case.assert_step("release", StepState::Succeeded, 0);
    assert_eq!(
        case.step("release").output,
        json!({"url": "http://web"}).as_object().cloned()
    );
    case.assert_step("tell", StepState::Running, 1);
    case.succeed("tell", nothing());
    case.assert_state(Succeeded);
    assert_eq!((case.writes, case.status.progress.as_deref()), (4, Some("2/2")));
}

#[test]
fn each_step_of_it_has_a_key_of_its_own() {
    let case = case(RELEASE);
    let key = |name: &str| IdempotencyKey::new(&case.identity.uid, name, 0).to_string();
    assert_ne!(key("release/deploy"), key("release[0]/deploy"));
}

#[test]
fn its_when_is_about_all_of_them() {
    let mut case = case(
        "
input: {go: false}
steps:
- name: release
  when: input.go
  steps: [{name: deploy, http: {url: 'http://deploy'}}, {name: verify, http: {url: 'http://web'}}]
- {name: tell, set: {deployed: '${has(steps.deploy.output)}'}}
",
    );
    case.visit().assert_state(Succeeded);
    case.assert_step("release", StepState::Skipped, 0);
    assert_eq!(
        case.step("tell").output,
        json!({"deployed": false}).as_object().cloned()
    );
}

#[test]
fn in_a_graph_they_run_at_once_and_a_failure_ends_what_only_waits() {
    let mut case = case(
        "
steps:
- name: release
  order: Graph
  steps:
  - {name: east, http: {url: 'http://east'}}
  - {name: west, http: {url: 'http://west'}}
  - {name: nap, wait: {duration: 1h}}
- {name: tell, http: {url: 'http://chat'}}
",
    );
    case.visit();
    case.assert_step("release/west", StepState::Running, 1);
    case.fail("release/east", refused());
    case.assert_step("release/nap", StepState::Cancelled, 0);
    case.assert_step("release", StepState::Waiting, 0);
    assert_eq!(case.status.failure, None, "the group hasn't ended yet");
    case.succeed("release/west", nothing());
    case.assert_step("release", StepState::Failed, 0).assert_state(Failed);
    let failure = case.status.failure.clone().unwrap();
    assert_eq!(failure.step.as_deref(), Some("release"));
    assert_eq!(failure.message, "step release/east: 422: the group is frozen");
    assert!(case.status.steps.iter().all(|step| step.name != "tell"));
}

#[test]
fn a_group_that_failed_is_retried_from_where_it_failed() {
    let mut case = case(RELEASE);
    case.visit()
        .succeed("release/deploy", json!({"url": "http://web"}))
        .fail("release/verify", refused());
    case.assert_state(Failed);
    for what in [
        json!({"retry": {}}),
        json!({"retry": {"step": "release"}}),
        json!({"retry": {"step": "release/verify"}}),
    ] {
        assert_eq!(
            case.asks(what.clone()).0,
            ActionState::Applied,
            "{what}: {:?}",
            case.came_of_it()
        );
        case.assert_step("release", StepState::Waiting, 0);
        case.assert_step("release/deploy", StepState::Succeeded, 1);
        case.assert_step("release/verify", StepState::Running, 1);
        case.fail("release/verify", refused());
        case.assert_state(Failed);
    }
    assert_eq!(
        case.asks(json!({"skip": {"step": "release/verify"}})).0,
        ActionState::Applied
    );
    case.assert_step("release", StepState::Succeeded, 0);
    case.succeed("tell", nothing());
    case.assert_state(Succeeded);
}

#[test]
fn a_group_goes_on_where_it_says_so() {
    let mut case = case(
        "
steps:
- name: release
  onFailure: Continue
  steps: [{name: deploy, http: {url: 'http://deploy'}}, {name: verify, http: {url: 'http://web'}}]
- {name: tell, set: {how: '${steps.release.state}', why: '${steps.release.failure.reason}'}}
",
    );
    case.visit().fail("release/deploy", refused()).assert_state(Succeeded);
    case.assert_step("release", StepState::Failed, 0);
    assert_eq!(
        case.step("tell").output,
        json!({"how": "Failed", "why": "HttpStatus"}).as_object().cloned()
    );
}

#[test]
fn paused_it_waits_for_a_person_at_the_step() {
    let mut case = case(&format!("failurePolicy: Pause\n{}", RELEASE.trim_start()));
    case.visit().fail("release/deploy", refused()).assert_state(Stuck);
    case.assert_step("release/deploy", StepState::Undecided, 1);
    assert_eq!(
        case.asks(json!({"retry": {"step": "release/deploy"}})).0,
        ActionState::Applied
    );
    case.assert_step("release/deploy", StepState::Running, 1);
}

#[test]
fn a_timeout_of_the_group_ends_its_steps_and_a_retry_starts_it_anew() {
    let mut case = case(
        "
steps:
- name: release
  timeouts: {scheduleToClose: 10m}
  steps: [{name: nap, wait: {duration: 1h}}, {name: verify, http: {url: 'http://web'}}]
",
    );
    case.visit().later(Duration::from_secs(600)).assert_state(Failed);
    case.assert_step("release", StepState::TimedOut, 0)
        .assert_step("release/nap", StepState::Cancelled, 0);
    assert_eq!(case.asks(json!({"retry": {}})).0, ActionState::Applied);
    case.assert_step("release", StepState::Waiting, 0)
        .assert_step("release/nap", StepState::Waiting, 0);
    assert!(case.step("release").deadline.is_some_and(|at| at > case.now));
}

#[test]
fn a_cancel_ends_all_of_it() {
    let mut case = case(RELEASE);
    case.visit();
    case.spec.cancel = Some(crate::api::Cancel::default());
    case.visit().assert_state(Cancelled);
    case.assert_step("release", StepState::Cancelled, 0)
        .assert_step("release/deploy", StepState::Cancelled, 1);
}

#[test]
fn reset_goes_back_to_a_step_of_it() {
    let mut case = case(RELEASE);
    case.visit()
        .succeed("release/deploy", json!({"url": "http://web"}))
        .succeed("release/verify", nothing());
    case.succeed("tell", nothing()).assert_state(Succeeded);
    assert_eq!(
        case.asks(json!({"reset": {"step": "release/verify"}})).0,
        ActionState::Applied
    );
    case.assert_step("release/deploy", StepState::Succeeded, 1);
    case.assert_step("release/verify", StepState::Running, 1);
    assert_eq!(case.step("release/verify").epoch, 1);
    case.succeed("release/verify", nothing())
        .succeed("tell", nothing())
        .assert_state(Succeeded);
    assert_eq!(case.asks(json!({"reset": {"step": "release"}})).0, ActionState::Applied);
    case.assert_step("release/deploy", StepState::Running, 1);
    assert!(
        case.status
            .steps
            .iter()
            .all(|step| step.name != "release/verify" && step.name != "tell")
    );
}

#[test]
fn what_it_did_is_undone_step_by_step() {
    let mut case = case(
        "
failurePolicy: Compensate
steps:
- name: release
  steps:
  - {name: create, http: {url: 'http://a'}, output: {id: '${result.id}'}, compensate: {http: {url: 'http://a/${steps.create.output.id}'}}}
  - {name: attach, http: {url: 'http://b'}, compensate: {http: {url: 'http://b/${steps.create.output.id}'}}}
- {name: check, http: {url: 'http://c'}}
",
    );
    case.visit()
        .succeed("release/create", json!({"id": "7"}))
        .succeed("release/attach", nothing());
    case.fail("check", refused()).assert_state(Compensating);
    case.assert_step("release/attach:undo", StepState::Running, 1);
    assert!(case.status.steps.iter().all(|step| step.name != "release/create:undo"));
    case.succeed("release/attach:undo", nothing())
        .succeed("release/create:undo", nothing());
    case.assert_state(Failed);
    assert!(
        case.message().ends_with("undone: release/create, release/attach") || case.message().contains("undone: "),
        "{}",
        case.message()
    );
}

const REGIONS: &str = "
failurePolicy: Compensate
input: {regions: [east, west, north]}
steps:
- name: regions
  forEach: input.regions
  maxParallel: 2
  output: {url: '${steps.deploy.output.url}', of: '${item}'}
  compensate: {http: {method: DELETE, url: 'http://deploy/${item}'}}
  steps:
  - {name: deploy, http: {method: POST, url: 'http://deploy/${item}'}, output: {url: '${result.url}'}}
  - {name: verify, http: {url: '${steps.deploy.output.url}/${index}'}}
- {name: tell, set: {urls: '${steps.regions.output.items.map(i, i.url)}'}}
";

#[test]
fn for_each_item_its_steps_run_in_turn() {
    let mut case = case(REGIONS);
    case.visit();
    case.assert_step("regions[0]/deploy", StepState::Running, 1)
        .assert_step("regions[1]/deploy", StepState::Running, 1);
    case.succeed("regions[1]/deploy", json!({"url": "w"}));
    case.assert_step("regions[1]/verify", StepState::Running, 1);
    case.succeed("regions[1]/verify", nothing());
    assert!(
        case.status
            .steps
            .iter()
            .all(|step| !step.name.starts_with("regions[1]")),
        "what is done is folded"
    );
    case.assert_step("regions[2]/deploy", StepState::Running, 1);
    for (step, url) in [("regions[0]", "e"), ("regions[2]", "n")] {
        case.succeed(&format!("{step}/deploy"), json!({"url": url}))
            .succeed(&format!("{step}/verify"), nothing());
    }
    case.assert_state(Succeeded);
    assert_eq!(
        case.step("tell").output,
        json!({"urls": ["e", "w", "n"]}).as_object().cloned()
    );
    assert_eq!(case.status.steps.len(), 2);
}

#[test]
fn an_item_of_which_a_part_was_done_is_undone_with_those_that_were_done() {
    let mut case = case(REGIONS);
    case.visit()
        .succeed("regions[1]/deploy", json!({"url": "w"}))
        .succeed("regions[1]/verify", nothing());
    case.succeed("regions[0]/deploy", json!({"url": "e"}))
        .fail("regions[0]/verify", refused());
    case.assert_step("regions[0]", StepState::Failed, 0);
    case.fail("regions[2]/deploy", refused());
    case.assert_step("regions", StepState::Failed, 0)
        .assert_state(Compensating);
    assert_eq!(case.step("regions:undo[1]").state, StepState::Running);
    case.succeed("regions:undo[1]", nothing())
        .succeed("regions:undo[0]", nothing());
    case.assert_state(Failed);
    assert!(
        !case.events().iter().any(|event| event.contains("regions:undo[2]")),
        "it was refused: nothing to undo"
    );
}

#[test]
fn an_item_that_failed_is_retried_from_where_it_failed() {
    let mut case = case(&REGIONS.replace("failurePolicy: Compensate\n", ""));
    case.visit()
        .succeed("regions[0]/deploy", json!({"url": "e"}))
        .fail("regions[0]/verify", refused());
    case.fail("regions[1]/deploy", refused()).assert_state(Failed);
    assert_eq!(case.asks(json!({"retry": {}})).0, ActionState::Applied);
    case.assert_step("regions[0]/deploy", StepState::Succeeded, 1);
    case.assert_step("regions[0]/verify", StepState::Running, 1)
        .assert_step("regions[1]/deploy", StepState::Running, 1);
    case.succeed("regions[0]/verify", nothing())
        .succeed("regions[1]/deploy", json!({"url": "w"}));
    case.succeed("regions[1]/verify", nothing());
    case.succeed("regions[2]/deploy", json!({"url": "n"}))
        .succeed("regions[2]/verify", nothing());
    case.assert_state(Succeeded);
}

#[test]
fn after_a_crash_each_step_of_it_sends_the_same_again() {
    let mut case = case(REGIONS);
    case.visit().succeed("regions[1]/deploy", json!({"url": "w"}));
    let digest = |case: &Case, name: &str| case.step(name).request_digest.clone().unwrap();
    let before = ["regions[0]/deploy", "regions[1]/verify"].map(|name| digest(&case, name));
    case.crash().visit();
    case.assert_step("regions[0]/deploy", StepState::Running, 2)
        .assert_step("regions[1]/verify", StepState::Running, 2)
        .assert_step("regions[1]/deploy", StepState::Succeeded, 1);
    let after = ["regions[0]/deploy", "regions[1]/verify"].map(|name| digest(&case, name));
    assert_eq!(before, after);
}

#[test]
fn what_cannot_run_is_refused_by_its_field() {
    for (spec, field, message) in [
        (
            "steps: [{name: a, steps: [{name: a, set: {}}]}]",
            "spec.steps[0].steps[0].name",
            "exists already",
        ),
        (
            "steps: [{name: a, steps: [{name: b, steps: [{name: c, set: {}}]}]}]",
            "spec.steps[0].steps[0].steps",
            "use operation for more levels",
        ),
        (
            "{steps: [{name: z, set: {}}], finally: [{name: a, steps: [{name: b, set: {}}]}]}",
            "spec.finally[0].steps",
            "spec.steps alone",
        ),
        (
            "steps: [{name: a, retry: {maximumAttempts: 1}, steps: [{name: b, set: {}}]}]",
            "spec.steps[0].retry",
            "say it of the steps in it",
        ),
        (
            "steps: [{name: a, when: 'has(steps.b.output)', steps: [{name: b, set: {}}]}]",
            "spec.steps[0].when",
            "is in the group and runs later",
        ),
        (
            "steps: [{name: a, steps: [{name: b, set: {x: '${steps.a.state}'}}]}]",
            "spec.steps[0]",
            "can't need or read itself",
        ),
        (
            "steps: [{name: a, order: Graph, steps: [{name: b, needs: [c], set: {}}, {name: c, needs: [b], set: {}}]}]",
            "spec.steps[0].steps",
            "a/b, a/c",
        ),
        (
            "steps: [{name: a, forEach: '[1]', steps: [{name: b, set: {}}]}, {name: c, set: {x: '${steps.b.state}'}}]",
            "spec.steps[1]",
            "read steps.a.output.items",
        ),
        (
            "steps: [{name: a, forEach: '[1]', steps: [{name: b, http: {url: 'http://b'}, compensate: {http: {url: 'http://c'}}}]}]",
            "spec.steps[0].steps[0].compensate",
            "say it of the group",
        ),
        (
            "{order: Graph, steps: [{name: a, steps: [{name: b, set: {x: '${steps.c.state}'}}]}, {name: c, set: {x: '${steps.b.state}'}}]}",
            "spec.steps",
            "wait for each other: a, c",
        ),
        (
            "{steps: [{name: a, steps: [{name: b, set: {x: '${steps.c.state}'}}]}], finally: [{name: c, set: {}}]}",
            "spec.steps[0]",
            "runs at the end",
        ),
    ] {
        let error = Workflow::compile(&serde_yaml::from_str(spec).unwrap()).unwrap_err();
        assert_eq!(error.field, field, "{spec}: {error}");
        assert!(
            error.message.contains(message)
                || message.starts_with("wait for each other") && error.message.contains("a, c"),
            "{spec}: {error}"
        );
    }
}

#[test]
fn what_a_group_started_is_stopped_before_its_timeout_ends_it() {
    for (what, goes_on) in [
        ("job: {image: x}", true),
        ("operation: {templateRef: {name: x}}", true),
        ("job: {image: x}", false),
    ] {
        let policy = if goes_on { "onFailure: Continue" } else { "when: 'true'" };
        let mut case = case(&format!(
            "
steps:
- name: release
  {policy}
  timeouts: {{scheduleToClose: 10m}}
  steps: [{{name: migrate, {what}}}, {{name: verify, http: {{url: 'http://web'}}}}]
- {{name: tell, http: {{url: 'http://chat/${{steps.release.state}}'}}}}
"
        ));
        case.visit().accept("release/migrate").later(Duration::from_secs(600));
        case.assert_step("release", StepState::Cancelling, 0)
            .assert_step("release/migrate", StepState::Cancelling, 1);
        assert_eq!(case.work.len(), 1, "nothing follows yet");
        assert_eq!(case.work[0].kind, stop(Some(external())));
        case.answer("release/migrate", AttemptOutcome::StopFailed(busy()));
        case.assert_step("release", StepState::Cancelling, 0);
        assert_eq!(case.status.failure, None);
        case.crash().later(Duration::from_secs(10));
        case.answer("release/migrate", AttemptOutcome::Stopped)
            .assert_step("release/migrate", StepState::Cancelled, 2)
            .assert_step("release", StepState::TimedOut, 0);
        assert!(case.step("release/migrate").maybe_done);
        if goes_on {
            case.assert_step("tell", StepState::Running, 1);
        } else {
            case.assert_state(Failed);
            assert_eq!(
                case.message(),
                "step release: TimedOut: timeouts.scheduleToClose passed"
            );
            assert_eq!(case.asks(json!({"retry": {}})).0, ActionState::Applied);
            case.assert_step("release", StepState::Waiting, 0)
                .assert_step("release/migrate", StepState::Running, 3);
        }
    }
}

#[test]
fn a_call_that_is_under_way_when_its_group_times_out_ends_first_and_a_callback_is_not_awaited() {
    let mut case = case(
        "
steps:
- name: release
  onFailure: Continue
  order: Graph
  timeouts: {scheduleToClose: 10m}
  steps:
  - {name: deploy, http: {method: POST, url: 'http://x'}}
  - {name: grow, http: {method: POST, url: 'http://y', async: true}}
  - {name: items, forEach: '[1, 2]', maxParallel: 1, job: {image: x}}
- {name: tell, http: {url: 'http://chat'}}
",
    );
    case.visit().accept("release/grow").accept("release/items[0]");
    case.later(Duration::from_secs(600));
    case.assert_step("release/grow", StepState::Cancelled, 1)
        .assert_step("release/deploy", StepState::Running, 1)
        .assert_step("release/items[0]", StepState::Cancelling, 1);
    assert!(case.step("release/grow").maybe_done);
    case.answer("release/items[0]", AttemptOutcome::Stopped);
    case.assert_step("release/items", StepState::Cancelled, 0)
        .assert_step("release", StepState::Cancelling, 0);
    case.succeed("release/deploy", nothing());
    case.assert_step("release", StepState::TimedOut, 0)
        .assert_step("tell", StepState::Running, 1);
    case.succeed("tell", nothing()).assert_state(Succeeded);
}

#[test]
fn an_item_that_times_out_is_stopped_before_another_takes_its_place() {
    let mut case = case(
        "
steps:
- name: regions
  forEach: '[1, 2]'
  maxParallel: 1
  maxFailures: 1
  timeouts: {scheduleToClose: 10m}
  steps: [{name: migrate, job: {image: x}}]
",
    );
    case.visit()
        .accept("regions[0]/migrate")
        .later(Duration::from_secs(600));
    case.assert_step("regions[0]/migrate", StepState::Cancelling, 1)
        .assert_step("regions[0]", StepState::Cancelling, 0);
    assert_eq!(case.work.len(), 1);
    case.answer("regions[0]/migrate", AttemptOutcome::Stopped);
    case.assert_step("regions[0]", StepState::TimedOut, 0)
        .assert_step("regions[1]/migrate", StepState::Running, 1);
    case.succeed("regions[1]/migrate", nothing()).assert_state(Succeeded);
}

#[test]
fn a_group_that_may_not_fail_is_left_to_a_person_once_its_steps_are_stopped() {
    let mut case = case(
        "
failurePolicy: Pause
steps: [{name: release, timeouts: {scheduleToClose: 10m}, steps: [{name: migrate, job: {image: x}}]}]
",
    );
    case.visit().accept("release/migrate").later(Duration::from_secs(600));
    case.assert_step("release", StepState::Cancelling, 0)
        .assert_step("release/migrate", StepState::Cancelling, 1);
    assert_eq!(
        case.asks(json!({"complete": {"step": "release"}})).0,
        ActionState::Rejected
    );
    case.answer("release/migrate", AttemptOutcome::Stopped)
        .assert_step("release", StepState::Undecided, 0)
        .assert_state(Stuck);
    assert_eq!(case.asks(json!({"retry": {}})).0, ActionState::Applied);
    case.assert_step("release/migrate", StepState::Running, 2);
    case.succeed("release/migrate", nothing()).assert_state(Succeeded);
}

#[test]
fn a_cancel_while_a_group_is_being_stopped_waits_for_it() {
    let mut case = case(
        "
steps: [{name: release, onFailure: Continue, timeouts: {scheduleToClose: 10m}, steps: [{name: migrate, job: {image: x}}]}]
",
    );
    case.visit().accept("release/migrate").later(Duration::from_secs(600));
    case.spec.cancel = Some(crate::api::Cancel::default());
    case.visit().assert_step("release", StepState::Cancelling, 0);
    case.answer("release/migrate", AttemptOutcome::Stopped)
        .assert_step("release", StepState::TimedOut, 0)
        .assert_state(Cancelled);
}

#[test]
fn an_attempt_of_unknown_outcome_in_a_group_that_timed_out_is_finished_before_it_is_undone() {
    let mut case = case(
        "
failurePolicy: Compensate
steps:
- name: release
  timeouts: {scheduleToClose: 10m}
  steps: [{name: create, http: {method: POST, url: 'http://a'}, retry: {initialInterval: 1h}, compensate: {http: {url: 'http://undo'}}}]
",
    );
    case.visit()
        .fail("release/create", no_answer())
        .later(Duration::from_secs(600));
    case.assert_step("release/create", StepState::BackingOff, 1);
    case.later(Duration::from_secs(3600))
        .assert_step("release/create", StepState::Running, 2);
    case.succeed("release/create", nothing())
        .assert_step("release", StepState::TimedOut, 0)
        .assert_step("release/create:undo", StepState::Running, 1);
}

#[test]
fn a_group_whose_when_failed_asks_it_again_before_it_starts() {
    for (list, when) in [("", "int(input.x) == 1"), ("forEach: '[int(input.x)]', ", "true")] {
        for policy in ["Stop", "Pause"] {
            let mut case = case(&format!(
                "
failurePolicy: {policy}
input: {{x: none}}
steps: [{{name: release, {list}when: '{when}', steps: [{{name: deploy, http: {{url: 'http://deploy'}}}}]}}]
"
            ));
            case.visit();
            let ended = if policy == "Stop" {
                StepState::Failed
            } else {
                StepState::Undecided
            };
            case.assert_step("release", ended, 0);
            for asked in [json!({"retry": {}}), json!({"retry": {"step": "release"}})] {
                assert_eq!(case.asks(asked).0, ActionState::Applied);
                case.assert_step("release", ended, 0);
                assert_eq!(case.status.steps.len(), 1, "its steps are not started");
            }
            // As if what it reads had changed.
            case.spec.input.insert("x".into(), json!("1"));
            case.status.spec_digest = Some(spec_digest(&case.spec));
            assert_eq!(case.asks(json!({"retry": {}})).0, ActionState::Applied);
            let deploy = if list.is_empty() {
                "release/deploy"
            } else {
                "release[0]/deploy"
            };
            case.succeed(deploy, nothing()).assert_state(Succeeded);
        }
    }
}
