//! Where things are: the clone, its target folder, the cache for tools.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The root of the clone.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is one folder below the root")
}

/// Cargo's target folder, which `CARGO_TARGET_DIR` may move.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Where tools are installed that no Debian package has.
pub(crate) fn tools() -> anyhow::Result<PathBuf> {
    let cache = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => Path::new(&home).join(".cache"),
        _ => anyhow::bail!("neither HOME nor XDG_CACHE_HOME is set; set one of them"),
    };
    Ok(cache.join("shoal/tools"))
}

/// `PATH` with the tools' folder in front.
pub(crate) fn path_with_tools() -> anyhow::Result<String> {
    let bin = tools()?.join("bin");
    Ok(format!("{}:{}", bin.display(), env::var("PATH").unwrap_or_default()))
}
