//! The examples in the documentation: the API server takes every one, and the engine can run it. Needs no operator.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast::api::CloudOperationSpec;
use holdfast::engine::{self, Workflow};
use holdfast_e2e::kubectl::kubectl_with;
use serde_json::{Value, json};

/// An example, and where it stands.
struct Example {
    place: String,
    manifest: Value,
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = docs
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    pages.push(root.join("README.md"));
    pages.sort();
    pages
}

/// The objects on a page: whole ones, and lists of steps, which stand for an operation of these steps. Templates of Helm
/// are none.
fn examples(page: &Path) -> Vec<Example> {
    let text = fs::read_to_string(page).unwrap();
    let mut examples = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line != "```yaml" {
            continue;
        }
        let block: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .collect();
        let block = block.join("\n");
        if block.contains("{{") {
            continue;
        }
        let place = format!("{}:{}", page.file_name().unwrap().display(), number + 1);
        let value: Value = serde_yaml::from_str(&block).unwrap_or_else(|error| panic!("{place}: {error}"));
        let manifest = match value {
            Value::Array(steps) if steps[0].get("name").is_some() => json!({
                "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
                "metadata": {"name": "example"}, "spec": {"steps": steps},
            }),
            whole if whole["apiVersion"] == "holdfast.dev/v1alpha1" => whole,
            _ => continue,
        };
        examples.push(Example { place, manifest });
    }
    examples
}

#[test]
fn the_engine_can_run_every_example() {
    for Example { place, manifest } in pages().iter().flat_map(|page| examples(page)) {
        let read = |error: serde_json::Error| panic!("{place}: {error}");
        let spec = match manifest["kind"].as_str() {
            Some("CloudOperation") => serde_json::from_value(manifest["spec"].clone()).unwrap_or_else(read),
            Some("OperationTemplate") => {
                let template = manifest["spec"].as_object().cloned().unwrap_or_default();
                let none: CloudOperationSpec = serde_json::from_value(json!({})).unwrap_or_else(read);
                engine::resolve(&none, &template).spec
            }
            _ => continue,
        };
        if spec.template_ref.is_some() {
            continue; // its steps are the template's
        }
        if let Err(error) = Workflow::compile(&spec) {
            panic!("{place}: {error}");
        }
    }
}

#[tokio::test]
async fn the_api_server_takes_every_example() {
    holdfast_e2e::install::present().await;
    let mut seen = 0;
    for Example { place, manifest } in pages().iter().flat_map(|page| examples(page)) {
        let printed = kubectl_with(&manifest.to_string(), &["create", "--dry-run=server", "-f", "-"]).await;
        assert!(printed.ok, "{place}: {}", printed.err);
        seen += 1;
    }
    assert!(seen > 10, "only {seen} examples were found");
}

/// A link to a page or file of the project leads to one, and to a heading that is there.
#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let prose: String = text.split("```").step_by(2).collect(); // what is between is code
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link
                .split_once('#')
                .map_or((link, None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.with_file_name(file)
            };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if let Some(heading) = heading {
                let text = fs::read_to_string(&target).unwrap();
                assert!(
                    anchors(&text).any(|anchor| anchor == heading),
                    "{}: there is no {link}",
                    page.display()
                );
            }
        }
    }
}

/// The anchors that GitHub gives a page's headings.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}
