//! `test`: operations whose calls are answered by a file, decided on by the engine as in a cluster, under simulated time.

mod expect;
mod file;
mod simulate;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};

use self::file::{Source, Test};
use self::simulate::{Simulated, Simulation, simulate};
use super::lint::{Lines, Linter};
use super::output::{BAD, BOLD, FAINT, Format, GOOD, Output, machine, paint};
use super::table::one_line;
use super::{CliError, files, times};
use crate::api::{CloudOperation, Time};
use crate::engine::{self, Workflow};

/// When an operation starts, if the test doesn't say.
const START: &str = "2026-01-05T00:00:00Z";

#[derive(Args)]
pub struct Tests {
    /// Files of tests, and directories with files in them whose names end in .test.yaml.
    #[arg(required = true)]
    files: Vec<String>,
    /// In another form.
    #[arg(short, long, value_enum)]
    output: Option<Form>,
}

/// A form for programs.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// JSON.
    Json,
    /// JUnit's XML, as CI systems read it.
    Junit,
}

/// What came of a test.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    file: String,
    line: usize,
    name: String,
    ok: bool,
    /// What is not as expected.
    problems: Vec<String>,
    /// What happened, where something is not as expected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<String>,
    /// How much time passed in the simulation, in seconds.
    simulated_seconds: f64,
}

impl Tests {
    pub async fn run(&self, out: &mut Output) -> Result<ExitCode, CliError> {
        let linter = Linter::new(std::iter::empty())?;
        let mut verdicts = vec![];
        for path in &self.files {
            for file in files::find(path)? {
                let searched = file != *path;
                if searched && !file.ends_with(".test.yaml") && !file.ends_with(".test.yml") {
                    continue;
                }
                for verdict in of_file(&linter, &file).await? {
                    if self.output.is_none() {
                        out.print(&verdict.render())?;
                    }
                    verdicts.push(verdict);
                }
            }
        }
        if verdicts.is_empty() {
            let places = self.files.join(", ");
            return Err(CliError::Usage(format!(
                "there is no test in {places}: a test is a YAML document with operation and expect, in a directory in a file named *.test.yaml"
            )));
        }
        let failed = verdicts.iter().filter(|verdict| !verdict.ok).count();
        match self.output {
            None => {
                let ok = verdicts.len() - failed;
                let end = if failed == 0 {
                    paint(GOOD, "ok")
                } else {
                    paint(BAD, "FAILED")
                };
                out.print(&format!("\n{end}: {ok} passed, {failed} failed\n"))?;
            }
            Some(Form::Json) => out.print(&machine(&verdicts, Format::Json)?)?,
            Some(Form::Junit) => out.print(&junit(&verdicts))?,
        }
        Ok(ExitCode::from(u8::from(failed > 0)))
    }
}

/// The tests of a file, one after the other.
async fn of_file(linter: &Linter, file: &str) -> Result<Vec<Verdict>, CliError> {
    let text = files::read(file)?;
    let wrong = |message: String| CliError::File {
        file: file.to_owned(),
        message,
    };
    let documents = files::documents(&text).map_err(|error| wrong(error.to_string()))?;
    let lines = Lines::new(&text);
    let mut verdicts = vec![];
    for (number, document) in documents
        .into_iter()
        .enumerate()
        .filter(|(_, document)| !document.is_null())
    {
        let line = lines.of(number, "");
        let test: Test = serde_json::from_value(document)
            .map_err(|error| wrong(format!("the test in line {line} can't be read: {error}")))?;
        let name = test.name.clone().unwrap_or_else(|| format!("line {line}"));
        let (problems, came) = match run(linter, &test, file).await {
            Ok((problems, came)) => (problems, came),
            Err(problems) => (problems, Simulated::default()),
        };
        let start = start_of(&test);
        let took = came.end.map(|end| end.since(start)).unwrap_or_default();
        verdicts.push(Verdict {
            file: file.to_owned(),
            line,
            name,
            ok: problems.is_empty(),
            history: if problems.is_empty() {
                vec![]
            } else {
                history(&came, start)
            },
            problems,
            simulated_seconds: took.as_secs_f64(),
        });
    }
    Ok(verdicts)
}

fn start_of(test: &Test) -> Time {
    // The constant is a time.
    test.start_time
        .unwrap_or_else(|| Time::new(START.parse().unwrap_or_default()))
}

