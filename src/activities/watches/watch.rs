//! One watch, and those who wait for something in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::StreamExt;
use kube::Api;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::super::backoff::Backoff;
use super::super::call::Verb;
use super::{LINGER, Shared, WatchFailure, WatchKey};

/// A watch.
pub struct Watch {
    pub key: WatchKey,
    state: Mutex<State>,
    /// Told when the phase changes.
    phase_changed: Notify,
    /// Told when the last one leaves.
    left: Notify,
}

struct State {
    phase: Phase,
    /// Counts the lists.
    list: u64,
    /// Who waits, by what for.
    waiters: HashMap<String, Vec<Waiter>>,
    next_id: u64,
    interested: usize,
    last_left: Instant,
    task: Option<AbortHandle>,
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// The next list is yet to be asked for: it answers whoever enters now.
    Starting,
    /// A list is under way. It may have been asked for already, so it answers nobody who comes now: they wait.
    Listing,
    /// The watch follows a list: who enters now begins with a read of its own.
    Watching,
    /// It failed for good, or nobody was interested.
    Ended(Option<WatchFailure>),
}

struct Waiter {
    id: u64,
    /// The version of what it was shown last. What is older isn't shown to it.
    version: Option<u64>,
    /// True if the list that is under way had its object.
    listed: bool,
    waiting: Box<dyn Waiting>,
}

/// Somebody who waits, whatever for.
trait Waiting: Send {
    /// Shows it the object. True if that is what it waited for.
    fn show(&mut self, object: Option<&DynamicObject>) -> bool;
    /// Ends its wait without it.
    fn fail(&mut self, failure: WatchFailure);
}

struct Until<T, F> {
    check: F,
    answer: Option<oneshot::Sender<Result<T, WatchFailure>>>,
}

impl<T: Send, F: FnMut(Option<&DynamicObject>) -> Option<T> + Send> Waiting for Until<T, F> {
    fn show(&mut self, object: Option<&DynamicObject>) -> bool {
        let Some(found) = (self.check)(object) else {
            return false;
        };
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(Ok(found)); // whoever left meanwhile doesn't care
        }
        true
    }

    fn fail(&mut self, failure: WatchFailure) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(Err(failure)); // as above
        }
    }
}

/// What a read found.
pub struct Seen {
    /// The state that it read.
    pub version: Option<u64>,
    /// What is there.
    pub objects: Vec<DynamicObject>,
}

/// An interest in a watch, which keeps it going.
pub struct Interest(Arc<Watch>);

impl Interest {
    pub fn watch(&self) -> &Watch {
        &self.0
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.interested -= 1;
        if state.interested == 0 {
            state.last_left = Instant::now();
            self.0.left.notify_one();
        }
    }
}

/// A waiter's place in a watch: left when it is dropped.
pub struct Place<'a> {
    watch: &'a Watch,
    name: String,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.watch.state();
        if let Some(waiters) = state.waiters.get_mut(&self.name) {
            waiters.retain(|waiter| waiter.id != self.id);
            if waiters.is_empty() {
                state.waiters.remove(&self.name);
            }
        }
    }
}

impl Watch {
    pub fn new(key: WatchKey) -> Self {
        let state = State {
            phase: Phase::Starting,
            list: 0,
            waiters: HashMap::new(),
            next_id: 0,
            interested: 0,
            last_left: Instant::now(),
            task: None,
        };
        Self {
            key,
            state: Mutex::new(state),
            phase_changed: Notify::new(),
            left: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A check that panics ends the watch, which then only tells the others.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an interest, unless it has ended.
    pub fn join(self: &Arc<Self>) -> Option<Interest> {
        let mut state = self.state();
        if matches!(state.phase, Phase::Ended(_)) {
            return None;
        }
        state.interested += 1;
        Some(Interest(self.clone()))
    }

    pub fn ends_with(&self, task: AbortHandle) {
        self.state().task = Some(task);
    }

    pub fn abort(&self) {
        if let Some(task) = &self.state().task {
            task.abort();
        }
    }

    /// The failure of those who wait in a watch that is gone.
    pub fn ended(&self) -> WatchFailure {
        WatchFailure::Ended(self.key.resource.qualified())
    }

    /// Enters among the waiters. Answers the number of the list after which a read of its own is needed, if one is.
    pub async fn enter<T: Send + 'static>(
        &self,
        name: &str,
        check: impl FnMut(Option<&DynamicObject>) -> Option<T> + Send + 'static,
        answer: oneshot::Sender<Result<T, WatchFailure>>,
    ) -> Result<(Place<'_>, Option<u64>), WatchFailure> {
        let mut changed = std::pin::pin!(self.phase_changed.notified());
        loop {
            changed.as_mut().enable();
            {
                let mut state = self.state();
                let read = match &state.phase {
                    Phase::Starting => Some(None),
                    Phase::Watching => Some(Some(state.list)),
                    Phase::Listing => None,
                    Phase::Ended(failure) => return Err(failure.clone().unwrap_or_else(|| self.ended())),
                };
                if let Some(read) = read {
                    let id = state.next_id;
                    state.next_id += 1;
                    let waiting = Box::new(Until {
                        check,
                        answer: Some(answer),
                    });
                    let waiter = Waiter {
                        id,
                        version: None,
                        listed: false,
                        waiting,
                    };
                    state.waiters.entry(name.to_owned()).or_default().push(waiter);
                    return Ok((
                        Place {
                            watch: self,
                            name: name.to_owned(),
                            id,
                        },
                        read,
                    ));
                }
            }
            changed.as_mut().await;
            changed.set(self.phase_changed.notified());
        }
    }

    /// Shows a waiter what its own read found, unless a list began meanwhile: that answers it.
    pub fn show_read(&self, place: &Place<'_>, list: u64, seen: Seen) {
        let mut state = self.state();
        if state.list != list {
            return;
        }
        state.show(&place.name, Some(place.id), seen.version, |waiting| {
            match seen.objects.as_slice() {
                [] => waiting.show(None),
                objects => objects.iter().any(|object| waiting.show(Some(object))),
            }
        });
    }

    fn take(&self, event: Event<DynamicObject>) {
        let mut state = self.state();
        match event {
            Event::Init => {
                state.list += 1;
                state
                    .waiters
                    .values_mut()
                    .flatten()
                    .for_each(|waiter| waiter.listed = false);
                self.enter_phase(state, Phase::Listing);
            }
            Event::InitApply(object) => {
                if let Some(key) = self.key.by.key(&object) {
                    for waiter in state.waiters.get_mut(key).into_iter().flatten() {
                        waiter.listed = true;
                    }
                }
                self.show(&mut state, object, false);
            }
            Event::InitDone => {
                // All who wait were here before the list was asked for: what it didn't have isn't there.
                state.waiters.retain(|_, waiters| {
                    waiters.retain_mut(|waiter| waiter.listed || !waiter.waiting.show(None));
                    !waiters.is_empty()
                });
                self.enter_phase(state, Phase::Watching);
            }
            Event::Apply(object) => self.show(&mut state, object, false),
            Event::Delete(object) => self.show(&mut state, object, true),
        }
    }

    fn show(&self, state: &mut State, object: DynamicObject, deleted: bool) {
        let Some(key) = self.key.by.key(&object).filter(|key| state.waiters.contains_key(*key)) else {
            return;
        };
        let (key, version) = (
            key.to_owned(),
            object.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()),
        );
        let object = self.key.presented(object);
        state.show(&key, None, version, |waiting| {
            waiting.show((!deleted).then_some(&object))
        });
    }

