//! Other programs, from Debian's packages unpacked below `target/peers`, on the hosts of a cluster without
//! daemons of ours. They end with it.

use anyhow::{Context as _, ensure};
use shoal_tests::{Cluster, Outcome, patiently, wait_for};
use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where etcd answers clients.
const ETCD_PORT: u16 = 2379;

fn folder() -> anyhow::Result<PathBuf> {
    let folder = env::var_os("SHOAL_PEERS").context(
        "SHOAL_PEERS does not name the folder with the peers: cargo xtask bench unpacks them",
    )?;
    Ok(folder.into())
}

/// Three hosts that form one etcd cluster.
pub(super) fn etcd() -> anyhow::Result<(Cluster, Vec<SocketAddr>)> {
    let cluster = Cluster::builder().nodes(3).without_daemons().start()?;
    let url = |index: usize, port: u16| format!("http://{}:{port}", cluster.node(index).addr());
    let members: Vec<String> = (0..3).map(|i| format!("m{i}={}", url(i, 2380))).collect();
    for index in 0..3 {
        let node = cluster.node(index);
        let mut command = node.command(folder()?.join("usr/bin/etcd"));
        command.args(["--name", &format!("m{index}"), "--logger=zap", "--log-level=error"]);
        command.arg("--data-dir").arg(cluster.folder().join(format!("etcd{index}")));
        let (client, peer) = (url(index, ETCD_PORT), url(index, 2380));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"]);
        start(&mut command, &cluster.folder().join(format!("etcd{index}.log")))?;
    }
    let ends = (0..3).map(|i| SocketAddr::new(cluster.node(i).addr(), ETCD_PORT)).collect();
    wait_for("etcd to have a leader", patiently(), || {
        let health = cluster.node(0).http_get(&format!("{}/health", url(0, ETCD_PORT)))?;
        ensure!(health.body.contains("\"true\""), "{}", health.body);
        Ok(())
    })?;
    Ok((cluster, ends))
}

/// Three hosts that form one swarm of Docker's, all of them managers; their API sockets.
pub(super) fn swarm() -> anyhow::Result<(Cluster, Vec<PathBuf>)> {
    let cluster = Cluster::builder().nodes(3).without_daemons().start()?;
    let sockets: Vec<PathBuf> =
        (0..3).map(|index| cluster.folder().join(format!("docker{index}.sock"))).collect();
    for (index, socket) in sockets.iter().enumerate() {
        let folder = folder()?;
        let place = |name: &str| cluster.folder().join(format!("docker{index}.{name}"));
        let mut command = cluster.node(index).command(folder.join("usr/sbin/dockerd"));
        let path = env::var("PATH").unwrap_or_default();
        let (bin, sbin) = (folder.join("usr/bin"), folder.join("usr/sbin"));
        command.env("PATH", format!("{}:{}:{path}", bin.display(), sbin.display()));
        command.env("LD_LIBRARY_PATH", folder.join("lib/x86_64-linux-gnu"));
        command.arg("--host").arg(format!("unix://{}", socket.display()));
        command.arg("--data-root").arg(place("data")).arg("--exec-root").arg(place("run"));
        command.arg("--pidfile").arg(place("pid")).args(["--iptables=false", "--bridge=none"]);
        start(&mut command, &place("log"))?;
    }
    let docker = |index: usize, args: &[&str]| {
        let mut command = cluster.node(index).docker_command();
        command.env("DOCKER_HOST", format!("unix://{}", sockets[index].display()));
        Outcome::of(command.args(args))?.ok()
    };
    for index in 0..3 {
        wait_for("dockerd to answer", patiently(), || docker(index, &["version"]))
            .with_context(|| log(&cluster.folder().join(format!("docker{index}.log"))))?;
    }
    let addr = cluster.node(0).addr().to_string();
    docker(0, &["swarm", "init", "--advertise-addr", &addr])?;
    let token = docker(0, &["swarm", "join-token", "-q", "manager"])?;
    for index in 1..3 {
        docker(index, &["swarm", "join", "--token", &token, &format!("{addr}:2377")])?;
    }
    wait_for("three managers", patiently(), || {
        let listing = docker(0, &["node", "ls", "--format", "{{.ManagerStatus}}"])?;
        let managers = listing.lines().filter(|line| *line == "Leader" || *line == "Reachable");
        ensure!(managers.count() == 3, "{listing}");
        Ok(())
    })?;
    Ok((cluster, sockets))
}

fn start(command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let file = fs::File::create(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let program = format!("{command:?}");
    command.spawn().with_context(|| format!("cannot start {program}"))?;
    Ok(())
}

/// What a log ends with.
fn log(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
