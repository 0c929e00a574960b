//! The `kubectl-holdfast` command: what people do with operations, by `kubectl holdfast`.
#![forbid(unsafe_code)]
#![deny(clippy::expect_used, clippy::unwrap_used)]

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast::cli::main()
}
