//! Debian packages: which are missing, and installing those.

use crate::process;
use anyhow::{Context as _, bail};
use std::{
    collections::HashSet,
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

/// A package and what it is for.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) why: &'static str,
}

impl Package {
    pub(crate) fn new(name: impl Into<String>, why: &'static str) -> Self {
        Self { name: name.into(), why }
    }
}

/// Installs those of `wanted` that are missing, after saying so.
pub(crate) fn install(wanted: &[Package]) -> anyhow::Result<()> {
    let present = installed(wanted)?;
    let missing: Vec<&Package> = wanted.iter().filter(|p| !present.contains(&p.name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("Debian packages that are missing:");
    for package in &missing {
        println!("  {:<20} {}", package.name, package.why);
    }
    refresh()?;
    let unknown = not_offered(&missing);
    if !unknown.is_empty() {
        bail!(
            "{} offers no package {}.\nShoal is built and tested with Debian 12's packages; install \
             what serves the same purpose under the name it has there, or add a source that has it.",
            distribution(),
            unknown.join(", ")
        );
    }
    println!("Installing them with apt-get.");
    apt_install(missing.iter().map(|p| &p.name))
}

/// Brings packages that are there to the newest version on offer, after saying so.
pub(crate) fn upgrade(wanted: &[Package]) -> anyhow::Result<()> {
    println!("Debian packages that are too old:");
    for package in wanted {
        println!("  {:<20} {}", package.name, package.why);
    }
    refresh()?;
    println!("Upgrading them with apt-get.");
    apt_install(wanted.iter().map(|p| &p.name))
}

fn apt_install<'a>(names: impl Iterator<Item = &'a String>) -> anyhow::Result<()> {
    process::run(apt_get()?.args(["install", "-q", "-y", "--no-install-recommends"]).args(names))
}

/// Refreshes apt's lists, once: those of a new machine are as old as its image, and name versions
/// that are too old or no longer there.
pub(crate) fn refresh() -> anyhow::Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    println!("Refreshing the package lists (apt-get update).");
    if let Err(error) = process::run(apt_get()?.args(["update", "-q"])) {
        println!("{error:#}; going on with the lists that are here.");
    }
    Ok(())
}

/// Downloads a package and unpacks it in a folder; nothing is installed.
pub(crate) fn unpack(package: &str, folder: &Path) -> anyhow::Result<()> {
    // Of its own, so that the package is the only one there.
    let download = folder.join("download");
    if download.exists() {
        fs::remove_dir_all(&download)?;
    }
    fs::create_dir_all(&download).with_context(|| format!("cannot make {}", download.display()))?;
    let apt = || {
        let mut apt = Command::new("apt-get");
        process::run(apt.current_dir(&download).args(["download", "-q", package]))
    };
    // Lists that are old name a version that is no longer there.
    if apt().is_err() {
        refresh()?;
        apt()?;
    }
    let deb = fs::read_dir(&download)?
        .find_map(|entry| Some(entry.ok()?.path()))
        .with_context(|| format!("apt-get left no package in {}", download.display()))?;
    process::run(Command::new("dpkg").arg("-x").arg(&deb).arg(folder))?;
    fs::remove_dir_all(&download)?;
    Ok(())
}

/// Whether apt knows a version of this package that could be installed.
pub(crate) fn is_offered(name: &str) -> bool {
    // `apt-cache policy` answers for every known name; a purely virtual one has no candidate.
    let policy = process::output(Command::new("apt-cache").args(["policy", name]));
    policy.is_ok_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"))
}

fn not_offered(packages: &[&Package]) -> Vec<String> {
    packages.iter().filter(|p| !is_offered(&p.name)).map(|p| p.name.clone()).collect()
}

/// The names of the installed ones among `wanted`.
fn installed(wanted: &[Package]) -> anyhow::Result<HashSet<String>> {
    if process::find("dpkg-query").is_none() || process::find("apt-get").is_none() {
        let names: Vec<&str> = wanted.iter().map(|p| p.name.as_str()).collect();
        bail!(
            "{} has no apt-get. Shoal is built on Debian 12 or newer and on Ubuntu 24.04; there, \
             these packages are needed: {}",
            distribution(),
            names.join(" ")
        );
    }
    // It fails as soon as one is unknown, and lists the others all the same.
    let listing = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status} ${Package}\n"])
        .args(wanted.iter().map(|p| &p.name))
        .output()?;
    let text = String::from_utf8_lossy(&listing.stdout);
    Ok(text.lines().filter_map(|l| l.strip_prefix("installed ")).map(str::to_owned).collect())
}

fn apt_get() -> anyhow::Result<Command> {
    process::as_root(
        Path::new("/usr/bin/apt-get"),
        &[("DEBIAN_FRONTEND", "noninteractive".to_owned())],
    )
}

/// The name of this system, for messages.
pub(crate) fn distribution() -> String {
    fs::read_to_string("/etc/os-release")
        .ok()
        .and_then(|text| {
            let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
            Some(name.trim_matches('"').to_owned())
        })
        .unwrap_or_else(|| "This system".to_owned())
}
