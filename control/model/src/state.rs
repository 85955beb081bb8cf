//! The cluster's state in memory: objects by id, names, and the one way to change them.
use crate::{
    journal::Journal,
    objects::{Cluster, Meta, Network, Node, Service},
    task::Task,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An object of any kind.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "moved seldom, and boxing shows in every match")]
pub enum Object {
    /// The cluster.
    Cluster(Cluster),
    /// A node.
    Node(Node),
    /// A network.
    Network(Network),
    /// A service.
    Service(Service),
    /// A task.
    Task(Task),
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

    fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Object::Cluster(o) => &mut o.meta,
            Object::Node(o) => &mut o.meta,
            Object::Network(o) => &mut o.meta,
            Object::Service(o) => &mut o.meta,
            Object::Task(o) => &mut o.meta,
        }
    }
}

/// One change of one object.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "almost all changes are Put")]
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
}

/// All objects of the cluster.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
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
    pub tasks: BTreeMap<String, Task>,
    by_service: BTreeMap<String, BTreeSet<String>>,
    by_node: BTreeMap<String, BTreeSet<String>>,
    #[serde(skip)]
    journal: Journal,
}

impl State {
    /// Applies a transaction whole or not at all. `index` becomes the version of every object put,
    /// and must be greater than the present version.
    pub fn apply(
        &mut self,
        index: u64,
        now: Timestamp,
        changes: Vec<Change>,
    ) -> Result<(), ApplyError> {
        debug_assert!(index > self.version);
        self.check(&changes)?;
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
                    self.put(object);
                }
                Change::Delete(kind, id) => {
                    self.journal.touch(index, kind, &id);
                    self.delete(kind, &id);
                }
            }
        }
        self.version = index;
        Ok(())
    }

    /// Objects put or removed after `version`, an object as often as it was changed. `None` when
    /// that is not known: too long ago, or before this state was read from a snapshot.
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
        let ids = self.by_service.get(service);
        ids.into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    /// Tasks of a node, in order of id.
    pub fn tasks_of_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Task> + 'a {
        let ids = self.by_node.get(node);
        ids.into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    /// A service by its name.
    pub fn service_named(&self, name: &str) -> Option<&Service> {
        self.services.values().find(|s| s.name() == name)
    }

    /// A network by its name.
    pub fn network_named(&self, name: &str) -> Option<&Network> {
        self.networks.values().find(|n| n.name() == name)
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
            if object.meta().version != present {
                return Err(ApplyError::OutOfSequence { kind, id: id.to_owned() });
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

    fn put(&mut self, object: Object) {
        match object {
            Object::Cluster(o) => self.cluster = Some(o),
            Object::Node(o) => drop(self.nodes.insert(o.id.clone(), o)),
            Object::Network(o) => drop(self.networks.insert(o.id.clone(), o)),
            Object::Service(o) => drop(self.services.insert(o.id.clone(), o)),
            Object::Task(o) => {
                self.unindex(&o.id);
                self.by_service.entry(o.service_id.clone()).or_default().insert(o.id.clone());
                if let Some(node) = &o.node_id {
                    self.by_node.entry(node.clone()).or_default().insert(o.id.clone());
                }
                self.tasks.insert(o.id.clone(), o);
            }
        }
    }

    fn delete(&mut self, kind: ObjectKind, id: &str) {
        match kind {
            ObjectKind::Cluster => self.cluster = None,
            ObjectKind::Node => drop(self.nodes.remove(id)),
            ObjectKind::Network => drop(self.networks.remove(id)),
            ObjectKind::Service => drop(self.services.remove(id)),
            ObjectKind::Task => {
                self.unindex(id);
                self.tasks.remove(id);
            }
        }
    }

    fn unindex(&mut self, task: &str) {
        let Some(old) = self.tasks.get(task) else { return };
        let keys = [
            (&mut self.by_service, Some(&old.service_id)),
            (&mut self.by_node, old.node_id.as_ref()),
        ];
        for (index, key) in keys {
            let Some(key) = key else { continue };
            if let Some(ids) = index.get_mut(key) {
                ids.remove(task);
                if ids.is_empty() {
                    index.remove(key);
                }
            }
        }
    }
}
