//! From what people write, an API version and a kind, to what requests need: the resource's path, whether it is in
//! namespaces, what can be done with it.
//!
//! The API server says so, group version by group version; what it said is kept for the life of the process. A kind
//! that isn't known makes it ask again, as its definition may have been applied a moment ago, but for one group version
//! at most every few seconds, however many operations ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::core::discovery::Scope;
use kube::core::{ApiResource, DynamicObject, GroupVersion};
use kube::{Client, Resource};
use tokio::time::{Instant, timeout};

use super::call::in_words;
use super::clients::ANSWER_TIMEOUT;
use crate::engine::AttemptFailure;

/// How long a miss keeps the API server from being asked about the same group version again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// How many group versions are kept: far more than there are, so that only invented ones make it start anew.
const MAX_GROUPS: usize = 1024;

/// A resource that the API server knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourceType {
    /// Its names.
    pub api: ApiResource,
    /// True if its objects are in namespaces.
    pub namespaced: bool,
    /// What is below its objects: `status`, `scale`.
    pub subresources: Vec<String>,
    /// What can be done with it.
    pub verbs: Vec<String>,
}

impl ResourceType {
    /// A built-in resource in namespaces, that every API server knows.
    pub fn namespaced<K: Resource<DynamicType = ()>>() -> Self {
        let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
        Self {
            api: ApiResource::erase::<K>(&()),
            namespaced: true,
            subresources: vec![],
            verbs: verbs.map(str::to_owned).to_vec(),
        }
    }

    /// As RBAC and kubectl name it: `deployments.apps`.
    pub fn qualified(&self) -> String {
        match self.api.group.as_str() {
            "" => self.api.plural.clone(),
            group => format!("{}.{group}", self.api.plural),
        }
    }

    /// True for the Secrets of core/v1.
    pub fn is_secret(&self) -> bool {
        self.api.group.is_empty() && self.api.kind == "Secret"
    }

    /// The path of its objects.
    pub fn path(&self, namespace: Option<&str>) -> String {
        DynamicObject::url_path(&self.api, namespace)
    }
}

/// Why a kind could not be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Not an API version.
    #[error("{0:?} is not an apiVersion: write it as v1 or apps/v1")]
    InvalidApiVersion(String),
    /// The API server doesn't know it, yet.
    #[error(
        "the API server knows no kind {kind} in apiVersion {api_version}: check both, or apply its CustomResourceDefinition"
    )]
    KindNotFound {
        /// The API version asked for.
        api_version: String,
        /// The kind asked for.
        kind: String,
    },
    /// The API server could not be asked.
    #[error("the API server could not be asked what {api_version} has: {error}")]
    Unavailable {
        /// The API version asked for.
        api_version: String,
        /// What happened.
        error: String,
    },
}

impl From<DiscoveryError> for AttemptFailure {
    fn from(error: DiscoveryError) -> Self {
        let message = error.to_string();
        match error {
            DiscoveryError::InvalidApiVersion(_) => Self::definite("Invalid", message),
            DiscoveryError::KindNotFound { .. } => Self::retryable("KindNotFound", message),
            DiscoveryError::Unavailable { .. } => Self::retryable("NoAnswer", message),
        }
    }
}

/// What the API server knows. Clones share it.
#[derive(Clone)]
pub struct Discovery {
    client: Client,
    groups: Arc<Mutex<HashMap<String, Arc<GroupEntry>>>>,
}

/// What is known of one group version. The lock is held while the API server is asked, so that it is asked once.
#[derive(Default)]
struct GroupEntry(tokio::sync::Mutex<Known>);

#[derive(Default)]
struct Known {
    kinds: HashMap<String, Arc<ResourceType>>,
    asked: Option<Instant>,
}

