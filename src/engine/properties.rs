//! Properties that hold for every workflow and every history: random graphs of steps, random answers, crashes, lost
//! writes, holds, cancels and jumps of the clock.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;

use super::fixtures::{Case, busy, case, external, no_answer, refused};
use super::schedule::{DUE_TIMES, Readiness};
use super::transitions::coverage;
use super::transitions::report::{Report, of_operation, rows};
use super::workflow::{split_item, wholes};
use super::*;
use crate::api::{
    ActionState, Cancel, CancelMode, HistoryEvent, OperationState, OperationStatus, StepState, StepStatus, StepType,
};

#[derive(Clone, Debug)]
struct StepPlan {
    kind: usize,
    needs: Vec<usize>,
    once: bool,
    /// Bits: undone, goes on when it fails, has a list, has an end.
    extras: u8,
}

/// A workflow of up to eight steps of every kind, each needing some of those above it.
fn workflows() -> impl Strategy<Value = (bool, Vec<StepPlan>)> {
    let step = (
        0..11usize,
        prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        prop::bool::weighted(0.2),
        any::<u8>(),
    );
    (any::<bool>(), prop::collection::vec(step, 1..8)).prop_map(|(graph, steps)| {
        let plan = steps.into_iter().enumerate().map(|(i, (kind, needs, once, extras))| {
            let needs = if i == 0 {
                vec![]
            } else {
                needs
                    .iter()
                    .map(|n| n.index(i))
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect()
            };
            StepPlan {
                kind,
                needs,
                once,
                extras,
            }
        });
        (graph, plan.collect())
    })
}

fn spec(graph: bool, plan: &[StepPlan]) -> String {
    let steps: Vec<_> = plan.iter().enumerate().map(|(i, step)| {
        let needs: Vec<String> = step.needs.iter().map(|n| format!("s{n}")).collect();
        let mut value = match step.kind {
            0 => json!({"http": {"url": "http://x"}, "output": {"n": "${result.n}"}}),
            1 => json!({"http": {"url": "http://x"}, "retry": {"maximumAttempts": 3}}),
            2 if step.once => json!({"operation": {"templateRef": {"name": "x"}}, "timeouts": {"scheduleToClose": "3m"}}),
            2 => json!({"job": {"image": "x"}, "timeouts": {"scheduleToClose": "3m"}}),
            3 => json!({"wait": {"duration": "20s"}}),
            4 => json!({"kubernetes": {"wait": {"resource": {"apiVersion": "v1", "kind": "Pod", "name": "p"}, "for": "Current"}}, "timeouts": {"scheduleToClose": "4m"}}),
            5 => json!({"set": {"x": i}, "when": "operation.name != 'resize'"}),
            7 => json!({"signal": {"name": "go", "default": {"by": "default"}}, "timeouts": {"scheduleToClose": "6m"}}),
            9 => json!({"http": {"url": "http://x", "async": true}, "timeouts": {"heartbeat": "10s"}}),
            10 => json!({"http": {"url": "http://x"}, "local": true, "retry": {"maximumAttempts": 4}}),
            8 => json!({"approval": {"message": "may s${string(1)} go on?"}}),
            _ => json!({"kubernetes": {"get": {"resource": {"apiVersion": "v1", "kind": "Pod", "name": "p"}}}, "timeouts": {"scheduleToClose": "5m"}}),
        };
        value["name"] = json!(format!("s{i}"));
        value["needs"] = json!(needs);
        if step.once && (step.kind < 2 || step.kind == 9) {
            value["idempotent"] = json!(false);
        }
        if step.extras & 1 == 1 && (step.kind < 3 || step.kind == 10) {
            value["compensate"] = match step.extras & 2 {
                0 => json!({"http": {"url": "http://undo"}, "retry": {"maximumAttempts": 4}}),
                _ => json!({"job": {"image": "x"}, "timeouts": {"scheduleToClose": "3m"}}),
            };
        }
        if step.extras & 0b110 == 0b110 {
            value["onFailure"] = json!("Continue");
        }
        if step.extras & 0b11000 == 0b11000 {
            value["forEach"] = json!("[1, 2, 3, 4, 5]");
            value["maxParallel"] = json!(2);
            value["maxFailures"] = json!(step.extras >> 7);
        }
        if step.extras & 0b100100 == 0b100100 {
            value = grouped(value, step.extras);
        }
        value
    }).collect();
    let order = if graph { "Graph" } else { "Sequence" };
    let extras = plan.first().map_or(0, |step| step.extras);
    let policy = ["Stop", "Compensate", "Compensate", "Pause"][usize::from(extras >> 6)];
    let mut spec = json!({"order": order, "failurePolicy": policy, "steps": steps});
    if plan.len().is_multiple_of(2) {
        spec["timeout"] = json!("4h"); // without it whatever hangs is seen
    }
    if extras & 0b100000 != 0 {
        spec["finally"] = json!([
            {"name": "tidy", "http": {"url": "http://x/${operation.state}"}, "retry": {"maximumAttempts": 2}},
            {"name": "tell", "http": {"url": "http://x"}, "when": "steps.s0.state == 'Succeeded'"},
        ]);
    }
    serde_json::to_string(&spec).unwrap()
}

