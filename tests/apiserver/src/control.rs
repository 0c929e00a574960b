//! What tests do to the server and read from it, past the API.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    faults::RequestInfo,
    objects::meta,
    route::Verb,
    server::{ApiServer, Clock},
    state::{Author, Write},
    store::Key,
    watch::Matches,
};

/// A clock that follows tokio's, which tests pause: `start`, and on from there.
pub fn tokio_clock(start: Timestamp) -> Clock {
    let base = Instant::now();
    Arc::new(move || start.checked_add(base.elapsed()).unwrap_or(Timestamp::MAX))
}

/// Seeds what kube's runtime draws the jitter of its backoff from, on this thread: with it, a run of controllers
/// repeats exactly. Call it first in a test. (`tokio::select!` without `biased` is the other thing that draws lots.)
pub fn seed_jitter(seed: u64) {
    fastrand::seed(seed);
}

/// Setting up, and reading for assertions.
impl ApiServer {
    /// Serves what a custom resource definition (YAML; one or more documents) defines, at once.
    ///
    /// # Panics
    /// If it isn't one: the test's own mistake.
    pub fn register_crd(&self, yaml: &str) {
        use serde::Deserialize;
        for document in serde_yaml::Deserializer::from_str(yaml) {
            let crd = Value::deserialize(document).unwrap_or_else(|e| panic!("not YAML: {e}"));
            self.insert("apiextensions.k8s.io", "CustomResourceDefinition", crd);
        }
    }

    /// Creates a namespace, if there is none of that name.
    pub fn add_namespace(&self, name: &str) {
        self.shared.lock().add_namespace(name, self.shared.now());
        self.after_write();
    }

    /// Stores an object as it is, without validation, as if someone else had written it; it may have a status. Its
    /// namespace is created if need be.
    ///
    /// # Panics
    /// If the server doesn't serve its kind: the test's own mistake.
    pub fn put<K>(&self, object: &K)
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let mut value = serde_json::to_value(object).unwrap_or_else(|e| panic!("not JSON: {e}"));
        value["apiVersion"] = K::api_version(&()).into();
        value["kind"] = K::kind(&()).into();
        self.insert(&K::group(&()), &K::kind(&()), value);
    }

    fn insert(&self, group: &str, kind: &str, mut object: Value) {
        let namespace = meta(&object, "namespace").to_owned();
        if !namespace.is_empty() {
            self.add_namespace(&namespace);
        }
        let (now, state) = (self.shared.now(), &mut *self.shared.lock());
        let resource = state.resources.of_kind(group, kind).cloned();
        let resource = resource.unwrap_or_else(|| panic!("no resource of kind {kind} in group \"{group}\" is served"));
        let key = Key::new(&resource, &namespace, meta(&object, "name"));
        let stored = state.store.get(&key).cloned();
        match &stored {
            Some(stored) => {
                for field in ["uid", "creationTimestamp", "generation"] {
                    object["metadata"][field] = stored.object["metadata"][field].clone();
                }
            }
            None => {
                state.set_system_fields(&resource, &mut object, now);
                if object["status"].is_null() {
                    crate::builtin::prepare(&mut object);
                }
            }
        }
        let author = Author {
            user: "test".into(),
            ..Author::controller("", Verb::Update, now)
        };
        state.put(&author, key, object, stored.map(|s| s.owners).unwrap_or_default());
        self.shared.progress.send_replace(());
    }

    /// An object's current state, as JSON. The resource is a plural, with its group if it has one
    /// (`pods`, `deployments.apps`).
    pub fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let key = Key {
            group: group.into(),
            resource: plural.into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        self.shared.lock().store.get(&key).map(|stored| stored.object.clone())
    }

    /// An object's current state.
    pub fn get<K>(&self, namespace: &str, name: &str) -> Option<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let key = Key {
            group: K::group(&()).into(),
            resource: K::plural(&()).into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        let object = self.shared.lock().store.get(&key)?.object.clone();
        Some(serde_json::from_value(Value::clone(&object)).unwrap_or_else(|e| panic!("{key:?}: {e}")))
    }

    /// All objects of a kind, by namespace and name.
    ///
    /// # Panics
    /// If one can't be read as a `K`.
    pub fn list<K>(&self) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let state = self.shared.lock();
        let (group, plural) = (K::group(&()), K::plural(&()));
        let all = state
            .store
            .iter()
            .filter(|(key, _)| key.group == group && key.resource == plural);
        all.map(|(key, stored)| {
            serde_json::from_value(Value::clone(&stored.object)).unwrap_or_else(|e| panic!("{key:?}: {e}"))
        })
        .collect()
    }

    /// The current resourceVersion, to compact at or rewind to.
    pub fn revision(&self) -> u64 {
        self.shared.lock().store.revision()
    }

    /// Every write that was accepted, oldest first, with the states before and after it. Rewinding doesn't shorten it.
    pub fn writes(&self) -> Vec<Write> {
        self.shared.lock().writes.clone()
    }

    /// Every request that arrived, oldest first, refused and failed ones too.
    pub fn requests(&self) -> Vec<RequestInfo> {
        self.shared.lock().requests.clone()
    }

    /// How many requests arrived of each verb and resource (`pods`, `pods/status`).
    pub fn request_counts(&self) -> BTreeMap<(Verb, String), usize> {
        let mut counts = BTreeMap::new();
        for info in self
            .shared
            .lock()
            .requests
            .iter()
            .filter(|info| !info.resource.is_empty())
        {
            let slash = if info.subresource.is_empty() { "" } else { "/" };
            let resource = format!("{}{slash}{}", info.resource, info.subresource);
            *counts.entry((info.verb, resource)).or_default() += 1;
        }
        counts
    }

    /// The watches that are open.
    pub fn open_watches(&self) -> Vec<RequestInfo> {
        self.shared.lock().watches.open().cloned().collect()
    }

    /// Sets what a container has logged.
    pub fn set_pod_log(&self, namespace: &str, pod: &str, container: &str, text: &str) {
        let of = (namespace.to_owned(), pod.to_owned(), container.to_owned());
        self.shared.lock().pod_logs.insert(of, text.to_owned());
    }
}

