//! The kubectl plugin `kubectl-holdfast`. It has the rights of its user's kubeconfig, and no others: all that it shows is
//! in the objects' status, all that it does is a patch or an object that its user could write as well.

mod actions;
mod advice;
mod cluster;
mod complete;
mod control;
mod describe;
mod diff;
mod error;
mod files;
mod get;
mod graph;
mod history;
mod lint;
mod output;
mod plan;
mod rerun;
mod run;
mod schedule;
mod table;
mod test;
mod times;
mod tree;
mod values;
mod version;
mod wait;

#[cfg(test)]
mod fixtures;

use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use self::cluster::Cluster;
pub use self::error::CliError;
use self::output::Output;

/// The name under which people call the plugin.
pub const NAME: &str = "kubectl holdfast";

/// The exit codes, as `--help` prints them.
const EXIT_CODES: &str = "\
Exit codes:
  0    done; of wait and run --wait: the operation ended as Succeeded
  1    an action was rejected, a file has problems, a plan would be refused, a test failed; of wait and run --wait: the operation ended otherwise
  2    wrong usage, the cluster can't be reached or refused, or the operation was deleted while it was watched or waited for
  124  it took longer than --timeout";

/// Looks at cloud operations, and tells them what to do.
#[derive(Parser)]
#[command(name = "kubectl-holdfast", bin_name = NAME, version, about, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Which cluster, and where in it.
#[derive(Args, Default)]
struct Global {
    /// The kubeconfig file. Default: as kubectl's.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    kubeconfig: Option<std::path::PathBuf>,
    /// The kubeconfig's context.
    #[arg(long, global = true, help_heading = "Cluster")]
    context: Option<String>,
    /// The namespace. Default: the context's.
    #[arg(short, long, global = true, help_heading = "Cluster")]
    namespace: Option<String>,
    /// Another user to act as, if you may: as kubectl's.
    #[arg(long = "as", global = true, value_name = "USER", help_heading = "Cluster")]
    as_user: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Lists operations, or shows the steps of one.
    Get(get::Get),
    /// Says why an operation waits or ended, and what can be done.
    Describe(describe::Describe),
    /// Prints what happened to an operation, when, and who did it.
    History(history::History),
    #[command(flatten)]
    Action(actions::Action),
    #[command(flatten)]
    Control(control::Control),
    /// Waits until an operation has ended, however.
    Wait(wait::Wait),
    /// Creates an operation from a file, or of a template.
    Run(run::Run),
    /// Creates an operation as one that has ended was, or the rest of it.
    Rerun(rerun::Rerun),
    /// Looks at a schedule, pauses it, or runs what was due in the past.
    #[command(subcommand)]
    Schedule(schedule::Schedule),
    /// Shows what an operation would do, and does nothing.
    Plan(plan::Plan),
    /// Checks files of operations, templates and schedules, without a cluster.
    Lint(lint::Lint),
    /// Runs tests of operations, whose calls are answered by a file, without a cluster.
    Test(test::Tests),
    /// Draws the steps and what each needs.
    Graph(graph::Graph),
    /// Prints the plugin's version, and which schema the cluster has.
    Version,
    /// Prints a script for a shell, which completes this command.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command that the process was started with. Answers its exit code.
pub fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) if complete::is_asked() => {
            let words: Vec<String> = std::env::args().skip(1).collect();
            runtime.block_on(complete::answer(&words, &mut Output::new()))
        }
        Ok(runtime) => runtime.block_on(run(Cli::parse(), &mut Output::new())),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(code) => code,
        // Whoever read the output has seen enough.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("{} {error}", output::paint(output::BAD, "error:"));
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(cli: Cli, out: &mut Output) -> Result<ExitCode, CliError> {
    let Cli { global, command } = cli;
    match command {
        Command::Lint(lint) => lint.run(out),
        Command::Test(tests) => tests.run(out).await,
        Command::Graph(graph) if graph.is_offline() => graph.run_offline(out),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kubectl-holdfast", &mut script);
            let script = String::from_utf8_lossy(&script);
            // For bash a program's name is written in two ways, so that no command of one with a hyphen is found:
            // https://github.com/clap-rs/clap/issues/6421
            out.print(&script.replace("kubectl__subcmd__holdfast", "kubectl__holdfast"))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Version => version::run(Cluster::connect(&global).await, out).await,
        command => command.run(&Cluster::connect(&global).await?, out).await,
    }
}

impl Command {
    /// Does what is done with a cluster.
    async fn run(self, cluster: &Cluster, out: &mut Output) -> Result<ExitCode, CliError> {
        match self {
            Self::Get(get) => get.run(cluster, out).await,
            Self::Describe(describe) => describe.run(cluster, out).await,
            Self::History(history) => history.run(cluster, out).await,
            Self::Action(action) => action.run(cluster, out).await,
            Self::Control(control) => control.run(cluster, out).await,
            Self::Wait(wait) => wait.run(cluster, out).await,
            Self::Run(run) => run.run(cluster, out).await,
            Self::Rerun(rerun) => rerun.run(cluster, out).await,
            Self::Schedule(schedule) => schedule.run(cluster, out).await,
            Self::Plan(plan) => plan.run(cluster, out).await,
            Self::Graph(graph) => graph.run(cluster, out).await,
            // These need none.
            Self::Lint(_) | Self::Test(_) | Self::Version | Self::Completion { .. } => Ok(ExitCode::SUCCESS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[tokio::test]
    async fn a_script_completes_commands_in_each_shell() {
        for (shell, named, command) in [
            ("bash", "-o default kubectl-holdfast\n", " describe "),
            ("zsh", "#compdef kubectl-holdfast\n", "'describe:Says why"),
            ("fish", "complete -c kubectl-holdfast ", "-a \"describe\" -d 'Says why"),
        ] {
            let script = script(shell).await;
            assert!(script.contains(named) && script.contains(command), "{shell}: {script}");
        }
    }

    /// Its first half finds out which command it is, its second what that takes.
    #[tokio::test]
    async fn bash_finds_the_flags_of_each_command() {
        let script = script("bash").await;
        let found = script.split("cmd=\"").skip(1).filter_map(|rest| rest.split('"').next());
        for command in found.filter(|command| !command.is_empty()) {
            assert!(script.contains(&format!("\n        {command})\n")), "{command}");
        }
    }

    #[tokio::test]
    async fn the_documentation_quotes_what_is_printed() {
        let page = include_str!("../../docs/plugin.md");
        let (_, operation) = page.split_once("`resize.yaml`:\n\n```yaml\n").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resize.yaml");
        std::fs::write(&file, operation.split_once("```").unwrap().0).unwrap();
        for (line, file) in [
            ("lint tests/data/lint", ""),
            ("graph -f resize.yaml", &*file.display().to_string()),
        ] {
            let run = if file.is_empty() {
                line
            } else {
                &line.replace("resize.yaml", file)
            };
            let printed = fixtures::said(&fixtures::server(), run).await.out;
            assert!(
                page.contains(&format!("$ {NAME} {line}\n{printed}```\n")),
                "{line}:\n{printed}"
            );
        }
    }

    async fn script(shell: &str) -> String {
        let server = fixtures::server();
        fixtures::said(&server, &format!("completion {shell}")).await.out
    }
}
