//! Holdfast: a Kubernetes operator that runs cloud operations durably.
//!
//! Dependencies point one way: [`controllers`] → [`engine`], [`activities`] → [`api`]. The engine is pure: it decides,
//! the controllers and activities act. [`cli`] is for people, and is no part of the operator.
#![forbid(unsafe_code)]
#![deny(clippy::expect_used, clippy::unwrap_used)]

pub mod activities;
pub mod api;
pub mod cli;
pub mod controllers;
pub mod engine;
pub mod server;
