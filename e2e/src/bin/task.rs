//! What Jobs of the tests run: does one thing after the other, as its arguments say.
//!
//! - `say TEXT`: a line of the log.
//! - `write TEXT`: a termination message. `fill N`: one of so many bytes. `env NAME`: one with a variable's value.
//! - `sleep SECONDS`
//! - `exit CODE`

use std::process::ExitCode;
use std::time::Duration;

const TERMINATION_LOG: &str = "/dev/termination-log";

fn main() -> std::io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for pair in arguments.chunks(2) {
        let [what, value] = pair else {
            panic!("{what} of what?", what = pair[0])
        };
        match what.as_str() {
            "say" => println!("{value}"),
            "write" => std::fs::write(TERMINATION_LOG, value)?,
            "fill" => std::fs::write(TERMINATION_LOG, "x".repeat(number(value)))?,
            "env" => std::fs::write(TERMINATION_LOG, std::env::var(value).unwrap_or_default())?,
            "sleep" => std::thread::sleep(Duration::from_secs(number(value) as u64)),
            "exit" => return Ok(ExitCode::from(u8::try_from(number(value)).unwrap_or(1))),
            other => panic!("{other} is none of say, write, fill, env, sleep, exit"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}
