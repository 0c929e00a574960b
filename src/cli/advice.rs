//! Why an operation is as it is, and what a person can do about it.

use kube::ResourceExt;

use super::cluster::{Flags, quoted};
use super::table::one_line;
use super::tree::message_of;
use super::{NAME, times};
use crate::api::{
    CloudOperation, CloudOperationSpec, Failure, FailurePolicy, OperationState, OperationStatus, Step, StepState,
    StepStatus, StepType, Time,
};
use crate::engine::{Role, Workflow};

/// What there is to say of an operation.
pub struct Advice {
    /// Why it waits, or how it ended.
    pub why: Vec<String>,
    /// What can be done, the most likely first.
    pub options: Vec<Choice>,
}

/// Something that a person can do.
pub struct Choice {
    /// When one would, and what comes of it.
    pub what: String,
    /// The commands that do it.
    pub commands: Vec<String>,
}

/// What there is to say of an operation. `flags` are those that each command needs to be about the same cluster.
pub fn advise(operation: &CloudOperation, flags: &Flags, now: Time) -> Advice {
    let empty = OperationStatus::default();
    let mut adviser = Adviser {
        name: operation.name_any(),
        operation,
        status: operation.status.as_ref().unwrap_or(&empty),
        workflow: Workflow::compile(&operation.spec).ok(),
        flags,
        now,
        advice: Advice {
            why: vec![],
            options: vec![],
        },
    };
    adviser.run();
    adviser.advice
}

/// Why an operation that has ended doesn't run again yet, though a person wants it to.
pub fn comes_back(status: &OperationStatus) -> Option<&str> {
    status.completion_time?;
    let mut conditions = status.conditions.iter();
    let waits = conditions.find(|condition| condition.type_ == "Reconciling" && condition.status == "True")?;
    Some(&waits.message)
}

/// True if a step says how it is undone.
pub fn undoes(spec: &CloudOperationSpec) -> bool {
    let within = |step: &Step| step.compensate.is_some() || step.steps.iter().any(|step| step.compensate.is_some());
    spec.steps.iter().any(within)
}

struct Adviser<'a> {
    operation: &'a CloudOperation,
    name: String,
    status: &'a OperationStatus,
    workflow: Option<Workflow>,
    flags: &'a Flags,
    now: Time,
    advice: Advice,
}

