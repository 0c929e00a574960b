//! What people ask, and what comes of it.

use super::*;
use crate::api::{ActionState::*, CloudOperationSpec};

const ASKING: &str = "
steps:
- name: review
  approval: {message: 'resize ${input.group}?', users: [alice], groups: [sre], excludeRequester: true}
- name: go
  signal: {schema: {type: object, required: [size], properties: {size: {type: integer}}}}
- {name: resize, http: {url: 'http://inventory/${string(steps.go.output.size)}/${steps.review.output.by}'}}
input: {group: web}
";

fn with_creator() -> Case {
    let mut case = case(ASKING);
    case.identity.creator = Some("bob".into());
    case.visit();
    case
}

#[test]
fn an_approval_and_a_signal_are_taken_in_their_turn_however_early_they_came() {
    let mut case = with_creator();
    case.assert_state(AwaitingApproval);
    assert_eq!(case.message(), "step review: waiting for an approval: resize web?");
    assert_eq!(
        case.asks(json!({"signal": {"name": "go", "payload": {"size": 3}}})).0,
        Applied
    );
    case.assert_step("review", StepState::Waiting, 0);
    let (state, message) = case.asks(json!({"approve": {"step": "review", "comment": "fine"}}));
    assert_eq!((state, message.as_str()), (Applied, "step review was approved: fine"));
    case.assert_step("resize", StepState::Running, 1);
    assert_eq!(
        case.step("review").output,
        json!({"by": "alice", "comment": "fine"}).as_object().cloned()
    );
    assert!(case.status.received.is_empty());
    let actors: Vec<_> = case.status.history.iter().filter_map(|e| e.actor.as_deref()).collect();
    assert_eq!(actors, ["alice", "alice"]);
}

#[test]
fn a_word_counts_only_from_who_may_give_it() {
    let mut case = with_creator();
    let mut word = |user: &str, groups: &[&str]| {
        case.ask_as(user, groups, json!({"approve": {"step": "review"}}))
            .visit();
        case.came_of_it()
    };
    assert_eq!(word("mallory", &[]).0, Rejected);
    assert!(
        word("mallory", &["dev"])
            .1
            .contains("mallory may not approve step review: alice, sre may")
    );
    let (state, message) = word("bob", &["sre"]);
    assert_eq!(state, Rejected);
    assert!(message.contains("bob created the operation"), "{message}");
    assert_eq!(word("carol", &["sre"]).0, Applied);
    assert!(
        case.status
            .history
            .iter()
            .any(|e| e.actor.as_deref() == Some("carol (groups: sre)"))
    );
}

#[test]
fn nobody_approves_by_name_where_nobody_vouches_for_names() {
    let mut case = with_creator();
    case.ask(json!({"approve": {"step": "review"}}));
    case.actions[0].verified = false;
    case.visit();
    let (state, message) = case.came_of_it();
    assert_eq!(state, Rejected);
    assert!(message.contains("nobody vouches"), "{message}");
}

#[test]
fn who_leaves_out_who_they_are_does_not_approve_in_spite_of_exclude_requester() {
    let mut case = case("steps: [{name: review, approval: {excludeRequester: true}}]");
    case.identity.creator = Some("bob".into());
    case.visit().ask(json!({"approve": {"step": "review"}}));
    case.actions[0].spec.requested_by = None;
    case.visit();
    let (state, message) = case.came_of_it();
    assert_eq!(state, Rejected);
    assert!(message.contains("nobody vouches for who asks"), "{message}");
}

#[test]
fn a_rejection_fails_the_step_with_its_reason() {
    let mut case = with_creator();
    case.asks(json!({"reject": {"step": "review", "comment": "not on a Friday"}}));
    case.assert_state(Failed);
    assert_eq!(
        case.message(),
        "step review: Rejected: alice rejected it: not on a Friday"
    );
}

