//! A cluster that stays after the demo: how to use it, and removing it.

use anyhow::{Context as _, bail};
use shoal_tests::{Cluster, Manifest};
use std::{fs, path::Path};

/// What a kept cluster consists of. Only root writes to /run, and it is empty after a reboot.
const MANIFEST: &str = "/run/shoal-demo";

pub(crate) fn refuse_a_second() -> anyhow::Result<()> {
    if Path::new(MANIFEST).exists() {
        bail!("a cluster is already kept: remove it with `cargo xtask demo --stop`");
    }
    Ok(())
}

/// Leaves the cluster up and prints how to use it.
pub(crate) fn keep(cluster: Cluster) -> anyhow::Result<()> {
    let (socket, node) = (cluster.node(0).docker_host(), cluster.node(0).addr());
    let client = cluster.client(0).holder();
    let sockets: Vec<String> =
        cluster.nodes().iter().map(|n| format!("  {}  {}", n.name(), n.docker_host())).collect();
    let manifest = cluster.keep()?;
    fs::write(MANIFEST, manifest).with_context(|| format!("cannot write {MANIFEST}"))?;
    println!(
        "\nThe cluster stays up. As root:\n\n  export DOCKER_HOST={socket}\n  docker node ls\n  \
         docker service ps web\n\n  # as the outside host\n  \
         nsenter --target {client} --net curl http://{node}:8080/\n\nEvery node's socket:\n{}\n\n\
         Remove it with: cargo xtask demo --stop",
        sockets.join("\n")
    );
    Ok(())
}

/// Removes a kept cluster.
pub(crate) fn remove() -> anyhow::Result<()> {
    let text = match fs::read_to_string(MANIFEST) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("no cluster is kept: {MANIFEST} is not there")
        }
        other => other.with_context(|| format!("cannot read {MANIFEST}"))?,
    };
    let mut manifest = Manifest::default();
    text.lines().try_for_each(|line| manifest.add(line))?;
    let left = manifest.remove();
    if !left.0.is_empty() {
        bail!("not removed: {}", left.0.join(", "));
    }
    fs::remove_file(MANIFEST)?;
    println!("The kept cluster is removed.");
    Ok(())
}
