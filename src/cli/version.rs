//! `version`: of this program, and of what is in the cluster.

use std::process::ExitCode;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt};

use super::CliError;
use super::cluster::Cluster;
use super::output::Output;
use crate::api::SCHEMA_ANNOTATION;

pub async fn run(cluster: Result<Cluster, CliError>, out: &mut Output) -> Result<ExitCode, CliError> {
    out.print(&format!("kubectl-holdfast {}\n", env!("CARGO_PKG_VERSION")))?;
    let api: Api<CustomResourceDefinition> = Api::all(cluster?.client);
    let mut code = ExitCode::SUCCESS;
    for own in crate::api::crds() {
        let name = own.name_any();
        let schema = schema(&own).unwrap_or_default();
        let there = match api.get_opt(&name).await {
            Ok(Some(crd)) => match self::schema(&crd) {
                Some(number) if number == schema => format!("schema {number}"),
                Some(number) => format!("schema {number}; this program was built with {schema}"),
                None => "no schema number".into(),
            },
            Ok(None) => {
                code = ExitCode::from(2);
                "not installed".into()
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                "not known: you may not read CustomResourceDefinitions".into()
            }
            Err(error) => {
                return Err(CliError::Cluster {
                    what: format!("CustomResourceDefinition {name} can't be read"),
                    error,
                });
            }
        };
        out.print(&format!("{name}: {there}\n"))?;
    }
    Ok(code)
}

fn schema(crd: &CustomResourceDefinition) -> Option<String> {
    crd.annotations().get(SCHEMA_ANNOTATION).cloned()
}
