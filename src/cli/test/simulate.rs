//! An operation under simulated time: the engine decides, mocks answer, and the clock jumps to what comes next.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::{Map, Value};

use super::file::{Answer, Answers, Event};
use crate::activities::callbacks::Callbacks;
use crate::activities::http::{HttpActivity, SendError, TargetPolicy, Transport, WireRequest, WireResponse};
use crate::activities::{AttemptContext, Claim};
use crate::api::{
    CloudOperationSpec, ExternalRef, HistoryEntry, Http, OperationState, OperationStatus, StepState, StepType, Time,
};
use crate::engine::{
    self, Action, AttemptFailure, AttemptOutcome, AttemptResult, Effect, IdempotencyKey, Identity, Inputs, InvalidSpec,
    Outcome, RetryAdvice, Work, WorkKind, Workflow, WorkflowStep,
};

/// After so many decisions an operation is taken for one that never ends.
const MOST_PASSES: usize = 200_000;

/// What is simulated.
pub struct Simulation<'a> {
    /// The operation's name.
    pub name: &'a str,
    /// Its spec, with the template filled in.
    pub spec: CloudOperationSpec,
    /// The spec made ready to run, or why it can't be.
    pub workflow: Result<Workflow, InvalidSpec>,
    /// When it starts.
    pub start: Time,
    /// What answers.
    pub mocks: &'a BTreeMap<String, Answers>,
    /// What happens meanwhile.
    pub events: &'a [Event],
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Simulated {
    /// The operation's status at the end.
    pub status: OperationStatus,
    /// All of its history.
    pub history: Vec<HistoryEntry>,
    /// What was sent, by step, in the order of the attempts.
    pub calls: BTreeMap<String, Vec<Value>>,
    /// The steps in the order of their starts.
    pub order: Vec<String>,
    /// When it was over.
    pub end: Option<Time>,
    /// Why it could not be simulated, or not as the test says.
    pub problems: Vec<String>,
}

/// Something under way: when it ends, and with what.
struct Flight {
    due: Time,
    outcome: Option<AttemptOutcome>,
}

struct Run<'a> {
    simulation: &'a Simulation<'a>,
    identity: Identity,
    spec: CloudOperationSpec,
    now: Time,
    /// The status that was written last.
    accepted: OperationStatus,
    /// What arrived since.
    arrived: Vec<AttemptResult>,
    actions: Vec<Action>,
    flights: HashMap<Work, Flight>,
    /// What Jobs and child operations come to that were started.
    started: HashMap<(String, i64, i64), Flight>,
    spilled: i64,
    came: Simulated,
}

/// Runs an operation until it has ended, and all events are over, or nothing happens any more.
pub async fn simulate(simulation: &Simulation<'_>) -> Simulated {
    let mut run = Run {
        identity: Identity {
            namespace: "test".into(),
            name: simulation.name.into(),
            uid: "00000000-0000-0000-0000-000000000000".into(),
            generation: Some(1),
            ..Identity::default()
        },
        simulation,
        spec: simulation.spec.clone(),
        now: simulation.start,
        accepted: OperationStatus::default(),
        arrived: vec![],
        actions: vec![],
        flights: HashMap::new(),
        started: HashMap::new(),
        spilled: 0,
        came: Simulated::default(),
    };
    run.run().await;
    let Run { mut came, now, .. } = run;
    let tail = came.status.history.iter().filter(|entry| entry.seq > run.spilled);
    came.history.extend(tail.cloned());
    came.end = Some(came.status.completion_time.unwrap_or(now));
    came
}

