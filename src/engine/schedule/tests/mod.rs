mod calendar;

use serde_json::json;

use super::*;

fn at(text: &str) -> Time {
    Time::new(text.parse().unwrap())
}

/// A schedule and its operations, as a cluster has them.
struct Case {
    spec: OperationScheduleSpec,
    status: OperationScheduleStatus,
    children: Vec<Child>,
    deleted: usize,
    created: Time,
    restored: bool,
    wake: Option<Time>,
}

fn case(fields: &str) -> Case {
    let text =
        format!("{{schedule: '*/10 * * * *', operation: {{spec: {{steps: [{{name: a, set: {{v: 1}}}}]}}}}, {fields}}}");
    Case {
        spec: serde_yaml::from_str(&text).unwrap(),
        status: OperationScheduleStatus::default(),
        children: vec![],
        deleted: 0,
        created: at("2026-11-24T10:00:00Z"),
        restored: false,
        wake: None,
    }
}

impl Case {
    fn identity(&self) -> ScheduleIdentity {
        ScheduleIdentity {
            name: "nightly".into(),
            uid: "u1".into(),
            created: self.created,
            generation: Some(1),
            restored: self.restored,
        }
    }

    fn plan(&self, now: &str) -> Plan {
        self.plan_for(None, now)
    }

    fn plan_for(&self, halt: Option<&Halt>, now: &str) -> Plan {
        let (identity, now) = (self.identity(), at(now));
        plan(&identity, &self.spec, &self.status, &self.children, halt, now)
    }

    /// A pass, and what was started by it.
    fn pass(&mut self, now: &str) -> Vec<String> {
        let plan = self.plan(now);
        let started = self.carry_out(&plan);
        let again = self.plan(now);
        assert!(again.start.is_empty(), "nothing is started twice");
        started
    }

    /// A pass in which the API server takes so many operations, and refuses the next.
    fn is_refused_after(&mut self, after: usize, now: &str) -> Vec<String> {
        assert_eq!(self.plan(now).start.get(..after), Some(&*self.halted(after, now).start));
        let plan = self.halted(after, now);
        self.carry_out(&plan)
    }

    fn halted(&self, after: usize, now: &str) -> Plan {
        let refusal = Some("quota".into());
        self.plan_for(Some(&Halt { after, refusal }), now)
    }

    fn carry_out(&mut self, plan: &Plan) -> Vec<String> {
        for name in &plan.cancel {
            self.children.iter_mut().find(|c| &c.name == name).unwrap().cancelled = true;
        }
        self.children.extend(plan.start.iter().map(|start| Child {
            name: start.name.clone(),
            uid: start.name.clone(),
            due: start.due,
            ended: None,
            cancelled: false,
        }));
        self.status = serde_json::from_value(json!(plan.status)).unwrap();
        assert_eq!(self.status, plan.status);
        self.deleted += plan.delete.len();
        self.children.retain(|child| !plan.delete.contains(&child.name));
        self.wake = plan.wake;
        let times = plan.start.iter().map(|start| start.due.to_string()[11..16].to_owned());
        times.collect()
    }

    fn end(&mut self, due: &str, succeeded: bool) {
        let child = self.children.iter_mut().find(|c| c.due.to_string()[11..16] == *due);
        child.unwrap().ended = Some(succeeded);
    }

    fn waiting(&self) -> Vec<String> {
        let waiting = self.status.waiting.iter();
        waiting.map(|due| due.to_string()[11..16].to_owned()).collect()
    }

    fn reason(&self) -> &str {
        &self
            .status
            .conditions
            .iter()
            .find(|c| c.type_ == "Ready")
            .unwrap()
            .reason
    }
}

const NONE: [&str; 0] = [];

#[test]
fn each_due_time_is_started_once_and_it_sleeps_until_the_next() {
    let mut case = case("");
    assert_eq!(case.pass("2026-11-24T10:00:05Z"), NONE);
    assert_eq!(case.wake, Some(at("2026-11-24T10:10:00Z")));
    let next = case.status.next_times.iter().map(|t| t.to_string()[11..16].to_owned());
    assert_eq!(next.collect::<Vec<_>>(), ["10:10", "10:20", "10:30", "10:40", "10:50"]);
    assert_eq!(case.pass("2026-11-24T10:10:00Z"), ["10:10"]);
    assert_eq!(case.children[0].name, "nightly-29925250");
    assert_eq!(case.status.active[0].name, "nightly-29925250");
    assert_eq!(case.status.last_schedule_time, Some(at("2026-11-24T10:10:00Z")));
    case.end("10:10", true);
    assert_eq!(case.pass("2026-11-24T10:20:01Z"), ["10:20"]);
    assert_eq!(case.reason(), "Scheduled");
}

