//! The endpoints below an object: scale, a pod's log and eviction, a service account's token.

use std::sync::Arc;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::LabelSelector, jiff::SignedDuration};
use kube::core::{Selector, SelectorExt};
use serde_json::{Value, json};

use crate::{
    objects::meta,
    resources::Scale,
    selector::labels_of,
    state::{Author, Call, State, seconds},
    status::{self, FieldError, Result},
    write::{Policy, patch_value},
};

impl State {
    /// GET of a scale.
    pub fn get_scale(&self, call: &Call) -> Result<Value> {
        let (_, object, _) = self.existing(call)?;
        scale_of(call, &object, false)
    }

    /// PUT or PATCH of a scale: changes the object's number of replicas.
    pub fn write_scale(&mut self, call: &Call, patch: bool) -> Result<Value> {
        let (_, live, _) = self.existing(call)?;
        let mut scale = scale_of(call, &live, true)?;
        if patch {
            let format = call.content_type.split(';').next().unwrap_or_default();
            patch_value(&call.target.resource, &mut scale, format, &call.body)?;
        } else {
            let sent: Value =
                serde_json::from_slice(&call.body).map_err(|e| status::bad_request(format!("Scale: {e}")))?;
            scale["spec"] = sent["spec"].clone();
            scale["metadata"]["resourceVersion"] = sent["metadata"]["resourceVersion"].clone();
        }
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or_default();
        if replicas < 0 {
            let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
            return Err(status::invalid(&call.target.resource, &call.target.name, vec![error]));
        }
        let mut new = Value::clone(&live);
        let places = places(call)?;
        *place(&mut new, &places.spec_replicas) = replicas.into();
        new["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
        let written = self.change(call, new, None)?;
        scale_of(call, &written, true)
    }

    /// GET of a pod's log: what the test set for it.
    pub fn pod_log(&self, call: &Call) -> Result<String> {
        let (key, pod, _) = self.existing(call)?;
        let containers = pod
            .pointer("/spec/containers")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let names: Vec<&str> = containers.iter().filter_map(|c| c["name"].as_str()).collect();
        let container = match (call.query.get("container"), names.as_slice()) {
            ("", [only]) => *only,
            ("", _) => {
                return Err(status::bad_request(format!(
                    "a container name must be specified for pod {}, choose one of: [{}]",
                    key.name,
                    names.join(" ")
                )));
            }
            (named, names) if names.contains(&named) => named,
            (named, _) => {
                return Err(status::bad_request(format!(
                    "container {named} is not valid for pod {}",
                    key.name
                )));
            }
        };
        let of = (key.namespace.clone(), key.name.clone(), container.to_owned());
        let text = self.pod_logs.get(&of).cloned().unwrap_or_default();
        let Some(tail) = call.query.number("tailLines").and_then(|n| usize::try_from(n).ok()) else {
            return Ok(text);
        };
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        Ok(lines[lines.len().saturating_sub(tail)..].concat())
    }

    /// POST of an eviction: deletes a pod, unless that would break a disruption budget.
    pub fn evict(&mut self, call: &Call) -> Result<Value> {
        let (key, pod, _) = self.existing(call)?;
        if pod.pointer("/status/phase").is_some_and(|phase| phase == "Running") {
            self.check_budgets(&key.namespace, &pod)?;
        }
        let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let mut author = Author::of(call);
        author.dry_run |= body.pointer("/deleteOptions/dryRun/0").is_some_and(|all| all == "All");
        let resource = call.target.resource.clone();
        self.delete_object(&author, &resource, &key, Policy::Background);
        Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
    }

    fn check_budgets(&self, namespace: &str, pod: &Value) -> Result<()> {
        let labels = labels_of(pod);
        let budgets = self
            .store
            .iter()
            .filter(|(key, _)| key.group == "policy" && key.namespace == namespace);
        for (key, budget) in budgets {
            let budget = &budget.object;
            let selector: LabelSelector =
                serde_json::from_value(budget["spec"]["selector"].clone()).unwrap_or_default();
            let Ok(selector) = Selector::try_from(selector) else {
                continue;
            };
            if !selector.matches(&labels) {
                continue;
            }
            let number = |field: &str| budget["status"][field].as_i64().unwrap_or_default();
            if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or_default() {
                let why = format!(
                    "The disruption budget {} is still being processed by the server.",
                    key.name
                );
                return Err(status::too_many_disruptions(why, Some(10)));
            }
            if number("disruptionsAllowed") <= 0 {
                let why = format!(
                    "The disruption budget {} needs {} healthy pods and has {} currently",
                    key.name,
                    number("desiredHealthy"),
                    number("currentHealthy")
                );
                return Err(status::too_many_disruptions(why, None));
            }
        }
        Ok(())
    }

    /// POST of a token request: a token that this server knows again as the service account's.
    pub fn token(&mut self, call: &Call) -> Result<Value> {
        let (key, account, _) = self.existing(call)?;
        let request: Value =
            serde_json::from_slice(&call.body).map_err(|e| status::bad_request(format!("TokenRequest: {e}")))?;
        let seconds_valid = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
        let until = call
            .info
            .time
            .checked_add(SignedDuration::from_secs(seconds_valid))
            .unwrap_or(call.info.time);
        Ok(json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {
                "name": key.name,
                "namespace": key.namespace,
                "uid": meta(&account, "uid"),
                "creationTimestamp": seconds(call.info.time),
            },
            "spec": {
                "audiences": request["spec"]["audiences"].as_array().cloned().unwrap_or_else(|| vec!["https://kubernetes.default.svc".into()]),
                "expirationSeconds": seconds_valid,
                "boundObjectRef": null,
            },
            "status": {"token": token_of(&key.namespace, &key.name, call.info.number), "expirationTimestamp": seconds(until)},
        }))
    }
}

