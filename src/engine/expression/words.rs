//! The words that CEL reserves.

/// Whether a name can't be used as an identifier of an expression: a step of that name could not be referred to.
pub fn is_cel_word(name: &str) -> bool {
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
        "var",
        "void",
        "while",
    ]
    .contains(&name)
}