impl Adviser<'_> {
    fn why(&mut self, text: impl Into<String>) {
        self.advice.why.push(text.into());
    }

    fn choice(&mut self, what: impl Into<String>, commands: &[&str]) {
        let name = self.name.clone();
        let command = |command: &&str| {
            let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
            let space = if rest.is_empty() { "" } else { " " };
            format!("{NAME} {verb} {name}{space}{rest}{}", self.flags)
        };
        let commands = commands.iter().map(command).collect();
        self.advice.options.push(Choice {
            what: what.into(),
            commands,
        });
    }

    /// A choice whose commands are not the plugin's.
    fn by_hand(&mut self, what: &str, command: String) {
        self.advice.options.push(Choice {
            what: what.into(),
            commands: vec![command],
        });
    }

    /// Flags as kubectl takes them.
    fn kubectl(&self, command: &str) -> String {
        format!("kubectl {command}{}", self.flags)
    }

    /// Flags as kubectl takes them, for what isn't in the operation's namespace.
    fn elsewhere(&self, command: &str) -> String {
        format!("kubectl {command}{}", self.flags.cluster)
    }

    fn run(&mut self) {
        use OperationState::*;
        if let Some(waits) = comes_back(self.status) {
            self.why(sentence(&capital(waits)));
        }
        match self.status.state {
            None => self.unseen(),
            Some(Succeeded) => self.succeeded(),
            Some(Suspended) => self.suspended(),
            Some(Queued) => {
                self.why(format!("It has not started: {}", sentence(&message_of(self.status))));
                let locks = self.kubectl("get operationlocks");
                self.by_hand("See who holds which key:", locks);
            }
            Some(Restored) => {
                self.why(sentence(&message_of(self.status)));
                let label = self.kubectl(&format!("label cop {} velero.io/restore-name-", self.name));
                self.by_hand(
                    "Run it, if what it does was not done before the backup, or may be done again:",
                    label,
                );
                let delete = self.kubectl(&format!("delete cop {}", self.name));
                self.by_hand("Else remove it:", delete);
            }
            Some(Expired | InvalidSpec | SpecChanged) => {
                self.why(format!(
                    "It ended {}: {}",
                    self.ago(),
                    sentence(&message_of(self.status))
                ));
                match self.status.state {
                    Some(Expired) => self.choice(
                        "Run it nevertheless, as a new operation without startDeadline:",
                        &["rerun"],
                    ),
                    Some(InvalidSpec) => {
                        let create = format!("{NAME} run -f FILE{}", self.flags);
                        self.by_hand(
                            &format!("Correct the file ({NAME} lint FILE checks it), and create another operation:"),
                            create,
                        );
                    }
                    _ => {
                        let fields = self.kubectl(&format!("get cop {} -o yaml --show-managed-fields", self.name));
                        self.by_hand("See who changed it:", fields);
                        self.choice("Run what it says now, as a new operation:", &["rerun"]);
                    }
                }
            }
            Some(Failed | TimedOut | Cancelled) => self.ended_badly(),
            Some(Running | Waiting | AwaitingApproval | BackingOff | Stuck | Compensating) => self.active(),
        }
    }

    fn ago(&self) -> String {
        let end = self.status.completion_time.map(|end| times::whole(self.now.since(end)));
        end.map(|end| format!("{end} ago")).unwrap_or_default()
    }

    fn unseen(&mut self) {
        self.why("No operator has seen it yet.");
        let pods = self.elsewhere("get pods -A -l app.kubernetes.io/name=holdfast");
        self.by_hand(
            "See whether the operator runs, and whether it serves this namespace:",
            pods,
        );
    }

    fn succeeded(&mut self) {
        let took = match (self.status.start_time, self.status.completion_time) {
            (Some(start), Some(end)) => format!(", after {}", times::short(end.since(start))),
            _ => String::new(),
        };
        self.why(format!("It succeeded {}{took}.", self.ago()));
        self.choice("Run it once more, as a new operation:", &["rerun"]);
    }

    fn suspended(&mut self) {
        self.why(format!("It is {}", sentence(&message_of(self.status))));
        if self.operation.spec.suspend == Some(true) {
            self.choice("Let it go on:", &["resume"]);
        } else {
            let namespace = self.operation.namespace().unwrap_or_default();
            let label = self.elsewhere(&format!("label namespace {namespace} holdfast.dev/suspended-"));
            self.by_hand(
                "Let everything in the namespace go on, if it is held by its label:",
                label,
            );
            let lease = self.elsewhere("annotate lease holdfast -n holdfast-system holdfast.dev/hold-all-");
            self.by_hand(
                "Let everything go on, after a look around, if a restored etcd holds it:",
                lease,
            );
        }
        self.choice("End it:", &["cancel"]);
    }

    fn active(&mut self) {
        let open: Vec<&StepStatus> = self
            .status
            .steps
            .iter()
            .filter(|step| !step.state.is_closed())
            .collect();
        // What is told of a list or a group is told of its items and steps.
        let lists = |step: &&&StepStatus| {
            let within = |other: &&StepStatus| {
                let rest = other.name.strip_prefix(&step.name);
                rest.is_some_and(|rest| rest.starts_with(['[', '/']))
            };
            open.iter().any(within)
        };
        let told: Vec<StepStatus> = open
            .iter()
            .filter(|step| !lists(step))
            .map(|step| (*step).clone())
            .collect();
        if let Some(failure) = &self.status.failure {
            let failure = of(failure);
            let what = if self.status.state == Some(OperationState::Compensating) {
                ", and what was done is being undone"
            } else {
                ", and it is ending"
            };
            let step = self.status.failure.as_ref().and_then(|failure| failure.step.clone());
            let step = step
                .map(|step| format!("step {step} failed"))
                .unwrap_or("it was to end".into());
            self.why(format!("{}{what}: {failure}", capital(&step)));
        }
        if told.is_empty() {
            match message_of(self.status) {
                message if message.is_empty() => self.why("It goes from one step to the next at this moment."),
                message => self.why(sentence(&message)),
            }
        }
        for step in &told {
            self.open_step(step);
        }
        if self.status.failure.is_some() {
            return;
        }
        self.choice(
            "Hold it, or end it:",
            &[
                "suspend",
                if undoes(&self.operation.spec) {
                    "cancel --compensate"
                } else {
                    "cancel"
                },
            ],
        );
    }

    fn spec_of(&self, name: &str) -> Step {
        let flow = self.workflow.as_ref().and_then(|workflow| workflow.step(name));
        flow.map(|flow| flow.spec.clone()).unwrap_or_default()
    }

    fn is_main(&self, name: &str) -> bool {
        let flow = self.workflow.as_ref().and_then(|workflow| workflow.step(name));
        flow.is_some_and(|flow| flow.role == Role::Main)
    }

    fn open_step(&mut self, step: &StepStatus) {
        use StepState::*;
        match step.state {
            BackingOff => self.backing_off(step),
            Undecided => self.undecided(step),
            Waiting => self.waiting(step),
            _ => {
                let StepStatus { name, attempt, .. } = step;
                let since = step.attempt_time.unwrap_or(step.start_time);
                let since = times::whole(self.now.since(since));
                let before = step
                    .failure
                    .as_ref()
                    .map(|failure| format!(" Before it: {}", of(failure)))
                    .unwrap_or_default();
                match step.state {
                    Cancelling => {
                        let waits = step
                            .message
                            .as_ref()
                            .map(|said| format!(": {said}"))
                            .unwrap_or_default();
                        self.why(format!("What step {name} started is being stopped{waits}.{before}"));
                        if step.message.is_some() {
                            self.choice(
                                "To go on without waiting for it, though it may go on as well:",
                                &[&format!("fail --step {}", quoted(name))],
                            );
                        }
                    }
                    _ => self.why(format!(
                        "Attempt {attempt} of step {name} has been under way for {since}.{before}"
                    )),
                }
            }
        }
    }

    fn backing_off(&mut self, step: &StepStatus) {
        let StepStatus { name, attempt, .. } = step;
        let failure = step.failure.as_ref().map(of).unwrap_or_default();
        let mut text = format!("Attempt {attempt} of step {name} failed: {failure}");
        if step.maybe_done {
            text.push_str(
                "\nIt isn't known whether an attempt had its effect. The next one has the same idempotency key.",
            );
        }
        if let Some(at) = step.next_attempt_time {
            text.push_str(&format!("\nThe next attempt starts {}.", times::ahead(at, self.now)));
        }
        if let Some(deadline) = step.deadline {
            let (clock, left) = (times::clock(deadline, self.now), times::whole(deadline.since(self.now)));
            text.push_str(&format!(
                " If none succeeds until {clock} (in {left}), the step ends as TimedOut."
            ));
        }
        self.why(text);
        let step = format!("--step {}", quoted(name));
        self.choice(
            "Fix the cause. The next attempt goes on by itself; to make it now:",
            &[&format!("retry-now {step}")],
        );
        self.decide(name, &step);
    }

    fn decide(&mut self, name: &str, step: &str) {
        if self.is_main(name) {
            self.choice(
                "Go on without the step. What follows reads no output of it, unless you give one with --output:",
                &[&format!("skip {step}")],
            );
        }
        self.choice(
            "Say that it is done, or that it failed for good:",
            &[&format!("complete {step}"), &format!("fail {step}")],
        );
    }

    fn undecided(&mut self, step: &StepStatus) {
        let name = &step.name;
        let failure = step.failure.as_ref().map(of).unwrap_or_default();
        let flag = format!("--step {}", quoted(name));
        if step.maybe_done {
            self.why(format!(
                "Step {name} may or may not have had its effect, and may not be repeated without a person's word: {failure}"
            ));
            self.choice(
                "Look at the other side. If it was done:",
                &[&format!("complete {flag}")],
            );
            self.choice("If it was not done, or can be done twice:", &[&format!("retry {flag}")]);
        } else {
            self.why(format!("Step {name} failed, and waits for a person: {failure}"));
            self.choice("Fix the cause, and try again:", &[&format!("retry {flag}")]);
            self.choice("Say that it is done:", &[&format!("complete {flag}")]);
        }
        self.choice("Go on without it:", &[&format!("skip {flag}")]);
        self.choice("Say that it failed for good:", &[&format!("fail {flag}")]);
    }

    fn waiting(&mut self, step: &StepStatus) {
        let name = &step.name;
        let spec = self.spec_of(name);
        let flag = format!("--step {}", quoted(name));
        let message = step.message.clone().unwrap_or_default();
        let since = times::whole(self.now.since(step.start_time));
        let mut end = String::new();
        if let Some(deadline) = step.deadline {
            end = format!("\nIt waits until {} at most.", times::clock(deadline, self.now));
        }
        match step.step_type {
            StepType::Approval => {
                let asked = message.strip_prefix("waiting for an approval").unwrap_or(&message);
                let mut text = format!("Step {name} has been waiting for an approval for {since}{asked}");
                text.push_str(&approvers(&spec));
                self.why(text + &end);
                self.choice(
                    "Approve or reject it (a rejection fails the step):",
                    &[&format!("approve {flag}"), &format!("reject {flag}")],
                );
            }
            StepType::Signal => {
                let signal = spec.signal.unwrap_or_default();
                let sent = signal.name.clone().unwrap_or_else(|| name.clone());
                let mut text = format!("Step {name} has been waiting for the signal {sent} for {since}.");
                if signal.schema.is_some() {
                    text.push_str(" Its payload must conform to the step's schema.");
                }
                self.why(text + &end);
                let payload = example_payload(signal.schema.as_ref());
                self.choice("Send it:", &[&format!("signal {}{payload}", quoted(&sent))]);
                self.choice("Go on without it:", &[&format!("skip {flag}")]);
            }
            _ => {
                let left = step.next_attempt_time.filter(|at| *at > self.now);
                let left = left
                    .map(|at| format!(", {} from now", times::whole(at.since(self.now))))
                    .unwrap_or_default();
                let heartbeat = step.heartbeat.as_ref().map(|heartbeat| {
                    let details = heartbeat.details.as_ref().map(|details| format!(": {details}"));
                    let ago = times::whole(self.now.since(heartbeat.time));
                    format!("; its last heartbeat came {ago} ago{}", details.unwrap_or_default())
                });
                self.why(format!(
                    "Step {name} has been waiting for {since}: {}{left}{}{end}",
                    one_line(&message),
                    heartbeat.unwrap_or_default()
                ));
                if step.awaits_callback() {
                    self.choice(
                        "End it, if the other side never calls back:",
                        &[
                            &format!("complete {flag}"),
                            &format!("fail {flag}"),
                            &format!("skip {flag}"),
                        ],
                    );
                } else if let Some(external) = &step.external {
                    let look = match external.kind.as_str() {
                        "CloudOperation" => format!("{NAME} describe {}{}", external.name, self.flags),
                        kind => self.kubectl(&format!("describe {} {}", kind.to_lowercase(), external.name)),
                    };
                    self.by_hand("Look at what it waits for:", look);
                } else if step.items.is_none() {
                    self.choice(
                        "Go on without waiting:",
                        &[&format!("complete {flag}"), &format!("skip {flag}")],
                    );
                }
            }
        }
    }

    fn ended_badly(&mut self) {
        use OperationState::*;
        let failure = self.status.failure.clone().unwrap_or_default();
        let ago = self.ago();
        let step = failure.step.clone();
        match &step {
            Some(step) => self.why(format!("It ended {ago}: step {step} failed for good: {}", of(&failure))),
            None => self.why(format!("It ended {ago}: {}", sentence(&message_of(self.status)))),
        }
        let undone = self
            .status
            .steps
            .iter()
            .filter(|step| step.name.contains(":undo"))
            .count();
        if undone > 0 {
            let failed = self
                .status
                .steps
                .iter()
                .filter(|step| step.name.contains(":undo") && !step.state.satisfies());
            let failed: Vec<String> = failed
                .map(|step| step.name.trim_end_matches(":undo").to_owned())
                .collect();
            self.why(match failed.as_slice() {
                [] => format!(
                    "What was done was undone, in {undone} {}.",
                    if undone == 1 { "step" } else { "steps" }
                ),
                failed => format!("What was done was undone, but not: {}.", failed.join(", ")),
            });
        }
        let maybe = self
            .status
            .steps
            .iter()
            .filter(|step| step.maybe_done && !step.state.satisfies());
        let maybe: Vec<&str> = maybe.map(|step| step.name.as_str()).collect();
        if !maybe.is_empty() {
            self.why(format!("It isn't known whether this was done: {}.", maybe.join(", ")));
        }
        if self.status.compacted == Some(true) {
            self.why("Its details were removed, as spec.ttlSecondsAfterFinished says.");
            return self.choice("Run it once more, as a new operation:", &["rerun"]);
        }
        let again = self.operation.spec.cancel.is_none() && undone == 0;
        if again {
            let flag = step
                .as_ref()
                .map(|step| format!(" --step {}", quoted(step)))
                .unwrap_or_default();
            let what = match self.status.state {
                Some(TimedOut) => "Let it go on, with fresh deadlines:",
                _ => "Fix the cause, and go on from there; what was done is not done again:",
            };
            self.choice(what, &[&format!("retry{flag}")]);
            if let Some(step) = step.as_ref().filter(|step| self.is_main(step)) {
                let flag = format!("--step {}", quoted(step));
                self.choice("Go on without that step:", &[&format!("skip {flag}")]);
            }
        }
        let from = step.filter(|step| self.operation.spec.steps.iter().any(|main| main.name == *step));
        match from.filter(|_| undone == 0) {
            Some(step) => self.choice(
                "Run it once more as a new operation, from its beginning or from that step:",
                &["rerun", &format!("rerun --from-step {}", quoted(&step))],
            ),
            None => self.choice("Run it once more, as a new operation:", &["rerun"]),
        }
        if self.operation.spec.failure_policy == Some(FailurePolicy::Stop)
            || self.operation.spec.failure_policy.is_none()
        {
            self.choice("See what was done:", &["get", "history"]);
        }
    }
}