    fn enter_phase(&self, mut state: MutexGuard<'_, State>, phase: Phase) {
        state.phase = phase;
        drop(state);
        self.phase_changed.notify_waiters();
    }

    /// After an error: a list that failed is asked for anew.
    fn list_again(&self) {
        let state = self.state();
        if state.phase == Phase::Listing {
            self.enter_phase(state, Phase::Starting);
        }
    }

    /// Ends it if nobody is interested.
    pub fn close_if_idle(&self) -> bool {
        let mut state = self.state();
        let idle = state.interested == 0;
        if idle {
            state.phase = Phase::Ended(None);
        }
        idle
    }

    /// Ends it for all who wait.
    fn fail(&self, failure: &WatchFailure) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Ended(_)) {
            return;
        }
        for waiter in std::mem::take(&mut state.waiters).values_mut().flatten() {
            waiter.waiting.fail(failure.clone());
        }
        self.enter_phase(state, Phase::Ended(Some(failure.clone())));
    }

    /// Returns once nobody has been interested for a while.
    async fn idle(&self) {
        loop {
            let since = {
                let state = self.state();
                (state.interested == 0).then_some(state.last_left)
            };
            match since {
                None => self.left.notified().await,
                Some(since) if since.elapsed() >= LINGER => return,
                Some(since) => sleep(LINGER.saturating_sub(since.elapsed())).await,
            }
        }
    }
}

impl State {
    /// Shows something of this version to those who wait for it, or one of them, and lets go who has what it waited for.
    fn show(
        &mut self,
        name: &str,
        only: Option<u64>,
        version: Option<u64>,
        mut show: impl FnMut(&mut dyn Waiting) -> bool,
    ) {
        let Some(waiters) = self.waiters.get_mut(name) else {
            return;
        };
        waiters.retain_mut(|waiter| {
            let older = matches!((version, waiter.version), (Some(new), Some(shown)) if new <= shown);
            if older || only.is_some_and(|id| id != waiter.id) {
                return true;
            }
            waiter.version = version.or(waiter.version);
            !show(&mut *waiter.waiting)
        });
        if waiters.is_empty() {
            self.waiters.remove(name);
        }
    }
}

/// Follows the API server's watch until nobody is interested or it fails for good.
pub async fn run(watch: Arc<Watch>, shared: Weak<Shared>, api: Api<DynamicObject>) {
    // However this ends, by a panic or from outside: nobody is left waiting.
    let _ending = Ending(watch.clone());
    let mut events = std::pin::pin!(watcher(api, watch.key.config()));
    let mut idle = Box::pin(watch.idle());
    let mut backoff = Backoff::default();
    loop {
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(Ok(event)) => {
                    if !matches!(event, Event::Init) {
                        backoff = Backoff::default();
                    }
                    watch.take(event);
                }
                Some(Err(error)) => {
                    if let Some(failure) = lasting(&watch.key, &error) {
                        if let Some(shared) = shared.upgrade() {
                            shared.remove(&watch, &failure);
                        }
                        return watch.fail(&failure);
                    }
                    tracing::debug!(watch = %watch.key.resource.qualified(), %error, "the watch is interrupted");
                    watch.list_again();
                    sleep(backoff.next()).await;
                }
                None => return,
            },
            () = &mut idle => match shared.upgrade() {
                Some(shared) if !shared.remove_if_idle(&watch) => idle = Box::pin(watch.idle()),
                _ => return,
            },
        }
    }
}

fn lasting(key: &WatchKey, error: &watcher::Error) -> Option<WatchFailure> {
    match error {
        watcher::Error::InitialListFailed(error) => key.lasting(Verb::List, error),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => key.lasting(Verb::Watch, error),
        watcher::Error::WatchError(status) if status.code == 403 => Some(key.denied(Verb::Watch, &status.message)),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

struct Ending(Arc<Watch>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.fail(&self.0.ended());
    }
}
