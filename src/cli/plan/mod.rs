//! `plan`: what an operation would do, with nothing done.

mod planned;
mod rehearsal;
mod walk;
mod words;

use std::process::ExitCode;

use anstyle::Style;
use clap::Args;
use kube::api::ListParams;
use serde::Serialize;
use serde_json::{Map, Value, json};

use self::planned::{Planned, Walked, What};
use self::rehearsal::Rehearsal;
use self::walk::walk;
use super::cluster::{Cluster, quoted};
use super::lint::Linter;
use super::output::{BAD, BOLD, BUSY, FAINT, Format, GOOD, Output, PLAIN, WARN, machine, paint};
use super::run::of_template;
use super::table::one_line;
use super::tree::{Row, rows, wrapped};
use super::{CliError, NAME, files, values};
use crate::api::{CloudOperation, OperationLock};
use crate::engine::{self, Identity, InvalidSpec, Workflow};

/// How many changed fields, and items of a list, are shown in lines; -o json has all.
const MOST_CHANGES: usize = 5;
const MOST_ITEMS: usize = 20;

#[derive(Args)]
#[group(id = "what", required = true, multiple = false)]
pub struct Which {
    /// The file, with one CloudOperation, and the template that it runs if that isn't in the cluster; or with a template
    /// alone; - for standard input.
    #[arg(short, long, value_name = "FILE")]
    filename: Option<String>,
    /// A template in the cluster, in place of a file: what an operation of it would do.
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
}

#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    what: Which,
    /// A field of spec.input, in place of what is there; the value is JSON, or else text. Can be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    input: Vec<String>,
    /// In another form.
    #[arg(short, long, value_parser = Format::among(&[Format::Json, Format::Yaml]))]
    output: Option<Format>,
}

impl Plan {
    pub async fn run(&self, cluster: &Cluster, out: &mut Output) -> Result<ExitCode, CliError> {
        let (document, beside) = self.read()?;
        cluster.is_for(&document)?;
        let operation = match valid(&document, beside.iter()) {
            Ok(operation) => operation,
            Err(wrong) => return self.invalid(out, &wrong),
        };
        let mut spec = operation.spec.clone();
        if let Some(reference) = &spec.template_ref {
            let of_file = |template: &&Value| template["metadata"]["name"] == json!(reference.name);
            let template = match beside.iter().find(of_file) {
                Some(template) => template["spec"].as_object().cloned().unwrap_or_default(),
                None => template(cluster, &reference.name).await?,
            };
            let resolved = engine::resolve(&spec, &template);
            if let Some(wrong) = resolved.invalid {
                return self.invalid(out, &[wrong]);
            }
            spec = resolved.spec;
        }
        let workflow = match Workflow::compile_all(&spec) {
            Ok(workflow) => workflow,
            Err(wrong) => return self.invalid(out, &wrong),
        };
        let metadata = &operation.metadata;
        let identity = Identity {
            namespace: cluster.namespace.clone(),
            name: metadata
                .name
                .clone()
                .or(metadata.generate_name.clone())
                .unwrap_or_default(),
            uid: "00000000-0000-0000-0000-000000000000".into(),
            ..Identity::default()
        };
        let turn = match &operation.spec.concurrency {
            None => None,
            Some(concurrency) => match engine::concurrency_key(concurrency, &operation.spec.input, &identity) {
                Err(wrong) => return self.invalid(out, &[wrong]),
                Ok(key) => {
                    let (holders, unknown) = match holders(cluster, &key).await {
                        Ok(holders) => (holders, None),
                        Err(error) => (vec![], Some(error.to_string())),
                    };
                    let max = concurrency.max.unwrap_or(1);
                    Some(Turn {
                        key,
                        max,
                        holders,
                        unknown,
                    })
                }
            },
        };
        let walked = walk(&workflow, &spec, &identity, &Rehearsal::new(cluster.client.clone())).await;
        match self.output {
            None => {
                let mut text = render(&identity, &spec.input, turn.as_ref(), &walked, out.width());
                text.push_str(&self.hint(cluster, spec.service_account(), &walked));
                out.print(&text)?;
            }
            Some(form) => {
                let mut plan = json!({
                    "operation": identity.name, "namespace": identity.namespace,
                    "serviceAccountName": spec.service_account(), "input": spec.input,
                });
                if let Some(turn) = &turn {
                    plan["concurrency"] = json!(turn);
                }
                if let (Value::Object(plan), Ok(Value::Object(walked))) = (&mut plan, serde_json::to_value(&walked)) {
                    plan.extend(walked);
                }
                out.print(&machine(&plan, form)?)?;
            }
        }
        let bad = all(&walked).any(|step| matches!(step.action, What::Refused | What::Fails));
        Ok(ExitCode::from(u8::from(bad)))
    }

