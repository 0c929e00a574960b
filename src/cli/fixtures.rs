//! Operations for tests.

use crate::api::{CloudOperation, Time};

/// An operation in the namespace `prod`.
pub fn operation(name: &str, spec: &str, status: &str) -> CloudOperation {
    let yaml = |text: &str| -> serde_json::Value {
        serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    };
    serde_json::from_value(serde_json::json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": name, "namespace": "prod", "uid": "0c7e"},
        "spec": yaml(spec), "status": yaml(status),
    }))
    .unwrap()
}

/// A moment.
pub fn at(text: &str) -> Time {
    Time::new(text.parse().unwrap())
}
