//! Regular expressions with RE2's syntax, as Go has it, on Rust's engine: both match in linear time.
//!
//! The syntaxes differ in details, so a pattern is rewritten first: `\d`, `\w`, `\s` and `\b` are ASCII, `[` stands for
//! itself in a class, and what only Rust knows is refused.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use super::budget::{Budget, Fault};

/// Bytes that a compiled pattern may take.
const MAX_SIZE: usize = 1 << 18;
/// What compiling a pattern is counted as, in bytes read.
const COMPILATION: usize = 1 << 13;
/// The most times that RE2 lets a part repeat.
const MAX_REPEAT: u64 = 1000;

/// What can stand between `[:` and `:]`.
const NAMED_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// A compiled pattern.
pub(super) struct Pattern {
    regex: Regex,
    /// About how many states it has: matching takes up to this many steps a byte.
    states: usize,
}

impl Pattern {
    pub fn new(pattern: &str) -> Result<Self, String> {
        let refused = |message: &dyn std::fmt::Display| format!("not a regular expression: {pattern:?}: {message}");
        let rewritten = Rewriter::rewrite(pattern).map_err(|message| refused(&message))?;
        let regex = RegexBuilder::new(&rewritten.pattern)
            .size_limit(MAX_SIZE)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => refused(&"it is too large"),
                regex::Error::Syntax(message) => refused(&message.lines().last().unwrap_or_default()),
                other => refused(&other),
            })?;
        Ok(Pattern {
            regex,
            states: usize::try_from(rewritten.states).unwrap_or(usize::MAX),
        })
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    pub fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.regex.find(text).map(|found| found.as_str())
    }

    pub fn find_all<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        self.regex.find_iter(text).map(|found| found.as_str())
    }
}

/// The patterns that an evaluation has used, compiled once.
#[derive(Default)]
pub(super) struct Patterns {
    compiled: BTreeMap<String, std::sync::Arc<Pattern>>,
}

impl Patterns {
    /// The compiled pattern, after spending what matching this text with it may take.
    pub fn get(&mut self, pattern: &str, text: &str, budget: &mut Budget) -> Result<std::sync::Arc<Pattern>, Fault> {
        let compiled = match self.compiled.get(pattern) {
            Some(compiled) => compiled.clone(),
            None => {
                budget.read(COMPILATION + pattern.len())?;
                let compiled = std::sync::Arc::new(Pattern::new(pattern).map_err(Fault::failed)?);
                self.compiled.insert(pattern.to_owned(), compiled.clone());
                compiled
            }
        };
        budget.read(text.len().saturating_mul(1 + compiled.states / 8))?;
        Ok(compiled)
    }
}

/// A pattern in Rust's syntax.
struct Rewritten {
    pattern: String,
    states: u64,
}

/// Goes through a pattern once, writing Rust's form of it and counting states.
struct Rewriter<'p> {
    rest: std::iter::Peekable<std::str::Chars<'p>>,
    out: String,
    /// States so far of each open group, outermost first; the last is that of the innermost.
    groups: Vec<u64>,
    /// States of what a repetition operator would apply to.
    last: u64,
    /// The last thing was a repetition, so another one is not allowed.
    repeated: bool,
}

impl<'p> Rewriter<'p> {
    fn rewrite(pattern: &'p str) -> Result<Rewritten, String> {
        let mut rewriter = Rewriter {
            rest: pattern.chars().peekable(),
            out: String::with_capacity(pattern.len()),
            groups: vec![0],
            last: 0,
            repeated: false,
        };
        while let Some(c) = rewriter.rest.next() {
            rewriter.one(c)?;
        }
        rewriter.atom(0);
        Ok(Rewritten {
            pattern: rewriter.out,
            states: rewriter.groups.iter().fold(0, |a, b| a.saturating_add(*b)),
        })
    }

    /// Closes the last atom and starts one of so many states.
    fn atom(&mut self, states: u64) {
        if let Some(group) = self.groups.last_mut() {
            *group = group.saturating_add(self.last);
        }
        self.last = states;
        self.repeated = false;
    }

