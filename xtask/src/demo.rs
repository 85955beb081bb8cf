//! Programs of the `tests/` crate that are run as they are: the demo and the benchmarks.

use crate::{docker, process, setup, workspace};
use anyhow::Context as _;
use std::{os::unix::process::CommandExt as _, process::Command};

pub(crate) fn demo(keep: bool, stop: bool) -> anyhow::Result<()> {
    setup::build(setup::For::Demo, false)?;
    let flags = [(keep, "--keep"), (stop, "--stop")];
    let args = flags.into_iter().filter(|(given, _)| *given).map(|(_, flag)| flag.to_owned());
    become_program("debug/shoal-demo", args.collect())
}

pub(crate) fn bench(
    name: &str,
    part: Option<String>,
    json: Option<String>,
    flags: &[(bool, &str)],
) -> anyhow::Result<()> {
    // Needs neither the eBPF object nor the daemon, nor root.
    let alone = name == "placement";
    if alone {
        setup::build_program("shoal-tests", "shoal-bench")?;
    } else {
        setup::build(setup::For::Bench, true)?;
    }
    if name == "control" {
        docker::peers()?;
    }
    let mut args = vec![name.to_owned()];
    args.extend(part);
    args.extend(json.map(|file| format!("--json={file}")));
    args.extend(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| (*flag).to_owned()));
    let program = "release/shoal-bench";
    if alone {
        let program = workspace::target().join(program);
        let error = Command::new(&program).args(args).exec();
        return Err(error).with_context(|| format!("cannot start {}", program.display()));
    }
    become_program(program, args)
}

/// Replaces this process, so that Ctrl-C reaches the program itself, which cleans up.
fn become_program(name: &str, args: Vec<String>) -> anyhow::Result<()> {
    let program = workspace::target().join(name);
    let environment = [
        ("PATH", std::env::var("PATH").unwrap_or_default()),
        ("SHOAL_DOCKER", docker::client()?.display().to_string()),
        ("SHOAL_PEERS", docker::peers_folder().display().to_string()),
    ];
    let error = process::as_root(&program, &environment)?.args(args).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}
