//! The end-to-end scenarios, in one program so that they run side by side: each has a namespace and operators of its own.

mod access;
mod control;
mod crash;
mod deadlines;
mod flow;
mod gitops;
mod http;
mod http_credentials;
mod job;
mod kubernetes;
mod people;
mod schedules;
mod takeover;
mod templates;