/// A step as the first of a group of two.
fn grouped(mut step: serde_json::Value, extras: u8) -> serde_json::Value {
    let name = step["name"].as_str().unwrap_or_default().to_owned();
    let mut group = json!({"timeouts": {"scheduleToClose": "7m"}, "order": if extras & 0b1000 == 0 { "Graph" } else { "Sequence" }});
    let listed = step.get("forEach").is_some();
    let of_group: &[&str] = match listed {
        true => &[
            "name",
            "needs",
            "forEach",
            "maxParallel",
            "maxFailures",
            "onFailure",
            "compensate",
        ],
        false => &["name", "needs", "onFailure"],
    };
    for field in of_group {
        if let Some(value) = step.as_object_mut().and_then(|step| step.remove(*field)) {
            group[*field] = value;
        }
    }
    step["name"] = json!(format!("{name}a"));
    group["output"] = json!({"how": format!("${{steps.{name}a.state}}")});
    let mut other = json!({"name": format!("{name}b"), "http": {"url": "http://x"}, "retry": {"maximumAttempts": 3}});
    if !listed && extras & 1 == 1 {
        other["forEach"] = json!("[1, 2, 3]");
        other["maxParallel"] = json!(2);
    }
    group["steps"] = json!([step, other]);
    group
}

/// What happens next; numbers pick among what is under way.
#[derive(Clone, Debug)]
enum Move {
    Answer { which: prop::sample::Index, how: u8 },
    LoseWrite { which: prop::sample::Index },
    Crash,
    Pass(u64),
    ClockBack(u64),
    Suspend(bool),
    HoldNamespace,
    ReleaseNamespace,
    Cancel(bool),
    Act { which: prop::sample::Index, how: u8 },
    CallBack { which: prop::sample::Index, how: u8 },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        12 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(which, how)| Move::Answer { which, how }),
        2 => any::<prop::sample::Index>().prop_map(|which| Move::LoseWrite { which }),
        3 => Just(Move::Crash),
        5 => (1..400u64).prop_map(Move::Pass),
        1 => (1..400u64).prop_map(Move::ClockBack),
        1 => any::<bool>().prop_map(Move::Suspend),
        1 => Just(Move::HoldNamespace),
        1 => Just(Move::ReleaseNamespace),
        1 => any::<bool>().prop_map(Move::Cancel),
        5 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(which, how)| Move::Act { which, how }),
        3 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(which, how)| Move::CallBack { which, how }),
    ];
    prop::collection::vec(one, 0..40)
}

fn outcome(kind: &WorkKind, job: bool, how: u8) -> AttemptOutcome {
    match kind {
        WorkKind::Stop { .. } if how.is_multiple_of(3) => AttemptOutcome::StopFailed(busy()),
        WorkKind::Stop { .. } => AttemptOutcome::Stopped,
        WorkKind::Attempt if job && how % 4 < 3 => AttemptOutcome::Accepted { external: external() },
        _ => match how % 8 {
            0 => AttemptOutcome::Failed(refused()),
            1 | 2 => AttemptOutcome::Failed(busy()),
            3 | 4 => AttemptOutcome::Failed(no_answer()),
            5 if *kind == WorkKind::Attempt => AttemptOutcome::Aimed { uid: format!("u{how}") },
            _ => AttemptOutcome::Succeeded {
                output: json!({"n": how}).as_object().cloned(),
            },
        },
    }
}

