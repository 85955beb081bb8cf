//! The cluster's state in memory: objects by id, names, and the one way to change them.
use crate::{
    bugs::{self, Bug},
    claims::{Claims, Holders, PortKey},
    dependency::{Dependency, DependencyKind, references},
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
    /// A secret.
    Secret(Arc<Dependency>),
    /// A config.
    Config(Arc<Dependency>),
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
    /// Secrets.
    Secret,
    /// Configs.
    Config,
}

impl From<DependencyKind> for ObjectKind {
    fn from(kind: DependencyKind) -> ObjectKind {
        match kind {
            DependencyKind::Secret => ObjectKind::Secret,
            DependencyKind::Config => ObjectKind::Config,
        }
    }
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
            ObjectKind::Secret => "secret",
            ObjectKind::Config => "config",
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
            Object::Secret(_) => ObjectKind::Secret,
            Object::Config(_) => ObjectKind::Config,
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
            Object::Secret(o) | Object::Config(o) => &o.id,
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
            Object::Secret(o) | Object::Config(o) => &o.meta,
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
            Object::Secret(_) | Object::Config(_) => {}
        }
    }

    fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Object::Cluster(o) => &mut o.meta,
            Object::Node(o) => &mut o.meta,
            Object::Network(o) => &mut o.meta,
            Object::Service(o) => &mut o.meta,
            Object::Task(o) => &mut Arc::make_mut(o).meta,
            Object::Secret(o) | Object::Config(o) => &mut Arc::make_mut(o).meta,
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
    /// Services refer to it. SwarmKit's text.
    #[error(
        "{} '{name}' is in use by the following service{}: {}",
        kind.as_str(), if services.len() == 1 { "" } else { "s" }, services.join(", ")
    )]
    InUse {
        /// Kind.
        kind: ObjectKind,
        /// Name.
        name: String,
        /// Names of the services, the first [`MOST_NAMED`] of them.
        services: Vec<String>,
    },
    /// A service refers to what was removed at the same moment. SwarmKit's text.
    #[error("{kind} not found: {id}")]
    Missing {
        /// Kind.
        kind: DependencyKind,
        /// Id.
        id: String,
    },
}

/// Services named in one message.
pub const MOST_NAMED: usize = 20;

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
    /// Secrets by id.
    pub secrets: BTreeMap<String, Arc<Dependency>>,
    /// Configs by id.
    pub configs: BTreeMap<String, Arc<Dependency>>,
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
    secrets: BTreeMap<String, Arc<Dependency>>,
    #[serde(default)]
    configs: BTreeMap<String, Arc<Dependency>>,
    #[serde(default)]
    failures: Failures,
    #[serde(default)]
    latest: Timestamp,
}