#[test]
fn what_was_missed_is_made_up_for_within_the_window_alone() {
    let mut long = case("concurrencyPolicy: AllowAll, catchUpWindow: 25m");
    long.pass("2026-11-24T10:00:05Z");
    assert_eq!(long.pass("2026-11-24T12:01:00Z"), ["11:40", "11:50", "12:00"]);
    assert_eq!(long.status.missed, 9);
    let mut short = case("");
    short.pass("2026-11-24T10:00:05Z");
    assert_eq!(short.pass("2026-11-24T12:01:30Z"), NONE);
    assert_eq!(short.status.missed, 12);
    // A year by the minute: counted as far as is cheap.
    let mut year = case("concurrencyPolicy: AllowAll");
    year.spec.schedule = "* * * * *".into();
    year.pass("2026-11-24T10:00:05Z");
    assert_eq!(year.pass("2027-11-24T10:00:30Z"), ["10:00"]);
    assert!(year.status.missed >= 1000);
}

#[test]
fn skip_skips_and_says_how_often() {
    let mut case = case("");
    assert_eq!(case.pass("2026-11-24T10:10:00Z"), ["10:10"]);
    assert_eq!(case.pass("2026-11-24T10:20:00Z"), NONE);
    assert_eq!(case.status.skipped, 1);
    case.end("10:10", true);
    assert_eq!(case.pass("2026-11-24T10:21:00Z"), NONE, "what was skipped is over");
    assert_eq!(case.pass("2026-11-24T10:30:00Z"), ["10:30"]);
}

#[test]
fn buffer_one_keeps_the_first_and_buffer_all_every_one() {
    let mut one = case("concurrencyPolicy: BufferOne");
    let mut all = case("concurrencyPolicy: BufferAll");
    for case in [&mut one, &mut all] {
        for minute in [10, 20, 30, 40] {
            case.pass(&format!("2026-11-24T10:{minute}:00Z"));
        }
    }
    assert_eq!(one.waiting(), ["10:20"]);
    assert_eq!(one.status.skipped, 2);
    assert_eq!(all.waiting(), ["10:20", "10:30", "10:40"]);
    assert_eq!(all.status.skipped, 0);
    one.end("10:10", false);
    assert_eq!(one.pass("2026-11-24T10:45:00Z"), ["10:20"]);
    assert_eq!(one.waiting(), NONE);
    for (ended, next) in [("10:10", "10:20"), ("10:20", "10:30"), ("10:30", "10:40")] {
        all.end(ended, true);
        assert_eq!(all.pass("2026-11-24T10:45:00Z"), [next]);
    }
}

#[test]
fn cancel_other_starts_the_newest_once_the_other_has_ended() {
    let mut case = case("concurrencyPolicy: CancelOther");
    case.pass("2026-11-24T10:10:00Z");
    assert_eq!(case.pass("2026-11-24T10:20:00Z"), NONE);
    assert!(case.children[0].cancelled);
    assert_eq!(case.pass("2026-11-24T10:30:00Z"), NONE);
    assert_eq!((case.waiting(), case.status.skipped), (vec!["10:30".to_owned()], 1));
    case.end("10:10", false);
    assert_eq!(case.pass("2026-11-24T10:31:00Z"), ["10:30"]);
}

#[test]
fn allow_all_runs_them_side_by_side() {
    let mut case = case("concurrencyPolicy: AllowAll");
    case.pass("2026-11-24T10:10:00Z");
    assert_eq!(case.pass("2026-11-24T10:20:00Z"), ["10:20"]);
    assert_eq!(case.status.active.len(), 2);
}

#[test]
fn what_waits_longer_than_its_deadline_is_missed() {
    let mut case = case("concurrencyPolicy: BufferOne, startDeadline: 5m");
    let started = case.plan("2026-11-24T10:10:00Z").start;
    assert_eq!(started[0].deadline, Some(at("2026-11-24T10:15:00Z")));
    case.pass("2026-11-24T10:10:00Z");
    case.pass("2026-11-24T10:20:00Z");
    assert_eq!(case.waiting(), ["10:20"]);
    assert_eq!(case.wake, Some(at("2026-11-24T10:25:00.001Z")));
    assert_eq!(case.pass("2026-11-24T10:25:00.001Z"), NONE);
    assert_eq!((case.waiting().len(), case.status.missed), (0, 1));
}

