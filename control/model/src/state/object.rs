//! Objects of the cluster and their kinds.

use crate::{
    dependency::{Dependency, DependencyKind},
    objects::{Cluster, Meta, Network, Node, NodeState, Service},
    task::Task,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

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
    Service(Arc<Service>),
    /// A task.
    Task(Arc<Task>),
    /// A secret.
    Secret(Arc<Dependency>),
    /// A config.
    Config(Arc<Dependency>),
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
    pub(super) fn note_times(&mut self, now: Timestamp) {
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

    pub(super) fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Object::Cluster(o) => &mut o.meta,
            Object::Node(o) => &mut o.meta,
            Object::Network(o) => &mut o.meta,
            Object::Service(o) => &mut Arc::make_mut(o).meta,
            Object::Task(o) => &mut Arc::make_mut(o).meta,
            Object::Secret(o) | Object::Config(o) => &mut Arc::make_mut(o).meta,
        }
    }
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
