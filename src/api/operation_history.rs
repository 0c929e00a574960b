//! `OperationHistory`: what belongs to an operation's journal and has no room in its status.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{HistoryEntry, any_object, atomic};

/// A part of an operation's journal that has no room in its status: the template that it runs, as it was at the start.
/// Written by the operator alone, never changed, and gone with the operation.
#[allow(clippy::duplicated_attributes)] // each printcolumn has a type
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "OperationHistory",
    plural = "operationhistories",
    singular = "operationhistory",
    shortname = "ophist",
    category = "holdfast",
    namespaced,
    annotation("holdfast.dev/schema", "1"),
    derive = "PartialEq",
    doc = "An OperationHistory is a part of a CloudOperation's journal that has no room in its status: the template that it runs, as it was at the start. It is written by the operator alone, never changed, and gone with the operation.",
    selectable = ".spec.operationRef.name",
    printcolumn(
        name = "Operation",
        type_ = "string",
        json_path = ".spec.operationRef.name",
        description = "The operation whose journal it belongs to"
    ),
    printcolumn(
        name = "Template",
        type_ = "string",
        json_path = ".spec.template.name",
        description = "The template that it holds"
    ),
    printcolumn(
        name = "From",
        type_ = "integer",
        json_path = ".spec.from",
        description = "The first sequence number that it holds"
    ),
    printcolumn(
        name = "To",
        type_ = "integer",
        json_path = ".spec.to",
        description = "The last sequence number that it holds"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since it was created"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("an OperationHistory is immutable"))]
pub struct OperationHistorySpec {
    /// The operation.
    pub operation_ref: HistoryOf,

    /// The template that the operation runs, as it was when the operation started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PinnedTemplate>,

    /// The first sequence number of `entries`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub from: Option<i64>,

    /// The last sequence number of `entries`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub to: Option<i64>,

    /// A range of the operation's history.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "atomic::<HistoryEntry>")]
    pub entries: Vec<HistoryEntry>,
}

/// Whose journal it belongs to.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryOf {
    /// The operation's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The operation's uid: another of the same name isn't it.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// A template as it was.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinnedTemplate {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its spec.
    #[schemars(schema_with = "any_object")]
    pub spec: Map<String, Value>,
}
