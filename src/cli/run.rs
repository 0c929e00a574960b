//! `run`: creates an operation from a file, or of a template.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use kube::api::DynamicObject;
use kube::core::Request;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::cluster::{Cluster, creation};
use super::output::Output;
use super::{CliError, files, values, wait};
use crate::api::{CloudOperation, OperationTemplate};
use crate::engine::{self, Workflow};

#[derive(Args)]
#[group(id = "what", required = true, multiple = false)]
pub struct Which {
    /// The file, with one CloudOperation; - for standard input.
    #[arg(short, long, value_name = "FILE")]
    filename: Option<String>,
    /// A template in the cluster, in place of a file.
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
}

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    what: Which,
    /// What the operation of the template is called; the template's name and an ending that no other has if absent.
    #[arg(long = "name", value_name = "NAME", conflicts_with = "filename")]
    called: Option<String>,
    #[command(flatten)]
    then: Then,
}

/// What an operation is created with, and what is done then.
#[derive(Args)]
pub struct Then {
    /// A field of spec.input, in place of what is there; the value is JSON, or else text. Can be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    input: Vec<String>,
    /// Waits until it has ended, and exits as `wait` does.
    #[arg(long)]
    wait: bool,
    /// How long --wait waits at most: 90s, 10m, 2h. No limit if absent.
    #[arg(long, requires = "wait", value_parser = wait::duration)]
    timeout: Option<Duration>,
}

impl Run {
    pub async fn run(&self, cluster: &Cluster, out: &mut Output) -> Result<ExitCode, CliError> {
        let mut operation = match (&self.what.filename, &self.what.template) {
            (Some(file), _) => {
                let (operation, templates) = files::operation_and_templates(file)?;
                for template in &templates {
                    let name = template["metadata"]["name"].as_str().unwrap_or_default();
                    anstream::eprintln!(
                        "OperationTemplate {name} in {file} is not created: run creates the operation alone; kubectl apply -f it first"
                    );
                }
                operation
            }
            (None, template) => {
                let template = template.as_deref().unwrap_or_default();
                let found = cluster.api::<OperationTemplate>().get_metadata_opt(template).await;
                if matches!(found, Ok(None)) {
                    let namespace = &cluster.namespace;
                    return Err(CliError::Usage(format!(
                        "there is no OperationTemplate {template} in namespace {namespace}, and the operation would wait for it. Apply it first; kubectl get operationtemplates lists what is there"
                    )));
                }
                of_template(template, self.called.as_deref())
            }
        };
        cluster.is_for(&operation)?;
        self.then.set_input(&mut operation)?;
        self.then.create(cluster, out, &operation).await
    }
}

impl Then {
    /// Sets the fields of `spec.input` that are given.
    ///
    /// # Errors
    /// When one is no pair, or there is no spec to set it in.
    pub fn set_input(&self, operation: &mut Value) -> Result<(), CliError> {
        values::set_input(operation, &self.input)
    }

    /// Creates the operation, says its name, and waits if that is asked for.
    ///
    /// # Errors
    /// When it is refused, or can't be waited for.
    pub async fn create(&self, cluster: &Cluster, out: &mut Output, operation: &Value) -> Result<ExitCode, CliError> {
        check(cluster, operation).await?;
        let name = create(cluster, operation).await?.name_any();
        out.print(&format!("cloudoperation.holdfast.dev/{name} created\n"))?;
        if !self.wait {
            return Ok(ExitCode::SUCCESS);
        }
        wait::until_ended(cluster, out, &name, self.timeout).await
    }
}

/// An operation of a template. Without a name each is a new one.
pub fn of_template(template: &str, name: Option<&str>) -> Value {
    let metadata = match name {
        Some(name) => json!({"name": name}),
        None => json!({"generateName": format!("{template}-")}),
    };
    json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": metadata,
        "spec": {"templateRef": {"name": template}},
    })
}

