//! An operation as a tree of its steps.

use std::collections::BTreeMap;

use anstyle::Style;
use kube::ResourceExt;

use super::output::{BAD, BOLD, BUSY, FAINT, GOOD, PLAIN, WARN, paint};
use super::table::{one_line, padded, width};
use super::times;
use crate::api::{CloudOperation, OnFailure, OperationState, OperationStatus, Step, StepState, StepStatus, Time};
use crate::engine::{Role, Workflow};

/// A line of a tree.
pub struct Row {
    depth: usize,
    symbol: &'static str,
    style: Style,
    name: String,
    state: String,
    attempt: String,
    time: String,
    detail: String,
}

impl Row {
    /// A line without attempts and times.
    pub fn new(depth: usize, (symbol, style): (&'static str, Style), name: &str, state: &str, detail: String) -> Self {
        Self {
            depth,
            symbol,
            style,
            name: name.into(),
            state: state.into(),
            attempt: String::new(),
            time: String::new(),
            detail,
        }
    }
}

/// The operation's steps as they are now, as lines for people: at most `width` columns wide, if that is given.
pub fn render(operation: &CloudOperation, now: Time, width: Option<usize>) -> String {
    let mut text = heading(operation, now);
    text.push_str(&rows(&parts(operation, now), width));
    if let Some(output) = operation.status.as_ref().and_then(|status| status.output.as_ref()) {
        let output = serde_json::to_string(output).unwrap_or_default();
        text.push_str(&format!("\n{}\n", wrapped(&output, "output: ", "        ", width)));
    }
    text
}

/// The lines of a tree in its parts, each with its title: at most `width` columns wide, if that is given.
pub fn rows(parts: &[(&str, Vec<Row>)], width: Option<usize>) -> String {
    let mut text = String::new();
    let widths = columns(parts.iter().flat_map(|(_, rows)| rows));
    for (title, rows) in parts {
        if !title.is_empty() {
            text.push_str(&format!("\n{}\n", paint(BOLD, title)));
        }
        for row in rows {
            text.push_str(&line(row, &widths, width));
        }
    }
    text
}

/// What an operation does or how it ended, on its first line; below it what isn't said by one of its steps.
fn heading(operation: &CloudOperation, now: Time) -> String {
    let name = paint(BOLD, &operation.name_any());
    let Some((status, state)) = operation
        .status
        .as_ref()
        .and_then(|status| Some((status, status.state?)))
    else {
        let age = operation.metadata.creation_timestamp.as_ref();
        let age = age
            .map(|at| times::whole(now.since(Time::new(at.0))))
            .unwrap_or_default();
        return format!(
            "{name}  {}\n",
            paint(WARN, &format!("not seen by an operator yet, created {age} ago"))
        );
    };
    let shown = paint(style_of(state), &state.to_string());
    let progress = status.progress.clone().unwrap_or_default();
    let when = match (status.start_time, status.completion_time) {
        (Some(start), Some(end)) => {
            format!(
                "ended {} ago, after {}",
                times::whole(now.since(end)),
                times::short(end.since(start))
            )
        }
        (Some(start), None) => format!("started {} ago", times::whole(now.since(start))),
        _ => String::new(),
    };
    let mut text = format!("{name}  {shown}  {progress}");
    if !when.is_empty() {
        text.push_str(&format!("  {}", paint(FAINT, &when)));
    }
    text.push('\n');
    let by_a_step = status.failure.as_ref().is_some_and(|failure| failure.step.is_some());
    use OperationState::*;
    let own = matches!(
        state,
        Suspended | Restored | Cancelled | TimedOut | Expired | InvalidSpec | SpecChanged
    );
    let before_the_first = !state.is_finished() && status.steps.is_empty();
    let message = one_line(&message_of(status));
    if (own && !by_a_step || before_the_first) && !message.is_empty() {
        text.push_str(&format!("{message}\n"));
    }
    if status.compacted == Some(true) {
        text.push_str("its steps and history were removed, as spec.ttlSecondsAfterFinished says\n");
    }
    text
}

/// The message of the condition `Succeeded`.
pub fn message_of(status: &OperationStatus) -> String {
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Succeeded");
    condition.map(|condition| condition.message.clone()).unwrap_or_default()
}

/// How a state looks.
pub fn style_of(state: OperationState) -> Style {
    use OperationState::*;
    match state {
        Running => BUSY,
        Queued | Waiting => PLAIN,
        AwaitingApproval | BackingOff | Suspended | Restored | Compensating | Cancelled | Expired => WARN,
        Stuck | Failed | TimedOut | InvalidSpec | SpecChanged => BAD,
        Succeeded => GOOD,
    }
}

/// The symbol of a step's state, and how it looks.
pub fn symbol(state: Option<StepState>) -> (&'static str, Style) {
    use StepState::*;
    match state {
        None => ("○", FAINT),
        Some(Running) => ("●", BUSY),
        Some(Waiting) => ("…", BUSY),
        Some(BackingOff) => ("↻", WARN),
        Some(Undecided) => ("?", BAD),
        Some(Cancelling) => ("■", WARN),
        Some(Succeeded) => ("✓", GOOD),
        Some(Skipped) => ("–", FAINT),
        Some(Failed) => ("✗", BAD),
        Some(TimedOut) => ("✗", BAD),
        Some(Cancelled) => ("■", WARN),
    }
}

/// The steps in their parts, each with its title.
fn parts(operation: &CloudOperation, now: Time) -> Vec<(&'static str, Vec<Row>)> {
    let spec = &operation.spec;
    let empty = OperationStatus::default();
    let status = operation.status.as_ref().unwrap_or(&empty);
    let workflow = Workflow::compile(spec).ok();
    let mut entries = Entries::new(status);
    let view = View {
        status,
        now,
        workflow: workflow.as_ref(),
    };

    let mut steps = vec![];
    for step in &spec.steps {
        view.add(&mut steps, &mut entries, step, &step.name, 0);
    }
    let mut finally = vec![];
    for step in &spec.finally {
        view.add(&mut finally, &mut entries, step, &step.name, 0);
    }
    // In the order in which they were undone, then those that are still to be.
    let mut undo = vec![];
    let mut others = vec![];
    let plain = Step::default();
    // The steps of a template are not in the spec.
    let of_template = spec.steps.is_empty();
    for step in entries.rest() {
        let row = view.row(0, &step.name, Some(step), &plain);
        if step.name.contains(":undo") {
            undo.push(row)
        } else if of_template {
            steps.push(row)
        } else {
            others.push(row)
        }
    }
    if status.state == Some(OperationState::Compensating) {
        undo.extend(view.still_to_undo().map(|name| view.row(0, &name, None, &plain)));
    }
    let mut parts = vec![("", steps)];
    for (title, rows) in [("undo", undo), ("finally", finally), ("of another version", others)] {
        if !rows.is_empty() {
            parts.push((title, rows));
        }
    }
    parts
}

/// The journal's entries, by the step that each is about.
struct Entries<'a> {
    by_step: BTreeMap<&'a str, Vec<&'a StepStatus>>,
    order: Vec<&'a StepStatus>,
}

