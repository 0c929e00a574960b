//! The custom resources of `holdfast.dev/v1alpha1`: types, limits and validation rules. No behaviour.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

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
/// The annotation of the CRDs that numbers their schema: an operator serves only one at least as new as its own.
pub const SCHEMA_ANNOTATION: &str = "holdfast.dev/schema";
/// The field manager of every change that Holdfast makes.
pub const FIELD_MANAGER: &str = "holdfast";

/// Every custom resource definition, as `holdfast crds` prints them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![CloudOperation::crd()];
    for crd in &mut crds {
        for version in &mut crd.spec.versions {
            if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
                tidy(schema);
                // Without it, tools that read kstatus take an operation that the operator hasn't seen yet for done.
                if let Some(status) = schema
                    .properties
                    .as_mut()
                    .and_then(|properties| properties.get_mut("status"))
                {
                    status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
                }
            }
        }
    }
    crds
}

/// Makes a derived schema one that people meet with pleasure. An optional field isn't nullable: the API server then
/// drops a `null`, as for built-in kinds, in place of counting it as given in rules such as "exactly one of". And lines
/// of a description are joined, as `kubectl explain` breaks them itself.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    if let Some(description) = &mut schema.description {
        let paragraphs: Vec<_> = description.split("\n\n").map(|text| text.replace('\n', " ")).collect();
        *description = paragraphs.join("\n\n");
    }
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
    {
        tidy(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}
