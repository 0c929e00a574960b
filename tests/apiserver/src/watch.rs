//! Watches: each follows the store's changes at its own pace, so none is lost on the way.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::{
    sync::watch::Receiver,
    time::{Instant, sleep_until},
};

use crate::{
    faults::RequestInfo,
    read,
    resources::Resource,
    selector::Filter,
    server::Shared,
    state::{Call, State},
    status::{self, Result},
    store::Change,
};

/// How often a watch that allows bookmarks gets one.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// How long a watch lasts that doesn't say.
const LONGEST: Duration = Duration::from_secs(45 * 60);

/// The watches that are open, and what tests do to all of them.
#[derive(Debug, Default)]
pub struct Watches {
    open: BTreeMap<u64, RequestInfo>,
    next: u64,
    /// No change after this revision is delivered to the watches whose requests match.
    pub held: Option<(u64, Matches)>,
}

/// Which requests are meant.
#[derive(Clone)]
pub struct Matches(pub Arc<dyn Fn(&RequestInfo) -> bool + Send + Sync>);

impl std::fmt::Debug for Matches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Matches")
    }
}

impl Watches {
    /// The requests of the watches that are open.
    pub fn open(&self) -> impl Iterator<Item = &RequestInfo> {
        self.open.values()
    }

    /// Ends the watches whose requests match.
    pub fn drop_matching(&mut self, matches: impl Fn(&RequestInfo) -> bool) {
        self.open.retain(|_, info| !matches(info));
    }

    fn add(&mut self, info: RequestInfo) -> u64 {
        self.next += 1;
        self.open.insert(self.next, info);
        self.next
    }
}

/// One watch: what it is about and how far it has come.
struct Watch {
    id: u64,
    shared: Arc<Shared>,
    progress: Receiver<()>,
    resource: Arc<Resource>,
    namespace: String,
    filter: Filter,
    metadata_only: bool,
    /// All changes up to this revision are delivered or in `ready`.
    position: u64,
    ready: VecDeque<Bytes>,
    ended: bool,
    bookmark_at: Option<Instant>,
    ends_at: Instant,
}

/// Opens a watch: a stream of lines of JSON.
pub fn open(shared: &Arc<Shared>, state: &mut State, call: &Call) -> Result<impl Stream<Item = Bytes> + Send + use<>> {
    read::check_initial_events(call)?;
    let (resource, query) = (call.target.resource.clone(), &call.query);
    let filter = Filter::new(&resource, query.get("labelSelector"), query.get("fieldSelector"))?;
    let text = query.get("resourceVersion");
    let version = read::parse_version(text).map_err(|e| status::internal(e.message.unwrap_or_default()))?;
    let bookmarks = query.is_set("allowWatchBookmarks");
    let with_list = query.is_set("sendInitialEvents");
    let initial = with_list || (query.get("sendInitialEvents").is_empty() && matches!(version, None | Some(0)));
    let position = match version {
        // From "now", or whatever the cache has for 0.
        Some(version) if !initial && version > 0 => version,
        _ => state.view(version, false)?,
    };
    let lasts = query
        .number("timeoutSeconds")
        .filter(|s| *s > 0)
        .map_or(LONGEST, Duration::from_secs);
    let mut watch = Watch {
        id: state.watches.add(call.info.clone()),
        shared: shared.clone(),
        progress: shared.progress.subscribe(),
        namespace: call.target.namespace.clone(),
        metadata_only: call.metadata_only,
        filter,
        resource,
        position,
        ready: VecDeque::new(),
        ended: false,
        bookmark_at: bookmarks.then(|| Instant::now() + BOOKMARKS),
        ends_at: Instant::now() + lasts,
    };
    if !initial {
        watch.expire(state.store.compacted());
    } else {
        for (_, object) in state.store.list_at(position, &watch.resource, &watch.namespace) {
            if watch.filter.matches(&object) {
                watch.push("ADDED", &object);
            }
        }
        if with_list && bookmarks {
            watch.push_bookmark(json!({"k8s.io/initial-events-end": "true"}));
        }
    }
    Ok(stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line, watch))
    }))
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.progress.mark_unchanged();
            self.collect();
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.ended || Instant::now() >= self.ends_at {
                return None;
            }
            let bookmark_at = self.bookmark_at.unwrap_or(self.ends_at);
            tokio::select! {
                // The order matters where two are ready at once: changes come first, so that runs repeat.
                biased;
                changed = self.progress.changed() => changed.ok()?,
                () = sleep_until(self.ends_at) => return None,
                () = sleep_until(bookmark_at) => {
                    self.push_bookmark(Value::Null);
                    self.bookmark_at = Some(bookmark_at + BOOKMARKS);
                }
            }
        }
    }

    /// Takes over what has changed since the last time.
    fn collect(&mut self) {
        let shared = self.shared.clone();
        let state = shared.lock();
        let Some(info) = state.watches.open.get(&self.id) else {
            self.ended = true;
            self.ready.clear();
            return;
        };
        if self.ended {
            return;
        }
        let until = match &state.watches.held {
            Some((revision, which)) if which.0(info) => *revision,
            _ => state.store.revision(),
        };
        for change in state
            .store
            .changes_after(self.position)
            .iter()
            .take_while(|c| c.revision <= until)
        {
            if change.key.is_of(&self.resource, &self.namespace) {
                self.push_change(change);
            }
        }
        self.position = self.position.max(until);
        // What is held back and then compacted can't be delivered any more.
        self.expire(state.store.compacted());
    }

    /// Ends the watch with 410 if it needs changes from before the last compaction.
    fn expire(&mut self, compacted: u64) {
        if self.position < compacted {
            let expired = status::expired(format!("too old resource version: {} ({compacted})", self.position));
            self.push_line(&json!({"type": "ERROR", "object": *expired}));
            self.ended = true;
        }
    }

    /// A change as this watch sees it: what comes to match its selectors is added, what no longer does is deleted.
    fn push_change(&mut self, change: &Change) {
        let selected = |object: &&Arc<Value>| self.filter.matches(object);
        let before = change.before.as_ref().filter(selected).cloned();
        let after = change
            .after
            .as_ref()
            .map(|after| &after.object)
            .filter(selected)
            .cloned();
        match (before, after) {
            (None, Some(after)) => self.push("ADDED", &after),
            (Some(_), Some(after)) => self.push("MODIFIED", &after),
            (Some(before), None) => {
                // The last state that matched, at the revision that ended it.
                let mut last = Value::clone(&before);
                last["metadata"]["resourceVersion"] = change.revision.to_string().into();
                self.push("DELETED", &last);
            }
            (None, None) => {}
        }
    }

    fn push(&mut self, kind: &str, object: &Value) {
        let object = read::presented(&self.resource, object, self.metadata_only);
        self.push_line(&json!({"type": kind, "object": object}));
    }

    fn push_bookmark(&mut self, annotations: Value) {
        let mut metadata = json!({"resourceVersion": self.position.to_string()});
        if !annotations.is_null() {
            metadata["annotations"] = annotations;
        }
        let (api_version, kind) = (self.resource.api_version(), &self.resource.kind);
        self.push_line(
            &json!({"type": "BOOKMARK", "object": {"apiVersion": api_version, "kind": kind, "metadata": metadata}}),
        );
    }

    fn push_line(&mut self, event: &Value) {
        self.ready.push_back(format!("{event}\n").into());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().watches.open.remove(&self.id);
    }
}
