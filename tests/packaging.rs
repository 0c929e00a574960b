//! What people install is current and small enough, seen without a cluster: generated files equal what generates them,
//! and the samples are operations.

use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast::api::{CloudOperation, crds};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The limit of an annotation; plain `kubectl apply` keeps the whole object in one.
const ANNOTATION: usize = 256 * 1024;

#[test]
fn crds_are_small_enough_for_plain_kubectl_apply() {
    for crd in crds() {
        let name = crd.metadata.name.clone().unwrap();
        let json = serde_json::to_string(&crd).unwrap().len();
        assert!(json <= ANNOTATION * 3 / 4, "{name}: {json} bytes of JSON");
    }
}

#[test]
fn every_field_is_described() {
    fn missing(path: &str, schema: &serde_json::Value) -> Vec<String> {
        let fields = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .flat_map(|(name, field)| {
                let path = format!("{path}.{name}");
                let own = field["description"].as_str().is_none_or(str::is_empty);
                own.then(|| path.clone())
                    .into_iter()
                    .chain(missing(&path, field))
                    .collect::<Vec<_>>()
            });
        let entries = ["items", "additionalProperties"]
            .into_iter()
            .map(|entries| &schema[entries]);
        let entries = entries.filter(|entries| entries.is_object());
        let entries = entries.flat_map(|entries| missing(&format!("{path}[]"), entries));
        fields.chain(entries).collect()
    }
    for crd in crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let found = missing(kind, &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
        assert_eq!(found, Vec::<String>::new());
    }
}

#[test]
fn crds_are_what_the_types_say() {
    for crd in crds() {
        let path = root().join(format!("crds/holdfast.dev_{}.yaml", crd.spec.names.plural));
        let written: serde_json::Value = serde_yaml::from_str(&read(&path)).unwrap();
        assert_eq!(
            written,
            serde_json::to_value(&crd).unwrap(),
            "{}: run make crds",
            path.display()
        );
    }
}

#[test]
fn the_charts_copies_are_current() {
    // Given a copy of what the chart is generated from
    let work = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .arg("-R")
        .args(["crds", "config", "charts"].map(|directory| root().join(directory)))
        .arg(work.path())
        .status()
        .unwrap();
    assert!(copied.success());
    // When it is generated again
    let chart = work.path().join("charts/holdfast");
    let generated = Command::new(chart.join("generate")).output().unwrap();
    assert!(
        generated.status.success(),
        "{}",
        String::from_utf8_lossy(&generated.stderr)
    );
    // Then nothing has changed
    let here = root().join("charts/holdfast");
    let names = |directory: &Path| -> Vec<PathBuf> {
        files(directory)
            .iter()
            .map(|path| path.strip_prefix(directory).unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&chart), names(&here));
    for name in names(&here) {
        assert!(
            read(&chart.join(&name)) == read(&here.join(&name)),
            "charts/holdfast/{} is not current: run charts/holdfast/generate",
            name.display()
        );
    }
}

#[test]
fn samples_are_operations() {
    let mut seen = 0;
    for path in files(&root().join("config/samples")) {
        if path.ends_with("kustomization.yaml") || path.ends_with("service_account.yaml") {
            continue;
        }
        if path.ends_with("template.yaml") {
            continue; // of several kinds: the plugin's lint reads them
        }
        let operation: CloudOperation =
            serde_yaml::from_str(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for step in &operation.spec.steps {
            assert!(
                step.step_type().is_some(),
                "{}: step {} has no type",
                path.display(),
                step.name
            );
        }
        seen += 1;
    }
    assert!(seen >= 9, "{seen} samples");
}

#[test]
fn the_versions_agree() {
    let version = env!("CARGO_PKG_VERSION");
    let chart: serde_json::Value = serde_yaml::from_str(&read(&root().join("charts/holdfast/Chart.yaml"))).unwrap();
    assert_eq!(chart["version"], version);
    assert_eq!(chart["appVersion"], version);
    let deployment = read(&root().join("config/operator/deployment.yaml"));
    assert!(
        deployment.contains(&format!("image: holdfast:{version}\n")),
        "config/operator/deployment.yaml: image is not {version}"
    );
}
