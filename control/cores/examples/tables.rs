//! What it costs to tell nodes what they are to know, in a cluster of a given size:
//! `cargo run --release -p shoal-cores --example tables -- NODES TASKS NETWORKS`.
//!
//! Services of ten replicas are spread over the networks; none is published, so that a task
//! concerns the nodes of its network.

use shoal_cores::{Delta, Drains, Subscriber, Tables};
use shoal_model::{
    Availability, Change, MadeBy, Meta, NetAddresses, Network, Node, NodeDescription, NodeOverlay,
    NodeState, NodeStatus, Object, Role, Row, Service, State, Task, TaskState, TaskStatus,
    TaskTimes, Timestamp, docker,
};
use std::{collections::BTreeMap, fs, net::Ipv4Addr, sync::Arc, time::Instant};

const REPLICAS: usize = 10;

fn node(n: usize) -> Node {
    Node {
        id: format!("{n:025}"),
        meta: Meta::default(),
        name: String::new(),
        labels: BTreeMap::new(),
        role: Role::Worker,
        availability: Availability::Active,
        description: Some(NodeDescription::default()),
        status: NodeStatus { state: NodeState::Ready, message: String::new(), addr: String::new() },
        manager_addr: None,
        overlay: NodeOverlay {
            public_key: Some("key".to_owned()),
            endpoint: Some(([10, 9, 0, 1], 51_820).into()),
            address: Some(Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(n).unwrap_or(0))),
        },
        down_since: None,
        tls: None,
    }
}

fn network(n: usize) -> Network {
    Network {
        id: format!("net{n:022}"),
        meta: Meta::default(),
        spec: docker::NetworkCreateRequest { name: format!("net{n}"), ..Default::default() },
        ingress: false,
        subnet: "10.1.0.0/16".parse().expect("a subnet"),
        subnet6: None,
    }
}

fn service(n: usize) -> Service {
    let spec = docker::ServiceSpec { name: Some(format!("svc{n}")), ..Default::default() };
    Service::new(format!("svc{n:022}"), spec, Timestamp::default())
}

fn task(n: usize, nodes: usize, networks: usize) -> Task {
    let service = n / REPLICAS;
    Task {
        id: format!("tsk{n:022}"),
        meta: Meta::default(),
        service_id: format!("svc{service:022}"),
        slot: 1,
        // A network's services are on a part of the nodes.
        node_id: Some(format!("{:025}", (service % networks + n * networks) % nodes)),
        spec: Arc::default(),
        spec_version: 1,
        name: format!("svc{service}.1.tsk{n:022}"),
        desired: TaskState::Running,
        not_before: Timestamp::default(),
        status: TaskStatus {
            state: TaskState::Running,
            since: Timestamp::default(),
            message: "started".to_owned(),
            err: String::new(),
            container: None,
        },
        networks: vec![NetAddresses {
            network_id: format!("net{:022}", service % networks),
            v4: Ipv4Addr::from_bits(0x0a01_0000 + u32::try_from(n % 60_000).unwrap_or(0)),
            v6: None,
            aliases: vec![],
        }],
        made_by: MadeBy::Scale,
        job_iteration: None,
        times: TaskTimes::default(),
        assigned_generic_resources: vec![],
        host_ports: vec![],
    }
}

/// Resident memory, MiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.trim().split(' ').next()).and_then(|n| n.parse().ok());
    kib.unwrap_or(0) / 1024
}

fn count(delta: &Delta) -> usize {
    delta.rows.iter().flat_map(|rows| Row::split(rows)).count()
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("a number"));
    let mut next = |default| arguments.next().unwrap_or(default);
    let (nodes, tasks, networks) = (next(1_000), next(50_000), next(100));
    let mut state = State::default();
    let apply = |state: &mut State, objects: Vec<Object>| {
        let changes = objects.into_iter().map(Change::Put).collect();
        state
            .apply(state.version + 1, Timestamp::default(), changes)
            .expect("nothing is in its way");
    };
    apply(&mut state, (0..nodes).map(|n| Object::Node(Box::new(node(n)))).collect());
    apply(&mut state, (0..networks).map(|n| Object::Network(Box::new(network(n)))).collect());
    apply(
        &mut state,
        (0..tasks / REPLICAS).map(|n| Object::Service(Arc::new(service(n)))).collect(),
    );
    apply(&mut state, (0..tasks).map(|n| Object::Task(task(n, nodes, networks).into())).collect());
    println!("{nodes} nodes, {tasks} tasks, {networks} networks; state {} MiB", memory());

    let (mut tables, mut drains) = (Tables::default(), Drains::default());
    let began = Instant::now();
    let touched = tables.update(&state);
    drains.follow(&state, &tables, &touched);
    println!("tables made in {:?}; with them {} MiB", began.elapsed(), memory());

    let mut sessions: Vec<Subscriber> =
        state.nodes.keys().map(|id| Subscriber::new(id.clone())).collect();
    let began = Instant::now();
    let (mut rows, mut bytes) = (0, 0);
    for session in &mut sessions {
        let delta = tables.difference(&state, session).unwrap_or_default();
        rows += count(&delta);
        bytes += delta.rows.iter().map(|row| row.len()).sum::<usize>();
    }
    let each = bytes / nodes / 1024;
    println!("whole for all nodes: {:?}, {rows} rows, {each} KiB a node", began.elapsed());

    const CHANGES: usize = 1_000;
    let began = Instant::now();
    let (mut told, mut rows, mut bytes) = (0, 0, 0);
    for n in 0..CHANGES {
        let id = format!("tsk{:022}", n * 37 % tasks);
        let mut changed = state.tasks[&id].clone();
        changed.desired = match changed.desired {
            TaskState::Running => TaskState::Shutdown,
            _ => TaskState::Running,
        };
        apply(&mut state, vec![Object::Task(changed.into())]);
        let touched = tables.update(&state);
        drains.follow(&state, &tables, &touched);
        for session in &mut sessions {
            let Some(delta) = tables.difference(&state, session) else { continue };
            told += 1;
            rows += count(&delta);
            bytes += delta.rows.iter().map(|row| row.len()).sum::<usize>();
        }
    }
    let each = began.elapsed() / u32::try_from(CHANGES).unwrap_or(1);
    println!(
        "a task told to stop: {each:?} with the differences of all {nodes} nodes; \
         {} nodes are told, {} rows, {} bytes",
        told / CHANGES,
        rows / CHANGES,
        bytes / CHANGES
    );
}