#[test]
fn a_signal_that_nothing_waits_for_or_that_does_not_conform_is_rejected_with_the_field() {
    let mut case = with_creator();
    let (state, message) = case.asks(json!({"signal": {"name": "stop"}}));
    assert_eq!(
        (state, message.as_str()),
        (Rejected, "no step waits for a signal named \"stop\"; there are go")
    );
    let (state, message) = case.asks(json!({"signal": {"name": "go", "payload": {"size": "large"}}}));
    assert_eq!(state, Rejected);
    assert!(
        message.contains("payload.size") && message.contains("spec.steps[1].signal.schema"),
        "{message}"
    );
}

#[test]
fn a_signal_that_does_not_come_in_time_is_its_default_or_a_timeout() {
    let spec = "steps: [{name: go, signal: {default: {size: 1}}, timeouts: {scheduleToClose: 1m}}]";
    let mut with_default = case(spec);
    with_default.visit().later(60 * SECOND).assert_state(Succeeded);
    assert_eq!(with_default.step("go").output, json!({"size": 1}).as_object().cloned());
    let mut without = case("steps: [{name: go, signal: {}, timeouts: {scheduleToClose: 1m}}]");
    without
        .visit()
        .later(60 * SECOND)
        .assert_state(Failed)
        .assert_step("go", StepState::TimedOut, 0);
}

#[test]
fn an_action_is_decided_once_and_forgotten_when_it_says_so_itself() {
    let mut case = case("steps: [{name: go, signal: {}}, {name: again, signal: {name: go}}]");
    case.visit();
    case.asks(json!({"signal": {"name": "go"}}));
    case.assert_step("again", StepState::Waiting, 0);
    case.visit().visit().assert_step("again", StepState::Waiting, 0); // the action still waits for its answer
    assert_eq!(case.status.actions.len(), 1);
    case.actions.clear();
    case.spec.suspend = Some(true);
    case.visit();
    assert!(case.status.actions.is_empty());
}

#[test]
fn an_action_for_another_operation_of_the_name_is_rejected() {
    let mut case = case("steps: [{name: go, signal: {}}]");
    case.identity.created = Some(case.now);
    case.visit().ask(json!({"signal": {"name": "go"}})).visit();
    assert!(case.came_of_it().1.contains("created before the operation"));
    case.ask(json!({"signal": {"name": "go"}, "operationRef": {"name": "resize", "uid": "other"}}))
        .visit();
    assert!(case.came_of_it().1.contains("another operation of this name"));
}

#[test]
fn a_failed_operation_is_retried_days_later_under_a_new_key() {
    let mut case = case(THREE_CALLS);
    case.spec.timeout = Some(crate::api::Duration::seconds(3600));
    case.visit()
        .succeed("describe", json!({"size": 1}))
        .fail("resize", refused())
        .assert_state(Failed);
    let key = |case: &Case| IdempotencyKey::new("u1", "resize", case.step("resize").epoch).to_string();
    let first = key(&case);
    case.now = case.now.plus(72 * 3600 * SECOND);
    let (state, message) = case.asks(json!({"retry": {}}));
    assert_eq!(
        (state, message.as_str()),
        (Applied, "resize runs again, under a new key")
    );
    case.assert_state(Running).assert_step("resize", StepState::Running, 1);
    assert_ne!(key(&case), first, "the outcome was definite");
    assert_eq!(case.status.deadline, Some(case.now.plus(3600 * SECOND)));
    assert!(case.status.completion_time.is_none() && case.status.failure.is_none());
    case.succeed("resize", nothing())
        .succeed("check", nothing())
        .assert_state(Succeeded);
}

#[test]
fn a_retry_after_an_unknown_outcome_keeps_the_key_unless_told_otherwise() {
    let spec = "steps: [{name: once, idempotent: false, http: {method: POST, url: 'http://x'}}]";
    let mut case = case(spec);
    case.visit().fail("once", no_answer()).assert_state(Stuck);
    let (_, message) = case.asks(json!({"retry": {"step": "once"}}));
    assert_eq!(message, "once runs again, under the same key");
    case.assert_step("once", StepState::Running, 2);
    assert_eq!(case.step("once").epoch, 0);
    let (_, message) = case
        .fail("once", no_answer())
        .asks(json!({"retry": {"step": "once", "newKey": true}}));
    assert_eq!(message, "once runs again, under a new key");
    case.assert_step("once", StepState::Running, 1);
    assert_eq!(case.step("once").epoch, 2);
}

