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
        self.nodes = state.nodes_with_tasks().map(str::to_owned).collect();
        self.services = state.services_with_tasks().map(str::to_owned).collect();
        state.services.keys().for_each(|id| self.touch_service(state, id));
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

    pub(super) fn take_nodes(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.nodes)
    }

    pub(super) fn take_placed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.placed)
    }

    pub(super) fn take_services(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.services)
    }

    /// Whether there is something to rebalance.
    pub(super) fn take_moves(&mut self) -> bool {
        std::mem::take(&mut self.moves) && !self.rebalanced.is_empty()
    }

    pub(super) fn rebalanced(&self) -> BTreeSet<String> {
        self.rebalanced.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.services.is_empty() && !self.moves
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
