//! Waiting for objects: any number of waiters share one watch per service account, resource and namespace.
//!
//! - **It costs nothing to wait.** A waiter is an entry in a map: no task, no timer, no object. An event is looked up by
//!   the object's name and shown to who waits for that; five thousand others don't notice.
//! - **No stale answers.** A watch lags behind what an operation has just written: a Deployment that a step changed still
//!   looks current in any cache. So nothing is answered from one. A waiter that comes before the watch's list is
//!   answered by that list, any other begins with a read of its own object; both are reads of the latest state, made
//!   after it came. What the watch then tells of an earlier state, by its resourceVersion, is not shown to it.
//! - **Nothing is kept.** As no waiter is answered from a cache, there is none: a namespace of large objects costs no more
//!   than its waiters.
//! - **No waiter hangs.** An account that may not list or watch, or a resource that is not served any more, ends the
//!   wait, visibly. Every other error of a watch is recovered from with backoff, unseen.
//!
//! A watch is started by the first that waits and ends a few seconds after the last has left.

mod watch;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Api;
use kube::api::{DynamicObject, ListParams};
use kube::core::TypeMeta;
use kube::core::discovery::Scope;
use kube::runtime::watcher;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use self::watch::{Seen, Watch};
use super::backoff::Backoff;
use super::call::{Target, Verb, denied, in_words};
use super::clients::{Clients, Refused, ServiceAccount};
use super::discovery::{Discovery, ResourceType};
use crate::engine::AttemptFailure;

/// How many reads of waiters' own objects are under way at once: those of a process that takes over thousands of waits
/// follow one another.
const READS_AT_ONCE: usize = 16;

/// How long one such read may take, to the end of its answer: it keeps others from theirs.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a watch stays after the last has left: steps that wait one after another share it.
const LINGER: Duration = Duration::from_secs(5);

/// Why a wait ended without what was waited for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchFailure {
    /// The service account may not list or watch.
    #[error("{0}")]
    Denied(String),
    /// The service account may not be acted as.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The API server doesn't serve the resource, or no watches of it.
    #[error("{0} can't be watched: the API server doesn't serve it, or no watches of it")]
    NotServed(String),
    /// The watch ended in this process: a bug, or its end.
    #[error("the watch of {0} ended")]
    Ended(String),
}

impl From<WatchFailure> for AttemptFailure {
    fn from(failure: WatchFailure) -> Self {
        let message = failure.to_string();
        match failure {
            WatchFailure::Denied(_) => Self::retryable("AccessDenied", message),
            WatchFailure::Refused(_) => Self::definite("AccessDenied", message),
            WatchFailure::NotServed(_) => Self::retryable("KindNotFound", message),
            WatchFailure::Ended(_) => Self::retryable("WatchEnded", message),
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// The object of this name.
    Named(&'a str),
    /// Any object whose label has this value.
    Labelled(&'static str, &'a str),
}

/// By what a watch tells apart what is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum By {
    Name,
    Label(&'static str),
}

impl By {
    fn key(self, object: &DynamicObject) -> Option<&str> {
        match self {
            Self::Name => object.metadata.name.as_deref(),
            Self::Label(label) => object.metadata.labels.as_ref()?.get(label).map(String::as_str),
        }
    }
}

/// What waiters share a watch by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct WatchKey {
    who: ServiceAccount,
    resource: ResourceType,
    namespace: Option<String>,
    by: By,
}

impl WatchKey {
    fn denied(&self, verb: Verb, said: &str) -> WatchFailure {
        let target = Target::collection(&self.resource, self.namespace.as_deref());
        WatchFailure::Denied(denied(&self.who, verb, &target, said))
    }

    /// What a request's error means for those who wait, if it isn't one that passes by itself.
    fn lasting(&self, verb: Verb, error: &kube::Error) -> Option<WatchFailure> {
        match error {
            kube::Error::Api(status) if status.code == 403 => Some(self.denied(verb, &status.message)),
            kube::Error::Api(status) if matches!(status.code, 404 | 405) => {
                Some(WatchFailure::NotServed(self.resource.qualified()))
            }
            kube::Error::Service(error) => error.downcast_ref::<Refused>().cloned().map(WatchFailure::Refused),
            _ => None,
        }
    }

    /// An object as it is shown: the entries of a list don't say what they are, and nobody asks who manages which field.
    fn presented(&self, mut object: DynamicObject) -> DynamicObject {
        let api = &self.resource.api;
        object.types = Some(TypeMeta {
            api_version: api.api_version.clone(),
            kind: api.kind.clone(),
        });
        object.metadata.managed_fields = None;
        object
    }

    fn api(&self, clients: &Clients) -> Api<DynamicObject> {
        let client = clients.as_service_account(&self.who.namespace, &self.who.name);
        let resource = &self.resource.api;
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None if self.resource.namespaced => Api::all_with(client, resource),
            None => Api::dynamic(client, resource, &Scope::Cluster),
        }
    }

    fn config(&self) -> watcher::Config {
        let config = watcher::Config::default();
        match self.by {
            By::Name => config,
            By::Label(label) => config.labels(label),
        }
    }
}

/// All watches of this process. Clones share them; they end with the last clone.
#[derive(Clone)]
pub struct Watches {
    shared: Arc<Shared>,
}

struct Shared {
    clients: Clients,
    discovery: Discovery,
    watches: Mutex<HashMap<WatchKey, Arc<Watch>>>,
    reads: Semaphore,
}

impl Watches {
    /// No watch yet. What `discovery` knows of a resource is forgotten when a watch finds that it isn't served.
    pub fn new(clients: Clients, discovery: Discovery) -> Self {
        Self {
            shared: Arc::new(Shared {
                clients,
                discovery,
                watches: Mutex::default(),
                reads: Semaphore::new(READS_AT_ONCE),
            }),
        }
    }