#[test]
fn a_retry_says_under_which_key_each_of_several_steps_runs_again() {
    let both = |fails: fn() -> AttemptFailure| {
        let mut case = case(
            "
order: Graph
steps:
- {name: unknown, retry: {maximumAttempts: 1}, http: {method: POST, url: 'http://x'}}
- {name: other, retry: {maximumAttempts: 1}, http: {method: POST, url: 'http://y'}}
- {name: gate, assert: 'false'}
",
        );
        case.visit();
        case.fail("unknown", no_answer())
            .fail("other", fails())
            .assert_state(Failed);
        case.asks(json!({"retry": {}})).1
    };
    assert_eq!(
        both(refused),
        "unknown, other, gate run again: unknown under the same key, other under a new one"
    );
    assert_eq!(both(no_answer), "unknown, other, gate run again, under the same keys");
}

#[test]
fn what_is_stuck_is_completed_failed_or_skipped_by_a_person() {
    let spec = "
steps:
- {name: once, idempotent: false, http: {method: POST, url: 'http://x'}}
- {name: after, set: {was: '${steps.once.state}', n: '${steps.once.?output.n.orValue(0)}'}}
";
    let stuck = || {
        let mut case = case(spec);
        case.visit().fail("once", no_answer()).assert_state(Stuck);
        case
    };
    let mut done = stuck();
    done.asks(json!({"complete": {"step": "once", "output": {"n": 7}}}));
    assert_eq!(
        done.step("after").output,
        json!({"was": "Succeeded", "n": 7}).as_object().cloned()
    );
    let mut skipped = stuck();
    skipped.asks(json!({"skip": {"step": "once", "output": {"n": 8}}}));
    assert_eq!(
        skipped.step("after").output,
        json!({"was": "Skipped", "n": 8}).as_object().cloned()
    );
    let mut failed = stuck();
    failed.asks(json!({"fail": {"step": "once", "message": "it never arrived"}}));
    failed.assert_state(Failed);
    assert!(failed.message().contains("FailedByHand: it never arrived"));
}

#[test]
fn a_backoff_is_ended_by_hand() {
    let mut case = case("steps: [{name: call, http: {url: 'http://x'}, retry: {initialInterval: 1h}}]");
    case.visit()
        .fail("call", busy())
        .assert_step("call", StepState::BackingOff, 1);
    assert_eq!(case.asks(json!({"retryNow": {"step": "call"}})).0, Applied);
    case.assert_step("call", StepState::Running, 2);
    assert_eq!(case.asks(json!({"retryNow": {"step": "call"}})).0, Rejected);
}

#[test]
fn a_reset_cuts_what_followed_and_runs_it_under_a_new_epoch() {
    let mut case = case(THREE_CALLS);
    case.visit()
        .succeed("describe", json!({"size": 1}))
        .succeed("resize", nothing())
        .succeed("check", nothing());
    case.assert_state(Succeeded);
    let (state, message) = case.asks(json!({"reset": {"step": "resize"}}));
    assert_eq!(
        (state, message.as_str()),
        (Applied, "back to step resize: 2 steps run again")
    );
    case.assert_state(Running).assert_step("resize", StepState::Running, 1);
    assert_eq!((case.step("describe").epoch, case.step("resize").epoch), (0, 1));
    assert!(case.status.steps.iter().all(|step| step.name != "check"));
    assert!(
        case.events().contains(&"StepSucceeded check".to_owned()),
        "the cut part stays in the history"
    );
    case.succeed("resize", nothing())
        .succeed("check", nothing())
        .assert_state(Succeeded);
}

