//! Who holds what a cluster has only once (names, published ports, addresses), kept as objects change.
use crate::{
    bugs::{self, Bug},
    dependency::{Dependency, DependencyKind, references},
    docker,
    objects::{NetAddresses, Network, Node, Service},
    task::{Task, TaskState},
    time::Timestamp,
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::Ipv4Addr,
};

/// A published port by IP protocol number and number.
pub type PortKey = (u8, u16);

/// How many hold an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Holders {
    /// That may run.
    pub living: u32,
    /// Tasks that have ended.
    pub ended: u32,
}

/// A service's claim on a port; the smallest has it. What was given goes before what is asked for, and
/// then who asked first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Claim {
    only_asked: bool,
    created: Timestamp,
    service: String,
}

/// A pure function of the objects.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Claims {
    services: BTreeMap<String, String>,
    networks: BTreeMap<String, String>,
    /// Networks of the routing mesh; there is one at most.
    ingress: BTreeSet<String>,
    dependencies: BTreeMap<DependencyKind, BTreeMap<String, String>>,
    /// Services by what they refer to.
    users: BTreeMap<(DependencyKind, String), BTreeSet<String>>,
    ports: BTreeMap<PortKey, BTreeSet<Claim>>,
    /// By network.
    addresses: BTreeMap<String, BTreeMap<Ipv4Addr, Holders>>,
    /// Of nodes, on the routing mesh's network whichever that is.
    of_nodes: BTreeMap<Ipv4Addr, u32>,
    /// Nodes by their WireGuard key: of two that have the same, one is a copy.
    keys: BTreeMap<String, BTreeSet<String>>,
    /// Tasks that have no addresses yet.
    new_tasks: BTreeSet<String>,
    /// Nodes with a manager's address.
    managers: BTreeSet<String>,
}

impl Claims {
    pub(crate) fn service_named(&self, name: &str) -> Option<&str> {
        self.services.get(name).map(String::as_str)
    }

    pub(crate) fn network_named(&self, name: &str) -> Option<&str> {
        self.networks.get(name).map(String::as_str)
    }

    pub(crate) fn ingress(&self) -> Option<&str> {
        self.ingress.first().map(String::as_str)
    }

    pub(crate) fn dependency_named(&self, kind: DependencyKind, name: &str) -> Option<&str> {
        self.dependencies.get(&kind)?.get(name).map(String::as_str)
    }

    pub(crate) fn users_of(&self, kind: DependencyKind, id: &str) -> Option<&BTreeSet<String>> {
        self.users.get(&(kind, id.to_owned()))
    }

    pub(crate) fn port_holder(&self, port: PortKey) -> Option<&str> {
        self.ports.get(&port)?.first().map(|claim| claim.service.as_str())
    }

    pub(crate) fn ports(&self) -> usize {
        self.ports.len()
    }

    pub(crate) fn addresses(&self, network: &str) -> Option<&BTreeMap<Ipv4Addr, Holders>> {
        self.addresses.get(network)
    }

    pub(crate) fn of_nodes(&self) -> &BTreeMap<Ipv4Addr, u32> {
        &self.of_nodes
    }

    pub(crate) fn nodes_with_key(&self, key: &str) -> Option<&BTreeSet<String>> {
        self.keys.get(key)
    }

    /// Addresses in use by network; those of networks that are gone, too.
    pub(crate) fn by_network(&self) -> &BTreeMap<String, BTreeMap<Ipv4Addr, Holders>> {
        &self.addresses
    }

    fn follow_manager(&mut self, old: Option<&Node>, new: Option<&Node>) {
        let manages = |node: &&Node| node.manager_addr.is_some();
        if let Some(old) = old.filter(manages) {
            self.managers.remove(&old.id);
        }
        if let Some(new) = new.filter(manages) {
            self.managers.insert(new.id.clone());
        }
    }

    pub(crate) fn new_tasks(&self) -> &BTreeSet<String> {
        &self.new_tasks
    }

    pub(crate) fn managers(&self) -> &BTreeSet<String> {
        &self.managers
    }

