//! What one node is told: its tasks, and the table of the networks it takes part in.
//!
//! [`assignment`] says what it is, from the state alone. [`crate::Tables`] says the same in rows and
//! differences, without looking at the whole state.
use ipnetwork::IpNetwork;
use shoal_model::{
    AssignedTask, DependencyKind, Meta, NetAddresses, NodeAssignment, NodeTable, Payload, Service,
    State, TableNetwork, TablePeer, TableService, TableTask, Task, TaskState, TaskStatus,
    TaskTimes, Timestamp,
    bugs::{self, Bug},
    needs,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hasher as _},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// The whole assignment of a node, everything in order of ids; empty for a node that is not there.
pub fn assignment(state: &State, node_id: &str) -> NodeAssignment {
    let Some(node) = state.nodes.get(node_id) else {
        return NodeAssignment { generation: state.version, ..NodeAssignment::default() };
    };
    // Ended ones too, as long as history keeps them: with them their containers and logs go.
    let own: Vec<&Task> = state.tasks_of_node(node_id).filter(|t| t.is_assigned()).collect();
    let mut joined: BTreeSet<&str> = own
        .iter()
        .filter(|t| alive(t))
        .flat_map(|t| &t.networks)
        .map(|n| n.network_id.as_str())
        // One that was removed while tasks there are stopping is gone with everything on it.
        .filter(|id| state.networks.contains_key(*id))
        .collect();
    // Any node may send to one that has a task on the routing mesh.
    let ingress = state.ingress().map(|n| n.id.as_str());
    let meshed = ingress.is_some_and(|id| joined.contains(id));
    joined.extend(ingress);
    let table = NodeTable {
        overlay: node.overlay.address,
        data_path_port: data_path_port(state, node),
        networks: networks(state, &joined),
        peers: peers(state, node_id, &joined, meshed),
        services: services(state, &joined),
    };
    let needed: BTreeSet<(DependencyKind, &str)> = own.iter().flat_map(|t| needs(t)).collect();
    let dependencies = needed.into_iter().filter_map(|(kind, id)| payload(state, kind, id));
    let dependencies = dependencies.map(Arc::new).collect();
    let tasks = own.into_iter().map(|t| assigned(state, t)).collect();
    NodeAssignment { generation: state.version, tasks, dependencies, table }
}

/// UDP port of the overlay on a node: its own, else the cluster's.
pub(crate) fn data_path_port(state: &State, node: &shoal_model::Node) -> u16 {
    let own = node.overlay.endpoint.map(|e| e.port());
    own.or(state.cluster.as_ref().map(|c| c.data_path_port)).unwrap_or_default()
}

/// Whether the task has a node and may have a container there.
pub(crate) fn alive(task: &Task) -> bool {
    task.is_assigned() && !task.status.state.is_terminal()
}

/// Whether a packet of the task may still be under way. One that has just ended refuses connections
/// for a moment, and those who tried must hear of it; its address rests while history keeps it.
pub(crate) fn heard(task: &Task) -> bool {
    task.is_assigned() && task.status.state != TaskState::Orphaned
}

/// Whether the task is a backend: it runs, is healthy, and is not told to stop.
pub(crate) fn serving(task: &Task) -> bool {
    let unhealthy = task.status.container.as_ref().is_some_and(|c| c.unhealthy);
    let wanted = task.desired == TaskState::Running || bugs::active(Bug::KeepBackend);
    task.status.state == TaskState::Running && wanted && !unhealthy
}

/// What a node is told of a task of its own. What the node itself reported is left out as far as it
/// does not need it: told of every step, it would be sent each of its own reports again. That a task
/// has run or ended it is told, for a daemon that starts again.
pub(crate) fn assigned(state: &State, task: &Task) -> AssignedTask {
    let service = state.services.get(&task.service_id);
    let labels = service.and_then(|s| s.spec.labels.clone()).unwrap_or_default();
    let known = task.status.state;
    let status = TaskStatus {
        state: if known < TaskState::Running { TaskState::Assigned } else { known },
        since: Timestamp::default(),
        message: String::new(),
        err: String::new(),
        container: None,
    };
    AssignedTask {
        task: Task {
            meta: Meta::default(),
            status,
            not_before: Timestamp::default(),
            times: TaskTimes::default(),
            ..task.clone()
        },
        service_name: service_name(service, &task.name).to_owned(),
        service_labels: labels.into_iter().collect(),
        networks: task
            .networks
            .iter()
            .filter_map(|n| state.networks.get(&n.network_id))
            .cloned()
            .collect(),
    }
}

/// The service of a task told to go may be gone; names have no dots, so the task's tells it.
fn service_name<'a>(service: Option<&'a Service>, task: &'a str) -> &'a str {
    service.map_or_else(|| task.split('.').next().unwrap_or_default(), Service::name)
}