#[test]
fn a_reset_under_what_is_under_way_is_rejected() {
    let mut case = case(THREE_CALLS);
    case.visit().succeed("describe", json!({"size": 1}));
    let (state, message) = case.asks(json!({"reset": {"step": "describe"}}));
    assert_eq!(state, Rejected);
    assert!(message.contains("step resize is under way"), "{message}");
}

#[test]
fn a_word_from_before_a_reset_does_not_count() {
    let mut case = case("steps: [{name: review, approval: {}}, {name: call, http: {url: 'http://x'}}]");
    case.visit().asks(json!({"approve": {"step": "review"}}));
    case.succeed("call", nothing())
        .asks(json!({"reset": {"step": "review"}}));
    case.assert_step("review", StepState::Waiting, 0);
    let (state, message) = case.asks(json!({"approve": {"step": "review", "epoch": 0}}));
    assert_eq!(state, Rejected);
    assert!(message.contains("it was reset"), "{message}");
    assert_eq!(case.asks(json!({"approve": {"step": "review", "epoch": 1}})).0, Applied);
}

#[test]
fn what_was_cancelled_stays_so() {
    let mut case = case(THREE_CALLS);
    case.visit();
    case.spec.cancel = Some(Cancel::default());
    case.visit().assert_state(Cancelled);
    let (state, message) = case.asks(json!({"retry": {}}));
    assert_eq!(state, Rejected);
    assert!(message.contains("was cancelled"), "{message}");
}

#[test]
fn a_result_that_was_read_is_not_taken_back_by_a_retry() {
    let spec = "
steps:
- {name: try, http: {url: 'http://x'}, onFailure: Continue}
- {name: after, http: {url: 'http://x'}, when: steps.try.state == 'Failed'}
";
    let mut case = case(spec);
    case.visit()
        .fail("try", refused())
        .assert_step("after", StepState::Running, 1);
    let (state, message) = case.asks(json!({"retry": {"step": "try"}}));
    assert_eq!(state, Rejected);
    assert!(message.contains("reset goes back to it"), "{message}");
    case.succeed("after", nothing()).assert_state(Succeeded);
}

#[test]
fn a_bad_schema_of_a_signal_is_an_invalid_spec() {
    let spec: CloudOperationSpec =
        serde_yaml::from_str("steps: [{name: go, signal: {schema: {type: nonsense}}}]").unwrap();
    let error = Workflow::compile(&spec).unwrap_err();
    assert_eq!(error.field, "spec.steps[0].signal.schema");
}

#[test]
pub fn a_wait_for_an_object_that_timed_out_is_waited_for_again() {
    let mut case = case(
        "steps: [{name: ready, kubernetes: {wait: {resource: {apiVersion: v1, kind: Pod, name: p}, for: Current}}, timeouts: {scheduleToClose: 4m}}]",
    );
    case.visit().fail("ready", no_answer());
    case.later(Duration::from_secs(300));
    case.assert_step("ready", StepState::TimedOut, 1);
    assert_eq!(case.asks(json!({"retry": {"step": "ready"}})).0, Applied);
    case.assert_step("ready", StepState::Waiting, 2);
    case.succeed("ready", nothing()).assert_state(Succeeded);
}

#[test]
pub fn what_was_ended_with_its_operation_may_be_skipped() {
    let mut case = case("{order: Graph, steps: [{name: a, http: {url: 'http://x'}}, {name: b, wait: {duration: 1h}}]}");
    case.visit().fail("a", refused());
    case.assert_step("b", StepState::Cancelled, 0);
    assert_eq!(case.asks(json!({"skip": {"step": "b"}})).0, Applied);
    case.assert_step("b", StepState::Skipped, 0);
    case.assert_state(Failed);
}

