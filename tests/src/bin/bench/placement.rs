//! Placement in memory, as the manager's reconciler does it: the scheduler reads the state and returns
//! changes, they are taken in proposals of the reconciler's size, and each is applied to the state.
//! One thread; each measurement is a process of its own, so that its memory is its own. Seconds are
//! those the thread ran, so that what else the machine does does not count.

use crate::report::{Aim, Row, median};
use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use shoal_cores::Scheduler;
use shoal_model::{
    Availability, Change, MadeBy, Meta, Node, NodeDescription, NodeOverlay, NodeState, NodeStatus,
    Object, Role, Service, State, Task, TaskState, TaskStatus, TaskTimes, Timestamp, docker,
};
use std::{
    collections::BTreeMap,
    env, fs,
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

/// Changes of one proposal, as in the manager.
const PROPOSAL: usize = 200;

/// Nodes of the large cluster, and of the small one it is compared with.
const LARGE: usize = 10_000;
const SMALL: usize = 100;

/// Tasks: of the main row, and of those that compare clusters and services.
const MANY: usize = 1_000_000;
const SOME: usize = 100_000;

const THROUGHPUT_AIM: f64 = 100_000.0;
const MEMORY_AIM_GIB: f64 = 2.0;
/// A task on 10,000 nodes may cost half as much again as one on 100: trees are deeper and caches
/// colder, but nobody looks at a hundred times the nodes.
const FLAT_AIM: f64 = 1.5;

/// What one process measured.
#[derive(Serialize, Deserialize)]
struct Outcome {
    /// Scheduling and applying, seconds.
    seconds: f64,
    /// A call when nothing waits any more, microseconds.
    idle_us: f64,
    /// Most memory resident in the course of all, GiB.
    peak_gib: f64,
}

pub(crate) fn rows(quick: bool) -> anyhow::Result<Vec<Row>> {
    let (runs, part) = if quick { (1, 10) } else { (3, 1) };
    let (many, some) = (MANY / part, SOME / part);
    let mut one = Vec::new();
    let (mut few, mut services) = (Vec::new(), Vec::new());
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        one.push(measure(LARGE, 1, many)?);
        few.push(measure(SMALL, 1, many)?);
        small.push(measure(SMALL, 1, some)?);
        large.push(measure(LARGE, 1, some)?);
        services.push(measure(LARGE, some / 10, some)?);
    }
    let of = |outcomes: &[Outcome], what: fn(&Outcome) -> f64| {
        median(outcomes.iter().map(what).collect())
    };
    let seconds = |outcomes: &[Outcome]| of(outcomes, |o| o.seconds);
    let per_second = |tasks: usize, seconds: f64| tasks as f64 / seconds;
    let cluster = format!("{LARGE} nodes, spread preference and constraint");
    Ok(vec![
        Row {
            what: format!("placement, {many} tasks of one service, {cluster}"),
            unit: "tasks/s",
            ours: per_second(many, seconds(&one)?),
            aim: Aim::AtLeast(THROUGHPUT_AIM),
        },
        Row {
            what: "the same, most resident memory".to_owned(),
            unit: "GiB",
            ours: of(&one, |o| o.peak_gib)?,
            aim: Aim::AtMost(MEMORY_AIM_GIB),
        },
        Row {
            what: format!("placement, {some} tasks of {} services, {cluster}", some / 10),
            unit: "tasks/s",
            ours: per_second(some, seconds(&services)?),
            aim: Aim::AtLeast(THROUGHPUT_AIM),
        },
        Row {
            what: format!("cost of one of {many} tasks, {LARGE} nodes to {SMALL} nodes"),
            unit: "times",
            ours: seconds(&one)? / seconds(&few)?,
            aim: Aim::AtMost(FLAT_AIM),
        },
        Row {
            what: format!("cost of one of {some} tasks, {LARGE} nodes to {SMALL} nodes"),
            unit: "times",
            ours: seconds(&large)? / seconds(&small)?,
            aim: Aim::AtMost(FLAT_AIM),
        },
        Row {
            what: format!("a call when nothing waits, {many} tasks, {LARGE} nodes"),
            unit: "µs",
            ours: of(&one, |o| o.idle_us)?,
            aim: Aim::AtMost(IDLE_AIM_US),
        },
    ])
}

