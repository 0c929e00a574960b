//! What a schedule is to do now: a pure function of its spec, its status, its operations and the time.
//!
//! A due time is decided on once: it is started, waits, is skipped or missed. What is to be started is created first, under
//! a name that only this due time has, and then the status is written; so a crash between the two decides the same anew,
//! and finds the operation there. What the status doesn't say yet is therefore never deleted.

mod calendar;
#[cfg(test)]
pub(super) mod tests;
mod transitions;

use std::time::Duration;

pub use calendar::Calendar;
pub use transitions::{DUE_TIMES, DueEvent, DueState, Readiness};

use self::transitions::next;
use super::summary::condition;
use super::{Workflow, workflow::InvalidSpec};
use crate::api::{
    ActiveOperation, Backfill, BackfillStatus, ConcurrencyPolicy, OperationScheduleSpec, OperationScheduleStatus,
    RESTORED_LABEL, Time,
};

/// How long a missed due time is made up for, where the schedule doesn't say it.
const CATCH_UP_WINDOW: Duration = Duration::from_secs(60);
/// How many due times are decided on at once, and how many missed ones are counted one by one.
const MAX_AT_ONCE: usize = 100;
const MAX_COUNTED: usize = 1000;
/// How many due times wait at most.
const MAX_WAITING: usize = 100;
/// How many operations `status.active` names at most.
const MAX_ACTIVE: usize = 100;
/// How often an operation is tried again that the API server refuses.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Which schedule is decided on.
#[derive(Clone, Debug)]
pub struct ScheduleIdentity {
    /// Its name.
    pub name: String,
    /// Its uid: what jitter is made of.
    pub uid: String,
    /// When it was created.
    pub created: Time,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// True if it came back from a backup. Without its status it isn't known which backfills ran.
    pub restored: bool,
}

/// An operation that the schedule started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// Its uid: another may have its name by now.
    pub uid: String,
    /// When it was due.
    pub due: Time,
    /// Whether it succeeded, once it has ended.
    pub ended: Option<bool>,
    /// True if it is being cancelled.
    pub cancelled: bool,
}

/// An operation that is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Its name: no other due time has it.
    pub name: String,
    /// When it was due.
    pub due: Time,
    /// Until when it may start.
    pub deadline: Option<Time>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// To be created, before the status is written.
    pub start: Vec<Start>,
    /// To be cancelled, before the status is written.
    pub cancel: Vec<String>,
    /// The next status.
    pub status: OperationScheduleStatus,
    /// To be deleted, once the status was accepted.
    pub delete: Vec<String>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Time>,
}

/// Where the creation of a plan's operations came to a halt. The plan that is made for it starts no more than were created,
/// and so its status says of each of them that it was: one that no status knows would be started anew once it is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// How many were created.
    pub after: usize,
    /// Why the API server refuses the next one. None if it didn't say so: it is to be tried again.
    pub refusal: Option<String>,
}

/// The name of the operation of a due time.
pub fn operation_name(schedule: &str, due: Time) -> String {
    format!("{schedule}-{}", due.timestamp().as_second() / 60)
}

/// Decides. `halt` is that of the plan for the same status, children and time.
pub fn plan(
    identity: &ScheduleIdentity,
    spec: &OperationScheduleSpec,
    status: &OperationScheduleStatus,
    children: &[Child],
    halt: Option<&Halt>,
    now: Time,
) -> Plan {
    let mut planner = Planner {
        identity,
        spec,
        policy: spec.concurrency_policy.unwrap_or_default(),
        children,
        halt,
        now,
        plan: Plan {
            start: vec![],
            cancel: vec![],
            status: status.clone(),
            delete: vec![],
            wake: None,
        },
    };
    let calendar = Calendar::parse(&spec.schedule, spec.time_zone.as_deref()).and_then(|calendar| {
        runnable(spec)?;
        Ok(calendar)
    });
    match calendar {
        Ok(calendar) => planner.run(&calendar),
        Err(InvalidSpec { field, message }) => {
            planner.plan.status.next_times.clear();
            planner.plan.status.schedule = None; // what is due meanwhile is over
            planner.say(Readiness::Invalid, &format!("{field}: {message}"));
        }
    }
    planner.plan.status.observed_generation = identity.generation;
    planner.note_active();
    planner.clean_up();
    planner.plan
}

