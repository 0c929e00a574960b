//! `kubernetes.wait`: waits, by a shared watch, until an object is as wanted.

use std::sync::Arc;

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::kstatus::{self, Status};
use super::{locate, presented};
use crate::activities::AttemptContext;
use crate::activities::call::Target;
use crate::activities::clients::ServiceAccount;
use crate::activities::discovery::{Discovery, ResourceType};
use crate::activities::watches::{Watches, Which};
use crate::api::{WaitFor, WaitStatus};
use crate::engine::expression::{Expression, ExpressionError, Scope};
use crate::engine::{AttemptFailure, Outcome};

/// Waits until an object is as wanted: `result` is the object then, or `{}` where it is gone.
pub async fn wait(context: &AttemptContext, watches: &Watches, discovery: &Discovery, request: &WaitFor) -> Outcome {
    match waited(context, watches, discovery, request).await {
        Ok(result) => Outcome::succeeded(result),
        Err(failure) => Outcome::Failed(failure),
    }
}

/// What is waited for, in words: `waiting for Deployment web in prod to be Current`.
pub fn describe(request: &WaitFor) -> String {
    let resource = &request.resource;
    let place = resource
        .namespace
        .as_ref()
        .map(|namespace| format!(" in {namespace}"))
        .unwrap_or_default();
    let what = match (request.wait_for, &request.until) {
        (Some(WaitStatus::Current), _) => "be Current".to_owned(),
        (Some(WaitStatus::Deleted), _) => "be gone".to_owned(),
        (None, until) => format!("fulfil {}", until.as_deref().unwrap_or_default()),
    };
    format!("waiting for {} {}{place} to {what}", resource.kind, resource.name)
}

async fn waited(
    context: &AttemptContext,
    watches: &Watches,
    discovery: &Discovery,
    request: &WaitFor,
) -> Result<Value, AttemptFailure> {
    let object = Box::pin(locate(context, discovery, &request.resource)).await?; // boxed: it is gone while this waits
    let target = object.target();
    if !object.resource.verbs.iter().any(|verb| verb == "watch") {
        let message = format!(
            "{target} can't be waited for: the API server has no watches of {}",
            object.resource.qualified()
        );
        return Err(AttemptFailure::definite("Invalid", message));
    }
    let mut wanted = Wanted::new(context, request, &object.resource, &target)?;
    let who = ServiceAccount::of(context);
    let check = move |object: Option<&DynamicObject>| wanted.check(object);
    watches
        .wait_for(
            &who,
            &object.resource,
            object.namespace.as_deref(),
            Which::Named(&object.name),
            check,
        )
        .await?
}

/// What is waited for, made ready.
struct Wanted {
    resource: Arc<ResourceType>,
    target: String,
    status: Option<WaitStatus>,
    until: Option<Expression>,
    fail_when: Option<Expression>,
    scope: Scope,
    sensitive: bool,
    /// The object that was there first: another one of its name means that it is gone.
    uid: Option<String>,
}

impl Wanted {
    fn new(
        context: &AttemptContext,
        request: &WaitFor,
        resource: &Arc<ResourceType>,
        target: &Target<'_>,
    ) -> Result<Self, AttemptFailure> {
        let parse = |field: &str, source: &Option<String>| {
            let parsed = source.as_deref().map(Expression::parse).transpose();
            parsed.map_err(|error| invalid(field, &error.to_string()))
        };
        let (until, fail_when) = (parse("until", &request.until)?, parse("failWhen", &request.fail_when)?);
        if request.wait_for.is_some() == until.is_some() {
            return Err(AttemptFailure::definite(
                "Invalid",
                "wait has exactly one of for, until",
            ));
        }
        Ok(Self {
            resource: resource.clone(),
            target: target.to_string(),
            status: request.wait_for,
            until,
            fail_when,
            scope: context.scope.clone(),
            sensitive: context.sensitive,
            uid: None,
        })
    }

    /// Looks at the object as it is now. None: not yet.
    fn check(&mut self, object: Option<&DynamicObject>) -> Option<Result<Value, AttemptFailure>> {
        let Some(object) = object else {
            return (self.status == Some(WaitStatus::Deleted)).then(|| Ok(json!({})));
        };
        if self.status == Some(WaitStatus::Deleted) {
            let uid = object.metadata.uid.clone();
            if *self.uid.get_or_insert_with(|| uid.clone().unwrap_or_default()) != uid.unwrap_or_default() {
                return Some(Ok(json!({})));
            }
        }
        let object = match serde_json::to_value(object) {
            Ok(object) => presented(&self.resource, object),
            Err(error) => {
                return Some(Err(AttemptFailure::definite(
                    "Invalid",
                    format!("{}: {error}", self.target),
                )));
            }
        };
        self.look(&object).map(|found| found.map(|()| object))
    }

    fn look(&self, object: &Value) -> Option<Result<(), AttemptFailure>> {
        match self.holds("failWhen", self.fail_when.as_ref(), object) {
            Ok(false) => {}
            Ok(true) => {
                let source = self.fail_when.as_ref().map(Expression::source).unwrap_or_default();
                return Some(Err(AttemptFailure::definite(
                    "ResourceFailed",
                    format!("{} has failed: failWhen is true: {source}", self.target),
                )));
            }
            Err(failure) => return Some(Err(failure)),
        }
        match self.status {
            Some(WaitStatus::Deleted) => None,
            Some(WaitStatus::Current) => match kstatus::compute(object) {
                Status::Current => Some(Ok(())),
                Status::Failed(why) => Some(Err(self.failed(&why))),
                Status::InProgress(_) | Status::Terminating => None,
            },
            None => match self.holds("until", self.until.as_ref(), object) {
                Ok(true) => Some(Ok(())),
                Ok(false) => None,
                Err(failure) => Some(Err(failure)),
            },
        }
    }

    fn failed(&self, why: &str) -> AttemptFailure {
        AttemptFailure::definite(
            "ResourceFailed",
            format!("{} has failed: {}", self.target, self.told(why)),
        )
    }

    /// What the object says, unless the step is sensitive: then nothing of it is recorded.
    fn told<'a>(&self, what: &'a str) -> &'a str {
        if self.sensitive {
            "why is not recorded, as the step is sensitive"
        } else {
            what
        }
    }

    /// Evaluates a condition. A field or element that the object doesn't have, as in a status that its controller has yet
    /// to write, makes it false; any other error is the expression's own, and no change of the object would mend it.
    fn holds(&self, field: &str, condition: Option<&Expression>, object: &Value) -> Result<bool, AttemptFailure> {
        let Some(condition) = condition else { return Ok(false) };
        match condition.evaluate_bool(&self.scope.clone().with("object", object.clone())) {
            Ok(holds) => Ok(holds),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(invalid(field, self.told(&error.to_string()))),
        }
    }
}

/// True if the object has no such field or element. What is missing elsewhere (`input`, `steps`) never comes.
fn is_missing(error: &ExpressionError) -> bool {
    let ExpressionError::Evaluation { message, .. } = error else {
        return false;
    };
    let elsewhere = ["input", "steps", "operation"].iter().any(|root| {
        [' ', '.', '[']
            .iter()
            .any(|next| message.contains(&format!("({root}{next}")))
    });
    !elsewhere && (message.starts_with("no such key") || message.starts_with("index out of bounds"))
}

fn invalid(field: &str, error: &str) -> AttemptFailure {
    AttemptFailure::definite("InvalidExpression", format!("kubernetes.wait.{field}: {error}"))
}