#[test]
pub fn a_retry_of_one_that_is_held_starts_once_it_goes_on() {
    let call = "http: {method: POST, url: 'http://x'}";
    let failed = format!("steps: [{{name: call, retry: {{maximumAttempts: 1}}, {call}}}]");
    let undecided = format!("steps: [{{name: call, idempotent: false, {call}}}]");
    let timed_out = format!("steps: [{{name: call, timeouts: {{scheduleToClose: 4m}}, {call}}}]");
    let cancelled = format!("{{order: Graph, steps: [{{name: call, {call}}}, {{name: other, {call}}}]}}");
    for (spec, state) in [
        (failed, StepState::Failed),
        (undecided, StepState::Undecided),
        (timed_out, StepState::TimedOut),
        (cancelled, StepState::Cancelled),
    ] {
        let mut case = case(&spec);
        case.visit().fail("call", no_answer());
        match state {
            StepState::TimedOut => {
                case.later(300 * SECOND);
            }
            StepState::Cancelled => {
                case.fail("other", refused());
            }
            _ => {}
        }
        let attempt = case.step("call").attempt;
        case.assert_step("call", state, attempt);
        case.spec.suspend = Some(true);
        assert_eq!(case.asks(json!({"retry": {}})).0, Applied);
        case.assert_state(Suspended)
            .assert_step("call", StepState::BackingOff, attempt);
        assert_eq!(case.work, vec![], "{state:?}");
        case.spec.suspend = None;
        case.visit().assert_step("call", StepState::Running, attempt + 1);
        assert_eq!(case.step("call").epoch, 0, "under the same key");
        if state == StepState::Cancelled {
            case.succeed("other", nothing());
        }
        case.succeed("call", nothing()).assert_state(Succeeded);
    }
}

#[test]
fn what_was_sent_in_time_counts_though_it_is_looked_at_later() {
    let mut case = case(
        "
order: Graph
steps:
- {name: review, approval: {message: 'resize?'}, timeouts: {scheduleToClose: 1h}}
- {name: go, signal: {default: {size: 3}}, timeouts: {scheduleToClose: 1h}}
",
    );
    case.visit();
    case.ask(json!({"approve": {"step": "review"}}))
        .ask(json!({"signal": {"name": "go", "payload": {"size": 7}}}));
    case.later(3600 * SECOND).assert_state(Succeeded);
    assert_eq!(case.step("go").output, json!({"size": 7}).as_object().cloned());
}

#[test]
fn nothing_is_retried_while_a_step_is_being_stopped() {
    let mut case = case(
        "
order: Graph
steps:
- {name: a, http: {url: 'http://x'}}
- {name: b, job: {image: x}}
",
    );
    case.visit().fail("b", no_answer());
    case.fail("a", refused()).assert_step("b", StepState::Cancelling, 1);
    for asked in [
        json!({"retry": {"step": "a"}}),
        json!({"retry": {}}),
        json!({"reset": {"step": "a"}}),
    ] {
        let (state, message) = case.asks(asked);
        assert_eq!(
            (state, &*message),
            (Rejected, "step b is being stopped: ask again once it has ended")
        );
    }
    case.answer("b", AttemptOutcome::Stopped)
        .assert_step("b", StepState::Cancelled, 1);
    assert_eq!(case.asks(json!({"retry": {}})).0, Applied);
    case.assert_step("a", StepState::Running, 1)
        .assert_step("b", StepState::Running, 2);
}

#[test]
fn an_output_that_has_no_room_is_told_to_who_gives_it() {
    let mut case = case("steps: [{name: go, signal: {}}, {name: b, http: {url: 'http://x'}}]");
    case.visit();
    let large = json!({"text": "x".repeat(20_000)});
    for word in ["complete", "skip"] {
        let (state, message) = case.asks(json!({word: {"step": "go", "output": large}}));
        assert_eq!(state, Rejected);
        assert!(message.contains("a step's may have 16384"), "{message}");
    }
    let (state, message) = case.asks(json!({"signal": {"name": "go", "payload": large}}));
    assert_eq!(state, Rejected);
    assert!(
        message.starts_with("its payload has 20011 bytes: a step's may have 16384"),
        "{message}"
    );
    case.assert_step("go", StepState::Waiting, 0);
    assert_eq!(
        case.asks(json!({"complete": {"step": "go", "output": {"n": 1}}})).0,
        Applied
    );
    case.assert_step("b", StepState::Running, 1);
}