/// Something that a person asks.
fn action(step: &str, how: u8) -> serde_json::Value {
    match how % 12 {
        0 => json!({"signal": {"name": "go", "payload": {"by": "hand"}}}),
        1 => json!({"approve": {"step": step}}),
        2 => json!({"reject": {"step": step}}),
        3 => json!({"retry": {"step": step}}),
        4 => json!({"retry": {}}),
        5 => json!({"retry": {"step": step, "newKey": true}}),
        6 => json!({"retryNow": {"step": step}}),
        7 | 8 => json!({"skip": {"step": step, "output": {"n": 1}}}),
        9 => json!({"complete": {"step": step, "output": {"n": 2}}}),
        10 => json!({"fail": {"step": step}}),
        _ => json!({"reset": {"step": step}}),
    }
}

/// A case with an eye on what may never happen.
struct Watched {
    case: Case,
    workflow: Workflow,
    /// Which process executed which attempt.
    executed: HashMap<(String, i64, i64), String>,
    /// Every accepted decision's inputs, to decide them again.
    accepted: Vec<(Vec<AttemptResult>, Inputs2)>,
    /// Those of the last decision, where it stays unwritten.
    unwritten: Option<(Vec<AttemptResult>, Inputs2)>,
}

/// What may change from one decision to the next, beside the status.
#[derive(Clone)]
struct Inputs2 {
    now: Time,
    runner: String,
    hold: Option<Hold>,
    suspend: Option<bool>,
    cancel: Option<Cancel>,
    actions: Vec<Action>,
    spilled: i64,
    begun: Option<Time>,
}

impl Watched {
    fn new(spec: &str) -> Self {
        let case = case(spec);
        Self {
            workflow: Workflow::compile(&case.spec).unwrap(),
            case,
            executed: HashMap::new(),
            accepted: vec![],
            unwritten: None,
        }
    }

    fn visit(&mut self, results: &[AttemptResult]) -> Result<(), TestCaseError> {
        let before = self.case.status.clone();
        let inputs = Inputs2 {
            now: self.case.now,
            runner: self.case.runner.clone(),
            hold: self.case.hold,
            suspend: self.case.spec.suspend,
            cancel: self.case.spec.cancel.clone(),
            actions: self.case.actions.clone(),
            spilled: self.case.spilled,
            begun: self.case.begun,
        };
        let arrived = [&self.case.arrived[..], results].concat();
        prop_assert_eq!(self.case.decision(&arrived), self.case.decision(&arrived));
        self.case.pass_with(results);
        if self.case.unwritten.is_some() {
            self.unwritten = Some((arrived, inputs));
            return self.only_local_steps_go_on();
        }
        self.unwritten = None;
        self.examine(&before, arrived, inputs)?;
        // A look that has nothing new decides nothing.
        let again = self.case.decision(&[]);
        prop_assert_eq!(&again.status, &self.case.status);
        prop_assert_eq!(again.work, self.case.work.clone());
        Ok(())
    }

    /// What stayed unwritten is written: it took long, or something else is going to be decided on.
    fn write(&mut self) -> Result<(), TestCaseError> {
        let Some((arrived, inputs)) = self.unwritten.take() else {
            return Ok(());
        };
        let before = self.case.status.clone();
        self.case.write();
        self.examine(&before, arrived, inputs)
    }

    /// Whatever is under way is in the accepted status, but for first attempts of local steps that nothing undoes.
    fn only_local_steps_go_on(&self) -> Result<(), TestCaseError> {
        for work in &self.case.work {
            let recorded = self.case.status.steps.iter().find(|s| s.name == work.step);
            let recorded = recorded.filter(|s| (s.epoch, s.attempt) == (work.epoch, work.attempt));
            let flow = self.workflow.step(&work.step).unwrap();
            let local = flow.spec.local == Some(true) && flow.undo.is_none() && work.attempt == 1;
            prop_assert!(
                recorded.is_some() || (local && work.kind == WorkKind::Attempt),
                "{:?} goes on unrecorded",
                work
            );
        }
        Ok(())
    }