impl Discovery {
    /// Asks with this client: any account may ask.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            groups: Arc::default(),
        }
    }

    /// The resource of a kind.
    ///
    /// # Errors
    /// If there is none, or the API server doesn't say.
    pub async fn find(&self, api_version: &str, kind: &str) -> Result<Arc<ResourceType>, DiscoveryError> {
        let group_version = parse(api_version)?;
        let entry = {
            let mut groups = self.groups();
            if groups.len() >= MAX_GROUPS {
                groups.clear();
            }
            groups.entry(api_version.to_owned()).or_default().clone()
        };
        let mut known = entry.0.lock().await;
        if let Some(found) = known.kinds.get(kind) {
            return Ok(found.clone());
        }
        if known.asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN) {
            known.kinds = self.ask(&group_version, api_version).await?;
            known.asked = Some(Instant::now());
        }
        known
            .kinds
            .get(kind)
            .cloned()
            .ok_or_else(|| DiscoveryError::KindNotFound {
                api_version: api_version.into(),
                kind: kind.into(),
            })
    }

    /// Forgets what is known of a group version: a request found that it has changed.
    pub fn forget(&self, api_version: &str) {
        self.groups().remove(api_version);
    }

    fn groups(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<GroupEntry>>> {
        // Nothing in here panics half-way through a change.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(
        &self,
        group_version: &GroupVersion,
        api_version: &str,
    ) -> Result<HashMap<String, Arc<ResourceType>>, DiscoveryError> {
        let unavailable = |error: String| DiscoveryError::Unavailable {
            api_version: api_version.into(),
            error,
        };
        let answer = timeout(
            ANSWER_TIMEOUT,
            kube::discovery::pinned_group(&self.client, group_version),
        )
        .await;
        let group = match answer {
            Err(_) => return Err(unavailable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Ok(HashMap::new()),
            Ok(Err(error)) => return Err(unavailable(in_words(&error))),
            Ok(Ok(group)) => group,
        };
        let kinds = group
            .versioned_resources(&group_version.version)
            .into_iter()
            .map(|(api, capabilities)| {
                let found = ResourceType {
                    namespaced: capabilities.scope == Scope::Namespaced,
                    subresources: capabilities
                        .subresources
                        .into_iter()
                        .map(|(below, _)| below.plural)
                        .collect(),
                    verbs: capabilities.operations,
                    api,
                };
                (found.api.kind.clone(), Arc::new(found))
            });
        Ok(kinds.collect())
    }
}

/// Takes an API version apart. It becomes part of a path, so nothing gets through that isn't one.
fn parse(api_version: &str) -> Result<GroupVersion, DiscoveryError> {
    let invalid = || DiscoveryError::InvalidApiVersion(api_version.to_owned());
    let part = |text: &str, dots: bool| {
        !text.is_empty()
            && !text.starts_with('.')
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (dots && b == b'.'))
    };
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if !part(version, false) || (api_version.contains('/') && !part(group, true)) {
        return Err(invalid());
    }
    Ok(GroupVersion::gv(group, version))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Response;
    use kube::client::Body;

    use super::*;
    use crate::activities::testing::{Bench, answering};
    use crate::engine::RetryAdvice;

    const WIDGETS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.dev}
spec:
  group: example.dev
  scope: Cluster
  names: {plural: widgets, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

    #[tokio::test(start_paused = true)]
    async fn a_kind_is_found_with_its_path_and_scope() {
        let bench = Bench::new();
        let deployments = bench.discovery.find("apps/v1", "Deployment").await.unwrap();
        assert_eq!(deployments.qualified(), "deployments.apps");
        assert_eq!(
            deployments.path(Some("prod")),
            "/apis/apps/v1/namespaces/prod/deployments"
        );
        assert!(deployments.subresources.contains(&"scale".to_owned()));
        let namespaces = bench.discovery.find("v1", "Namespace").await.unwrap();
        assert!(!namespaces.namespaced);
        assert_eq!(namespaces.path(None), "/api/v1/namespaces");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_is_not_asked_for_again() {
        let bench = Bench::new();
        for _ in 0..3 {
            bench.discovery.find("apps/v1", "Deployment").await.unwrap();
            bench.discovery.find("apps/v1", "StatefulSet").await.unwrap();
        }
        assert_eq!(bench.server.requests().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_whose_definition_comes_later_is_found_then() {
        let bench = Bench::new();
        let missing = bench.discovery.find("example.dev/v1", "Widget").await.unwrap_err();
        let failure = AttemptFailure::from(missing);
        assert_eq!(
            (failure.reason.as_str(), failure.retry),
            ("KindNotFound", RetryAdvice::Backoff),
            "{}",
            failure.message
        );
        assert!(
            failure.message.contains("no kind Widget in apiVersion example.dev/v1"),
            "{}",
            failure.message
        );

        bench.server.register_crd(WIDGETS);
        tokio::time::sleep(ASK_AGAIN).await;
        let found = bench.discovery.find("example.dev/v1", "Widget").await.unwrap();
        assert_eq!(found.path(None), "/apis/example.dev/v1/widgets");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_that_ask_for_a_missing_kind_at_once_cost_one_request() {
        let asked = std::sync::Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let discovery = Discovery::new(answering(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(Response::builder()
                .status(404)
                .body(Body::from(b"404 page not found".to_vec()))
                .unwrap())
        }));
        let asking = (0..1000).map(|_| discovery.find("example.dev/v1", "Widget"));
        assert!(futures::future::join_all(asking).await.iter().all(Result::is_err));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        tokio::time::sleep(ASK_AGAIN).await;
        discovery.find("example.dev/v1", "Widget").await.unwrap_err();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_api_version_can_not_lead_to_another_path() {
        let discovery = Discovery::new(answering(|_| panic!("nothing may be sent")));
        for wrong in [
            "",
            "/",
            "v1/",
            "/v1",
            "../v1",
            "a/b/v1",
            "apps/v1?x",
            "apps/..",
            "Apps/v1",
            "apps/v1/../../api",
        ] {
            let error = discovery.find(wrong, "Pod").await.unwrap_err();
            assert_eq!(error, DiscoveryError::InvalidApiVersion(wrong.into()));
        }
    }
}
