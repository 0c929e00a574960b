//! A limit to how long one request may take.

use std::time::Duration;

use tokio::time::timeout;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The answer of a request, or an error if there is none in time.
///
/// # Errors
/// Those of the request, and that there was no answer.
pub async fn within<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match timeout(REQUEST_TIMEOUT, call).await {
        Ok(answer) => answer,
        Err(_) => Err(kube::Error::Service(
            format!("no answer within {REQUEST_TIMEOUT:?}").into(),
        )),
    }
}
