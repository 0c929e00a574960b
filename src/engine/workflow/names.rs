//! How the steps of a journal are named: a step's path says what it is an item of, in which group, and what it undoes.

/// The name in the journal of the step that undoes this one.
pub fn undo_name(step: &str) -> String {
    format!("{step}:undo")
}

/// The name in the journal of one item of a step with `forEach`.
pub fn item_name(step: &str, index: usize) -> String {
    format!("{step}[{index}]")
}

/// The name without the number of an item, and that number.
pub fn split_item(name: &str) -> (&str, Option<usize>) {
    let item = name
        .strip_suffix(']')
        .and_then(|name| name.rsplit_once('['))
        .and_then(|(step, index)| Some((step, index.parse().ok()?)));
    item.map_or((name, None), |(step, index)| (step, Some(index)))
}

/// The path of a step in a group, or in one item of it.
pub fn member_name(group: &str, step: &str) -> String {
    format!("{group}/{step}")
}

/// The group that a step is in, or the item of one: by their paths.
pub fn group_name(step: &str) -> Option<&str> {
    step.rsplit_once('/').map(|(group, _)| group)
}
