//! What the end-to-end tests, the demo and the benchmark share: a service to call, an operator to run and kill, and a
//! namespace of one's own on a real cluster.
#![forbid(unsafe_code)]

pub mod cel_vectors;
pub mod image;
pub mod install;
pub mod inventory;
pub mod kubectl;
pub mod operator;
pub mod replicas;
pub mod secure;
pub mod witness;
pub mod world;
