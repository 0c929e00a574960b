//! The real operator, as a process that can be paused and killed.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::world::PATIENCE;

/// A running operator. Killed when it is dropped.
pub struct Operator {
    child: Child,
    log: Arc<Mutex<Vec<Value>>>,
}

/// The binary under test: `HOLDFAST_BIN`, or the one that cargo built beside this one.
pub fn binary() -> PathBuf {
    std::env::var_os("HOLDFAST_BIN").map_or_else(|| built("holdfast"), PathBuf::from)
}

/// A binary that cargo built beside this one.
pub fn built(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap_or_default();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.join(name)
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
        let log = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            let log = log.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::new(stderr).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            });
        }
        Self { child, log }
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it has ended.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the operator runs")
    }

    /// Every line that it logged so far, by its fields.
    pub fn log(&self) -> Vec<Value> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many lines with this message it logged so far.
    pub fn logged(&self, message: &str) -> usize {
        self.log().iter().filter(|line| line["message"] == message).count()
    }

    /// Waits until it logs a line with this message, and answers it.
    ///
    /// # Panics
    /// If it doesn't in time.
    pub async fn logs(&self, message: &str) -> Value {
        let started = Instant::now();
        loop {
            let log = self.log();
            if let Some(line) = log.iter().find(|line| line["message"] == message) {
                return line.clone();
            }
            assert!(
                started.elapsed() < PATIENCE,
                "the operator does not log {message:?}, but\n{log:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it leads, and answers under which name.
    pub async fn leads(&self) -> String {
        self.logs("leading").await["identity"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Where it listens.
    pub async fn address(&self) -> String {
        let line = self.logs("holdfast").await;
        line["address"].as_str().unwrap_or_default().to_owned()
    }

    /// What it serves at a path: the status code and the body.
    ///
    /// # Panics
    /// If it doesn't answer.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let address = self.address().await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (code.expect("a status code"), body.to_owned())
    }

    /// Waits until its metrics have each of these lines, and answers them. What it tells there comes from its own watches
    /// and from the answers to its writes: either may be behind what others saw of the API server.
    ///
    /// # Panics
    /// If they don't in time.
    pub async fn measures(&self, lines: &[&str]) -> String {
        let started = Instant::now();
        loop {
            let (code, metrics) = self.get("/metrics").await;
            assert_eq!(code, 200);
            let missing = lines.iter().find(|line| !metrics.lines().any(|found| found == **line));
            let Some(missing) = missing else { return metrics };
            assert!(started.elapsed() < PATIENCE, "{missing} is missing in\n{metrics}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) {
        // An error says that it is gone already.
        let _ = self.child.kill().await;
    }

    /// Sends a signal by name (`TERM`, `STOP`, `CONT`).
    ///
    /// # Panics
    /// If it is gone.
    pub async fn signal(&self, name: &str) {
        let printed = crate::kubectl::run("kill", "", &[&format!("-{name}"), &self.pid().to_string()]).await;
        assert!(printed.ok, "kill -{name}: {}", printed.err);
    }

    /// SIGTERM, and waits until it has ended by itself.
    ///
    /// # Panics
    /// If it doesn't within a minute, or says that it failed.
    pub async fn stop(self) {
        self.signal("TERM").await;
        self.ends().await;
    }

    /// Waits until it has ended by itself, as it was told to.
    ///
    /// # Panics
    /// If it doesn't within a minute, or says that it failed.
    pub async fn ends(mut self) {
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        let status = ended.expect("the operator ends after SIGTERM").unwrap();
        assert!(status.success(), "{status}");
    }
}
