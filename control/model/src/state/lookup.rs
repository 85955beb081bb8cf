//! What can be read from the state: objects by name, and what is derived from them.

use super::{ObjectKind, State};
use crate::{
    claims::{Holders, PortKey},
    dependency::{Dependency, DependencyKind},
    docker,
    index::Waiting,
    key::IdKey,
    load::Load,
    objects::{Network, Node, Service},
    task::Task,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

impl State {
    /// Present version of an object, if it exists.
    pub fn version_of(&self, kind: ObjectKind, id: &str) -> Option<u64> {
        match kind {
            ObjectKind::Cluster => {
                self.cluster.as_ref().filter(|c| c.id == id).map(|c| c.meta.version)
            }
            ObjectKind::Node => self.nodes.get(id).map(|o| o.meta.version),
            ObjectKind::Network => self.networks.get(id).map(|o| o.meta.version),
            ObjectKind::Service => self.services.get(id).map(|o| o.meta.version),
            ObjectKind::Task => self.tasks.get(id).map(|o| o.meta.version),
            ObjectKind::Secret => self.secrets.get(id).map(|o| o.meta.version),
            ObjectKind::Config => self.configs.get(id).map(|o| o.meta.version),
        }
    }

    /// Nodes that other nodes may turn to as managers, by id: those that have an address for it.
    pub fn managers(&self) -> impl Iterator<Item = &Node> {
        self.claims.managers().iter().filter_map(|id| self.nodes.get(id))
    }

    /// All secrets or all configs, by id.
    pub fn dependencies(&self, kind: DependencyKind) -> &BTreeMap<String, Arc<Dependency>> {
        match kind {
            DependencyKind::Secret => &self.secrets,
            DependencyKind::Config => &self.configs,
        }
    }

    /// A secret or a config by its name.
    pub fn dependency_named(&self, kind: DependencyKind, name: &str) -> Option<&Arc<Dependency>> {
        self.dependencies(kind).get(self.claims.dependency_named(kind, name)?)
    }

    /// Services whose specification refers to a secret or a config, in order of their ids.
    pub fn users_of(&self, kind: DependencyKind, id: &str) -> impl Iterator<Item = &Service> {
        let users = self.claims.users_of(kind, id).into_iter().flatten();
        users.filter_map(|service| self.services.get(service))
    }

    /// Tasks of a service, in order of id.
    pub fn tasks_of_service<'a>(&'a self, service: &str) -> impl Iterator<Item = &'a Task> + 'a {
        self.index.of_service(service).filter_map(|id| self.tasks.of_key(id))
    }

    /// Ids of all services that have tasks, also of services that are gone.
    pub fn services_with_tasks(&self) -> impl Iterator<Item = &str> {
        self.index.services()
    }

    /// Ids of all nodes that have tasks, also of nodes that are gone.
    pub fn nodes_with_tasks(&self) -> impl Iterator<Item = &str> {
        self.index.nodes()
    }

    /// Tasks of a node, in order of id.
    pub fn tasks_of_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Task> + 'a {
        self.index.of_node(node).filter_map(|id| self.tasks.of_key(id))
    }

    /// The specification that the present tasks of a service's template share, if there are any.
    pub fn template(&self, service: &str, spec_version: u64) -> Option<&Arc<docker::TaskSpec>> {
        self.index.template(service, spec_version)
    }

    /// Tasks that wait for a node, by service and version of its template; each lot oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, u64, &BTreeSet<Waiting>)> {
        self.index.waiting()
    }

    /// Tasks that have a node and wait for the scheduler to confirm it, oldest first.
    pub fn preassigned(&self) -> &BTreeSet<Waiting> {
        self.index.preassigned()
    }

    /// What a node carries; `None` for nothing.
    pub fn load(&self, node: &str) -> Option<&Load> {
        self.index.load(node)
    }

    /// What nodes carry, in order of their ids; without those that carry nothing.
    pub fn loads(&self) -> impl Iterator<Item = (&str, &Load)> {
        self.index.loads()
    }

    /// How many tasks of a service that are to stay each node carries, in order of the nodes' ids;
    /// without nodes that carry none.
    pub fn spread<'a>(
        &'a self,
        service: &IdKey,
    ) -> impl Iterator<Item = (&'a IdKey, u32)> + use<'a> {
        self.index.spread(service)
    }

    /// The last transaction after which a task that no node would take may find one: something but a
    /// task changed, or a task left room. Not the same on all managers.
    pub fn room(&self) -> u64 {
        self.room.0
    }

    /// The last transaction that changed a node. Not the same on all managers.
    pub fn fleet(&self) -> u64 {
        self.fleet.0
    }

    /// A service by its name.
    pub fn service_named(&self, name: &str) -> Option<&Service> {
        self.services.get(self.claims.service_named(name)?)
    }

    /// A network by its name.
    pub fn network_named(&self, name: &str) -> Option<&Network> {
        self.networks.get(self.claims.network_named(name)?)
    }

    /// The service that has a published port, or goes before all others that ask for it.
    pub fn port_holder(&self, port: PortKey) -> Option<&Service> {
        self.services.get(self.claims.port_holder(port)?)
    }

    /// How many published ports are held or asked for.
    pub fn ports_held(&self) -> usize {
        self.claims.ports()
    }

    /// Addresses of a network that services and tasks hold.
    pub fn addresses_held(&self, network: &str) -> Option<&BTreeMap<Ipv4Addr, Holders>> {
        self.claims.addresses(network)
    }

    /// Addresses that nodes hold on the routing mesh's network, and how many each.
    pub fn node_addresses(&self) -> &BTreeMap<Ipv4Addr, u32> {
        self.claims.of_nodes()
    }

    /// Nodes with a WireGuard key; more than one are copies of each other.
    pub fn nodes_with_key(&self, key: &str) -> impl Iterator<Item = &str> {
        self.claims.nodes_with_key(key).into_iter().flatten().map(String::as_str)
    }

    /// Addresses that are in use on networks that are gone: of tasks that still run, and of nodes that have
    /// none on the routing mesh's present network.
    pub fn addresses_without_network(&self) -> impl Iterator<Item = Ipv4Addr> {
        let all = self.claims.by_network().iter();
        let gone = all.filter(|(network, _)| !self.networks.contains_key(*network));
        let held = gone.flat_map(|(_, held)| held).filter(|(_, by)| by.living > 0);
        let mesh = self.ingress().map(|ingress| ingress.subnet);
        let nodes = self.claims.of_nodes().keys();
        let nodes = nodes.filter(move |ip| mesh.is_none_or(|mesh| !mesh.contains(**ip)));
        held.map(|(ip, _)| *ip).chain(nodes.copied())
    }

    /// Ids of tasks that are wanted and wait for their addresses.
    pub fn new_tasks(&self) -> &BTreeSet<String> {
        self.claims.new_tasks()
    }

    /// The routing mesh's network.
    pub fn ingress(&self) -> Option<&Network> {
        self.networks.get(self.claims.ingress()?)
    }
}
