//! How the tables follow a state: what changed, or all of it, a little at a time.
use super::{Backlog, Concerned, Needed, OfNetwork, Recent, Tables};
use shoal_model::{
    ALL_NODES, DependencyKind, ObjectKind, State,
    bugs::{self, Bug},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

/// Objects [`Tables::follow`] looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// Tasks; none when it was all there is.
    pub tasks: BTreeSet<String>,
    /// Nodes; none when it was all there is.
    pub nodes: BTreeSet<String>,
    /// Whether it was all there is.
    pub all: bool,
    /// Nodes that may have something new to hear, of what concerns only some.
    pub concerned: BTreeSet<String>,
    /// Whether something may concern every node: what is published, or another node while anything is.
    pub everybody: bool,
}

/// Objects that are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Changed {
    networks: BTreeSet<String>,
    nodes: BTreeSet<String>,
    services: BTreeSet<String>,
    tasks: BTreeSet<String>,
    dependencies: BTreeSet<Needed>,
    cluster: bool,
}

impl Changed {
    pub(super) fn note(&mut self, kind: ObjectKind, id: &str) {
        let set = match kind {
            ObjectKind::Task => &mut self.tasks,
            ObjectKind::Node => &mut self.nodes,
            ObjectKind::Service => &mut self.services,
            ObjectKind::Network => &mut self.networks,
            ObjectKind::Secret => return self.note_dependency(DependencyKind::Secret, id),
            ObjectKind::Config => return self.note_dependency(DependencyKind::Config, id),
            ObjectKind::Cluster => return self.cluster = true,
        };
        set.insert(id.to_owned());
    }

    fn note_dependency(&mut self, kind: DependencyKind, id: &str) {
        self.dependencies.insert((kind, id.to_owned()));
    }
}

impl Tables {
    /// Whether all is read: as long as it is not, nobody is told anything.
    pub fn is_complete(&self) -> bool {
        self.origin != 0 && self.backlog.is_none()
    }

    /// Follows the state. Says what was looked at: all of it at first, and when too much changed.
    pub fn update(&mut self, state: &State) -> Touched {
        self.follow(state, usize::MAX)
    }

    /// The same, but of what is to be read anew only so many objects are looked at. Until that is complete the answer is
    /// that nothing was touched, and it is to be called again, also when the state has not changed.
    pub fn follow(&mut self, state: &State, most: usize) -> Touched {
        if self.version == state.version && self.is_complete() {
            return Touched::default();
        }
        let changes = state.touched_since(self.version).filter(|_| self.follows(state));
        let Some(changes) = changes else {
            *self = Tables::at(state);
            return self.read_on(state, most);
        };
        let mut changed = Changed::default();
        for (kind, id) in changes {
            // What has its turn in the backlog yet is left to it.
            let has_begun = |backlog: &Backlog| {
                backlog.has_begun(kind) && !bugs::active(Bug::OverlookWhileReading)
            };
            if self.backlog.as_ref().is_none_or(has_begun) {
                changed.note(kind, id);
            }
        }
        self.version = state.version;
        let mut touched = self.touch(state, changed);
        if self.backlog.is_some() {
            return self.read_on(state, most);
        }
        let concerned = mem::take(&mut self.concerned);
        self.recent.add(self.version, &concerned.networks);
        // Those on the mesh are told all nodes. If any node is, many are.
        let mesh = self.ingress.as_ref().and_then(|id| self.networks.get(id));
        let meshed = mesh.is_some_and(|mesh| !mesh.nodes.is_empty());
        let of_everybody =
            |id: &&String| self.ingress.as_ref() == Some(*id) || meshed && id.as_str() == ALL_NODES;
        touched.everybody =
            concerned.everybody || concerned.networks.iter().any(|id| of_everybody(&id));
        touched.concerned = concerned.nodes;
        let networks = concerned.networks.iter().filter(|id| !of_everybody(id));
        let networks = networks.filter_map(|id| self.networks.get(id));
        touched.concerned.extend(networks.flat_map(|on| &on.nodes).cloned());
        touched
    }

    fn touch(&mut self, state: &State, changed: Changed) -> Touched {
        let Changed { networks, nodes, services, tasks, dependencies, cluster } = changed;
        self.concerned.everybody |= cluster;
        for id in &networks {
            self.touch_network(state, id);
        }
        for id in &nodes {
            self.touch_node(state, id);
        }
        let mut more = BTreeSet::new();
        for id in &services {
            self.touch_service(state, id, &mut more);
        }
        for id in &tasks {
            self.touch_task(state, id);
            more.remove(id);
        }
        for id in &more {
            self.own_row(state, id);
        }
        for needed in &dependencies {
            self.touch_dependency(state, needed);
        }
        Touched { tasks, nodes, ..Touched::default() }
    }

    /// Goes on with the backlog.
    fn read_on(&mut self, state: &State, most: usize) -> Touched {
        let Some(mut backlog) = self.backlog.take() else { return Touched::default() };
        let changed = backlog.next(state, most);
        self.touch(state, changed);
        if !backlog.is_done() {
            self.backlog = Some(backlog);
            return Touched::default();
        }
        self.origin = self.version.max(1);
        self.recent = Recent::at(self.version);
        self.concerned = Concerned::default();
        Touched { all: true, everybody: true, ..Touched::default() }
    }

    fn at(state: &State) -> Tables {
        Tables {
            version: state.version,
            // A state of version 0 is empty; this is only about having read it.
            origin: state.version.max(1),
            backlog: Some(Backlog::default()),
            ingress: state.ingress().map(|n| n.id.clone()),
            networks: BTreeMap::from([(ALL_NODES.to_owned(), OfNetwork::at(state.version))]),
            recent: Recent::at(state.version),
            data_path_port: state.cluster.as_ref().map(|c| c.data_path_port),
            ..Tables::default()
        }
    }

    /// Whether what every row depends on is as it was.
    fn follows(&self, state: &State) -> bool {
        self.origin != 0
            && self.ingress.as_deref() == state.ingress().map(|n| n.id.as_str())
            && self.data_path_port == state.cluster.as_ref().map(|c| c.data_path_port)
    }
}