    fn invalid(&self, out: &mut Output, wrong: &[InvalidSpec]) -> Result<ExitCode, CliError> {
        if let Some(form) = self.output {
            let problem = |wrong: &InvalidSpec| json!({"field": wrong.field, "message": wrong.message});
            let wrong: Vec<Value> = wrong.iter().map(problem).collect();
            out.print(&machine(&json!({"invalid": wrong}), form)?)?;
            return Ok(ExitCode::from(1));
        }
        for InvalidSpec { field, message } in wrong {
            out.print(&format!("{} {}: {message}\n", paint(BAD, "✗"), paint(BOLD, field)))?;
        }
        let input = |wrong: &InvalidSpec| wrong.field == "spec.input" || wrong.field.starts_with("spec.input.");
        let hint = if wrong.iter().any(input) {
            " Input is given by --input NAME=VALUE."
        } else {
            ""
        };
        anstream::eprintln!("It would end as InvalidSpec, before anything is done.{hint}");
        Ok(ExitCode::from(1))
    }

    /// How to try it with other rights, where these were too few.
    fn hint(&self, cluster: &Cluster, account: &str, walked: &Walked) -> String {
        let denied = |step: &Planned| step.action == What::Refused && step.message.starts_with("AccessDenied");
        let account = format!("system:serviceaccount:{}:{account}", cluster.namespace);
        if !all(walked).any(denied) || cluster.flags.cluster.contains(&format!("--as {account}")) {
            return String::new();
        }
        format!(
            "This was tried with your rights. The operation acts as its service account; to try with that one's, if you may:\n    {NAME} plan {}{} --as {account}\n",
            match (&self.what.filename, &self.what.template) {
                (Some(file), _) => format!("-f {}", quoted(file)),
                (None, template) => format!("--template {}", template.as_deref().unwrap_or_default()),
            },
            cluster.flags
        )
    }

    /// The operation, and the templates beside it.
    fn read(&self) -> Result<(Value, Vec<Value>), CliError> {
        let (mut operation, beside) = match (&self.what.filename, &self.what.template) {
            (Some(file), _) => files::operation_or_template(file)?,
            (None, template) => (of_template(template.as_deref().unwrap_or_default(), None), vec![]),
        };
        values::set_input(&mut operation, &self.input)?;
        Ok((operation, beside))
    }
}

/// The operation, if nothing is wrong with it and the templates beside it.
fn valid<'a>(document: &Value, beside: impl Iterator<Item = &'a Value>) -> Result<CloudOperation, Vec<InvalidSpec>> {
    let own = |message: String| {
        vec![InvalidSpec {
            field: String::new(),
            message,
        }]
    };
    let linter = Linter::new(std::iter::empty()).map_err(|error| own(error.to_string()))?;
    let mut wrong = linter.problems(document).unwrap_or_default();
    for template in beside {
        let name = template["metadata"]["name"].as_str().unwrap_or_default();
        let problems = linter.problems(template).unwrap_or_default().into_iter();
        wrong.extend(problems.map(|(field, message)| (format!("template {name}: {field}"), message)));
    }
    if wrong.is_empty() {
        return serde_json::from_value(document.clone()).map_err(|error| own(error.to_string()));
    }
    let wrong = wrong.into_iter().map(|(field, message)| InvalidSpec { field, message });
    Err(wrong.collect())
}

/// What an operation that excludes others waits for.
#[derive(Serialize)]
struct Turn {
    key: String,
    max: i32,
    /// The operations that hold the key now.
    holders: Vec<String>,
    /// Why it isn't known who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
}

/// Who holds a key.
async fn holders(cluster: &Cluster, key: &str) -> Result<Vec<String>, CliError> {
    let locks = cluster.api::<OperationLock>().list(&ListParams::default()).await;
    let locks = locks.map_err(CliError::cluster("OperationLocks can't be read"))?.items;
    let of_key = locks.into_iter().filter(|lock| lock.spec.key == key);
    Ok(of_key
        .flat_map(|lock| lock.spec.holders)
        .map(|holder| holder.name)
        .collect())
}

