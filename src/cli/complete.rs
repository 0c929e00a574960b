//! Completion, as kubectl asks its plugins for it: it calls `kubectl_complete-holdfast`, which is this program under another
//! name, with the words so far, and reads a line for each word that could stand last, and `:` with what the shell is to do.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, Command, CommandFactory};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, PartialObjectMeta};
use kube::config::Kubeconfig;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::cluster::Cluster;
use super::output::Output;
use super::{Cli, CliError, Global};
use crate::api::{CloudOperation, OperationSchedule, OperationTemplate, StepType};
use crate::engine::Workflow;

/// How long a cluster is waited for: a shell that hangs is worse than one that completes nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many names are asked for.
const MOST: u32 = 500;

/// What the shell does with what it is told, in the numbers of the library that kubectl completes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Completes names of files.
    Files = 0,
    /// Nothing more.
    Nothing = 4,
}

/// True if the program was called to complete.
pub fn is_asked() -> bool {
    let name = std::env::args_os().next();
    let name = name.as_ref().and_then(|name| Path::new(name).file_name());
    name.is_some_and(|name| name.to_string_lossy().starts_with("kubectl_complete-"))
}

/// Answers what could stand in place of the last of these words.
pub async fn answer(words: &[String], out: &mut Output) -> Result<ExitCode, CliError> {
    let (last, before) = words
        .split_last()
        .map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut root = Cli::command();
    root.build();
    let asked = Asked::new(&root, before);
    let (words, then) = match asked.place(last) {
        Place::Words(words) => (words, Then::Nothing),
        Place::Files => (vec![], Then::Files),
        Place::Cluster(what) => {
            // Whatever keeps the cluster from being asked: there is nothing to complete then.
            let found = tokio::time::timeout(PATIENCE, asked.of_cluster(what)).await;
            (found.ok().flatten().unwrap_or_default(), Then::Nothing)
        }
    };
    let mut text: String = words
        .into_iter()
        .filter(|word| word.starts_with(last))
        .map(|word| word + "\n")
        .collect();
    text.push_str(&format!(":{}\n", then as u8));
    out.print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What could stand at a place.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// These words, each with what it means after a tab.
    Words(Vec<String>),
    /// Files.
    Files,
    /// What only the cluster knows.
    Cluster(What),
}

/// What only the cluster knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Operations,
    Steps,
    Approvals,
    Signals,
    Templates,
    Schedules,
    Namespaces,
}

/// The words so far, as the command line takes them.
struct Asked<'a> {
    command: &'a Command,
    /// Those that are no flags.
    positionals: Vec<&'a str>,
    /// The flag whose value comes next.
    pending: Option<&'a Arg>,
    global: Global,
}

impl<'a> Asked<'a> {
    fn new(root: &'a Command, words: &'a [String]) -> Self {
        let mut asked = Self {
            command: root,
            positionals: vec![],
            pending: None,
            global: Global::default(),
        };
        for word in words {
            asked.take(word);
        }
        asked
    }

    fn take(&mut self, word: &'a str) {
        if let Some(flag) = self.pending.take() {
            return self.note(flag, word);
        }
        let (name, value) = word
            .split_once('=')
            .map_or((word, None), |(name, value)| (name, Some(value)));
        if name.starts_with('-') {
            let flag = self.command.get_arguments().find(|flag| is_called(flag, name));
            match (flag.filter(|flag| flag.get_action().takes_values()), value) {
                (Some(flag), Some(value)) => self.note(flag, value),
                (flag, None) => self.pending = flag,
                (None, Some(_)) => {}
            }
        } else if let Some(command) = self.command.find_subcommand(word) {
            self.command = command;
        } else {
            self.positionals.push(word);
        }
    }

    fn note(&mut self, flag: &Arg, value: &str) {
        match flag.get_id().as_str() {
            "kubeconfig" => self.global.kubeconfig = Some(value.into()),
            "context" => self.global.context = Some(value.into()),
            "namespace" => self.global.namespace = Some(value.into()),
            "as_user" => self.global.as_user = Some(value.into()),
            _ => {}
        }
    }

    fn place(&self, last: &str) -> Place {
        let told = |name: &str, help: Option<&clap::builder::StyledStr>| match help {
            Some(help) => format!("{name}\t{}", help.to_string().lines().next().unwrap_or_default()),
            None => name.to_owned(),
        };
        if let Some(flag) = self.pending {
            return self.values(flag);
        }
        if last.starts_with('-') {
            let flags = self.command.get_arguments().filter(|flag| !flag.is_hide_set());
            let flags = flags.filter_map(|flag| Some(told(&format!("--{}", flag.get_long()?), flag.get_help())));
            return Place::Words(flags.collect());
        }
        if self.command.has_subcommands() {
            let commands = self.command.get_subcommands().filter(|command| !command.is_hide_set());
            return Place::Words(
                commands
                    .map(|command| told(command.get_name(), command.get_about()))
                    .collect(),
            );
        }
        let own = self.command.get_positionals().nth(self.positionals.len());
        let several = self.command.get_positionals().last();
        let several = several.filter(|arg| arg.get_num_args().is_some_and(|n| n.max_values() > 1));
        own.or(several).map_or(Place::Words(vec![]), |arg| self.values(arg))
    }

