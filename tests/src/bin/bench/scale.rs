//! What many nodes and tasks cost real managers: real daemons with real disks, each on a host of its
//! own; `shoal-agents` plays the nodes on another.

mod load;
mod process;

use crate::report::{Aim, Row};
use anyhow::{Context as _, bail, ensure};
use load::{Load, post, service};
use process::Usage;
use shoal_tests::{Agents, Cluster, keep_to_managers_processors, metric_sum, patiently, wait_for};
use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

/// How large a cluster.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) tasks: usize,
}

pub(crate) const QUICK: Size = Size { nodes: 200, tasks: 5_000 };
pub(crate) const DEFAULT: Size = Size { nodes: 1_000, tasks: 50_000 };
pub(crate) const FULL: Size = Size { nodes: 10_000, tasks: 1_000_000 };

/// Port of the nodes' gRPC (Docker's).
const PORT: u16 = 2377;
/// The longest any phase may take before the benchmark gives up.
const BOUND: Duration = Duration::from_secs(3_600);
/// With so many nodes they beat as often as by default, with more less often.
const NODES_THAT_BEAT_EACH_SECOND: usize = 2_000;
/// Beats in the time that Docker's heartbeat period is.
const DOCKER_RATIO: usize = 5;
/// How long it is quiet before and while idling is measured.
const QUIET: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(15);
/// After a leader's loss: long enough for tasks of nodes that counted as down to be begun elsewhere.
const AFTERMATH: Duration = Duration::from_secs(15);

// What is good enough on two cores, of which the nodes take one.
const MEMORY_AIM_MIB: f64 = 500.0;
/// A manager's memory for each node and task beyond those of [`DEFAULT`], in MiB.
const MIB_PER_NODE: f64 = 0.1;
const MIB_PER_TASK: f64 = 0.008;
const JOINS_AIM: f64 = 100.0;
const TASKS_AIM: f64 = 1_000.0;
const CPU_PER_TASK_AIM_MS: f64 = 1.0;
/// Of a core, for 1,000 nodes.
const IDLE_AIM: f64 = 0.2;
const WRITE_AIM_S: f64 = 1.0;
/// The longest pause of an agent between two attempts, and a second for 5,000 nodes.
const BACK_AIM_S: f64 = 10.0;

/// Of one manager and of three, or of so many.
pub(crate) fn run(size: Size, managers: Option<usize>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for managers in managers.map_or_else(|| vec![1, 3], |one| vec![one]) {
        rows.extend(of(size, managers)?);
    }
    Ok(rows)
}