impl<'a> Entries<'a> {
    fn new(status: &'a OperationStatus) -> Self {
        let mut by_step: BTreeMap<&str, Vec<&StepStatus>> = BTreeMap::new();
        for entry in &status.steps {
            let step = if entry.name.contains(":undo") {
                entry.name.as_str()
            } else {
                item_of(&entry.name).0
            };
            by_step.entry(step).or_default().push(entry);
        }
        Self {
            by_step,
            order: status.steps.iter().collect(),
        }
    }

    /// The entry of a step first, then those of its items by their index.
    fn take(&mut self, step: &str) -> Vec<&'a StepStatus> {
        let mut entries = self.by_step.remove(step).unwrap_or_default();
        entries.sort_by_key(|entry| item_of(&entry.name).1);
        entries
    }

    fn has(&self, step: &str) -> bool {
        self.by_step.contains_key(step)
    }

    /// What was not taken, in the journal's order.
    fn rest(&self) -> impl Iterator<Item = &'a StepStatus> {
        let left: Vec<&str> = self
            .by_step
            .values()
            .flatten()
            .map(|entry| entry.name.as_str())
            .collect();
        self.order
            .iter()
            .copied()
            .filter(move |entry| left.contains(&entry.name.as_str()))
    }
}

/// The step of an item's name, and the item's index.
fn item_of(name: &str) -> (&str, Option<u64>) {
    let item = name.strip_suffix(']').and_then(|name| name.split_once('['));
    match item.and_then(|(step, index)| Some((step, index.parse().ok()?))) {
        Some((step, index)) => (step, Some(index)),
        None => (name, None),
    }
}