    fn examine(
        &mut self,
        before: &OperationStatus,
        arrived: Vec<AttemptResult>,
        inputs: Inputs2,
    ) -> Result<(), TestCaseError> {
        self.accepted.push((arrived, inputs));
        let after = &self.case.status;
        // Every effect has its intent in the accepted status, of this runner, and no attempt runs in two processes.
        for work in &self.case.work {
            let step = after.steps.iter().find(|s| s.name == work.step).unwrap();
            prop_assert_eq!((step.epoch, step.attempt), (work.epoch, work.attempt));
            if work.kind == WorkKind::Attempt && step.state == StepState::Running {
                prop_assert_eq!(step.runner.as_ref(), Some(&self.case.runner));
                let key = (work.step.clone(), work.epoch, work.attempt);
                let by = self.executed.entry(key).or_insert_with(|| self.case.runner.clone());
                prop_assert_eq!(&*by, &self.case.runner, "one attempt of {} in two processes", work.step);
            }
        }
        // Nothing goes on in what has ended.
        let ended = |name| after.steps.iter().any(|s| s.name == name && s.state.is_closed());
        let is_main = |name: &str| self.workflow.step(name).is_some_and(|flow| flow.role == Role::Main);
        let open = after.steps.iter().filter(|step| !step.state.is_closed());
        for step in open.filter(|step| is_main(&step.name)) {
            prop_assert!(
                !wholes(&step.name).any(ended),
                "{} goes on in what has ended",
                step.name
            );
        }
        // What is closed stays as it is, but for a person; numbers only grow; the end is the end; the status stays small.
        let acted = after
            .history
            .iter()
            .any(|e| e.event == HistoryEvent::ActionApplied && e.seq > before.seq);
        for old in &before.steps {
            let Some(new) = after.steps.iter().find(|s| s.name == old.name) else {
                let bad = matches!(old.state, StepState::Failed | StepState::TimedOut);
                let of_item = old.name.contains("]/"); // whose group goes on all the same
                let folded = old.name.contains('[') && (of_item || !bad);
                prop_assert!(folded || after.epoch > before.epoch || acted, "{} is gone", old.name);
                continue;
            };
            prop_assert!(
                (new.epoch, new.attempt) >= (old.epoch, old.attempt),
                "{} went back",
                old.name
            );
            if old.state.is_closed() && !acted {
                prop_assert_eq!(old, new);
            }
        }
        prop_assert!(after.seq >= before.seq && after.epoch >= before.epoch && after.last_time >= before.last_time);
        prop_assert!(after.history.is_sorted_by_key(|e| e.seq) && after.history.is_sorted_by_key(|e| e.time));
        let decided = after
            .history
            .iter()
            .any(|e| e.event == HistoryEvent::ActionRejected && e.seq > before.seq);
        if before.state.is_some_and(|s| s.is_finished()) && !acted && !decided {
            prop_assert_eq!(before, after);
        }
        let kept = |e: &crate::api::HistoryEntry| after.history.contains(e) || self.case.chunks.contains(e);
        prop_assert!(before.history.iter().all(kept), "an entry of the history is lost");
        let seqs = self.case.chunks.iter().chain(&after.history).map(|e| e.seq);
        prop_assert!(seqs.eq(1..=after.seq), "the history has gaps");
        let size = serde_json::to_string(after).unwrap().len();
        prop_assert!(size <= MAX_STATUS, "{} bytes", size);
        Ok(())
    }

    fn result(&self, which: prop::sample::Index, how: u8) -> Option<AttemptResult> {
        let work = (!self.case.work.is_empty()).then(|| &self.case.work[which.index(self.case.work.len())])?;
        let flow = self.case.spec.steps.iter().find(|step| step.name == work.step);
        let job =
            self.workflow.step(&work.step)?.step_type.goes_on_by_itself() || flow.is_some_and(|step| step.is_async());
        Some(AttemptResult {
            step: work.step.clone(),
            epoch: work.epoch,
            attempt: work.attempt,
            outcome: outcome(&work.kind, job, how),
        })
    }

