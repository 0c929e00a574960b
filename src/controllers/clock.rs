//! The two clocks that the operator reads: one for people, one for claims. The engine reads none.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::api::Time;

/// Where time comes from: the machine, or a simulation.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Time;

    /// A clock that never jumps and that counts suspension: a process that slept with its machine must not believe that
    /// its claim is as young as it feels.
    fn since_boot(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        Time::new(Timestamp::now())
    }

    fn since_boot(&self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }
}
