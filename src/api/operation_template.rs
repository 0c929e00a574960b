//! `OperationTemplate`: a workflow to be used many times.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Duration, FailurePolicy, Order, Retry, Step, any_list, any_object};

/// A workflow that operations run by its name, each with an input of its own.
///
/// It may be changed at any time: an operation runs what was there when it started, to its end.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "OperationTemplate",
    plural = "operationtemplates",
    singular = "operationtemplate",
    shortname = "optpl",
    category = "holdfast",
    namespaced,
    annotation("holdfast.dev/schema", "1"),
    derive = "PartialEq",
    doc = "An OperationTemplate is a workflow that CloudOperations run by its name, each with an input of its own. It may be changed at any time: an operation runs what was there when it started, to its end.",
    printcolumn(name = "Account", type_ = "string", json_path = ".spec.serviceAccountName", description = "The service account as which its operations act, where they name none"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since it was created"),
    validation = Rule::new("size(self.metadata.name) <= 200").message("metadata.name must have at most 200 characters")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[self.steps.map(s, s.name)].all(names, self.steps.all(s, !has(s.needs) || s.needs.all(n, n in names)))").message("needs of a step names a step that isn't there").field_path(".steps"))]
pub struct OperationTemplateSpec {
    /// What an operation's `input` must conform to: a JSON Schema of an object. Its `default`s are filled in first. Nothing
    /// outside of it may be referred to (`$ref`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub input_schema: Option<Map<String, Value>>,

    /// The service account as which the steps act, where the operation names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,

    /// How long the whole operation may take, where it doesn't say it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,

    /// What the operation does when a step fails for good, where it doesn't say it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_policy: Option<FailurePolicy>,

    /// In which order the steps run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,

    /// How steps are retried that don't say it themselves, where the operation doesn't say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,

    /// The steps.
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub steps: Vec<Step>,

    /// Steps that run at the end, whatever happened before, as those of an operation do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "any_list")]
    pub finally: Vec<Step>,

    /// What the operation answers, computed when it succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub output: Option<Map<String, Value>>,
}

/// Which template.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateRef {
    /// Its name, in the operation's namespace.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
}
