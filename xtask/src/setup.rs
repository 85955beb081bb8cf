//! What must be on the machine before anything is built, and building it.

use crate::{
    object,
    packages::{self, Package},
    process, toolchain, workspace,
};
use std::process::Command;

/// What is about to be done: each needs what those before it need.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum For {
    Build,
    Demo,
    Tests,
    Bench,
}

const CARGO_DENY: &str = "0.20.2";
const CARGO_MACHETE: &str = "0.9.2";

/// Installs what is missing, after saying what and why, and gives the eBPF toolchain.
pub(crate) fn run(purpose: For) -> anyhow::Result<toolchain::Toolchain> {
    let mut wanted = vec![
        Package::new("build-essential", "C compiler and linker, for ring, zstd and Rust itself"),
        Package::new("pkg-config", "finds libseccomp"),
        Package::new("libseccomp-dev", "system call filters of containers"),
    ];
    if purpose >= For::Demo {
        wanted.extend([
            Package::new("busybox-static", "the images of demo and tests are made of it"),
            Package::new("iproute2", "links and addresses of the test cluster"),
            Package::new("tcpdump", "captures what crosses the wire between nodes"),
        ]);
    }
    if purpose == For::Tests {
        wanted.extend([
            Package::new("wireguard-go", "another WireGuard, for the overlay to talk to"),
            Package::new("wireguard-tools", "sets up the other WireGuard"),
            Package::new("libfaketime", "sets the clock of one daemon"),
        ]);
    }
    if purpose >= For::Bench {
        wanted.push(Package::new("iperf3", "measures throughput"));
    }
    packages::install(&wanted)?;
    let toolchain = toolchain::prepare()?;
    if purpose == For::Tests {
        install_tool("cargo-deny", CARGO_DENY, "checks licences and sources of dependencies")?;
        install_tool("cargo-machete", CARGO_MACHETE, "finds dependencies nobody uses")?;
    }
    Ok(toolchain)
}

/// Set-up, the eBPF object, every program of the workspace.
pub(crate) fn build(purpose: For, release: bool) -> anyhow::Result<()> {
    let toolchain = run(purpose)?;
    object::build(&toolchain)?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace::root()).args(["build", "--workspace", "--bins"]);
    if release {
        // It has no program, and would give tokio in all of them a clock that tests can stop.
        cargo.args(["--release", "--exclude", "shoal-raft-tests"]);
    }
    process::run(&mut cargo)
}

/// One program, optimised, with what it needs of the machine.
pub(crate) fn build_program(package: &str, program: &str) -> anyhow::Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    let args = ["build", "--release", "--package", package, "--bin", program];
    process::run(cargo.current_dir(workspace::root()).args(args))
}

fn install_tool(name: &str, version: &str, why: &str) -> anyhow::Result<()> {
    let tools = workspace::tools()?;
    let record = std::fs::read_to_string(tools.join(".crates.toml")).unwrap_or_default();
    if tools.join("bin").join(name).is_file() && record.contains(&format!("\"{name} {version} ")) {
        return Ok(());
    }
    println!("Building {name} {version} ({why}): under a minute.");
    let mut cargo = toolchain::cargo_install(&tools, name, version);
    // Compiled quickly rather than well: it runs for a second.
    process::run(cargo.args(["--profile", "dev"]).env("CARGO_PROFILE_DEV_DEBUG", "false"))
}