impl Run<'_> {
    async fn run(&mut self) {
        // Against what changes afterwards the engine is guarded; a test may hold or cancel.
        let digest = engine::spec_digest(&self.spec);
        let mut events: Vec<&Event> = self.simulation.events.iter().collect();
        events.sort_by_key(|event| after(event));
        events.reverse();
        for _ in 0..MOST_PASSES {
            while let Some(event) = events.pop_if(|event| self.simulation.start.plus(after(event)) <= self.now) {
                self.happens(event);
            }
            self.land();
            let decision = engine::decide(
                &self.accepted,
                &Inputs {
                    identity: &self.identity,
                    spec: &self.spec,
                    spec_digest: &digest,
                    workflow: self.simulation.workflow.as_ref(),
                    results: &self.arrived,
                    actions: &self.actions,
                    spilled: self.spilled,
                    unspilled: None,
                    namespace_hold: None,
                    refused: None,
                    limited: false,
                    begun: None,
                    draining: false,
                    runner: "test",
                    now: self.now,
                },
            );
            self.note(&decision.status);
            // Also what could stay unwritten for a while: nothing but the number of writes depends on it.
            self.accepted = decision.status.clone();
            self.arrived.clear();
            self.answer_actions();
            if let Some(chunk) = engine::chunk(&self.accepted).filter(|chunk| chunk[0].seq > self.spilled) {
                self.spilled = chunk.last().map_or(self.spilled, |entry| entry.seq);
                self.came.history.extend_from_slice(chunk);
                continue;
            }
            self.came.status = decision.status;
            self.flights.retain(|work, _| decision.work.contains(work));
            for work in decision.work {
                if !self.flights.contains_key(&work)
                    && let Err(problem) = self.launch(work).await
                {
                    return self.came.problems.push(problem);
                }
            }
            let finished = self.came.status.state.is_some_and(OperationState::is_finished);
            if decision.delete || (finished && events.is_empty()) {
                return;
            }
            let landing = self
                .flights
                .values()
                .filter(|flight| flight.outcome.is_some())
                .map(|flight| flight.due);
            let event = events.last().map(|event| self.simulation.start.plus(after(event)));
            match landing.chain(event).chain(decision.wake).min() {
                Some(next) => self.now = self.now.max(next),
                None => return,
            }
        }
        self.came.problems.push(format!(
            "it goes on and on: stopped after {MOST_PASSES} decisions, {} after the start",
            crate::cli::times::short(self.now.since(self.simulation.start))
        ));
    }

    /// Something happens to the operation.
    fn happens(&mut self, event: &Event) {
        if let Some(cancel) = &event.cancel {
            self.spec.cancel = Some(cancel.clone());
        }
        if event.suspend.is_some() {
            self.spec.suspend = event.suspend;
        }
        let number = self
            .simulation
            .events
            .iter()
            .position(|other| std::ptr::eq(other, event));
        let name = format!("events[{}]", number.unwrap_or_default());
        match event.spec(self.simulation.name) {
            Ok(Some(spec)) => self.actions.push(Action {
                uid: name.clone(),
                name,
                created: Some(self.now),
                verified: true,
                spec,
            }),
            Ok(None) => {}
            Err(problem) => self.came.problems.push(format!("{name}: {problem}")),
        }
    }

    /// What was decided on by an accepted write says so itself by now.
    fn answer_actions(&mut self) {
        for decided in &self.accepted.actions {
            let Some(i) = self.actions.iter().position(|action| action.uid == decided.uid) else {
                continue;
            };
            self.actions.remove(i);
            let index = decided
                .name
                .trim_start_matches("events[")
                .trim_end_matches(']')
                .parse::<usize>();
            let event = index.ok().and_then(|index| self.simulation.events.get(index));
            let rejected = decided.state == crate::api::ActionState::Rejected;
            if event.is_some_and(|event| event.rejected != rejected) {
                let what = if rejected {
                    "was rejected"
                } else {
                    "was to be rejected, and was applied"
                };
                self.came
                    .problems
                    .push(format!("{}: {what}: {}", decided.name, decided.message));
            }
        }
    }

    /// What is due arrives, in the order of its times.
    fn land(&mut self) {
        let mut due: Vec<(&Work, &mut Flight)> = self
            .flights
            .iter_mut()
            .filter(|(_, flight)| flight.outcome.is_some() && flight.due <= self.now)
            .collect();
        due.sort_by(|(a, one), (b, other)| (one.due, &a.step).cmp(&(other.due, &b.step)));
        for (work, flight) in due {
            self.arrived.extend(flight.outcome.take().map(|outcome| AttemptResult {
                step: work.step.clone(),
                epoch: work.epoch,
                attempt: work.attempt,
                outcome,
            }));
        }
    }

    /// Notes which steps have started.
    fn note(&mut self, status: &OperationStatus) {
        let mut fresh: Vec<_> = status
            .steps
            .iter()
            .filter(|step| !self.came.order.contains(&step.name))
            .collect();
        fresh.sort_by_key(|step| step.start_seq);
        let fresh: Vec<String> = fresh.into_iter().map(|step| step.name.clone()).collect();
        self.came.order.extend(fresh);
    }

    /// Starts a piece of work: it ends when the mock says so.
    async fn launch(&mut self, work: Work) -> Result<(), String> {
        let at = (work.step.clone(), work.epoch, work.attempt);
        let flight = match &work.kind {
            WorkKind::Stop { .. } => Flight {
                due: self.now,
                outcome: Some(AttemptOutcome::Stopped),
            },
            WorkKind::Follow(_) => match self.started.remove(&at) {
                Some(flight) => flight,
                None => return Err(format!("step {}: what it started isn't known", work.step)), // not reached
            },
            WorkKind::Attempt => self.attempt(&work).await?,
        };
        self.flights.insert(work, flight);
        Ok(())
    }

    async fn attempt(&mut self, work: &Work) -> Result<Flight, String> {
        let Ok(workflow) = &self.simulation.workflow else {
            return Err("it can't be executed".into()); // not reached: nothing of it starts
        };
        let flow = workflow
            .step(&work.step)
            .ok_or_else(|| format!("there is no step {}", work.step))?;
        let (key, status) = (
            IdempotencyKey::new(&self.identity.uid, &work.step, work.epoch),
            &self.came.status,
        );
        let scope = engine::scope(workflow, flow, &work.step, &self.identity, &self.spec, status);
        let scope = scope.map_err(|error| error.to_string())?;
        let request = engine::request(flow, &scope, &key)
            .map_err(|error| error.to_string())?
            .value;
        let entry = status.steps.iter().find(|step| step.name == work.step);
        let context = AttemptContext {
            namespace: self.identity.namespace.clone(),
            operation: self.identity.name.clone(),
            service_account: self.spec.service_account().to_owned(),
            operation_uid: self.identity.uid.clone(),
            step: work.step.clone(),
            attempt: work.attempt,
            key,
            failures: entry.map_or(0, |step| step.failures),
            maybe_done: entry.is_some_and(|step| step.maybe_done),
            undoes: false,
            sensitive: flow.spec.sensitive == Some(true),
            writes_secret: flow.spec.output_secret.is_some(),
            result_counts: flow.result_counts(),
            scope,
            kubernetes: nobody(),
            claim: Arc::new(Always),
            target: None,
        };
        let calls = self.came.calls.entry(work.step.clone()).or_default();
        let mocked = self.simulation.mocks.get(&work.step);
        let mocked = mocked.or_else(|| self.simulation.mocks.get(&flow.name));
        let Some(answer) = mocked.and_then(|answers| answers.at(calls.len())) else {
            return Err(unmocked(flow, &work.step, &request));
        };
        calls.push(request.clone());
        let outcome = outcome(flow, &context, request, answer).await?;
        let delay = answer.delay.as_ref().map(|delay| delay.get()).unwrap_or_default();
        // The other side says at once that it took the work, and calls back.
        if flow.step_type.goes_on_by_itself() || flow.spec.is_async() {
            let timeouts = flow.spec.timeouts.as_ref();
            let silence = timeouts.and_then(|timeouts| timeouts.heartbeat.as_ref());
            let silence = silence.map(|limit| {
                (
                    limit.get(),
                    "HeartbeatTimeout",
                    "no heartbeat within timeouts.heartbeat",
                )
            });
            let flight = self.lands(delay, silence, outcome);
            self.started
                .insert((work.step.clone(), work.epoch, work.attempt), flight);
            let kind = match flow.step_type {
                StepType::Job => "Job",
                StepType::Http => "Callback",
                _ => "CloudOperation",
            };
            return Ok(Flight {
                due: self.now,
                outcome: Some(AttemptOutcome::Accepted {
                    external: ExternalRef {
                        kind: kind.into(),
                        name: format!("{}-{}", self.identity.name, work.step),
                        uid: format!("{}/{}", work.step, work.attempt),
                    },
                }),
            });
        }
        let limit = engine::start_to_close(&flow.spec);
        let limit = limit.map(|limit| (limit, "StartToClose", "no answer within timeouts.startToClose"));
        Ok(self.lands(delay, limit, outcome))
    }

    /// What comes of work after this delay: its outcome, or that it took longer than a limit, with the reason and what is
    /// said of that.
    fn lands(
        &self,
        delay: std::time::Duration,
        limit: Option<(std::time::Duration, &str, &str)>,
        outcome: AttemptOutcome,
    ) -> Flight {
        let (after, outcome) = match limit.filter(|(limit, ..)| delay > *limit) {
            None => (delay, outcome),
            Some((limit, reason, said)) => {
                let failure = AttemptFailure::unknown(reason, format!("{said} ({limit:?})"));
                (limit, AttemptOutcome::Failed(failure))
            }
        };
        Flight {
            due: self.now.plus(after),
            outcome: Some(outcome),
        }
    }
}

