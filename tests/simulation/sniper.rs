//! Who kills an operator at one of its requests, or at a call or callback of the service, by number: a run without a shot
//! tells how many there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast_apiserver::{Fault, RequestInfo};
use tokio::sync::Notify;

use crate::callbacks::CallbackFault;
use crate::service::{CallFault, Service};
use crate::world::{World, dying, of_operator};

/// Where an operator dies: at the request, call or callback of a number, from 1; before it had its effect, or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    Never,
    /// At a request to the API server.
    AtRequest(usize, bool),
    /// At a call of the service.
    AtCall(usize, bool),
    /// At a callback of the service.
    AtCallback(usize, bool),
}

/// At how many points an operator could have died.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub requests: usize,
    pub calls: usize,
    pub callbacks: usize,
}

impl Seen {
    /// A crash before and after each.
    pub fn crashes(self) -> impl Iterator<Item = Crash> {
        let at = |most: usize, crash: fn(usize, bool) -> Crash| {
            (1..=most).flat_map(move |number| [crash(number, false), crash(number, true)])
        };
        at(self.requests, Crash::AtRequest)
            .chain(at(self.calls, Crash::AtCall))
            .chain(at(self.callbacks, Crash::AtCallback))
    }
}

/// Kills an operator at one point.
pub struct Sniper {
    requests: Arc<AtomicUsize>,
    die: Arc<Notify>,
    service: Service,
    /// What there was of calls and callbacks before.
    before: (usize, usize),
}

impl Sniper {
    /// Counts, from now on, the operators' requests that `counts` picks, the service's calls and its callbacks, and shoots
    /// at one of them.
    pub fn aim(world: &World, crash: Crash, counts: impl Fn(&RequestInfo) -> bool + Send + Sync + 'static) -> Self {
        let service = world.service.clone();
        let before = (service.calls(), service.gateway.calls());
        let sniper = Self {
            requests: Arc::default(),
            die: Arc::default(),
            service,
            before,
        };
        let (requests, die) = (sniper.requests.clone(), sniper.die.clone());
        world.server.set_faults(move |info| {
            if !of_operator(info) || !counts(info) {
                return Fault::None;
            }
            let number = requests.fetch_add(1, Ordering::Relaxed) + 1;
            match crash {
                Crash::AtRequest(at, applied) if at == number => {
                    die.notify_one();
                    dying(applied)
                }
                _ => Fault::None,
            }
        });
        let die = sniper.die.clone();
        world.service.set_faults(move |number| match crash {
            Crash::AtCall(at, done) if before.0 + at == number => {
                die.notify_one();
                if done {
                    CallFault::DieAfter
                } else {
                    CallFault::DieBefore
                }
            }
            _ => CallFault::None,
        });
        let die = sniper.die.clone();
        world.service.gateway.set_faults(move |number| match crash {
            Crash::AtCallback(at, taken) if before.1 + at == number => {
                die.notify_one();
                if taken {
                    CallbackFault::DieAfter
                } else {
                    CallbackFault::DieBefore
                }
            }
            _ => CallbackFault::None,
        });
        sniper
    }

    /// Waits for the shot: who was hit has to be killed.
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

    /// At how many points it could have died until now.
    pub fn seen(&self) -> Seen {
        Seen {
            requests: self.requests.load(Ordering::Relaxed),
            calls: self.service.calls() - self.before.0,
            callbacks: self.service.gateway.calls() - self.before.1,
        }
    }
}

/// Counts all requests, but of those for the Lease, which is renewed for hours, only the first six.
pub fn but_renewals() -> impl Fn(&RequestInfo) -> bool + Send + Sync {
    let leases = AtomicUsize::new(0);
    move |info| info.resource != "leases" || leases.fetch_add(1, Ordering::Relaxed) < 6
}