/// Making it behave as a cluster does on bad days.
impl ApiServer {
    /// Ends the open watches whose requests match, without an error, as a server that restarts does.
    pub fn drop_watches(&self, matches: impl Fn(&RequestInfo) -> bool) {
        self.shared.lock().watches.drop_matching(matches);
        self.shared.progress.send_replace(());
    }

    /// From now on no watch is told of a change, until [`ApiServer::release_watches`]: caches grow stale. None is lost.
    pub fn hold_watches(&self) {
        if self.shared.lock().watches.held.is_none() {
            self.hold_watches_at(self.revision(), |_| true);
        }
    }

    /// As [`ApiServer::hold_watches`], but only the watches whose requests match are held, and what changed up to
    /// `revision` is still delivered. Holding anew replaces what was held before.
    pub fn hold_watches_at(&self, revision: u64, matches: impl Fn(&RequestInfo) -> bool + Send + Sync + 'static) {
        self.shared.lock().watches.held = Some((revision, Matches(Arc::new(matches))));
        self.shared.progress.send_replace(());
    }

    /// Delivers what was held, and from now on changes as they come.
    pub fn release_watches(&self) {
        self.shared.lock().watches.held = None;
        self.shared.progress.send_replace(());
    }

    /// From now on, reads of resourceVersion 0 (and watches that begin with one) see the state at `revision`, as an API
    /// server does whose watch cache lags behind; None: the current one.
    pub fn set_stale_reads(&self, revision: Option<u64>) {
        self.shared.lock().stale_reads = revision;
    }

    /// Forgets the history before now: watches that have not come this far, and lists that are being paged, get 410.
    pub fn compact(&self) {
        let state = &mut *self.shared.lock();
        state.store.compact(state.store.revision());
        self.shared.progress.send_replace(());
    }

    /// Goes back to the state at an earlier revision, as restoring etcd from a snapshot does: resourceVersions go
    /// backwards, and all watches end.
    pub fn rewind(&self, revision: u64) {
        let state = &mut *self.shared.lock();
        state.store.rewind(revision);
        state.resources_from_store();
        state.watches.drop_matching(|_| true);
        self.shared.progress.send_replace(());
    }

    /// Runs the garbage collector now; it otherwise follows deletions by itself, a moment later.
    pub fn collect_garbage(&self) {
        let (now, state) = (self.shared.now(), &mut *self.shared.lock());
        state.collect_garbage(now);
        self.shared.progress.send_replace(());
    }

    /// Waits until no request has arrived for as long as this; for tests that let everything settle.
    pub async fn quiet_for(&self, time: Duration) {
        loop {
            let before = self.shared.lock().requests.len();
            tokio::time::sleep(time).await;
            if self.shared.lock().requests.len() == before {
                return;
            }
        }
    }
}
