//! The functions that expressions can call, found by name, style and number of arguments.

pub(super) mod convert;
mod format;
mod lists;
mod optional;
mod quantities;
mod regex;
mod strings;
mod times;

use std::fmt;

use super::evaluate::{Evaluated, Evaluation};
use super::value::Value;

/// How a function is called: `f(x)`, or `x.f()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Global,
    Method,
}

/// The receiver of a method is the first argument.
type Body = for<'a> fn(&mut Evaluation<'a, '_>, &[Value<'a>]) -> Evaluated<'a>;

/// A function of the library.
pub(super) struct Function {
    name: &'static str,
    style: Style,
    /// The fewest and the most arguments, the receiver included.
    arguments: (usize, usize),
    body: Body,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Function {
    const fn global(name: &'static str, arguments: usize, body: Body) -> Self {
        Self {
            name,
            style: Style::Global,
            arguments: (arguments, arguments),
            body,
        }
    }

    const fn method(name: &'static str, fewest: usize, most: usize, body: Body) -> Self {
        Self {
            name,
            style: Style::Method,
            arguments: (fewest, most),
            body,
        }
    }

    pub fn call<'a>(&self, evaluation: &mut Evaluation<'a, '_>, arguments: &[Value<'a>]) -> Evaluated<'a> {
        (self.body)(evaluation, arguments)
    }

    /// Whether the second argument is a regular expression.
    pub fn takes_pattern(&self) -> bool {
        matches!(self.name, "matches" | "find" | "findAll")
    }
}

/// Libraries of Kubernetes' CEL that expressions here don't have.
const ELSEWHERE: &[(&str, &str)] = &[
    ("authorizer", "authorization"),
    ("cidr", "CIDR"),
    ("format.named", "format"),
    ("ip", "IP"),
    ("isCIDR", "CIDR"),
    ("isIP", "IP"),
    ("isSemver", "semver"),
    ("isURL", "URL"),
    ("semver", "semver"),
    ("url", "URL"),
];

fn all() -> impl Iterator<Item = &'static Function> {
    [
        convert::FUNCTIONS,
        format::FUNCTIONS,
        lists::FUNCTIONS,
        optional::FUNCTIONS,
        quantities::FUNCTIONS,
        regex::FUNCTIONS,
        strings::FUNCTIONS,
        times::FUNCTIONS,
    ]
    .into_iter()
    .flatten()
}

pub(super) fn exists(name: &str, style: Style) -> bool {
    all().any(|function| function.name == name && function.style == style)
}

/// The function of that name and style that takes this many arguments; else a hint that says what there is.
pub(super) fn find(name: &str, style: Style, arguments: usize) -> Result<&'static Function, String> {
    let named = || all().filter(|function| function.name == name);
    let fits = |function: &&Function| {
        function.style == style && (function.arguments.0..=function.arguments.1).contains(&arguments)
    };
    named().find(fits).ok_or_else(|| match named().next() {
        Some(function) => usage(function),
        None => absent(name),
    })
}

fn usage(function: &Function) -> String {
    let receiver = usize::from(function.style == Style::Method);
    let (fewest, most) = (function.arguments.0 - receiver, function.arguments.1 - receiver);
    let count = if fewest == most {
        fewest.to_string()
    } else {
        format!("{fewest} to {most}")
    };
    let form = if receiver == 1 {
        format!("x.{}()", function.name)
    } else {
        format!("{}()", function.name)
    };
    format!("it is called as {form} with {count} arguments")
}

fn absent(name: &str) -> String {
    if let Some((_, library)) = ELSEWHERE.iter().find(|(other, _)| *other == name) {
        return format!("the {library} library of Kubernetes' CEL is not part of Holdfast's");
    }
    let near = all()
        .map(|function| {
            (
                strsim::damerau_levenshtein(&function.name.to_lowercase(), &name.to_lowercase()),
                function,
            )
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2);
    match near {
        Some((_, function)) => format!("did you mean {}?", function.name),
        None => "there is no such function".to_owned(),
    }
}
