//! What Secrets hold is never recorded: not in results, and not in messages about a request that carried it.

use serde_json::Value;

use crate::api;
use crate::engine::AttemptFailure;

const MASK: &str = "***";
/// What kubectl leaves behind of what it applied, values and all.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Shorter values are left in messages: they keep no secret, and are part of every other word.
const SHORTEST: usize = 4;

/// Hides the values of a Secret; its keys stay.
pub fn mask(secret: &mut Value) {
    for field in ["data", "stringData"] {
        for (_, value) in secret
            .get_mut(field)
            .and_then(Value::as_object_mut)
            .into_iter()
            .flatten()
        {
            *value = MASK.into();
        }
    }
    if let Some(annotations) = secret
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
}

/// A failure without the values that its request carried.
pub fn masked(request: &api::Kubernetes, failure: AttemptFailure) -> AttemptFailure {
    let mut message = failure.message;
    for value in values(request) {
        message = message.replace(&value, MASK);
    }
    AttemptFailure { message, ..failure }
}

/// The values that a request puts into a Secret, longest first, so that none is left half.
fn values(request: &api::Kubernetes) -> Vec<String> {
    let mut found = Vec::new();
    let manifests = [
        request.apply.as_ref().map(|a| &a.manifest),
        request.create.as_ref().map(|c| &c.manifest),
    ];
    for manifest in manifests
        .into_iter()
        .flatten()
        .filter(|m| is_secret(m.get("apiVersion"), m.get("kind")))
    {
        for field in ["data", "stringData"] {
            leaves(manifest.get(field), &mut found);
        }
    }
    let of_secret = |patch: &&api::PatchObject| patch.resource.api_version == "v1" && patch.resource.kind == "Secret";
    if let Some(patch) = request.patch.as_ref().filter(of_secret) {
        for field in ["data", "stringData"] {
            leaves(patch.patch.get(field), &mut found);
        }
        for operation in patch.patch.as_array().into_iter().flatten() {
            leaves(operation.get("value"), &mut found);
        }
    }
    found.retain(|value| value.len() >= SHORTEST);
    found.sort_by_key(|value| std::cmp::Reverse(value.len()));
    found
}

fn is_secret(api_version: Option<&Value>, kind: Option<&Value>) -> bool {
    api_version.is_some_and(|v| v == "v1") && kind.is_some_and(|k| k == "Secret")
}

fn leaves(value: Option<&Value>, found: &mut Vec<String>) {
    match value {
        Some(Value::Object(fields)) => fields.values().for_each(|field| leaves(Some(field), found)),
        Some(Value::Array(items)) => items.iter().for_each(|item| leaves(Some(item), found)),
        Some(Value::String(text)) => found.push(text.clone()),
        Some(number @ Value::Number(_)) => found.push(number.to_string()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secrets_keys_stay_and_its_values_go() {
        let mut secret = json!({
            "metadata": {"name": "s", "annotations": {LAST_APPLIED: "{\"data\":{\"token\":\"aHVudGVyMg==\"}}", "a": "b"}},
            "type": "Opaque",
            "data": {"token": "aHVudGVyMg=="},
            "stringData": {"user": "hunter"},
        });
        mask(&mut secret);
        assert_eq!(
            secret,
            json!({
                "metadata": {"name": "s", "annotations": {"a": "b"}},
                "type": "Opaque",
                "data": {"token": "***"},
                "stringData": {"user": "***"},
            })
        );
    }

    #[test]
    fn what_a_request_puts_into_a_secret_is_in_no_message() {
        let requests = [
            json!({"apply": {"manifest": {"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "hunter2", "b": "hunter2-and-more", "n": 12345}}}}),
            json!({"create": {"manifest": {"apiVersion": "v1", "kind": "Secret", "data": {"a": "hunter2", "b": "hunter2-and-more", "n": "12345"}}}}),
            json!({"patch": {
                "resource": {"apiVersion": "v1", "kind": "Secret", "name": "s"},
                "patch": {"data": {"a": "hunter2-and-more", "b": "hunter2"}, "stringData": {"c": "12345"}},
            }}),
            json!({"patch": {
                "resource": {"apiVersion": "v1", "kind": "Secret", "name": "s"},
                "patch": [{"op": "add", "path": "/data/a", "value": "hunter2-and-more"}, {"op": "add", "path": "/data/b", "value": ["hunter2", 12345]}],
            }}),
        ];
        for request in requests {
            let request: api::Kubernetes = serde_json::from_value(request).unwrap();
            let failure = AttemptFailure::definite("Invalid", "no hunter2-and-more, hunter2 or 12345");
            assert_eq!(masked(&request, failure).message, "no ***, *** or ***");
        }
    }

    #[test]
    fn messages_about_other_kinds_stay_as_they_are() {
        let request =
            json!({"apply": {"manifest": {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "hunter2"}}}});
        let request: api::Kubernetes = serde_json::from_value(request).unwrap();
        let failure = AttemptFailure::definite("Invalid", "hunter2");
        assert_eq!(masked(&request, failure.clone()), failure);
    }
}
