//! What a callback says, judged as an answer is: secrets masked, nothing quoted of what is sensitive.

use serde_json::{Value, json};

use super::HttpActivity;
use super::secrets::Secrets;
use crate::activities::AttemptContext;
use crate::api;
use crate::engine::{AttemptFailure, Outcome, RetryAdvice};

/// What the other side says of the work that it took.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// It was done.
    Completed(Value),
    /// It was not done.
    Failed {
        /// A word for programs.
        reason: String,
        /// What happened.
        message: String,
        /// Whether another attempt may succeed.
        retryable: bool,
    },
}

impl HttpActivity {
    /// What a callback says, as if the request had been answered so.
    ///
    /// # Errors
    /// When the secrets that must not be recorded can't be read.
    pub async fn called_back(
        &self,
        context: &AttemptContext,
        request: &api::Http,
        token: &str,
        report: Report,
    ) -> Result<Outcome, AttemptFailure> {
        let mut masker = Secrets::masker(context, request).await?;
        masker.add(token);
        Ok(match report {
            Report::Completed(body) => {
                let result = json!({"status": 200, "headers": {}, "body": body});
                Outcome::Succeeded {
                    unmasked: context.writes_secret.then(|| result.clone()),
                    result: masker.value(result),
                }
            }
            Report::Failed {
                reason,
                message,
                retryable,
            } => {
                let (reason, message) = match context.sensitive {
                    true => (
                        "Failed".to_owned(),
                        "the other side called back that it failed".to_owned(),
                    ),
                    false => (masker.text(&reason).into_owned(), masker.text(&message).into_owned()),
                };
                // The other side says that it was not done, and it knows.
                let failure = AttemptFailure::definite(reason, message);
                Outcome::Failed(AttemptFailure {
                    retry: if retryable {
                        RetryAdvice::Backoff
                    } else {
                        RetryAdvice::Never
                    },
                    ..failure
                })
            }
        })
    }
}
