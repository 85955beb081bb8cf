//! What one node is told: its tasks, and the table of the networks it takes part in.
use ipnetwork::IpNetwork;
use shoal_model::{
    AssignedTask, NetAddresses, NodeAssignment, NodeTable, Service, State, TableNetwork, TablePeer,
    TableService, TableTask, Task, TaskState,
    bugs::{self, Bug},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

/// The whole assignment of a node; empty for a node that is not there.
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
        .collect();
    joined.extend(state.ingress().map(|n| n.id.as_str()));
    let port = node.overlay.endpoint.map(|e| e.port());
    let table = NodeTable {
        overlay: node.overlay.address,
        data_path_port: port
            .or(state.cluster.as_ref().map(|c| c.data_path_port))
            .unwrap_or_default(),
        networks: networks(state, &joined),
        peers: peers(state, node_id, &joined),
        services: services(state, &joined),
    };
    let tasks = own.into_iter().map(|t| assigned(state, t)).collect();
    NodeAssignment { generation: state.version, tasks, table }
}

/// Whether the task has a node and may have a container there.
fn alive(task: &Task) -> bool {
    task.is_assigned() && !task.status.state.is_terminal()
}

/// Whether a packet of the task may still be under way. One that has just ended refuses connections
/// for a moment, and those who tried must hear of it; its address rests while history keeps it.
fn heard(task: &Task) -> bool {
    task.is_assigned() && task.status.state != TaskState::Orphaned
}

fn assigned(state: &State, task: &Task) -> AssignedTask {
    let service = state.services.get(&task.service_id);
    // The service of a task told to go may be gone; names have no dots, so the task's tells it.
    let of_name = || task.name.split('.').next().unwrap_or_default();
    let labels = service.and_then(|s| s.spec.labels.clone()).unwrap_or_default();
    AssignedTask {
        task: task.clone(),
        service_name: service.map_or_else(of_name, Service::name).to_owned(),
        service_labels: labels.into_iter().collect(),
        networks: task
            .networks
            .iter()
            .filter_map(|n| state.networks.get(&n.network_id))
            .cloned()
            .collect(),
    }
}

fn networks(state: &State, joined: &BTreeSet<&str>) -> Vec<TableNetwork> {
    let row = |n: &shoal_model::Network| TableNetwork {
        id: n.id.clone(),
        name: n.name().to_owned(),
        ingress: n.ingress,
        internal: n.spec.internal == Some(true),
        subnet: n.subnet,
        subnet6: n.subnet6,
    };
    joined.iter().filter_map(|id| state.networks.get(*id)).map(row).collect()
}

fn peers(state: &State, node_id: &str, joined: &BTreeSet<&str>) -> Vec<TablePeer> {
    let row = |n: &shoal_model::Node| -> Option<TablePeer> {
        let overlay = n.overlay.address?;
        let endpoint: SocketAddr = n.overlay.endpoint?;
        let mut allowed_ips = vec![IpNetwork::from(IpAddr::from(overlay))];
        for address in state.tasks_of_node(&n.id).filter(|t| heard(t)).flat_map(|t| &t.networks) {
            if joined.contains(address.network_id.as_str()) {
                allowed_ips.push(IpNetwork::from(IpAddr::from(address.v4)));
                allowed_ips.extend(address.v6.map(|v6| IpNetwork::from(IpAddr::from(v6))));
            }
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
    state.nodes.values().filter(|n| n.id != node_id).filter_map(row).collect()
}

fn services(state: &State, joined: &BTreeSet<&str>) -> Vec<TableService> {
    let here = |all: &[NetAddresses]| -> Vec<NetAddresses> {
        all.iter().filter(|a| joined.contains(a.network_id.as_str())).cloned().collect()
    };
    let mut tasks: BTreeMap<&str, Vec<TableTask>> = BTreeMap::new();
    for task in state.tasks.values().filter(|t| heard(t)) {
        let networks = here(&task.networks);
        let (Some(node_id), false) = (&task.node_id, networks.is_empty()) else { continue };
        tasks.entry(task.service_id.as_str()).or_default().push(TableTask {
            id: task.id.clone(),
            name: task.name.clone(),
            slot: task.slot,
            node_id: node_id.clone(),
            serving: task.status.state == TaskState::Running
                && (task.desired == TaskState::Running || bugs::active(Bug::KeepBackend)),
            networks,
        });
    }
    let row = |s: &Service| {
        let endpoint = s.endpoint.clone().unwrap_or_default();
        let vips = here(&endpoint.vips);
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
