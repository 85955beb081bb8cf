//! The programs under test and those that tests use.

use anyhow::{Context as _, bail};
use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

/// A program of this workspace, next to the one that runs, or above it: tests are in `deps/`.
pub(crate) fn ours(name: &str) -> anyhow::Result<PathBuf> {
    let me = env::current_exe().context("cannot tell which program runs")?;
    let mut dir = me.parent().context("it is in no folder")?;
    if dir.ends_with("deps") || dir.ends_with("examples") {
        dir = dir.parent().context("deps/ is in no folder")?;
    }
    let program = dir.join(name);
    if !program.is_file() {
        bail!("{} is missing: build it with `cargo xtask build`", program.display());
    }
    Ok(program)
}

/// The docker client: `SHOAL_DOCKER`, which xtask sets, else the one in `PATH`.
pub(crate) fn docker() -> PathBuf {
    env::var_os("SHOAL_DOCKER").map_or_else(|| "docker".into(), PathBuf::from)
}

/// Debian's busybox, linked statically, of which images are made.
pub fn busybox() -> anyhow::Result<&'static Path> {
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].map(Path::new);
    busybox
        .into_iter()
        .find(|path| path.is_file())
        .context("there is no busybox: apt-get install busybox-static")
}

/// Says that something could not be tested here, and why: `cargo xtask test` ends with the line.
pub fn skip(what: &str, reason: &str) {
    eprintln!("not run: {what}: {reason}");
    if let Some(path) = env::var_os("SHOAL_SKIPS")
        && let Ok(mut file) = fs::OpenOptions::new().create(true).append(true).open(path)
    {
        // Said on standard error already; a full disk is the worst that can happen.
        writeln!(file, "{what}: {reason}").ok();
    }
}
