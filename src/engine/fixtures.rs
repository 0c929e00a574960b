//! A case for the engine's tests: an operation, its accepted status, a clock, and a process that may die.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::transitions::coverage;
use super::*;
use crate::api::{
    ActionState, CloudOperationSpec, ExternalRef, HistoryEntry, OperationState, OperationStatus, StepState, StepStatus,
    Time,
};

/// One operation and all that happens to it.
pub struct Case {
    pub identity: Identity,
    pub spec: CloudOperationSpec,
    pub status: OperationStatus,
    pub now: Time,
    pub runner: String,
    pub hold: Option<Hold>,
    pub actions: Vec<Action>,
    asked: usize,
    pub spilled: i64,
    /// What is in OperationHistory objects.
    pub chunks: Vec<HistoryEntry>,
    pub limited: bool,
    pub draining: bool,
    /// What was decided last, where it could stay unwritten, and what had arrived by then.
    pub unwritten: Option<Decision>,
    /// When the operation started, where that could stay unwritten.
    pub begun: Option<Time>,
    pub arrived: Vec<AttemptResult>,
    pub work: Vec<Work>,
    pub wake: Option<Time>,
    pub deleted: bool,
    /// How many statuses were written.
    pub writes: usize,
    compiled: RefCell<Option<Compiled>>,
}

/// A compiled spec, with its digest.
type Compiled = (String, Rc<Result<Workflow, InvalidSpec>>);

pub fn case(spec: &str) -> Case {
    let spec: CloudOperationSpec = serde_yaml::from_str(spec).unwrap();
    Case {
        identity: Identity {
            namespace: "prod".into(),
            name: "resize".into(),
            uid: "u1".into(),
            generation: Some(1),
            ..Identity::default()
        },
        spec,
        status: OperationStatus::default(),
        now: Time::new("2026-11-24T03:00:00Z".parse().unwrap()),
        runner: "a".into(),
        hold: None,
        actions: vec![],
        asked: 0,
        spilled: 0,
        chunks: vec![],
        limited: false,
        draining: false,
        unwritten: None,
        begun: None,
        arrived: vec![],
        work: vec![],
        wake: None,
        deleted: false,
        writes: 0,
        compiled: RefCell::default(),
    }
}

impl Case {
    /// From now on the spec is refused with these words, as by a version that checks more; or, without, taken again.
    pub fn is_refused(&mut self, words: Option<&str>) -> &mut Self {
        if let Some((_, workflow)) = self.compiled.get_mut() {
            let refused = words.map(|words| InvalidSpec {
                field: "spec.input".into(),
                message: words.into(),
            });
            *workflow = Rc::new(refused.map_or_else(|| Workflow::compile(&self.spec), Err));
        }
        self
    }

    /// What would be decided now.
    pub fn decision(&self, results: &[AttemptResult]) -> Decision {
        let digest = spec_digest(&self.spec);
        let mut compiled = self.compiled.borrow_mut();
        let known = compiled.take().filter(|(of, _)| *of == digest);
        let known = known.unwrap_or_else(|| (digest.clone(), Rc::new(Workflow::compile(&self.spec))));
        let workflow = compiled.insert(known).1.clone();
        let inputs = Inputs {
            identity: &self.identity,
            spec: &self.spec,
            spec_digest: &digest,
            workflow: (*workflow).as_ref(),
            results,
            actions: &self.actions,
            spilled: self.spilled,
            unspilled: None,
            namespace_hold: self.hold,
            refused: None,
            limited: self.limited,
            begun: self.begun,
            draining: self.draining,
            runner: &self.runner,
            now: self.now,
        };
        let decision = decide(&self.status, &inputs);
        coverage::decided(&self.status, &inputs, &decision.status);
        decision
    }

    /// Decides, and accepts the write.
    pub fn visit_with(&mut self, results: &[AttemptResult]) -> &mut Self {
        let decision = self.decision(results);
        self.accepted(decision)
    }

    /// Decides, and accepts the write, unless it is none that has to be.
    pub fn pass_with(&mut self, results: &[AttemptResult]) -> &mut Self {
        self.arrived.extend_from_slice(results);
        let decision = self.decision(&self.arrived);
        if decision.status == self.status || decision.durable {
            return self.accepted(decision);
        }
        self.work.clone_from(&decision.work);
        self.wake = decision.wake;
        self.begun = decision.status.start_time;
        self.unwritten = Some(decision);
        self
    }

    /// What stayed unwritten is written, as it was decided.
    pub fn write(&mut self) -> &mut Self {
        match self.unwritten.take() {
            Some(decision) => self.accepted(decision),
            None => self,
        }
    }

    fn accepted(&mut self, decision: Decision) -> &mut Self {
        self.unwritten = None;
        self.begun = None;
        self.arrived.clear();
        self.writes += usize::from(decision.status != self.status);
        self.work = decision.work;
        self.wake = decision.wake;
        self.deleted = decision.delete;
        // As through the API server: only what survives JSON is accepted.
        self.status = serde_json::from_value(serde_json::to_value(&decision.status).unwrap()).unwrap();
        assert_eq!(self.status, decision.status, "a status reads back as it was written");
        if let Some(chunk) = chunk(&self.status).filter(|chunk| chunk[0].seq > self.spilled) {
            self.spilled = chunk.last().unwrap().seq;
            self.chunks.extend_from_slice(chunk);
            return self.visit();
        }
        self
    }