    /// A callback about a step that asks for them, whatever became of its attempt.
    fn callback(&self, which: prop::sample::Index, how: u8) -> Option<AttemptResult> {
        let asks = |entry: &&StepStatus| {
            let step = self
                .case
                .spec
                .steps
                .iter()
                .find(|s| s.name == split_item(&entry.name).0);
            entry.items.is_none() && step.is_some_and(|step| step.is_async()) // a list calls nobody
        };
        let steps: Vec<_> = self.case.status.steps.iter().filter(asks).collect();
        let step = (!steps.is_empty()).then(|| steps[which.index(steps.len())])?;
        let (completes, said) = match how % 4 {
            0 => (None, Err(refused())),
            1 | 2 => (None, Err(busy())),
            _ => (Some(format!("d{how}")), Ok(json!({"n": how}).as_object().cloned())),
        };
        Some(AttemptResult {
            step: step.name.clone(),
            epoch: step.epoch,
            attempt: step.attempt,
            outcome: AttemptOutcome::CalledBack(Callback {
                run: step.failures - i64::from(how >= 250),
                completes,
                said,
            }),
        })
    }

    fn make(&mut self, step: &Move) -> Result<(), TestCaseError> {
        let alone = matches!(
            step,
            Move::Answer { .. } | Move::CallBack { .. } | Move::ClockBack(_) | Move::Pass(1)
        );
        if matches!(step, Move::LoseWrite { .. } | Move::Crash) {
            self.unwritten = None;
        } else if !alone {
            self.write()?;
        }
        match step {
            Move::CallBack { which, how } => {
                let results: Vec<_> = self.callback(*which, *how).into_iter().collect();
                return self.visit(&results);
            }
            Move::Answer { which, how } => {
                let results: Vec<_> = self.result(*which, *how).into_iter().collect();
                return self.visit(&results);
            }
            Move::LoseWrite { which } => {
                // The write never happened; the process decided for nothing, and dies.
                let results: Vec<_> = self.result(*which, 7).into_iter().collect();
                let _ = self.case.decision(&results);
                self.case.crash();
            }
            Move::Crash => {
                self.case.crash();
            }
            Move::Pass(seconds) => self.case.now = self.case.now.plus(Duration::from_secs(*seconds)),
            Move::ClockBack(seconds) => {
                let back = self.case.now.timestamp()
                    - k8s_openapi::jiff::SignedDuration::from_secs(i64::try_from(*seconds).unwrap());
                self.case.now = Time::new(back);
            }
            Move::Suspend(on) => self.case.spec.suspend = Some(*on),
            Move::HoldNamespace if self.case.hold.is_none_or(|h| h.until.is_some()) => {
                self.case.hold = Some(Hold {
                    since: self.case.now,
                    until: None,
                });
            }
            Move::ReleaseNamespace => {
                let now = self.case.now;
                self.case.hold = self.case.hold.map(|hold| Hold {
                    until: hold.until.or(Some(now.max(hold.since))),
                    ..hold
                });
            }
            Move::HoldNamespace => {}
            Move::Cancel(undo) => {
                self.case.spec.cancel.get_or_insert(Cancel {
                    mode: undo.then_some(CancelMode::Compensate),
                    reason: None,
                });
            }
            Move::Act { which, how } => {
                let steps: Vec<String> = self.case.status.steps.iter().map(|step| step.name.clone()).collect();
                if !steps.is_empty() {
                    self.case.ask(action(&steps[which.index(steps.len())], *how));
                }
            }
        }
        self.visit(&[])
    }

