//! The order of steps: what each needs, and what that needs.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{InvalidSpec, WorkflowStep};

/// Fills in the ancestors of the steps of the spec, and refuses cycles.
pub(super) fn resolve_ancestors(steps: &mut [WorkflowStep]) -> Result<(), InvalidSpec> {
    close(steps, 0..steps.len(), &BTreeSet::new()).map_err(|stuck| {
        InvalidSpec::new(
            "spec.steps",
            format!("{stuck} (see needs, and what their expressions read)"),
        )
    })
}

/// Fills in the ancestors of steps in groups, and lets who reads a group read them.
pub(super) fn resolve_members(steps: &mut [WorkflowStep]) -> Result<(), InvalidSpec> {
    let groups: Vec<usize> = (0..steps.len()).filter(|i| !steps[*i].members.is_empty()).collect();
    for group in &groups {
        let WorkflowStep { members, ancestors, .. } = &steps[*group];
        let (members, ancestors) = (members.clone(), ancestors.clone());
        close(steps, members, &ancestors)
            .map_err(|stuck| InvalidSpec::new(format!("{}.steps", steps[*group].field), stuck))?;
    }
    for group in groups {
        if steps[group].for_each.is_some() {
            continue;
        }
        let members = steps[group].members.clone();
        for step in steps.iter_mut().filter(|step| step.ancestors.contains(&group)) {
            step.ancestors.extend(members.clone());
        }
    }
    Ok(())
}

/// Fills in the transitive closure of `needs` of these steps, who all come after `outer`. The error names those that can't
/// start.
fn close(steps: &mut [WorkflowStep], these: Range<usize>, outer: &BTreeSet<usize>) -> Result<(), String> {
    let mut done = BTreeSet::new();
    while done.len() < these.len() {
        let ready = |i: &usize| !done.contains(i) && steps[*i].needs.is_subset(&done);
        let Some(i) = these.clone().find(ready) else {
            let stuck: Vec<&str> = these
                .filter(|i| !done.contains(i))
                .map(|i| steps[i].name.as_str())
                .collect();
            return Err(format!(
                "these steps wait for each other, or for one that does: {}",
                stuck.join(", ")
            ));
        };
        let before = steps[i]
            .needs
            .iter()
            .flat_map(|n| steps[*n].ancestors.iter().copied().chain([*n]));
        steps[i].ancestors = before.chain(outer.iter().copied()).collect();
        done.insert(i);
    }
    Ok(())
}
