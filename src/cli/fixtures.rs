//! What tests share: operations, and a cluster on which command lines are run.

use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;

use clap::Parser;
use holdfast_apiserver::ApiServer;

use super::cluster::{Cluster, Flags};
use super::output::Output;
use super::{Cli, Command};
use crate::activities::testing;
use crate::api::{CloudOperation, Time};

/// An operation in the namespace `prod`.
pub fn operation(name: &str, spec: &str, status: &str) -> CloudOperation {
    let yaml = |text: &str| -> serde_json::Value {
        serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    };
    serde_json::from_value(serde_json::json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "CloudOperation",
        "metadata": {"name": name, "namespace": "prod", "uid": "0c7e"},
        "spec": yaml(spec), "status": yaml(status),
    }))
    .unwrap()
}

/// A moment.
pub fn at(text: &str) -> Time {
    Time::new(text.parse().unwrap())
}

/// A cluster with nothing in it.
pub fn server() -> ApiServer {
    testing::empty()
}

/// What came of a command line.
#[derive(Debug)]
pub struct Said {
    /// How it exits.
    pub code: ExitCode,
    /// What it prints.
    pub out: String,
    /// The error that it ends with.
    pub err: String,
}

/// Runs a command line, as anna, in the namespace `prod`.
pub async fn said(server: &ApiServer, line: &str) -> Said {
    let words = std::iter::once("kubectl-holdfast").chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
    let cluster = Cluster {
        client: server.client("anna"),
        namespace: "prod".into(),
        flags: Flags::default(),
    };
    let printed = Printed::default();
    let mut out = Output::piped(printed.clone());
    let ended = match cli.command {
        Command::Lint(_) | Command::Test(_) | Command::Version | Command::Completion { .. } => {
            super::run(cli, &mut out).await
        }
        Command::Graph(ref graph) if graph.is_offline() => super::run(cli, &mut out).await,
        command => command.run(&cluster, &mut out).await,
    };
    Said {
        code: ended
            .as_ref()
            .map_or_else(|error| ExitCode::from(error.exit_code()), |code| *code),
        out: String::from_utf8(printed.0.take()).unwrap(),
        err: ended.err().map(|error| error.to_string()).unwrap_or_default(),
    }
}

/// Waits until somebody watches.
pub async fn watched(server: &ApiServer) {
    while server.open_watches().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[derive(Clone, Default)]
struct Printed(Rc<RefCell<Vec<u8>>>);

impl std::io::Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
