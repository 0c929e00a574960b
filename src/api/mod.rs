//! The custom resources of `holdfast.dev/v1alpha1`: types, limits and validation rules. No behaviour.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{CustomResourceExt, ResourceExt};

mod cloud_operation;
mod http;
mod job;
mod kubernetes;
mod operation_action;
mod operation_history;
mod operation_lock;
mod operation_schedule;
mod operation_template;
mod scalars;
mod status;
mod step;

pub use cloud_operation::*;
pub use http::*;
pub use job::*;
pub use kubernetes::*;
pub use operation_action::*;
pub use operation_history::*;
pub use operation_lock::*;
pub use operation_schedule::*;
pub use operation_template::*;
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
/// The annotation of a namespace that says how many of its operations run at once: a number from 1. The others wait.
pub const MAX_OPERATIONS_ANNOTATION: &str = "holdfast.dev/max-operations";
/// The annotation on every object that Holdfast creates: the idempotency key of the step that created it.
pub const KEY_ANNOTATION: &str = "holdfast.dev/idempotency-key";
/// The label on every object that Holdfast creates for an operation: the operation's name.
pub const OPERATION_LABEL: &str = "holdfast.dev/operation";
/// The label on every part of an operation's journal that is an object of its own: the operation's uid.
pub const OPERATION_UID_LABEL: &str = "holdfast.dev/operation-uid";
/// The label on every operation that a schedule started: the schedule's name.
pub const SCHEDULE_LABEL: &str = "holdfast.dev/schedule";
/// The label that Velero puts on what it restores.
pub const RESTORED_LABEL: &str = "velero.io/restore-name";
/// The annotation on every operation that a schedule started: when it was due.
pub const SCHEDULED_AT_ANNOTATION: &str = "holdfast.dev/scheduled-at";
/// The annotation on an operation that says who created it: set by admission, which lets nobody set another.
pub const CREATED_BY_ANNOTATION: &str = "holdfast.dev/created-by";
/// The annotation of the CRDs that numbers their schema: an operator serves only one at least as new as its own.
pub const SCHEMA_ANNOTATION: &str = "holdfast.dev/schema";
/// The field manager of every change that Holdfast makes.
pub const FIELD_MANAGER: &str = "holdfast";

/// What a rule begins with that holds for whatever was there before: the rest is for what is new.
pub const IF_NEW: &str = "oldSelf.hasValue() || ";

/// Every custom resource definition, as `holdfast crds` prints them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        CloudOperation::crd(),
        OperationAction::crd(),
        OperationHistory::crd(),
        OperationLock::crd(),
        OperationSchedule::crd(),
        OperationTemplate::crd(),
    ];
    for crd in &mut crds {
        let kind = crd.spec.names.kind.clone();
        for version in &mut crd.spec.versions {
            let schema = version.schema.as_mut();
            let Some(schema) = schema.and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
                continue;
            };
            tidy(schema);
            let Some(fields) = &mut schema.properties else {
                continue;
            };
            match kind.as_str() {
                "CloudOperation" => {
                    fields.entry("spec".into()).and_modify(|spec| {
                        nested_steps(spec);
                        asked_once(spec);
                    });
                    // Without it, tools that read kstatus take an operation that the operator hasn't seen yet for done.
                    fields.entry("status".into()).and_modify(|status| {
                        status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})))
                    });
                }
                "OperationTemplate" => {
                    fields.entry("spec".into()).and_modify(|spec| {
                        changeable(spec);
                        nested_steps(spec);
                    });
                }
                "OperationSchedule" => {
                    let operation = fields.get_mut("spec").and_then(|spec| within(spec, "operation"));
                    if let Some(spec) = operation.and_then(|operation| within(operation, "spec")) {
                        nested(spec); // described at length in CloudOperation's definition
                        nested_steps(spec);
                    }
                }
                _ => {}
            }
        }
    }
    crds
}

/// The name of each custom resource definition, and the number of its schema. Known without its schema, which takes a
/// while to make.
pub fn schema_numbers() -> &'static [(String, u32)] {
    static NUMBERS: LazyLock<Vec<(String, u32)>> = LazyLock::new(|| {
        let numbered = |crd: CustomResourceDefinition| (crd.name_any(), schema_number(&crd.metadata));
        crds().into_iter().map(numbered).collect()
    });
    &NUMBERS
}

/// The number of a custom resource definition's schema; 0 if it says none.
pub fn schema_number(metadata: &ObjectMeta) -> u32 {
    let annotations = metadata.annotations.as_ref();
    let number = annotations.and_then(|annotations| annotations.get(SCHEMA_ANNOTATION)?.parse().ok());
    number.unwrap_or(0)
}

fn within<'s>(schema: &'s mut JSONSchemaProps, field: &str) -> Option<&'s mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(field)
}

