//! The simulator, which needs neither root nor the eBPF object.

use crate::workspace;
use anyhow::{Context as _, bail};
use std::process::Command;

/// How the simulator ends when an invariant does not hold.
const FOUND: i32 = 1;

/// Builds the simulator and runs it.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace::root());
    cargo.args(["run", "--quiet", "-p", "shoal-simulator", "--bin", "shoal-simulate", "--"]);
    let status = cargo.args(arguments).status().context("cannot start cargo")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(FOUND) => bail!("the simulator found something: see above"),
        // It has said what is wrong with its arguments, or cargo why it could not be built.
        _ => bail!("the simulator could not be run ({status})"),
    }
}