async fn template(cluster: &Cluster, name: &str) -> Result<Map<String, Value>, CliError> {
    let found = cluster.template(name).await;
    let found = found.map_err(CliError::cluster(format!("OperationTemplate {name} can't be read")))?;
    found.ok_or_else(|| {
        CliError::Usage(format!(
            "there is no OperationTemplate {name} in namespace {}: apply it, or put it into the file, beside the operation",
            cluster.namespace
        ))
    })
}

/// Every step and item.
fn all(walked: &Walked) -> impl Iterator<Item = &Planned> {
    let mut left: Vec<&Planned> = walked.steps.iter().chain(&walked.undo).chain(&walked.finally).collect();
    left.reverse();
    std::iter::from_fn(move || {
        let step = left.pop()?;
        left.extend(step.items.iter().rev());
        Some(step)
    })
}

fn render(
    identity: &Identity,
    input: &Map<String, Value>,
    turn: Option<&Turn>,
    walked: &Walked,
    width: Option<usize>,
) -> String {
    let mut text = format!(
        "{} in namespace {}: a plan, nothing was changed\n",
        paint(BOLD, &identity.name),
        identity.namespace
    );
    if !input.is_empty() {
        let input = Value::Object(input.clone()).to_string();
        text.push_str(&format!("{}\n", wrapped(&input, "input: ", "       ", width)));
    }
    if let Some(Turn {
        key,
        max,
        holders,
        unknown,
    }) = turn
    {
        let held = match (unknown, holders.as_slice()) {
            (Some(why), _) => format!("; by whom it is held isn't known: {why}"),
            (None, []) => String::new(),
            (None, holders) => format!("; held now by {}", holders.join(", ")),
        };
        text.push_str(&format!("concurrency: {key:?}, {max} at a time{held}\n"));
    }
    let part = |steps: &[Planned]| steps.iter().flat_map(|step| lines(step, 0)).collect::<Vec<_>>();
    let mut parts = vec![("", part(&walked.steps))];
    for (title, steps) in [
        ("undo, if a step failed and the failure policy says so", &walked.undo),
        ("finally", &walked.finally),
    ] {
        if !steps.is_empty() {
            parts.push((title, part(steps)));
        }
    }
    text.push_str(&rows(&parts, width));
    if let Some(output) = &walked.output {
        text.push_str(&format!(
            "\n{}\n",
            wrapped(&output.to_string(), "output: ", "        ", width)
        ));
    }
    text.push_str(&format!("\n{}\n", summary(walked)));
    text
}

