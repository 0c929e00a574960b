//! Every transition of what goes on across objects, as the accepted writes show it. In each test of the simulation, one that its
//! table doesn't have fails. Here each that it has is taken, and a report says how often.

mod observer;
mod scenarios;

use std::cell::RefCell;
use std::collections::BTreeMap;

use holdfast::controllers::transitions::{ASKS, KEYS, LEASES, PARTS, PINS};
use holdfast::engine::{OperationEvent, operations};

use self::observer::Observer;
use crate::report::{Report, Taken, Transition, of_operation, rows};
use crate::world::World;

thread_local! {
    /// What the worlds of this thread have taken, by machine.
    static TAKEN: RefCell<BTreeMap<&'static str, Taken>> = RefCell::default();
}

/// Each machine's table.
fn tables() -> [(&'static str, Vec<Transition>); 7] {
    let all = || operations().map(|(from, event, to)| (event, of_operation(from, event, to)));
    let of = |event| all().filter(move |(on, _)| *on == event).map(|(_, row)| row).collect();
    [
        (DECIDED, of(OperationEvent::Decide)),
        ("operation", of(OperationEvent::HoldUp)),
        ("key", rows(KEYS)),
        ("action", rows(ASKS)),
        ("template", rows(PINS)),
        ("history", rows(PARTS)),
        ("lease", rows(LEASES)),
    ]
}

/// What the engine decides of operations. The report of its own tests has it.
const DECIDED: &str = "operation, decided";

/// Whatever its operators wrote was legal; and it counts for the report, where this thread makes one.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut observer = Observer::default();
        self.server.writes().iter().for_each(|write| observer.see(write));
        for (machine, table) in tables() {
            let taken = observer.seen.remove(machine).unwrap_or_default();
            let illegal: Vec<_> = taken.keys().filter(|taken| !table.contains(taken)).collect();
            assert!(illegal.is_empty(), "{machine}: the table doesn't have {illegal:?}");
            TAKEN.with_borrow_mut(|all| {
                let of_machine = all.entry(machine).or_default();
                for (transition, times) in taken {
                    *of_machine.entry(transition).or_default() += times;
                }
            });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_transition_is_taken() {
    scenarios::all().await;
    let taken = TAKEN.take();
    let mut report = Report::default();
    for (machine, table) in tables().into_iter().filter(|(machine, _)| *machine != DECIDED) {
        report.machine(machine, &table, taken.get(machine).unwrap_or(&Taken::new()));
    }
    report.conclude();
}