#[test]
fn what_is_due_while_it_is_paused_is_not_made_up_for() {
    let mut case = case("catchUpWindow: 24h, paused: true, note: holidays");
    assert_eq!(case.pass("2026-11-24T10:15:00Z"), NONE);
    assert_eq!((case.reason(), case.wake), ("Paused", None));
    case.spec.paused = None;
    assert_eq!(case.pass("2026-11-24T11:05:00Z"), NONE);
    assert_eq!(case.status.missed, 0);
    assert_eq!(case.pass("2026-11-24T11:10:00Z"), ["11:10"]);
}

const DAY_BEFORE: &str = "{from: '2026-11-23T10:00:00Z', to: '2026-11-23T10:00:00Z'}";

#[test]
fn what_is_due_while_it_is_paused_or_invalid_is_over_whatever_is_said_meanwhile() {
    let mut case = case(&format!("catchUpWindow: 24h, backfill: [{DAY_BEFORE}]"));
    let backfill = std::mem::take(&mut case.spec.backfill);
    assert_eq!(case.pass("2026-11-24T10:05:00Z"), NONE);

    // A backfill is refused from the first pass on.
    case.spec.paused = Some(true);
    case.spec.backfill.clone_from(&backfill);
    case.is_refused("2026-11-24T10:06:00Z");
    let said = case.status.clone();
    case.is_refused("2026-11-24T10:36:00Z");
    assert_eq!(case.status, said, "nothing is written for what is due meanwhile");
    case.spec.paused = None;
    case.spec.backfill.clear();
    assert_eq!(case.pass("2026-11-24T11:05:00Z"), NONE);

    // It is refused after the pause, too.
    case.spec.paused = Some(true);
    assert_eq!(case.pass("2026-11-24T11:06:00Z"), NONE);
    case.spec.paused = None;
    case.spec.backfill = backfill;
    case.is_refused("2026-11-24T11:35:00Z");
    case.spec.backfill.clear();
    assert_eq!(case.pass("2026-11-24T11:41:00Z"), ["11:40"]);
    case.end("11:40", true);

    // Invalid, paused, and then right and no longer paused at once; or just invalid.
    for (hour, paused) in [(12, Some(true)), (13, None)] {
        case.spec.time_zone = Some("Mars/Base".into());
        assert_eq!(case.pass(&format!("2026-11-24T{hour}:05:00Z")), NONE);
        case.spec.paused = paused;
        assert_eq!(case.pass(&format!("2026-11-24T{hour}:15:00Z")), NONE);
        assert_eq!(case.reason(), "Invalid");
        case.spec.time_zone = None;
        case.spec.paused = None;
        assert_eq!(case.pass(&format!("2026-11-24T{hour}:45:00Z")), NONE);
        assert_eq!(case.pass(&format!("2026-11-24T{hour}:50:00Z")), [format!("{hour}:50")]);
        case.end(&format!("{hour}:50"), true);
        assert_eq!(case.pass(&format!("2026-11-24T{hour}:51:00Z")), NONE);
    }
    assert_eq!(case.status.missed, 0);
}

#[test]
fn what_is_due_while_another_is_refused_is_made_up_for_also_under_another_schedule() {
    let mut case = case(&format!(
        "concurrencyPolicy: AllowAll, catchUpWindow: 24h, backfill: [{DAY_BEFORE}]"
    ));
    let backfill = std::mem::take(&mut case.spec.backfill);
    assert_eq!(case.pass("2026-11-24T10:05:00Z"), NONE);
    case.spec.schedule = "*/15 * * * *".into();
    case.spec.backfill = backfill;
    case.is_refused("2026-11-24T10:14:00Z");
    case.is_refused("2026-11-24T10:16:00Z");
    assert_eq!(case.pass("2026-11-24T10:17:00Z"), ["10:15", "10:00"]);
}