    /// What could stand as the value of a flag or positional.
    fn values(&self, arg: &Arg) -> Place {
        let possible = arg.get_possible_values();
        if !possible.is_empty() {
            return Place::Words(possible.iter().map(|value| value.get_name().to_owned()).collect());
        }
        match arg.get_id().as_str() {
            "name" => Place::Cluster(What::Operations),
            "step" if matches!(self.command.get_name(), "approve" | "reject") => Place::Cluster(What::Approvals),
            "step" | "from_step" => Place::Cluster(What::Steps),
            "signal" => Place::Cluster(What::Signals),
            "template" => Place::Cluster(What::Templates),
            "schedule" => Place::Cluster(What::Schedules),
            "namespace" => Place::Cluster(What::Namespaces),
            "context" => Place::Words(contexts(&self.global)),
            "kubeconfig" | "filename" | "files" | "payload_file" | "output_file" => Place::Files,
            _ => Place::Words(vec![]),
        }
    }

    async fn of_cluster(&self, what: What) -> Option<Vec<String>> {
        let cluster = Cluster::connect(&self.global).await.ok()?;
        match what {
            What::Operations => names(&cluster.api::<CloudOperation>()).await,
            What::Templates => names(&cluster.api::<OperationTemplate>()).await,
            What::Schedules => names(&cluster.api::<OperationSchedule>()).await,
            What::Namespaces => names(&Api::<Namespace>::all(cluster.client.clone())).await,
            What::Steps | What::Approvals | What::Signals => {
                let operation = cluster.operation(self.positionals.first()?).await.ok()?;
                let operation = cluster.whole(operation).await;
                let workflow = Workflow::compile(&operation.spec).ok()?;
                let steps = workflow.steps.iter();
                Some(match what {
                    What::Signals => steps.filter_map(|step| step.signal().map(str::to_owned)).collect(),
                    What::Approvals => {
                        let asks = steps.filter(|step| step.step_type == StepType::Approval);
                        asks.map(|step| step.name.clone()).collect()
                    }
                    _ => {
                        // Items of lists, too, where they have an entry of their own.
                        let started = operation.status.iter().flat_map(|status| &status.steps);
                        let started = started.map(|step| step.name.clone());
                        let mut all: Vec<String> = steps.map(|step| step.name.clone()).chain(started).collect();
                        all.sort();
                        all.dedup();
                        all
                    }
                })
            }
        }
    }
}

fn is_called(flag: &Arg, name: &str) -> bool {
    match name.strip_prefix("--") {
        Some(long) => flag.get_long() == Some(long),
        None => name.chars().nth(1) == flag.get_short() && name.chars().count() == 2,
    }
}

async fn names<K>(api: &Api<K>) -> Option<Vec<String>>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let found = api.list_metadata(&ListParams::default().limit(MOST)).await.ok()?;
    Some(found.items.iter().map(PartialObjectMeta::name_any).collect())
}

fn contexts(global: &Global) -> Vec<String> {
    let kubeconfig = match &global.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let contexts = kubeconfig.map(|kubeconfig| kubeconfig.contexts).unwrap_or_default();
    contexts.into_iter().map(|context| context.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: &str) -> Place {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (last, before) = words.split_last().unwrap();
        let mut root = Cli::command();
        root.build();
        Asked::new(&root, before).place(last)
    }

    fn words(line: &str) -> Vec<String> {
        match place(line) {
            Place::Words(words) => words
                .iter()
                .map(|word| word.split('\t').next().unwrap().to_owned())
                .collect(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn each_word_is_completed_by_where_it_stands() {
        for command in ["get", "plan", "test", "approve", "completion"] {
            assert!(words("").contains(&command.to_owned()), "{command}");
        }
        assert!(words("approve --").contains(&"--comment".to_owned()));
        assert!(words("get -").contains(&"--namespace".to_owned()));
        assert_eq!(words("completion "), ["bash", "elvish", "fish", "powershell", "zsh"]);
        assert!(words("schedule ").contains(&"backfill".to_owned()));
        assert_eq!(words("plan -o "), ["json", "yaml"]);
        assert_eq!(words("history web -o "), ["json", "yaml", "wide"]);
        assert_eq!(words("get web "), Vec::<String>::new());
        for (line, what) in [
            ("get ", What::Operations),
            ("get -n prod ", What::Operations),
            ("-n prod describe we", What::Operations),
            ("-n ", What::Namespaces),
            ("retry web --step ", What::Steps),
            ("approve web --step ", What::Approvals),
            ("rerun web --from-step ", What::Steps),
            ("signal web ", What::Signals),
            ("plan --template ", What::Templates),
            ("run --template ", What::Templates),
            ("schedule pause ", What::Schedules),
        ] {
            assert_eq!(place(line), Place::Cluster(what), "{line}");
        }
        for line in [
            "lint ",
            "lint a.yaml ",
            "plan -f ",
            "test a ",
            "signal web go --payload-file ",
        ] {
            assert_eq!(place(line), Place::Files, "{line}");
        }
    }
}
