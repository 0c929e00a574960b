//! Histories of earlier versions, replayed: see `tests/histories/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use holdfast::api::{
    CloudOperation, HistoryEntry, HistoryEvent, OperationAction, OperationState, OperationStatus, StepState,
    StepStatus, Time,
};
use holdfast::engine::{
    Action, AttemptFailure, AttemptOutcome, AttemptResult, Decision, Identity, Inputs, Resolved, Work, WorkKind,
    Workflow, chunk, decide, resolve, spec_digest,
};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::samples::{all_answered, sample};
use crate::world::World;

/// The samples of which a history is kept.
const KEPT: &[&str] = &[
    "calls",
    "graph",
    "flaky",
    "timer",
    "refused",
    "slow",
    "objects",
    "job",
    "saga",
    "list",
    "group",
    "people",
    "local",
    "long",
    "parent",
    "template",
    "async",
    "retry_all",
    "retry_now",
    "complete",
    "reset",
    "failures",
    "too_many_failures",
    "undo_list",
    "undo_stuck",
    "signals",
];
/// How many statuses of one are kept, at most.
const MOST: usize = 24;

/// What is kept of one operation.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// As it was created.
    operation: CloudOperation,
    /// The template that it names, as it was pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<Map<String, Value>>,
    /// What people asked, with what came of it, in the order in which it was decided.
    actions: Vec<OperationAction>,
    /// Its accepted statuses, as they were written. The last is the end; of a long history not each is here.
    statuses: Vec<Value>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/histories")
}

/// Runs a sample, and keeps what was written.
async fn record(name: &str) -> Kept {
    let sample = sample(name);
    let name = &*sample.name;
    let mut world = World::new(1);
    world.start();
    let created = world.apply_sample(&sample).await;
    let cluster = tokio::spawn(crate::cluster::serve(world.server.clone()));
    for (number, deed) in sample.script.iter().enumerate() {
        deed.wait(&world, name).await;
        deed.be_done(&world, name, number).await;
    }
    let over = |world: &World| all_answered(world) && world.finished(name);
    world.until("it ends, and all is answered", over).await;
    cluster.abort();
    let mut statuses: Vec<Value> = vec![];
    for write in world.server.writes() {
        let of_it = write.change.key.resource == "cloudoperations" && write.change.key.name == name;
        if let Some(after) = write.change.after.filter(|_| of_it) {
            let status = &after.object["status"];
            if status.get("startTime").is_some() && statuses.last() != Some(status) {
                statuses.push(status.clone());
            }
        }
    }
    let step = statuses.len().div_ceil(MOST);
    let last = statuses.len() - 1;
    let statuses = statuses
        .into_iter()
        .enumerate()
        .filter(|(i, _)| i % step == 0 || *i == last)
        .map(|(_, status)| status);
    let mut actions = world.server.list::<OperationAction>();
    actions.sort_by_key(|action| (decided(action), action.creation_timestamp(), action.name_any()));
    let template = created
        .spec
        .template_ref
        .as_ref()
        .map(|of| sample.templates[&of.name].as_object().unwrap().clone());
    let kept = Kept {
        operation: created,
        template,
        actions,
        statuses: statuses.collect(),
    };
    world.kill_all().await;
    kept
}

fn decided(action: &OperationAction) -> Option<Time> {
    action.status.as_ref().and_then(|status| status.time)
}

/// A kept history, ready to be decided on.
struct Replay {
    kept: Kept,
    identity: Identity,
    resolved: Resolved,
    digest: String,
    workflow: Workflow,
    end: OperationStatus,
    /// What became of every step, however it was folded later.
    outcomes: BTreeMap<String, StepStatus>,
}

impl Replay {
    fn new(kept: Kept) -> Self {
        let operation = &kept.operation;
        let identity = Identity {
            namespace: operation.namespace().unwrap(),
            name: operation.name_any(),
            uid: operation.uid().unwrap(),
            generation: operation.metadata.generation,
            created: operation.creation_timestamp().map(|time| Time::new(time.0)),
            ..Identity::default()
        };
        let resolved = match &kept.template {
            Some(template) => resolve(&operation.spec, template),
            None => Resolved {
                spec: operation.spec.clone(),
                invalid: None,
            },
        };
        assert_eq!(resolved.invalid, None);
        let digest = spec_digest(&resolved.spec);
        let workflow = Workflow::compile(&resolved.spec).expect("what was executed can be executed");
        let statuses: Vec<OperationStatus> = kept
            .statuses
            .iter()
            .map(|status| serde_json::from_value(status.clone()).unwrap())
            .collect();
        let mut outcomes = BTreeMap::new();
        for step in statuses.iter().flat_map(|status| &status.steps) {
            outcomes.insert(step.name.clone(), step.clone());
        }
        Self {
            identity,
            resolved,
            digest,
            workflow,
            end: statuses.last().unwrap().clone(),
            outcomes,
            kept,
        }
    }

    fn decide(
        &self,
        status: &OperationStatus,
        results: &[AttemptResult],
        actions: &[Action],
        spilled: i64,
        now: Time,
    ) -> Decision {
        decide(
            status,
            &Inputs {
                identity: &self.identity,
                spec: &self.resolved.spec,
                spec_digest: &self.digest,
                workflow: Ok(&self.workflow),
                results,
                actions,
                spilled,
                unspilled: None,
                namespace_hold: None,
                refused: None,
                limited: false,
                begun: None,
                draining: false,
                runner: "another",
                now,
            },
        )
    }

