//! What is derived from the tasks, kept as they change: nobody has to read all of them.
use crate::{
    docker::TaskSpec, key::IdKey, load::Load, task::Task, templates::Templates, time::Timestamp,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Ids of tasks.
type Ids = BTreeSet<IdKey>;

/// A task that waits for the scheduler, in the order of service: oldest, lowest slot, id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Waiting {
    /// When it was made.
    pub created: Timestamp,
    /// Its slot.
    pub slot: u64,
    /// Its id.
    pub id: IdKey,
}

impl Waiting {
    fn of(task: &Task) -> Waiting {
        Waiting { created: task.meta.created, slot: task.slot, id: task.id.as_str().into() }
    }
}

/// A pure function of the tasks; equal tasks have an equal index.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Index {
    by_service: BTreeMap<IdKey, Ids>,
    by_node: BTreeMap<IdKey, Ids>,
    /// Without a node, by service and version of its template.
    waiting: BTreeMap<IdKey, BTreeMap<u64, BTreeSet<Waiting>>>,
    /// With a node, which the scheduler only has to confirm.
    preassigned: BTreeSet<Waiting>,
    /// By node.
    loads: BTreeMap<IdKey, Load>,
    /// Tasks that stay, by service and node.
    spread: BTreeMap<IdKey, BTreeMap<IdKey, u32>>,
    templates: Templates,
}

impl Index {
    pub(crate) fn of_service(&self, service: &str) -> impl Iterator<Item = &IdKey> + use<'_> {
        self.by_service.get(&service.into()).into_iter().flatten()
    }

    pub(crate) fn of_node(&self, node: &str) -> impl Iterator<Item = &IdKey> + use<'_> {
        self.by_node.get(&node.into()).into_iter().flatten()
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        self.by_service.keys().map(IdKey::as_str)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.by_node.keys().map(IdKey::as_str)
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = (&str, u64, &BTreeSet<Waiting>)> {
        self.waiting.iter().flat_map(|(service, versions)| {
            versions.iter().map(move |(version, tasks)| (service.as_str(), *version, tasks))
        })
    }

    pub(crate) fn preassigned(&self) -> &BTreeSet<Waiting> {
        &self.preassigned
    }

    pub(crate) fn load(&self, node: &str) -> Option<&Load> {
        self.loads.get(&node.into())
    }

    pub(crate) fn loads(&self) -> impl Iterator<Item = (&str, &Load)> {
        self.loads.iter().map(|(node, load)| (node.as_str(), load))
    }

    pub(crate) fn spread<'a>(
        &'a self,
        service: &IdKey,
    ) -> impl Iterator<Item = (&'a IdKey, u32)> + use<'a> {
        let nodes = self.spread.get(service).into_iter().flatten();
        nodes.map(|(node, tasks)| (node, *tasks))
    }

    pub(crate) fn template(&self, service: &str, version: u64) -> Option<&Arc<TaskSpec>> {
        self.templates.get(service, version)
    }

    /// Makes the task share its specification, before it is put.
    pub(crate) fn share(&self, task: &mut Task) {
        self.templates.share(task);
    }

    pub(crate) fn add(&mut self, task: &Task) {
        self.templates.hold(task);
        insert(&mut self.by_service, &task.service_id, &task.id);
        if let Some(node) = &task.node_id {
            insert(&mut self.by_node, node, &task.id);
        }
        self.wait(task);
        self.sit(task);
    }

    pub(crate) fn remove(&mut self, task: &Task) {
        self.stand(task);
        self.wait_no_more(task);
        if let Some(node) = &task.node_id {
            remove(&mut self.by_node, node, &task.id);
        }
        remove(&mut self.by_service, &task.service_id, &task.id);
        self.templates.release(task);
    }

    /// Follows a change of one task: what stays the same is not touched.
    pub(crate) fn follow(&mut self, old: &Task, new: &Task) {
        if (&old.service_id, old.spec_version) != (&new.service_id, new.spec_version) {
            self.remove(old);
            self.add(new);
            return;
        }
        let place = |t: &Task| t.waits().then_some((t.node_id.is_some(), t.meta.created, t.slot));
        if place(old) != place(new) {
            self.wait_no_more(old);
            self.wait(new);
        }
        if old.node_id != new.node_id {
            if let Some(node) = &old.node_id {
                remove(&mut self.by_node, node, &old.id);
            }
            if let Some(node) = &new.node_id {
                insert(&mut self.by_node, node, &new.id);
            }
        }
        if takes_other(old, new) {
            self.stand(old);
            self.sit(new);
        }
    }

    fn wait(&mut self, task: &Task) {
        if !task.waits() {
            return;
        }
        if task.node_id.is_some() {
            self.preassigned.insert(Waiting::of(task));
            return;
        }
        let versions = self.waiting.entry(task.service_id.as_str().into()).or_default();
        versions.entry(task.spec_version).or_default().insert(Waiting::of(task));
    }

    fn wait_no_more(&mut self, task: &Task) {
        if !task.waits() {
            return;
        }
        if task.node_id.is_some() {
            self.preassigned.remove(&Waiting::of(task));
            return;
        }
        let service = task.service_id.as_str().into();
        let Some(versions) = self.waiting.get_mut(&service) else { return };
        let Some(tasks) = versions.get_mut(&task.spec_version) else { return };
        tasks.remove(&Waiting::of(task));
        if tasks.is_empty() {
            versions.remove(&task.spec_version);
            if versions.is_empty() {
                self.waiting.remove(&service);
            }
        }
    }

    fn sit(&mut self, task: &Task) {
        let Some(node) = task.seat() else { return };
        let node = IdKey::from(node);
        if task.stays() {
            let nodes = self.spread.entry(task.service_id.as_str().into()).or_default();
            *nodes.entry(node.clone()).or_default() += 1;
        }
        self.loads.entry(node).or_default().add(task);
    }

    fn stand(&mut self, task: &Task) {
        let Some(node) = task.seat() else { return };
        let (node, service) = (IdKey::from(node), IdKey::from(&task.service_id));
        if let Some(load) = self.loads.get_mut(&node) {
            load.remove(task);
            if load.seated == 0 {
                self.loads.remove(&node);
            }
        }
        if task.stays()
            && let Some(nodes) = self.spread.get_mut(&service)
            && let Some(count) = nodes.get_mut(&node)
        {
            *count -= 1;
            if *count == 0 {
                nodes.remove(&node);
                if nodes.is_empty() {
                    self.spread.remove(&service);
                }
            }
        }
    }
}

/// Whether the task takes other room than before.
fn takes_other(old: &Task, new: &Task) -> bool {
    old.seat() != new.seat()
        || old.seat().is_some()
            && (old.stays() != new.stays()
                || old.reservations() != new.reservations()
                || old.assigned_generic_resources != new.assigned_generic_resources
                || old.host_ports != new.host_ports)
}

/// A task that is a load on its node, or was, leaves room when it changes so.
pub(crate) fn frees(old: &Task, new: Option<&Task>) -> bool {
    old.seat().is_some() && new.is_none_or(|new| takes_other(old, new))
}

fn insert(index: &mut BTreeMap<IdKey, Ids>, key: &str, id: &str) {
    index.entry(key.into()).or_default().insert(id.into());
}

fn remove(index: &mut BTreeMap<IdKey, Ids>, key: &str, id: &str) {
    let key = IdKey::from(key);
    if let Some(ids) = index.get_mut(&key) {
        ids.remove(&id.into());
        if ids.is_empty() {
            index.remove(&key);
        }
    }
}
