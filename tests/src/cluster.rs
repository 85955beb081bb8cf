//! Nodes, clients and the wire between them.

use crate::{
    Capture, Delay, Guardian, Host, Leftovers, Node, Segment, address, cleanup::PREFIX, patiently,
    wait_for, wire::Wire,
};
use anyhow::{Context as _, bail};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

/// How many clusters this process has made: part of their names.
static MADE: AtomicU32 = AtomicU32::new(0);

/// What a cluster shall be.
#[derive(Clone, Debug)]
pub struct Builder {
    nodes: usize,
    clients: usize,
    daemons: bool,
    swarm: bool,
}

/// A cluster. When it is dropped, nothing of it stays.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    wire: Wire,
    nodes: Vec<Node>,
    clients: Vec<Host>,
    files: AtomicU32,
    guardian: Arc<Guardian>,
    keep: bool,
}

impl Builder {
    /// How many nodes.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// How many outside hosts, on a network of their own.
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// Hosts only, no daemon on them.
    pub fn without_daemons(mut self) -> Self {
        self.daemons = false;
        self
    }

    /// The first node inits a swarm and the others join as workers.
    pub fn swarm(mut self) -> Self {
        self.swarm = true;
        self
    }

    /// Makes it. If that fails, nothing of it stays.
    pub fn start(self) -> anyhow::Result<Cluster> {
        let made = MADE.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("{PREFIX}{}-{made}", process::id());
        let folder = env::temp_dir().join(&name);
        let guardian = Arc::new(Guardian::start()?);
        guardian.add(&format!("folder {}", folder.display()))?;
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let wire = Wire::start(&guardian)?;
        let mut cluster = Cluster {
            folder,
            wire,
            nodes: Vec::new(),
            clients: Vec::new(),
            files: AtomicU32::new(0),
            guardian,
            keep: false,
        };
        for index in 0..self.nodes {
            cluster.add_node(index, &format!("{name}-node{}", index + 1))?;
        }
        for index in 0..self.clients {
            let host = Host::start(&format!("client{}", index + 1), &cluster.guardian, "")?;
            cluster.wire.join(&host, Segment::Clients, index)?;
            cluster.clients.push(host);
        }
        if self.daemons {
            cluster.start_daemons()?;
        }
        if self.swarm {
            cluster.form_swarm(self.nodes)?;
        }
        Ok(cluster)
    }
}

impl Cluster {
    /// One node, no client, daemons running, not a swarm, unless told otherwise.
    pub fn builder() -> Builder {
        Builder { nodes: 1, clients: 0, daemons: true, swarm: false }
    }

    /// A node, counted from 0; its host name counts from 1.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// An outside host, counted from 0.
    pub fn client(&self, index: usize) -> &Host {
        &self.clients[index]
    }

    /// The namespace that joins the hosts.
    pub fn wire(&self) -> &Host {
        &self.wire.host
    }

    /// A folder that goes with the cluster.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What removes the cluster; also usable from a signal handler's thread.
    pub fn guardian(&self) -> Arc<Guardian> {
        Arc::clone(&self.guardian)
    }

    /// Takes a node off the wire: it runs on, alone.
    pub fn cut(&self, index: usize) -> anyhow::Result<()> {
        self.wire.set(&self.nodes[index], false)
    }

    /// Puts a node back on the wire.
    pub fn heal(&self, index: usize) -> anyhow::Result<()> {
        self.wire.set(&self.nodes[index], true)
    }

    /// Makes a node's wire slow, each way, until what this gives is dropped.
    pub fn delay(&self, index: usize, delay: Duration) -> anyhow::Result<Delay<'_>> {
        self.wire.delay(&self.nodes[index], delay)
    }

    /// Records what crosses the wire from now on.
    pub fn capture(&self) -> anyhow::Result<Capture> {
        self.capture_of(self.wire.host.holder())
    }

    /// Records what reaches the network of a process, such as a container's.
    pub fn capture_of(&self, pid: u32) -> anyhow::Result<Capture> {
        Capture::start(pid, &self.new_file("capture"))
    }

    /// The first node inits a swarm, others join it as workers until it has so many members, and
    /// all of these are ready.
    pub fn form_swarm(&self, members: usize) -> anyhow::Result<()> {
        let first = &self.nodes[0];
        let addr = first.addr().to_string();
        first.docker(&["swarm", "init", "--advertise-addr", &addr])?.ok()?;
        let token = first.docker(&["swarm", "join-token", "-q", "worker"])?.ok()?;
        for node in &self.nodes[1..members] {
            node.docker(&["swarm", "join", "--token", &token, &format!("{addr}:2377")])?.ok()?;
        }
        wait_for("all nodes to be ready", patiently(), || {
            let states = first.docker(&["node", "ls", "--format", "{{.Status}}"])?.ok()?;
            let ready = states.lines().filter(|state| *state == "Ready").count();
            if ready == members { Ok(()) } else { bail!("{ready} ready: {states}") }
        })
    }

    /// Loads an image archive on every node.
    pub fn load_image(&self, archive: &[u8]) -> anyhow::Result<()> {
        let file = self.new_file("image");
        fs::write(&file, archive)?;
        let path = file.to_str().context("the temporary folder's name is not UTF-8")?;
        for node in &self.nodes {
            node.docker(&["load", "-i", path])?.ok()?;
        }
        fs::remove_file(&file)?;
        Ok(())
    }

    /// Leaves everything up, and gives the lines of a [`Manifest`](crate::Manifest) that removes it
    /// later.
    pub fn keep(mut self) -> anyhow::Result<String> {
        self.keep = true;
        self.guardian.let_be()
    }

    /// Removes everything and says what could not be removed.
    pub fn remove(self) -> Leftovers {
        self.guardian.clean_up()
    }

    fn new_file(&self, kind: &str) -> PathBuf {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("{kind}-{number}"))
    }

    fn add_node(&mut self, index: usize, cgroup: &str) -> anyhow::Result<()> {
        let name = format!("node{}", index + 1);
        let folder = self.folder.join(&name);
        fs::create_dir(&folder)?;
        self.guardian.add(&format!("cgroup {cgroup}"))?;
        let host = Host::start(&name, &self.guardian, &Node::script(&folder))?;
        self.wire.join(&host, Segment::Nodes, index)?;
        let addresses = address(Segment::Nodes, index);
        self.nodes.push(Node::new(host, folder, cgroup.to_owned(), addresses));
        Ok(())
    }

    fn start_daemons(&self) -> anyhow::Result<()> {
        thread::scope(|scope| {
            let all: Vec<_> =
                self.nodes.iter().map(|node| scope.spawn(|| node.start_daemon())).collect();
            all.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- {}, end of the log:\n{}", node.name(), node.log_tail());
            }
        }
        for left in self.guardian.clean_up().0 {
            eprintln!("not removed: {left}");
        }
    }
}
