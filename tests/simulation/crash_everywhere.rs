//! For each sample workflow: the operator dies at every single API call, at every call of the service and at every callback,
//! before and after it had its effect; another starts. Every run ends as the one without a crash does, and the service has
//! seen every effect under one key.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast::api::{ActionState, CloudOperation, OperationState, StepState};
use kube::ResourceExt;
use serde_json::{Map, Value};
use tokio::time::sleep;

use crate::samples::{Sample, all_answered, sample};
use crate::sniper::{Crash, Seen, Sniper, but_renewals};
use crate::world::World;

/// How a run ended.
#[derive(Debug, PartialEq)]
struct Ending {
    state: OperationState,
    /// The reason, and the step.
    failure: Option<(String, Option<String>)>,
    output: Option<Map<String, Value>>,
    steps: BTreeMap<String, StepState>,
    /// How many keys asked for each effect, by path.
    effects: BTreeMap<String, usize>,
    /// How often each object was created or changed, by step and epoch.
    deeds: BTreeMap<String, usize>,
    actions: Vec<(String, Option<ActionState>)>,
    /// The operations that it ran, by operation and step.
    children: Vec<(String, OperationState)>,
}

fn state(operation: &CloudOperation) -> Option<OperationState> {
    operation.status.as_ref()?.state
}

fn all_over(world: &World) -> bool {
    let operations = world.server.list::<CloudOperation>();
    all_answered(world)
        && operations
            .iter()
            .all(|o| state(o).is_some_and(OperationState::is_finished))
}

async fn run(sample: &Sample, crash: Crash) -> (Ending, Seen) {
    let mut world = World::new(1);
    let sniper = Sniper::aim(&world, crash, but_renewals());
    let mut operator = world.start();
    world.apply_sample(sample).await;
    let cluster = tokio::spawn(crate::cluster::serve(world.server.clone()));
    for (number, deed) in sample.script.iter().enumerate() {
        let its_time = async |world: &World| deed.wait(world, &sample.name).await;
        sniper.watch(&mut world, &mut operator, its_time).await;
        deed.be_done(&world, &sample.name, number).await;
    }
    let ended = async |world: &World| world.until("all has ended", all_over).await;
    sniper.watch(&mut world, &mut operator, ended).await;
    // What the end makes of it, such as Events, may crash it too, and must change nothing.
    let a_while = async |_: &World| sleep(Duration::from_secs(15)).await;
    sniper.watch(&mut world, &mut operator, a_while).await;
    cluster.abort();
    world.check();
    if let Some(writes) = sample.writes {
        assert_eq!(
            world.writes_of(&sample.name),
            writes,
            "writes when it crashes {crash:?}"
        );
    }
    let ending = ending(&world, sample);
    world.kill_all().await;
    (ending, sniper.seen())
}

fn ending(world: &World, sample: &Sample) -> Ending {
    let status = world.operation(&sample.name).status.unwrap();
    let mut effects = world.service.effects();
    effects.retain(|path, _| !sample.never_repeated.contains(path));
    let operations = world.server.list::<CloudOperation>();
    let children = operations
        .iter()
        .filter(|operation| operation.name_any() != sample.name);
    // Their names end with a digest of the key.
    let step = |child: &CloudOperation| child.name_any().rsplit_once('-').unwrap().0.to_owned();
    let mut children: Vec<_> = children.map(|child| (step(child), state(child).unwrap())).collect();
    children.sort();
    Ending {
        state: status.state.unwrap(),
        failure: status.failure.map(|failure| (failure.reason, failure.step)),
        output: status.output,
        steps: status.steps.into_iter().map(|step| (step.name, step.state)).collect(),
        effects,
        deeds: world.deeds(),
        actions: world.came_of_it(),
        children,
    }
}

async fn crash_everywhere(name: &str) {
    let sample = sample(name);
    let (expected, seen) = run(&sample, Crash::Never).await;
    assert_eq!(expected.state, sample.expect);
    let asked = sample.script.iter().filter_map(|deed| deed.is_applied());
    let applied: Vec<bool> = asked.collect();
    let was_applied = |(_, state): &(_, Option<ActionState>)| *state == Some(ActionState::Applied);
    assert_eq!(
        expected.actions.iter().map(was_applied).collect::<Vec<_>>(),
        applied,
        "{:?}",
        expected.actions
    );
    assert!(seen.requests > 10, "only {} requests were seen", seen.requests);
    let mut runs = 0;
    for crash in seen.crashes() {
        let (ending, _) = run(&sample, crash).await;
        assert_eq!(ending, expected, "{name} when it crashes {crash:?}");
        runs += 1;
    }
    println!("{name}: {runs} crashes, before and after each of {seen:?}");
}

macro_rules! crash_everywhere {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            crash_everywhere(stringify!($name).trim_start_matches("r#")).await;
        }
    )*};
}

crash_everywhere!(
    // What a workflow is made of.
    r#async,
    calls,
    graph,
    flaky,
    timer,
    refused,
    slow,
    objects,
    job,
    saga,
    list,
    group,
    people,
    local,
    reads,
    long,
    parent,
    template,
    // What people ask.
    retry,
    retry_all,
    retry_now,
    reject,
    complete,
    reset,
    // What its spec says while it runs.
    cancel,
    cancel_compensate,
    suspend,
    timeout,
    // Operations of operations.
    child_cancelled,
    child_undone,
    child_waited_for,
    child_abandoned,
    child_fails,
    // What fails or comes too late, and is borne, given up or undone.
    failures,
    too_many_failures,
    given_up,
    undo_list,
    undo_stuck,
    signals,
);
