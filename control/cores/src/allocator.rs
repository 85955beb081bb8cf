//! Addresses of nodes, virtual addresses and ports of services, addresses of tasks.
use crate::{
    addresses::Pools,
    ports::{PortError, Ports},
    spec::{attachments, network_of, port_wishes, uses_vip},
};
use shoal_model::{
    Change, EndpointState, NetAddresses, Object, Service, State, Task, TaskState, Timestamp, docker,
};
use std::collections::BTreeMap;

/// Gives what is asked for and not yet there. What cannot be given is named in `endpoint.err` of the
/// service and `status.err` of the task, which stays `New`.
pub fn allocate(state: &State, now: Timestamp) -> Vec<Change> {
    let mut pools = Pools::of(state);
    let mut changes = nodes(state, &mut pools);
    let mut endpoints = BTreeMap::new();
    let mut ports = Ports::of(state);
    for service in state.services.values() {
        let endpoint = endpoint(state, service, &mut pools, &mut ports);
        if service.endpoint.as_ref() != Some(&endpoint) {
            let service = Service { endpoint: Some(endpoint.clone()), ..service.clone() };
            changes.push(Change::Put(Object::Service(service)));
        }
        endpoints.insert(service.id.as_str(), endpoint);
    }
    let new = |t: &&Task| t.status.state == TaskState::New && t.desired <= TaskState::Running;
    for task in state.tasks.values().filter(new) {
        let Some(service) = state.services.get(&task.service_id) else { continue };
        let Some(endpoint) = endpoints.get(service.id.as_str()) else { continue };
        changes.extend(pending(state, task, service, endpoint, &mut pools, now));
    }
    changes
}

fn nodes(state: &State, pools: &mut Pools) -> Vec<Change> {
    let Some(ingress) = state.ingress() else { return Vec::new() };
    let mut changes = Vec::new();
    for node in state.nodes.values().filter(|n| n.overlay.address.is_none()) {
        let Some(address) = pools.take(&ingress.id, Vec::new()) else { break };
        let mut node = node.clone();
        node.overlay.address = Some(address.v4);
        changes.push(Change::Put(Object::Node(node)));
    }
    changes
}

/// What the service is to have: what it has already, as far as it is still asked for, and the rest.
fn endpoint(
    state: &State,
    service: &Service,
    pools: &mut Pools,
    ports: &mut Ports,
) -> EndpointState {
    let had = service.endpoint.clone().unwrap_or_default();
    let mut given = EndpointState::default();
    match ports.give(service, &had.ports) {
        Ok(ports) => given.ports = ports,
        Err(error @ PortError::InUse { .. }) => {
            given.err = format!("{error}: publish another port, or remove that service");
        }
        Err(error) => given.err = error.to_string(),
    }
    if !uses_vip(&service.spec) {
        return given;
    }
    for (network, aliases) in wanted_networks(state, &service.spec, attachments(&service.spec)) {
        let kept = had.vips.iter().find(|v| v.network_id == network);
        let vip = kept
            .map(|v| NetAddresses { aliases: aliases.clone(), ..v.clone() })
            .or_else(|| pools.take(&network, aliases));
        match vip {
            Some(vip) => given.vips.push(vip),
            None => {
                let why = exhausted(state, &network);
                given.err = format!("no virtual address for service {}: {why}", service.name());
            }
        }
    }
    given
}

fn pending(
    state: &State,
    task: &Task,
    service: &Service,
    endpoint: &EndpointState,
    pools: &mut Pools,
    now: Timestamp,
) -> Option<Change> {
    let of_task = task.spec.networks.as_deref().filter(|list| !list.is_empty());
    let attached = of_task.unwrap_or_else(|| service.spec.networks.as_deref().unwrap_or_default());
    let mut err = endpoint.err.clone();
    let mut networks = Vec::new();
    if err.is_empty() {
        for (network, aliases) in wanted_networks(state, &service.spec, attached) {
            match pools.take(&network, aliases) {
                Some(address) => networks.push(address),
                None => err = exhausted(state, &network),
            }
        }
    }
    let mut task = task.clone();
    if err.is_empty() {
        task.networks = networks;
        task.status.state = TaskState::Pending;
        task.status.since = now;
        task.status.message = "pending task scheduling".to_owned();
    } else if task.status.err == err {
        return None;
    }
    task.status.err = err;
    Some(Change::Put(Object::Task(task)))
}

/// Networks with their aliases, each once; the routing mesh's first where ports are published.
fn wanted_networks(
    state: &State,
    spec: &docker::ServiceSpec,
    attached: &[docker::NetworkAttachmentConfig],
) -> Vec<(String, Vec<String>)> {
    let mut wanted: Vec<(String, Vec<String>)> = Vec::new();
    if !port_wishes(spec).is_empty() {
        wanted.extend(state.ingress().map(|n| (n.id.clone(), Vec::new())));
    }
    for attachment in attached {
        // One that is gone is kept by its name, so that the error can say so.
        let id = network_of(state, attachment)
            .map(|n| n.id.clone())
            .or_else(|| attachment.target.clone())
            .unwrap_or_default();
        let aliases = attachment.aliases.clone().unwrap_or_default();
        match wanted.iter_mut().find(|(other, _)| *other == id) {
            Some((_, all)) => all.extend(aliases),
            None => wanted.push((id, aliases)),
        }
    }
    wanted
}

fn exhausted(state: &State, network: &str) -> String {
    match state.networks.get(network) {
        Some(network) => format!(
            "no available IPv4 addresses on network {} ({}): remove tasks, or use a network with a larger subnet",
            network.name(),
            network.subnet
        ),
        None => format!(
            "network {network} not found: make it again, or update the service to one that is there"
        ),
    }
}

#[cfg(test)]
mod tests;