    /// No more faults: everything is answered well, time passes when nothing else does, and a person cancels what is stuck.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        self.case.spec.suspend = Some(false);
        self.make(&Move::ReleaseNamespace)?;
        for _ in 0..500 {
            if self.case.status.state.is_some_and(|s| s.is_finished()) {
                return Ok(());
            }
            if let Some(work) = self.case.work.first().cloned() {
                let job = self
                    .workflow
                    .step(&work.step)
                    .is_some_and(|flow| flow.step_type.goes_on_by_itself());
                let outcome = match work.kind {
                    WorkKind::Stop { .. } => AttemptOutcome::Stopped,
                    WorkKind::Attempt if job => AttemptOutcome::Accepted { external: external() },
                    _ => AttemptOutcome::Succeeded { output: None },
                };
                self.visit(&[AttemptResult {
                    step: work.step,
                    epoch: work.epoch,
                    attempt: work.attempt,
                    outcome,
                }])?;
            } else if self.unwritten.is_some() {
                self.write()?;
            } else if let Some(wake) = self.case.wake {
                self.case.now = self.case.now.max(wake);
                self.visit(&[])?;
            } else {
                let asks = |s: &StepStatus| {
                    matches!(s.step_type, StepType::Signal | StepType::Approval) && s.state == StepState::Waiting
                };
                prop_assert!(
                    self.case.status.state == Some(OperationState::Stuck) || self.case.status.steps.iter().any(asks),
                    "nothing to do and nothing to wait for: {:?}",
                    self.case.status
                );
                self.case.spec.cancel = Some(Cancel::default());
                self.visit(&[])?;
            }
        }
        prop_assert!(false, "it never ends: {:?}", self.case.status);
        Ok(())
    }

    /// Deciding everything again, from nothing, gives the same status.
    fn replay(&self) -> Result<(), TestCaseError> {
        let mut again = case("steps: []");
        again.spec = self.case.spec.clone();
        for (results, inputs) in &self.accepted {
            again.now = inputs.now;
            again.runner.clone_from(&inputs.runner);
            again.hold = inputs.hold;
            again.spec.suspend = inputs.suspend;
            again.spec.cancel.clone_from(&inputs.cancel);
            again.actions.clone_from(&inputs.actions);
            again.spilled = inputs.spilled;
            again.begun = inputs.begun;
            again.visit_with(results);
        }
        prop_assert_eq!(&again.status, &self.case.status);
        Ok(())
    }
}

#[test]
fn every_history_keeps_the_invariants_ends_and_replays_and_all_transitions_are_taken() {
    // One seeded run in one thread, so that what it covers is the same every time.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(
        Config {
            cases: 450,
            failure_persistence: None,
            ..Config::default()
        },
        rng,
    );
    runner
        .run(&(workflows(), moves()), |((graph, steps), moves)| {
            let mut watched = Watched::new(&spec(graph, &steps));
            watched.visit(&[])?;
            for step in &moves {
                watched.make(step)?;
            }
            watched.settle()?;
            watched.replay()
        })
        .unwrap();
    // What random histories don't bring about.
    super::scenarios::rare();
    super::schedule::tests::all_transitions();
    report();
}

/// Every transition of the engine's machines was taken, and no other.
fn report() {
    let mut report = Report::default();
    let starts = STARTS.iter().map(|state| coverage::start(*state));
    let steps: Vec<_> = starts.chain(rows(TRANSITIONS)).collect();
    report.machine("step", &steps, &coverage::taken("step"));
    let decided = operations().filter(|(_, event, _)| *event == OperationEvent::Decide);
    let decided: Vec<_> = decided.map(|(from, event, to)| of_operation(from, event, to)).collect();
    report.machine("operation", &decided, &coverage::taken("operation"));
    let actions = coverage::VERBS
        .iter()
        .flat_map(|verb| [ActionState::Applied, ActionState::Rejected].map(|state| coverage::action(verb, state)));
    report.machine("action", &actions.collect::<Vec<_>>(), &coverage::taken("action"));
    report.machine("due time", &rows(DUE_TIMES), &coverage::taken("due time"));
    let reasons = || Readiness::ALL.into_iter();
    let schedules = std::iter::once(None).chain(reasons().map(Some)).flat_map(|from| {
        let others = reasons().filter(move |to| from != Some(*to));
        others.map(move |to| coverage::schedule(from, to))
    });
    report.machine("schedule", &schedules.collect::<Vec<_>>(), &coverage::taken("schedule"));
    report.conclude();
}
