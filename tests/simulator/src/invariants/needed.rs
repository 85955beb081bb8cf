//! A node is told what it needs alone: its own tasks with what their specifications say, and of networks,
//! services, names and peers those of the networks it takes part in. Only a node with a task on the routing
//! mesh, which any other may send to, is told all of them.
use super::Verdict;
use shoal_model::{NodeAssignment, State, Task};
use std::{collections::BTreeSet, net::Ipv4Addr};

/// A node is told an assignment made from a state.
pub(super) fn told(state: &State, node: &str, assignment: &NodeAssignment) -> Verdict {
    let ingress = state.networks.values().find(|n| n.ingress).map(|n| n.id.as_str());
    let mut joined: BTreeSet<&str> = BTreeSet::new();
    for told in &assignment.tasks {
        let task = &told.task;
        if task.node_id.as_deref() != Some(node) {
            let owner = task.node_id.as_deref().unwrap_or("nobody");
            return Err(format!("{node} is told of task {}, which is {owner}'s", task.id));
        }
        let own: BTreeSet<&str> = task.networks.iter().map(|n| n.network_id.as_str()).collect();
        if let Some(other) = told.networks.iter().find(|n| !own.contains(n.id.as_str())) {
            return Err(format!("{node} is told of network {} with task {}", other.id, task.id));
        }
        if !task.status.state.is_terminal() {
            joined.extend(own);
        }
    }
    let on_mesh = ingress.is_some_and(|id| joined.contains(id));
    joined.extend(ingress);
    let table = &assignment.table;
    if let Some(other) = table.networks.iter().find(|n| !joined.contains(n.id.as_str())) {
        return Err(format!("{node} is told of network {}, and has nothing there", other.name));
    }
    for service in &table.services {
        let addresses = service.tasks.iter().flat_map(|t| &t.networks).chain(&service.vips);
        for address in addresses {
            if !joined.contains(address.network_id.as_str()) {
                let (name, network) = (&service.name, &address.network_id);
                return Err(format!("{node} is told of {name} on network {network}"));
            }
        }
        if service.vips.is_empty() && service.tasks.is_empty() && service.ports.is_empty() {
            return Err(format!(
                "{node} is told of {}, and has nothing to do with it",
                service.name
            ));
        }
    }
    let subnets: Vec<_> = joined.iter().filter_map(|id| state.networks.get(*id)).collect();
    let is_joined = |ip: Ipv4Addr| subnets.iter().any(|n| n.subnet.contains(ip));
    for peer in &table.peers {
        let shared =
            |task: &Task| task.networks.iter().any(|at| joined.contains(at.network_id.as_str()));
        if !on_mesh && !state.tasks_of_node(&peer.node_id).any(shared) {
            let other = &peer.node_id;
            return Err(format!("{node} is told of {other}, and shares no network with it"));
        }
        for allowed in &peer.allowed_ips {
            if let std::net::IpAddr::V4(ip) = allowed.ip()
                && ip != peer.overlay
                && !is_joined(ip)
            {
                return Err(format!("{node} is told of {ip} behind {}", peer.node_id));
            }
        }
    }
    Ok(())
}
