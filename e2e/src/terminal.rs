//! A program on a terminal, and what a person sees there.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

use crate::world::PATIENCE;

/// A program that runs on a terminal of 100 columns and 30 lines. Ended when it is dropped, as if the terminal was closed.
pub struct Terminal {
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
    _keyboard: Option<ChildStdin>,
}

impl Terminal {
    /// Runs a program by util-linux' `script`, which gives it a terminal. Its arguments are words that a shell leaves as they are.
    ///
    /// # Panics
    /// If that can't be done.
    pub fn run(program: &Path, arguments: &[&str]) -> Self {
        let line = format!("stty columns 100 rows 30 && exec \"$PROGRAM\" {}", arguments.join(" "));
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env("PROGRAM", program)
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped()) // and nobody types: at its end, script would type one
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("script, of util-linux, can't be run: {error}"));
        let written = Arc::new(Mutex::new(Vec::new()));
        let mut output = child.stdout.take().expect("it is piped");
        let reader = tokio::spawn({
            let written = written.clone();
            async move {
                let mut part = [0; 4096];
                while let Ok(count @ 1..) = output.read(&mut part).await {
                    let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
                    written.extend_from_slice(&part[..count]);
                }
            }
        });
        Self {
            _keyboard: child.stdin.take(),
            child,
            written,
            reader,
        }
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        screen(&self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until all of this is on the screen at once, and answers what else is.
    ///
    /// # Panics
    /// If it isn't in time.
    pub async fn until_shows(&self, parts: &[&str]) -> String {
        let started = Instant::now();
        loop {
            let screen = self.screen();
            if parts.iter().all(|part| screen.contains(part)) {
                return screen;
            }
            assert!(started.elapsed() < PATIENCE, "{parts:?} are not shown, but:\n{screen}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the program has ended by itself, and answers its exit code and what is on the screen then.
    ///
    /// # Panics
    /// If it doesn't in time.
    pub async fn ends(mut self) -> (Option<i32>, String) {
        let ended = tokio::time::timeout(PATIENCE, async {
            let read = (&mut self.reader).await;
            (read, self.child.wait().await)
        });
        let (read, status) = match ended.await {
            Ok(ended) => ended,
            Err(_) => panic!("it doesn't end:\n{}", self.screen()),
        };
        read.expect("what it wrote is read");
        (status.expect("it ran").code(), self.screen())
    }
}

/// What is on a screen, if this was written to it: a line a line, without colours. Nothing is scrolled out above.
fn screen(written: &[u8]) -> String {
    let text = String::from_utf8_lossy(written);
    let mut lines: Vec<Vec<char>> = vec![vec![]];
    let (mut row, mut column) = (0, 0);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(vec![]);
                }
            }
            '\x1b' => {
                let is_parameter = |c: &char| matches!(c, '[' | ';' | '0'..='9');
                let parameters: String = characters.clone().take_while(is_parameter).collect();
                let end = characters.nth(parameters.len());
                match end {
                    Some('A') => row -= parameters.trim_start_matches('[').parse().unwrap_or(1),
                    Some('K') => lines[row].truncate(column),
                    Some('J') => {
                        lines[row].truncate(column);
                        lines.truncate(row + 1);
                    }
                    Some('m') | None => {} // None: its end is still to come
                    Some(other) => panic!("ESC {parameters}{other} is nothing that this screen knows"),
                }
            }
            character => {
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = character;
                column += 1;
            }
        }
    }
    let lines: Vec<String> = lines.into_iter().map(|line| line.into_iter().collect()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::screen;

    #[test]
    fn a_screen_shows_what_was_drawn_over_what() {
        let first = "web  \x1b[36mRunning\x1b[0m\x1b[K\r\n● slow\x1b[K\r\n○ last\x1b[K\r\n\x1b[J";
        assert_eq!(screen(first.as_bytes()), "web  Running\n● slow\n○ last\n");
        let then = format!("{first}\x1b[3A\rweb  Done\x1b[K\r\n✓ slow\x1b[K\r\n\x1b[Jmore\x1b[");
        assert_eq!(screen(then.as_bytes()), "web  Done\n✓ slow\nmore");
    }
}
