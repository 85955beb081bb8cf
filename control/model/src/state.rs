//! The cluster's state in memory: objects by id, names, and the one way to change them.
use crate::{
    bugs::{self, Bug},
    claims::{Claims, Holders, PortKey},
    docker,
    failures::Failures,
    index::{Index, Waiting, frees},
    journal::Journal,
    key::IdKey,
    load::Load,
    objects::{Cluster, Meta, Network, Node, NodeState, Service},
    task::{Task, TaskState},
    tasks::Tasks,
    templates::shared_tasks,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

/// An object of any kind. Boxed, as almost all that are moved are tasks and they would all be as large as
/// the largest kind.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Object {
    /// The cluster.
    Cluster(Box<Cluster>),
    /// A node.
    Node(Box<Node>),
    /// A network.
    Network(Box<Network>),
    /// A service.
    Service(Box<Service>),
    /// A task.
    Task(Arc<Task>),
}

/// Kinds of objects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum ObjectKind {
    /// The cluster.
    Cluster,
    /// Nodes.
    Node,
    /// Networks.
    Network,
    /// Services.
    Service,
    /// Tasks.
    Task,
}

impl ObjectKind {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectKind::Cluster => "cluster",
            ObjectKind::Node => "node",
            ObjectKind::Network => "network",
            ObjectKind::Service => "service",
            ObjectKind::Task => "task",
        }
    }
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Object::Cluster(_) => ObjectKind::Cluster,
            Object::Node(_) => ObjectKind::Node,
            Object::Network(_) => ObjectKind::Network,
            Object::Service(_) => ObjectKind::Service,
            Object::Task(_) => ObjectKind::Task,
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Object::Cluster(o) => &o.id,
            Object::Node(o) => &o.id,
            Object::Network(o) => &o.id,
            Object::Service(o) => &o.id,
            Object::Task(o) => &o.id,
        }
    }

    /// Its version and times.
    pub fn meta(&self) -> &Meta {
        match self {
            Object::Cluster(o) => &o.meta,
            Object::Node(o) => &o.meta,
            Object::Network(o) => &o.meta,
            Object::Service(o) => &o.meta,
            Object::Task(o) => &o.meta,
        }
    }

    /// Notes on the managers' clock what is seen in it for the first time.
    fn note_times(&mut self, now: Timestamp) {
        match self {
            Object::Task(task) => Arc::make_mut(task).note_times(now),
            Object::Node(node) if node.status.state == NodeState::Down => {
                node.down_since.get_or_insert(now);
            }
            Object::Node(node) => node.down_since = None,
            Object::Cluster(_) | Object::Network(_) | Object::Service(_) => {}
        }
    }

    fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Object::Cluster(o) => &mut o.meta,
            Object::Node(o) => &mut o.meta,
            Object::Network(o) => &mut o.meta,
            Object::Service(o) => &mut o.meta,
            Object::Task(o) => &mut Arc::make_mut(o).meta,
        }
    }
}

/// One change of one object.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// Creates (version 0) or replaces (version it was read at).
    Put(Object),
    /// Removes; what is already gone is no error.
    Delete(ObjectKind, String),
}

/// Why a transaction was refused; nothing of it was applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum ApplyError {
    /// The object was changed since it was read. Docker's text.
    #[error("update out of sequence")]
    OutOfSequence {
        /// Kind.
        kind: ObjectKind,
        /// Id.
        id: String,
    },
    /// Another object of the kind has the name.
    #[error("{} {name} already exists", kind.as_str())]
    NameTaken {
        /// Kind.
        kind: ObjectKind,
        /// Name.
        name: String,
    },
    /// Another network has a part of the subnet: it was made at the same moment.
    #[error("the subnet of network {name} overlaps that of network {other}")]
    SubnetTaken {
        /// Name of the network.
        name: String,
        /// Name of the other.
        other: String,
    },
}

