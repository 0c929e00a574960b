//! The simulation: the whole operator, unchanged, on an in-process API server under paused time, with faults.
//!
//! A test is a [`World`](world::World): an API server, a service to call that honours idempotency keys, and operators that
//! start, stand still and die. What must never happen is checked as it happens; see [`service`] and [`deeds`].

#[path = "../report/mod.rs"]
mod report;

mod actions;
mod blows;
mod callbacks;
mod children;
mod cluster;
mod concurrency;
mod crash_everywhere;
mod deeds;
mod deleting;
mod faults;
mod generated;
mod histories;
mod hostile;
mod limits;
mod local;
mod pause;
mod places;
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
mod transitions;
mod world;