#[test]
fn one_of_two_that_ended_badly_is_not_retried_alone() {
    let mut case =
        case("{order: Graph, steps: [{name: a, http: {url: 'http://x'}}, {name: b, http: {url: 'http://x'}}]}");
    case.visit()
        .fail("a", refused())
        .fail("b", refused())
        .assert_state(Failed);
    let (state, message) = case.asks(json!({"retry": {"step": "a"}}));
    assert_eq!(
        (state, &*message),
        (
            Rejected,
            "step b ended badly, too: retry all that did, naming none, or skip b first"
        )
    );
    case.assert_state(Failed).assert_step("a", StepState::Failed, 1);
    assert_eq!(case.asks(json!({"retry": {}})).0, Applied);
    case.assert_step("a", StepState::Running, 1)
        .assert_step("b", StepState::Running, 1);
}

#[test]
fn what_is_gone_is_said_of_a_compacted_operation_whatever_it_ran() {
    let mut case = case("{ttlSecondsAfterFinished: 60, steps: [{name: a, http: {url: 'http://x'}}]}");
    case.visit().fail("a", refused()).assert_state(Failed);
    case.later(60 * SECOND);
    assert_eq!(case.status.compacted, Some(true));
    let (state, message) = case.asks(json!({"retry": {}}));
    assert_eq!(
        (state, &*message),
        (Rejected, "the operation has ended, and its details are gone")
    );
}

#[test]
fn of_a_burst_of_actions_each_write_decides_a_few() {
    let mut case = with_creator();
    for _ in 0..300 {
        case.ask(json!({"retryNow": {"step": "resize"}}));
    }
    let mut passes = 0;
    while !case.actions.is_empty() {
        case.visit();
        passes += 1;
        assert!(passes < 100, "each decides some");
        let decided = case.status.actions.len();
        assert!((1..=20).contains(&decided), "{decided} were decided on at once");
        let size = serde_json::to_string(&case.status).unwrap().len();
        assert!(size < 128 * 1024, "{size} bytes");
        // Nobody could tell them yet: no more are decided on.
        let before = case.status.clone();
        case.visit();
        assert_eq!(case.status, before);
        let left = case.actions.len() > decided;
        assert_eq!(case.wake, left.then_some(case.now), "the others are next");
        case.actions
            .retain(|action| case.status.actions.iter().all(|decided| decided.uid != action.uid));
    }
    assert_eq!(passes, 15);
}

#[test]
fn what_runs_at_the_end_is_approved_and_signalled_after_a_failure_too() {
    let mut case = case(
        "
steps: [{name: a, http: {url: 'http://a'}}, {name: b, approval: {}}]
finally: [{name: review, approval: {}}, {name: go, signal: {}}]",
    );
    case.visit().fail("a", refused());
    case.assert_step("review", StepState::Waiting, 0);
    let (state, message) = case.asks(json!({"approve": {"step": "b"}}));
    assert_eq!((state, &*message), (Rejected, "the operation is ending"));
    assert_eq!(case.asks(json!({"approve": {"step": "review"}})).0, Applied);
    case.assert_step("go", StepState::Waiting, 0);
    assert_eq!(case.asks(json!({"signal": {"name": "go"}})).0, Applied);
    case.assert_state(Failed);
    assert_eq!(case.asks(json!({"signal": {"name": "go"}})).0, Rejected);
}

