//! What a look at all services costs, and at one: `cargo run --release -p shoal-cores --example orchestrate`.
#![expect(clippy::unwrap_used, reason = "a measurement")]
use shoal_cores::{
    Allocator, Orchestrator, Revision, Scheduler, Tables, next_due, orchestrate, revise,
};
use shoal_model::{
    Availability, Change, Meta, Node, NodeDescription, NodeOverlay, NodeState, NodeStatus, Object,
    Role, Service, State, TaskState, Timestamp, docker,
};
use std::{collections::BTreeMap, env, net::Ipv4Addr, sync::Arc, time::Instant};

/// Unless others are given: `-- NODES SERVICES REPLICAS`.
const SIZES: [usize; 3] = [1_000, 500, 100];
/// As the manager's.
const STEP: usize = 2_000;
const NOW: Timestamp = Timestamp(1_000_000_000_000);

fn main() {
    let mut given = env::args().skip(1).map(|size| size.parse().unwrap());
    let [nodes, services, replicas] = SIZES.map(|size: usize| given.next().unwrap_or(size));
    let mut state = State::default();
    let mut ids = 0;
    let mut new_id = || {
        ids += 1;
        format!("t{ids:024}")
    };
    let many = nodes;
    let nodes = (0..nodes).map(|n| Object::Node(Box::new(node(n))));
    let services = (0..services).map(|n| {
        let spec = docker::ServiceSpec {
            name: Some(format!("s{n}")),
            task_template: Some(docker::TaskSpec::default()),
            mode: Some(docker::ServiceSpecMode {
                replicated: Some(docker::ServiceSpecModeReplicated {
                    replicas: i64::try_from(replicas).ok(),
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        Object::Service(Arc::new(Service::new(format!("s{n:024}"), spec, NOW)))
    });
    apply(&mut state, nodes.chain(services).map(Change::Put).collect());
    let start = Instant::now();
    loop {
        let changes = orchestrate(&state, NOW, &mut new_id);
        if changes.is_empty() {
            break;
        }
        apply(&mut state, changes);
    }
    println!("{} tasks made, call by call: {:?}", state.tasks.len(), start.elapsed());
    let running: Vec<Change> = state
        .tasks
        .values()
        .enumerate()
        .map(|(n, t)| {
            let mut task = t.clone();
            task.node_id = Some(format!("n{:024}", n % many));
            task.status.state = TaskState::Running;
            Change::Put(Object::Task(task.into()))
        })
        .collect();
    apply(&mut state, running);
    let given = Allocator::default().allocate(&state, NOW);
    apply(&mut state, given);
    time("all, allocator", || Allocator::default().allocate(&state, NOW).len());
    time("all, scheduler", || Scheduler::default().schedule(&state, NOW).len());
    time("all, tables", || usize::from(Tables::default().update(&state).everybody));
    time("all, nothing to do", || orchestrate(&state, NOW, &mut new_id).len());
    time("the same in steps, the longest of them in µs", || {
        let mut orchestrator = Orchestrator::in_steps(STEP);
        let mut longest = 0;
        while !orchestrator.is_complete() || longest == 0 {
            let start = Instant::now();
            orchestrator.orchestrate(&state, NOW, &mut new_id);
            longest = longest.max(start.elapsed().as_micros());
        }
        usize::try_from(longest).unwrap()
    });
    time("next due", || usize::from(next_due(&state, NOW).is_some()));
    let id = format!("s{:024}", 7);
    let mut orchestrator = Orchestrator::default();
    orchestrator.orchestrate(&state, NOW, &mut new_id);
    time("one service that changed", || {
        let service = Object::Service(Arc::new(state.services[&id].clone()));
        apply(&mut state, vec![Change::Put(service)]);
        orchestrator.orchestrate(&state, NOW, &mut new_id).len()
    });
    let update = state.services.values().map(|s| revise(s, s.spec.clone(), Revision::Tasks, NOW));
    let update: Vec<Change> = update.map(|s| Change::Put(Object::Service(Arc::new(s)))).collect();
    apply(&mut state, update);
    time("all, each with an update", || orchestrate(&state, NOW, &mut new_id).len());
}

fn time(what: &str, mut run: impl FnMut() -> usize) {
    const RUNS: u32 = 10;
    let start = Instant::now();
    let changes = (0..RUNS).map(|_| run()).max().unwrap();
    println!("{what}: {:?} ({changes} at most)", start.elapsed() / RUNS);
}

fn apply(state: &mut State, changes: Vec<Change>) {
    state.apply(state.version + 1, NOW, changes).unwrap();
}

fn node(number: usize) -> Node {
    Node {
        id: format!("n{number:024}"),
        meta: Meta::default(),
        name: String::new(),
        labels: BTreeMap::new(),
        role: Role::Worker,
        availability: Availability::Active,
        description: Some(NodeDescription {
            hostname: format!("node-{number}"),
            nano_cpus: 64_000_000_000,
            memory_bytes: 256 << 30,
            ..NodeDescription::default()
        }),
        status: NodeStatus { state: NodeState::Ready, message: String::new(), addr: String::new() },
        manager_addr: None,
        overlay: NodeOverlay {
            public_key: None,
            endpoint: None,
            address: u32::try_from(number).ok().map(Ipv4Addr::from_bits),
        },
        down_since: None,
        tls: None,
    }
}
