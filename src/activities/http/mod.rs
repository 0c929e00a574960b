//! The `http` activity: one call of an HTTP service, under the step's key.
//!
//! [`HttpActivity::run`] reads as the story of a call: the request is checked, secrets are read, the request is sent
//! (again, where the other side redirects it), and the answer is judged. What is known of the effect is kept exact
//! throughout: a failure says *nothing was done* only when nothing was sent or the other side refused it.

mod addresses;
mod callback;
mod dns;
mod mask;
mod redirect;
mod request;
mod response;
mod secrets;
mod targets;
mod transport;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use callback::Report;
pub use targets::{Never, Rule, RuleError, TargetNotAllowed, TargetPolicy, Targets};
pub use transport::{SendError, Transport, TrustedCa, WireRequest, WireResponse};
pub use wire::Wire;

use self::redirect::{MAX_REDIRECTS, Next};
use self::response::Call;
use self::secrets::Secrets;
use super::AttemptContext;
use super::callbacks::{Callbacks, accepted};
use crate::api;
use crate::engine::expression::Expression;
use crate::engine::{AttemptFailure, Effect, Outcome};

/// Runs `http` steps.
#[derive(Clone)]
pub struct HttpActivity {
    transport: Arc<dyn Transport>,
    callbacks: Arc<Callbacks>,
}

impl HttpActivity {
    /// Sends by this transport: [`Wire`] in the operator.
    pub fn new(transport: Arc<dyn Transport>, callbacks: Arc<Callbacks>) -> Self {
        Self { transport, callbacks }
    }

    /// Makes one attempt at a request whose templates are filled in. It may take as long as the other side does: the
    /// caller ends it at the attempt's timeout by dropping it, and then the outcome is unknown.
    pub async fn run(&self, context: &AttemptContext, request: &api::Http, targets: &Targets) -> Outcome {
        match self.attempt(context, request, targets).await {
            Ok(outcome) => outcome,
            Err(failure) => Outcome::Failed(failure),
        }
    }

    async fn attempt(
        &self,
        context: &AttemptContext,
        request: &api::Http,
        targets: &Targets,
    ) -> Result<Outcome, AttemptFailure> {
        let draft = request::draft(request, &context.key.to_string(), targets)?;
        let success = request.success.as_deref().map(parse_success).transpose()?;
        let mut secrets = Secrets::read(context, request).await?;
        let is_async = request.asynchronous == Some(true);
        if is_async {
            secrets.invite(&self.callbacks.invite(context).await?)?;
        }
        let wire = request::complete(draft, &secrets);
        let call = Call {
            method: wire.method.clone(),
            shown: Call::shown(&wire.method, &wire.url, &secrets.masker),
            success,
            accepted: is_async.then(|| accepted(&context.key)),
            scope: context.scope.clone(),
            sensitive: context.sensitive,
            writes_secret: context.writes_secret,
            maybe_done: context.maybe_done,
            masker: secrets.masker,
        };
        Ok(self.exchange(context, wire, call).await)
    }

    /// Sends the request, follows redirects and judges the last answer.
    async fn exchange(&self, context: &AttemptContext, mut wire: WireRequest, mut call: Call) -> Outcome {
        // True once a redirect said that the request was done, and where to read about it: whatever becomes of that
        // reading, the effect may be there.
        let mut acted = false;
        let mut redirects = 0;
        loop {
            let sent = match context.claim.is_held() {
                true => self.transport.send(wire.clone()).await,
                false => return failed(lost_leadership(&call), acted),
            };
            let answer = match sent {
                Ok(answer) => answer,
                Err(error) => return failed(call.unanswered(&error), acted),
            };
            let not_followed = match redirect::next(&wire, &answer) {
                Next::Answer => None,
                Next::NotFollowed(why) => Some(why),
                Next::Follow(_) if redirects >= MAX_REDIRECTS => {
                    Some(format!("it redirects again, after {MAX_REDIRECTS} redirects"))
                }
                Next::Follow(next) => {
                    redirects += 1;
                    acted |= next.method != wire.method;
                    wire = *next;
                    call.shown = Call::shown(&wire.method, &wire.url, &call.masker);
                    continue;
                }
            };
            return match call.judge(&answer, not_followed.as_deref()) {
                Outcome::Failed(failure) => failed(failure, acted),
                outcome => outcome,
            };
        }
    }
}

fn failed(failure: AttemptFailure, acted: bool) -> Outcome {
    let effect = if acted { Effect::Unknown } else { failure.effect };
    Outcome::Failed(AttemptFailure { effect, ..failure })
}

fn lost_leadership(call: &Call) -> AttemptFailure {
    let message = format!(
        "{}: not sent, as this process may no longer lead; its successor does",
        call.shown
    );
    AttemptFailure::retryable("LeadershipLost", message)
}

fn parse_success(source: &str) -> Result<Expression, AttemptFailure> {
    Expression::parse(source)
        .map_err(|error| AttemptFailure::definite("InvalidExpression", format!("http.success: {source}: {error}")))
}
