//! An operation as the cache holds it: its JSON, compressed, read when it is looked at. Most of thousands of operations only
//! wait, and parsed they would take many times the memory. One that can't be read waits for a change, and holds up no other.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

use crate::api::{CloudOperation, CloudOperationSpec, OperationState, OperationStatus};

/// Where kubectl keeps what was applied: of no use to an operation.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An operation, not yet parsed.
#[derive(Clone, Debug)]
pub struct Cached {
    metadata: ObjectMeta,
    state: Option<OperationState>,
    started: bool,
    excludes: bool,
    /// Its spec and status, as JSON, compressed.
    body: Box<[u8]>,
}

#[derive(Deserialize)]
struct Body {
    spec: CloudOperationSpec,
    status: Option<OperationStatus>,
}

impl Cached {
    /// The operation.
    ///
    /// # Errors
    /// When it is not what the schema says: written past it, or by a version to come.
    pub fn parse(&self) -> Result<CloudOperation, serde_json::Error> {
        let body = lz4_flex::decompress_size_prepended(&self.body).map_err(serde::de::Error::custom)?;
        let Body { spec, status } = serde_json::from_slice(&body)?;
        Ok(CloudOperation {
            metadata: self.metadata.clone(),
            spec,
            status,
        })
    }

    /// What it is doing, or how it ended.
    pub fn state(&self) -> Option<OperationState> {
        self.state
    }

    /// True once it was decided on for the first time.
    pub fn is_started(&self) -> bool {
        self.started
    }

    /// True if it excludes others, by `spec.concurrency`.
    pub fn excludes_others(&self) -> bool {
        self.excludes
    }

    /// The order of an object's versions. Kubernetes' resourceVersions are decimal and grow.
    pub fn version(&self) -> u64 {
        version(self)
    }
}

/// The order of an object's versions.
pub fn version(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|v| v.parse().ok()).unwrap_or(0)
}

impl<'de> Deserialize<'de> for Cached {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Map::<String, Value>::deserialize(deserializer)?;
        let metadata = object.remove("metadata").unwrap_or_default();
        let mut metadata = ObjectMeta::deserialize(metadata).map_err(de::Error::custom)?;
        metadata.managed_fields = None;
        metadata.annotations = metadata.annotations.take().and_then(|mut annotations| {
            annotations.remove(LAST_APPLIED);
            Some(annotations).filter(|left| !left.is_empty())
        });
        let state = object.get("status").and_then(|status| status.get("state"));
        let state = state.and_then(|state| OperationState::deserialize(state).ok());
        let has = |part: &str, field: &str| object.get(part).is_some_and(|part| part.get(field).is_some());
        let (started, excludes) = (has("status", "startTime"), has("spec", "concurrency"));
        object.retain(|field, _| field == "spec" || field == "status");
        let body = serde_json::to_vec(&object).map_err(de::Error::custom)?;
        Ok(Self {
            metadata,
            state,
            started,
            excludes,
            body: lz4_flex::compress_prepend_size(&body).into(),
        })
    }
}

impl Resource for Cached {
    type DynamicType = ();
    type Scope = <CloudOperation as Resource>::Scope;

    fn kind(_: &()) -> Cow<'_, str> {
        CloudOperation::kind(&())
    }
    fn group(_: &()) -> Cow<'_, str> {
        CloudOperation::group(&())
    }
    fn version(_: &()) -> Cow<'_, str> {
        CloudOperation::version(&())
    }
    fn plural(_: &()) -> Cow<'_, str> {
        CloudOperation::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_comes_out_as_it_went_in() {
        let text = serde_json::json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
            "metadata": {"name": "a", "namespace": "prod", "uid": "u1", "annotations": {LAST_APPLIED: "{}", "a": "b"}},
            "spec": {"steps": [{"name": "nap", "wait": {"duration": "1h"}}], "concurrency": {"key": "'a'"}},
            "status": {"state": "Waiting", "startTime": "2026-11-24T03:00:00.000Z", "seq": 3},
        });
        let cached: Cached = serde_json::from_value(text.clone()).unwrap();
        let mut whole: CloudOperation = serde_json::from_value(text).unwrap();
        whole.metadata.annotations.as_mut().unwrap().remove(LAST_APPLIED);
        assert_eq!(cached.parse().unwrap(), whole);
        assert!(cached.is_started() && cached.excludes_others());
        assert_eq!(cached.state(), Some(OperationState::Waiting));
    }
}
