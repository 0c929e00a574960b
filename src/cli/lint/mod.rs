//! `lint`: everything that can be known to be wrong with an operation, a template or a schedule, from its file alone.

mod lines;
mod rules;
mod schema;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value};

pub use self::lines::Lines;
use self::schema::{Checker, suggestion};
use super::output::{BOLD, GOOD, Output, paint};
use super::{CliError, files};
use crate::api::{CloudOperation, CloudOperationSpec, OperationSchedule, OperationTemplate};
use crate::engine::schedule::Calendar;
use crate::engine::{self, InvalidSpec, Workflow};

/// The kinds that people write.
const KINDS: [&str; 3] = ["CloudOperation", "OperationTemplate", "OperationSchedule"];

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
        let mut texts = vec![];
        for path in &self.files {
            let files = files::find(path)?;
            let searched = files.first() != Some(path);
            for file in files {
                let text = files::read(&file)?;
                // In a directory there are files of many kinds, some of them no YAML that can be read.
                let ours = text.contains("apiVersion: holdfast.dev/") || KINDS.iter().any(|kind| text.contains(kind));
                if !searched || ours {
                    texts.push((file, text));
                }
            }
        }
        let linter = Linter::new(texts.iter().map(|(_, text)| text.as_str()))?;
        let (mut objects, mut problems) = (0, 0);
        for (file, text) in &texts {
            let (found, wrong) = linter.check(text);
            objects += found;
            problems += wrong.len();
            for Problem { line, field, message } in wrong {
                out.print(&format!("{file}:{line}: {}{message}\n", label(&field)))?;
            }
        }
        if problems > 0 {
            return Ok(ExitCode::from(1));
        }
        match objects {
            0 => anstream::eprintln!("There is nothing to check: no {} is in there.", KINDS.join(", no ")),
            1 => anstream::eprintln!("{}: 1 object, no problems", paint(GOOD, "ok")),
            n => anstream::eprintln!("{}: {n} objects, no problems", paint(GOOD, "ok")),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A field in front of what is wrong with it.
fn label(field: &str) -> String {
    if field.is_empty() {
        String::new()
    } else {
        paint(BOLD, field) + ": "
    }
}

/// What checks documents.
pub struct Linter {
    checkers: Vec<(&'static str, Checker)>,
    /// The specs of the templates that are in the files as well.
    templates: BTreeMap<String, Map<String, Value>>,
}

impl Linter {
    /// With the templates that are in these texts.
    ///
    /// # Errors
    /// When a schema can't be used.
    pub fn new<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, CliError> {
        let checkers: Result<_, _> = KINDS
            .into_iter()
            .map(|kind| Ok::<_, CliError>((kind, Checker::new(kind)?)))
            .collect();
        let documents = texts.flat_map(|text| files::documents(text).unwrap_or_default());
        let templates = documents.filter(files::is_template).filter_map(|template| {
            let name = template["metadata"]["name"].as_str()?.to_owned();
            Some((name, template["spec"].as_object()?.clone()))
        });
        Ok(Self {
            checkers: checkers?,
            templates: templates.collect(),
        })
    }

    /// How many objects there are in a text, and what is wrong with them, by line.
    fn check(&self, text: &str) -> (usize, Vec<Problem>) {
        let documents = match files::documents(text) {
            Ok(documents) => documents,
            Err(error) => {
                let line = error.location().map_or(1, |location| location.line());
                let message = format!("this is no YAML: {error}");
                let field = String::new();
                return (0, vec![Problem { line, field, message }]);
            }
        };
        let lines = Lines::new(text);
        let mut objects = 0;
        let mut problems = vec![];
        for (number, document) in documents.iter().enumerate() {
            for (prefix, object) in objects_in(document) {
                let Some(wrong) = self.problems(object) else {
                    continue;
                };
                objects += 1;
                problems.extend(wrong.into_iter().map(|(field, message)| {
                    let field = format!("{prefix}{field}");
                    Problem {
                        line: lines.of(number, &field),
                        field,
                        message,
                    }
                }));
            }
        }
        problems.sort();
        problems.dedup();
        (objects, problems)
    }

    /// What is wrong with an object: fields and messages. Nothing is known of those of other kinds.
    pub fn problems(&self, document: &Value) -> Option<Vec<(String, String)>> {
        let found = files::kind(document)?;
        let Some((kind, checker)) = self.checkers.iter().find(|(kind, _)| *kind == found) else {
            // What Holdfast or its plugin writes is known, though not looked at.
            let known = crate::api::crds().iter().any(|crd| crd.spec.names.kind == found);
            let wrong = || {
                let message = format!(
                    "there is no kind {found:?} in holdfast.dev{}",
                    suggestion(found, &KINDS)
                );
                vec![("kind".into(), message)]
            };
            return (!known).then(wrong);
        };
        // What the operator writes is nobody's to correct: another version may have written it.
        let mut document = document.clone();
        if let Value::Object(fields) = &mut document {
            fields.remove("status");
        }
        let document = &document;
        let mut problems = checker.check(document);
        if has_no_name(document) {
            problems.push(("metadata".into(), "a name is needed, or a generateName".into()));
        }
        rules::check(checker.schema(), document, "", &mut problems);
        let read = match *kind {
            "OperationTemplate" => serde_json::from_value(document.clone()).map(|template| of_template(&template)),
            "OperationSchedule" => serde_json::from_value(document.clone()).map(|schedule| self.of_schedule(&schedule)),
            _ => serde_json::from_value(document.clone()).map(|CloudOperation { spec, .. }| self.of_spec(&spec)),
        };
        let deeper: Vec<InvalidSpec> = match read {
            Ok(deeper) => deeper,
            Err(error) if problems.is_empty() => {
                problems.push(("spec".into(), error.to_string()));
                vec![]
            }
            Err(_) => vec![],
        };
        let new = |wrong: &InvalidSpec| problems.iter().all(|(known, _)| *known != wrong.field);
        let deeper: Vec<InvalidSpec> = deeper.into_iter().filter(new).collect();
        problems.extend(
            deeper
                .into_iter()
                .map(|InvalidSpec { field, message }| (field, message)),
        );
        Some(problems)
    }

    /// What keeps an operation from being executed. Of a template that isn't in the files nothing is known.
    fn of_spec(&self, spec: &CloudOperationSpec) -> Vec<InvalidSpec> {
        let Some(reference) = &spec.template_ref else {
            return Workflow::compile_all(spec).err().unwrap_or_default();
        };
        let template = self.templates.get(&reference.name);
        let invalid = template.and_then(|template| engine::resolve(spec, template).invalid);
        // What is wrong with the template itself is said where it stands.
        let own = invalid.filter(|wrong| wrong.field.starts_with("spec.input") && wrong.field != "spec.inputSchema");
        own.into_iter().collect()
    }

    fn of_schedule(&self, schedule: &OperationSchedule) -> Vec<InvalidSpec> {
        let spec = &schedule.spec;
        let calendar = Calendar::parse(&spec.schedule, spec.time_zone.as_deref()).err();
        let operation = self.of_spec(&spec.operation.spec).into_iter();
        let operation = operation.map(|InvalidSpec { field, message }| InvalidSpec {
            field: format!("spec.operation.{field}"),
            message,
        });
        calendar.into_iter().chain(operation).collect()
    }
}

/// What keeps a template's operations from being executed, whatever their input.
fn of_template(template: &OperationTemplate) -> Vec<InvalidSpec> {
    let value = serde_json::to_value(&template.spec).unwrap_or_default();
    let Ok(spec) = serde_json::from_value::<CloudOperationSpec>(value.clone()) else {
        return vec![]; // not reached: a template has nothing that an operation hasn't
    };
    let resolved = engine::resolve(&spec, &value.as_object().cloned().unwrap_or_default());
    let schema = resolved.invalid.filter(|invalid| invalid.field == "spec.inputSchema");
    schema
        .into_iter()
        .chain(Workflow::compile_all(&resolved.spec).err().into_iter().flatten())
        .collect()
}

/// The objects in a document, each with what leads its fields: it is one itself, or a `List` of some.
fn objects_in(document: &Value) -> Vec<(String, &Value)> {
    let is_list = document["apiVersion"] == "v1" && document["kind"] == "List";
    match document["items"].as_array().filter(|_| is_list) {
        Some(items) => items
            .iter()
            .enumerate()
            .map(|(i, item)| (format!("items[{i}]."), item))
            .collect(),
        None => vec![(String::new(), document)],
    }
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
        let text = std::fs::read_to_string(format!("tests/data/lint/{file}")).unwrap();
        let (_, problems) = Linter::new([text.as_str()].into_iter()).unwrap().check(&text);
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
55: spec.steps[0].set.a: invalid expression at line 1, column 7: expected identifier after '.' (in: input.)
57: spec.steps[0].set.c: \"inputs\" is not defined here; there are input, steps, operation, step
59: spec.steps[1].forEach: invalid expression at line 1, column 6: expected ']' (in: [1, 2)
60: spec.steps[1].when: there is no step named \"lost\"; there are make, each, group, inner, child
60: spec.steps[1].when: there is no step named \"made\"; there are make, each, group, inner, child
61: spec.steps[1].http.success: invalid expression at line 1, column 15: mismatched input '=' expecting <EOF> (in: result.status =)
62: spec.steps[1].output.y: \"results\" is not defined here; there are input, steps, operation, item, index, step, result
64: spec.steps[1].compensate.http.url: steps can only be read by name, as steps.<name>: what a step reads must be known before it starts
68: spec.steps[2].steps[0].assert: invalid expression at line 1, column 23: mismatched input '<EOF>' expecting expression (in: steps.make.output.a ==)
73: spec.steps[2].steps[1].operation.spec.steps[0].set.v: invalid expression: `${` has no matching `}`; write $${ for a literal ${ (in: ${input.)
73: spec.steps[2].steps[1].operation.spec.steps[0].set.w: there is no step named \"b\"; there are a
74: spec.output.x: there is no step named \"nothing\"; there are make, each, group, inner, child
"
        );
    }

    #[test]
    fn one_mistake_is_said_once_and_nothing_that_only_follows_from_it() {
        let linter = Linter::new(std::iter::empty()).unwrap();
        for (spec, field) in [
            (
                "order: Graph, steps: [{name: make, set: {v: 1}}, {name: uses, http: {url: 'http://a/${steps.make.output.v'}, compensate: {http: {url: 'http://a/${steps.make.output.v}'}}}]",
                "spec.steps[1].http.url",
            ),
            (
                "steps: [{name: each, forEach: '[1', http: {url: 'http://a/${item}'}, compensate: {http: {url: 'http://a/${item}'}}}]",
                "spec.steps[0].forEach",
            ),
            (
                "steps: [{name: each, forEach: '[1', steps: [{name: a, set: {v: '${item}'}}]}]",
                "spec.steps[0].forEach",
            ),
            (
                "steps: [{name: group, steps: [{name: a, needs: [a], set: {v: 1}}]}]",
                "spec.steps[0].steps[0].needs",
            ),
            (
                "steps: [{name: a, set: {v: '${steps.last.output.v}'}}], finally: [{name: last, set: {v: 1}}]",
                "spec.steps[0]",
            ),
        ] {
            let text = format!(
                "{{apiVersion: holdfast.dev/v1alpha1, kind: CloudOperation, metadata: {{name: a}}, spec: {{{spec}}}}}"
            );
            let fields: Vec<String> = linter.check(&text).1.into_iter().map(|problem| problem.field).collect();
            assert_eq!(fields, [field], "{spec}");
        }
    }

    #[test]
    fn templates_schedules_and_the_input_of_a_template_beside_it() {
        assert_eq!(
            said("others.yaml"),
            "\
11: spec.steps: needs of a step names a step that isn't there
15: spec.steps[1].needs[0]: there is no step named \"describ\"; there are describe, resize
21: spec: steps is missing
23: spec.step: unknown field; did you mean steps?
32: spec.input.size: 12 is greater than the maximum of 10
38: spec.schedule: \"0 25 * * *\": the hour is \"25\", but 0 to 23 is expected: one, several (1,2), a range (1-5), all (*) or every so many (*/2)
43: spec.operation.spec.input.group: the template requires it
51: spec.timeZone: there is no time zone \"Europe/Berln\": write it as Europe/Berlin
56: spec.operation.spec.steps[0].set.v: invalid expression: `${` has no matching `}`; write $${ for a literal ${ (in: ${input.)
"
        );
    }

    #[test]
    fn a_field_that_is_called_like_a_word_of_the_language_is_seen_by_rules() {
        let operation = |wait: &str| {
            let resource = "{apiVersion: apps/v1, kind: Deployment, name: web}";
            format!(
                "{{apiVersion: holdfast.dev/v1alpha1, kind: CloudOperation, metadata: {{name: a}}, spec: {{steps: [{{name: a, kubernetes: {{wait: {{resource: {resource}, {wait}}}}}}}]}}}}"
            )
        };
        let problems = |wait: &str| Linter::new(std::iter::empty()).unwrap().check(&operation(wait)).1.len();
        assert_eq!(problems("for: Current"), 0);
        assert_eq!(problems("for: Current, until: 'true'"), 1);
    }

    #[test]
    fn kinds_metadata_and_lists() {
        assert_eq!(
            said("objects.yaml"),
            "\
2: kind: there is no kind \"CloudOperaton\" in holdfast.dev; did you mean CloudOperation?
8: metadata.name: must match ^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$
9: metadata.lables: unknown field; did you mean labels?
16: metadata.labels.team: must be text, not a number
26: items[1].spec: spec has exactly one of steps and templateRef
26: items[1].spec.step: unknown field; did you mean steps?
26: items[1].spec.steps: there is nothing to do: at least one step is needed
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
        for entry in std::fs::read_dir("config/samples").unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let (_, problems) = Linter::new([text.as_str()].into_iter()).unwrap().check(&text);
            assert!(problems.is_empty(), "{}: {problems:?}", path.display());
        }
    }
}