impl From<Stored> for State {
    fn from(stored: Stored) -> State {
        let Stored { version, cluster, nodes, networks, services, tasks, .. } = stored;
        let Stored { secrets, configs, failures, latest, .. } = stored;
        let mut index = Index::default();
        let mut claims = Claims::default();
        nodes.values().for_each(|node| claims.follow_node(None, Some(node)));
        networks.values().for_each(|network| claims.follow_network(None, Some(network)));
        services.values().for_each(|service| claims.follow_service(None, Some(service)));
        for (kind, all) in [(DependencyKind::Secret, &secrets), (DependencyKind::Config, &configs)]
        {
            all.values().for_each(|one| claims.follow_dependency(kind, None, Some(one)));
        }
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
            secrets,
            configs,
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
            ObjectKind::Secret => self.secrets.get(id).map(|o| o.meta.version),
            ObjectKind::Config => self.configs.get(id).map(|o| o.meta.version),
        }
    }

    /// All secrets or all configs, by id.
    pub fn dependencies(&self, kind: DependencyKind) -> &BTreeMap<String, Arc<Dependency>> {
        match kind {
            DependencyKind::Secret => &self.secrets,
            DependencyKind::Config => &self.configs,
        }
    }

    fn dependencies_mut(&mut self, kind: DependencyKind) -> &mut BTreeMap<String, Arc<Dependency>> {
        match kind {
            DependencyKind::Secret => &mut self.secrets,
            DependencyKind::Config => &mut self.configs,
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
            let object = match change {
                Change::Put(object) => object,
                Change::Delete(ObjectKind::Secret, id) => {
                    self.check_unused(DependencyKind::Secret, id)?;
                    continue;
                }
                Change::Delete(ObjectKind::Config, id) => {
                    self.check_unused(DependencyKind::Config, id)?;
                    continue;
                }
                Change::Delete(..) => continue,
            };
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
            let of_kind = |kind, name| self.dependency_named(kind, name).map(|o| &o.id);
            let (name, taken) = match object {
                Object::Service(s) => {
                    self.check_dependencies(s)?;
                    (s.name(), self.service_named(s.name()).map(|o| &o.id))
                }
                Object::Secret(o) => (o.name.as_str(), of_kind(DependencyKind::Secret, &o.name)),
                Object::Config(o) => (o.name.as_str(), of_kind(DependencyKind::Config, &o.name)),
                Object::Network(n) => (n.name(), self.network_named(n.name()).map(|o| &o.id)),
                _ => continue,
            };
            if taken.is_some_and(|other| other != id) {
                return Err(ApplyError::NameTaken { kind, name: name.to_owned() });
            }
        }
        Ok(())
    }

    fn check_unused(&self, kind: DependencyKind, id: &str) -> Result<(), ApplyError> {
        let users = self.users_of(kind, id).take(MOST_NAMED);
        let services: Vec<String> = users.map(|service| service.name().to_owned()).collect();
        match self.dependencies(kind).get(id) {
            Some(used) if !services.is_empty() && !bugs::active(Bug::RemoveUsed) => {
                let (kind, name) = (ObjectKind::from(kind), used.name.clone());
                Err(ApplyError::InUse { kind, name, services })
            }
            _ => Ok(()),
        }
    }

    /// What a service refers to newly must be there. What it had before is exempt: an update that goes
    /// back by itself must not be held up by what was removed since; its tasks say what they miss.
    fn check_dependencies(&self, service: &Service) -> Result<(), ApplyError> {
        let present = self.services.get(&service.id);
        let before = present.map(|present| &present.spec);
        let earlier = present.and_then(|present| present.previous_spec.as_ref());
        let had = |one: &(DependencyKind, &str)| {
            let specs = before.into_iter().chain(earlier).filter_map(|s| s.task_template.as_ref());
            specs.flat_map(references).any(|other| other == *one)
        };
        let all = service.spec.task_template.iter().flat_map(references);
        let missing = all.filter(|(kind, id)| !self.dependencies(*kind).contains_key(*id));
        match missing.into_iter().find(|one| !had(one)) {
            Some((kind, id)) => Err(ApplyError::Missing { kind, id: id.to_owned() }),
            None => Ok(()),
        }
    }

    fn put_dependency(&mut self, kind: DependencyKind, new: Arc<Dependency>) {
        self.claims.follow_dependency(
            kind,
            self.dependencies(kind).get(&new.id).cloned().as_deref(),
            Some(&new),
        );
        self.dependencies_mut(kind).insert(new.id.clone(), new);
    }

    fn delete_dependency(&mut self, kind: DependencyKind, id: &str) {
        let old = self.dependencies_mut(kind).remove(id);
        self.claims.follow_dependency(kind, old.as_deref(), None);
    }

    fn put(&mut self, object: Object, index: u64, now: Timestamp) {
        match object {
            Object::Secret(o) => return self.put_dependency(DependencyKind::Secret, o),
            Object::Config(o) => return self.put_dependency(DependencyKind::Config, o),
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
            ObjectKind::Secret => return self.delete_dependency(DependencyKind::Secret, id),
            ObjectKind::Config => return self.delete_dependency(DependencyKind::Config, id),
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
