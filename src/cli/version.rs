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
                let what = match &error {
                    kube::Error::Api(_) => format!("CustomResourceDefinition {name} can't be read"),
                    _ => "the server can't be reached".into(),
                };
                return Err(CliError::Cluster { what, error });
            }
        };
        out.print(&format!("{name}: {there}\n"))?;
    }
    Ok(code)
}

fn schema(crd: &CustomResourceDefinition) -> Option<String> {
    crd.annotations().get(SCHEMA_ANNOTATION).cloned()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{said, server};
    use super::*;

    #[tokio::test]
    async fn the_programs_own_version_is_known_without_a_cluster() {
        let own = format!("kubectl-holdfast {}\n", env!("CARGO_PKG_VERSION"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        std::fs::write(
            &file,
            "{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}],
              clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: a, user: {}}]}",
        )
        .unwrap();
        for (file, reason) in [
            (file.display().to_string(), "the server can't be reached: "),
            (format!("{}.none", file.display()), "no cluster to talk to: "),
        ] {
            let said = said(&server(), &format!("version --kubeconfig {file}")).await;
            assert_eq!((said.code, &said.out), (ExitCode::from(2), &own));
            assert!(said.err.starts_with(reason), "{}", said.err);
        }
    }
}