/// All objects of the cluster. Written out it is the objects alone; what is derived from them is made
/// anew when it is read.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct State {
    /// Number of the last transaction applied.
    pub version: u64,
    /// The cluster, once there is one.
    pub cluster: Option<Cluster>,
    /// Nodes by id.
    pub nodes: BTreeMap<String, Node>,
    /// Networks by id.
    pub networks: BTreeMap<String, Network>,
    /// Services by id.
    pub services: BTreeMap<String, Service>,
    /// Tasks by id.
    pub tasks: Tasks,
    /// Where services failed of late.
    pub failures: Failures,
    /// Time of the last transaction.
    latest: Timestamp,
    #[serde(skip)]
    index: Index,
    #[serde(skip)]
    claims: Claims,
    #[serde(skip)]
    room: Room,
    #[serde(skip)]
    fleet: Room,
    #[serde(skip)]
    journal: Journal,
}

/// [`State`] as it is written out.
#[derive(Deserialize)]
struct Stored {
    version: u64,
    cluster: Option<Cluster>,
    nodes: BTreeMap<String, Node>,
    networks: BTreeMap<String, Network>,
    services: BTreeMap<String, Service>,
    #[serde(deserialize_with = "shared_tasks")]
    tasks: Tasks,
    #[serde(default)]
    failures: Failures,
    #[serde(default)]
    latest: Timestamp,
}

impl From<Stored> for State {
    fn from(stored: Stored) -> State {
        let Stored { version, cluster, nodes, networks, services, tasks, failures, latest } =
            stored;
        let mut index = Index::default();
        let mut claims = Claims::default();
        nodes.values().for_each(|node| claims.follow_node(None, Some(node)));
        networks.values().for_each(|network| claims.follow_network(None, Some(network)));
        services.values().for_each(|service| claims.follow_service(None, Some(service)));
        for task in tasks.values() {
            index.add(task);
            claims.follow_task(None, Some(task));
        }
        let room = Room(version);
        State {
            version,
            cluster,
            nodes,
            networks,
            services,
            tasks,
            failures,
            latest,
            index,
            claims,
            room,
            fleet: room,
            journal: Journal::default(),
        }
    }
}

/// The last transaction of a kind; for [`State::room`] one after which a task may fit where it did not before.
/// Managers with equal objects may differ in it: one that has read a snapshot does not know what was before.
#[derive(Clone, Copy, Debug, Default)]
struct Room(u64);

impl PartialEq for Room {
    fn eq(&self, _: &Room) -> bool {
        true
    }
}

impl State {
    /// Applies a transaction whole or not at all. `index` becomes the version of every object put,
    /// and must be greater than the present version.
    ///
    /// `now` is its proposer's clock. Clocks differ between managers, and what was made later must not
    /// look older: a time before the last transaction's is moved to just behind that one.
    pub fn apply(
        &mut self,
        index: u64,
        now: Timestamp,
        changes: Vec<Change>,
    ) -> Result<(), ApplyError> {
        debug_assert!(index > self.version);
        self.check(&changes)?;
        let behind = Timestamp(self.latest.0.saturating_add(1));
        let now = if now < self.latest { behind } else { now };
        self.latest = now;
        self.journal.begin(self.version);
        for change in changes {
            match change {
                Change::Put(mut object) => {
                    self.journal.touch(index, object.kind(), object.id());
                    let created = match object.meta().version {
                        0 => now,
                        _ => object.meta().created,
                    };
                    *object.meta_mut() = Meta { version: index, created, updated: now };
                    object.note_times(now);
                    self.put(object, index, now);
                }
                Change::Delete(kind, id) => {
                    self.journal.touch(index, kind, &id);
                    self.delete(kind, &id, index);
                }
            }
        }
        self.version = index;
        Ok(())
    }

