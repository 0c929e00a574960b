//! What namespaces say of the operations in them: that they are held, and what they may call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt, api::ListParams};
use tracing::warn;

use super::cached::version;
use super::clock::Clock;
use super::within::within;
use crate::api::{HTTP_TARGETS_ANNOTATION, MAX_OPERATIONS_ANNOTATION, SUSPENDED_LABEL, Time};
use crate::engine::Hold;

/// The namespaces, as last seen.
pub struct Namespaces {
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<String, Known>>,
    hold_all: Mutex<Option<Hold>>,
}

#[derive(Default)]
struct Known {
    /// The newest version of it that was seen.
    version: u64,
    hold: Option<Hold>,
    http_targets: Option<String>,
    max_operations: Option<usize>,
}

impl Namespaces {
    /// None is known yet. `hold_all` holds every operation, whatever its namespace says.
    pub fn new(clock: Arc<dyn Clock>, hold_all: bool) -> Self {
        let hold_all = hold_all.then(|| Hold {
            since: clock.now(),
            until: None,
        });
        Self {
            clock,
            known: Mutex::default(),
            hold_all: Mutex::new(hold_all),
        }
    }

    /// Holds every operation from now on, or lets them go on.
    pub fn hold_all(&self, held: bool) {
        let now = self.clock.now();
        let mut hold = self.hold_all.lock().unwrap_or_else(PoisonError::into_inner);
        *hold = match (held, *hold) {
            (true, _) => Some(Hold {
                since: now,
                until: None,
            }),
            (false, hold) => hold.map(|hold| Hold {
                until: Some(now),
                ..hold
            }),
        };
    }

    /// Asks for a namespace that isn't known yet: one is watched, and so are the operations in it, but a new one's first
    /// operation may be seen before it. Without this it would not be held.
    ///
    /// # Errors
    /// When the API server doesn't say.
    pub async fn know(&self, client: &Client, namespace: &str) -> Result<(), kube::Error> {
        if self.is_known(namespace) {
            return Ok(());
        }
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
        // A list, as the operator's rights are those of the watch.
        let named = ListParams::default().fields(&format!("metadata.name={namespace}"));
        for found in within(api.list(&named)).await? {
            self.see(&found);
        }
        Ok(())
    }

    fn is_known(&self, namespace: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains_key(namespace)
    }

    /// Forgets a namespace that is gone: another of its name says for itself whether it is held.
    fn forget(&self, namespace: &PartialObjectMeta<Namespace>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let name = namespace.name_any();
        if known
            .get(&name)
            .is_some_and(|known| known.version <= version(namespace))
        {
            known.remove(&name);
        }
    }

    /// The namespace's last hold. One that isn't [known](Self::know) is not held.
    pub fn hold(&self, namespace: &str) -> Option<Hold> {
        let all = *self.hold_all.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let own = known.get(namespace).and_then(|known| known.hold);
        let last = [all, own].into_iter().flatten();
        last.max_by_key(|hold| (hold.until.is_none(), hold.until))
    }

    /// What the namespace's `http` steps may call beyond the default, as its annotation says it.
    pub fn http_targets(&self, namespace: &str) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(namespace).and_then(|known| known.http_targets.clone())
    }

    /// How many of the namespace's operations run at once, if its annotation says it.
    pub fn max_operations(&self, namespace: &str) -> Option<usize> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(namespace).and_then(|known| known.max_operations)
    }

    /// Takes in a namespace. Answers whether its operations are to be looked at: it is newly held or released, or another
    /// number of them may run at once.
    fn see(&self, namespace: &PartialObjectMeta<Namespace>) -> bool {
        let held = namespace
            .labels()
            .get(SUSPENDED_LABEL)
            .is_some_and(|value| value == "true");
        let now = self.clock.now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.entry(namespace.name_any()).or_default();
        if version(namespace) < entry.version {
            return false; // it was asked for, and the watch is behind
        }
        entry.version = version(namespace);
        entry.http_targets = namespace.annotations().get(HTTP_TARGETS_ANNOTATION).cloned();
        let most = namespace.annotations().get(MAX_OPERATIONS_ANNOTATION);
        let max_operations = most.and_then(|most| most.parse().ok().filter(|most| *most > 0));
        if let (Some(value), None) = (most, max_operations) {
            warn!(
                namespace = namespace.name_any(),
                value, "{MAX_OPERATIONS_ANNOTATION} is not a number from 1: it limits nothing"
            );
        }
        let other_limit = entry.max_operations != max_operations;
        entry.max_operations = max_operations;
        let was = entry.hold.is_some_and(|hold| hold.until.is_none());
        match (was, held) {
            (false, true) => {
                entry.hold = Some(Hold {
                    since: labelled_at(namespace).unwrap_or(now),
                    until: None,
                })
            }
            (true, false) => {
                entry.hold = entry.hold.map(|hold| Hold {
                    until: Some(now),
                    ..hold
                })
            }
            _ => {}
        }
        was != held || other_limit
    }

    /// Follows the namespaces. Yields each one's name when its operations are to be looked at, and an empty name once all are
    /// known.
    pub fn follow(
        self: Arc<Self>,
        client: Client,
        only: Option<&str>,
    ) -> impl Stream<Item = Result<String, watcher::Error>> + use<> {
        let config = only.map_or_else(watcher::Config::default, |name| {
            watcher::Config::default().fields(&format!("metadata.name={name}"))
        });
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(client);
        watcher(api, config).default_backoff().filter_map(move |event| {
            let changed = match event {
                Ok(watcher::Event::Apply(namespace) | watcher::Event::InitApply(namespace)) => {
                    self.see(&namespace).then(|| Ok(namespace.name_any()))
                }
                Ok(watcher::Event::InitDone) => Some(Ok(String::new())),
                Ok(watcher::Event::Delete(namespace)) => {
                    self.forget(&namespace);
                    None
                }
                Ok(watcher::Event::Init) => None,
                Err(error) => Some(Err(error)),
            };
            std::future::ready(changed)
        })
    }
}

/// When the label was set: its manager's entry in managedFields says it, so that a process that starts later knows, too.
fn labelled_at(namespace: &PartialObjectMeta<Namespace>) -> Option<Time> {
    let path = format!(
        "/f:metadata/f:labels/f:{}",
        SUSPENDED_LABEL.replace('~', "~0").replace('/', "~1")
    );
    let entries = namespace.metadata.managed_fields.iter().flatten();
    let owner = entries.filter(|entry| {
        entry
            .fields_v1
            .as_ref()
            .is_some_and(|fields| fields.0.pointer(&path).is_some())
    });
    owner
        .filter_map(|entry| entry.time.as_ref())
        .map(|time| Time::new(time.0))
        .max()
}