/// Runs a test. Answers what is not as expected, and what came of the operation.
async fn run(linter: &Linter, test: &Test, file: &str) -> Result<(Vec<String>, Simulated), Vec<String>> {
    let (document, templates) = operation(test, file).map_err(|problem| vec![problem])?;
    let mut problems = vec![];
    for document in std::iter::once(&document).chain(templates.values()) {
        let kind = files::kind(document).unwrap_or_default();
        let wrong = linter.problems(document).unwrap_or_default();
        problems.extend(
            wrong
                .into_iter()
                .map(|(field, message)| format!("{kind}: {field}: {message}")),
        );
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let operation: CloudOperation = serde_json::from_value(document).map_err(|error| vec![error.to_string()])?;
    let mut spec = operation.spec;
    let mut invalid = None;
    if let Some(reference) = &spec.template_ref {
        let Some(template) = templates.get(&reference.name) else {
            let message = format!(
                "the operation runs the template {}: name its file in templates",
                reference.name
            );
            return Err(vec![message]);
        };
        let template = template["spec"].as_object().cloned().unwrap_or_default();
        let resolved = engine::resolve(&spec, &template);
        (spec, invalid) = (resolved.spec, resolved.invalid);
    }
    let workflow = match invalid {
        Some(invalid) => Err(invalid),
        None => Workflow::compile(&spec),
    };
    let unknown = workflow
        .as_ref()
        .map(|workflow| unknown(test, workflow))
        .unwrap_or_default();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let came = simulate(&Simulation {
        name: operation.metadata.name.as_deref().unwrap_or("test"),
        spec,
        workflow,
        start: start_of(test),
        mocks: &test.mocks,
        events: &test.events,
    })
    .await;
    let mut problems = came.problems.clone();
    // What could not be simulated to its end is not compared.
    if problems.is_empty() {
        problems = expect::compare(&test.expect, &came);
    }
    Ok((problems, came))
}

/// The operation, with the test's input, and the templates by their names.
fn operation(test: &Test, file: &str) -> Result<(Value, BTreeMap<String, Value>), String> {
    let beside = |path: &str| {
        let directory = Path::new(file).parent().unwrap_or(Path::new(""));
        directory.join(path).display().to_string()
    };
    let (mut operation, mut templates) = match &test.operation {
        Source::Path(path) => {
            files::operation_and_templates(&beside(path)).map_err(|error| format!("operation: {error}"))?
        }
        Source::Inline(fields) => {
            let mut object = json!({
                "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation", "metadata": {"name": "test"},
            });
            if let Value::Object(object) = &mut object {
                object.extend(fields.clone());
            }
            (object, vec![])
        }
    };
    for path in &test.templates {
        let text = files::read(&beside(path)).map_err(|error| format!("templates: {error}"))?;
        let documents = files::documents(&text).map_err(|error| format!("templates: {path}: {error}"))?;
        templates.extend(documents.into_iter().filter(files::is_template));
    }
    if !test.input.is_empty()
        && let Some(spec) = operation.get_mut("spec").and_then(Value::as_object_mut)
        && let Value::Object(input) = spec.entry("input").or_insert_with(|| Value::Object(Map::new()))
    {
        input.extend(test.input.clone());
    }
    let named = templates.into_iter().map(|template| {
        let name = template["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        (name, template)
    });
    Ok((operation, named.collect()))
}

/// Names of steps in a test that its operation doesn't have: a test of them would say nothing.
fn unknown(test: &Test, workflow: &Workflow) -> Vec<String> {
    let expected = &test.expect;
    let named = test.mocks.keys().map(|name| ("mocks", name));
    let named = named.chain(expected.steps.keys().map(|name| ("expect.steps", name)));
    let named = named.chain(expected.calls.keys().map(|name| ("expect.calls", name)));
    let named = named.chain(expected.order.iter().map(|name| ("expect.order", name)));
    let names: Vec<&str> = workflow.steps.iter().map(|step| step.name.as_str()).collect();
    named
        .filter(|(_, name)| workflow.step(name).is_none())
        .map(|(field, name)| format!("{field}: there is no step {name}; there are {}", names.join(", ")))
        .collect()
}

/// What happened, as lines.
fn history(came: &Simulated, start: Time) -> Vec<String> {
    let line = |entry: &crate::api::HistoryEntry| {
        let step = entry.step.as_deref().unwrap_or_default();
        let attempt = if entry.attempt > 0 {
            format!(" #{}", entry.attempt)
        } else {
            String::new()
        };
        let message = entry
            .message
            .as_deref()
            .map(|message| format!("  {}", one_line(message)));
        format!(
            "{:>8}  {:<15} {step}{attempt}{}",
            times::short(entry.time.since(start)),
            format!("{:?}", entry.event),
            message.unwrap_or_default()
        )
    };
    came.history
        .iter()
        .map(|entry| line(entry).trim_end().to_owned())
        .collect()
}

impl Verdict {
    fn render(&self) -> String {
        let place = paint(FAINT, &format!("{}:{}", self.file, self.line));
        let took = times::short(Duration::from_secs_f64(self.simulated_seconds));
        if self.ok {
            return format!(
                "{}      {place} {} {}\n",
                paint(GOOD, "ok"),
                self.name,
                paint(FAINT, &format!("({took})"))
            );
        }
        let mut text = format!("{}  {place} {}\n", paint(BAD, "FAILED"), paint(BOLD, &self.name));
        for problem in &self.problems {
            text.push_str(&format!("  {}\n", problem.replace('\n', "\n  ")));
        }
        if !self.history.is_empty() {
            text.push_str(&format!(
                "  {}\n",
                paint(FAINT, "what happened, and how long after the start:")
            ));
        }
        for line in &self.history {
            text.push_str(&format!("  {line}\n"));
        }
        text
    }
}

/// JUnit's XML.
fn junit(verdicts: &[Verdict]) -> String {
    let escaped = |text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        text.replace('"', "&quot;").replace('\n', "&#10;")
    };
    let failed = verdicts.iter().filter(|verdict| !verdict.ok).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"holdfast\" tests=\"{}\" failures=\"{failed}\">\n",
        verdicts.len()
    );
    for verdict in verdicts {
        let (class, name) = (escaped(&verdict.file), escaped(&verdict.name));
        text.push_str(&format!("  <testcase classname=\"{class}\" name=\"{name}\""));
        if verdict.ok {
            text.push_str("/>\n");
            continue;
        }
        let first = verdict.problems.first().map(String::as_str).unwrap_or_default();
        let all = [&verdict.problems[..], &verdict.history[..]].concat().join("\n");
        text.push_str(&format!(
            ">\n    <failure message=\"{}\">{}</failure>\n  </testcase>\n",
            escaped(first),
            escaped(&all)
        ));
    }
    text + "</testsuite>\n"
}

#[cfg(test)]
mod tests;
