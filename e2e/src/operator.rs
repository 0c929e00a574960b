//! The real operator, as a process that can be killed.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// A running operator. Killed when it is dropped.
pub struct Operator {
    child: Child,
    address: watch::Receiver<Option<String>>,
    log: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

/// The binary under test: `HOLDFAST_BIN`, or the one that cargo built beside this one.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HOLDFAST_BIN") {
        return path.into();
    }
    let mut path = std::env::current_exe().unwrap_or_default();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.join("holdfast")
}

impl Operator {
    /// Starts one with these arguments beside `operator --listen 127.0.0.1:0`, on the cluster of this kubeconfig.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn start(kubeconfig: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .arg("operator")
            .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}: run cargo build first", binary().display()));
        let (tell, address) = watch::channel(None);
        let log = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            let log = log.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::new(stderr).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                    if let Some(address) = parsed["address"].as_str() {
                        tell.send_replace(Some(address.to_owned()));
                    }
                    log.lock().unwrap().push(line);
                }
            });
        }
        Self { child, address, log }
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it has ended.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the operator runs")
    }

    /// Every line that it logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Where it serves health and metrics.
    ///
    /// # Panics
    /// If it ends before it says so.
    pub async fn address(&mut self) -> String {
        let address = self
            .address
            .wait_for(Option::is_some)
            .await
            .expect("the operator says where it listens");
        address.clone().unwrap_or_default()
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }

    /// Sends a signal by name (`TERM`, `STOP`, `CONT`).
    pub async fn signal(&self, name: &str) {
        let printed = crate::kubectl::run("kill", "", &[&format!("-{name}"), &self.pid().to_string()]).await;
        assert!(printed.ok, "kill -{name}: {}", printed.err);
    }

    /// SIGTERM, and waits until it has ended by itself. Answers whether it did so well.
    ///
    /// # Panics
    /// If it doesn't within a minute.
    pub async fn stop(mut self) -> bool {
        self.signal("TERM").await;
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        ended
            .expect("the operator ends after SIGTERM")
            .is_ok_and(|status| status.success())
    }
}
