//! `run`: creates an operation from a file, or of a template.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::core::Request;
use serde_json::{Value, json};

use super::cluster::{Cluster, creation};
use super::output::Output;
use super::{CliError, files, values, wait};
use crate::api::{CloudOperation, OperationTemplate};
use kube::Resource;

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
                        "there is no OperationTemplate {template} in namespace {namespace}, and the operation would wait for it"
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
}