#[test]
fn another_schedule_begins_when_it_is_seen() {
    let mut case = case("catchUpWindow: 24h");
    case.pass("2026-11-24T10:10:00Z");
    case.end("10:10", true);
    case.spec.schedule = "*/15 * * * *".into();
    assert_eq!(case.pass("2026-11-24T10:16:00Z"), NONE);
    assert_eq!(case.pass("2026-11-24T10:30:00Z"), ["10:30"]);
}

#[test]
fn a_backfill_runs_each_due_time_of_its_range_once_and_one_after_the_other() {
    let backfill = "{from: '2026-11-23T09:50:00Z', to: '2026-11-23T10:10:00Z'}";
    let mut one = case(&format!("paused: true, backfill: [{backfill}]"));
    for (due, next) in [("", "09:50"), ("09:50", "10:00"), ("10:00", "10:10")] {
        if !due.is_empty() {
            one.end(due, true);
        }
        assert_eq!(one.pass("2026-11-24T10:00:01Z"), [next], "also while it is paused");
    }
    one.end("10:10", true);
    assert_eq!(one.pass("2026-11-24T10:00:02Z"), NONE);
    assert!(one.status.backfills[0].done);
    assert_eq!(one.status.backfills[0].started, 3);
    let mut all = case(&format!("concurrencyPolicy: AllowAll, backfill: [{backfill}]"));
    assert_eq!(all.pass("2026-11-24T10:00:01Z"), ["09:50", "10:00", "10:10"]);
    // What is still to come is run when it is due.
    let mut future = case("backfill: [{from: '2026-11-24T09:50:00Z', to: '2026-11-24T10:30:00Z'}]");
    assert_eq!(future.pass("2026-11-24T10:00:01Z"), ["09:50"]);
    future.end("09:50", true);
    assert_eq!(future.pass("2026-11-24T10:00:02Z"), ["10:00"]);
    future.end("10:00", true);
    assert_eq!(future.pass("2026-11-24T10:00:03Z"), NONE);
    assert!(future.status.backfills[0].done);
    assert_eq!(future.pass("2026-11-24T10:10:00Z"), ["10:10"]);
}

#[test]
fn the_newest_that_ended_are_kept_and_nothing_goes_that_is_not_recorded() {
    let mut case = case("successfulHistoryLimit: 2, failedHistoryLimit: 1");
    for (minute, succeeded) in [(10, true), (20, false), (30, true), (40, false), (50, true)] {
        case.pass(&format!("2026-11-24T10:{minute}:00Z"));
        case.end(&format!("10:{minute}"), succeeded);
    }
    case.pass("2026-11-24T10:51:00Z");
    let kept: Vec<_> = case
        .children
        .iter()
        .map(|c| c.due.to_string()[11..16].to_owned())
        .collect();
    assert_eq!(kept, ["10:30", "10:40", "10:50"]);
    // Created by a process that died before it could say so, and ended since: it is not deleted before it is recorded.
    let mut lost = self::case("successfulHistoryLimit: 0");
    lost.pass("2026-11-24T10:00:01Z");
    let unrecorded = Child {
        name: "nightly-29925250".into(),
        uid: "29925250".into(),
        due: at("2026-11-24T10:10:00Z"),
        ended: Some(true),
        cancelled: false,
    };
    lost.children.push(unrecorded);
    assert_eq!(lost.plan("2026-11-24T10:09:59Z").delete, Vec::<String>::new());
    assert_eq!(lost.pass("2026-11-24T10:10:01Z"), NONE);
    assert_eq!((lost.deleted, lost.status.missed), (1, 0));
}

#[test]
fn what_can_not_run_says_so_before_it_is_due() {
    for (fields, message) in [
        ("timeZone: Mars/Base", "spec.timeZone: there is no time zone"),
        ("note: x", ""),
    ] {
        let mut case = case(fields);
        if message.is_empty() {
            case.spec.operation.spec.steps[0].when = Some("steps.nothing".into());
        }
        assert_eq!(case.pass("2026-11-24T10:10:00Z"), NONE);
        assert_eq!(case.reason(), "Invalid");
        let said = &case.status.conditions[0].message;
        assert!(
            said.starts_with(if message.is_empty() {
                "spec.operation.spec.steps[0].when: "
            } else {
                message
            }),
            "{said}"
        );
        // Once it is right, it begins from there.
        case.spec.time_zone = None;
        case.spec.operation.spec.steps[0].when = None;
        assert_eq!(case.pass("2026-11-24T10:15:00Z"), NONE);
        assert_eq!(case.pass("2026-11-24T10:20:00Z"), ["10:20"]);
    }
}