/// Refuses steps that could only end as `InvalidSpec`, before the first of them is due.
fn runnable(spec: &OperationScheduleSpec) -> Result<(), InvalidSpec> {
    let operation = &spec.operation.spec;
    if operation.template_ref.is_some() {
        return Ok(());
    }
    match Workflow::compile(operation) {
        Ok(_) => Ok(()),
        Err(invalid) => Err(InvalidSpec {
            field: format!("spec.operation.{}", invalid.field),
            ..invalid
        }),
    }
}

struct Planner<'a> {
    identity: &'a ScheduleIdentity,
    spec: &'a OperationScheduleSpec,
    policy: ConcurrencyPolicy,
    children: &'a [Child],
    halt: Option<&'a Halt>,
    now: Time,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn run(&mut self, calendar: &Calendar) {
        let paused = self.spec.paused == Some(true);
        self.set_mark(calendar, paused);
        if !paused {
            self.start_waiting(calendar);
            self.decide_due_times(calendar);
        }
        let held = self.fill_back(calendar);
        let status = &mut self.plan.status;
        status.next_times.clear();
        if !paused {
            let mut last = status.decided_until.unwrap_or(self.now);
            while status.next_times.len() < 5
                && let Some(next) = calendar.after(last)
            {
                status.next_times.push(next);
                last = next;
            }
        }
        if let Some(refusal) = self.halt.and_then(|halt| halt.refusal.as_deref()) {
            self.wake_at(self.now.plus(TRY_AGAIN));
            self.say(Readiness::Refused, refusal);
        } else if let Some(range) = held {
            self.say(Readiness::Restored, &format!("the backfill from {} to {} waits: this schedule came back from a backup without its status, so it may have run. Remove the label {RESTORED_LABEL} to run it, or take it out of spec.backfill", range.from, range.to));
        } else if paused {
            self.say(Readiness::Paused, self.spec.note.as_deref().unwrap_or_default());
        } else if self.plan.status.next_times.is_empty() {
            self.say(
                Readiness::Invalid,
                "spec.schedule: it names no time in the next four years",
            );
        } else {
            self.say(Readiness::Scheduled, "");
        }
    }

    /// From when on due times are to be decided on. What was due under another schedule is over, and so is what was due under
    /// none: while it was paused, or invalid.
    fn set_mark(&mut self, calendar: &Calendar, paused: bool) {
        let status = &mut self.plan.status;
        let schedule = (!paused).then(|| calendar.text.clone());
        status.decided_until = match status.decided_until {
            None if paused || status.observed_generation.is_some() => Some(self.now), // it was invalid
            None => Some(self.identity.created),
            Some(until) if status.schedule == schedule => Some(until),
            Some(until) => Some(until.max(self.now)),
        };
        status.schedule = schedule;
    }

    /// How many operations are under way.
    fn active(&self) -> usize {
        self.children.iter().filter(|child| child.ended.is_none()).count() + self.plan.start.len()
    }

    /// True once all was started that can be.
    fn is_halted(&self) -> bool {
        self.halt.is_some_and(|halt| self.plan.start.len() >= halt.after)
    }

    fn is_there(&self, due: Time) -> bool {
        self.children.iter().any(|child| child.due == due) || self.plan.start.iter().any(|start| start.due == due)
    }

    fn wake_at(&mut self, time: Time) {
        self.plan.wake = Some(self.plan.wake.map_or(time, |wake| wake.min(time)));
    }

    /// When a due time is to be started.
    fn start_time(&self, calendar: &Calendar, due: Time) -> Time {
        let most = self.spec.jitter.as_ref().map(|jitter| jitter.get()).unwrap_or_default();
        calendar.with_jitter(&self.identity.uid, due, most)
    }

    fn deadline(&self, calendar: &Calendar, due: Time) -> Option<Time> {
        let most = self.spec.start_deadline.as_ref()?.get();
        Some(self.start_time(calendar, due).plus(most))
    }

    /// Moves a due time along; the plan and the status say what follows.
    fn advance(&mut self, state: DueState, event: DueEvent, due: Time, deadline: Option<Time>) {
        let status = &mut self.plan.status;
        if state == DueState::Waiting {
            status.waiting.retain(|waiting| *waiting != due);
        }
        match next(state, event) {
            Some(DueState::Waiting) => status.waiting.push(due),
            Some(DueState::Skipped) => status.skipped += 1,
            Some(DueState::Missed) => status.missed += 1,
            Some(DueState::Started) => {
                if state != DueState::Named {
                    let last = status.last_schedule_time;
                    status.last_schedule_time = Some(last.map_or(due, |last| last.max(due)));
                }
                if event == DueEvent::Start {
                    self.plan.start.push(Start {
                        name: operation_name(&self.identity.name, due),
                        due,
                        deadline,
                    });
                }
            }
            _ => {} // no event leads back
        }
    }

    /// Starts what waits, once it may.
    fn start_waiting(&mut self, calendar: &Calendar) {
        while let Some(due) = self.plan.status.waiting.first().copied() {
            let deadline = self.deadline(calendar, due);
            let event = if self.is_there(due) {
                DueEvent::Find
            } else if deadline.is_some_and(|deadline| deadline < self.now) {
                DueEvent::Expire
            } else if self.policy == ConcurrencyPolicy::AllowAll || self.active() == 0 {
                if self.is_halted() {
                    break;
                }
                DueEvent::Start
            } else {
                if let Some(deadline) = deadline {
                    self.wake_at(deadline.plus(Duration::from_millis(1)));
                }
                break;
            };
            self.advance(DueState::Waiting, event, due, deadline);
        }
        if self.policy == ConcurrencyPolicy::CancelOther && !self.plan.status.waiting.is_empty() {
            self.cancel_others();
        }
    }

    fn cancel_others(&mut self) {
        let others = self
            .children
            .iter()
            .filter(|child| child.ended.is_none() && !child.cancelled);
        self.plan.cancel = others.map(|child| child.name.clone()).collect();
    }

    fn decide_due_times(&mut self, calendar: &Calendar) {
        let window = self
            .spec
            .catch_up_window
            .as_ref()
            .map_or(CATCH_UP_WINDOW, |window| window.get());
        let mut mark = self.plan.status.decided_until.unwrap_or(self.now);
        let (mut counted, mut decided) = (0, 0);
        while let Some(due) = calendar.after(mark) {
            let at = self.start_time(calendar, due);
            if at > self.now {
                self.wake_at(at);
                break;
            }
            if decided == MAX_AT_ONCE {
                self.wake_at(self.now); // the rest right after this
                break;
            }
            if self.is_there(due) {
                self.advance(DueState::Due, DueEvent::Find, due, None);
            } else if self.now.since(at) > window {
                self.advance(DueState::Due, DueEvent::Late, due, None);
                counted += 1;
                if counted == MAX_COUNTED {
                    // A long outage: what is beyond the window is not counted any further.
                    let begin = self.now.minus(window);
                    mark = due.max(calendar.before_all_within(begin, self.spec.jitter.as_ref()));
                    continue;
                }
            } else {
                decided += 1;
                if !self.decide(calendar, due) {
                    break;
                }
            }
            mark = due;
        }
        self.plan.status.decided_until = Some(mark);
    }

    /// Decides on a time that is due. Answers false if it is to be started, and can't be.
    fn decide(&mut self, calendar: &Calendar, due: Time) -> bool {
        use ConcurrencyPolicy::*;
        let deadline = self.deadline(calendar, due);
        let waiting = self.plan.status.waiting.len();
        let free = self.active() == 0 && waiting == 0;
        let event = match self.policy {
            _ if deadline.is_some_and(|deadline| deadline < self.now) => DueEvent::Expire,
            AllowAll => DueEvent::Start,
            _ if free => DueEvent::Start,
            CancelOther => DueEvent::Wait,
            BufferOne if waiting == 0 => DueEvent::Wait,
            BufferAll if waiting < MAX_WAITING => DueEvent::Wait,
            Skip | BufferOne | BufferAll => DueEvent::Skip,
        };
        if event == DueEvent::Start && self.is_halted() {
            return false;
        }
        if (self.policy, event) == (CancelOther, DueEvent::Wait) {
            for earlier in self.plan.status.waiting.clone() {
                self.advance(DueState::Waiting, DueEvent::Skip, earlier, None);
            }
            self.cancel_others();
        }
        self.advance(DueState::Due, event, due, deadline);
        if event != DueEvent::Expire
            && let (Some(deadline), Some(_)) = (deadline, self.plan.status.waiting.first())
        {
            self.wake_at(deadline.plus(Duration::from_millis(1)));
        }
        true
    }

    /// Runs what the backfills name, each range once. Answers the first that waits, as it may have run before the schedule
    /// came back from a backup.
    fn fill_back(&mut self, calendar: &Calendar) -> Option<&'a Backfill> {
        let spec = self.spec;
        let known = std::mem::take(&mut self.plan.status.backfills);
        let mut held = None;
        for range in &spec.backfill {
            let before = known
                .iter()
                .find(|known| (known.from, known.to) == (range.from, range.to));
            let mut state = before.cloned().unwrap_or(BackfillStatus {
                from: range.from,
                to: range.to,
                last: None,
                started: 0,
                done: false,
                restored: self.plan.status.observed_generation.is_none(),
            });
            state.restored &= self.identity.restored;
            if state.restored {
                held = held.or(Some(range));
                self.plan.status.backfills.push(state);
                continue;
            }
            while !state.done {
                let next = calendar.after(state.last.unwrap_or(state.from.minus(Duration::from_millis(1))));
                let Some(due) = next.filter(|due| *due <= state.to.min(self.now)) else {
                    state.done = true;
                    break;
                };
                let event = if self.is_there(due) {
                    DueEvent::Find
                } else {
                    let free = self.active() == 0 && self.plan.status.waiting.is_empty();
                    if !free && self.policy != ConcurrencyPolicy::AllowAll {
                        break; // woken once the other ends
                    }
                    if self.is_halted() {
                        break;
                    }
                    if self.plan.start.len() >= MAX_AT_ONCE {
                        self.wake_at(self.now);
                        break;
                    }
                    DueEvent::Start
                };
                self.advance(DueState::Named, event, due, None);
                state.last = Some(due);
                state.started += 1;
            }
            self.plan.status.backfills.push(state);
        }
        held
    }

    fn note_active(&mut self) {
        let open = self.children.iter().filter(|child| child.ended.is_none());
        let mut active: Vec<_> = open
            .map(|child| (child.due, child.name.clone()))
            .chain(self.plan.start.iter().map(|start| (start.due, start.name.clone())))
            .collect();
        active.sort();
        active.truncate(MAX_ACTIVE);
        let active = active.into_iter().map(|(due, name)| ActiveOperation { name, due });
        self.plan.status.active = active.collect();
    }

    /// Deletes the oldest of what has ended, beyond what is to be kept.
    fn clean_up(&mut self) {
        let limit = |limit: Option<i32>, default: usize| limit.map_or(default, |n| usize::try_from(n).unwrap_or(0));
        let keep = [
            (true, limit(self.spec.successful_history_limit, 3)),
            (false, limit(self.spec.failed_history_limit, 1)),
        ];
        for (succeeded, keep) in keep {
            let ended = self.children.iter().filter(|child| child.ended == Some(succeeded));
            let mut ended: Vec<_> = ended.filter(|child| self.is_recorded(child.due)).collect();
            ended.sort_by_key(|child| std::cmp::Reverse(child.due));
            let names = ended.into_iter().skip(keep).map(|child| child.name.clone());
            self.plan.delete.extend(names);
        }
    }

    /// True if the status says of a due time that it was decided on: its operation may go without being started anew.
    fn is_recorded(&self, due: Time) -> bool {
        let status = &self.plan.status;
        let of_backfill = |state: &BackfillStatus| {
            !state.done && (state.from..=state.to).contains(&due) && state.last.is_none_or(|last| last < due)
        };
        status.decided_until.is_some_and(|until| due <= until)
            && !status.waiting.contains(&due)
            && !status.backfills.iter().any(of_backfill)
    }

    fn say(&mut self, reason: Readiness, message: &str) {
        set_conditions(&mut self.plan.status, self.identity, reason, message, self.now);
    }
}

fn set_conditions(
    status: &mut OperationScheduleStatus,
    identity: &ScheduleIdentity,
    readiness: Readiness,
    message: &str,
    now: Time,
) {
    #[cfg(test)]
    super::coverage::readiness(status, readiness);
    let message = super::shorten(message, 1024);
    let reason = &*readiness.to_string();
    let well = matches!(readiness, Readiness::Scheduled | Readiness::Paused);
    let mut set = |kind, value, reason, message| {
        condition(
            &mut status.conditions,
            kind,
            value,
            reason,
            message,
            identity.generation,
            now,
        );
    };
    set("Ready", if well { "True" } else { "False" }, reason, &*message);
    if well {
        set("Stalled", "False", "AsExpected", "");
    } else {
        set("Stalled", "True", reason, &*message);
    }
}
