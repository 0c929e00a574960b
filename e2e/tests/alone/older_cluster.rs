//! A cluster without the mutating policies, as one before Kubernetes 1.36: nobody writes who asks, so who says it must say
//! the truth, and who doesn't is nobody.

use std::time::Instant;

use holdfast::api::ActionState::{Applied, Rejected};
use holdfast::api::OperationState;
use holdfast_e2e::install;
use holdfast_e2e::kubectl::kubectl;
use holdfast_e2e::world::{PATIENCE, World, message_of};

const BINDINGS: [&str; 2] = [
    "mutatingadmissionpolicybinding/holdfast-requester",
    "mutatingadmissionpolicybinding/holdfast-creator",
];

#[tokio::test]
async fn who_asks_must_say_the_truth_where_nobody_writes_it() {
    let _alone = crate::turn().await;
    let world = World::new("older").await;
    let _operator = world.operator();
    let deleted = kubectl(&[&["delete"][..], &BINDINGS].concat()).await;
    assert!(deleted.ok, "{}", deleted.err);
    // The API server takes it up in its own time: then a forged name is no longer overwritten.
    let forged = "{retry: {}, requestedBy: {user: mallory}}";
    let dry = ["--dry-run=server"];
    let started = Instant::now();
    let refused = loop {
        let tried = world.ask_as(&dry, "review", forged).await;
        if !tried.ok {
            break tried;
        }
        assert!(started.elapsed() < PATIENCE, "a name is still overwritten");
    };
    assert!(
        refused.err.contains("spec.requestedBy is not who asks: leave it out"),
        "{}",
        refused.err
    );
    let more_groups =
        "{retry: {}, requestedBy: {user: admin, groups: ['system:masters', 'system:authenticated', sre]}}";
    assert!(
        !world.ask_as(&dry, "review", more_groups).await.ok,
        "a group that isn't one's own"
    );
    let mut created = world.manifest("forged", "steps: [{name: a, approval: {}}]");
    created["metadata"]["annotations"] = serde_json::json!({"holdfast.dev/created-by": "mallory"});
    let apply = ["-n", &world.namespace, "apply", "-f", "-"];
    let started = Instant::now();
    let refused = loop {
        let tried = holdfast_e2e::kubectl::kubectl_with(&created.to_string(), &[&apply[..], &dry].concat()).await;
        if !tried.ok {
            break tried;
        }
        assert!(started.elapsed() < PATIENCE, "the annotation is still overwritten");
    };
    assert!(
        refused
            .err
            .contains("the annotation holdfast.dev/created-by is not to be set"),
        "{}",
        refused.err
    );

    world
        .run(
            "review",
            "steps: [{name: any, approval: {}}, {name: named, approval: {users: [admin]}}]",
        )
        .await;
    world.until_state("review", OperationState::AwaitingApproval).await;
    assert_eq!(world.asked("review", "approve: {step: any}").await.0, Applied);
    let named = world
        .until("review", "at the second approval", |operation| {
            message_of(operation).contains("step named")
        })
        .await;
    let history = named.status.iter().flat_map(|status| &status.history);
    assert!(
        history
            .filter_map(|entry| entry.actor.as_deref())
            .any(|actor| actor == "unknown (unverified)")
    );
    let (state, message) = world.asked("review", "approve: {step: named}").await;
    assert_eq!(state, Rejected);
    assert!(message.contains("nobody vouches for who asks"), "{message}");
    let truth =
        "{approve: {step: named}, requestedBy: {user: admin, groups: ['system:masters', 'system:authenticated']}}";
    assert_eq!(world.asked("review", truth).await.0, Applied);
    world.ends("review", OperationState::Succeeded).await;
    install::install().await;
}
