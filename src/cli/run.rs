//! `run`: creates an operation from a file.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::api::PostParams;
use kube::core::Request;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::output::Output;
use super::{CliError, files, values, wait};
use crate::api::CloudOperation;
use kube::Resource;

#[derive(Args)]
pub struct Run {
    /// The file, with one CloudOperation; - for standard input.
    #[arg(short, long, value_name = "FILE")]
    filename: String,
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
        let mut operation = files::operation(&self.filename)?;
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

/// Creates the operation as it is written: the API server refuses fields that it doesn't know.
async fn create(cluster: &Cluster, operation: &Value) -> Result<DynamicObject, CliError> {
    let metadata = &operation["metadata"];
    let name = metadata["name"]
        .as_str()
        .or(metadata["generateName"].as_str())
        .unwrap_or_default();
    let what = CliError::cluster(format!("CloudOperation {name} can't be created"));
    let params = PostParams {
        field_manager: Some("kubectl-holdfast".into()),
        ..PostParams::default()
    };
    let path = CloudOperation::url_path(&(), Some(&cluster.namespace));
    let body = json!(operation).to_string().into_bytes();
    let request = Request::new(path).create(&params, body);
    let mut request =
        request.map_err(|error| CliError::Usage(format!("CloudOperation {name} can't be sent: {error}")))?;
    let strict = format!("{}&fieldValidation=Strict", request.uri());
    *request.uri_mut() = strict
        .parse()
        .map_err(|error| CliError::Usage(format!("{strict} is no address: {error}")))?;
    cluster.client.request::<DynamicObject>(request).await.map_err(what)
}
