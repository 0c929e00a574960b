//! The simulation: the whole operator, unchanged, on an in-process API server under paused time, with faults.
//!
//! A test is a [`World`](world::World): an API server, a service to call that honours idempotency keys, and operators that
//! start and die. What must never happen is checked as it happens; see [`service`].

mod actions;
mod callbacks;
mod children;
mod cluster;
mod concurrency;
mod crash_everywhere;
mod deleting;
mod faults;
mod generated;
mod histories;
mod hostile;
mod limits;
mod local;
mod pruning;
mod removals;
mod restores;
mod samples;
mod schedules;
mod service;
mod sniper;
mod takeover;
mod templates;
mod timeouts;
mod world;