    /// What the other side answered.
    fn answer(&self, work: &Work) -> AttemptOutcome {
        let (list, index) = match work.step.strip_suffix(']').and_then(|name| name.split_once('[')) {
            Some((list, index)) => (list, index.parse::<usize>().ok()),
            None => (work.step.as_str(), None),
        };
        let known = self.outcomes.get(&work.step);
        if let Some(bad) = known.filter(|step| {
            matches!(
                step.state,
                StepState::Failed | StepState::Undecided | StepState::Skipped
            )
        }) {
            let (reason, message) = match &bad.failure {
                Some(failure) => (failure.reason.clone(), failure.message.clone()),
                None => ("HttpStatus".into(), "422".into()),
            };
            return AttemptOutcome::Failed(AttemptFailure::definite(&reason, message));
        }
        let external = known
            .or_else(|| self.outcomes.get(list))
            .and_then(|step| step.external.clone());
        if let (WorkKind::Attempt, Some(external)) = (&work.kind, external) {
            return AttemptOutcome::Accepted { external };
        }
        let output = match (known, index) {
            (Some(step), _) if step.state == StepState::Succeeded => step.output.clone(),
            (_, Some(index)) => {
                let items = self.outcomes[list]
                    .output
                    .as_ref()
                    .and_then(|output| output.get("items"));
                items
                    .and_then(|items| items.get(index))
                    .and_then(Value::as_object)
                    .cloned()
            }
            _ => None,
        };
        AttemptOutcome::Succeeded { output }
    }

    /// Goes on from a status until the end, as another process does that takes over there.
    fn go_on(&self, from: &OperationStatus) -> OperationStatus {
        let (mut status, mut now, mut spilled) = (from.clone(), from.last_time.unwrap(), from.history_spilled);
        let mut results = vec![];
        let mut actions: Vec<Action> = vec![];
        let event =
            |entry: &&HistoryEntry| matches!(entry.event, HistoryEvent::ActionApplied | HistoryEvent::ActionRejected);
        let decided_before = from.history.iter().filter(event).count();
        let mut to_come = self.kept.actions.iter().skip(decided_before).peekable();
        for _ in 0..2000 {
            let decision = self.decide(&status, &results, &actions, spilled, now);
            status = serde_json::from_value(serde_json::to_value(&decision.status).unwrap()).unwrap();
            assert_ne!(
                status.state,
                Some(OperationState::SpecChanged),
                "its digest was {:?}",
                from.spec_digest
            );
            let changed = status.steps.iter().filter_map(|step| step.failure.as_ref());
            let changed: Vec<_> = changed.filter(|failure| failure.reason == "InputChanged").collect();
            assert!(changed.is_empty(), "{changed:?}");
            results.clear();
            if let Some(chunk) = chunk(&status).filter(|chunk| chunk[0].seq > spilled) {
                spilled = chunk.last().unwrap().seq;
                continue;
            }
            if status.state.is_some_and(OperationState::is_finished) {
                return status;
            }
            let next = to_come.peek().and_then(|action| decided(action));
            if let Some(work) = decision.work.first() {
                let outcome = self.answer(work);
                results.push(AttemptResult {
                    step: work.step.clone(),
                    epoch: work.epoch,
                    attempt: work.attempt,
                    outcome,
                });
            } else if let Some(action) = to_come.next_if(|_| decision.wake.is_none_or(|wake| next <= Some(wake))) {
                actions.push(Action {
                    name: action.name_any(),
                    uid: action.uid().unwrap(),
                    created: action.creation_timestamp().map(|time| Time::new(time.0)),
                    verified: false,
                    spec: action.spec.clone(),
                });
            } else {
                now = now.max(decision.wake.expect("something to do or to wait for"));
            }
        }
        panic!("it never ends: {}", serde_yaml::to_string(&status).unwrap());
    }

    fn check(&self) {
        assert!(self.kept.statuses.len() > 1);
        for (number, text) in self.kept.statuses.iter().enumerate() {
            let status: OperationStatus = serde_json::from_value(text.clone()).unwrap();
            assert_eq!(
                serde_json::to_value(&status).unwrap(),
                *text,
                "status {number} reads back as it was written"
            );
            assert_eq!(
                status.spec_digest.as_ref(),
                Some(&self.digest),
                "the digest of a spec is what it was"
            );
            let end = self.go_on(&status);
            let told = |status: &OperationStatus| {
                let steps: BTreeSet<String> = status
                    .steps
                    .iter()
                    .map(|step| format!("{} {:?} {:?}", step.name, step.state, step.output))
                    .collect();
                (status.state, status.output.clone(), steps)
            };
            assert_eq!(told(&end), told(&self.end), "from status {number}");
        }
    }
}

#[test]
fn every_kept_history_is_accepted_and_leads_to_its_end_from_everywhere() {
    for name in KEPT {
        let path = folder().join(format!("{name}.json"));
        if !path.exists() && std::env::var_os("HOLDFAST_KEEP").is_some() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap();
            let kept = runtime.block_on(record(name));
            std::fs::write(&path, serde_json::to_string_pretty(&kept).unwrap() + "\n").unwrap();
        }
        assert!(path.exists(), "{name} has no kept history: HOLDFAST_KEEP=1 writes it");
    }
    let mut replayed = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "json") {
            println!("{}", path.display());
            let kept = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            Replay::new(kept).check();
            replayed += 1;
        }
    }
    assert!(replayed >= KEPT.len());
}
