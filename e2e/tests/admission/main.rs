//! What the API server itself refuses, and what it says: a bad spec never reaches the operator, and a good one can't be
//! changed. Needs the CRDs and the policy in the cluster, no operator.

mod actions;
mod immutable;
mod kubectl;
mod people;
mod place;
mod specs;
