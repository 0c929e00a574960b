//! The engine as a table of scenarios: given this history, when this happens, then that is decided.

use std::time::Duration;

use serde_json::json;

use super::fixtures::*;
use super::*;
use crate::api::{Cancel, OperationState::*, StepState};

mod again;
mod attempts;
mod callbacks;
mod control;
mod flow;
mod groups;
mod jobs;
mod lifetime;
mod lists;
mod local;
mod people;
mod saga;
mod specs;
mod states;
mod time;

const SECOND: Duration = Duration::from_secs(1);

/// What the properties' random histories don't bring about, for the report on transitions.
pub fn rare() {
    lists::a_list_that_was_ended_with_its_operation_goes_on_with_it();
    people::a_wait_for_an_object_that_timed_out_is_waited_for_again();
    people::what_was_ended_with_its_operation_may_be_skipped();
    people::a_retry_of_one_that_is_held_starts_once_it_goes_on();
    jobs::one_that_cannot_be_stopped_says_why_and_a_person_ends_it();
    again::what_would_send_something_else_when_it_runs_again_fails_and_says_so();
    attempts::a_request_that_changed_under_its_key_is_not_sent();
    specs::a_spec_changed_behind_admissions_back_executes_nothing_more();
    specs::what_is_nested_too_deeply_is_refused();
    lifetime::an_object_first_seen_after_its_start_deadline_executes_nothing();
    lifetime::an_object_from_a_backup_waits_for_a_person();
    states::all();
}
