//! Whose turn it is: so many at once, and a namespace with thousands that wait delays another's hardly at all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Of so many turns one goes to the namespace that has waited for longest, so that none waits for ever. The others go to
/// the shortest line: who is in it waits for few, and the thousands in another hardly notice.
const SHARE_OF_ALL: usize = 3;

/// Turns, given to namespaces one after the other, short lines first, and within a namespace to who came first.
pub struct Turns {
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// How many turns were given to one that waited.
    given: usize,
    /// The namespaces in which somebody waits, the one first that has waited for longest.
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
            given: 0,
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
                let Some(namespace) = state.next() else {
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

impl State {
    /// Takes the namespace out of the ring whose turn it is.
    fn next(&mut self) -> Option<String> {
        let everyone = self.given.is_multiple_of(SHARE_OF_ALL);
        self.given = self.given.wrapping_add(1);
        let line = |namespace: &String| self.waiting.get(namespace).map_or(0, VecDeque::len);
        let shortest = || (0..self.ring.len()).min_by_key(|at| line(&self.ring[*at])); // the first of equals
        let at = if everyone { 0 } else { shortest()? };
        self.ring.remove(at)
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
    use std::pin::Pin;

    use futures::FutureExt;

    use super::*;

    type Waiting = Vec<(&'static str, Pin<Box<dyn Future<Output = Turn>>>)>;

    /// Lets so many of a namespace wait.
    fn wait(turns: &Arc<Turns>, namespace: &'static str, many: usize, waiting: &mut Waiting) {
        for _ in 0..many {
            let turns = turns.clone();
            let mut turn: Pin<Box<dyn Future<Output = Turn>>> = Box::pin(async move { turns.take(namespace).await });
            assert!((&mut turn).now_or_never().is_none());
            waiting.push((namespace, turn));
        }
    }

    /// Ends a turn, and says whose is next.
    fn next(turn: &mut Option<Turn>, waiting: &mut Waiting) -> &'static str {
        drop(turn.take());
        let at = (0..waiting.len()).find(|at| {
            *turn = (&mut waiting[*at].1).now_or_never();
            turn.is_some()
        });
        waiting.remove(at.expect("a turn that ends is another's")).0
    }

    #[tokio::test]
    async fn a_namespace_with_thousands_that_wait_hardly_delays_another() {
        let turns = Turns::new(1);
        let (mut turn, mut waiting) = (Some(turns.take("busy").await), vec![]);
        wait(&turns, "busy", 1000, &mut waiting);
        wait(&turns, "other", 10, &mut waiting);
        let order: Vec<_> = (0..15).map(|_| next(&mut turn, &mut waiting)).collect();
        let of_the_other = order.iter().filter(|namespace| **namespace == "other").count();
        assert_eq!(of_the_other, 10, "{order:?}");
    }

    #[tokio::test]
    async fn a_long_line_goes_on_beside_short_ones_that_never_end() {
        let turns = Turns::new(1);
        let (mut turn, mut waiting) = (Some(turns.take("busy").await), vec![]);
        wait(&turns, "busy", 100, &mut waiting);
        wait(&turns, "a", 2, &mut waiting);
        wait(&turns, "b", 2, &mut waiting);
        let mut of_the_long = 0;
        for _ in 0..90 {
            match next(&mut turn, &mut waiting) {
                "busy" => of_the_long += 1,
                short => wait(&turns, short, 1, &mut waiting),
            }
        }
        assert!(of_the_long >= 10, "{of_the_long} of 90"); // a third of a third
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