struct View<'a> {
    status: &'a OperationStatus,
    now: Time,
    workflow: Option<&'a Workflow>,
}

impl View<'_> {
    /// Adds a step by its path, with its items, and the steps of its group.
    fn add(&self, rows: &mut Vec<Row>, entries: &mut Entries, step: &Step, path: &str, depth: usize) {
        let taken = entries.take(path);
        let own = taken.iter().find(|entry| entry.name == path);
        rows.push(self.row(depth, path, own.copied(), step));
        if step.for_each.is_none() {
            for member in &step.steps {
                self.add(rows, entries, member, &format!("{path}/{}", member.name), depth + 1);
            }
        }
        for item in taken.iter().filter(|entry| entry.name != path) {
            rows.push(self.row(depth + 1, &item.name, Some(item), step));
            for member in &step.steps {
                let path = format!("{}/{}", item.name, member.name);
                if entries.has(&path) {
                    self.add(rows, entries, member, &path, depth + 2);
                }
            }
        }
    }

    fn row(&self, depth: usize, name: &str, entry: Option<&StepStatus>, step: &Step) -> Row {
        let (symbol, style) = symbol(entry.map(|entry| entry.state));
        let Some(entry) = entry else {
            let ended = self.status.state.is_some_and(OperationState::is_finished);
            return Row {
                depth,
                symbol,
                style,
                name: name.into(),
                state: if ended { "not run" } else { "not started" }.into(),
                attempt: String::new(),
                time: String::new(),
                detail: if ended { String::new() } else { self.needs(name) },
            };
        };
        Row {
            depth,
            symbol,
            style,
            name: name.into(),
            state: format!("{:?}", entry.state),
            attempt: if entry.attempt > 0 {
                format!("#{}", entry.attempt)
            } else {
                String::new()
            },
            time: match entry.end_time {
                Some(end) => times::short(end.since(entry.start_time)),
                None => times::whole(self.now.since(entry.start_time)),
            },
            detail: one_line(&detail(entry, step, self.now)),
        }
    }

    /// What a step that has not started waits for.
    fn needs(&self, name: &str) -> String {
        let Some(workflow) = self.workflow else {
            return String::new();
        };
        let Some(flow) = workflow.step(name).filter(|flow| flow.role == Role::Main) else {
            return String::new();
        };
        let done = |name: &str| {
            let entry = self.status.steps.iter().find(|entry| entry.name == name);
            entry.is_some_and(|entry| entry.state.satisfies())
        };
        let open: Vec<_> = flow
            .needs
            .iter()
            .map(|need| &workflow.steps[*need])
            .filter(|need| !done(&need.name))
            .collect();
        // What another one that it waits for waits for as well goes without saying.
        let direct = open.iter().filter(|need| {
            let position = workflow.steps.iter().position(|step| step.name == need.name);
            position.is_some_and(|position| !open.iter().any(|other| other.ancestors.contains(&position)))
        });
        let direct: Vec<&str> = direct.map(|need| need.name.as_str()).collect();
        if direct.is_empty() {
            String::new()
        } else {
            format!("after {}", direct.join(", "))
        }
    }

    fn still_to_undo(&self) -> impl Iterator<Item = String> {
        let steps = self.workflow.map(|workflow| &workflow.steps[..]).unwrap_or_default();
        let entry = |name: &str| self.status.steps.iter().find(|entry| entry.name == name);
        let mut names: Vec<_> = steps
            .iter()
            .filter_map(|flow| {
                let undo = &steps[flow.undo?].name;
                let done = entry(&flow.name).filter(|e| e.state == StepState::Succeeded || e.maybe_done)?;
                entry(undo).is_none().then(|| (done.end_seq, undo.clone()))
            })
            .collect();
        names.sort_by_key(|(end, _)| std::cmp::Reverse(*end));
        names.into_iter().map(|(_, name)| name)
    }
}

