//! The eBPF object: built for the kernel, then put where the load balancer's crate embeds it from.

use crate::{toolchain::Toolchain, workspace};
use anyhow::{Context as _, bail};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Builds the programs into `target/bpf/shoal.bpf.o` of the clone, wherever cargo's own target
/// folder is.
pub(crate) fn build(toolchain: &Toolchain) -> anyhow::Result<()> {
    let root = workspace::root();
    let target = root.join("target/bpf");
    let mut cargo = Command::new(toolchain.cargo());
    cargo
        // Target and flags are in that folder's own .cargo/config.toml.
        .current_dir(root.join("ebpf/programs"))
        .args(["build", "--release"])
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(&target)
        // A packaged stable compiler then takes -Z; a nightly one does not mind.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", toolchain.rustc())
        .env("PATH", workspace::path_with_tools()?)
        // Those of the cargo that runs this, or of its user, are for another compiler.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("LD_LIBRARY_PATH");
    let built = linked_object(&mut cargo).context("the eBPF programs do not build")?;
    let object = target.join("shoal.bpf.o");
    copy_if_changed(&built, &object)
        .with_context(|| format!("cannot copy {} to {}", built.display(), object.display()))
}

/// Runs cargo and reads from its messages which file the linker wrote.
fn linked_object(cargo: &mut Command) -> anyhow::Result<PathBuf> {
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start its cargo")?;
    let mut object = None;
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let message: serde_json::Value = serde_json::from_str(&line?)?;
        if message.pointer("/target/kind/0").and_then(|k| k.as_str()) == Some("bin") {
            let file = message.pointer("/filenames/0").and_then(|f| f.as_str());
            object = file.map(PathBuf::from).or(object);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo failed ({status})");
    }
    object.context("cargo named no object: has ebpf/programs a [[bin]]?")
}

/// Leaves an equal file alone, so that nothing that embeds it is built again.
fn copy_if_changed(from: &Path, to: &Path) -> std::io::Result<()> {
    let new = fs::read(from)?;
    if fs::read(to).is_ok_and(|old| old == new) { Ok(()) } else { fs::write(to, new) }
}
