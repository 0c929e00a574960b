//! `graph`: the steps as a drawing, for tools that draw.

use std::fmt::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use kube::ResourceExt;

use super::cluster::Cluster;
use super::output::Output;
use super::{CliError, files};
use crate::api::{CloudOperation, StepState, StepType};
use crate::engine::{self, Role, Workflow, WorkflowStep};

#[derive(Args)]
pub struct Graph {
    /// The operation: its steps are coloured by their states.
    #[arg(required_unless_present = "filename", conflicts_with = "filename")]
    name: Option<String>,
    /// A file with one CloudOperation, and its template if it has one, or with a template alone; - for standard input. Needs
    /// no cluster.
    #[arg(short, long, value_name = "FILE")]
    filename: Option<String>,
    /// For which tool.
    #[arg(short, long, value_enum, default_value = "mermaid")]
    output: Language,
}

/// In which language a graph is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Language {
    /// Mermaid, as GitHub draws it.
    Mermaid,
    /// Graphviz.
    Dot,
}

impl Graph {
    /// True if no cluster is needed.
    pub fn is_offline(&self) -> bool {
        self.filename.is_some()
    }

    /// Draws the operation in a file.
    pub fn run_offline(&self, out: &mut Output) -> Result<ExitCode, CliError> {
        let file = self.filename.clone().unwrap_or_default();
        let wrong = |message: String| CliError::File {
            file: file.clone(),
            message,
        };
        let (operation, templates) = files::operation_or_template(&file)?;
        let mut operation: CloudOperation =
            serde_json::from_value(operation).map_err(|error| wrong(error.to_string()))?;
        let named = operation
            .spec
            .template_ref
            .as_ref()
            .map(|template| template.name.as_str());
        let template = templates
            .iter()
            .find(|template| template["metadata"]["name"].as_str() == named);
        if let Some(template) = template.and_then(|template| template["spec"].as_object()) {
            operation.spec = engine::resolve(&operation.spec, template).spec;
        }
        self.print(out, &operation, wrong)
    }

    pub async fn run(&self, cluster: &Cluster, out: &mut Output) -> Result<ExitCode, CliError> {
        let operation = cluster.operation(self.name.as_deref().unwrap_or_default()).await?;
        let operation = cluster.whole(operation).await;
        let name = operation.name_any();
        self.print(out, &operation, |message| CliError::Usage(format!("{name}: {message}")))
    }