/// Nothing to do must cost nothing that grows with the cluster.
const IDLE_AIM_US: f64 = 100.0;

fn measure(nodes: usize, services: usize, tasks: usize) -> anyhow::Result<Outcome> {
    let sizes = [nodes, services, tasks].map(|n| n.to_string());
    let output = Command::new(env::current_exe()?)
        .arg("place")
        .args(&sizes)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the measuring process")?;
    ensure!(output.status.success(), "placing {} failed", sizes.join(" "));
    serde_json::from_slice(&output.stdout).context("the measuring process printed no result")
}

/// Places `tasks`, divided among `services`, on `nodes`, and prints what it took.
pub(crate) fn place(nodes: usize, services: usize, tasks: usize) -> anyhow::Result<()> {
    let mut cluster = Cluster::of(nodes, services, tasks)?;
    let mut scheduler = Scheduler::default();
    let (clock, start, mut scheduling) = (Instant::now(), ran()?, 0.0);
    loop {
        let asked = ran()?;
        let changes = scheduler.schedule(&cluster.state, NOW);
        scheduling += ran()? - asked;
        if changes.is_empty() {
            break;
        }
        cluster.propose(changes)?;
    }
    let (seconds, wall) = (ran()? - start, clock.elapsed().as_secs_f64());
    let idle = Instant::now();
    ensure!(scheduler.schedule(&cluster.state, NOW).is_empty(), "it is never done");
    let idle_us = idle.elapsed().as_secs_f64() * 1e6;
    cluster.check(tasks)?;
    eprintln!(
        "{tasks} tasks, {services} services, {nodes} nodes: {seconds:.2} s, of these {scheduling:.2} s \
         in the scheduler itself; {wall:.2} s by the clock"
    );
    let outcome = Outcome { seconds, idle_us, peak_gib: peak_gib()? };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);
const ZONES: usize = 8;
/// One node in so many may not be used by any service.
const OTHER_DISK: usize = 10;

struct Cluster {
    state: State,
}

impl Cluster {
    fn of(nodes: usize, services: usize, tasks: usize) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster { state: State::default() };
        let nodes = (0..nodes).map(|n| Change::Put(Object::Node(Box::new(node(n)))));
        cluster.propose(nodes.collect())?;
        let each = tasks / services;
        for number in 0..services {
            let service = service(number);
            cluster.propose(vec![Change::Put(Object::Service(Arc::new(service.clone())))])?;
            let spec = Arc::new(service.spec.task_template.clone().unwrap_or_default());
            for from in (0..each).step_by(PROPOSAL) {
                let slots = from..each.min(from + PROPOSAL);
                let tasks = slots.map(|slot| task(number, slot, &service.id, &spec));
                cluster.apply(tasks.map(|t| Change::Put(Object::Task(t.into()))).collect())?;
            }
        }
        Ok(cluster)
    }

    fn propose(&mut self, changes: Vec<Change>) -> anyhow::Result<()> {
        let mut changes = changes.into_iter();
        loop {
            let batch: Vec<Change> = changes.by_ref().take(PROPOSAL).collect();
            if batch.is_empty() {
                return Ok(());
            }
            self.apply(batch)?;
        }
    }

    fn apply(&mut self, changes: Vec<Change>) -> anyhow::Result<()> {
        Ok(self.state.apply(self.state.version + 1, NOW, changes)?)
    }

    /// All are placed where they may be, evenly over zones, and in each zone over its nodes.
    fn check(&self, tasks: usize) -> anyhow::Result<()> {
        let placed = self.state.tasks.values().filter(|t| t.status.state == TaskState::Assigned);
        ensure!(placed.count() == tasks, "not all are placed");
        let mut zones: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
        for node in self.state.nodes.values() {
            let carries = self.state.load(&node.id).map_or(0, |l| l.tasks);
            if node.labels["disk"] != "ssd" {
                ensure!(carries == 0, "{} does not satisfy the constraint", node.id);
                continue;
            }
            let zone = zones.entry(&node.labels["zone"]).or_insert((0, u64::MAX, 0));
            *zone = (zone.0 + carries, zone.1.min(carries), zone.2.max(carries));
        }
        let totals = zones.values().map(|zone| zone.0);
        let (least, most) = (totals.clone().min().unwrap_or(0), totals.max().unwrap_or(0));
        let services = self.state.services.len() as u64;
        ensure!(most - least <= services, "the zones carry {least} to {most} tasks");
        for (name, (_, least, most)) in zones {
            ensure!(most - least <= services.min(2), "nodes of {name} carry {least} to {most}");
        }
        Ok(())
    }
}