/// What [`assigned`] says of a task except for its specification, as a number: another one whenever
/// it says something else. So nobody has to keep what it said.
pub(crate) fn digest(state: &State, task: &Task) -> u64 {
    // All fields by name, so that none is forgotten that is added later.
    let Task {
        id: _,
        meta: _,
        service_id,
        slot,
        node_id,
        spec: _,
        spec_version,
        name,
        desired,
        not_before: _,
        status,
        networks,
        made_by,
        job_iteration,
        times: _,
        assigned_generic_resources,
        host_ports,
    } = task;
    let service = state.services.get(service_id);
    let labels = service.and_then(|s| s.spec.labels.as_ref());
    let labels: BTreeMap<&String, &String> = labels.into_iter().flatten().collect();
    let known = status.state.max(TaskState::Starting);
    let on = networks.iter().filter_map(|at| state.networks.get(&at.network_id));
    let on: Vec<(&str, u64)> = on.map(|n| (n.id.as_str(), n.meta.version)).collect();
    let of_task = (service_id, slot, node_id, spec_version, name, desired, known, networks);
    let of_job = (made_by, job_iteration, assigned_generic_resources, host_ports);
    let of_others = (service_name(service, name), labels, on);
    let mut hasher = Hashing(DefaultHasher::new());
    serde_json::to_writer(&mut hasher, &(of_task, of_job, of_others))
        .expect("it has text keys and plain values only");
    hasher.0.finish()
}

/// Takes the digest of what is written.
struct Hashing(DefaultHasher);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A secret or a config as nodes get it; `None` when it was removed while tasks still use it.
pub(crate) fn payload(state: &State, kind: DependencyKind, id: &str) -> Option<Payload> {
    state.dependencies(kind).get(id).map(|dependency| Payload::of(kind, dependency))
}

fn networks(state: &State, joined: &BTreeSet<&str>) -> Vec<TableNetwork> {
    joined.iter().filter_map(|id| state.networks.get(*id)).map(network).collect()
}

pub(crate) fn network(network: &shoal_model::Network) -> TableNetwork {
    TableNetwork {
        id: network.id.clone(),
        name: network.name().to_owned(),
        ingress: network.ingress,
        internal: network.spec.internal == Some(true),
        subnet: network.subnet,
        subnet6: network.subnet6,
    }
}

fn peers(state: &State, node_id: &str, joined: &BTreeSet<&str>, all: bool) -> Vec<TablePeer> {
    let row = |n: &shoal_model::Node| -> Option<TablePeer> {
        let overlay = n.overlay.address?;
        let endpoint: SocketAddr = n.overlay.endpoint?;
        let mut allowed_ips = vec![IpNetwork::from(IpAddr::from(overlay))];
        let tasks = state.tasks_of_node(&n.id).filter(|t| heard(t));
        for address in tasks.flat_map(|t| here(&t.networks, joined)) {
            allowed_ips.push(IpNetwork::from(IpAddr::from(address.v4)));
            allowed_ips.extend(address.v6.map(|v6| IpNetwork::from(IpAddr::from(v6))));
        }
        Some(TablePeer {
            node_id: n.id.clone(),
            hostname: n.hostname().to_owned(),
            public_key: n.overlay.public_key.clone()?,
            endpoint,
            overlay,
            allowed_ips,
        })
    };
    let on_one = |n: &&shoal_model::Node| {
        let mut tasks = state.tasks_of_node(&n.id).filter(|t| heard(t));
        tasks.any(|t| t.networks.iter().any(|a| joined.contains(a.network_id.as_str())))
    };
    let others = state.nodes.values().filter(|n| n.id != node_id);
    others.filter(|n| all || on_one(n)).filter_map(row).collect()
}

/// Addresses on the networks the node takes part in, in order of networks.
fn here(all: &[NetAddresses], joined: &BTreeSet<&str>) -> Vec<NetAddresses> {
    let here = all.iter().filter(|a| joined.contains(a.network_id.as_str()));
    let mut here: Vec<NetAddresses> = here.cloned().collect();
    here.sort_by(|a, b| a.network_id.cmp(&b.network_id));
    here
}

fn services(state: &State, joined: &BTreeSet<&str>) -> Vec<TableService> {
    let mut tasks: BTreeMap<&str, Vec<TableTask>> = BTreeMap::new();
    for task in state.tasks.values().filter(|t| heard(t)) {
        let networks = here(&task.networks, joined);
        let (Some(node_id), false) = (&task.node_id, networks.is_empty()) else { continue };
        tasks.entry(task.service_id.as_str()).or_default().push(TableTask {
            id: task.id.clone(),
            name: task.name.clone(),
            slot: task.slot,
            node_id: node_id.clone(),
            serving: serving(task),
            networks,
        });
    }
    let row = |s: &Service| {
        let endpoint = s.endpoint.clone().unwrap_or_default();
        let vips = here(&endpoint.vips, joined);
        let tasks = tasks.remove(s.id.as_str()).unwrap_or_default();
        let concerns = !vips.is_empty() || !tasks.is_empty() || !endpoint.ports.is_empty();
        concerns.then(|| TableService {
            id: s.id.clone(),
            name: s.name().to_owned(),
            vips,
            ports: endpoint.ports,
            tasks,
        })
    };
    state.services.values().filter_map(row).collect()
}

#[cfg(test)]
mod tests;
