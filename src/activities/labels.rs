//! What Holdfast writes on the objects that it creates.

/// The value of the label that names an operation. A label takes 63 characters, a name may have more: it is cut.
pub fn operation_label(operation: &str) -> String {
    let cut: String = operation.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_to_what_a_label_takes() {
        assert_eq!(operation_label("resize-web"), "resize-web");
        let long = format!("{}.{}", "a".repeat(62), "b".repeat(100));
        assert_eq!(operation_label(&long), "a".repeat(62));
    }
}
