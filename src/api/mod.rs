//! The custom resources of `holdfast.dev/v1alpha1`: types, limits and validation rules. No behaviour.

mod cloud_operation;
mod http;
mod job;
mod kubernetes;
mod scalars;
mod status;
mod step;

pub use cloud_operation::*;
pub use http::*;
pub use job::*;
pub use kubernetes::*;
pub use scalars::*;
pub use status::*;
pub use step::*;

/// The API group of every kind.
pub const GROUP: &str = "holdfast.dev";
/// The label of a namespace that holds everything in it (`true`), without a write to any operation.
pub const SUSPENDED_LABEL: &str = "holdfast.dev/suspended";
/// The annotation of a namespace that lists what `http` steps in it may call, beyond the default:
/// addresses, CIDR ranges and host names (`*.example.com`), separated by commas.
pub const HTTP_TARGETS_ANNOTATION: &str = "holdfast.dev/http-targets";
/// The annotation on every object that Holdfast creates: the idempotency key of the step that created it.
pub const KEY_ANNOTATION: &str = "holdfast.dev/idempotency-key";
/// The label on every object that Holdfast creates for an operation: the operation's name.
pub const OPERATION_LABEL: &str = "holdfast.dev/operation";
/// The field manager of every change that Holdfast makes.
pub const FIELD_MANAGER: &str = "holdfast";

/// Every custom resource definition, as `holdfast crds` prints them.
pub fn crds() -> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    use kube::CustomResourceExt;
    vec![CloudOperation::crd()]
}