/// Fills in the schemas of steps in steps, which a derived schema can't have: a `compensate` and the steps of `finally` look
/// as `steps` do. They are described again in a sentence each, for the definition's size.
fn nested_steps(spec: &mut JSONSchemaProps) {
    const UNDO: &[&str] = &[
        "http",
        "kubernetes",
        "job",
        "retry",
        "timeouts",
        "idempotent",
        "sensitive",
    ];
    let Some(properties) = &mut spec.properties else { return };
    let Some(JSONSchemaPropsOrArray::Schema(step)) = properties.get_mut("steps").and_then(|steps| steps.items.as_mut())
    else {
        return;
    };
    let mut bare = (**step).clone();
    nested(&mut bare);
    for ValidationRule { rule, message, .. } in bare.x_kubernetes_validations.iter_mut().flatten() {
        for of_groups in ["has(self.steps), ", " || (has(self.steps) && has(self.forEach))"] {
            *rule = rule.replace(of_groups, "");
        }
        for of_groups in ["steps, ", ", or of steps with forEach"] {
            *message = message.as_ref().map(|text| text.replace(of_groups, ""));
        }
    }
    without(&mut bare, &["steps", "order"]);
    let mut member = bare.clone();
    without(&mut bare, &["compensate", "needs"]);
    let mut fields = bare.properties.clone().unwrap_or_default();
    fields.retain(|name, _| UNDO.contains(&name.as_str()));
    let one_type = ValidationRule {
        rule: "[has(self.http), has(self.kubernetes), has(self.job)].filter(t, t).size() == 1".into(),
        message: Some("compensate has exactly one of http, kubernetes, job".into()),
        ..ValidationRule::default()
    };
    let undo = JSONSchemaProps {
        type_: Some("object".into()),
        properties: Some(fields),
        x_kubernetes_validations: Some(vec![one_type]),
        ..JSONSchemaProps::default()
    };
    for step in [&mut member, &mut **step] {
        if let Some(compensate) = within(step, "compensate") {
            let description = compensate.description.take();
            *compensate = JSONSchemaProps {
                description,
                ..undo.clone()
            };
        }
    }
    if let Some(members) = within(step, "steps") {
        members.items = Some(JSONSchemaPropsOrArray::Schema(Box::new(member)));
        members.max_items = Some(20);
    }
    if let Some(finally) = properties.get_mut("finally") {
        finally.items = Some(JSONSchemaPropsOrArray::Schema(Box::new(bare)));
        finally.max_items = Some(20);
    }
}

/// Takes fields out of a schema, and the rules on them: what isn't there can't be asked for.
fn without(schema: &mut JSONSchemaProps, fields: &[&str]) {
    if let Some(properties) = &mut schema.properties {
        properties.retain(|name, _| !fields.contains(&name.as_str()));
    }
    if let Some(rules) = &mut schema.x_kubernetes_validations {
        rules.retain(|rule| !fields.iter().any(|field| rule.rule.contains(&format!("self.{field}"))));
    }
}

/// Takes rules on changes out of a schema that is given at length elsewhere, and of descriptions all but the first sentence.
fn nested(schema: &mut JSONSchemaProps) {
    if let Some(description) = &mut schema.description {
        let sentence = description.find(". ").map_or(description.len(), |end| end + 1);
        description.truncate(sentence);
    }
    forget_changes(schema);
    each_within(schema, &mut nested);
}

/// Takes the rules on changes out of a schema: what has it may be changed.
fn changeable(schema: &mut JSONSchemaProps) {
    forget_changes(schema);
    each_within(schema, &mut changeable);
}

fn forget_changes(schema: &mut JSONSchemaProps) {
    if let Some(rules) = &mut schema.x_kubernetes_validations {
        rules.retain(|rule| !rule.rule.contains("oldSelf"));
    }
}

/// Makes the rules of what can't be changed rules on what is new: else the API server evaluates those of a whole object each
/// time that its status is written. The fields that can be changed have no rules. Entries of a list are known again only
/// where they have keys.
fn asked_once(schema: &mut JSONSchemaProps) {
    for rule in schema.x_kubernetes_validations.iter_mut().flatten() {
        if !rule.rule.contains("oldSelf") {
            rule.rule.insert_str(0, IF_NEW);
            rule.optional_old_self = Some(true);
        }
    }
    if schema.type_.as_deref() != Some("array") || schema.x_kubernetes_list_type.as_deref() == Some("map") {
        each_within(schema, &mut asked_once);
    }
}

/// Does something to each schema right within a schema.
fn each_within(schema: &mut JSONSchemaProps, change: &mut dyn FnMut(&mut JSONSchemaProps)) {
    let properties = schema.properties.iter_mut();
    properties
        .flat_map(|properties| properties.values_mut())
        .for_each(&mut *change);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        change(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        change(values);
    }
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
    each_within(schema, &mut tidy);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_changed_has_no_rule_that_is_asked_once() {
        let operation = &crds()[0].spec.versions[0];
        let schema = operation.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        let spec = serde_json::to_value(&schema.properties.as_ref().unwrap()["spec"]).unwrap();
        for field in ["suspend", "cancel", "ttlSecondsAfterFinished"] {
            let changeable = spec["properties"][field].to_string();
            assert!(
                changeable.len() > 10 && !changeable.contains(IF_NEW),
                "{field}: {changeable}"
            );
        }
        assert!(spec["properties"]["steps"].to_string().contains(IF_NEW));
    }
}
