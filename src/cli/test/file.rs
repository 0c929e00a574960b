//! What stands in a file of tests: a document for each.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::{Cancel, Duration, OperationActionSpec, Time};

/// A test: an operation, what answers its calls, what people do meanwhile, and what is to come of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Test {
    /// What it is about.
    #[serde(default)]
    pub name: Option<String>,
    /// The operation: a path from this file, or the object itself.
    pub operation: Source,
    /// Files with the templates that it names.
    #[serde(default)]
    pub templates: Vec<String>,
    /// Fields of the operation's input, in place of what is there.
    #[serde(default)]
    pub input: Map<String, Value>,
    /// When it starts.
    #[serde(default)]
    pub start_time: Option<Time>,
    /// What answers, by step. Of several answers each is for one attempt, and the last for all that follow.
    #[serde(default)]
    pub mocks: BTreeMap<String, Answers>,
    /// What happens while it runs.
    #[serde(default)]
    pub events: Vec<Event>,
    /// What is to come of it.
    pub expect: Expected,
}

/// An operation.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Source {
    /// In this file, which may have the template too.
    Path(String),
    /// Here.
    Inline(Map<String, Value>),
}

/// One answer, or several in their order.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Answers {
    /// Several.
    Many(Vec<Answer>),
    /// The same each time.
    One(Box<Answer>),
}

impl Answers {
    /// The answer to attempt number `n`, from 0.
    pub fn at(&self, n: usize) -> Option<&Answer> {
        match self {
            Self::One(answer) => Some(answer),
            Self::Many(answers) => answers.get(n).or(answers.last()),
        }
    }
}

/// What an attempt comes to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answer {
    /// What the step's `output` reads as `result`. Of an http step: the answer, {status, headers, body}, judged as the
    /// operator does.
    #[serde(default)]
    pub result: Option<Value>,
    /// What is recorded, in place of what `output` makes of a result.
    #[serde(default)]
    pub output: Option<Map<String, Value>>,
    /// Why it fails.
    #[serde(default)]
    pub failure: Option<MockedFailure>,
    /// How long it takes.
    #[serde(default)]
    pub delay: Option<Duration>,
}

/// Why an attempt fails.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MockedFailure {
    /// A word for programs, such as HttpStatus.
    pub reason: String,
    /// What happened.
    #[serde(default)]
    pub message: String,
    /// Whether another attempt may succeed. Else it is a definite no.
    #[serde(default)]
    pub retryable: bool,
    /// Whether it isn't known if it was done.
    #[serde(default)]
    pub unknown: bool,
}

/// Something that happens while the operation runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// How long after the start.
    #[serde(default)]
    pub after: Option<Duration>,
    /// Who does it.
    #[serde(default)]
    pub user: Option<String>,
    /// The groups that they are in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Whether the operation is to reject it.
    #[serde(default)]
    pub rejected: bool,
    /// spec.cancel, from then on.
    #[serde(default)]
    pub cancel: Option<Cancel>,
    /// spec.suspend, from then on.
    #[serde(default)]
    pub suspend: Option<bool>,
    /// Signal, approve, reject, retry, ... as an OperationAction has them.
    #[serde(flatten)]
    pub action: Map<String, Value>,
}

impl Event {
    /// The action that is asked for, if it is one.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn spec(&self, operation: &str) -> Result<Option<OperationActionSpec>, String> {
        if self.action.is_empty() {
            return match (&self.cancel, self.suspend) {
                (None, None) => Err("nothing happens: give it signal, approve, reject, retry, retryNow, skip, complete, fail, reset, cancel or suspend".into()),
                _ => Ok(None),
            };
        }
        let known = [
            "signal", "approve", "reject", "retry", "retryNow", "skip", "complete", "fail", "reset",
        ];
        if let Some(other) = self.action.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!(
                "unknown field {other}; there are after, user, groups, rejected, cancel, suspend, {}",
                known.join(", ")
            ));
        }
        let mut spec = self.action.clone();
        spec.insert("operationRef".into(), serde_json::json!({"name": operation}));
        let user = self.user.as_deref().unwrap_or("tester");
        spec.insert(
            "requestedBy".into(),
            serde_json::json!({"user": user, "groups": self.groups}),
        );
        serde_json::from_value(Value::Object(spec))
            .map(Some)
            .map_err(|error| error.to_string())
    }
}

/// What is to come of an operation: what isn't named doesn't matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expected {
    /// Its state at the end, or where nothing happens any more.
    #[serde(default)]
    pub state: Option<String>,
    /// What it answers.
    #[serde(default)]
    pub output: Option<Value>,
    /// Why it failed.
    #[serde(default)]
    pub failure: Option<ExpectedFailure>,
    /// Steps, and items of lists, by name.
    #[serde(default)]
    pub steps: BTreeMap<String, ExpectedStep>,
    /// Steps in the order in which they started; others may have started between them.
    #[serde(default)]
    pub order: Vec<String>,
    /// What each of these steps sent: one request an attempt, and no others.
    #[serde(default)]
    pub calls: BTreeMap<String, Vec<Value>>,
}

/// A failure.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedFailure {
    /// Its reason.
    #[serde(default)]
    pub reason: Option<String>,
    /// A part of its message.
    #[serde(default)]
    pub message: Option<String>,
    /// The step that failed.
    #[serde(default)]
    pub step: Option<String>,
}

/// A step.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum ExpectedStep {
    /// Its state.
    State(String),
    /// More of it.
    More(Box<ExpectedDetails>),
}

/// More of a step.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedDetails {
    /// Its state.
    #[serde(default)]
    pub state: Option<String>,
    /// How many attempts it made.
    #[serde(default)]
    pub attempts: Option<usize>,
    /// What is recorded of it.
    #[serde(default)]
    pub output: Option<Value>,
    /// Why it failed.
    #[serde(default)]
    pub failure: Option<ExpectedFailure>,
}