fn after(event: &Event) -> std::time::Duration {
    event.after.as_ref().map(|after| after.get()).unwrap_or_default()
}

/// Says which step has no answer, and what to add.
fn unmocked(flow: &WorkflowStep, name: &str, request: &Value) -> String {
    let (call, result) = match flow.step_type {
        StepType::Http => {
            let method = request["method"].as_str().unwrap_or("GET");
            (
                format!("calls {method} {}", request["url"].as_str().unwrap_or_default()),
                "{status: 200, body: {}}",
            )
        }
        StepType::Job => ("runs a Job".into(), "{}"),
        StepType::Operation => ("runs an operation".into(), "{}"),
        _ => (format!("asks {request}"), "{}"),
    };
    format!("step {name} {call}, and nothing answers: add to mocks:\n  {name}:\n  - result: {result}")
}

/// What an attempt comes to, as the operator records it.
///
/// # Errors
/// When the mock is no answer to such a step.
async fn outcome(
    flow: &WorkflowStep,
    context: &AttemptContext,
    request: Value,
    answer: &Answer,
) -> Result<AttemptOutcome, String> {
    if let Some(failure) = &answer.failure {
        return Ok(AttemptOutcome::Failed(AttemptFailure {
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            effect: if failure.unknown { Effect::Unknown } else { Effect::None },
            retry: if failure.retryable {
                RetryAdvice::Backoff
            } else {
                RetryAdvice::Never
            },
        }));
    }
    if answer.output.is_some() {
        return Ok(AttemptOutcome::Succeeded {
            output: answer.output.clone(),
        });
    }
    let mut result = answer.result.clone().unwrap_or_default();
    if flow.step_type == StepType::Http {
        let answer: HttpAnswer = match result {
            Value::Null => HttpAnswer::default(),
            result => {
                let wrong = |error| {
                    format!(
                        "mocks.{}: the result of an http step is {{status, headers, body}}: {error}",
                        context.step
                    )
                };
                serde_json::from_value(result).map_err(wrong)?
            }
        };
        match judged(context, request, answer).await {
            Outcome::Failed(failure) => return Ok(AttemptOutcome::Failed(failure)),
            Outcome::Succeeded { result: judged, .. } => result = judged,
            Outcome::Accepted { .. } => result = Value::Null, // not reached: `async` was taken out of the request
        }
    }
    let output = flow.spec.output.as_ref();
    Ok(
        match engine::output(
            &flow.field,
            output,
            &context.scope,
            &result,
            context.attempt,
            &context.key,
        ) {
            Ok(None) if flow.step_type.goes_on_by_itself() => AttemptOutcome::Succeeded {
                output: result.as_object().cloned(),
            },
            Ok(output) => AttemptOutcome::Succeeded { output },
            Err(error) => AttemptOutcome::Failed(AttemptFailure::done("InvalidExpression", error.to_string())),
        },
    )
}

