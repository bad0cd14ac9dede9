//! The `uphill` command-line program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(uphill::command(std::env::args_os()))
}