fn of(size: Size, managers: usize) -> anyhow::Result<Vec<Row>> {
    let cluster = form(managers, size)?;
    let mut rows = Rows { rows: Vec::new(), size, managers };
    let leader = 0;
    let idle = Usage::of(&cluster, leader)?;
    say(&format!("{managers} managers without nodes: {:.0} MiB", idle.rss_mib));

    let mut agents = join(&cluster, size, &mut rows)?;
    let load = Load::of(size);
    let before = Usage::of(&cluster, leader)?;
    say(&format!("{} nodes, no tasks: {:.0} MiB", size.nodes, before.rss_mib));
    let start = Instant::now();
    load.create(&cluster, &agents)?;
    say(&format!("{} services created in {:.1} s", load.services, start.elapsed().as_secs_f64()));
    let wanted = load.tasks() as u64;
    // And that the sample of nodes knows the nodes of all tasks it knows.
    let all_run = |p: &shoal_tests::Progress| p.running >= wanted && p.strangers == 0;
    let done = agents.wait("all tasks to run", BOUND, all_run)?;
    let taken = start.elapsed().as_secs_f64();
    verify(&cluster, wanted)?;
    let after = Usage::of(&cluster, leader)?;
    say(&format!("{wanted} tasks run after {taken:.1} s: {done:?}"));
    rows.add("tasks begun until all run", "1/s", wanted as f64 / taken, Aim::AtLeast(TASKS_AIM));
    let per_task = (after.cpu_s - before.cpu_s) * 1_000.0 / wanted as f64;
    rows.add("leader's CPU per task", "ms", per_task, Aim::AtMost(CPU_PER_TASK_AIM_MS));

    thread::sleep(QUIET);
    let quiet = Usage::of(&cluster, leader)?;
    thread::sleep(IDLE);
    let now = Usage::of(&cluster, leader)?;
    let beating = (now.cpu_s - quiet.cpu_s) / IDLE.as_secs_f64();
    let aim = IDLE_AIM * (size.nodes as f64 / 1_000.0).max(1.0);
    rows.add("idle leader, heartbeats only", "cores", beating, Aim::AtMost(aim));
    let more_nodes = size.nodes.saturating_sub(DEFAULT.nodes) as f64 * MIB_PER_NODE;
    let more_tasks = size.tasks.saturating_sub(DEFAULT.tasks) as f64 * MIB_PER_TASK;
    let aim = Aim::AtMost(MEMORY_AIM_MIB + more_nodes + more_tasks);
    rows.add("leader's memory, all tasks running", "MiB", now.rss_mib, aim);
    rows.add("leader's memory, most it ever had", "MiB", now.peak_mib, aim);
    say(&format!("for each task: {:.1} KiB more", per(before.rss_mib, now.rss_mib, wanted)));

    if managers > 1 {
        lose_leader(&cluster, leader, &mut agents, size, &mut rows)?;
    }
    drop(agents);
    let left = cluster.remove();
    ensure!(left.0.is_empty(), "not removed: {}", left.0.join(", "));
    Ok(rows.rows)
}

/// KiB for each.
fn per(before_mib: f64, after_mib: f64, count: u64) -> f64 {
    (after_mib - before_mib) * 1_024.0 / count as f64
}

fn say(text: &str) {
    eprintln!("{text}");
}

struct Rows {
    rows: Vec<Row>,
    size: Size,
    managers: usize,
}

impl Rows {
    fn add(&mut self, what: &str, unit: &'static str, ours: f64, aim: Aim) {
        let Size { nodes, tasks } = self.size;
        let plural = if self.managers == 1 { "" } else { "s" };
        let what =
            format!("{what}; {nodes} nodes, {tasks} tasks, {} manager{plural}", self.managers);
        let row = Row { what, unit, ours, aim };
        say(&format!("{}: {:.2} {}", row.what, row.ours, row.unit));
        self.rows.push(row);
    }
}

/// Managers that run no tasks themselves, the first of which leads.
fn form(managers: usize, size: Size) -> anyhow::Result<Cluster> {
    // Daemons have as many threads as processors they may use when they start.
    keep_to_managers_processors(std::process::id())?;
    let cluster = Cluster::builder().nodes(managers).clients(1).start()?;
    let first = cluster.node(0);
    let addr = first.addr().to_string();
    // The first subnet is the routing mesh's, which has an address for every node.
    let pool = ["--default-addr-pool", "10.0.0.0/8", "--default-addr-pool-mask-length", "18"];
    first.docker(&[&["swarm", "init", "--advertise-addr", &addr][..], &pool].concat())?.ok()?;
    let token = first.docker(&["swarm", "join-token", "-q", "manager"])?.ok()?;
    for node in &cluster.nodes()[1..] {
        node.docker(&["swarm", "join", "--token", &token, &format!("{addr}:{PORT}")])?.ok()?;
    }
    for node in cluster.nodes() {
        first.docker(&["node", "update", "--availability", "drain", node.name()])?.ok()?;
    }
    // One process plays all nodes on the managers' cores: beats of ten thousand would take them whole.
    let slower = size.nodes.div_ceil(NODES_THAT_BEAT_EACH_SECOND);
    if slower > 1 {
        let heartbeat = format!("{}s", DOCKER_RATIO * slower);
        first.docker(&["swarm", "update", "--dispatcher-heartbeat", &heartbeat])?.ok()?;
    }
    Ok(cluster)
}