/// What the operator makes of an answer to an http step.
async fn judged(context: &AttemptContext, mut request: Value, answer: HttpAnswer) -> Outcome {
    // There are no Secrets here; and what is answered is what a callback would say.
    if let Some(fields) = request.as_object_mut() {
        fields.remove("async");
        fields.remove("auth");
        fields.remove("tls");
        if let Some(headers) = fields.get_mut("headers").and_then(Value::as_array_mut) {
            headers.retain(|header| header.get("valueFrom").is_none());
        }
    }
    let request: Http = match serde_json::from_value(request) {
        Ok(request) => request,
        Err(error) => return Outcome::Failed(AttemptFailure::definite("InvalidRequest", error.to_string())),
    };
    let policy = Arc::new(TargetPolicy {
        cluster_domain: "cluster.local".into(),
        allowed: vec![],
        never: vec![],
    });
    let activity = HttpActivity::new(Arc::new(answer), Arc::new(Callbacks::new(nobody(), "test", None)));
    activity
        .run(context, &request, &policy.for_namespace(&context.namespace, None))
        .await
}

/// A service that answers what a mock says.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpAnswer {
    #[serde(deserialize_with = "status")]
    status: StatusCode,
    headers: Map<String, Value>,
    body: Value,
}

fn status<'de, D: Deserializer<'de>>(number: D) -> Result<StatusCode, D::Error> {
    let number = u16::deserialize(number)?;
    StatusCode::from_u16(number).map_err(|_| D::Error::custom(format!("{number} is no status of an answer")))
}