/// How many would do what.
fn summary(walked: &Walked) -> String {
    let mut counts: Vec<(String, usize)> = vec![];
    for step in all(walked).filter(|step| step.items.is_empty() && step.action != What::Undo) {
        let word = look(step.action).2.to_owned();
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    counts.join(", ")
}

/// How a step's action looks, and what it is called.
fn look(action: What) -> (&'static str, Style, &'static str) {
    match action {
        What::Computed => ("✓", GOOD, "computed"),
        What::Holds => ("✓", GOOD, "holds"),
        What::Read => ("✓", GOOD, "read"),
        What::Create => ("+", BUSY, "would create"),
        What::Change => ("~", WARN, "would change"),
        What::Delete => ("-", BAD, "would delete"),
        What::NoChange => ("=", GOOD, "no change"),
        What::Call => ("→", BUSY, "would call"),
        What::Wait => ("…", PLAIN, "would wait"),
        What::Items => ("↻", PLAIN, "would run"),
        What::Skipped => ("–", FAINT, "skipped"),
        What::Unknown => ("?", WARN, "not known yet"),
        What::Undo => ("○", FAINT, "would undo"),
        What::Refused => ("✗", BAD, "refused"),
        What::Fails => ("✗", BAD, "fails"),
        What::FailsAndGoesOn => ("✗", WARN, "fails, and goes on"),
        What::NotReached => ("○", FAINT, "not reached"),
    }
}

fn lines(step: &Planned, depth: usize) -> Vec<Row> {
    let mut rows = vec![line(step, depth)];
    for item in step.items.iter().take(MOST_ITEMS) {
        rows.extend(lines(item, depth + 1));
    }
    let more = step.items.len().saturating_sub(MOST_ITEMS);
    if more > 0 {
        let more = format!("and {more} more: -o json has them");
        rows.push(Row::new(depth + 1, ("…", FAINT), "", "", more));
    }
    rows
}

fn line(step: &Planned, depth: usize) -> Row {
    let (symbol, style, word) = look(step.action);
    let mut detail = step.message.clone();
    if !step.changes.is_empty() {
        let shown: Vec<String> = step
            .changes
            .iter()
            .take(MOST_CHANGES)
            .map(ToString::to_string)
            .collect();
        let more = step.changes.len().saturating_sub(MOST_CHANGES);
        let more = if more > 0 {
            format!(", and {more} more")
        } else {
            String::new()
        };
        detail = format!("{detail}: {}{more}", shown.join(", "));
    }
    if let Some(output) = step.output.as_ref().filter(|_| step.action == What::Read) {
        detail = format!("{detail} → {}", Value::Object(output.clone()));
    }
    let after: Vec<&str> = step.known_after.iter().map(String::as_str).collect();
    let after = after.join(", ");
    match &step.when {
        Some(when) => detail = format!("{detail}, if {when} (known after {after})"),
        None if !after.is_empty() => detail = format!("{detail} (known after {after})"),
        None => {}
    }
    Row::new(depth, (symbol, style), &step.name, word, one_line(&detail))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{said, server};
    use super::*;

    #[tokio::test]
    async fn a_template_alone_is_planned_with_its_defaults_and_the_input_that_is_given() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("template.yaml");
        let template = "{apiVersion: holdfast.dev/v1alpha1, kind: OperationTemplate, metadata: {name: t}, spec: {
            inputSchema: {type: object, required: [group], properties: {size: {type: integer, default: 3}}},
            steps: [{name: fits, assert: input.size > 2}], output: {group: '${input.group}'}}}";
        std::fs::write(&path, template).unwrap();
        let plan = format!("plan -f {}", path.display());
        let missing = said(&server(), &plan).await;
        assert_eq!(missing.code, ExitCode::from(1));
        assert_eq!(missing.out, "✗ spec.input.group: the template requires it\n");
        let planned = said(&server(), &format!("{plan} --input group=web")).await;
        assert_eq!(planned.code, ExitCode::SUCCESS, "{}", planned.err);
        let (head, rest) = planned.out.split_once("✓ fits  holds").unwrap();
        assert_eq!(
            head,
            "t- in namespace prod: a plan, nothing was changed\ninput: {\"group\":\"web\",\"size\":3}\n"
        );
        assert!(rest.contains("output: {\"group\":\"web\"}"), "{rest}");

        std::fs::write(&path, template.replace("name: t", "name: t, namespace: other")).unwrap();
        let elsewhere = said(&server(), &plan).await;
        assert_eq!(
            elsewhere.err,
            "what is in the file is for namespace other, and this is prod: give -n other"
        );
    }

    #[tokio::test]
    async fn it_says_which_key_it_needs_and_who_holds_it() {
        let server = server();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.yaml");
        let operation = "{apiVersion: holdfast.dev/v1alpha1, kind: CloudOperation, metadata: {name: web}, spec: {
            input: {group: web}, concurrency: {key: \"'group-' + input.group\", max: 2}, steps: [{name: a, set: {v: 1}}]}}";
        std::fs::write(&path, operation).unwrap();
        let plan = format!("plan -f {}", path.display());
        let free = said(&server, &plan).await.out;
        assert!(free.contains("\nconcurrency: \"group-web\", 2 at a time\n"), "{free}");
        let holder = json!({"name": "other", "uid": "u", "since": "2026-11-24T03:00:00Z"});
        for (key, holders) in [("group-web", json!([holder])), ("group-api", json!([holder]))] {
            let lock: OperationLock = serde_json::from_value(json!({
                "apiVersion": "holdfast.dev/v1alpha1", "kind": "OperationLock",
                "metadata": {"name": key, "namespace": "prod"}, "spec": {"key": key, "holders": holders},
            }))
            .unwrap();
            server.put(&lock);
        }
        let held = said(&server, &plan).await.out;
        assert!(
            held.contains("\nconcurrency: \"group-web\", 2 at a time; held now by other\n"),
            "{held}"
        );
    }
}
