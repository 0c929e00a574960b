//! The end-to-end scenarios, in one program so that they run side by side: each has a namespace and operators of its own.

mod access;
mod actions;
mod callbacks;
mod children;
mod concurrency;
mod control;
mod crash;
mod deadlines;
mod finally;
mod flow;
mod gitops;
mod groups;
mod http;
mod http_credentials;
mod job;
mod kubernetes;
mod lists;
mod local;
mod long;
mod people;
mod saga;
mod schedules;
mod takeover;
mod templates;