    /// Shows `check` the object as it is, and again after every change, until it answers something; `None` is an object
    /// that isn't there. `check` is not shown managedFields, and no state older than one that it has been shown. It
    /// should be quick: other waiters of the same watch wait for it.
    ///
    /// # Errors
    /// If the service account may not list and watch the resource, or it isn't served.
    pub async fn wait_for<T: Send + 'static>(
        &self,
        who: &ServiceAccount,
        resource: &ResourceType,
        namespace: Option<&str>,
        which: Which<'_>,
        check: impl FnMut(Option<&DynamicObject>) -> Option<T> + Send + 'static,
    ) -> Result<T, WatchFailure> {
        let (by, name) = match which {
            Which::Named(name) => (By::Name, name),
            Which::Labelled(label, value) => (By::Label(label), value),
        };
        let key = WatchKey {
            who: who.clone(),
            resource: resource.clone(),
            namespace: namespace.map(str::to_owned),
            by,
        };
        let interest = self.shared.watch(key);
        let watch = interest.watch();
        let (answer, mut answered) = oneshot::channel();
        let (entry, read_from) = watch.enter(name, check, answer).await?;
        if let Some(epoch) = read_from {
            let read = Box::pin(self.shared.read(watch, name)); // boxed: it is gone while this waits
            tokio::select! {
                biased;
                result = &mut answered => return result.unwrap_or_else(|_| Err(watch.ended())),
                read = read => match read {
                    Ok(read) => watch.show_read(&entry, epoch, read),
                    Err(failure) => return Err(failure),
                },
            }
        }
        answered.await.unwrap_or_else(|_| Err(watch.ended()))
    }

    /// How many watches there are.
    pub fn count(&self) -> usize {
        self.shared.watches().len()
    }
}

impl Shared {
    fn watches(&self) -> MutexGuard<'_, HashMap<WatchKey, Arc<Watch>>> {
        // Nothing in here panics half-way through a change.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watch of this key, started if there is none.
    fn watch(self: &Arc<Self>, key: WatchKey) -> watch::Interest {
        let mut watches = self.watches();
        if let Some(interest) = watches.get(&key).and_then(Watch::join) {
            return interest;
        }
        let watch = Arc::new(Watch::new(key.clone()));
        let interest = Watch::join(&watch).unwrap_or_else(|| unreachable!("a new watch hasn't ended"));
        let task = tokio::spawn(watch::run(watch.clone(), Arc::downgrade(self), key.api(&self.clients)));
        watch.ends_with(task.abort_handle());
        watches.insert(key, watch);
        interest
    }

    /// Takes a watch out that nobody is interested in any more. Answers whether it was.
    fn remove_if_idle(&self, watch: &Arc<Watch>) -> bool {
        let mut watches = self.watches();
        let idle = watch.close_if_idle();
        if idle && watches.get(&watch.key).is_some_and(|known| Arc::ptr_eq(known, watch)) {
            watches.remove(&watch.key);
        }
        idle
    }

    /// Takes a watch out that failed for good.
    fn remove(&self, watch: &Arc<Watch>, failure: &WatchFailure) {
        if matches!(failure, WatchFailure::NotServed(_)) {
            self.discovery.forget(&watch.key.resource.api.api_version);
        }
        let mut watches = self.watches();
        if watches.get(&watch.key).is_some_and(|known| Arc::ptr_eq(known, watch)) {
            watches.remove(&watch.key);
        }
    }

    /// Reads what one waiter waits for, as it is now, with the resourceVersion of the read: also what isn't there has
    /// one. It is a list that selects by name, as a watch is; errors that pass are sat out.
    async fn read(&self, watch: &Watch, name: &str) -> Result<Seen, WatchFailure> {
        let params = match watch.key.by {
            By::Name => ListParams::default().fields(&format!("metadata.name={name}")),
            By::Label(label) => ListParams::default().labels(&format!("{label}={name}")),
        };
        let api = watch.key.api(&self.clients);
        let mut backoff = Backoff::default();
        loop {
            let answer = match self.reads.acquire().await {
                Ok(_permit) => match timeout(READ_TIMEOUT, api.list(&params)).await {
                    Ok(answer) => answer,
                    Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
                },
                Err(_) => return Err(watch.ended()), // never closed
            };
            match answer {
                Ok(list) => {
                    let version = list.metadata.resource_version.as_deref().and_then(|v| v.parse().ok());
                    return Ok(Seen {
                        version,
                        objects: list
                            .items
                            .into_iter()
                            .map(|object| watch.key.presented(object))
                            .collect(),
                    });
                }
                Err(error) => {
                    if let Some(failure) = watch.key.lasting(Verb::List, &error) {
                        return Err(failure);
                    }
                    tracing::debug!(watch = %watch.key.resource.qualified(), error = in_words(&error), "a read failed");
                }
            }
            sleep(backoff.next()).await;
        }
    }
}

/// Watches end with who started them.
impl Drop for Shared {
    fn drop(&mut self) {
        for watch in self.watches().values() {
            watch.abort();
        }
    }
}
