//! The engine as a table of scenarios: given this history, when this happens, then that is decided.

use std::time::Duration;

use serde_json::json;

use super::fixtures::*;
use super::*;
use crate::api::{Cancel, OperationState::*, StepState};

mod again;
pub mod attempts;
mod callbacks;
mod control;
mod flow;
mod groups;
pub mod jobs;
pub mod lifetime;
pub mod lists;
mod local;
pub mod people;
mod saga;
pub mod specs;
mod time;

const SECOND: Duration = Duration::from_secs(1);