/// Ids as long as the real ones, in no order of their numbers.
fn id(kind: char, number: usize) -> String {
    let scattered = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{kind}{scattered:016x}{number:08}")
}

fn node(number: usize) -> Node {
    let disk = if number.is_multiple_of(OTHER_DISK) { "hdd" } else { "ssd" };
    let label = |key: &str, value: String| (key.to_owned(), value);
    Node {
        id: id('n', number),
        meta: Meta::default(),
        name: String::new(),
        labels: BTreeMap::from([
            label("disk", disk.to_owned()),
            label("zone", format!("zone-{}", number / 7 % ZONES)),
        ]),
        role: Role::Worker,
        availability: Availability::Active,
        description: Some(NodeDescription {
            hostname: format!("node-{number}"),
            os: "linux".to_owned(),
            architecture: "x86_64".to_owned(),
            nano_cpus: 64_000_000_000,
            memory_bytes: 256 << 30,
            ..NodeDescription::default()
        }),
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            addr: "192.0.2.1".to_owned(),
        },
        manager_addr: None,
        down_since: None,
        tls: None,
        overlay: NodeOverlay {
            public_key: None,
            endpoint: None,
            address: u32::try_from(number).ok().map(Ipv4Addr::from_bits),
        },
    }
}

fn service(number: usize) -> Service {
    let spread =
        docker::TaskSpecPlacementSpread { spread_descriptor: Some("node.labels.zone".to_owned()) };
    let template = docker::TaskSpec {
        container_spec: Some(docker::TaskSpecContainerSpec {
            image: Some("registry.example.org/app:1".to_owned()),
            env: Some((0..10).map(|n| format!("VARIABLE_{n}=value")).collect()),
            ..Default::default()
        }),
        placement: Some(docker::TaskSpecPlacement {
            constraints: Some(vec!["node.labels.disk == ssd".to_owned()]),
            preferences: Some(vec![docker::TaskSpecPlacementPreferences { spread: Some(spread) }]),
            ..Default::default()
        }),
        resources: Some(docker::TaskSpecResources {
            reservations: Some(docker::ResourceObject {
                // The least there is, so that a hundred nodes have room for a million.
                nano_cpus: Some(1_000_000),
                memory_bytes: Some(4 << 20),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let spec = docker::ServiceSpec {
        name: Some(format!("service-{number}")),
        task_template: Some(template),
        ..Default::default()
    };
    Service::new(id('s', number), spec, NOW)
}

fn task(service: usize, slot: usize, service_id: &str, spec: &Arc<docker::TaskSpec>) -> Task {
    let id = id('t', service << 32 | slot);
    Task {
        name: format!("service-{service}.{slot}.{id}"),
        id,
        meta: Meta::default(),
        service_id: service_id.to_owned(),
        slot: slot as u64,
        node_id: None,
        spec: spec.clone(),
        spec_version: 1,
        desired: TaskState::Running,
        not_before: NOW,
        status: TaskStatus {
            state: TaskState::Pending,
            since: NOW,
            message: "pending task scheduling".to_owned(),
            err: String::new(),
            container: None,
        },
        networks: Vec::new(),
        made_by: MadeBy::default(),
        job_iteration: None,
        times: TaskTimes::default(),
        assigned_generic_resources: Vec::new(),
        host_ports: Vec::new(),
    }
}

/// Seconds this thread has run (`schedstat`, ns).
fn ran() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let ran = text.split(' ').next().context("/proc/thread-self/schedstat is empty")?;
    Ok(ran.parse::<f64>()? / 1e9)
}

/// Most memory this process ever had resident (`VmHWM`), GiB.
fn peak_gib() -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmHWM")?;
    Ok(kib.parse::<f64>()? / f64::from(1 << 20))
}
