//! The `kubectl-holdfast` command: what people do with operations, by `kubectl holdfast`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast::cli::main()
}
