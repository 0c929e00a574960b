//! Who kills an operator at one of its requests, by number: a run without a shot tells how many there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast_apiserver::{Fault, RequestInfo};
use tokio::sync::Notify;

use crate::world::{World, dying, of_operator};

/// A number that no request has.
pub const NEVER: usize = usize::MAX;

/// Kills an operator at a request, before it is applied or after.
#[derive(Clone, Default)]
pub struct Sniper {
    seen: Arc<AtomicUsize>,
    die: Arc<Notify>,
}

impl Sniper {
    /// Counts, from now on, the operators' requests that `counts` picks, and shoots at number `at`, from 1.
    pub fn aim(
        world: &World,
        at: usize,
        applied: bool,
        counts: impl Fn(&RequestInfo) -> bool + Send + Sync + 'static,
    ) -> Self {
        let sniper = Self::default();
        let own = sniper.clone();
        world.server.set_faults(move |info| {
            if !of_operator(info) || !counts(info) || own.seen.fetch_add(1, Ordering::Relaxed) + 1 != at {
                return Fault::None;
            }
            own.shoot();
            dying(applied)
        });
        sniper
    }

    /// Shoots for another reason.
    pub fn shoot(&self) {
        self.die.notify_one();
    }

    /// Waits for the shot: whose request it was has to be killed.
    pub async fn shot(&self) {
        self.die.notified().await;
    }

    /// Waits for something. If the operator dies before that, another takes its place, and it is waited for anew.
    pub async fn watch(&self, world: &mut World, operator: &mut usize, until: impl AsyncFn(&World)) {
        tokio::select! {
            biased;
            () = self.shot() => {
                world.kill(*operator).await;
                *operator = world.start();
                until(world).await;
            }
            () = until(world) => {}
        }
    }

    /// How many requests there were.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }
}

/// Counts all requests, but of those for the Lease, which is renewed for hours, only the first six.
pub fn but_renewals() -> impl Fn(&RequestInfo) -> bool + Send + Sync {
    let leases = AtomicUsize::new(0);
    move |info| info.resource != "leases" || leases.fetch_add(1, Ordering::Relaxed) < 6
}