fn started(due: &str) -> Child {
    let due = at(due);
    Child {
        name: operation_name("nightly", due),
        uid: due.to_string(),
        due,
        ended: None,
        cancelled: false,
    }
}

#[test]
fn what_a_process_started_that_died_before_it_could_say_so_is_found() {
    let mut waits = case("concurrencyPolicy: BufferOne");
    for minute in [10, 20] {
        waits.pass(&format!("2026-11-24T10:{minute}:00Z"));
    }
    waits.end("10:10", true);
    waits.children.push(started("2026-11-24T10:20:00Z"));
    assert_eq!(waits.pass("2026-11-24T10:21:00Z"), NONE);
    assert_eq!(waits.waiting(), NONE);
    assert_eq!(waits.status.last_schedule_time, Some(at("2026-11-24T10:20:00Z")));
    let mut backfill = case("backfill: [{from: '2026-11-23T09:50:00Z', to: '2026-11-23T10:00:00Z'}]");
    backfill.children.push(started("2026-11-23T09:50:00Z"));
    assert_eq!(backfill.pass("2026-11-24T10:00:01Z"), NONE, "it runs");
    backfill.end("09:50", true);
    assert_eq!(backfill.pass("2026-11-24T10:00:02Z"), ["10:00"]);
    assert_eq!(backfill.status.backfills[0].started, 2);
}

#[test]
fn what_is_seen_after_its_deadline_is_missed_though_the_window_would_do() {
    let mut case = case("catchUpWindow: 1h, startDeadline: 5m");
    case.pass("2026-11-24T10:00:05Z");
    assert_eq!(case.pass("2026-11-24T10:16:00Z"), NONE);
    assert_eq!(case.status.missed, 1);
}

impl Case {
    /// Brings the schedule to say this.
    fn becomes(&mut self, readiness: Readiness, now: &str) {
        self.spec.paused = (readiness == Readiness::Paused).then_some(true);
        self.spec.time_zone = (readiness == Readiness::Invalid).then(|| "Mars/Base".into());
        self.restored = readiness == Readiness::Restored;
        if self.restored {
            self.status.observed_generation = None; // as it is restored
        }
        let range = "{from: '2026-11-23T10:01:00Z', to: '2026-11-23T10:02:00Z'}"; // nothing is due in it
        let range = self.restored.then(|| serde_yaml::from_str(range).unwrap());
        self.spec.backfill = range.into_iter().collect();
        if readiness == Readiness::Refused {
            self.is_refused(now);
        } else {
            self.pass(now);
        }
        assert_eq!(self.reason(), readiness.to_string());
    }

    /// The API server refuses what is to be started.
    fn is_refused(&mut self, now: &str) {
        assert_eq!(self.is_refused_after(0, now), NONE);
    }
}

/// A quota that counts objects takes two more, each time that two are gone.
#[test]
fn what_was_created_before_one_is_refused_is_recorded_and_never_run_again() {
    let backfill = "{from: '2026-11-23T09:50:00Z', to: '2026-11-23T10:30:00Z'}";
    let mut case = case(&format!(
        "concurrencyPolicy: AllowAll, catchUpWindow: 24h, successfulHistoryLimit: 0, backfill: [{backfill}]"
    ));
    let mut run = vec![];
    for _ in 0..3 {
        let started = case.is_refused_after(2, "2026-11-24T10:25:00Z");
        assert_eq!(started.len(), 2);
        assert_eq!(
            (case.reason(), case.wake),
            ("Refused", Some(at("2026-11-24T10:25:10Z")))
        );
        for due in &started {
            case.end(due, true);
        }
        run.extend(started);
        // The schedule itself makes room: what was recorded may go.
        let kept = case.children.len();
        case.is_refused("2026-11-24T10:25:20Z");
        assert_eq!(case.children.len(), kept - 2);
    }
    run.extend(case.pass("2026-11-24T10:25:30Z"));
    assert_eq!(run, ["10:10", "10:20", "09:50", "10:00", "10:10", "10:20", "10:30"]);
}