/// Says what an operation would end as InvalidSpec for, before there is one.
async fn check(cluster: &Cluster, operation: &Value) -> Result<(), CliError> {
    // What is no operation at all, the API server says in its own words.
    let Ok(CloudOperation { metadata, mut spec, .. }) = serde_json::from_value(operation.clone()) else {
        return Ok(());
    };
    let mut wrong = vec![];
    if let Some(reference) = &spec.template_ref {
        // Who may not read the template may run it: the operator reads it.
        let Ok(Some(template)) = cluster.template(&reference.name).await else {
            return Ok(());
        };
        let resolved = engine::resolve(&spec, &template);
        spec = resolved.spec;
        wrong.extend(resolved.invalid);
    }
    if wrong.is_empty() {
        wrong.extend(Workflow::compile_all(&spec).err().into_iter().flatten());
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let lines = wrong.iter().map(|wrong| format!("\n  {wrong}"));
    let name = metadata.name.or(metadata.generate_name).unwrap_or_default();
    Err(CliError::Usage(format!(
        "CloudOperation {name} was not created, as it would end as InvalidSpec:{}",
        lines.collect::<String>()
    )))
}

/// Creates the operation as it is written: the API server refuses fields that it doesn't know.
async fn create(cluster: &Cluster, operation: &Value) -> Result<DynamicObject, CliError> {
    let metadata = &operation["metadata"];
    let name = metadata["name"]
        .as_str()
        .or(metadata["generateName"].as_str())
        .unwrap_or_default();
    let what = CliError::cluster(format!("CloudOperation {name} can't be created"));
    let path = CloudOperation::url_path(&(), Some(&cluster.namespace));
    let body = json!(operation).to_string().into_bytes();
    let request = Request::new(path).create(&creation(), body);
    let mut request =
        request.map_err(|error| CliError::Usage(format!("CloudOperation {name} can't be sent: {error}")))?;
    let strict = format!("{}&fieldValidation=Strict", request.uri());
    *request.uri_mut() = strict
        .parse()
        .map_err(|error| CliError::Usage(format!("{strict} is no address: {error}")))?;
    cluster.client.request::<DynamicObject>(request).await.map_err(what)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::fixtures::{said, server};
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn line(words: &str) -> Result<Run, clap::Error> {
        let words = std::iter::once("run").chain(words.split_whitespace());
        Line::try_parse_from(words).map(|line| line.run)
    }

    #[test]
    fn an_operation_of_a_template_has_what_the_line_says() {
        let run = line("--template resize --name resize-web --input group=web --input size=12 --wait").unwrap();
        let mut operation = of_template(run.what.template.as_deref().unwrap(), run.called.as_deref());
        run.then.set_input(&mut operation).unwrap();
        assert_eq!(
            operation,
            json!({
                "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
                "metadata": {"name": "resize-web"},
                "spec": {"templateRef": {"name": "resize"}, "input": {"group": "web", "size": 12}},
            })
        );
        assert_eq!(
            of_template("resize", None)["metadata"],
            json!({"generateName": "resize-"})
        );
    }

    #[test]
    fn a_file_or_a_template_is_run_and_only_the_template_takes_a_name() {
        assert!(line("-f resize.yaml").is_ok());
        for wrong in [
            "",
            "--name web",
            "-f resize.yaml --template resize",
            "-f resize.yaml --name web",
        ] {
            assert!(line(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn what_would_be_invalid_is_not_created() {
        let server = server();
        let template =
            "{inputSchema: {type: object, required: [group]}, steps: [{name: a, set: {v: '${input.group}'}}]}";
        server.put(
            &serde_json::from_value::<OperationTemplate>(json!({
                "apiVersion": "holdfast.dev/v1alpha1", "kind": "OperationTemplate",
                "metadata": {"name": "resize", "namespace": "prod"},
                "spec": serde_yaml::from_str::<Value>(template).unwrap(),
            }))
            .unwrap(),
        );
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("web.yaml");
        let cycle = "{apiVersion: holdfast.dev/v1alpha1, kind: CloudOperation, metadata: {name: web}, spec: {steps: [
            {name: a, set: {v: '${input.('}}, {name: b, set: {v: '${steps.c.output}'}}]}}";
        std::fs::write(&file, cycle).unwrap();
        for (line, name, fields) in [
            (
                "run --template resize".to_owned(),
                "resize-",
                ["spec.input.group"].as_slice(),
            ),
            (
                format!("run -f {}", file.display()),
                "web",
                &["spec.steps[0].set.v", "spec.steps[1].set.v"],
            ),
        ] {
            let refused = said(&server, &line).await;
            assert_eq!(refused.code, ExitCode::from(2), "{line}");
            let (first, lines) = refused.err.split_once('\n').unwrap();
            assert_eq!(
                first,
                format!("CloudOperation {name} was not created, as it would end as InvalidSpec:")
            );
            let named: Vec<_> = lines
                .lines()
                .map(|line| line.trim().split(": ").next().unwrap())
                .collect();
            assert_eq!(named, fields, "{lines}");
        }
        assert!(server.list::<CloudOperation>().is_empty());
        let created = said(&server, "run --template resize --input group=web").await;
        assert_eq!(created.code, ExitCode::SUCCESS, "{}", created.err);
    }
}
