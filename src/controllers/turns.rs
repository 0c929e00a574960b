//! Whose turn it is: so many passes at once, and a namespace with thousands that wait delays another's by one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Turns, given to namespaces one after the other, and within a namespace to who came first.
pub struct Turns {
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// The namespaces in which somebody waits, the next one first.
    ring: VecDeque<String>,
    waiting: HashMap<String, VecDeque<oneshot::Sender<Turn>>>,
}

/// A turn: it ends, and the next one begins, when this is dropped.
pub struct Turn {
    turns: Option<Arc<Turns>>,
}

impl Turns {
    /// So many at once.
    pub fn new(at_once: usize) -> Arc<Self> {
        let state = State {
            free: at_once,
            ring: VecDeque::new(),
            waiting: HashMap::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn of this namespace.
    pub async fn take(self: &Arc<Self>, namespace: &str) -> Turn {
        let turn = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                None
            } else {
                let (give, turn) = oneshot::channel();
                if !state.waiting.contains_key(namespace) {
                    state.ring.push_back(namespace.to_owned());
                }
                state.waiting.entry(namespace.to_owned()).or_default().push_back(give);
                Some(turn)
            }
        };
        match turn {
            None => Turn {
                turns: Some(self.clone()),
            },
            // The error is not reached: who gives turns is dropped with the last that waits for one.
            Some(turn) => turn.await.unwrap_or(Turn { turns: None }),
        }
    }

    /// Hands a turn that ended to who is next.
    fn pass_on(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state();
                let Some(namespace) = state.ring.pop_front() else {
                    state.free += 1;
                    return;
                };
                let queue = state.waiting.get_mut(&namespace);
                let next = queue.and_then(VecDeque::pop_front);
                if state.waiting.get(&namespace).is_some_and(|queue| !queue.is_empty()) {
                    state.ring.push_back(namespace);
                } else {
                    state.waiting.remove(&namespace);
                }
                next
            };
            let turn = Turn {
                turns: Some(self.clone()),
            };
            match next.map(|next| next.send(turn)) {
                Some(Ok(())) => return,
                Some(Err(turn)) => turn.forget(), // it no longer waits
                None => {}
            }
        }
    }
}

impl Turn {
    fn forget(mut self) {
        self.turns = None;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_namespace_with_thousands_that_wait_delays_another_by_one() {
        let turns = Turns::new(1);
        let first = turns.take("busy").await;
        let mut busy: Vec<_> = (0..1000).map(|_| Box::pin(turns.take("busy"))).collect();
        for waiting in &mut busy {
            assert!(waiting.now_or_never().is_none());
        }
        let mut other = Box::pin(turns.take("other"));
        assert!((&mut other).now_or_never().is_none());
        drop(first);
        assert!((&mut other).now_or_never().is_none());
        let second = busy.remove(0).now_or_never().expect("who came first is next");
        drop(second);
        assert!(other.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_turn_for_one_that_no_longer_waits_goes_to_the_next() {
        let turns = Turns::new(1);
        let first = turns.take("a").await;
        let mut gone = Box::pin(turns.take("a"));
        assert!((&mut gone).now_or_never().is_none());
        let mut given = Box::pin(turns.take("b"));
        assert!((&mut given).now_or_never().is_none());
        let mut next = Box::pin(turns.take("b"));
        assert!((&mut next).now_or_never().is_none());
        drop(gone);
        drop(first); // given to the first in b, which goes without having looked
        drop(given);
        assert!(next.now_or_never().is_some());
        assert!(turns.take("a").now_or_never().is_some());
    }
}
