//! Docker's commands over the Engine API: the same words, flags and tables as `docker`'s.
//!
//! A small client of our own over hyper instead of bollard: `inspect` prints what the daemon
//! answered and not what a model kept of it, and every parameter of the API can be given.

mod args;
mod client;
mod commands;
mod demux;
mod durations;
mod error;
mod table;
mod text;

pub use args::{Command, Connection};

use std::process::ExitCode;

/// Runs a command against the daemon that `connection` names. Output goes to standard output,
/// errors to standard error in Docker's form; the exit code is Docker's.
pub async fn run(connection: Connection, command: Command) -> ExitCode {
    match commands::run(connection, command).await {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            if !e.is_silent() {
                eprintln!("{e}");
            }
            ExitCode::from(e.code())
        }
    }
}
