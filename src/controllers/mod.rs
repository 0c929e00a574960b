//! The shells that join engine and activities: watch, decide, write, act.

mod clock;
mod cloud_operation;
mod depth;
mod events;
mod executor;
mod journal;
mod leadership;
mod metrics;
mod namespaces;
mod operator;

pub use clock::{Clock, SystemClock};
pub use leadership::LEASE;
pub use namespaces::Namespaces;
pub use operator::{Config, Environment, Health, run};
