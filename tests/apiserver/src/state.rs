//! All that the server holds, behind one lock, and the one way in which it changes.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::StatusCause, jiff::Timestamp};
use serde_json::{Value, json};

use crate::{
    apply::{Manager, Owners},
    faults::RequestInfo,
    objects::{self, meta},
    resources::{Resource, Resources},
    route::{Query, Target, Verb},
    status::{self, Result},
    store::{Change, Key, Store},
    watch::Watches,
};

/// One request, routed.
#[derive(Clone, Debug)]
pub struct Call {
    pub info: RequestInfo,
    pub target: Target,
    pub query: Query,
    pub content_type: String,
    /// Wants objects reduced to their metadata.
    pub metadata_only: bool,
    /// Who owns what it writes.
    pub manager: String,
    pub body: Vec<u8>,
}

impl Call {
    /// The key of the object that its path names.
    pub fn key(&self) -> Key {
        Key::new(&self.target.resource, &self.target.namespace, &self.target.name)
    }

    /// As a manager of fields.
    pub fn manager(&self, applies: bool) -> Manager {
        Manager {
            name: self.manager.clone(),
            applies,
            subresource: self.target.subresource.clone(),
        }
    }
}

/// A write that was accepted: who made it and what it changed.
#[derive(Clone, Debug)]
pub struct Write {
    /// The number of the request that made it; 0 for the server's own, such as garbage collection.
    pub request: u64,
    pub time: Timestamp,
    pub user: String,
    pub verb: Verb,
    pub subresource: String,
    pub change: Change,
}

/// On whose behalf something is written.
#[derive(Clone, Debug)]
pub struct Author {
    pub request: u64,
    pub time: Timestamp,
    pub user: String,
    pub verb: Verb,
    pub subresource: String,
    pub dry_run: bool,
}

impl Author {
    /// The sender of a request.
    pub fn of(call: &Call) -> Self {
        Self {
            request: call.info.number,
            time: call.info.time,
            user: call.info.user.clone(),
            verb: call.info.verb,
            subresource: call.info.subresource.clone(),
            dry_run: call.info.dry_run,
        }
    }

    /// One of the control plane's controllers.
    pub fn controller(name: &str, verb: Verb, time: Timestamp) -> Self {
        let user = format!("system:serviceaccount:kube-system:{name}");
        Self {
            request: 0,
            time,
            user,
            verb,
            subresource: String::new(),
            dry_run: false,
        }
    }
}

/// All that the server holds.
#[derive(Debug)]
pub struct State {
    pub store: Store,
    pub resources: Resources,
    pub watches: Watches,
    /// Every accepted write, oldest first; rewinding doesn't shorten it.
    pub writes: Vec<Write>,
    /// Every request that arrived, oldest first.
    pub requests: Vec<RequestInfo>,
    /// The logs of containers, by namespace, pod and container.
    pub pod_logs: BTreeMap<(String, String, String), String>,
    /// Reads of resourceVersion 0 see this revision, if it is set.
    pub stale_reads: Option<u64>,
    /// Something was written that garbage collection may have to follow.
    pub garbage: bool,
    seed: u32,
    uids: u64,
    names: u64,
}

impl State {
    /// An empty cluster: the namespaces that every cluster has.
    pub fn new(seed: u32, now: Timestamp) -> Self {
        let mut state = Self {
            store: Store::default(),
            resources: Resources::builtin(),
            watches: Watches::default(),
            writes: Vec::new(),
            requests: Vec::new(),
            pod_logs: BTreeMap::new(),
            stale_reads: None,
            garbage: false,
            seed,
            uids: 0,
            names: 0,
        };
        for namespace in ["default", "kube-system"] {
            state.add_namespace(namespace, now);
        }
        state
    }

    /// The same objects, of another cluster: nothing was asked of it yet.
    pub fn fork(&self, seed: u32) -> Self {
        Self {
            store: self.store.clone(),
            resources: self.resources.clone(),
            watches: Watches::default(),
            writes: Vec::new(),
            requests: Vec::new(),
            pod_logs: self.pod_logs.clone(),
            stale_reads: None,
            garbage: self.garbage,
            seed,
            uids: self.uids,
            names: self.names,
        }
    }

    /// Creates a namespace, if there is none of that name.
    pub fn add_namespace(&mut self, name: &str, now: Timestamp) {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.add("namespace-controller", "namespaces", object, now);
    }

    /// Creates a core object as a controller of the control plane, unless it exists.
    fn add(&mut self, controller: &str, plural: &str, mut object: Value, now: Timestamp) {
        let Some(resource) = self.resources.get("", "v1", plural).cloned() else {
            return;
        };
        let key = Key::new(&resource, meta(&object, "namespace"), meta(&object, "name"));
        if self.store.get(&key).is_none() {
            self.set_system_fields(&resource, &mut object, now);
            crate::builtin::prepare(&mut object);
            self.put(
                &Author::controller(controller, Verb::Create, now),
                key,
                object,
                Arc::default(),
            );
        }
    }