/// A service account's token: it says whose it is, for the server is no place for secrets.
fn token_of(namespace: &str, name: &str, number: u64) -> String {
    format!("simulated.{namespace}.{name}.{number}")
}

/// The user that a bearer token stands for.
pub fn user_of_token(token: &str) -> Option<String> {
    let (namespace, rest) = token.strip_prefix("simulated.")?.split_once('.')?;
    let (name, _number) = rest.rsplit_once('.')?;
    Some(format!("system:serviceaccount:{namespace}:{name}"))
}

fn places(call: &Call) -> Result<&Scale> {
    call.target.resource.scale.as_ref().ok_or_else(status::no_such_resource)
}

/// An object's scale; one to be written may have no replicas yet.
fn scale_of(call: &Call, object: &Arc<Value>, writing: bool) -> Result<Value> {
    let places = places(call)?;
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64);
    let replicas = number(&places.spec_replicas);
    if replicas.is_none() && !writing && call.target.resource.custom {
        let field = places.spec_replicas.replace('/', ".");
        let why = format!("Internal error occurred: the spec replicas field \"{field}\" does not exist");
        return Err(status::failure(500, "InternalError", why));
    }
    let metadata = &object["metadata"];
    let mut scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {},
        "status": {"replicas": number(&places.status_replicas).unwrap_or_default()},
    });
    if let Some(replicas) = replicas.filter(|replicas| *replicas != 0) {
        scale["spec"]["replicas"] = replicas.into();
    }
    let selector = match &places.selector {
        Some(pointer) => object.pointer(pointer).and_then(Value::as_str).map(str::to_owned),
        None => {
            let selector: Option<LabelSelector> = serde_json::from_value(object["spec"]["selector"].clone()).ok();
            selector.and_then(|s| Selector::try_from(s).ok()).map(|s| s.to_string())
        }
    };
    if let Some(selector) = selector.filter(|selector| !selector.is_empty()) {
        scale["status"]["selector"] = selector.into();
    }
    Ok(scale)
}

/// The place of a JSON pointer, made where it isn't.
fn place<'v>(value: &'v mut Value, pointer: &str) -> &'v mut Value {
    pointer
        .split('/')
        .filter(|part| !part.is_empty())
        .fold(value, |value, part| &mut value[part])
}
