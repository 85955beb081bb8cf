//! Who is to be looked at, and when.
use super::{rebalance, slots};
use shoal_model::{
    Mode, ObjectKind, Service, State, Timestamp,
    bugs::{self, Bug},
};
use std::collections::{BTreeMap, BTreeSet};

/// Something that may want changes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Subject {
    /// A node, be it there or gone.
    Node(String),
    /// A service, be it there or gone.
    Service(String),
    /// The services that are rebalanced, which share a bound.
    Moves,
}

impl Subject {
    pub(super) fn id(&self) -> &str {
        match self {
            Subject::Node(id) | Subject::Service(id) => id,
            Subject::Moves => "",
        }
    }
}

/// What depends on what:
///
/// ```text
/// a task         its service; itself, while it lives and may be refused on its node
/// a service      itself; nodes with tasks of it, which it may not allow any more
/// a node         itself, services with tasks there, global services
/// a network      nobody
/// the cluster    all
/// any of them    the services that are rebalanced
/// ```
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// Version of the state that was followed.
    version: Option<u64>,
    nodes: BTreeSet<String>,
    /// What there was when all was to be looked at, and has not been since.
    all_nodes: BTreeSet<String>,
    all_services: BTreeSet<String>,
    /// Tasks on nodes that need not be looked at whole.
    placed: BTreeSet<String>,
    services: BTreeSet<String>,
    moves: bool,
    /// Services with a task on each node.
    global: BTreeSet<String>,
    /// Services that are to be rebalanced.
    rebalanced: BTreeSet<String>,
    due: BTreeMap<Subject, Timestamp>,
    times: BTreeSet<(Timestamp, Subject)>,
}

impl Agenda {
    pub(super) fn follow(&mut self, state: &State) {
        let touched = self.version.replace(state.version).and_then(|v| state.touched_since(v));
        let Some(touched) = touched else { return self.look_at_all(state) };
        let touched: BTreeSet<(ObjectKind, &str)> = touched.collect();
        self.moves |= !touched.is_empty();
        for (kind, id) in touched {
            match kind {
                ObjectKind::Task => self.touch_task(state, id),
                ObjectKind::Service => self.touch_service(state, id),
                ObjectKind::Node => self.touch_node(state, id),
                ObjectKind::Network | ObjectKind::Secret | ObjectKind::Config => {}
                ObjectKind::Cluster => return self.look_at_all(state),
            }
        }
    }

    fn look_at_all(&mut self, state: &State) {
        *self = Agenda { version: self.version, moves: true, ..Agenda::default() };
        self.all_nodes = state.nodes_with_tasks().map(str::to_owned).collect();
        self.all_services = state.services_with_tasks().map(str::to_owned).collect();
        self.all_services.extend(state.services.keys().map(str::to_owned));
        state.services.values().for_each(|service| self.list(state, &service.id));
    }

    fn touch_task(&mut self, state: &State, id: &str) {
        // One that was removed touched its service.
        let Some(task) = state.tasks.get(id) else { return };
        insert(&mut self.services, &task.service_id);
        if slots::is_live(task) && !task.status.state.is_terminal() && task.node_id.is_some() {
            insert(&mut self.placed, id);
        }
    }

    fn touch_service(&mut self, state: &State, id: &str) {
        insert(&mut self.services, id);
        state.spread(&id.into()).for_each(|(node, _)| insert(&mut self.nodes, node.as_str()));
        self.list(state, id);
    }

    /// Notes which lists a service is on.
    fn list(&mut self, state: &State, id: &str) {
        let service = state.services.get(id);
        let is_global = |s: &Service| matches!(s.mode(), Mode::Global | Mode::GlobalJob);
        keep(&mut self.global, id, service.is_some_and(is_global));
        keep(&mut self.rebalanced, id, service.is_some_and(|s| rebalance::is_wanted(state, s)));
    }

    fn touch_node(&mut self, state: &State, id: &str) {
        insert(&mut self.nodes, id);
        if bugs::active(Bug::OverlookNode) {
            return;
        }
        state.tasks_of_node(id).for_each(|task| insert(&mut self.services, &task.service_id));
        self.services.extend(self.global.iter().cloned());
    }

    /// Puts those on it whose time has come.
    pub(super) fn wake(&mut self, now: Timestamp) {
        while let Some((at, _)) = self.times.first()
            && *at <= now
            && let Some((_, subject)) = self.times.pop_first()
        {
            self.due.remove(&subject);
            self.put(subject);
        }
    }

    pub(super) fn put(&mut self, subject: Subject) {
        match subject {
            Subject::Node(id) => drop(self.nodes.insert(id)),
            Subject::Service(id) => drop(self.services.insert(id)),
            Subject::Moves => self.moves = true,
        }
    }

    /// Nodes that something changed for, and of all the others as many as have so many tasks together.
    pub(super) fn take_nodes(&mut self, state: &State, most: usize) -> BTreeSet<String> {
        let mut nodes = std::mem::take(&mut self.nodes);
        take(&mut self.all_nodes, &mut nodes, most, |id, left| {
            state.tasks_of_node(id).take(left).count()
        });
        nodes
    }

    pub(super) fn take_placed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.placed)
    }

    /// The same of services; those that nothing changed for once all nodes have been looked at.
    pub(super) fn take_services(&mut self, state: &State, most: usize) -> BTreeSet<String> {
        let mut services = std::mem::take(&mut self.services);
        if self.all_nodes.is_empty() {
            take(&mut self.all_services, &mut services, most, |id, left| {
                state.tasks_of_service(id).take(left).count()
            });
        }
        services
    }

    /// Whether there is something to rebalance, once all services have been looked at.
    pub(super) fn take_moves(&mut self) -> bool {
        self.is_complete() && std::mem::take(&mut self.moves) && !self.rebalanced.is_empty()
    }

    /// Whether everything there is has been looked at.
    pub(super) fn is_complete(&self) -> bool {
        self.all_nodes.is_empty() && self.all_services.is_empty()
    }

    pub(super) fn rebalanced(&self) -> BTreeSet<String> {
        self.rebalanced.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.is_complete() && self.nodes.is_empty() && self.services.is_empty() && !self.moves
    }

    /// When it may want something though nothing changed.
    pub(super) fn set_due(&mut self, subject: &Subject, at: Option<Timestamp>) {
        if self.due.get(subject).copied() == at {
            return;
        }
        if let Some(before) = self.due.remove(subject) {
            self.times.remove(&(before, subject.clone()));
        }
        if let Some(at) = at {
            self.due.insert(subject.clone(), at);
            self.times.insert((at, subject.clone()));
        }
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.times.first().map(|(at, _)| *at)
    }
}

/// Moves the first of `all`, one at least, until they cost `most` together; each costs one and what `cost` says, which
/// need not count further than it is told.
fn take(
    all: &mut BTreeSet<String>,
    to: &mut BTreeSet<String>,
    most: usize,
    cost: impl Fn(&str, usize) -> usize,
) {
    let mut left = most.max(1);
    while left > 0
        && let Some(id) = all.pop_first()
    {
        left = left.saturating_sub(1 + cost(&id, left));
        to.insert(id);
    }
    if bugs::active(Bug::LookAtTheFirst) {
        all.clear();
    }
}

fn insert(set: &mut BTreeSet<String>, id: &str) {
    if !set.contains(id) {
        set.insert(id.to_owned());
    }
}

fn keep(set: &mut BTreeSet<String>, id: &str, kept: bool) {
    if kept {
        insert(set, id);
    } else {
        set.remove(id);
    }
}

#[cfg(test)]
mod tests;