    /// Stores an object on behalf of `author`; a dry run only answers what would be stored.
    pub fn put(&mut self, author: &Author, key: Key, object: Value, owners: Arc<Owners>) -> Arc<Value> {
        if author.dry_run {
            return Arc::new(object);
        }
        self.garbage |= !objects::owner_references(&object).is_empty() || objects::is_terminating(&object);
        let change = self.store.put(key, object, owners);
        let stored = change
            .after
            .as_ref()
            .map(|after| after.object.clone())
            .unwrap_or_default();
        self.accepted(author, change);
        stored
    }

    /// Removes an object on behalf of `author`.
    pub fn remove(&mut self, author: &Author, key: &Key) {
        if !author.dry_run
            && let Some(change) = self.store.delete(key)
        {
            self.garbage = true;
            self.accepted(author, change);
        }
    }

    fn accepted(&mut self, author: &Author, change: Change) {
        self.writes.push(Write {
            request: author.request,
            time: author.time,
            user: author.user.clone(),
            verb: author.verb,
            subresource: author.subresource.clone(),
            change: change.clone(),
        });
        match change.key.resource.as_str() {
            "customresourcedefinitions" => self.follow_definition(author, &change),
            "namespaces" if change.before.is_none() => {
                let metadata = json!({"namespace": change.key.name, "name": "default"});
                let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
                self.add("service-account-controller", "serviceaccounts", account, author.time);
            }
            _ => {}
        }
    }

    /// Serves what a definition defines; when it goes, its objects go with it.
    fn follow_definition(&mut self, author: &Author, change: &Change) {
        match &change.after {
            // Was checked before it was stored.
            Some(after) => drop(self.resources.define(&after.object)),
            None => {
                let (plural, group) = change.key.name.split_once('.').unwrap_or((&change.key.name, ""));
                self.resources.remove(group, plural);
                let of_it = |key: &&Key| key.group == group && key.resource == plural;
                let keys: Vec<Key> = self.store.iter().map(|(key, _)| key).filter(of_it).cloned().collect();
                for key in keys {
                    self.remove(author, &key);
                }
            }
        }
    }

    /// Serves what the stored definitions define, after the store went back in time.
    pub fn resources_from_store(&mut self) {
        self.resources = Resources::builtin();
        let definitions = self
            .store
            .iter()
            .filter(|(key, _)| key.resource == "customresourcedefinitions");
        for (_, stored) in definitions {
            // Was checked before it was stored.
            drop(self.resources.define(&stored.object));
        }
    }

    /// Gives a new object what the server sets.
    pub fn set_system_fields(&mut self, resource: &Resource, object: &mut Value, now: Timestamp) {
        self.uids += 1;
        let metadata = &mut object["metadata"];
        metadata["uid"] = format!("{:08x}-0000-4000-8000-{:012x}", self.seed, self.uids).into();
        metadata["creationTimestamp"] = seconds(now).into();
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
            metadata.as_object_mut().map(|m| m.remove(field));
        }
        if resource.generation {
            metadata["generation"] = 1.into();
        }
    }

    /// The random part of a generated name: like the real one's, but the same in every run.
    pub fn name_suffix(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        const NAMES: u64 = 27 * 27 * 27 * 27 * 27;
        self.names += 1;
        // A factor without common divisors with 27 visits every name once before one repeats.
        let mut rest = (self.names + u64::from(self.seed)) * 8_675_309 % NAMES;
        let letters = (0..5).map(|_| {
            let letter = LETTERS[usize::try_from(rest % 27).unwrap_or_default()];
            rest /= 27;
            char::from(letter)
        });
        letters.collect()
    }

    /// Checks that a namespace takes new objects.
    pub fn check_namespace(&self, resource: &Resource, namespace: &str, name: &str) -> Result<()> {
        let Some(namespaces) = self
            .resources
            .get("", "v1", "namespaces")
            .filter(|_| resource.namespaced)
        else {
            return Ok(());
        };
        match self.store.get(&Key::new(namespaces, "", namespace)) {
            None => Err(status::not_found(namespaces, namespace)),
            Some(found) if objects::is_terminating(&found.object) => {
                let why =
                    format!("unable to create new content in namespace {namespace} because it is being terminated");
                let mut refusal = status::forbidden(resource, name, why);
                if let Some(details) = &mut refusal.details {
                    details.causes = Some(vec![StatusCause {
                        reason: Some("NamespaceTerminating".into()),
                        message: Some(format!("namespace {namespace} is being terminated")),
                        field: Some("metadata.namespace".into()),
                    }]);
                }
                Err(refusal)
            }
            Some(_) => Ok(()),
        }
    }

    /// A stored object that a path names.
    pub fn existing(&self, call: &Call) -> Result<(Key, Arc<Value>, Arc<Owners>)> {
        let key = call.key();
        match self.store.get(&key) {
            Some(stored) => Ok((key, stored.object.clone(), stored.owners.clone())),
            None => Err(status::not_found(&call.target.resource, &call.target.name)),
        }
    }

    /// The uids of all objects that exist, with their namespaces.
    pub fn uids(&self) -> BTreeMap<String, String> {
        self.store
            .iter()
            .map(|(key, s)| (meta(&s.object, "uid").to_owned(), key.namespace.clone()))
            .collect()
    }
}

/// A moment as `metav1.Time` writes it.
pub fn seconds(at: Timestamp) -> String {
    k8s_openapi::jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%SZ", at).unwrap_or_default()
}
