//! The `job` step: a container that runs to its end.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{SecretSource, any_object, pod_template, text, texts};

/// A container that runs to its end, as a batch/v1 Job that the operation's service account creates and the operation
/// owns. A Job never restarts by itself: a failed one is retried as the step's `retry` says, under another name.
///
/// `result` is what the container wrote to its termination message (`/dev/termination-log`, at most 4096 bytes):
/// JSON if it parses, text otherwise. Without `output`, an object is the step's output as it is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.image) != has(self.template)").message("job has exactly one of image, template"))]
#[x_kube(validation = Rule::new("!has(self.template) || !(has(self.command) || has(self.args) || has(self.env) || has(self.resources))").message("job.template says all: command, args, env and resources go with image"))]
pub struct Job {
    /// The image to run, a `${...}` template. It runs as the user 65532 without any privilege, as pod security
    /// `restricted` demands; `template` can say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// The command, in place of the image's own entrypoint. `${...}` templates.
    #[serde(default, deserialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 8192)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub command: Vec<String>,
    /// Arguments of the command. `${...}` templates.
    #[serde(default, deserialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 8192)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub args: Vec<String>,
    /// Environment variables. `HOLDFAST_IDEMPOTENCY_KEY` is always there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
    /// The container's resources, as in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub resources: Option<Map<String, Value>>,
    /// A whole pod template (`metadata`, `spec`), in place of `image`. Strings in it are `${...}` templates. Its first
    /// container's termination message is the result. It runs as the operation's service account unless it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pod_template")]
    pub template: Option<Map<String, Value>>,
}

/// An environment variable: its value is given, or comes from a Secret.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.value) && has(self.valueFrom))").message("an env entry has at most one of value, valueFrom"))]
pub struct EnvVar {
    /// The variable's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The variable's value, a `${...}` template.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub value: Option<String>,
    /// Where the value comes from: the kubelet reads it, Holdfast never sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<SecretSource>,
}