impl Transport for HttpAnswer {
    fn send(&self, _: WireRequest) -> BoxFuture<'_, Result<WireResponse, SendError>> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        let body = match &self.body {
            Value::Null => vec![],
            Value::String(text) => text.clone().into_bytes(),
            json => {
                headers
                    .entry("content-type")
                    .or_insert(HeaderValue::from_static("application/json"));
                json.to_string().into_bytes()
            }
        };
        let answer = WireResponse {
            status: self.status,
            headers,
            body: body.into(),
            truncated: false,
        };
        Box::pin(std::future::ready(Ok(answer)))
    }
}

struct Always;

impl Claim for Always {
    fn is_held(&self) -> bool {
        true
    }
}

/// A cluster that nobody can reach.
fn nobody() -> Client {
    let service = tower::service_fn(|_: http::Request<Body>| async {
        Err::<http::Response<Body>, _>(std::io::Error::other("there is no cluster in a test"))
    });
    Client::new(service, "test")
}

impl Simulated {
    /// The state of a step or an item, and what is recorded of it; `None` if it never started.
    pub fn step(&self, name: &str) -> Option<(StepState, Option<Value>)> {
        let entry = |name: &str| self.status.steps.iter().find(|step| step.name == name);
        if let Some(step) = entry(name) {
            return Some((step.state, step.output.clone().map(Value::Object)));
        }
        // An item that is done is in its list's entry alone, and so are the steps of its group.
        if let Some((item, _)) = name.rsplit_once('/') {
            let (state, _) = self.step(item)?;
            return (self.order.iter().any(|step| step == name)).then_some((state, None));
        }
        let (list, index) = name.strip_suffix(']')?.rsplit_once('[')?;
        let index: usize = index.parse().ok()?;
        let list = entry(list).filter(|list| list.items.as_ref().is_some_and(|items| (index as i64) < items.next))?;
        let of_all = list
            .output
            .as_ref()
            .and_then(|output| output.get("items")?.get(index).cloned());
        let under_way = list
            .items
            .as_ref()
            .and_then(|items| items.outputs.get(&index.to_string()).cloned());
        Some((StepState::Succeeded, of_all.or(under_way)))
    }
}
