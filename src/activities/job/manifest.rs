//! The Job that a `job` step creates.

use kube::Resource;
use serde_json::{Map, Value, json};

use crate::activities::AttemptContext;
use crate::activities::created;
use crate::activities::labels::operation_label;
use crate::api::{CloudOperation, EnvVar, Job, KEY_ANNOTATION, OPERATION_LABEL};
use crate::engine::AttemptFailure;

/// The environment variable that tells a container its step's idempotency key.
const KEY_VARIABLE: &str = "HOLDFAST_IDEMPOTENCY_KEY";
/// As whom the container of an image runs: the `nonroot` user that images without a user of their own agree on.
const NON_ROOT: i64 = 65532;

/// The whole Job.
///
/// # Errors
/// If the step's template can't be one of a Job that never restarts by itself.
pub fn manifest(context: &AttemptContext, request: &Job) -> Result<Value, AttemptFailure> {
    let labels = json!({OPERATION_LABEL: operation_label(&context.operation)});
    Ok(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": created::name(context),
            "namespace": context.namespace,
            "labels": labels,
            "annotations": {KEY_ANNOTATION: context.key.to_string()},
            "ownerReferences": [{
                "apiVersion": CloudOperation::api_version(&()),
                "kind": CloudOperation::kind(&()),
                "name": context.operation,
                "uid": context.operation_uid,
                "controller": true,
                "blockOwnerDeletion": false,
            }],
        },
        "spec": {"backoffLimit": 0, "template": template(context, request, labels)?},
    }))
}

fn template(context: &AttemptContext, request: &Job, labels: Value) -> Result<Value, AttemptFailure> {
    let mut template = match (&request.template, &request.image) {
        (Some(template), None) => Value::Object(template.clone()),
        (None, Some(image)) => of_image(request, image),
        _ => return Err(invalid("has exactly one of image, template")),
    };
    let metadata = object(&mut template, "metadata")?;
    let Value::Object(labels) = labels else {
        return Err(invalid("has no labels"));
    }; // not reached: it is an object
    object_in(metadata, "labels", "template.metadata.labels")?.extend(labels);
    let spec = object(&mut template, "spec")?;
    if spec.get("restartPolicy").is_some_and(|policy| policy != "Never") {
        return Err(invalid(
            "template.spec.restartPolicy must be Never: the step's retry starts another Job",
        ));
    }
    spec.insert("restartPolicy".into(), "Never".into());
    // A template may name another service account of the namespace. No power is borrowed by it: whoever may create Pods
    // in a namespace may run them as any of its service accounts, in Kubernetes itself.
    spec.entry("serviceAccountName")
        .or_insert_with(|| context.service_account.clone().into());
    if spec
        .get("containers")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        return Err(invalid("template.spec.containers must have a container"));
    }
    let key = json!({"name": KEY_VARIABLE, "value": context.key.to_string()});
    for field in ["initContainers", "containers"] {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let container = container
                .as_object_mut()
                .ok_or_else(|| invalid("template.spec: a container is an object"))?;
            let env = container.entry("env").or_insert_with(|| json!([]));
            let env = env
                .as_array_mut()
                .ok_or_else(|| invalid("template.spec: a container's env is a list"))?;
            env.retain(|variable| variable["name"] != KEY_VARIABLE);
            env.push(key.clone());
        }
    }
    Ok(template)
}

/// A template of one container, which namespaces of pod security level `restricted` take.
fn of_image(request: &Job, image: &str) -> Value {
    let mut container = json!({
        "name": "main",
        "image": image,
        "env": request.env.iter().map(variable).collect::<Vec<_>>(),
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    for (field, values) in [("command", &request.command), ("args", &request.args)] {
        if !values.is_empty() {
            container[field] = json!(values);
        }
    }
    if let Some(resources) = &request.resources {
        container["resources"] = Value::Object(resources.clone());
    }
    let security = json!({
        "runAsNonRoot": true,
        "runAsUser": NON_ROOT,
        "runAsGroup": NON_ROOT,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    json!({"spec": {"securityContext": security, "containers": [container]}})
}

fn variable(variable: &EnvVar) -> Value {
    match &variable.value_from {
        Some(source) => json!({"name": variable.name, "valueFrom": source}),
        None => json!({"name": variable.name, "value": variable.value.as_deref().unwrap_or_default()}),
    }
}

fn object<'a>(template: &'a mut Value, field: &str) -> Result<&'a mut Map<String, Value>, AttemptFailure> {
    let template = template
        .as_object_mut()
        .ok_or_else(|| invalid("template must be an object"))?;
    object_in(template, field, &format!("template.{field}"))
}

fn object_in<'a>(
    parent: &'a mut Map<String, Value>,
    field: &str,
    path: &str,
) -> Result<&'a mut Map<String, Value>, AttemptFailure> {
    let value = parent.entry(field).or_insert_with(|| json!({}));
    value
        .as_object_mut()
        .ok_or_else(|| invalid(&format!("{path} must be an object")))
}

