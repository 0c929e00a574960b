//! An operation that runs a template: its spec completed by the template's, and its input by the schema's defaults. What is
//! decided on is always the whole.

use serde_json::{Map, Value};

use super::workflow::InvalidSpec;
use super::{Identity, summary};
use crate::api::{CloudOperationSpec, OperationState, OperationStatus, OperationTemplateSpec, Time};

/// A spec with the template that it names filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The whole spec.
    pub spec: CloudOperationSpec,
    /// Why it can't be executed, as far as the template shows it.
    pub invalid: Option<InvalidSpec>,
}

/// Fills in a template. What the operation says itself wins.
pub fn resolve(spec: &CloudOperationSpec, template: &Map<String, Value>) -> Resolved {
    let template: OperationTemplateSpec = match serde_json::from_value(Value::Object(template.clone())) {
        Ok(template) => template,
        Err(error) => {
            return Resolved {
                spec: spec.clone(),
                invalid: Some(InvalidSpec {
                    field: "spec.templateRef".into(),
                    message: format!("the template can't be read: {error}"),
                }),
            };
        }
    };
    let mut input = Value::Object(spec.input.clone());
    let schema = template.input_schema.map(Value::Object);
    let invalid = schema.and_then(|schema| {
        fill_in(&mut input, &schema);
        check(&input, &schema).err()
    });
    let input = match input {
        Value::Object(input) => input,
        _ => spec.input.clone(), // not reached: filling in keeps an object one
    };
    let spec = CloudOperationSpec {
        service_account_name: spec.service_account_name.clone().or(template.service_account_name),
        timeout: spec.timeout.clone().or(template.timeout),
        failure_policy: spec.failure_policy.or(template.failure_policy),
        retry: spec.retry.clone().or(template.retry),
        input,
        order: template.order,
        steps: template.steps,
        finally: template.finally,
        output: template.output,
        ..spec.clone()
    };
    Resolved { spec, invalid }
}

/// Fills in the `default`s of a schema's properties where a value has none, as Kubernetes does.
fn fill_in(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, property) in schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                if let (None, Some(default)) = (fields.get(name), property.get("default")) {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(field) = fields.get_mut(name) {
                    fill_in(field, property);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| fill_in(item, schema));
            }
        }
        _ => {}
    }
}

/// Checks an input against its schema. The error names the field.
fn check(input: &Value, schema: &Value) -> Result<(), InvalidSpec> {
    let validator = jsonschema::options()
        .with_pattern_options(jsonschema::PatternOptions::regex()) // linear in time
        .build(schema)
        .map_err(|error| InvalidSpec {
            field: "spec.inputSchema".into(),
            message: format!("it is no JSON Schema: {error}"),
        })?;
    let Some(error) = validator.iter_errors(input).next() else {
        return Ok(());
    };
    let mut field = String::from("spec.input");
    for segment in error.instance_path() {
        field += &match segment {
            jsonschema::paths::LocationSegment::Property(name) => format!(".{name}"),
            jsonschema::paths::LocationSegment::Index(index) => format!("[{index}]"),
        };
    }
    Err(match error.kind() {
        jsonschema::error::ValidationErrorKind::Required {
            property: Value::String(name),
        } => InvalidSpec {
            field: format!("{field}.{name}"),
            message: "the template requires it".into(),
        },
        _ => InvalidSpec {
            field,
            message: error.to_string(),
        },
    })
}