#[test]
fn a_word_that_was_given_for_what_is_over_does_not_count_when_it_runs_again() {
    for policy in ["Stop", "Pause"] {
        let mut case = case(&format!(
            "{{failurePolicy: {policy}, steps: [{{name: review, approval: {{}}}}]}}"
        ));
        case.visit();
        case.spec.suspend = Some(true);
        assert_eq!(case.asks(json!({"reject": {"step": "review"}})).0, Applied);
        assert_eq!(case.asks(json!({"approve": {"step": "review"}})).0, Applied);
        case.spec.suspend = None;
        case.visit();
        assert_eq!(case.step("review").failure.as_ref().unwrap().reason, "Rejected");
        assert_eq!(case.asks(json!({"retry": {}})).0, Applied);
        case.assert_step("review", StepState::Waiting, 0)
            .assert_state(AwaitingApproval);
        case.asks(json!({"approve": {"step": "review"}}));
        case.assert_state(Succeeded);
    }
}

#[test]
fn a_signal_is_taken_by_a_step_to_whose_schema_it_conforms() {
    let of = |order: &str| {
        case(&format!(
            "
order: {order}
steps:
- {{name: first, signal: {{name: go, schema: {{type: object, required: [size], properties: {{size: {{type: integer}}}}}}}}}}
- {{name: second, signal: {{name: go, schema: {{type: object, required: [zone]}}}}}}
"
        ))
    };
    let size = json!({"signal": {"name": "go", "payload": {"size": 3}}});
    let zone = json!({"signal": {"name": "go", "payload": {"zone": "a"}}});

    // The one that conforms to what comes later waits for that.
    let mut sequence = of("Sequence");
    let (state, message) = sequence.visit().asks(zone.clone());
    assert_eq!(state, Applied);
    assert!(message.contains("spec.steps[0].signal.schema"), "{message}");
    sequence.assert_step("first", StepState::Waiting, 0);
    assert_eq!(sequence.asks(size.clone()).0, Applied);
    sequence.assert_state(Succeeded);
    assert_eq!(sequence.step("first").output, json!({"size": 3}).as_object().cloned());
    assert_eq!(
        sequence.step("second").output,
        json!({"zone": "a"}).as_object().cloned()
    );

    // What no step that is left can take is rejected by the schema of what is left.
    let mut rest = of("Sequence");
    assert_eq!(rest.visit().asks(size.clone()).0, Applied);
    let (state, message) = rest.asks(size.clone());
    assert_eq!(state, Rejected);
    assert!(message.contains("spec.steps[1].signal.schema"), "{message}");
    rest.assert_step("second", StepState::Waiting, 0);
    assert!(rest.status.received.is_empty());

    let mut graph = of("Graph");
    assert_eq!(graph.visit().asks(zone).0, Applied);
    graph
        .assert_step("first", StepState::Waiting, 0)
        .assert_step("second", StepState::Succeeded, 0);
    let (state, message) = graph.asks(json!({"signal": {"name": "go", "payload": {"zone": "b"}}}));
    assert_eq!(state, Rejected);
    assert!(message.contains("spec.steps[0].signal.schema"), "{message}");
    assert_eq!(graph.asks(size).0, Applied);
    graph.assert_state(Succeeded);

    let mut neither = of("Sequence");
    let (state, message) = neither.visit().asks(json!({"signal": {"name": "go", "payload": {}}}));
    assert_eq!(state, Rejected);
    assert!(
        message.contains("spec.steps[0].signal.schema") && message.contains("spec.steps[1].signal.schema"),
        "{message}"
    );
}

#[test]
fn each_item_takes_a_signal_that_conforms() {
    let mut case =
        case("steps: [{name: l, forEach: '[1, 2]', signal: {name: go, schema: {type: object, required: [n]}}}]");
    case.visit();
    assert_eq!(case.asks(json!({"signal": {"name": "go"}})).0, Rejected);
    for n in [1, 2] {
        assert_eq!(
            case.asks(json!({"signal": {"name": "go", "payload": {"n": n}}})).0,
            Applied
        );
    }
    case.assert_state(Succeeded);
    assert_eq!(case.asks(json!({"signal": {"name": "go"}})).0, Rejected);
}