    fn one(&mut self, c: char) -> Result<(), String> {
        match c {
            '\\' => self.escape(false),
            '[' => self.class(),
            '(' => self.open(),
            ')' => {
                self.atom(0);
                self.out.push(')');
                self.last = if self.groups.len() > 1 {
                    self.groups.pop().unwrap_or(0)
                } else {
                    0
                };
                Ok(())
            }
            '*' | '+' | '?' => {
                self.repetition(1)?;
                self.out.push(c);
                self.lazy();
                Ok(())
            }
            '{' => self.counted(),
            c => {
                self.atom(1);
                // What stands for itself in RE2.
                if c == '}' {
                    self.out.push('\\');
                }
                self.out.push(c);
                Ok(())
            }
        }
    }

    fn repetition(&mut self, times: u64) -> Result<(), String> {
        if self.repeated {
            return Err("a repetition of a repetition needs a group".to_owned());
        }
        self.last = self.last.saturating_mul(times.max(1)).saturating_add(1);
        self.repeated = true;
        Ok(())
    }

    fn lazy(&mut self) {
        if self.rest.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
    }

    fn open(&mut self) -> Result<(), String> {
        self.atom(0);
        self.groups.push(0);
        self.out.push('(');
        if self.rest.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        if self.rest.next_if_eq(&'P').is_some() && self.rest.peek() != Some(&'<') {
            return Err("(?P without a name".to_owned());
        }
        if self.rest.next_if_eq(&'<').is_some() {
            // Names of groups are of no use here, and Rust wants them to differ: leave them out.
            let name: String = self.rest.by_ref().take_while(|c| *c != '>').collect();
            let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return if is_name {
                Ok(())
            } else {
                Err(format!("invalid name of a group: {name:?}"))
            };
        }
        self.out.push('?');
        // Flags, (?i: or (?i); only those that both know.
        for c in self.rest.by_ref() {
            self.out.push(c);
            match c {
                ':' => break,
                ')' => {
                    self.groups.pop();
                    break;
                }
                'i' | 'm' | 's' | 'U' | '-' => {}
                other => return Err(format!("unknown flag {other:?}")),
            }
        }
        Ok(())
    }

