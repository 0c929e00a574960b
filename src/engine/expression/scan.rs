//! The little of CEL's grammar that must be known before an expression is parsed: where strings and comments end.

/// Where the `}` is that ends an expression in a template: not one in a string, a comment or of a map.
pub(super) fn expression_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {
                at = literal_end(text, at)?;
                continue;
            }
        }
        at += 1;
    }
    None
}

/// A line break in a string that isn't one of three quotes: CEL has none there, but the parser takes it.
pub(super) fn broken_string(text: &str) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        let end = literal_end(text, at)?;
        let literal = &text[at..end];
        let quoted = literal.starts_with(['"', '\'']) && !literal.starts_with("\"\"\"") && !literal.starts_with("'''");
        if quoted && let Some(line_break) = literal.find(['\n', '\r']) {
            return Some(at + line_break);
        }
        at = end;
    }
    None
}

/// The index after the string or comment that starts here, or after this character if neither does.
fn literal_end(text: &str, at: usize) -> Option<usize> {
    match text[at..].chars().next()? {
        '"' | '\'' => string_end(text, at),
        '/' if text[at..].starts_with("//") => text[at..].find('\n').map(|line| at + line + 1),
        other => Some(at + other.len_utf8()),
    }
}

/// The index after the string literal whose quote is at `start`.
fn string_end(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let quote = &text[start..=start];
    let triple = quote.repeat(3);
    let quote = if text[start..].starts_with(&triple) {
        triple.as_str()
    } else {
        quote
    };
    // A prefix of r, or of b and r, makes backslashes ordinary.
    let prefix = text[..start]
        .bytes()
        .rev()
        .take_while(u8::is_ascii_alphanumeric)
        .collect::<Vec<_>>();
    let raw = prefix.len() <= 2 && prefix.iter().any(|c| c.eq_ignore_ascii_case(&b'r'));
    let mut at = start + quote.len();
    while at < bytes.len() {
        if bytes[at] == b'\\' && !raw {
            at += 2;
        } else if bytes[at..].starts_with(quote.as_bytes()) {
            return Some(at + quote.len());
        } else {
            at += 1;
        }
    }
    None
}