    fn print(
        &self,
        out: &mut Output,
        operation: &CloudOperation,
        wrong: impl Fn(String) -> CliError,
    ) -> Result<ExitCode, CliError> {
        if let Some(template) = operation
            .spec
            .template_ref
            .as_ref()
            .filter(|_| operation.spec.steps.is_empty())
        {
            return Err(wrong(format!(
                "its steps are those of the template {}, which isn't there: with -f, put it into the file as well",
                template.name
            )));
        }
        let workflow = Workflow::compile(&operation.spec).map_err(|error| wrong(error.to_string()))?;
        out.print(&draw(operation, &workflow, self.output))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// An arrow, and what is written on it.
struct Edge {
    from: usize,
    to: usize,
    /// Dotted: not from a step to the next.
    aside: Option<&'static str>,
}

fn edges(workflow: &Workflow) -> Vec<Edge> {
    let mut edges = vec![];
    for (to, flow) in workflow.steps.iter().enumerate() {
        match flow.role {
            Role::Undo(from) => edges.push(Edge {
                from,
                to,
                aside: Some("undo"),
            }),
            Role::Main | Role::Finally => {
                // An arrow that another way goes without saying is left out.
                let direct = flow.needs.iter().filter(|need| {
                    !flow
                        .needs
                        .iter()
                        .any(|other| workflow.steps[*other].ancestors.contains(need) && other != *need)
                });
                edges.extend(direct.map(|from| Edge {
                    from: *from,
                    to,
                    aside: None,
                }));
            }
        }
    }
    edges
}

fn draw(operation: &CloudOperation, workflow: &Workflow, language: Language) -> String {
    let state = |flow: &WorkflowStep| {
        let steps = operation.status.iter().flat_map(|status| &status.steps);
        steps
            .into_iter()
            .find(|entry| entry.name == flow.name)
            .map(|entry| entry.state)
    };
    let mut text = String::new();
    // Writing into a String can't fail.
    let _ = match language {
        Language::Mermaid => mermaid(&mut text, workflow, &state),
        Language::Dot => dot(&mut text, &operation.name_any(), workflow, &state),
    };
    text
}

fn mermaid(
    text: &mut String,
    workflow: &Workflow,
    state: &dyn Fn(&WorkflowStep) -> Option<StepState>,
) -> std::fmt::Result {
    let node = |i: usize| {
        let flow = &workflow.steps[i];
        let label = label(flow, "<br/>").replace('"', "#quot;");
        let (open, close) = match flow.step_type {
            StepType::Approval | StepType::Signal => ("{{", "}}"),
            StepType::Wait => ("([", "])"),
            _ => ("[", "]"),
        };
        let class = state(flow)
            .map(|state| format!(":::{}", class(state)))
            .unwrap_or_default();
        format!("s{i}{open}\"{label}\"{close}{class}")
    };
    writeln!(text, "flowchart TD")?;
    let of = |finally: bool| {
        let steps = workflow.steps.iter().enumerate();
        steps
            .filter(move |(_, flow)| (flow.role == Role::Finally) == finally && flow.group.is_none())
            .map(|(i, _)| i)
    };
    for i in of(false) {
        let flow = &workflow.steps[i];
        if flow.members.is_empty() {
            writeln!(text, "  {}", node(i))?;
            continue;
        }
        let title = label(flow, " ").replace('"', "#quot;");
        writeln!(text, "  subgraph s{i} [\"{title}\"]")?;
        for member in flow.members.clone() {
            writeln!(text, "    {}", node(member))?;
        }
        writeln!(text, "  end")?;
        if let Some(state) = state(flow) {
            writeln!(text, "  class s{i} {}", class(state))?;
        }
    }
    if of(true).next().is_some() {
        writeln!(text, "  subgraph finally")?;
        for i in of(true) {
            writeln!(text, "    {}", node(i))?;
        }
        writeln!(text, "  end")?;
    }
    for Edge { from, to, aside } in edges(workflow) {
        match aside {
            None => writeln!(text, "  s{from} --> s{to}")?,
            Some(aside) => writeln!(text, "  s{from} -. {aside} .-> s{to}")?,
        }
    }
    if workflow.steps.iter().any(|flow| state(flow).is_some()) {
        for (class, colour) in COLOURS {
            writeln!(text, "  classDef {class} fill:{colour},color:#000")?;
        }
    }
    Ok(())
}

fn dot(
    text: &mut String,
    name: &str,
    workflow: &Workflow,
    state: &dyn Fn(&WorkflowStep) -> Option<StepState>,
) -> std::fmt::Result {
    writeln!(text, "digraph {name:?} {{")?;
    writeln!(text, "  node [shape=box, style=\"rounded,filled\", fillcolor=white]")?;
    let node = |i: usize| {
        let flow = &workflow.steps[i];
        let label = label(flow, "\n")
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let colour = state(flow).and_then(|state| COLOURS.iter().find(|(name, _)| *name == class(state)));
        let colour = colour
            .map(|(_, colour)| format!(", fillcolor=\"{colour}\""))
            .unwrap_or_default();
        let aside = if flow.role == Role::Finally {
            ", peripheries=2"
        } else {
            ""
        };
        format!("s{i} [label=\"{label}\"{colour}{aside}]")
    };
    for (i, flow) in workflow
        .steps
        .iter()
        .enumerate()
        .filter(|(_, flow)| flow.group.is_none())
    {
        if flow.members.is_empty() {
            writeln!(text, "  {}", node(i))?;
            continue;
        }
        writeln!(text, "  subgraph cluster_s{i} {{")?;
        for i in std::iter::once(i).chain(flow.members.clone()) {
            writeln!(text, "    {}", node(i))?;
        }
        writeln!(text, "  }}")?;
    }
    for Edge { from, to, aside } in edges(workflow) {
        match aside {
            None => writeln!(text, "  s{from} -> s{to}")?,
            Some(aside) => writeln!(text, "  s{from} -> s{to} [style=dotted, label={aside}]")?,
        }
    }
    writeln!(text, "}}")
}

/// What is written on a step.
fn label(flow: &WorkflowStep, line: &str) -> String {
    let mut label = format!("{}{line}{}", flow.name, format!("{:?}", flow.step_type).to_lowercase());
    if flow.spec.for_each.is_some() {
        label.push_str(" for each item");
    }
    if let Some(when) = &flow.spec.when {
        label.push_str(&format!(
            "{line}when {}",
            super::table::cut(&super::table::one_line(when), 60)
        ));
    }
    label
}

const COLOURS: [(&str, &str); 4] = [
    ("done", "#9fdf9f"),
    ("busy", "#9fd3ff"),
    ("bad", "#ff9f9f"),
    ("off", "#dddddd"),
];

fn class(state: StepState) -> &'static str {
    use StepState::*;
    match state {
        Succeeded => "done",
        Running | Waiting => "busy",
        BackingOff | Undecided | Failed | TimedOut => "bad",
        Skipped | Cancelling | Cancelled => "off",
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{operation, said, server};
    use super::*;

    #[tokio::test]
    async fn of_a_template_alone_the_steps_are_drawn() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("template.yaml");
        let file = path.display().to_string();
        let template = "{apiVersion: holdfast.dev/v1alpha1, kind: OperationTemplate, metadata: {name: t, namespace: other}, spec: {
            inputSchema: {type: object, required: [size]}, steps: [{name: make, set: {v: '${input.size}'}}]}}\n";
        std::fs::write(&path, template).unwrap();
        let drawn = said(&server(), &format!("graph -f {file}")).await;
        assert_eq!(drawn.out, "flowchart TD\n  s0[\"make<br/>set\"]\n", "{}", drawn.err);

