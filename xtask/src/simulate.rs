//! The simulator, which needs neither root nor the eBPF object.

use crate::workspace;
use anyhow::{Context as _, bail};
use std::process::Command;

/// Builds the simulator and runs it.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace::root());
    cargo.args(["run", "--quiet", "-p", "shoal-simulator", "--bin", "shoal-simulate", "--"]);
    let status = cargo.args(arguments).status().context("cannot start cargo")?;
    if status.success() { Ok(()) } else { bail!("the simulator found something ({status})") }
}
