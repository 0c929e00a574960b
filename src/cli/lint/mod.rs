//! `lint`: everything that can be known to be wrong with an operation, from its file alone.

mod lines;
mod rules;
mod schema;

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use self::lines::Lines;
use self::schema::Checker;
use super::output::{BOLD, GOOD, Output, paint};
use super::{CliError, files};
use crate::api::CloudOperation;
use crate::engine::Workflow;

#[derive(Args)]
pub struct Lint {
    /// Files, and directories with YAML files in them; - for standard input. Documents of other kinds are passed over.
    #[arg(required = true)]
    files: Vec<String>,
}

/// Something that is wrong.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    line: usize,
    field: String,
    message: String,
}

impl Lint {
    pub fn run(&self, out: &mut Output) -> Result<ExitCode, CliError> {
        let checker = Checker::new()?;
        let (mut operations, mut problems) = (0, 0);
        for path in &self.files {
            let files = files::find(path)?;
            let searched = files.first() != Some(path);
            for file in files {
                let text = files::read(&file)?;
                // In a directory there are files of many kinds, templates too.
                if searched && !text.contains("CloudOperation") {
                    continue;
                }
                let (found, wrong) = check(&checker, &text);
                operations += found;
                problems += wrong.len();
                for Problem { line, field, message } in wrong {
                    let field = if field.is_empty() {
                        field
                    } else {
                        paint(BOLD, &field) + ": "
                    };
                    out.print(&format!("{file}:{line}: {field}{message}\n"))?;
                }
            }
        }
        if problems > 0 {
            return Ok(ExitCode::from(1));
        }
        match operations {
            0 => anstream::eprintln!("There is no CloudOperation in there."),
            1 => anstream::eprintln!("{}: 1 operation, no problems", paint(GOOD, "ok")),
            n => anstream::eprintln!("{}: {n} operations, no problems", paint(GOOD, "ok")),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// How many operations there are in a text, and what is wrong with them, by line.
fn check(checker: &Checker, text: &str) -> (usize, Vec<Problem>) {
    let documents = match files::documents(text) {
        Ok(documents) => documents,
        Err(error) => {
            let line = error.location().map_or(1, |location| location.line());
            return (
                0,
                vec![Problem {
                    line,
                    field: String::new(),
                    message: format!("this is no YAML: {error}"),
                }],
            );
        }
    };
    let lines = Lines::new(text);
    let mut operations = 0;
    let mut problems = vec![];
    for (number, document) in documents
        .iter()
        .enumerate()
        .filter(|(_, document)| files::is_operation(document))
    {
        operations += 1;
        for (field, message) in problems_of(checker, document) {
            problems.push(Problem {
                line: lines.of(number, &field),
                field,
                message,
            });
        }
    }
    problems.sort();
    problems.dedup();
    (operations, problems)
}

/// What is wrong with an operation: fields and messages.
fn problems_of(checker: &Checker, document: &Value) -> Vec<(String, String)> {
    let mut problems = checker.check(document);
    if has_no_name(document) {
        problems.push(("metadata".into(), "a name is needed, or a generateName".into()));
    }
    rules::check(checker.schema(), document, "", &mut problems);
    let operation = match serde_json::from_value::<CloudOperation>(document.clone()) {
        Ok(operation) => operation,
        Err(error) => {
            if problems.is_empty() {
                problems.push(("spec".into(), error.to_string()));
            }
            return problems;
        }
    };
    // Of a template's steps nothing is known here.
    if operation.spec.template_ref.is_none()
        && let Err(invalid) = Workflow::compile(&operation.spec)
        && problems.iter().all(|(field, _)| *field != invalid.field)
    {
        problems.push((invalid.field, invalid.message));
    }
    problems
}

fn has_no_name(document: &Value) -> bool {
    let given = |field: &str| {
        document["metadata"][field]
            .as_str()
            .is_some_and(|name| !name.is_empty())
    };
    !given("name") && !given("generateName")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(file: &str) -> String {
        let checker = Checker::new().unwrap();
        let text = std::fs::read_to_string(format!("tests/data/lint/{file}")).unwrap();
        let (_, problems) = check(&checker, &text);
        let lines = problems
            .iter()
            .map(|p| format!("{}: {}: {}\n", p.line, p.field, p.message));
        lines.collect()
    }

    #[test]
    fn fields_that_are_not_there_have_the_wrong_type_or_are_out_of_bounds() {
        assert_eq!(
            said("schema.yaml"),
            "\
13: spec.orders: unknown field; did you mean order?
15: spec.steps[0].http.metod: unknown field; did you mean method?
16: spec.steps[0].timeouts.startToClose: must be a duration such as 500ms, 30s, 5m or 24h (hours are the largest unit)
17: spec.steps[1].http: url is missing
20: spec.steps[1].maxParallel: must be a number, not text
21: spec.steps[2].name: must match ^[a-z][a-zA-Z0-9]{0,39}$
22: spec.steps[2].http.method: must be one of GET, HEAD, POST, PUT, PATCH, DELETE
"
        );
    }

    #[test]
    fn expressions_steps_that_are_not_there_and_rules() {
        assert_eq!(
            said("workflow.yaml"),
            "\
6: spec.steps[0]: a step has exactly one of http, kubernetes, job, operation, steps, wait, signal, approval, set, assert
22: spec.steps[1].http.url: there is no step named \"lost\"; there are first, second
31: spec.steps: these steps wait for each other, or for one that does: a, b (see needs, and what their expressions read)
41: metadata: a name is needed, or a generateName
"
        );
    }

    #[test]
    fn what_is_no_yaml_says_where() {
        assert!(
            said("broken.yaml").starts_with("5: : this is no YAML: "),
            "{}",
            said("broken.yaml")
        );
    }

    #[test]
    fn the_samples_have_no_problems() {
        let checker = Checker::new().unwrap();
        for entry in std::fs::read_dir("config/samples").unwrap() {
            let path = entry.unwrap().path();
            let (_, problems) = check(&checker, &std::fs::read_to_string(&path).unwrap());
            assert!(problems.is_empty(), "{}: {problems:?}", path.display());
        }
    }
}
