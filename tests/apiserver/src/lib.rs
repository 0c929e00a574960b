//! A Kubernetes API server in the test's own process.
//!
//! An unchanged operator runs on it: [`ApiServer::client`] is a `kube::Client` whose connection ends here. It keeps
//! the real server's contract as far as an operator can rely on it: resourceVersions and conflicts, watches and their
//! expiry, status and scale subresources, finalizers, garbage collection, server-side apply, schemas of custom
//! resources. The [`conformance`] suite holds it to that: it runs on this server and on the real one.
//!
//! It is deterministic: it has no clock but the one it is given, no threads, no randomness. Under
//! `#[tokio::test(start_paused = true)]`, with [`tokio_clock`] and [`seed_jitter`], a run repeats exactly,
//! with one exception outside its reach: kube's `Controller` runs objects that are ready at the same moment in the order of
//! a hash map. With one object, a run repeats; with several, up to their order.
//!
//! It fails on demand: [`ApiServer::set_faults`] decides for every request what goes wrong, and tests can drop, delay
//! and expire watches, serve stale reads, and restore an earlier state.
//!
//! # What it leaves out
//!
//! - CEL rules of schemas, admission policies and webhooks: what they would refuse is accepted.
//! - Validation and defaults of built-in kinds, but for a handful: a Secret's `stringData`, a Job's labels.
//! - Strategic merge patches merge lists as merge patches do.
//! - `managedFields` are never shown, though server-side apply keeps account of them.
//! - Corners of server-side apply: who owns an empty map or a scaled field, and the null that the real server makes of a
//!   list or map whose last entry an apply takes away (which its validation then refuses).
//! - core/v1 and events.k8s.io/v1 Events are two resources here, not two versions of one.
//! - There is no node: pods are deleted at once, and their status is whatever the test writes.
//! - A status write of a built-in kind changes nothing but the status; the real one lets some metadata through.

#![forbid(unsafe_code)]

mod apply;
mod builtin;
pub mod conformance;
mod control;
mod discovery;
mod dispatch;
mod faults;
mod garbage;
mod objects;
mod read;
mod resources;
mod route;
mod schema;
mod selector;
mod server;
mod state;
mod status;
mod store;
mod subresources;
mod typed;
mod watch;
mod write;

pub use control::{seed_jitter, tokio_clock};
pub use faults::{Fault, RequestInfo};
pub use route::Verb;
pub use server::{ApiServer, Clock, Connection};
pub use state::Write;
pub use store::{Change, Key, Stored};