/// What a step waits for, or why it ended as it did.
fn detail(entry: &StepStatus, step: &Step, now: Time) -> String {
    let failed = entry
        .failure
        .as_ref()
        .map(|failure| format!("{}: {}", failure.reason, failure.message));
    let said = entry.message.clone().unwrap_or_default();
    let failure = failed.clone().unwrap_or_else(|| said.clone());
    use StepState::*;
    let text = match entry.state {
        Succeeded | Skipped | Cancelled => said,
        Running => failed.map(|failed| format!("before it: {failed}")).unwrap_or(said),
        Waiting => match entry.next_attempt_time {
            Some(at) if at > now => format!("{said} ({} left)", times::whole(at.since(now))),
            _ => said,
        },
        BackingOff => match entry.next_attempt_time {
            Some(at) => format!("next attempt {}: {failure}", times::ahead(at, now)),
            None => failure,
        },
        Undecided => format!("needs a person: {failure}"),
        Cancelling => {
            let told: Vec<String> = [said, failed.unwrap_or_default()]
                .into_iter()
                .filter(|told| !told.is_empty())
                .collect();
            let why = if told.is_empty() { "" } else { ": " };
            format!("is being stopped{why}{}", told.join("; "))
        }
        Failed | TimedOut => match step.on_failure {
            Some(OnFailure::Continue) => format!("{failure} (onFailure: Continue)"),
            _ => failure,
        },
    };
    match entry.maybe_done && !matches!(entry.state, Succeeded | Skipped) {
        true => format!("[maybe done] {text}"),
        false => text,
    }
}

struct Columns {
    name: usize,
    state: usize,
    attempt: usize,
    time: usize,
}

fn columns<'a>(rows: impl Iterator<Item = &'a Row>) -> Columns {
    let mut widths = Columns {
        name: 0,
        state: 0,
        attempt: 0,
        time: 0,
    };
    for row in rows {
        widths.name = widths.name.max(width(&row.name) + 2 * row.depth);
        widths.state = widths.state.max(width(&row.state));
        widths.attempt = widths.attempt.max(width(&row.attempt));
        widths.time = widths.time.max(width(&row.time));
    }
    widths
}

fn line(row: &Row, widths: &Columns, most: Option<usize>) -> String {
    let indent = "  ".repeat(row.depth);
    let name = padded(&row.name, widths.name - indent.len());
    let mut head = format!("{indent}{} {name}", paint(row.style, row.symbol));
    let mut blanks = 2;
    let columns = [
        (&row.state, row.style, widths.state),
        (&row.attempt, PLAIN, widths.attempt),
        (&row.time, FAINT, widths.time),
    ];
    for (text, style, columns) in columns {
        if !text.is_empty() {
            head.push_str(&" ".repeat(blanks));
            head.push_str(&paint(style, text));
            blanks = 0;
        }
        if columns > 0 {
            blanks += columns - width(text) + 2;
        }
    }
    let gap = " ".repeat(blanks);
    if row.detail.is_empty() {
        return format!("{}\n", head.trim_end());
    }
    let columns = [widths.name, widths.state, widths.attempt, widths.time];
    let used = 2 + columns
        .iter()
        .filter(|columns| **columns > 0)
        .map(|columns| columns + 2)
        .sum::<usize>();
    let Some(most) = most else {
        return format!("{head}{gap}{}\n", row.detail);
    };
    // A narrow terminal has the detail below.
    if most < used + 30 {
        return format!(
            "{}\n{}\n",
            head.trim_end(),
            wrapped(&row.detail, "    ", "    ", Some(most))
        );
    }
    let hang = " ".repeat(used);
    let text = wrapped(&row.detail, "", "", Some(most - used)).replace('\n', &format!("\n{hang}"));
    format!("{head}{gap}{text}\n")
}

