//! The cluster's state in memory: objects by id, names, and the one way to change them.

mod change;
mod lookup;
mod object;
mod stored;

pub use change::{ApplyError, Change, MOST_NAMED};
pub use object::{Object, ObjectKind};
pub use stored::Frozen;

use crate::{
    claims::Claims,
    dependency::{Dependency, DependencyKind},
    failures::Failures,
    index::{Index, frees},
    journal::Journal,
    objects::{Cluster, Meta, Network, Node, Service},
    shared::{Services, Tasks},
    task::{Task, TaskState},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};
use stored::Stored;

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
    pub services: Services,
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
                self.services.insert(o);
            }
        }
        self.room = Room(index);
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

    fn dependencies_mut(&mut self, kind: DependencyKind) -> &mut BTreeMap<String, Arc<Dependency>> {
        match kind {
            DependencyKind::Secret => &mut self.secrets,
            DependencyKind::Config => &mut self.configs,
        }
    }

    /// An update begins on the managers' clock, as its tasks are made on it: its proposer's own may be
    /// behind, and tasks of an earlier update would be taken for this one's.
    fn note_beginning(&self, service: &mut Arc<Service>, now: Timestamp) {
        let present = self.services.get(&service.id).and_then(|s| s.update_status.as_ref());
        if let Some(status) = &service.update_status
            && present.is_none_or(|present| present.began != status.began)
            && let Some(status) = &mut Arc::make_mut(service).update_status
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