/// The status of an operation that doesn't start, or go on, yet: it says why, and nothing is decided. One that has ended,
/// and is to run again, stays as it ended until then.
pub fn held_up(
    status: &OperationStatus,
    identity: &Identity,
    state: OperationState,
    message: &str,
    now: Time,
) -> OperationStatus {
    let now = status.last_time.map_or(now, |last| last.max(now));
    let mut next = status.clone();
    let progress = status.progress.clone().unwrap_or_else(|| "0/0".into());
    if status.completion_time.is_some() {
        summary::comes_back(&mut next, Some(message), identity.generation, now);
    } else {
        let state = Some((state, message.into()));
        summary::summarise(&mut next, state, progress, false, identity.generation, now);
    }
    // Of one that has started, held time is reckoned from the last write that was decided.
    let under_way = status.start_time.is_some() && status.completion_time.is_none();
    if next != *status && !under_way {
        next.last_time = Some(now);
    }
    next
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{FailurePolicy, Order};

    fn spec(yaml: &str) -> CloudOperationSpec {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn resolved(operation: &str, template: &str) -> Resolved {
        resolve(&spec(operation), &serde_yaml::from_str(template).unwrap())
    }

    const SCHEMA: &str = "
        inputSchema:
          type: object
          required: [group, size]
          additionalProperties: false
          properties:
            group: {type: string}
            size: {type: integer, default: 3, maximum: 10}
            zones: {type: array, items: {type: object, properties: {name: {type: string}, weight: {type: integer, default: 1}}}}
            limits: {type: object, default: {}, properties: {seconds: {type: integer, default: 30}}}
        steps: [{name: a, set: {v: 1}}]";

    #[test]
    fn the_operations_own_words_win_and_the_steps_are_the_templates() {
        let found = resolved(
            "{templateRef: {name: t}, serviceAccountName: own, failurePolicy: Pause, suspend: true, input: {group: web}}",
            "{serviceAccountName: releaser, timeout: 1h, failurePolicy: Compensate, order: Graph, retry: {maximumAttempts: 2},
              steps: [{name: a, set: {v: 1}}], finally: [{name: b, set: {v: 1}}], output: {a: 1}}",
        );
        assert_eq!(found.invalid, None);
        let spec = found.spec;
        assert_eq!(spec.service_account(), "own");
        assert_eq!(spec.failure_policy, Some(FailurePolicy::Pause));
        assert_eq!(spec.suspend, Some(true));
        assert_eq!(spec.timeout.as_ref().unwrap().get().as_secs(), 3600);
        assert_eq!(spec.order, Some(Order::Graph));
        assert_eq!(spec.retry.as_ref().unwrap().maximum_attempts, Some(2));
        assert_eq!((spec.steps.len(), spec.finally.len()), (1, 1));
        assert_eq!(json!(spec.output), json!({"a": 1}));
        assert_eq!(json!(spec.input), json!({"group": "web"}));
        assert_eq!(spec.template_ref.unwrap().name, "t", "part of the digest");
    }

    #[test]
    fn defaults_are_filled_in_in_all_depth() {
        let found = resolved(
            "{templateRef: {name: t}, input: {group: web, zones: [{name: a}, {name: b, weight: 5}]}}",
            SCHEMA,
        );
        assert_eq!(found.invalid, None);
        let expected = json!({
            "group": "web", "size": 3, "limits": {"seconds": 30},
            "zones": [{"name": "a", "weight": 1}, {"name": "b", "weight": 5}],
        });
        assert_eq!(json!(found.spec.input), expected);
    }

    #[test]
    fn an_input_that_does_not_conform_is_named_by_its_field() {
        for (input, message) in [
            ("{size: 4}", "spec.input.group: the template requires it"),
            (
                "{group: web, size: 11}",
                "spec.input.size: 11 is greater than the maximum of 10",
            ),
            (
                "{group: web, size: many}",
                "spec.input.size: \"many\" is not of type \"integer\"",
            ),
            (
                "{group: web, zones: [{}, {weight: x}]}",
                "spec.input.zones[1].weight: \"x\" is not of type \"integer\"",
            ),
            (
                "{group: web, other: 1}",
                "spec.input: Additional properties are not allowed ('other' was unexpected)",
            ),
        ] {
            let found = resolved(&format!("{{templateRef: {{name: t}}, input: {input}}}"), SCHEMA);
            assert_eq!(found.invalid.unwrap().to_string(), message);
        }
    }

    #[test]
    fn a_schema_that_is_none_is_the_templates_fault_and_nothing_is_fetched() {
        for schema in ["{type: 7}", "{$ref: 'http://127.0.0.1:1/schema.json'}"] {
            let found = resolved(
                "{templateRef: {name: t}}",
                &format!("{{inputSchema: {schema}, steps: [{{name: a, set: {{v: 1}}}}]}}"),
            );
            assert_eq!(found.invalid.unwrap().field, "spec.inputSchema");
        }
    }
}