/// The text, broken between words, where a width is given.
pub fn wrapped(text: &str, first: &str, next: &str, most: Option<usize>) -> String {
    match most {
        None => format!("{first}{text}"),
        Some(most) => textwrap::fill(
            text,
            textwrap::Options::new(most)
                .initial_indent(first)
                .subsequent_indent(next),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, operation};
    use super::*;

    fn shown(operation: &CloudOperation, width: Option<usize>) -> String {
        let text = render(operation, at("2026-11-24T03:05:00Z"), width);
        let text = anstream::adapter::strip_str(&text).to_string();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_is_done_what_struggles_and_what_is_to_come() {
        let operation = operation(
            "resize",
            r"
            steps:
            - {name: describe, http: {url: 'http://a/'}}
            - {name: resize, http: {url: 'http://a/'}}
            - {name: check, http: {url: 'http://a/'}}
            finally:
            - {name: tell, http: {url: 'http://a/'}}
            ",
            r"
            state: BackingOff
            progress: 1/3
            startTime: '2026-11-24T03:00:00.000Z'
            steps:
            - {name: describe, type: Http, state: Succeeded, attempt: 1, startSeq: 2, endSeq: 3, startTime: '2026-11-24T03:00:00.000Z', endTime: '2026-11-24T03:00:00.120Z'}
            - {name: resize, type: Http, state: BackingOff, attempt: 3, startSeq: 4, maybeDone: true, startTime: '2026-11-24T03:00:00.120Z', nextAttemptTime: '2026-11-24T03:05:40.000Z', failure: {reason: HttpStatus, message: '503 Service Unavailable'}}
            ",
        );
        assert_eq!(
            shown(&operation, None),
            "\
resize  BackingOff  1/3  started 5m ago
✓ describe  Succeeded    #1  120ms
↻ resize    BackingOff   #3  4m59s  [maybe done] next attempt in 40s, at 03:05:40Z: HttpStatus: 503 Service Unavailable
○ check     not started             after resize

finally
○ tell      not started"
        );
    }

    #[test]
    fn items_stand_below_their_step_and_what_is_undone_has_a_part_of_its_own() {
        let operation = operation(
            "roll",
            r"
            failurePolicy: Compensate
            steps:
            - {name: plan, http: {url: 'http://a/'}, compensate: {http: {url: 'http://a/'}}}
            - {name: buy, http: {url: 'http://a/'}, compensate: {http: {url: 'http://a/'}}}
            - {name: deploy, forEach: '[1, 2, 3]', http: {url: 'http://a/'}}
            - {name: last, http: {url: 'http://a/'}}
            ",
            r"
            state: Compensating
            progress: 3/4
            startTime: '2026-11-24T03:00:00.000Z'
            failure: {reason: HttpStatus, message: 'item 2: 400', step: deploy}
            steps:
            - {name: plan, type: Http, state: Succeeded, attempt: 1, startSeq: 2, endSeq: 3, startTime: '2026-11-24T03:00:00.000Z', endTime: '2026-11-24T03:00:01.000Z'}
            - {name: buy, type: Http, state: Succeeded, attempt: 1, startSeq: 4, endSeq: 5, startTime: '2026-11-24T03:00:00.000Z', endTime: '2026-11-24T03:00:01.000Z'}
            - {name: deploy, type: Http, state: Failed, startSeq: 6, endSeq: 9, startTime: '2026-11-24T03:00:01.000Z', endTime: '2026-11-24T03:00:03.000Z', items: {total: 3, next: 3}, failure: {reason: HttpStatus, message: 'item 2: 400'}}
            - {name: 'deploy[2]', type: Http, state: Failed, attempt: 1, startSeq: 8, endSeq: 9, startTime: '2026-11-24T03:00:02.000Z', endTime: '2026-11-24T03:00:03.000Z', failure: {reason: HttpStatus, message: '400'}}
            - {name: 'buy:undo', type: Http, state: Running, attempt: 1, startSeq: 10, startTime: '2026-11-24T03:04:58.000Z'}
            ",
        );
        assert_eq!(
            shown(&operation, None),
            "\
roll  Compensating  3/4  started 5m ago
✓ plan         Succeeded    #1  1.0s
✓ buy          Succeeded    #1  1.0s
✗ deploy       Failed           2.0s  HttpStatus: item 2: 400
  ✗ deploy[2]  Failed       #1  1.0s  HttpStatus: 400
○ last         not started            after deploy

undo
● buy:undo     Running      #1  2s
○ plan:undo    not started"
        );
    }

    #[test]
    fn groups_have_their_steps_below_them() {
        let entry = |name: &str, kind: &str, state: &str| {
            format!(
                "- {{name: '{name}', type: {kind}, state: {state}, startSeq: 1, startTime: '2026-11-24T03:04:00.000Z'}}"
            )
        };
        let entries = [
            entry("zone", "Steps", "Waiting"),
            entry("zone/make", "Set", "Succeeded"),
            entry("each", "Steps", "Waiting").replace("startSeq", "items: {total: 5, next: 3}, startSeq"),
            entry("each[2]", "Steps", "Waiting"),
            entry("each[2]/make", "Set", "Succeeded"),
            entry("each[2]/nap", "Wait", "Waiting"),
        ];
        let operation = operation(
            "web",
            "{order: Graph, steps: [
              {name: zone, steps: [{name: make, set: {}}, {name: check, assert: 'true'}]},
              {name: each, forEach: '[1, 2, 3, 4, 5]', steps: [{name: made, set: {}}, {name: nap, wait: {duration: 1h}}]}]}",
            &format!("state: Waiting\nprogress: 0/2\nsteps:\n{}", entries.join("\n").replace("each[2]/make", "each[2]/made")),
        );
        assert_eq!(
            shown(&operation, None),
            "\
web  Waiting  0/2
… zone              Waiting      1m
  ✓ zone/make       Succeeded    1m
  ○ zone/check      not started
… each              Waiting      1m
  … each[2]         Waiting      1m
    ✓ each[2]/made  Succeeded    1m
    … each[2]/nap   Waiting      1m"
        );
    }

    #[test]
    fn on_a_terminal_long_messages_are_broken_between_words() {
        let operation = operation(
            "resize",
            "steps: [{name: ask, approval: {}}]",
            r"
            state: Waiting
            progress: 0/1
            startTime: '2026-11-24T03:04:00.000Z'
            steps:
            - {name: ask, type: Approval, state: Waiting, startSeq: 2, startTime: '2026-11-24T03:04:00.000Z', message: 'waiting for an approval: resize web from 4 to 12 servers'}
            ",
        );
        assert_eq!(
            shown(&operation, Some(60)),
            "\
resize  Waiting  0/1  started 1m ago
… ask  Waiting  1m  waiting for an approval: resize web from
                    4 to 12 servers"
        );
        assert_eq!(
            shown(&operation, Some(40)),
            "\
resize  Waiting  0/1  started 1m ago
… ask  Waiting  1m
    waiting for an approval: resize web
    from 4 to 12 servers"
        );
    }

    #[test]
    fn what_no_operator_has_seen_says_so() {
        let mut operation = operation("new", "steps: [{name: a, set: {}}]", "{}");
        operation.status = None;
        operation.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            at("2026-11-24T03:04:00Z").timestamp(),
        ));
        assert_eq!(
            shown(&operation, None),
            "new  not seen by an operator yet, created 1m ago\n○ a  not started"
        );
    }
}