    /// Objects put or removed after `version`, and services that lost a task; an object as often as it
    /// was changed. `None` when that is not known: too long ago, or before this state was read from a
    /// snapshot.
    pub fn touched_since(
        &self,
        version: u64,
    ) -> Option<impl Iterator<Item = (ObjectKind, &str)> + '_> {
        self.journal.since(version)
    }

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
        }
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

    /// Ids of tasks that are wanted and wait for their addresses.
    pub fn new_tasks(&self) -> &BTreeSet<String> {
        self.claims.new_tasks()
    }

    /// The routing mesh's network.
    pub fn ingress(&self) -> Option<&Network> {
        self.networks.values().find(|n| n.ingress)
    }

    fn check(&self, changes: &[Change]) -> Result<(), ApplyError> {
        for change in changes {
            let Change::Put(object) = change else { continue };
            let (kind, id) = (object.kind(), object.id());
            let present = self.version_of(kind, id).unwrap_or(0);
            if object.meta().version != present && !bugs::active(Bug::IgnoreVersion) {
                return Err(ApplyError::OutOfSequence { kind, id: id.to_owned() });
            }
            if let Object::Network(network) = object
                && let Some(other) = self.networks.values().find(|o| o.id != id && o.meets(network))
            {
                let (name, other) = (network.name().to_owned(), other.name().to_owned());
                return Err(ApplyError::SubnetTaken { name, other });
            }
            let (name, taken) = match object {
                Object::Service(s) => (s.name(), self.service_named(s.name()).map(|o| &o.id)),
                Object::Network(n) => (n.name(), self.network_named(n.name()).map(|o| &o.id)),
                _ => continue,
            };
            if taken.is_some_and(|other| other != id) {
                return Err(ApplyError::NameTaken { kind, name: name.to_owned() });
            }
        }
        Ok(())
    }

    fn put(&mut self, object: Object, index: u64, now: Timestamp) {
        match object {
            Object::Task(o) => return self.put_task(o, index, now),
            Object::Cluster(o) => self.cluster = Some(*o),
            Object::Node(o) => {
                self.claims.follow_node(self.nodes.get(&o.id), Some(&o));
                self.fleet = Room(index);
                self.nodes.insert(o.id.clone(), *o);
            }
            Object::Network(o) => {
                self.claims.follow_network(self.networks.get(&o.id), Some(&o));
                self.networks.insert(o.id.clone(), *o);
            }
            Object::Service(mut o) => {
                self.note_beginning(&mut o, now);
                self.claims.follow_service(self.services.get(&o.id), Some(&o));
                self.services.insert(o.id.clone(), *o);
            }
        }
        self.room = Room(index);
    }

    /// An update begins on the managers' clock, as its tasks are made on it: its proposer's own may be
    /// behind, and tasks of an earlier update would be taken for this one's.
    fn note_beginning(&self, service: &mut Service, now: Timestamp) {
        let present = self.services.get(&service.id).and_then(|s| s.update_status.as_ref());
        if let Some(status) = &mut service.update_status
            && present.is_none_or(|present| present.began != status.began)
        {
            status.began = now;
        }
    }

    fn put_task(&mut self, mut task: Arc<Task>, index: u64, now: Timestamp) {
        self.index.share(Arc::make_mut(&mut task));
        let Some(present) = self.tasks.get_mut(&task.id) else {
            self.index.add(&task);
            self.claims.follow_task(None, Some(&task));
            self.tasks.insert(task);
            return;
        };
        self.index.follow(present, &task);
        self.claims.follow_task(Some(present), Some(&task));
        if frees(present, Some(&task)) {
            self.room = Room(index);
        }
        let failed = |t: &Task| matches!(t.status.state, TaskState::Failed | TaskState::Rejected);
        if failed(&task)
            && !failed(present)
            && self.services.contains_key(&task.service_id)
            && let Some(node) = &task.node_id
        {
            self.failures.record(&task.service_id, task.spec_version, node, now);
        }
        *present = task;
    }

    fn delete(&mut self, kind: ObjectKind, id: &str, index: u64) {
        match kind {
            ObjectKind::Task => {
                let Some(task) = self.tasks.remove(id) else { return };
                self.index.remove(&task);
                self.claims.follow_task(Some(&task), None);
                // Whose it was cannot be looked up any more.
                self.journal.touch(index, ObjectKind::Service, &task.service_id);
                if !frees(&task, None) {
                    return;
                }
            }
            ObjectKind::Cluster => self.cluster = None,
            ObjectKind::Node => {
                self.claims.follow_node(self.nodes.get(id), None);
                self.nodes.remove(id);
                self.fleet = Room(index);
                self.failures.forget_node(id);
            }
            ObjectKind::Network => {
                self.claims.follow_network(self.networks.get(id), None);
                self.networks.remove(id);
            }
            ObjectKind::Service => {
                self.claims.follow_service(self.services.get(id), None);
                self.services.remove(id);
                self.failures.forget_service(id);
            }
        }
        self.room = Room(index);
    }
}

#[cfg(test)]
mod tests;
