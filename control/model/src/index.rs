//! What is derived from the tasks, kept as they change: nobody has to read all of them.
use crate::{docker::TaskSpec, load::Load, task::Task, templates::Templates, time::Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Ids of tasks. One allocation serves all indexes.
type Ids = BTreeSet<Arc<str>>;

/// A task that waits for the scheduler, in the order of service: oldest, lowest slot, id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Waiting {
    /// When it was made.
    pub created: Timestamp,
    /// Its slot.
    pub slot: u64,
    /// Its id.
    pub id: Arc<str>,
}

/// A pure function of the tasks; equal tasks have an equal index.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Index {
    by_service: BTreeMap<String, Ids>,
    by_node: BTreeMap<String, Ids>,
    /// Without a node, by service and version of its template.
    waiting: BTreeMap<String, BTreeMap<u64, BTreeSet<Waiting>>>,
    /// With a node, which the scheduler only has to confirm.
    preassigned: BTreeSet<Waiting>,
    /// By node.
    loads: BTreeMap<String, Load>,
    /// Tasks that stay, by service and node.
    spread: BTreeMap<String, BTreeMap<String, u32>>,
    templates: Templates,
}

impl Index {
    pub(crate) fn of_service<'a>(&'a self, service: &str) -> impl Iterator<Item = &'a str> + 'a {
        self.by_service.get(service).into_iter().flatten().map(|id| &**id)
    }

    pub(crate) fn of_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a str> + 'a {
        self.by_node.get(node).into_iter().flatten().map(|id| &**id)
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        self.by_service.keys().map(String::as_str)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.by_node.keys().map(String::as_str)
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
        self.loads.get(node)
    }

    pub(crate) fn loads(&self) -> impl Iterator<Item = (&str, &Load)> {
        self.loads.iter().map(|(node, load)| (node.as_str(), load))
    }

    pub(crate) fn spread<'a>(&'a self, service: &str) -> impl Iterator<Item = (&'a str, u32)> + 'a {
        let nodes = self.spread.get(service).into_iter().flatten();
        nodes.map(|(node, tasks)| (node.as_str(), *tasks))
    }

    pub(crate) fn template(&self, service: &str, version: u64) -> Option<&Arc<TaskSpec>> {
        self.templates.get(service, version)
    }

    /// Makes the task share its specification, before it is put.
    pub(crate) fn share(&self, task: &mut Task) {
        self.templates.share(task);
    }

    pub(crate) fn add(&mut self, task: &Task) {
        let id: Arc<str> = Arc::from(task.id.as_str());
        self.templates.hold(task);
        insert(&mut self.by_service, &task.service_id, id.clone());
        if let Some(node) = &task.node_id {
            insert(&mut self.by_node, node, id.clone());
        }
        if task.waits() {
            self.wait(task, id);
        }
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
        let moved = place(old) != place(new);
        if moved || old.node_id != new.node_id {
            // Whoever has the id: most often the task waited until now.
            let waited = if moved { self.wait_no_more(old) } else { None };
            let id = waited.or_else(|| {
                let ids = self.by_service.get(&new.service_id);
                ids.and_then(|ids| ids.get(new.id.as_str())).cloned()
            });
            let Some(id) = id else { return };
            if moved && new.waits() {
                self.wait(new, id.clone());
            }
            if old.node_id != new.node_id {
                if let Some(node) = &old.node_id {
                    remove(&mut self.by_node, node, &old.id);
                }
                if let Some(node) = &new.node_id {
                    insert(&mut self.by_node, node, id);
                }
            }
        }
        if takes_other(old, new) {
            self.stand(old);
            self.sit(new);
        }
    }

    fn wait(&mut self, task: &Task, id: Arc<str>) {
        let waiting = Waiting { created: task.meta.created, slot: task.slot, id };
        if task.node_id.is_some() {
            self.preassigned.insert(waiting);
            return;
        }
        let versions = match self.waiting.get_mut(&task.service_id) {
            Some(versions) => versions,
            None => self.waiting.entry(task.service_id.clone()).or_default(),
        };
        versions.entry(task.spec_version).or_default().insert(waiting);
    }

    /// Takes the task out of those that wait; returns its id if it was one of them.
    fn wait_no_more(&mut self, task: &Task) -> Option<Arc<str>> {
        if !task.waits() {
            return None;
        }
        if task.node_id.is_some() {
            return take(&mut self.preassigned, task);
        }
        let versions = self.waiting.get_mut(&task.service_id)?;
        let tasks = versions.get_mut(&task.spec_version)?;
        let id = take(tasks, task);
        if tasks.is_empty() {
            versions.remove(&task.spec_version);
            if versions.is_empty() {
                self.waiting.remove(&task.service_id);
            }
        }
        id
    }

    fn sit(&mut self, task: &Task) {
        let Some(node) = task.seat() else { return };
        match self.loads.get_mut(node) {
            Some(load) => load.add(task),
            None => self.loads.entry(node.to_owned()).or_default().add(task),
        }
        if task.stays() {
            let nodes = match self.spread.get_mut(&task.service_id) {
                Some(nodes) => nodes,
                None => self.spread.entry(task.service_id.clone()).or_default(),
            };
            match nodes.get_mut(node) {
                Some(count) => *count += 1,
                None => drop(nodes.insert(node.to_owned(), 1)),
            }
        }
    }

    fn stand(&mut self, task: &Task) {
        let Some(node) = task.seat() else { return };
        if let Some(load) = self.loads.get_mut(node) {
            load.remove(task);
            if load.seated == 0 {
                self.loads.remove(node);
            }
        }
        if task.stays()
            && let Some(nodes) = self.spread.get_mut(&task.service_id)
            && let Some(count) = nodes.get_mut(node)
        {
            *count -= 1;
            if *count == 0 {
                nodes.remove(node);
                if nodes.is_empty() {
                    self.spread.remove(&task.service_id);
                }
            }
        }
    }
}

fn take(waiting: &mut BTreeSet<Waiting>, task: &Task) -> Option<Arc<str>> {
    // The empty id is before all others, and is not allocated.
    let (created, slot) = (task.meta.created, task.slot);
    let first = Waiting { created, slot, id: Arc::default() };
    let mut same = waiting.range(first..).take_while(|w| (w.created, w.slot) == (created, slot));
    let found = same.find(|w| *w.id == *task.id)?.clone();
    waiting.remove(&found);
    Some(found.id)
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

fn insert(index: &mut BTreeMap<String, Ids>, key: &str, id: Arc<str>) {
    match index.get_mut(key) {
        Some(ids) => ids.insert(id),
        None => index.entry(key.to_owned()).or_default().insert(id),
    };
}

fn remove(index: &mut BTreeMap<String, Ids>, key: &str, id: &str) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
