//! What touches the whole cluster: each of these runs alone, and this program beside no other.

use tokio::sync::{Mutex, MutexGuard};

mod apiserver_restart;
mod cluster_wide;
mod older_cluster;
mod spec_changed;
mod storm;

static ALONE: Mutex<()> = Mutex::const_new(());

/// Waits for the test's turn; it lasts until what is answered is dropped.
async fn turn() -> MutexGuard<'static, ()> {
    ALONE.lock().await
}
