//! A store that went back in time, as etcd does when it is restored from a snapshot: seen by resourceVersions that go
//! backwards. What was done since the snapshot is no longer in any journal, so everything is held until a person has
//! looked: by an annotation of the Lease, which outlives this process.

use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use tokio::sync::watch;
use tracing::error;

use super::cached::version;

/// The annotation of the Lease that holds every operation. Its value says why; who removes it lets them go on.
pub const HOLD_ALL_ANNOTATION: &str = "holdfast.dev/hold-all";

/// What this process knows of the store's past, through all its terms.
pub struct Restore {
    newest: AtomicU64,
    hold: watch::Sender<Hold>,
}

/// Whether everything is held.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hold {
    No,
    /// The store went back, which the Lease doesn't say yet.
    Seen(String),
    /// The Lease says it.
    Recorded(String),
}

impl Default for Restore {
    fn default() -> Self {
        Self {
            newest: AtomicU64::new(0),
            hold: watch::Sender::new(Hold::No),
        }
    }
}

impl Restore {
    /// Takes in the Lease as it is now. Answers false if it is older than one seen before: the store went back.
    pub fn see(&self, lease: &Lease) -> bool {
        let before = self.newest.swap(version(lease), Ordering::SeqCst);
        let went_back = version(lease) < before;
        if went_back {
            self.went_back(&format!("the Lease's from {before} to {}", version(lease)));
        }
        self.hold.send_if_modified(|hold| {
            let next = match (lease.annotations().get(HOLD_ALL_ANNOTATION), &*hold) {
                (Some(why), _) => Hold::Recorded(why.clone()),
                (None, Hold::Recorded(_)) => Hold::No,
                (None, hold) => hold.clone(),
            };
            std::mem::replace(hold, next.clone()) != next
        });
        !went_back
    }

    /// Notes that resourceVersions went backwards, and which.
    pub fn went_back(&self, which: &str) {
        let why = format!("resourceVersions went backwards ({which}): was etcd restored?");
        error!(
            annotation = HOLD_ALL_ANNOTATION,
            "{why} Everything is held: look at what was under way, then remove the annotation from the Lease"
        );
        self.hold.send_replace(Hold::Seen(why));
    }

    /// What the Lease is to say, beyond what it says.
    pub fn to_record(&self) -> Option<String> {
        match &*self.hold.borrow() {
            Hold::Seen(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// True while everything is held.
    pub fn is_held(&self) -> bool {
        *self.hold.borrow() != Hold::No
    }

    /// Returns when [`is_held`](Self::is_held) is no longer what it was.
    pub async fn changed(&self, was: bool) {
        let mut hold = self.hold.subscribe();
        // The error is not reached: the sender lives as long as this.
        let _ = hold.wait_for(|hold| (*hold != Hold::No) != was).await;
    }
}