    pub(crate) fn follow_node(&mut self, old: Option<&Node>, new: Option<&Node>) {
        self.follow_key(old, new);
        self.follow_manager(old, new);
        let address = |node: Option<&Node>| node.and_then(|n| n.overlay.address);
        let (old, new) = (address(old), address(new));
        if old == new {
            return;
        }
        if let Some(address) = old
            && let Entry::Occupied(mut held) = self.of_nodes.entry(address)
        {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
        if let Some(address) = new {
            *self.of_nodes.entry(address).or_default() += 1;
        }
    }

    fn follow_key(&mut self, old: Option<&Node>, new: Option<&Node>) {
        let key = |node: Option<&Node>| {
            node.and_then(|n| Some((n.overlay.public_key.clone()?, n.id.clone())))
        };
        let (old, new) = (key(old), key(new));
        if old == new {
            return;
        }
        if let Some((key, id)) = old
            && let Entry::Occupied(mut nodes) = self.keys.entry(key)
        {
            nodes.get_mut().remove(&id);
            if nodes.get().is_empty() {
                nodes.remove();
            }
        }
        if let Some((key, id)) = new {
            self.keys.entry(key).or_default().insert(id);
        }
    }

    pub(crate) fn follow_network(&mut self, old: Option<&Network>, new: Option<&Network>) {
        rename(&mut self.networks, old.map(|n| (n.name(), &n.id)), new.map(|n| (n.name(), &n.id)));
        if let Some(old) = old.filter(|n| n.ingress) {
            self.ingress.remove(&old.id);
        }
        if let Some(new) = new.filter(|n| n.ingress) {
            self.ingress.insert(new.id.clone());
        }
    }

    pub(crate) fn follow_dependency(
        &mut self,
        kind: DependencyKind,
        old: Option<&Dependency>,
        new: Option<&Dependency>,
    ) {
        let names = self.dependencies.entry(kind).or_default();
        rename(names, old.map(|o| (o.name.as_str(), &o.id)), new.map(|o| (o.name.as_str(), &o.id)));
        // As if there had never been one: what is derived must not tell how it came about.
        if names.is_empty() {
            self.dependencies.remove(&kind);
        }
    }

    fn follow_users(&mut self, old: Option<&Service>, new: Option<&Service>) {
        let (before, after) = (dependencies(old), dependencies(new));
        if let Some(service) = old {
            for key in before.difference(&after) {
                if let Entry::Occupied(mut users) = self.users.entry(key.clone()) {
                    users.get_mut().remove(&service.id);
                    if users.get().is_empty() {
                        users.remove();
                    }
                }
            }
        }
        if let Some(service) = new {
            for key in after.difference(&before) {
                self.users.entry(key.clone()).or_default().insert(service.id.clone());
            }
        }
    }

    pub(crate) fn follow_service(&mut self, old: Option<&Service>, new: Option<&Service>) {
        rename(&mut self.services, old.map(|s| (s.name(), &s.id)), new.map(|s| (s.name(), &s.id)));
        self.follow_users(old, new);
        let (before, after) = (port_claims(old), port_claims(new));
        if before != after {
            for (port, claim) in before {
                if let Entry::Occupied(mut claims) = self.ports.entry(port) {
                    claims.get_mut().remove(&claim);
                    if claims.get().is_empty() {
                        claims.remove();
                    }
                }
            }
            for (port, claim) in after {
                self.ports.entry(port).or_default().insert(claim);
            }
        }
        let (before, after) = (vips(old), vips(new));
        if before != after {
            before.iter().for_each(|vip| self.give_back(vip, false));
            after.iter().for_each(|vip| self.hold(vip, false));
        }
    }

    pub(crate) fn follow_task(&mut self, old: Option<&Task>, new: Option<&Task>) {
        let is_new = |t: Option<&Task>| {
            t.is_some_and(|t| t.status.state == TaskState::New && t.desired <= TaskState::Running)
        };
        match (is_new(old), is_new(new), old.or(new)) {
            (true, false, Some(task)) => drop(self.new_tasks.remove(&task.id)),
            (false, true, Some(task)) => drop(self.new_tasks.insert(task.id.clone())),
            _ => {}
        }
        let (before, after) = (held_by(old), held_by(new));
        if before != after {
            before.0.iter().for_each(|address| self.give_back(address, before.1));
            after.0.iter().for_each(|address| self.hold(address, after.1));
        }
    }

    fn hold(&mut self, address: &NetAddresses, ended: bool) {
        let network = match self.addresses.get_mut(&address.network_id) {
            Some(network) => network,
            None => self.addresses.entry(address.network_id.clone()).or_default(),
        };
        let holders = network.entry(address.v4).or_default();
        *(if ended { &mut holders.ended } else { &mut holders.living }) += 1;
    }

    fn give_back(&mut self, address: &NetAddresses, ended: bool) {
        let Some(network) = self.addresses.get_mut(&address.network_id) else { return };
        let Some(holders) = network.get_mut(&address.v4) else { return };
        *(if ended { &mut holders.ended } else { &mut holders.living }) -= 1;
        if *holders == Holders::default() {
            network.remove(&address.v4);
            if network.is_empty() {
                self.addresses.remove(&address.network_id);
            }
        }
    }
}

fn rename(
    names: &mut BTreeMap<String, String>,
    old: Option<(&str, &String)>,
    new: Option<(&str, &String)>,
) {
    if old == new {
        return;
    }
    if let Some((name, id)) = old
        && names.get(name) == Some(id)
    {
        names.remove(name);
    }
    if let Some((name, id)) = new {
        names.insert(name.to_owned(), id.clone());
    }
}

fn vips(service: Option<&Service>) -> &[NetAddresses] {
    service.and_then(|s| s.endpoint.as_ref()).map_or(&[], |endpoint| &endpoint.vips)
}

/// Addresses of a task, and whether it has ended.
fn held_by(task: Option<&Task>) -> (&[NetAddresses], bool) {
    let Some(task) = task else { return (&[], false) };
    if bugs::active(Bug::ReuseAddress) && task.desired > TaskState::Running {
        return (&[], false);
    }
    (&task.networks, task.status.state.is_terminal())
}

/// What a service refers to.
fn dependencies(service: Option<&Service>) -> BTreeSet<(DependencyKind, String)> {
    let template = service.and_then(|s| s.spec.task_template.as_ref());
    let all = template.into_iter().flat_map(references);
    all.map(|(kind, id)| (kind, id.to_owned())).collect()
}

/// What is asked for counts, too, as a service just made has not been given anything yet.
fn port_claims(service: Option<&Service>) -> BTreeMap<PortKey, Claim> {
    let Some(service) = service else { return BTreeMap::new() };
    let claim = |only_asked| Claim {
        only_asked,
        created: service.meta.created,
        service: service.id.clone(),
    };
    let asked = port_wishes(&service.spec).into_iter();
    let asked = asked.map(|w| ((w.protocol, w.published), claim(true)));
    let given = service.endpoint.iter().flat_map(|e| &e.ports);
    let given = given.map(|p| ((p.protocol, p.published), claim(false)));
    // A port that is both counts as given, being put last.
    asked.chain(given).filter(|((_, port), _)| *port != 0).collect()
}

/// A port as asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortWish {
    /// IP protocol number: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// Port on every node; 0: the cluster chooses.
    pub published: u16,
    /// Port in the container.
    pub target: u16,
}

/// Ports the routing mesh is asked to publish. Numbers outside 0–65535 are refused by the control
/// API before they get here, and are left out.
pub fn port_wishes(spec: &docker::ServiceSpec) -> Vec<PortWish> {
    let ports = spec.endpoint_spec.as_ref().and_then(|e| e.ports.as_deref()).unwrap_or_default();
    let ingress = |p: &&docker::EndpointPortConfig| {
        p.publish_mode != Some(docker::EndpointPortConfigPublishModeEnum::HOST)
    };
    let wish = |p: &docker::EndpointPortConfig| {
        Some(PortWish {
            protocol: protocol_number(p.protocol),
            published: u16::try_from(p.published_port.unwrap_or(0)).ok()?,
            target: u16::try_from(p.target_port?).ok()?,
        })
    };
    ports.iter().filter(ingress).filter_map(wish).collect()
}

/// IP protocol number of a port; TCP where nothing is said.
pub fn protocol_number(protocol: Option<docker::EndpointPortConfigProtocolEnum>) -> u8 {
    match protocol {
        Some(docker::EndpointPortConfigProtocolEnum::UDP) => 17,
        Some(docker::EndpointPortConfigProtocolEnum::SCTP) => 132,
        _ => 6,
    }
}
