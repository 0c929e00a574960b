//! `forEach`: a step for each item of a list.
//!
//! The list has an entry of its own, which waits as long as items are under way. Each item that is under way, or failed,
//! has one too; what is done is folded into the list's, so that a list of thousands keeps the journal small.

use std::collections::BTreeSet;

use super::*;

/// How many items are under way at once by default.
const MAX_PARALLEL: usize = 10;
/// How much room the items that failed may take in a status, those of all lists together, as JSON, in bytes.
const MAX_FAILED: usize = 64 * 1024;

impl Pass<'_> {
    pub(super) fn start_list(&mut self, flow: &WorkflowStep, for_each: &Expression, scope: &Scope) {
        match request::items(flow, for_each, scope) {
            Ok(items) => {
                let message = format!("{} items", items.len());
                self.enter(
                    flow,
                    &flow.name,
                    StepState::Waiting,
                    HistoryEvent::StepWaiting,
                    &message,
                );
                if let Some(step) = self.status.steps.last_mut() {
                    step.items = Some(Items {
                        total: i64::try_from(items.len()).unwrap_or(i64::MAX),
                        ..Items::default()
                    });
                }
            }
            Err(error) => self.enter_failed(flow, &flow.name, INVALID_EXPRESSION, &error.to_string()),
        }
    }

    /// Folds in items that are done, starts others, and ends lists that are through.
    pub(super) fn advance_lists(&mut self, workflow: &Workflow) {
        let lists: Vec<String> = self
            .status
            .steps
            .iter()
            .filter(|s| is_open_list(s))
            .map(|s| s.name.clone())
            .collect();
        for name in lists {
            if let Some(flow) = workflow.step(&name) {
                self.advance_list(workflow, flow);
            }
        }
    }

    fn advance_list(&mut self, workflow: &Workflow, flow: &WorkflowStep) {
        let Some(for_each) = &flow.for_each else { return };
        let scope = self.scope_of_all(workflow, flow, &flow.name);
        let items = scope.and_then(|scope| Ok((request::items(flow, for_each, &scope)?, scope)));
        let Ok((items, scope)) = items else {
            return; // not reached: it could be evaluated when it started, from what doesn't change
        };
        let most = flow
            .spec
            .max_parallel
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(MAX_PARALLEL);
        self.fold(&flow.name);
        let too_many = self.failures_too_large(flow);
        loop {
            self.fold(&flow.name);
            let open = self.items_of(&flow.name).filter(|item| !item.state.is_closed()).count();
            let too_large = self.outputs_too_large(workflow, flow);
            let stops = self.stops_list(flow);
            let full = history::is_full(&self.status) || (open > 0 && self.is_crowded());
            let Some(i) = self.status.steps.iter().position(|s| s.name == flow.name) else {
                return;
            };
            let Some(list) = &mut self.status.steps[i].items else {
                return;
            };
            let next = match list.again.first() {
                Some(index) => *index,
                None => list.next,
            };
            let through = list.again.is_empty() && next >= list.total;
            if open == 0
                && !stops
                && let Some(message) = too_large
            {
                return self.fail(i, "OutputTooLarge", &message);
            }
            if open == 0
                && !stops
                && !through
                && let Some(message) = &too_many
            {
                return self.fail(i, "TooManyFailures", message);
            }
            if open == 0 && (through || stops) {
                let ended = self.items_of(&flow.name).any(|item| item.state == StepState::Cancelled);
                return self.end_list(flow, i, through && !ended && !self.too_many_failed(flow));
            }
            if through || stops || too_large.is_some() || too_many.is_some() || open >= most || full {
                let (done, total) = (list.next - i64::try_from(open).unwrap_or(0), list.total);
                self.status.steps[i].message = Some(format!("{done} of {total} items are done, {open} under way"));
                return;
            }
            if list.again.is_empty() {
                list.next += 1;
            } else {
                list.again.remove(0);
            }
            let index = usize::try_from(next).unwrap_or_default();
            let item = items.get(index).cloned().unwrap_or_default();
            let scope = scope.clone().with("item", item).with("index", json!(index));
            self.start_one(flow, &item_name(&flow.name, index), &scope);
        }
    }

    fn items_of<'s>(&'s self, list: &'s str) -> impl Iterator<Item = &'s StepStatus> {
        let of_list = move |step: &&StepStatus| matches!(split_item(&step.name), (name, Some(_)) if name == list);
        self.status.steps.iter().filter(of_list)
    }

    /// True if more items failed than may.
    pub(super) fn too_many_failed(&self, flow: &WorkflowStep) -> bool {
        let failed = self.items_of(&flow.name).filter(|item| has_failed(item)).count();
        failed
            > flow
                .spec
                .max_failures
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(0)
    }

    /// True if no more items are started: the list ends with what it is in, or by itself.
    pub(super) fn stops_list(&self, flow: &WorkflowStep) -> bool {
        self.ends(flow, &flow.name) || self.too_many_failed(flow)
    }

    /// Why a list can't succeed any more, if it can't: without the outputs of any other item, what its items have recorded is
    /// larger than a list may record.
    fn outputs_too_large(&self, workflow: &Workflow, flow: &WorkflowStep) -> Option<String> {
        let items = self.entry(&flow.name)?.items.as_ref()?;
        if items.outputs.is_empty() {
            return None;
        }
        let recorded = items.outputs.len();
        let outputs: usize = items.outputs.values().map(|output| output.to_string().len()).sum();
        let total = usize::try_from(items.total).unwrap_or_default();
        // As `end_list` puts them together: an item without an output is null.
        let empty = json_size(&Map::from_iter([("items".to_owned(), json!([]))]));
        let size = empty + outputs + total.saturating_sub(recorded) * "null".len() + total.saturating_sub(1);
        // Those that it followed from are there as long as the list is.
        let before = flow
            .ancestors
            .iter()
            .filter_map(|step| self.entry(&workflow.steps[*step].name));
        let before: usize = before.filter_map(|step| step.output.as_ref()).map(json_size).sum();
        (size > MAX_STEP_OUTPUT || before + size > MAX_OUTPUTS).then(|| {
            format!(
                "no other item is started: the outputs of {recorded} of its {total} items make {size} bytes, and those of the steps before it {before}; a step's may have {MAX_STEP_OUTPUT}, all steps' together {MAX_OUTPUTS}; name less in output, or use outputSecret"
            )
        })
    }

    /// Why a list can't go on, if it can't: what is kept of the items that failed, in all lists, has no room for more. What they
    /// said is not counted, as it is cut where there is no room.
    fn failures_too_large(&self, flow: &WorkflowStep) -> Option<String> {
        let failed = self.items_of(&flow.name).filter(|item| has_failed(item)).count();
        if failed == 0 {
            return None;
        }
        let steps = || self.status.steps.iter();
        let items = steps().filter(|step| split_item(&step.name).1.is_some() && has_failed(step));
        let items: BTreeSet<&str> = items.map(|item| item.name.as_str()).collect();
        let of_items = |step: &&StepStatus| {
            items.contains(step.name.as_str()) || group_name(&step.name).is_some_and(|group| items.contains(group))
        };
        let size: usize = steps().filter(of_items).map(size_unsaid).sum();
        (size > MAX_FAILED).then(|| {
            format!(
                "no other item is started: what is kept of those that failed, {failed} of this step, makes {size} bytes, and has room for {MAX_FAILED}"
            )
        })
    }

    /// Takes items that are done out of the journal, and their outputs into the list's.
    fn fold(&mut self, list: &str) {
        let mut outputs = Map::new();
        let mut done = vec![];
        // What a person skipped was not done: without its entry it would be undone.
        let was_skipped = |step: &StepStatus| step.state == StepState::Skipped && !may_be_done(step);
        self.status.steps.retain_mut(|step| match split_item(&step.name) {
            (name, Some(index)) if name == list && step.state.satisfies() && !was_skipped(step) => {
                if let Some(output) = step.output.take() {
                    outputs.insert(index.to_string(), Value::Object(output));
                }
                if step.step_type == StepType::Steps {
                    done.push(step.name.clone());
                }
                false
            }
            _ => true,
        });
        if !done.is_empty() {
            let of_done =
                |step: &StepStatus| group_name(&step.name).is_some_and(|group| done.iter().any(|d| d == group));
            self.status.steps.retain(|step| !of_done(step));
        }
        let entry = self.status.steps.iter_mut().find(|step| step.name == list);
        if let Some(items) = entry.and_then(|entry| entry.items.as_mut()) {
            items.outputs.extend(outputs);
        }
    }

    fn end_list(&mut self, flow: &WorkflowStep, i: usize, succeeded: bool) {
        if succeeded {
            let mut output = None;
            let skipped = self.items_of(&flow.name).filter_map(|item| {
                let index = split_item(&item.name).1?.to_string();
                Some((index, Value::Object(item.output.clone()?)))
            });
            let skipped: Vec<_> = skipped.collect();
            if let Some(list) = &mut self.status.steps[i].items
                && !(list.outputs.is_empty() && skipped.is_empty())
            {
                let mut outputs = std::mem::take(&mut list.outputs);
                outputs.extend(skipped);
                let all = (0..list.total).map(|index| outputs.remove(&index.to_string()).unwrap_or_default());
                output = Some(Map::from_iter([("items".to_owned(), all.collect())]));
            }
            return self.succeed(i, output);
        }
        let failed = self.items_of(&flow.name).find(|item| item.failure.is_some());
        let failed = failed.and_then(|item| Some((split_item(&item.name).1?, item.failure.clone()?)));
        match failed {
            Some((index, Failure { reason, message, .. })) if self.too_many_failed(flow) => {
                self.fail(i, &reason, &format!("item {index}: {message}"));
            }
            _ => self.advance(
                i,
                StepEvent::Cancel,
                HistoryEvent::StepCancelled,
                "before all of its items were done",
            ),
        }
    }
}

fn has_failed(item: &StepStatus) -> bool {
    matches!(item.state, StepState::Failed | StepState::TimedOut)
}

/// The size of an entry but for what it says.
fn size_unsaid(step: &StepStatus) -> usize {
    let failure = step.failure.as_ref().map(|failure| &failure.message);
    let said: usize = [step.message.as_ref(), failure]
        .into_iter()
        .flatten()
        .map(String::len)
        .sum();
    json_size(step).saturating_sub(said)
}

/// True for a list that is not through.
pub(super) fn is_open_list(step: &StepStatus) -> bool {
    step.items.is_some() && step.state == StepState::Waiting
}
