//! What etcd is to the real server: objects under one global revision, with their whole history.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::{apply::Owners, resources::Resource};

/// Which object: the versions of a resource share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub group: String,
    /// The plural.
    pub resource: String,
    /// Empty for what has none.
    pub namespace: String,
    pub name: String,
}

impl Key {
    /// The key of an object of `resource`.
    pub fn new(resource: &Resource, namespace: &str, name: &str) -> Self {
        Self {
            group: resource.group.clone(),
            resource: resource.plural.clone(),
            namespace: if resource.namespaced {
                namespace.to_owned()
            } else {
                String::new()
            },
            name: name.to_owned(),
        }
    }

    /// Is it one of `resource`, in `namespace` if that isn't empty?
    pub fn is_of(&self, resource: &Resource, namespace: &str) -> bool {
        self.group == resource.group
            && self.resource == resource.plural
            && (namespace.is_empty() || self.namespace == namespace)
    }
}

/// An object, and who applied which of its fields.
#[derive(Clone, Debug)]
pub struct Stored {
    pub object: Arc<Value>,
    pub owners: Arc<Owners>,
}

/// One change of one object: the revision that it made, and the states around it.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: u64,
    pub key: Key,
    /// None: it was created.
    pub before: Option<Arc<Value>>,
    /// None: it was deleted.
    pub after: Option<Stored>,
}

/// The objects at the current revision, and all changes that led there.
#[derive(Clone, Debug, Default)]
pub struct Store {
    objects: BTreeMap<Key, Stored>,
    changes: Vec<Change>,
    revision: u64,
    compacted: u64,
}

impl Store {
    /// The revision of the last change: the resourceVersion of a list.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Watches and lists from before this revision are answered 410.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Forgets what was before `revision`.
    pub fn compact(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision.min(self.revision));
    }

    /// An object's current state.
    pub fn get(&self, key: &Key) -> Option<&Stored> {
        self.objects.get(key)
    }

    /// All objects, by group, resource, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Stored)> {
        self.objects.iter()
    }

    /// Creates or replaces an object; its resourceVersion becomes the new revision.
    pub fn put(&mut self, key: Key, mut object: Value, owners: Arc<Owners>) -> Change {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = Value::String(self.revision.to_string());
        let stored = Stored {
            object: Arc::new(object),
            owners,
        };
        let before = self.objects.insert(key.clone(), stored.clone()).map(|s| s.object);
        self.log(Change {
            revision: self.revision,
            key,
            before,
            after: Some(stored),
        })
    }

    /// Removes an object; None if there is none.
    pub fn delete(&mut self, key: &Key) -> Option<Change> {
        let before = self.objects.remove(key)?;
        self.revision += 1;
        let change = Change {
            revision: self.revision,
            key: key.clone(),
            before: Some(before.object),
            after: None,
        };
        Some(self.log(change))
    }

    fn log(&mut self, change: Change) -> Change {
        self.changes.push(change.clone());
        change
    }

    /// The changes after `revision`, oldest first.
    pub fn changes_after(&self, revision: u64) -> &[Change] {
        &self.changes[self.changes.partition_point(|change| change.revision <= revision)..]
    }

    /// The objects of `resource`, in `namespace` if that isn't empty, as they were at `revision`.
    pub fn list_at(&self, revision: u64, resource: &Resource, namespace: &str) -> Vec<(Key, Arc<Value>)> {
        let current = self.objects.iter().filter(|(key, _)| key.is_of(resource, namespace));
        let mut objects: BTreeMap<Key, Arc<Value>> = current
            .map(|(key, stored)| (key.clone(), stored.object.clone()))
            .collect();
        for change in self
            .changes_after(revision)
            .iter()
            .rev()
            .filter(|c| c.key.is_of(resource, namespace))
        {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), before.clone()),
                None => objects.remove(&change.key),
            };
        }
        objects.into_iter().collect()
    }

    /// Goes back to an earlier revision, as restoring etcd from a snapshot does: later changes never happened.
    pub fn rewind(&mut self, revision: u64) {
        self.changes
            .truncate(self.changes.partition_point(|change| change.revision <= revision));
        self.objects.clear();
        for change in &self.changes {
            match &change.after {
                Some(after) => self.objects.insert(change.key.clone(), after.clone()),
                None => self.objects.remove(&change.key),
            };
        }
        self.revision = self.revision.min(revision);
        self.compacted = self.compacted.min(self.revision);
    }
}