/// Who may approve, in a sentence.
fn approvers(spec: &Step) -> String {
    let approval = spec.approval.clone().unwrap_or_default();
    let mut who = vec![];
    if !approval.users.is_empty() {
        who.push(approval.users.join(", "));
    }
    if !approval.groups.is_empty() {
        who.push(format!("the groups {}", approval.groups.join(", ")));
    }
    if who.is_empty() {
        who.push("who may create cloudoperations/approve".into());
    }
    let not = if approval.exclude_requester == Some(true) {
        "; not who created the operation"
    } else {
        ""
    };
    format!("\nWho may approve: {}{not}.", who.join(" and "))
}

/// How the payload that a schema asks for is written, as far as its required fields say it.
fn example_payload(schema: Option<&serde_json::Map<String, serde_json::Value>>) -> String {
    let required = schema.and_then(|schema| schema.get("required")?.as_array());
    let fields = required.into_iter().flatten().filter_map(|field| field.as_str());
    fields.map(|field| format!(" --payload {field}=...")).collect()
}

fn of(failure: &Failure) -> String {
    format!("{}: {}", failure.reason, one_line(&failure.message))
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

fn sentence(text: &str) -> String {
    let text = one_line(text);
    if text.ends_with(['.', '!', '?']) {
        text
    } else {
        text + "."
    }
}