    pub fn visit(&mut self) -> &mut Self {
        self.visit_with(&[])
    }

    pub fn result(&self, step: &str, outcome: AttemptOutcome) -> AttemptResult {
        let entry = self.step(step);
        AttemptResult {
            step: step.into(),
            epoch: entry.epoch,
            attempt: entry.attempt,
            outcome,
        }
    }

    pub fn answer(&mut self, step: &str, outcome: AttemptOutcome) -> &mut Self {
        let result = self.result(step, outcome);
        self.visit_with(&[result])
    }

    pub fn succeed(&mut self, step: &str, output: Value) -> &mut Self {
        self.answer(
            step,
            AttemptOutcome::Succeeded {
                output: output.as_object().cloned(),
            },
        )
    }

    pub fn fail(&mut self, step: &str, failure: AttemptFailure) -> &mut Self {
        self.answer(step, AttemptOutcome::Failed(failure))
    }

    pub fn accept(&mut self, step: &str) -> &mut Self {
        self.answer(step, AttemptOutcome::Accepted { external: external() })
    }

    /// A person whom admission knows asks for something.
    pub fn ask(&mut self, what: Value) -> &mut Self {
        self.ask_as("alice", &[], what)
    }

    pub fn ask_as(&mut self, user: &str, groups: &[&str], what: Value) -> &mut Self {
        let mut spec = json!({"operationRef": {"name": "resize"}, "requestedBy": {"user": user, "groups": groups}});
        spec.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        // What was decided says so by now.
        self.actions
            .retain(|action| self.status.actions.iter().all(|decided| decided.uid != action.uid));
        self.asked += 1;
        self.actions.push(Action {
            name: format!("resize-{}", self.asked),
            uid: format!("a{}", self.asked),
            created: None,
            verified: true,
            spec: serde_json::from_value(spec).unwrap(),
        });
        self
    }

    /// Asks for something, and answers what came of it.
    pub fn asks(&mut self, what: Value) -> (ActionState, String) {
        self.ask(what).visit();
        self.came_of_it()
    }

    pub fn came_of_it(&self) -> (ActionState, String) {
        let decided = self.status.actions.last().expect("it was decided on");
        (decided.state, decided.message.clone())
    }

    /// Time passes, and the operation is looked at when it asked to be.
    pub fn later(&mut self, duration: Duration) -> &mut Self {
        self.now = self.now.plus(duration);
        self.visit()
    }

    /// The process dies; another takes over.
    pub fn crash(&mut self) -> &mut Self {
        self.runner.push('\'');
        self.work.clear();
        self.unwritten = None;
        self.begun = None;
        self.arrived.clear();
        self
    }

    #[track_caller]
    pub fn step(&self, name: &str) -> &StepStatus {
        self.status
            .steps
            .iter()
            .find(|s| s.name == name)
            .unwrap_or_else(|| panic!("step {name} was not started"))
    }

    #[track_caller]
    pub fn assert_step(&self, name: &str, state: StepState, attempt: i64) -> &Self {
        assert_eq!(
            (self.step(name).state, self.step(name).attempt),
            (state, attempt),
            "{name}"
        );
        self
    }

    #[track_caller]
    pub fn assert_state(&self, state: OperationState) -> &Self {
        assert_eq!(self.status.state, Some(state), "{}", self.message());
        self
    }

    pub fn message(&self) -> String {
        self.condition("Succeeded").1
    }

    /// A condition's value and message.
    pub fn condition(&self, kind: &str) -> (String, String) {
        let condition = self.status.conditions.iter().find(|c| c.type_ == kind).unwrap();
        (condition.status.clone(), condition.message.clone())
    }

    pub fn events(&self) -> Vec<String> {
        self.chunks
            .iter()
            .chain(&self.status.history)
            .map(|e| {
                format!(
                    "{:?}{}",
                    e.event,
                    e.step.as_ref().map(|s| format!(" {s}")).unwrap_or_default()
                )
            })
            .collect()
    }
}

/// The stop of what a step started, or may have started, in an operation that undoes nothing.
pub fn stop(external: Option<ExternalRef>) -> WorkKind {
    WorkKind::Stop {
        external,
        undoes: false,
    }
}

pub fn external() -> ExternalRef {
    ExternalRef {
        kind: "Job".into(),
        name: "resize-1".into(),
        uid: "j1".into(),
    }
}

/// The workflow of the design's example: three calls in a row.
pub const THREE_CALLS: &str = "
steps:
- {name: describe, http: {url: 'http://inventory'}, output: {size: '${result.body.size}'}}
- {name: resize, http: {method: POST, url: 'http://inventory/resize', body: {was: '${steps.describe.output.size}'}}}
- {name: check, http: {url: 'http://inventory'}}
";

pub fn busy() -> AttemptFailure {
    AttemptFailure {
        effect: Effect::None,
        ..AttemptFailure::retryable("HttpStatus", "503 Service Unavailable")
    }
}

pub fn refused() -> AttemptFailure {
    AttemptFailure::definite("HttpStatus", "422: the group is frozen")
}

pub fn no_answer() -> AttemptFailure {
    AttemptFailure::unknown("NoAnswer", "the connection was closed")
}

pub fn nothing() -> Value {
    json!({})
}
