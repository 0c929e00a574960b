//! The `kubernetes` step: one request about objects, as the operation's service account.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{IntOrTemplate, any_value, expression, manifest};

/// One request about objects of any kind that the API server knows, made as the operation's service account.
/// `result` is the object that the API server answered; for `list` an object with `items`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.apply), has(self.create), has(self.patch), has(self.scale), has(self.delete), has(self.evict), has(self.get), has(self.list), has(self.wait)].filter(t, t).size() == 1").message("kubernetes has exactly one of apply, create, patch, scale, delete, evict, get, list, wait"))]
pub struct Kubernetes {
    /// Server-side apply of a manifest, with the field manager `holdfast`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply: Option<Apply>,
    /// Creates an object. One that exists is a failure, unless this step created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<Create>,
    /// Patches an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<PatchObject>,
    /// Sets the number of replicas, through the `scale` subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// Deletes an object. One that is gone is a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<Delete>,
    /// Evicts a Pod, as `kubectl drain` does: a disruption budget that has no room is retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evict: Option<Evict>,
    /// Reads an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub get: Option<Get>,
    /// Reads the objects that a selector matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<List>,
    /// Waits until an object is as wanted, by watch: the service account may list and watch its kind in its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<WaitFor>,
}

/// Which object.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRef {
    /// The API version, such as `apps/v1`.
    #[schemars(length(min = 1, max = 320))]
    pub api_version: String,
    /// The kind, such as `Deployment`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// The object's name, a `${...}` template.
    #[schemars(length(min = 1, max = 1024))]
    pub name: String,
    /// The object's namespace, a `${...}` template. Default: the operation's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub namespace: Option<String>,
}

/// Server-side apply.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Apply {
    /// The object. Strings in it are `${...}` templates.
    #[schemars(schema_with = "manifest")]
    pub manifest: Map<String, Value>,
    /// Takes over fields that another manager owns. Default: false, they are a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// Creation of an object.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Create {
    /// The object. Strings in it are `${...}` templates.
    #[schemars(schema_with = "manifest")]
    pub manifest: Map<String, Value>,
}

/// A patch of an object.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PatchObject {
    /// The object.
    pub resource: ResourceRef,
    /// The form of the patch.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub patch_type: Option<PatchType>,
    /// The patch: an object (Merge) or a list of operations (JSON). Strings in it are `${...}` templates. A JSON patch
    /// leaves the step's idempotency key in the annotation `holdfast.dev/last-json-patch`, so that it isn't made twice.
    #[schemars(schema_with = "any_value")]
    pub patch: Value,
}

/// The form of the patch. Default: Merge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PatchType {
    /// JSON merge patch (RFC 7386).
    #[default]
    Merge,
    /// JSON patch (RFC 6902).
    #[serde(rename = "JSON")]
    Json,
}

/// A change of the number of replicas.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// The object: anything with a `scale` subresource.
    pub resource: ResourceRef,
    /// How many replicas: a number, or a `${...}` template that gives one.
    pub replicas: IntOrTemplate,
}

/// Deletion of an object.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delete {
    /// The object.
    pub resource: ResourceRef,
    /// What becomes of what the object owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagation_policy: Option<Propagation>,
}

/// What becomes of what a deleted object owns. Default: Background.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Propagation {
    /// It is deleted afterwards.
    #[default]
    Background,
    /// It is deleted first.
    Foreground,
    /// It stays.
    Orphan,
}

/// Eviction of a Pod.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evict {
    /// The Pod's name, a `${...}` template.
    #[schemars(length(min = 1, max = 1024))]
    pub pod: String,
    /// The Pod's namespace, a `${...}` template. Default: the operation's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub namespace: Option<String>,
}

impl Evict {
    /// The Pod.
    pub fn pod(&self) -> ResourceRef {
        ResourceRef {
            api_version: "v1".into(),
            kind: "Pod".into(),
            name: self.pod.clone(),
            namespace: self.namespace.clone(),
        }
    }
}

/// A read of one object.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Get {
    /// The object. One that doesn't exist is a failure.
    pub resource: ResourceRef,
}

/// A read of many objects.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List {
    /// The API version, such as `apps/v1`.
    #[schemars(length(min = 1, max = 320))]
    pub api_version: String,
    /// The kind, such as `Deployment`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// The objects' namespace, a `${...}` template. Default: the operation's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub namespace: Option<String>,
    /// Labels that the objects have, such as `app=web,tier!=cache`; a `${...}` template. All objects if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub label_selector: Option<String>,
}

/// A wait for an object: exactly one of `for` and `until` says for what.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.until) != has(self.__for__)").message("wait has exactly one of for, until"))]
pub struct WaitFor {
    /// The object. One that doesn't exist yet is waited for.
    pub resource: ResourceRef,
    /// The status to wait for.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub wait_for: Option<WaitStatus>,
    /// Waits until this expression over `object` is true. A field that the object doesn't have, yet, makes it false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression")]
    pub until: Option<String>,
    /// Fails the step as soon as this expression over `object` is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression")]
    pub fail_when: Option<String>,
}

/// The status to wait for, in kstatus' sense (sigs.k8s.io/cli-utils/pkg/kstatus); an object whose status is `Failed`
/// fails the step at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WaitStatus {
    /// The object is as its spec says.
    Current,
    /// The object is gone.
    Deleted,
}
