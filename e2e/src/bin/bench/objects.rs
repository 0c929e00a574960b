//! The operations that are measured: made and removed the same way by every phase, by the same client.

use futures::{StreamExt, TryStreamExt, stream};
use holdfast::api::CloudOperation;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::{PartialObjectMeta, Request};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::Result;

/// How many requests of a phase's beginning or end are under way at once: more don't make an API server faster.
pub const CONCURRENCY: usize = 16;

/// The operations of one namespace.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    namespace: String,
    url: String,
}

/// As much of an operation as the benchmark reads: the metadata. Reading more would cost it time that it measures.
pub type Brief = PartialObjectMeta<CloudOperation>;

impl Objects {
    /// Of this namespace, by this client.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.into(),
            url: CloudOperation::url_path(&(), Some(namespace)),
        }
    }

    /// Their metadata.
    pub fn api(&self) -> Api<Brief> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates one.
    pub async fn create(&self, name: &str, spec: &Value) -> Result<Brief> {
        let body = json!({
            "apiVersion": CloudOperation::api_version(&()),
            "kind": CloudOperation::kind(&()),
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        });
        let request = Request::new(&self.url).create(&PostParams::default(), serde_json::to_vec(&body)?)?;
        Ok(self.client.request(request).await?)
    }

    /// Writes a status that was computed from `from`, as the operator does.
    pub async fn write_status(&self, from: &Brief, status: &Value) -> Result<Brief> {
        let body = json!({
            "apiVersion": CloudOperation::api_version(&()),
            "kind": CloudOperation::kind(&()),
            "metadata": {
                "name": from.metadata.name,
                "namespace": self.namespace,
                "uid": from.metadata.uid,
                "resourceVersion": from.metadata.resource_version,
            },
            "status": status,
        });
        let (post, body) = (PostParams::default(), serde_json::to_vec(&body)?);
        let request = Request::new(&self.url).replace_subresource("status", &from.name_any(), &post, body)?;
        Ok(self.client.request(request).await?)
    }

    /// One's status.
    pub async fn status(&self, name: &str) -> Result<Value> {
        let api: Api<CloudOperation> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(serde_json::to_value(api.get(name).await?.status)?)
    }

    /// Removes all, so that no phase pays for what an earlier one left.
    pub async fn delete_all(&self) -> Result<()> {
        let api = self.api();
        let all = api.list(&ListParams::default()).await?;
        let deletions = stream::iter(all).map(async |operation| {
            match api.delete(&operation.name_any(), &DeleteParams::background()).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                other => other.map(|_| ()),
            }
        });
        deletions.buffer_unordered(CONCURRENCY).try_collect::<()>().await?;
        Ok(())
    }
}
