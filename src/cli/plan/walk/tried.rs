//! What could be tried, and what the cluster says of it.

use serde_json::Value;

use super::{End, Walk};
use crate::api::StepType;
use crate::cli::plan::planned::{Planned, What};
use crate::cli::plan::rehearsal::{Attempt, Effect, Rehearse};
use crate::cli::plan::words::named;
use crate::engine::expression::Scope;
use crate::engine::{self, AttemptFailure, IdempotencyKey, RetryAdvice, WorkflowStep};

impl<R: Rehearse> Walk<'_, R> {
    /// Tries what can be tried.
    pub(super) async fn tried(
        &mut self,
        i: usize,
        flow: &WorkflowStep,
        name: &str,
        scope: &Scope,
        shown: &Value,
        planned: &mut Planned,
    ) -> End {
        let named = named(shown);
        let reads = shown.get("get").or(shown.get("list")).is_some();
        let stale = self.written.iter().filter(|(step, _, (kind, name))| {
            let same = *kind == named.0 && (named.1.is_none() || name.is_none() || *name == named.1);
            reads && same && flow.ancestors.contains(step)
        });
        planned.known_after = stale
            .map(|(step, ..)| self.workflow.steps[*step].name.clone())
            .collect();
        if !planned.known_after.is_empty() {
            return End::Unknown;
        }
        let key = IdempotencyKey::new(&self.identity.uid, name, 0);
        let request = match engine::request(flow, scope, &key) {
            Ok(request) => request.value,
            Err(error) => {
                planned.action = What::Fails;
                planned.message = error.to_string();
                return End::Fails(AttemptFailure::definite("InvalidExpression", error.to_string()));
            }
        };
        let attempt = Attempt {
            identity: self.identity,
            service_account: self.spec.service_account(),
            step: name,
            step_type: flow.step_type,
            request,
            sensitive: flow.spec.sensitive == Some(true),
        };
        let effect = match self.rehearse.attempt(attempt).await {
            Ok(effect) => effect,
            Err(failure) => return self.refused(flow, reads, failure, planned),
        };
        planned.action = match effect {
            Effect::Read(result) => {
                planned.action = What::Read;
                return match engine::output(&flow.field, flow.spec.output.as_ref(), scope, &result, 1, &key) {
                    Ok(output) => {
                        planned.output.clone_from(&output);
                        End::Known(output)
                    }
                    Err(error) => {
                        planned.action = What::Fails;
                        planned.message = error.to_string();
                        End::Fails(AttemptFailure::definite("InvalidExpression", error.to_string()))
                    }
                };
            }
            Effect::Create => What::Create,
            Effect::Change(changes) => {
                planned.changes = if flow.spec.sensitive == Some(true) {
                    vec![]
                } else {
                    changes
                };
                What::Change
            }
            Effect::ChangeUnseen => What::Change,
            Effect::Delete => What::Delete,
            Effect::Nothing => What::NoChange,
        };
        if planned.action != What::NoChange {
            // Who reads a group needs the group alone.
            let by = [Some(i), flow.group].into_iter().flatten();
            self.written.extend(by.map(|by| (by, planned.action, named.clone())));
        }
        End::Unknown
    }

    /// What could not be done as things are now.
    fn refused(&self, flow: &WorkflowStep, reads: bool, failure: AttemptFailure, planned: &mut Planned) -> End {
        if matches!(failure.reason.as_str(), "NotFound" | "KindNotFound") {
            // What isn't there may be made by an earlier step.
            let makes = |step: &usize| {
                let other = &self.workflow.steps[*step];
                let creates = self
                    .written
                    .iter()
                    .any(|(by, what, _)| by == step && *what == What::Create);
                let opaque = matches!(other.step_type, StepType::Http | StepType::Job | StepType::Operation);
                creates || (opaque && self.unknown.contains(step))
            };
            let makers = flow.ancestors.iter().filter(|step| makes(step));
            planned.known_after = makers.map(|step| self.workflow.steps[*step].name.clone()).collect();
            if !planned.known_after.is_empty() {
                planned.message = format!("{} (now: {})", planned.message, failure.message);
                return End::Unknown;
            }
        }
        planned.message = format!("{}: {}", failure.reason, failure.message);
        if reads && failure.retry == RetryAdvice::Never {
            planned.action = What::Fails;
            return End::Fails(failure);
        }
        // What follows is shown as if it were allowed: one look is to tell all that is missing.
        planned.action = What::Refused;
        End::Unknown
    }
}
