//! The shells that join engine and activities: watch, decide, write, act.

mod actions;
mod admission;
mod cached;
mod clock;
mod cloud_operation;
mod depth;
mod events;
mod executor;
mod histories;
mod journal;
mod leadership;
mod locks;
mod metrics;
mod namespaces;
mod operation_schedule;
mod operator;
mod queue;
mod restore;
mod templates;
mod turns;
mod within;

pub use clock::{Clock, SystemClock};
pub use leadership::LEASE;
pub use namespaces::Namespaces;
pub use operator::{Config, Environment, Health, run};
pub use restore::HOLD_ALL_ANNOTATION;
