//! The report on state machines: each transition of their tables, and how often the tests took it. The engine's tests and the
//! simulation share it.

use std::collections::BTreeMap;
use std::fmt::Debug;

/// From which state, on what event, to which state.
pub type Transition = [String; 3];

/// How often each transition was taken.
pub type Taken = BTreeMap<Transition, usize>;

/// A transition in words.
pub fn transition(from: impl Debug, event: impl Debug, to: impl Debug) -> Transition {
    [format!("{from:?}"), format!("{event:?}"), format!("{to:?}")]
}

/// A table's transitions in words.
pub fn rows<S: Debug, E: Debug>(table: &[(S, E, S)]) -> Vec<Transition> {
    let rows = table.iter();
    rows.map(|(from, event, to)| transition(from, event, to)).collect()
}

/// A transition of an operation in words: from `None` as long as it has not started.
pub fn of_operation(from: Option<impl Debug>, event: impl Debug, to: impl Debug) -> Transition {
    match from {
        Some(from) => transition(from, event, to),
        None => ["(not started)".into(), format!("{event:?}"), format!("{to:?}")],
    }
}

/// The report under way.
#[derive(Default)]
pub struct Report {
    lines: Vec<String>,
    wrong: Vec<String>,
}

impl Report {
    /// Adds a machine: the transitions of its table, in their order, and those that were taken.
    pub fn machine(&mut self, name: &str, table: &[Transition], taken: &Taken) {
        for transition in table {
            let times = taken.get(transition).copied().unwrap_or_default();
            self.line(name, transition, times);
            if times == 0 {
                self.wrong.push(format!("{name}: no test took {}", told(transition)));
            }
        }
        for (transition, times) in taken.iter().filter(|(taken, _)| !table.contains(taken)) {
            self.line(name, transition, *times);
            self.wrong.push(format!(
                "{name}: the table doesn't have {}, which was taken {times} times",
                told(transition)
            ));
        }
    }

    fn line(&mut self, name: &str, [from, event, to]: &Transition, times: usize) {
        self.lines
            .push(format!("{name:<10} {from:<16} {event:<14} {to:<16} {times:>8}"));
    }

    /// Prints the report.
    ///
    /// # Panics
    /// If a transition of a table was never taken, or one was that its table doesn't have.
    pub fn conclude(self) {
        println!(
            "{:<10} {:<16} {:<14} {:<16} {:>8}",
            "machine", "from", "event", "to", "taken"
        );
        self.lines.iter().for_each(|line| println!("{line}"));
        println!("{} transitions", self.lines.len());
        assert!(self.wrong.is_empty(), "\n{}", self.wrong.join("\n"));
    }
}

fn told([from, event, to]: &Transition) -> String {
    format!("{from} -> {to} on {event}")
}