/// The nodes join.
fn join(cluster: &Cluster, size: Size, rows: &mut Rows) -> anyhow::Result<Agents> {
    let token = cluster.node(0).docker(&["swarm", "join-token", "-q", "worker"])?.ok()?;
    let all: Vec<SocketAddr> =
        cluster.nodes().iter().map(|node| SocketAddr::new(node.addr(), PORT)).collect();
    let start = Instant::now();
    let mut agents = Agents::start(cluster.client(0), &all, &token, size.nodes)?;
    let nodes = size.nodes as u64;
    let here = |p: &shoal_tests::Progress| p.joined == nodes && p.sessions == nodes;
    let progress = agents.wait("all nodes to join", BOUND, here)?;
    let taken = start.elapsed().as_secs_f64();
    say(&format!("{nodes} nodes joined after {taken:.1} s: {progress:?}"));
    rows.add("nodes joined, with sessions", "1/s", nodes as f64 / taken, Aim::AtLeast(JOINS_AIM));
    Ok(agents)
}

/// What the agents say is what the managers say.
fn verify(cluster: &Cluster, running: u64) -> anyhow::Result<()> {
    wait_for("the managers to know that all run", patiently(), || {
        let text = cluster.node(0).metrics()?;
        let known = metric_sum(&text, "shoal_manager_tasks", &[("state", "running")])?;
        ensure!(known == running as f64, "{known} of {running}");
        Ok(())
    })
}

/// The leader's host loses its power. Its nodes find another, and lose no task.
fn lose_leader(
    cluster: &Cluster,
    leader: usize,
    agents: &mut Agents,
    size: Size,
    rows: &mut Rows,
) -> anyhow::Result<()> {
    let before = agents.progress();
    let witness = (leader + 1) % cluster.nodes().len();
    let start = Instant::now();
    cluster.node(leader).power_off()?;
    let spec = service("after", 0, None);
    let written = loop {
        match post(cluster, witness, "/services/create", &spec) {
            Ok(()) => break start.elapsed().as_secs_f64(),
            Err(error) if start.elapsed() > patiently() => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    };
    rows.add("leader killed → next write", "s", written, Aim::AtMost(WRITE_AIM_S));
    let nodes = size.nodes as u64;
    // Not those that have not noticed yet.
    agents.wait("the nodes to notice", patiently(), |p| p.sessions < nodes)?;
    let back = agents.wait("all nodes to be back", BOUND, |p| p.sessions == nodes)?;
    let taken = start.elapsed().as_secs_f64();
    say(&format!("all back: {back:?}"));
    rows.add("leader killed → all nodes have sessions", "s", taken, Aim::AtMost(BACK_AIM_S));
    thread::sleep(AFTERMATH);
    let after = agents.progress();
    if after.sessions != nodes {
        bail!("sessions were lost again: {after:?}");
    }
    let touched = (after.begun - before.begun) + (after.stopped - before.stopped);
    rows.add("leader killed → tasks begun or stopped", "tasks", touched as f64, Aim::AtMost(0.0));
    let new = (0..cluster.nodes().len())
        .find(|index| *index != leader && leads(cluster, *index).unwrap_or(false))
        .context("nobody leads")?;
    let usage = Usage::of(cluster, new)?;
    say(&format!("the new leader has {:.0} MiB, at most {:.0}", usage.rss_mib, usage.peak_mib));
    Ok(())
}

fn leads(cluster: &Cluster, index: usize) -> anyhow::Result<bool> {
    let node = cluster.node(index);
    let format = "{{.Hostname}}|{{.ManagerStatus}}";
    let listing =
        node.docker(&["node", "ls", "--filter", "role=manager", "--format", format])?.ok()?;
    Ok(listing.lines().any(|line| line == format!("{}|Leader", node.name())))
}