    /// `{n}`, `{n,}` or `{n,m}`; another brace stands for itself.
    fn counted(&mut self) -> Result<(), String> {
        let ahead = self.rest.clone().take_while(|c| *c != '}').collect::<String>();
        let closed = self.rest.clone().nth(ahead.chars().count()) == Some('}');
        let (low, high) = ahead
            .split_once(',')
            .map_or((&*ahead, None), |(low, high)| (low, Some(high)));
        let number = |s: &str| {
            if s.bytes().all(|b| b.is_ascii_digit()) {
                s.parse::<u64>().ok()
            } else {
                None
            }
        };
        let bounds = match (number(low), high) {
            (Some(low), None | Some("")) => Some((low, low)),
            (Some(low), Some(high)) => number(high).map(|high| (low, high)),
            _ => None,
        };
        let Some((low, high)) = bounds.filter(|_| closed) else {
            self.atom(1);
            self.out.push_str("\\{");
            return Ok(());
        };
        if low > high || high > MAX_REPEAT {
            return Err(format!("invalid repeat count {{{ahead}}}"));
        }
        self.repetition(high)?;
        self.out.push_str(&format!("{{{ahead}}}"));
        self.rest.nth(ahead.chars().count());
        self.lazy();
        Ok(())
    }

    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let c = self.rest.next().ok_or("a backslash at the end")?;
        if !in_class {
            self.atom(1);
        }
        let ascii = match c {
            'd' => Some("0-9"),
            'w' => Some("0-9A-Za-z_"),
            's' => Some("\\t\\n\\f\\r "),
            'D' => Some("^0-9"),
            'W' => Some("^0-9A-Za-z_"),
            'S' => Some("^\\t\\n\\f\\r "),
            _ => None,
        };
        match (c, ascii) {
            (_, Some(ascii)) if in_class && !ascii.starts_with('^') => self.out.push_str(ascii),
            (_, Some(ascii)) => self.out.push_str(&format!("[{ascii}]")),
            ('b' | 'B', _) if !in_class => self.out.push_str(&format!("(?-u:\\{c})")),
            ('A' | 'z', _) if !in_class => self.out.push_str(&format!("\\{c}")),
            ('a' | 'f' | 'n' | 'r' | 't' | 'v', _) => self.out.push_str(&format!("\\{c}")),
            ('x' | 'p' | 'P', _) => self.out.push_str(&format!("\\{c}")),
            ('Q', _) if !in_class => self.quoted(),
            ('0'..='7', _) => self.octal(c)?,
            (c, _) if c.is_ascii_punctuation() => self.literal(c),
            (c, _) => return Err(format!("unknown escape \\{c}")),
        }
        // A class name or code point in braces belongs to the escape.
        if matches!(c, 'x' | 'p' | 'P') && self.rest.next_if_eq(&'{').is_some() {
            self.out.push('{');
            for c in self.rest.by_ref() {
                self.out.push(c);
                if c == '}' {
                    break;
                }
            }
        }
        Ok(())
    }

    fn literal(&mut self, c: char) {
        // Rust's escapes of letters and of < and > mean something else.
        if c.is_ascii_punctuation() && !matches!(c, '<' | '>') {
            self.out.push('\\');
        }
        self.out.push(c);
    }

    fn octal(&mut self, first: char) -> Result<(), String> {
        let mut digits = String::from(first);
        while digits.len() < 3
            && let Some(digit) = self.rest.next_if(|c| ('0'..='7').contains(c))
        {
            digits.push(digit);
        }
        // RE2 has no references to groups: \1 to \7 alone are errors.
        if first != '0' && digits.len() == 1 {
            return Err(format!("unknown escape \\{first}"));
        }
        let code = u32::from_str_radix(&digits, 8).unwrap_or_default();
        self.out.push_str(&format!("\\x{{{code:x}}}"));
        Ok(())
    }

    /// `\Q...\E`: as it stands.
    fn quoted(&mut self) {
        while let Some(c) = self.rest.next() {
            if c == '\\' && self.rest.next_if_eq(&'E').is_some() {
                break;
            }
            self.atom(1);
            self.literal(c);
        }
    }

    fn class(&mut self) -> Result<(), String> {
        self.atom(1);
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        while let Some(c) = self.rest.next() {
            match c {
                ']' if !first => {
                    self.out.push(']');
                    return Ok(());
                }
                '[' if self.rest.peek() == Some(&':') => self.named_class()?,
                c => {
                    let single = self.class_character(c)?;
                    let mut ahead = self.rest.clone();
                    if single && ahead.next() == Some('-') && ahead.next().is_some_and(|c| c != ']') {
                        self.rest.next();
                        self.out.push('-');
                        let high = self.rest.next().unwrap_or_default();
                        if !self.class_character(high)? {
                            return Err("a range to a class of characters".to_owned());
                        }
                    }
                }
            }
            first = false;
        }
        Err("missing closing ]".to_owned())
    }

    /// One character of a class, or an escape that may stand for several; whether it is one.
    fn class_character(&mut self, c: char) -> Result<bool, String> {
        match c {
            '\\' => {
                let single = !matches!(self.rest.peek(), Some('d' | 'D' | 's' | 'S' | 'w' | 'W' | 'p' | 'P'));
                self.escape(true)?;
                Ok(single)
            }
            // Rust gives other meanings to punctuation than to be itself.
            c => {
                self.literal(c);
                Ok(true)
            }
        }
    }

    /// `[:alpha:]`, after its first bracket.
    fn named_class(&mut self) -> Result<(), String> {
        self.rest.next();
        let name: String = self.rest.by_ref().take_while(|c| *c != ':').collect();
        if self.rest.next() != Some(']') || !NAMED_CLASSES.contains(&name.trim_start_matches('^')) {
            return Err(format!("invalid class of characters [:{name}:]"));
        }
        self.out.push_str(&format!("[:{name}:]"));
        Ok(())
    }
}