        std::fs::write(&path, format!("{template}---\n{template}")).unwrap();
        let refused = said(&server(), &format!("graph -f {file}")).await;
        let message = "there is no CloudOperation in it, and 2 OperationTemplates: this takes one";
        assert_eq!(refused.err, format!("{file}: {message}"));
    }

    fn drawn(language: Language) -> String {
        let operation = operation(
            "web",
            r#"
            steps:
            - {name: plan, set: {}}
            - {name: ask, when: 'input.size > "3"', approval: {}}
            - {name: buy, http: {url: 'http://a/${steps.plan.output.x}'}, compensate: {http: {url: 'http://a/'}}}
            finally:
            - {name: tell, http: {url: 'http://a/'}}
            "#,
            "steps: [{name: plan, type: Set, state: Succeeded, startSeq: 1, startTime: '2026-11-24T03:00:00.000Z'}]",
        );
        draw(&operation, &Workflow::compile(&operation.spec).unwrap(), language)
    }

    #[test]
    fn as_mermaid() {
        assert_eq!(
            drawn(Language::Mermaid),
            r#"flowchart TD
  s0["plan<br/>set"]:::done
  s1{{"ask<br/>approval<br/>when input.size > #quot;3#quot;"}}
  s2["buy<br/>http"]
  s4["buy:undo<br/>http"]
  subgraph finally
    s3["tell<br/>http"]
  end
  s0 --> s1
  s1 --> s2
  s2 -. undo .-> s4
  classDef done fill:#9fdf9f,color:#000
  classDef busy fill:#9fd3ff,color:#000
  classDef bad fill:#ff9f9f,color:#000
  classDef off fill:#dddddd,color:#000
"#
        );
    }

    #[test]
    fn groups_are_drawn_around_their_steps() {
        let operation = operation(
            "web",
            "steps: [{name: a, set: {}}, {name: zone, steps: [{name: make, set: {}}, {name: check, assert: 'true'}]}, {name: b, set: {}}]",
            "steps: [{name: zone, type: Steps, state: Waiting, startSeq: 1, startTime: '2026-11-24T03:00:00.000Z'}]",
        );
        let workflow = Workflow::compile(&operation.spec).unwrap();
        let text = draw(&operation, &workflow, Language::Mermaid);
        let (text, _) = text.split_once("  classDef").unwrap();
        assert_eq!(
            text,
            r#"flowchart TD
  s0["a<br/>set"]
  subgraph s1 ["zone steps"]
    s3["zone/make<br/>set"]
    s4["zone/check<br/>assert"]
  end
  class s1 busy
  s2["b<br/>set"]
  s0 --> s1
  s1 --> s2
  s3 --> s4
"#
        );
        let text = draw(&operation, &workflow, Language::Dot);
        assert!(
            text.contains("subgraph cluster_s1 {\n    s1 [label=\"zone\\nsteps\""),
            "{text}"
        );
        assert!(text.contains("    s4 [label=\"zone/check\\nassert\"]\n  }"), "{text}");
    }

    #[test]
    fn as_dot() {
        assert_eq!(
            drawn(Language::Dot),
            r##"digraph "web" {
  node [shape=box, style="rounded,filled", fillcolor=white]
  s0 [label="plan\nset", fillcolor="#9fdf9f"]
  s1 [label="ask\napproval\nwhen input.size > \"3\""]
  s2 [label="buy\nhttp"]
  s3 [label="tell\nhttp", peripheries=2]
  s4 [label="buy:undo\nhttp"]
  s0 -> s1
  s1 -> s2
  s2 -> s4 [style=dotted, label=undo]
}
"##
        );
    }
}
