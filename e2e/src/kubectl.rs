//! kubectl, as a user runs it.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a command printed, and whether it succeeded.
#[derive(Debug)]
pub struct Printed {
    /// True if its exit code was 0.
    pub ok: bool,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// The kubectl that is used: `KUBECTL`, or the machine's own.
pub fn program() -> String {
    std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".into())
}

/// Runs kubectl on the cluster of `KUBECONFIG`, with what is given on its standard input: manifests, as YAML or JSON.
///
/// # Panics
/// If it can't be run.
pub async fn kubectl_with(input: &str, arguments: &[&str]) -> Printed {
    // The machine's own kubectl may be an older one, which takes all that begins with a brace for JSON.
    let begin = if input.trim_start().starts_with('{') {
        "---\n"
    } else {
        ""
    };
    run(&program(), &format!("{begin}{input}"), arguments).await
}

/// Runs kubectl on the cluster of `KUBECONFIG`.
pub async fn kubectl(arguments: &[&str]) -> Printed {
    kubectl_with("", arguments).await
}

/// Applies manifests.
///
/// # Panics
/// If one is refused.
pub async fn apply(manifests: &str) {
    let printed = kubectl_with(manifests, &["apply", "-f", "-"]).await;
    assert!(printed.ok, "{}", printed.err);
}

/// The path of a file of the project.
pub fn project(path: &str) -> String {
    format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program.
///
/// # Panics
/// If it can't be run.
pub async fn run(program: &str, input: &str, arguments: &[&str]) -> Printed {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{program} can't be run: {error}"));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that doesn't read its input may end before it was written.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child
        .wait_with_output()
        .await
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    Printed {
        ok: output.status.success(),
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
