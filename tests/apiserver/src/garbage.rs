//! What the control plane's controllers do behind deletions: garbage collection by owner, and emptying namespaces.

use serde_json::Value;

use k8s_openapi::jiff::Timestamp;

use crate::{
    objects::{self, meta, owner_references},
    route::Verb,
    state::{Author, State},
    store::Key,
    write::Policy,
};

impl State {
    /// Follows owner references and namespaces until nothing is left to do.
    pub fn collect_garbage(&mut self, now: Timestamp) {
        self.garbage = false;
        let author = Author::controller("generic-garbage-collector", Verb::Delete, now);
        while let Some(task) = self.next_task() {
            match task {
                Task::Delete(key) => self.delete_in_background(&author, &key),
                Task::Disown(key, uid) => {
                    self.edit(&author, &key, |object| {
                        if let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() {
                            owners.retain(|owner| owner["uid"] != uid.as_str());
                        }
                    });
                }
                Task::Release(key, finalizer) => self.edit(&author, &key, |object| {
                    if let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() {
                        finalizers.retain(|f| f != finalizer);
                    }
                }),
                Task::Remove(key) => self.remove(&author, &key),
            }
        }
        self.garbage = false;
    }

    /// The first thing to do, in the order of keys.
    fn next_task(&self) -> Option<Task> {
        let uids = self.uids();
        self.store.iter().find_map(|(key, stored)| {
            let object = &stored.object;
            let owners = owner_references(object);
            let lives = |owner: &Value| {
                let namespace = owner["uid"].as_str().and_then(|uid| uids.get(uid));
                namespace.is_some_and(|n| n.is_empty() || *n == key.namespace)
            };
            if !owners.is_empty() && !owners.iter().any(lives) && !objects::is_terminating(object) {
                return Some(Task::Delete(key.clone()));
            }
            if let Some(gone) = owners.iter().find(|owner| !lives(owner) && owners.iter().any(lives)) {
                return Some(Task::Disown(
                    key.clone(),
                    gone["uid"].as_str().unwrap_or_default().to_owned(),
                ));
            }
            if !objects::is_terminating(object) {
                return None;
            }
            let waits_for = objects::finalizers(object);
            if key.resource == "namespaces" {
                return self.next_in_namespace(key);
            }
            if waits_for.iter().any(|f| f == "orphan") {
                let dependent = self.dependents(object).next().map(|(key, _)| key.clone());
                let uid = meta(object, "uid").to_owned();
                return Some(dependent.map_or(Task::Release(key.clone(), "orphan"), |child| Task::Disown(child, uid)));
            }
            if waits_for.iter().any(|f| f == "foregroundDeletion") {
                let alive = self
                    .dependents(object)
                    .find(|(_, child)| !objects::is_terminating(child));
                if let Some((child, _)) = alive {
                    return Some(Task::Delete(child.clone()));
                }
                let blocks = |child: &Value| {
                    owner_references(child)
                        .iter()
                        .any(|o| o["uid"] == meta(object, "uid") && o["blockOwnerDeletion"] == true)
                };
                if !self.dependents(object).any(|(_, child)| blocks(child)) {
                    return Some(Task::Release(key.clone(), "foregroundDeletion"));
                }
            }
            None
        })
    }

    fn next_in_namespace(&self, namespace: &Key) -> Option<Task> {
        let mut content = self
            .store
            .iter()
            .filter(|(key, _)| key.namespace == namespace.name)
            .peekable();
        if content.peek().is_none() {
            return Some(Task::Remove(namespace.clone()));
        }
        content
            .find(|(_, stored)| !objects::is_terminating(&stored.object))
            .map(|(key, _)| Task::Delete(key.clone()))
    }

    fn dependents(&self, owner: &Value) -> impl Iterator<Item = (&Key, &Value)> {
        let uid = meta(owner, "uid").to_owned();
        let all = self.store.iter().map(|(key, stored)| (key, &*stored.object));
        all.filter(move |(_, object)| {
            owner_references(object)
                .iter()
                .any(|owner| owner["uid"] == uid.as_str())
        })
    }

    fn delete_in_background(&mut self, author: &Author, key: &Key) {
        let resource = self
            .resources
            .iter()
            .find(|r| r.group == key.group && r.plural == key.resource)
            .cloned();
        if let Some(resource) = resource {
            self.delete_object(author, &resource, key, Policy::Background);
        }
    }

    fn edit(&mut self, author: &Author, key: &Key, edit: impl Fn(&mut Value)) {
        let Some(stored) = self.store.get(key).cloned() else {
            return;
        };
        let mut object = Value::clone(&stored.object);
        edit(&mut object);
        for list in ["ownerReferences", "finalizers"] {
            if let Some(metadata) = object["metadata"].as_object_mut()
                && metadata.get(list).and_then(Value::as_array).is_some_and(Vec::is_empty)
            {
                metadata.remove(list);
            }
        }
        if objects::is_terminating(&object) && objects::finalizers(&object).is_empty() && key.resource != "namespaces" {
            self.remove(author, key);
        } else {
            self.put(author, key.clone(), object, stored.owners);
        }
    }
}

enum Task {
    Delete(Key),
    /// Takes the owner of this uid from a dependent.
    Disown(Key, String),
    /// Takes away a finalizer of the garbage collector's own.
    Release(Key, &'static str),
    Remove(Key),
}
