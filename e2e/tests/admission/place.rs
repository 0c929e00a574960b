//! A namespace for one test, and what is applied to it.

use std::time::{Duration, Instant};

use holdfast_e2e::kubectl::{Printed, kubectl, kubectl_with};
use serde_json::{Value, json};

/// A namespace for one test.
pub struct Place {
    pub namespace: String,
}

impl Place {
    pub async fn new(name: &str) -> Self {
        holdfast_e2e::install::present().await;
        let namespace = format!("admission-{name}-{}", std::process::id());
        let created = kubectl(&["create", "namespace", &namespace]).await;
        assert!(created.ok, "{}", created.err);
        Self { namespace }
    }

    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> Printed {
        let mut all = vec!["--namespace", &self.namespace];
        all.extend(arguments);
        kubectl_with(input, &all).await
    }

    /// What the API server would say to an operation with this spec.
    pub async fn try_spec(&self, spec: &str) -> Printed {
        self.kubectl(&["create", "--dry-run=server", "-f", "-"], &manifest("tried", spec))
            .await
    }

    /// Applies an operation with this spec.
    pub async fn apply(&self, spec: &str) -> Printed {
        self.kubectl(&["apply", "-f", "-"], &manifest("operation", spec)).await
    }

    pub async fn merge(&self, patch: &Value) -> Printed {
        self.kubectl(
            &[
                "patch",
                "cop",
                "operation",
                "--type=merge",
                "--patch",
                &patch.to_string(),
            ],
            "",
        )
        .await
    }

    /// Repeats it until its answer is as wanted.
    pub async fn until(
        &self,
        what: &str,
        arguments: &[&str],
        input: &str,
        wanted: impl Fn(&Printed) -> bool,
    ) -> Printed {
        let started = Instant::now();
        loop {
            let printed = self.kubectl(arguments, input).await;
            if wanted(&printed) {
                return printed;
            }
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "it never came true that {what}: {arguments:?}: {}{}",
                printed.out,
                printed.err
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The columns of the table of these objects.
    pub async fn columns(&self, resource: &str) -> Vec<String> {
        let listed = self.kubectl(&["get", resource], "").await;
        assert!(listed.ok, "{resource}: {}", listed.err);
        let header = listed.out.lines().next().unwrap_or_default();
        header.split_whitespace().map(str::to_owned).collect()
    }

    pub async fn end(self) {
        let deleted = kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]).await;
        assert!(deleted.ok, "{}", deleted.err);
    }
}

/// An operation's manifest.
pub fn manifest(name: &str, spec: &str) -> String {
    let spec: Value = serde_yaml::from_str(spec).unwrap_or_else(|error| panic!("{error}\n{spec}"));
    json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

/// A spec of one step that does nothing, without its braces.
pub const STEP: &str = "steps: [{name: a, set: {v: 1}}]";
