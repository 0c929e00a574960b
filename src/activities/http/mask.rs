//! Keeps secret values out of what leaves the activity: whatever the other side echoes, in whichever form.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

const MASK: &str = "***";

/// A shorter value is masked only where it is a word of its own: masking every `7` or `no` would hide nothing that
/// can't be guessed, and ruin every text. A secret worth its name is longer.
const SHORT: usize = 4;

/// The secret values that are known, in all forms in which they may come back.
#[derive(Clone, Debug, Default)]
pub(super) struct Masker {
    forms: BTreeSet<Form>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Form {
    text: String,
    whole_word: bool,
}

impl Masker {
    /// From now on masks this value, and what it becomes in base64, in a URL and in JSON.
    pub(super) fn add(&mut self, secret: &str) {
        let whole_word = secret.chars().count() < SHORT;
        let forms = forms(secret).into_iter().filter(|text| !text.is_empty());
        self.forms.extend(forms.map(|text| Form { text, whole_word }));
    }

    /// The text without secrets.
    pub(super) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut found: Vec<_> = self.forms.iter().flat_map(|form| form.occurrences(text)).collect();
        if found.is_empty() {
            return text.into();
        }
        // Occurrences that overlap are masked as one, so that no end of a secret is left over.
        found.sort_unstable();
        let mut masked = String::with_capacity(text.len());
        let (mut kept, mut end) = (0, 0);
        for (from, to) in found {
            if from >= end {
                masked.push_str(&text[kept..from]);
                masked.push_str(MASK);
            }
            end = end.max(to);
            kept = end;
        }
        masked.push_str(&text[kept..]);
        masked.into()
    }

    /// The value without secrets, in its strings, its numbers and the names of its fields.
    pub(super) fn value(&self, value: Value) -> Value {
        if self.forms.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.text(&text).into_owned()),
            Value::Number(number) => match self.text(&number.to_string()) {
                Cow::Borrowed(_) => Value::Number(number),
                Cow::Owned(masked) => Value::String(masked),
            },
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => Value::Object(
                fields
                    .into_iter()
                    .map(|(name, value)| (self.text(&name).into_owned(), self.value(value)))
                    .collect::<Map<_, _>>(),
            ),
            Value::Null | Value::Bool(_) => value,
        }
    }
}

impl Form {
    /// Where the form is in a text, as ranges of bytes.
    fn occurrences<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
        text.match_indices(&self.text)
            .map(|(from, form)| (from, from + form.len()))
            .filter(|(from, to)| {
                let joins = |c: char| c.is_alphanumeric() || c == '_';
                let before = text[..*from].chars().next_back();
                let after = text[*to..].chars().next();
                !self.whole_word || !before.is_some_and(joins) && !after.is_some_and(joins)
            })
    }
}

/// What JavaScript's `encodeURIComponent` leaves as it is, and most other encoders too.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'!')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');
/// What RFC 3986 calls unreserved is left as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// What browsers encode in a query, and, with a few more, in a path.
const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'\'');
const PATH: &AsciiSet = &QUERY.add(b'?').add(b'^').add(b'`').add(b'{').add(b'}').add(b'/');

fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    for alphabet in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
        forms.push(alphabet.encode(secret));
    }
    for set in [COMPONENT, RESERVED, QUERY, PATH] {
        let encoded = utf8_percent_encode(secret, set).to_string();
        forms.push(encoded.replace("%20", "+"));
        forms.push(lower_case_escapes(&encoded));
        forms.push(encoded);
    }
    let quoted = Value::String(secret.to_owned()).to_string();
    let escaped = quoted[1..quoted.len() - 1].to_owned();
    forms.push(escaped.replace('/', "\\/"));
    // As Go escapes what could end a script in a page.
    forms.push(
        escaped
            .replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026"),
    );
    forms.push(escaped);
    forms
}

/// `%2F` as `%2f`.
fn lower_case_escapes(encoded: &str) -> String {
    let mut escape = 0;
    encoded
        .chars()
        .map(|c| {
            let lower = if escape > 0 { c.to_ascii_lowercase() } else { c };
            escape = if c == '%' { 2 } else { i32::max(escape - 1, 0) };
            lower
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn masker(secrets: &[&str]) -> Masker {
        let mut masker = Masker::default();
        secrets.iter().for_each(|secret| masker.add(secret));
        masker
    }

    #[test]
    fn a_secret_is_masked_in_every_form_in_which_it_may_come_back() {
        let masker = masker(&["p/ss \"w<rd>&+é"]);
        for form in [
            "p/ss \"w<rd>&+é",
            "cC9zcyAidzxyZD4mK8Op",
            "p%2Fss%20%22w%3Crd%3E%26%2B%C3%A9",
            "p%2fss%20%22w%3crd%3e%26%2b%c3%a9",
            "p%2Fss+%22w%3Crd%3E%26%2B%C3%A9",
            "p/ss%20%22w%3Crd%3E&+%C3%A9",
            r#"p/ss \"w<rd>&+é"#,
            r#"p\/ss \"w<rd>&+é"#,
            r#"p/ss \"w\u003crd\u003e\u0026+é"#,
        ] {
            assert_eq!(
                masker.text(&format!("token={form}, denied")),
                "token=***, denied",
                "{form}"
            );
        }
    }

    #[test]
    fn values_are_masked_in_strings_numbers_and_names() {
        let masker = masker(&["12345678", "hunter2"]);
        let answer = json!({"a": ["Bearer hunter2", 12345678, 7, true, null], "hunter2": {"b": "ok"}});
        assert_eq!(
            masker.value(answer),
            json!({"a": ["Bearer ***", "***", 7, true, null], "***": {"b": "ok"}})
        );
    }

    #[test]
    fn secrets_that_overlap_leave_nothing_of_either() {
        let masker = masker(&["abcdef", "defghi", "abcd"]);
        assert_eq!(masker.text("<abcdefghi> abcdabcd"), "<***> ******");
    }

    #[test]
    fn a_short_secret_is_masked_only_as_a_word() {
        let masker = masker(&["no", "x\u{e9}7"]);
        assert_eq!(masker.text("no, nobody knows no"), "***, nobody knows ***");
        assert_eq!(masker.text("a.no.b x\u{e9}7"), "a.***.b ***");
    }

    #[test]
    fn without_secrets_nothing_changes() {
        assert!(matches!(masker(&[""]).text("anything"), Cow::Borrowed("anything")));
    }
}
