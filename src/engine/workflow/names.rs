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

/// The paths of what a step is in, from the inside out: the list of an item, the group of a step in one.
pub fn wholes(step: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(step), |inner| match split_item(inner) {
        (list, Some(_)) => Some(list),
        _ => group_name(inner),
    })
    .skip(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_is_in_is_read_off_its_path() {
        for (step, around) in [
            ("a", vec![]),
            ("l[3]", vec!["l"]),
            ("g/a", vec!["g"]),
            ("g/l[3]", vec!["g/l", "g"]),
            ("l[3]/a", vec!["l[3]", "l"]),
        ] {
            assert_eq!(wholes(step).collect::<Vec<_>>(), around, "{step}");
        }
    }
}
