//! Running other programs, and raising the few that need root.

use anyhow::{Context as _, bail};
use std::{
    env,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// A program found in `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|p| is_executable(p))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0)
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    Path::new("/proc/self").metadata().is_ok_and(|m| m.uid() == 0)
}

/// A command that runs `program` as root, through sudo where this is not root.
///
/// `keep` names the environment variables that reach it: sudo drops the others.
pub(crate) fn as_root(program: &Path, keep: &[(&str, String)]) -> anyhow::Result<Command> {
    let mut command;
    if is_root() {
        command = Command::new(program);
        command.envs(keep.iter().map(|(k, v)| (k, v)));
    } else {
        if find("sudo").is_none() {
            bail!(
                "{} needs root and there is no sudo: install sudo, or run this as root",
                program.display()
            );
        }
        command = Command::new("sudo");
        command.arg("--").arg("env");
        command.args(keep.iter().map(|(k, v)| format!("{k}={v}")));
        command.arg(program);
    }
    Ok(command)
}

/// Runs to the end; an error names the command line and its status.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = line(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// The standard output of a program that must succeed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let line = line(command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}
