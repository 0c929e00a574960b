//! `OperationLock`: who holds a concurrency key.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{Time, atomic};

/// Which operations hold a concurrency key: those that run while others with the same key wait. Written by the operator
/// alone, each change on top of the one before it. An operation counts only while it exists and hasn't ended.
#[allow(clippy::duplicated_attributes)] // each printcolumn has a type
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "OperationLock",
    plural = "operationlocks",
    singular = "operationlock",
    shortname = "oplock",
    category = "holdfast",
    namespaced,
    annotation("holdfast.dev/schema", "1"),
    derive = "PartialEq",
    doc = "An OperationLock says which CloudOperations hold a concurrency key: those that run while others with the same key wait. It is written by the operator alone.",
    printcolumn(
        name = "Key",
        type_ = "string",
        json_path = ".spec.key",
        description = "The concurrency key"
    ),
    printcolumn(
        name = "Holders",
        type_ = "string",
        json_path = ".spec.holders[*].name",
        description = "The operations that hold it"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since it was created"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct OperationLockSpec {
    /// The key.
    #[schemars(length(min = 1, max = 1024))]
    pub key: String,

    /// The operations that hold it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "atomic::<LockHolder>", length(max = 100))]
    pub holders: Vec<LockHolder>,
}

/// An operation that holds a lock.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockHolder {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its uid: another of the same name doesn't hold it.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// Since when it holds it.
    pub since: Time,
}
