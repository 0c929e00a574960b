//! The shells that join engine and activities: watch, decide, write, act.

mod actions;
mod admission;
mod cached;
mod callbacks;
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
pub mod transitions;
mod turns;
mod within;

pub use callbacks::{Call, Reception, Refusal, Says};
pub use clock::{Clock, SystemClock};
pub use leadership::{LEADER_ADDRESS_ANNOTATION, LEASE};
pub use locks::lock_name;
pub use namespaces::Namespaces;
pub use operator::{Config, Environment, Health, run};
pub use restore::HOLD_ALL_ANNOTATION;
