//! What goes wrong, as a seed says, with processes, their clocks and the API server's cache. What goes wrong with
//! single requests and calls is drawn for each of them.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use crate::service;
use crate::world::{SimulatedClock, World};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Blow {
    /// Who leads dies, and another takes its place.
    Death,
    /// Who leads stands still for so long. There is another.
    Pause(Duration),
    /// The clock of who leads jumps by so many milliseconds, and back after so long.
    Jump(i64, Duration),
    /// The API server's cache is so many revisions old, and stays as it is for so long: lists that may be old are, and
    /// watches tell nothing newer. True if they end, too.
    Lag(u64, Duration, bool),
    /// All watches end.
    Drop,
    /// The API server forgets its past: a watch that is behind gets 410.
    Compact,
}

impl Blow {
    /// Draws one; of deaths there are some anyway.
    pub fn draw(dice: &mut Rng) -> Self {
        let soon = |dice: &mut Rng| Duration::from_millis(dice.u64(..20_000));
        match dice.u8(..8) {
            // Not as long as a claim lasts, or longer than a Lease.
            0 | 1 => Self::Pause(Duration::from_millis(dice.u64(100..40_000))),
            2 | 3 => {
                // As much as a leader's clock may be off, more, and an hour.
                let most = [5_000, 90_000, 3_600_000][dice.usize(..3)];
                Self::Jump(dice.i64(-most..=most), soon(dice))
            }
            4 | 5 => Self::Lag(dice.u64(..50), soon(dice), dice.bool()),
            6 => Self::Drop,
            _ => Self::Compact,
        }
    }
}

/// The operators that run, each with a clock of its own.
pub struct Crew {
    operators: Vec<(usize, SimulatedClock)>,
}

impl Crew {
    pub fn start(world: &mut World, count: usize) -> Self {
        Self {
            operators: (0..count).map(|_| world.start_off(0)).collect(),
        }
    }

    /// Where the one is that leads; the oldest if none does.
    fn leader(&self, world: &World) -> usize {
        let leads = |(number, _): &(usize, SimulatedClock)| service::leads(&world.server, *number);
        self.operators.iter().position(leads).unwrap_or(0)
    }

    pub async fn strike(&mut self, world: &mut World, blow: Blow) {
        let leader = self.leader(world);
        match blow {
            Blow::Death => {
                let (dead, _) = self.operators.remove(leader);
                world.kill(dead).await;
                self.operators.push(world.start_off(0));
            }
            Blow::Pause(lasts) => {
                if self.operators.len() == 1 {
                    self.operators.push(world.start_off(0));
                }
                let gate = world.pause(self.operators[leader].0).await;
                later(lasts, move || gate.open());
            }
            Blow::Jump(by, lasts) => {
                let clock = self.operators[leader].1.clone();
                clock.jump(by);
                later(lasts, move || clock.correct());
            }
            Blow::Lag(by, lasts, ends) => {
                let revision = world.server.revision().saturating_sub(by);
                world.server.set_stale_reads(Some(revision));
                world.server.hold_watches_at(revision, |_| true);
                if ends {
                    world.server.drop_watches(|_| true);
                }
                let server = world.server.clone();
                later(lasts, move || {
                    server.set_stale_reads(None);
                    server.release_watches();
                });
            }
            Blow::Drop => world.server.drop_watches(|_| true),
            Blow::Compact => world.server.compact(),
        }
    }

    /// Nothing goes wrong any more.
    pub fn calm(&self, world: &World) {
        world.server.clear_faults();
        world.service.clear_faults();
        world.server.set_stale_reads(None);
        world.server.release_watches();
        world.resume_all();
        self.operators.iter().for_each(|(_, clock)| clock.correct());
    }
}

fn later(after: Duration, what: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        sleep(after).await;
        what();
    });
}
