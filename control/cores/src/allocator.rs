//! Addresses of nodes, virtual addresses and ports of services, addresses of tasks.
use crate::{
    addresses::Pools,
    ports::{PortError, Ports},
    spec::{attachments, network_of, uses_vip},
};
use shoal_model::{
    Change, EndpointState, NetAddresses, Network, NodeState, Object, ObjectKind, Service, State,
    Task, TaskState, Timestamp, docker, port_wishes,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

/// What is missing between the removal of the routing mesh's network and the next one.
const NO_INGRESS: &str = "no ingress network is present (docker network create --driver overlay --ingress NAME makes one)";

/// Gives what is asked for and not yet there, looking at all there is. What cannot be given is named in
/// `endpoint.err` of the service and `status.err` of the task, which stays `New`.
pub fn allocate(state: &State, now: Timestamp) -> Vec<Change> {
    Allocator::default().allocate(state, now)
}

/// The allocator with a memory: it looks at what changed since the last call, and again at what it
/// could not give.
#[derive(Debug, Default)]
pub struct Allocator {
    /// Version of the state that was followed.
    version: Option<u64>,
    /// Nodes and services to be looked at.
    nodes: BTreeSet<String>,
    services: BTreeSet<String>,
}

impl Allocator {
    /// As [`allocate`].
    pub fn allocate(&mut self, state: &State, now: Timestamp) -> Vec<Change> {
        self.follow(state);
        let mut pools = Pools::of(state);
        let mut changes = self.nodes(state, &mut pools);
        let endpoints = self.endpoints(state, &mut pools, &mut changes);
        for id in state.new_tasks() {
            let Some(task) = state.tasks.get(id) else { continue };
            let Some(service) = state.services.get(&task.service_id) else { continue };
            let endpoint = endpoints.get(service.id.as_str()).or(service.endpoint.as_ref());
            let Some(endpoint) = endpoint else { continue };
            changes.extend(pending(state, task, service, endpoint, &mut pools, now));
        }
        changes
    }

    fn follow(&mut self, state: &State) {
        let touched = self.version.replace(state.version).and_then(|v| state.touched_since(v));
        let Some(touched) = touched else { return self.look_at_all(state) };
        for (kind, id) in touched {
            let set = match kind {
                ObjectKind::Node => &mut self.nodes,
                ObjectKind::Service => &mut self.services,
                // What waits for one that is made is looked at anyway.
                ObjectKind::Network if state.networks.get(id).is_some_and(|n| !n.ingress) => {
                    continue;
                }
                ObjectKind::Network => return self.look_at_all(state),
                // A task that holds nothing yet is found by itself.
                ObjectKind::Task | ObjectKind::Cluster => continue,
                ObjectKind::Secret | ObjectKind::Config => continue,
            };
            if !set.contains(id) {
                set.insert(id.to_owned());
            }
        }
    }

    fn look_at_all(&mut self, state: &State) {
        self.nodes = state.nodes.keys().cloned().collect();
        self.services = state.services.keys().map(str::to_owned).collect();
    }

    /// Those that get nothing, or whose change may be refused, are looked at again.
    fn nodes(&mut self, state: &State, pools: &mut Pools<'_>) -> Vec<Change> {
        let ingress = state.ingress();
        // Without the mesh's network they keep what they had, and get another in the next one.
        let fits = |at: Ipv4Addr| ingress.is_none_or(|n| n.subnet.contains(at));
        let without =
            |id: &str| state.nodes.get(id).filter(|n| !n.overlay.address.is_some_and(fits));
        self.nodes.retain(|id| without(id).is_some());
        let mut changes = Vec::new();
        for node in self.nodes.iter().filter_map(|id| without(id)) {
            let mut new = node.clone();
            match ingress.and_then(|ingress| pools.take(&ingress.id, Vec::new())) {
                Some(address) => {
                    new.overlay.address = Some(address.v4);
                    if [ingress, None].iter().any(|n| new.status.message == without_address(*n)) {
                        new.status.message.clear();
                    }
                }
                // A node that is down says why; this is said when it is back.
                None if node.status.state == NodeState::Down => continue,
                None => new.status.message = without_address(ingress),
            }
            if new != *node {
                changes.push(Change::Put(Object::Node(Box::new(new))));
            }
        }
        changes
    }

    /// What the services looked at are to have. Left to be looked at again are those whose change may be
    /// refused, and those that miss something.
    fn endpoints<'a>(
        &mut self,
        state: &'a State,
        pools: &mut Pools<'a>,
        changes: &mut Vec<Change>,
    ) -> BTreeMap<&'a str, EndpointState> {
        let mut ports = Ports::of(state);
        let mut endpoints = BTreeMap::new();
        self.services.retain(|id| {
            let Some(service) = state.services.get(id) else { return false };
            let endpoint = endpoint(state, service, pools, &mut ports);
            let differs = service.endpoint.as_ref() != Some(&endpoint);
            let again = differs || !endpoint.err.is_empty();
            if differs {
                let service = Service { endpoint: Some(endpoint.clone()), ..service.clone() };
                changes.push(Change::Put(Object::Service(Arc::new(service))));
            }
            endpoints.insert(service.id.as_str(), endpoint);
            again
        });
        endpoints
    }
}

/// Why a node takes no tasks, in its status.
fn without_address(ingress: Option<&Network>) -> String {
    let Some(ingress) = ingress else {
        return format!("it takes no tasks: {NO_INGRESS}, which gives each node its address");
    };
    format!(
        "it takes no tasks: no address is left in network {} ({}), which needs one for each node; \
         remove nodes, or make the network anew with a larger subnet",
        ingress.name(),
        ingress.subnet,
    )
}

/// What the service is to have: what it has already, as far as it is still asked for, and the rest.
fn endpoint<'a>(
    state: &'a State,
    service: &'a Service,
    pools: &mut Pools<'a>,
    ports: &mut Ports<'a>,
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
    if state.ingress().is_none() && !port_wishes(&service.spec).is_empty() {
        given.err = format!("no port can be published: {NO_INGRESS}");
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
    pools: &mut Pools<'_>,
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
    Some(Change::Put(Object::Task(task.into())))
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