fn invalid(what: &str) -> AttemptFailure {
    AttemptFailure::definite("Invalid", format!("job {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activities::testing::{answering, context_on};

    fn context(step: &str) -> AttemptContext {
        context_on(answering(|_| panic!("nothing is sent")), step)
    }

    fn job(request: Value) -> Result<Value, AttemptFailure> {
        manifest(&context("runTests"), &serde_json::from_value(request).unwrap())
    }

    #[tokio::test]
    async fn an_image_becomes_a_job_that_the_operation_owns_and_restricted_namespaces_take() {
        let job = job(json!({
            "image": "tool:1",
            "command": ["tool"],
            "args": ["--size", "3"],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "t"}}},
                {"name": KEY_VARIABLE, "value": "mine"},
            ],
            "resources": {"limits": {"memory": "1Gi"}},
        }))
        .unwrap();
        let context = context("runTests");
        let key = context.key.to_string();
        assert_eq!(job["metadata"]["name"], context.key.object_name("deploy-runtests", 0));
        assert_eq!(job["metadata"]["annotations"], json!({KEY_ANNOTATION: key}));
        let owner = &job["metadata"]["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["uid"]),
            (&json!("CloudOperation"), &json!("u1"))
        );
        assert_eq!(
            (&owner["controller"], &owner["blockOwnerDeletion"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(job["spec"]["backoffLimit"], 0);
        assert_eq!(
            job["spec"]["template"],
            json!({
                "metadata": {"labels": {OPERATION_LABEL: "deploy"}},
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": "releaser",
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "main",
                        "image": "tool:1",
                        "command": ["tool"],
                        "args": ["--size", "3"],
                        "env": [
                            {"name": "A", "value": "1"},
                            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "t"}}},
                            {"name": KEY_VARIABLE, "value": key},
                        ],
                        "resources": {"limits": {"memory": "1Gi"}},
                        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    }],
                },
            })
        );
    }

    #[tokio::test]
    async fn a_template_is_taken_as_it_is_but_for_what_makes_it_a_step() {
        let template = json!({
            "metadata": {"labels": {"app": "x"}},
            "spec": {
                "serviceAccountName": "builder",
                "initContainers": [{"name": "i", "image": "i"}],
                "containers": [{"name": "a", "image": "a", "env": [{"name": "B", "value": "2"}]}, {"name": "b", "image": "b"}],
            },
        });
        let made = &job(json!({"template": template})).unwrap()["spec"]["template"];
        assert_eq!(
            made["metadata"]["labels"],
            json!({"app": "x", OPERATION_LABEL: "deploy"})
        );
        assert_eq!(made["spec"]["serviceAccountName"], "builder");
        assert_eq!(made["spec"]["restartPolicy"], "Never");
        assert!(made["spec"].get("securityContext").is_none());
        for (pointer, variables) in [("initContainers/0", 1), ("containers/0", 2), ("containers/1", 1)] {
            let env = made
                .pointer(&format!("/spec/{pointer}/env"))
                .unwrap()
                .as_array()
                .unwrap();
            assert_eq!(
                (env.len(), &env[variables - 1]["name"]),
                (variables, &json!(KEY_VARIABLE))
            );
        }
    }

    #[tokio::test]
    async fn what_can_be_no_job_is_refused_by_its_field() {
        for (request, field) in [
            (json!({}), "image, template"),
            (
                json!({"template": {"spec": {"containers": []}}}),
                "template.spec.containers",
            ),
            (json!({"template": {"spec": "x"}}), "template.spec"),
            (
                json!({"template": {"metadata": {"labels": 1}, "spec": {}}}),
                "template.metadata.labels",
            ),
            (
                json!({"template": {"spec": {"restartPolicy": "OnFailure", "containers": [{}]}}}),
                "restartPolicy",
            ),
            (json!({"template": {"spec": {"containers": [{"env": {}}]}}}), "env"),
        ] {
            let failure = job(request).unwrap_err();
            assert_eq!(failure.reason, "Invalid");
            assert!(failure.message.contains(field), "{}", failure.message);
        }
    }

    #[tokio::test]
    async fn every_operation_and_step_make_a_name_that_a_job_and_a_label_can_have() {
        for (operation, failures) in [("a.b-c", 0), ("a.b-c", 1), (&*"long.".repeat(40), 0)] {
            let context = AttemptContext {
                operation: operation.into(),
                failures,
                ..context("runTests")
            };
            let name = created::name(&context);
            assert!(name.len() <= 63, "{name}");
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{name}"
            );
        }
    }
}
