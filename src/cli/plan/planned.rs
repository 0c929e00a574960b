//! What `plan` tells of each step.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::api::StepType;
use crate::cli::diff::Difference;
use crate::engine::WorkflowStep;

/// What a step would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum What {
    /// It is computed, and what comes of it is known.
    Computed,
    /// Its assert holds.
    Holds,
    /// It reads, and what it reads is known.
    Read,
    /// It would create an object.
    Create,
    /// It would change an object.
    Change,
    /// It would delete an object.
    Delete,
    /// Everything is as it is to be.
    NoChange,
    /// It would call a service.
    Call,
    /// It would wait.
    Wait,
    /// It has a list or steps, which say what they would do.
    Items,
    /// Its `when` is false.
    Skipped,
    /// What it would do is known only once others have ended.
    Unknown,
    /// It would undo what another did, if a later step failed.
    Undo,
    /// The API server refuses what it would do.
    Refused,
    /// It would fail.
    Fails,
    /// It would fail, and the operation would go on.
    FailsAndGoesOn,
    /// Another that it needs would fail.
    NotReached,
}

/// A step, and what it would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// Its name; of an item, with its number.
    pub name: String,
    /// What kind of step it is.
    #[serde(rename = "type")]
    pub step_type: StepType,
    /// What it would do.
    pub action: What,
    /// In words, with what.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Its `when`, where it isn't known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The steps whose answers it reads, where they aren't known.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub known_after: BTreeSet<String>,
    /// What it would send: secrets are references in it, and what isn't known is its template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    /// What it would change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Difference>,
    /// What would be recorded of it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Map<String, Value>>,
    /// The items of its list, or the steps of its group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Planned>,
}

impl Planned {
    /// What fails here ends nothing.
    pub(super) fn go_on(&mut self) {
        if self.action == What::Fails {
            self.action = What::FailsAndGoesOn;
        }
        self.items.iter_mut().for_each(Self::go_on);
    }

    pub(super) fn new(flow: &WorkflowStep, name: &str, action: What, message: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            step_type: flow.step_type,
            action,
            message: message.into(),
            when: None,
            known_after: BTreeSet::new(),
            request: None,
            changes: vec![],
            output: None,
            items: vec![],
        }
    }
}
/// What an operation would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Walked {
    /// Its steps.
    pub steps: Vec<Planned>,
    /// What would undo them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub undo: Vec<Planned>,
    /// What runs at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finally: Vec<Planned>,
    /// What it would answer: what isn't known is its template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}
