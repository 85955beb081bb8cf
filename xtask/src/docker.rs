//! The docker client that demo and tests drive, and the programs that ours is measured against.

use crate::{packages, process, workspace};
use anyhow::bail;
use std::path::PathBuf;

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
    packages::unpack(package, &dir)?;
    if !docker.is_file() {
        bail!("{package} holds no usr/bin/docker: put a docker client in PATH");
    }
    Ok(docker)
}

/// What `bench control` starts, with what it needs that is not on every machine.
const PEERS: [&str; 5] = ["etcd-server", "docker.io", "containerd", "runc", "libdevmapper1.02.1"];

/// Where the peers are unpacked.
pub(crate) fn peers_folder() -> PathBuf {
    workspace::root().join("target/peers")
}

/// Debian's cfssl, unpacked below `target/`: the external CA of a test. `None` where apt has none.
pub(crate) fn cfssl() -> Option<PathBuf> {
    const PACKAGE: &str = "golang-cfssl";
    let cfssl = peers_folder().join("usr/bin/cfssl");
    if !cfssl.is_file() {
        println!("Unpacking Debian's {PACKAGE} under target/, for a test: not installed.");
        if let Err(error) = packages::unpack(PACKAGE, &peers_folder()) {
            eprintln!("{PACKAGE} is not to be had: {error:#}");
        }
    }
    cfssl.is_file().then_some(cfssl)
}

/// Unpacks Docker's daemon and etcd below `target/`.
pub(crate) fn peers() -> anyhow::Result<()> {
    let dir = peers_folder();
    if dir.join("usr/bin/etcd").is_file() && dir.join("usr/sbin/dockerd").is_file() {
        return Ok(());
    }
    for package in PEERS {
        println!("Unpacking Debian's {package} under target/, to compare with: not installed.");
        packages::unpack(package, &dir)?;
    }
    Ok(())
}