#[test]
fn a_backfill_waits_for_a_person_where_a_restore_took_the_status() {
    let mut case = case(&format!("backfill: [{DAY_BEFORE}]"));
    case.restored = true;
    assert_eq!(case.pass("2026-11-24T10:10:00Z"), ["10:10"], "its due times go on");
    case.end("10:10", true);
    assert_eq!(case.pass("2026-11-24T10:11:00Z"), NONE);
    assert_eq!(case.reason(), "Restored");
    let said = &case.status.conditions[0].message;
    assert!(said.contains("Remove the label velero.io/restore-name"), "{said}");
    case.restored = false;
    assert_eq!(case.pass("2026-11-24T10:12:00Z"), ["10:00"]);
    // One whose status came back, too, goes on; and one that is added later is new.
    case.restored = true;
    case.end("10:00", true);
    assert_eq!(case.pass("2026-11-24T10:13:00Z"), NONE);
    assert_eq!((case.reason(), case.status.backfills[0].done), ("Scheduled", true));
    let later = "{from: '2026-11-23T11:00:00Z', to: '2026-11-23T11:00:00Z'}";
    case.spec.backfill.push(serde_yaml::from_str(later).unwrap());
    assert_eq!(case.pass("2026-11-24T10:14:00Z"), ["11:00"]);
}

#[test]
fn whatever_a_schedule_says_it_may_come_to_say_anything_else() {
    let all = || Readiness::ALL.into_iter();
    for from in std::iter::once(None).chain(all().map(Some)) {
        for to in all().filter(|to| from != Some(*to)) {
            let mut case = case("");
            if let Some(from) = from {
                case.becomes(from, "2026-11-24T10:00:05Z");
            }
            case.becomes(to, "2026-11-24T10:00:10Z");
            // And what is due once all is well is started.
            case.becomes(Readiness::Scheduled, "2026-11-24T10:00:15Z");
            assert_eq!(case.pass("2026-11-24T10:10:00Z"), ["10:10"], "{from:?}, {to}");
        }
    }
}

/// While it is paused, or as it goes on, something else is wrong: what it starts is refused, or its spec can't run. The status
/// says that, and not that it is paused.
#[test]
fn what_is_due_while_it_is_paused_is_not_made_up_for_though_its_status_says_something_else() {
    for wrong in [Readiness::Refused, Readiness::Invalid] {
        for (seen_before, seen_paused, still_paused) in [
            (true, true, true),
            (true, true, false),
            (true, false, true),
            (false, false, true),
        ] {
            let mut case = case("catchUpWindow: 24h");
            if seen_before {
                case.pass("2026-11-24T10:00:05Z");
            }
            case.spec.paused = Some(true);
            if seen_paused {
                case.pass("2026-11-24T10:05:00Z");
            }
            case.spec.paused = still_paused.then_some(true);
            if wrong == Readiness::Refused {
                case.is_refused("2026-11-24T10:55:00Z");
            } else {
                case.spec.operation.spec.steps[0].when = Some("steps.nothing".into());
                case.pass("2026-11-24T10:55:00Z");
            }
            assert_eq!(case.reason(), wrong.to_string());
            case.spec.paused = None;
            case.spec.operation.spec.steps[0].when = None;
            // What is refused since it goes on is made up for.
            let due = (wrong == Readiness::Refused && !still_paused).then(|| "11:00".to_owned());
            let due: Vec<_> = due.into_iter().collect();
            assert_eq!(
                case.pass("2026-11-24T11:05:00Z"),
                due,
                "{wrong}, {seen_before}, {seen_paused}"
            );
            assert_eq!(case.status.missed, 0);
            case.children.clear();
            assert_eq!(case.pass("2026-11-24T11:10:00Z"), ["11:10"]);
        }
    }
}

/// What takes every transition, for the report.
pub fn all_transitions() {
    each_due_time_is_started_once_and_it_sleeps_until_the_next();
    what_was_missed_is_made_up_for_within_the_window_alone();
    buffer_one_keeps_the_first_and_buffer_all_every_one();
    cancel_other_starts_the_newest_once_the_other_has_ended();
    what_waits_longer_than_its_deadline_is_missed();
    a_backfill_runs_each_due_time_of_its_range_once_and_one_after_the_other();
    the_newest_that_ended_are_kept_and_nothing_goes_that_is_not_recorded();
    what_a_process_started_that_died_before_it_could_say_so_is_found();
    what_is_seen_after_its_deadline_is_missed_though_the_window_would_do();
    whatever_a_schedule_says_it_may_come_to_say_anything_else();
}
