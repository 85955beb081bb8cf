//! The docker client that demo and tests drive.

use crate::{packages, process, workspace};
use anyhow::{Context as _, bail};
use std::{fs, path::PathBuf, process::Command};

/// The client in `PATH`, else Debian's, unpacked below `target/` without its daemon.
pub(crate) fn client() -> anyhow::Result<PathBuf> {
    if let Some(docker) = process::find("docker") {
        return Ok(docker);
    }
    let dir = workspace::root().join("target/docker-client");
    let docker = dir.join("usr/bin/docker");
    if docker.is_file() {
        return Ok(docker);
    }
    // Debian 13 split the client from docker.io.
    let Some(package) = ["docker-cli", "docker.io"].into_iter().find(|p| packages::is_offered(p))
    else {
        bail!(
            "there is no docker client in PATH and {} offers neither docker-cli nor docker.io: \
             put a docker client in PATH",
            packages::distribution()
        );
    };
    println!(
        "Unpacking the docker client of Debian's {package} under target/: nothing is installed."
    );
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    process::run(Command::new("apt-get").current_dir(&dir).args(["download", "-q", package]))?;
    let deb = fs::read_dir(&dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .with_context(|| format!("apt-get left no package in {}", dir.display()))?;
    process::run(Command::new("dpkg").arg("-x").arg(&deb).arg(&dir))?;
    fs::remove_file(&deb)?;
    if !docker.is_file() {
        bail!("{package} holds no usr/bin/docker: put a docker client in PATH");
    }
    Ok(docker)
}
