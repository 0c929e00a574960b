//! What other controllers of a cluster do, as far as the samples need them.

use holdfast_apiserver::ApiServer;

/// Nothing yet.
pub async fn serve(_server: ApiServer) {}
