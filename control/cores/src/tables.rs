//! What every node is told, kept in rows that follow the state's changes.
//!
//! [`Tables::update`] looks only at the objects that changed; a row that many nodes get is written
//! once. [`Tables::difference`] gives a node what changed in the rows that are its: those of
//! everybody, of the networks it takes part in, and its own. The work is that of the change, not of
//! the cluster's size.
mod dependencies;
mod shelf;

use crate::assignment::{
    alive, assigned, data_path_port, digest, heard, network, payload, serving,
};
pub use shelf::Written;
use shelf::{Shelf, write};
use shoal_model::{
    DependencyKind, MemberRow, NodeState, ObjectKind, PeerRow, Row, RowKey, Service, ServiceRow,
    State, Task,
    bugs::{self, Bug},
    docker::TaskSpec,
    needs,
};
use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

/// The rows of a cluster at a version of its state.
///
/// `update` first; then `difference` for each node.
#[derive(Debug, Default)]
pub struct Tables {
    version: u64,
    /// Version at which all was read anew. Who is further behind gets the whole.
    origin: u64,
    ingress: Option<String>,
    data_path_port: Option<u16>,
    peers: Shelf,
    nodes: BTreeMap<String, OfNode>,
    networks: BTreeMap<String, OfNetwork>,
    services: BTreeMap<String, OfService>,
    tasks: BTreeMap<String, OfTask>,
    /// Whom the present update concerns.
    concerned: Concerned,
}

#[derive(Debug, Default)]
struct Concerned {
    everybody: bool,
    nodes: BTreeSet<String>,
    /// Every node on it.
    networks: BTreeSet<String>,
}

#[derive(Debug)]
struct OfNode {
    /// About the node itself.
    shelf: Shelf,
    /// Its tasks, and what they use. A row has the task's whole specification and only one node gets
    /// it: it is written when it is told. So is a secret, so that it is not kept for each node.
    own: Shelf<Own>,
    /// Secrets and configs that tasks here use, and how many.
    needs: BTreeMap<Needed, usize>,
    /// Networks with a living task here, and how many.
    joined: BTreeMap<String, usize>,
    down: bool,
}

/// What is kept of a row that is written when it is told: enough to see whether it changed.
#[derive(Debug)]
enum Own {
    Task {
        digest: u64,
        spec: Arc<TaskSpec>,
    },
    /// It never does.
    Dependency,
}

impl PartialEq for Own {
    fn eq(&self, other: &Own) -> bool {
        match (self, other) {
            (Own::Task { digest, spec }, Own::Task { digest: other, spec: others }) => {
                digest == other && (Arc::ptr_eq(spec, others) || spec == others)
            }
            (Own::Dependency, Own::Dependency) => true,
            _ => false,
        }
    }
}

/// A secret or a config, by its id.
type Needed = (DependencyKind, String);

#[derive(Debug)]
struct OfNetwork {
    shelf: Shelf,
    /// Nodes with a living task on it.
    nodes: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct OfService {
    /// Networks it has a row on.
    networks: BTreeSet<String>,
    /// Networks its tasks have a row on, and how many.
    members: BTreeMap<String, usize>,
    /// What its tasks' nodes know of it.
    told: (String, BTreeMap<String, String>),
}

/// What a task was when it was looked at last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct OfTask {
    service: String,
    node: Option<String>,
    /// Networks it has a row on.
    heard: Vec<String>,
    /// Networks its node takes part in because of it.
    joined: Vec<String>,
    /// What its node must have because of it.
    needs: Vec<Needed>,
}

/// Objects [`Tables::update`] looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// Tasks.
    pub tasks: BTreeSet<String>,
    /// Nodes.
    pub nodes: BTreeSet<String>,
    /// Whether it was all there is: what is not named is not there any more.
    pub all: bool,
    /// Nodes that may have something new to hear, of what concerns only some.
    pub concerned: BTreeSet<String>,
    /// Whether something concerns every node: another node, or what is published.
    pub everybody: bool,
}

/// A node and what it was told last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscriber {
    node: String,
    base: Option<u64>,
    joined: BTreeSet<String>,
    /// Sections it has of an earlier session, with their digests: networks by id, empty for the other
    /// nodes.
    known: BTreeMap<String, u64>,
}

impl Subscriber {
    /// A node that knows nothing yet.
    pub fn new(node: impl Into<String>) -> Subscriber {
        let (joined, known) = (BTreeSet::new(), BTreeMap::new());
        Subscriber { node: node.into(), base: None, joined, known }
    }

    /// What it has of an earlier session need not be told again, if it is still so.
    pub fn has(&mut self, known: BTreeMap<String, u64>) {
        self.known = known;
    }

    /// The node does not have what it was told: it gets the whole again.
    pub fn reset(&mut self) {
        self.base = None;
        self.known.clear();
    }
}

/// A difference with its rows as they are sent: [`shoal_model::Difference`], written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Delta {
    /// Generation it is to be applied to; `None`: it is the whole.
    pub base: Option<u64>,
    /// Generation it makes.
    pub generation: u64,
    /// Sections the node has already, of a whole.
    pub kept: Vec<String>,
    /// Rows to remove first.
    pub gone: Vec<RowKey>,
    /// Rows to put.
    pub rows: Vec<Written>,
}

/// Since when a task is no backend any more, and who has to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaving {
    /// Generation from which on no table has it as one.
    pub generation: u64,
    /// Nodes whose tables have it, except those that are down.
    pub nodes: BTreeSet<String>,
}

impl Tables {
    /// Version of the state they were made from.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Follows the state. Says what was looked at: all of it at first, and when too much changed.
    pub fn update(&mut self, state: &State) -> Touched {
        let mut touched = Touched::default();
        if self.version == state.version && self.origin != 0 {
            return touched;
        }
        let mut networks = BTreeSet::new();
        let mut services = BTreeSet::new();
        let mut dependencies = BTreeSet::new();
        let changes = state.touched_since(self.version).filter(|_| self.follows(state));
        match changes {
            Some(changes) => {
                for (kind, id) in changes {
                    let set = match kind {
                        ObjectKind::Task => &mut touched.tasks,
                        ObjectKind::Node => &mut touched.nodes,
                        ObjectKind::Service => &mut services,
                        ObjectKind::Network => &mut networks,
                        ObjectKind::Secret => {
                            dependencies.insert((DependencyKind::Secret, id.to_owned()));
                            continue;
                        }
                        ObjectKind::Config => {
                            dependencies.insert((DependencyKind::Config, id.to_owned()));
                            continue;
                        }
                        ObjectKind::Cluster => {
                            self.concerned.everybody = true;
                            continue;
                        }
                    };
                    set.insert(id.to_owned());
                }
                self.version = state.version;
            }
            None => {
                *self = Tables::at(state);
                self.concerned.everybody = true;
                touched.all = true;
                touched.tasks = state.tasks.keys().map(str::to_owned).collect();
                touched.nodes = state.nodes.keys().cloned().collect();
                services = state.services.keys().cloned().collect();
                networks = state.networks.keys().cloned().collect();
            }
        }
        let anew = self.origin == self.version;
        for id in &networks {
            self.touch_network(state, id, anew);
        }
        for id in &touched.nodes {
            self.touch_node(state, id);
        }
        let mut more = BTreeSet::new();
        for id in &services {
            self.touch_service(state, id, &mut more);
        }
        for id in &touched.tasks {
            self.touch_task(state, id);
            more.remove(id);
        }
        for id in &more {
            self.own_row(state, id);
        }
        for needed in &dependencies {
            self.touch_dependency(state, needed);
        }
        let concerned = mem::take(&mut self.concerned);
        let of_everybody = |id: &&String| self.ingress.as_ref() == Some(*id);
        touched.everybody =
            concerned.everybody || concerned.networks.iter().any(|id| of_everybody(&id));
        touched.concerned = concerned.nodes;
        let networks = concerned.networks.iter().filter(|id| !of_everybody(id));
        let networks = networks.filter_map(|id| self.networks.get(id));
        touched.concerned.extend(networks.flat_map(|on| &on.nodes).cloned());
        touched
    }

    /// Puts a row of something on a network, or takes it away. On one that was removed is nothing: nodes
    /// forget all of it with the network's own row.
    fn set_on_network(&mut self, id: &str, key: RowKey, row: Option<&Row>) {
        let there = |n: &OfNetwork| n.shelf.version_of(&RowKey::Network(id.to_owned())).is_some();
        let there = self.networks.get(id).is_some_and(there);
        self.set_of_network(id, key, row.filter(|_| there));
    }

    fn set_of_network(&mut self, id: &str, key: RowKey, row: Option<&Row>) {
        let version = self.version;
        if self.network(id).shelf.put(version, key, row.map(write)) {
            self.concern_network(id);
        }
    }

    fn concern_network(&mut self, id: &str) {
        if !self.concerned.networks.contains(id) {
            self.concerned.networks.insert(id.to_owned());
        }
    }

    fn concern_node(&mut self, id: &str) {
        if !self.concerned.nodes.contains(id) {
            self.concerned.nodes.insert(id.to_owned());
        }
    }

    fn at(state: &State) -> Tables {
        Tables {
            version: state.version,
            // A state of version 0 is empty; this is only about having read it.
            origin: state.version.max(1),
            ingress: state.ingress().map(|n| n.id.clone()),
            data_path_port: state.cluster.as_ref().map(|c| c.data_path_port),
            peers: Shelf::at(state.version),
            ..Tables::default()
        }
    }

    /// Whether what every row depends on is as it was.
    fn follows(&self, state: &State) -> bool {
        self.origin != 0
            && self.ingress.as_deref() == state.ingress().map(|n| n.id.as_str())
            && self.data_path_port == state.cluster.as_ref().map(|c| c.data_path_port)
    }

    /// What a node is to be told now; `None` when it knows all, or is not in the cluster. It counts
    /// as told. `state` is where the node's own tasks are read: the one followed last, or a later one
    /// (which says of them what the node is told anyway, a moment later).
    pub fn difference(&self, state: &State, to: &mut Subscriber) -> Option<Delta> {
        if to.base == Some(self.version) {
            return None;
        }
        let present = |n: &&OfNode| n.shelf.version_of(&RowKey::Node).is_some();
        let Some(own) = self.nodes.get(&to.node).filter(present) else {
            to.reset(); // should it be there again, it gets the whole
            return None;
        };
        let changed = |base| self.changed(state, to, own, base);
        let part = to.base.filter(|base| *base >= self.origin).and_then(changed);
        let delta = match part {
            Some(part) if part.gone.is_empty() && part.rows.is_empty() => return None,
            Some(part) => part,
            None => self.whole(state, to, own),
        };
        to.base = Some(self.version);
        to.known.clear();
        if !to.joined.iter().eq(self.joined_by(own)) {
            to.joined = self.joined_by(own).cloned().collect();
        }
        Some(delta)
    }

    /// Networks a node takes part in, in order: those of its tasks, and the routing mesh's.
    fn joined_by<'a>(&'a self, own: &'a OfNode) -> impl Iterator<Item = &'a String> {
        let ingress = self.ingress.as_ref().filter(|id| !own.joined.contains_key(*id));
        let before = move |id: &&String| ingress.is_none_or(|ingress| *id < ingress);
        let (first, rest) = (own.joined.keys(), own.joined.keys());
        let others = self.networks.keys().filter(|_| bugs::active(Bug::TellAllNetworks));
        first.take_while(before).chain(ingress).chain(rest.skip_while(before)).chain(others)
    }

    fn joins(&self, own: &OfNode, network: &String) -> bool {
        own.joined.contains_key(network)
            || self.ingress.as_ref() == Some(network)
            || bugs::active(Bug::TellAllNetworks)
    }

    fn whole(&self, state: &State, to: &Subscriber, own: &OfNode) -> Delta {
        let mut delta = Delta { generation: self.version, ..Delta::default() };
        delta.rows.extend(own.shelf.all().map(|(_, row)| row.clone()));
        let left_out = |key: &RowKey| {
            bugs::active(Bug::KeepBackSecrets)
                && !to.known.is_empty()
                && matches!(key, RowKey::Dependency(..))
        };
        let own_rows = own.own.all().filter(|(key, _)| !left_out(key));
        delta.rows.extend(own_rows.filter_map(|(key, _)| own_row(state, key)));
        let myself = RowKey::Peer(to.node.clone());
        if to.known.get("") == Some(&self.peers.digest_without(&myself)) {
            delta.kept.push(String::new());
        } else {
            let peers = self.peers.all().filter(|(key, _)| **key != myself);
            delta.rows.extend(peers.map(|(_, row)| row.clone()));
        }
        for id in self.joined_by(own) {
            let Some(network) = self.networks.get(id) else { continue };
            if to.known.get(id) == Some(&network.shelf.digest()) {
                delta.kept.push(id.clone());
            } else {
                delta.rows.extend(network.shelf.all().map(|(_, row)| row.clone()));
            }
        }
        delta
    }

    /// `None` when a shelf all nodes have, or the node's own, does not remember enough.
    fn changed(&self, state: &State, to: &Subscriber, own: &OfNode, base: u64) -> Option<Delta> {
        let mut delta = Delta { base: Some(base), generation: self.version, ..Delta::default() };
        let left = to.joined.iter().filter(|id| !self.joins(own, id));
        delta.gone.extend(left.cloned().map(RowKey::Network));
        let put = |changed: Vec<(&RowKey, Option<&Written>)>, delta: &mut Delta| {
            for (key, row) in changed.into_iter().filter(|(key, _)| !is_self(key, &to.node)) {
                match row {
                    Some(row) => delta.rows.push(row.clone()),
                    None => delta.gone.push(key.clone()),
                }
            }
        };
        put(self.peers.since(base)?, &mut delta);
        put(own.shelf.since(base)?, &mut delta);
        for (key, row) in own.own.since(base)? {
            match row {
                Some(_) => delta.rows.extend(own_row(state, key)),
                None => delta.gone.push(key.clone()),
            }
        }
        for id in self.joined_by(own) {
            let Some(network) = self.networks.get(id) else {
                if to.joined.contains(id) {
                    delta.gone.push(RowKey::Network(id.clone()));
                }
                continue;
            };
            match network.shelf.since(base).filter(|_| to.joined.contains(id)) {
                Some(changed) => put(changed, &mut delta),
                None => {
                    if to.joined.contains(id) {
                        delta.gone.push(RowKey::Network(id.clone()));
                    }
                    delta.rows.extend(network.shelf.all().map(|(_, row)| row.clone()));
                }
            }
        }
        Some(delta)
    }

    /// Who balances to a task that is to stop, and since when nobody is told to.
    pub fn leaving(&self, task: &str) -> Leaving {
        let mut leaving = Leaving { generation: 0, nodes: BTreeSet::new() };
        let Some(known) = self.tasks.get(task) else { return leaving };
        for id in &known.heard {
            let Some(network) = self.networks.get(id) else { continue };
            let key = RowKey::Member { network: id.clone(), task: task.to_owned() };
            let version = network.shelf.version_of(&key).unwrap_or(0);
            leaving.generation = leaving.generation.max(version);
            if self.ingress.as_ref() == Some(id) {
                leaving.nodes.extend(self.nodes.keys().cloned());
            } else {
                leaving.nodes.extend(network.nodes.iter().cloned());
            }
        }
        leaving.nodes.retain(|id| self.nodes.get(id).is_some_and(|node| !node.down));
        leaving
    }

    fn touch_network(&mut self, state: &State, id: &str, anew: bool) {
        let present = state.networks.get(id);
        let row = present.map(network).map(Row::Network);
        self.set_of_network(id, RowKey::Network(id.to_owned()), row.as_ref());
        if present.is_none() {
            let on_it = self.networks.get(id).into_iter().flat_map(|n| n.shelf.all());
            let on_it: Vec<RowKey> = on_it.map(|(key, _)| key.clone()).collect();
            for key in on_it {
                self.set_of_network(id, key, None);
            }
        }
        self.sweep_network(id);
        if anew {
            return; // all tasks are looked at anyway
        }
        // Networks change seldom, most when they are made and nobody is on them.
        let on_it = |task: &&Task| task.networks.iter().any(|at| at.network_id == id);
        let on_it: Vec<&str> =
            state.tasks.values().filter(on_it).map(|task| task.id.as_str()).collect();
        for task in on_it {
            self.own_row(state, task);
        }
    }

    fn touch_node(&mut self, state: &State, id: &str) {
        let version = self.version;
        let present = state.nodes.get(id);
        let peer = present.and_then(|node| {
            Some(Row::Peer(PeerRow {
                node_id: node.id.clone(),
                hostname: node.hostname().to_owned(),
                public_key: node.overlay.public_key.clone()?,
                endpoint: node.overlay.endpoint?,
                overlay: node.overlay.address?,
            }))
        });
        let peer = peer.as_ref().map(write);
        self.concerned.everybody |= self.peers.put(version, RowKey::Peer(id.to_owned()), peer);
        // Its role or state may be another, too.
        self.concern_node(id);
        let row = present.map(|node| Row::Node {
            overlay: node.overlay.address,
            data_path_port: data_path_port(state, node),
        });
        let own = self.node(id);
        // One that never said hello has no data plane yet.
        own.down = present.is_none_or(|node| {
            node.status.state == NodeState::Down || node.overlay.public_key.is_none()
        });
        own.shelf.put(version, RowKey::Node, row.as_ref().map(write));
        self.sweep_node(id);
    }

    fn touch_service(&mut self, state: &State, id: &str, tasks: &mut BTreeSet<String>) {
        let present = state.services.get(id);
        let told = present.map(|s| {
            let labels = s.spec.labels.clone().unwrap_or_default();
            (s.name().to_owned(), labels.into_iter().collect())
        });
        let known = self.services.entry(id.to_owned()).or_default();
        if told.as_ref() != Some(&known.told) {
            known.told = told.unwrap_or_default();
            tasks.extend(state.tasks_of_service(id).map(|task| task.id.clone()));
        }
        self.service_rows(present, id);
    }

    /// Rows of a service on all networks it is on.
    fn service_rows(&mut self, present: Option<&Service>, id: &str) {
        let Some(known) = self.services.get(id) else { return };
        let endpoint = present.and_then(|s| s.endpoint.as_ref());
        let vips = endpoint.map(|e| e.vips.as_slice()).unwrap_or_default();
        let ports = endpoint.map(|e| e.ports.as_slice()).unwrap_or_default();
        let mut on: BTreeSet<String> = BTreeSet::new();
        if present.is_some() {
            on.extend(vips.iter().map(|vip| vip.network_id.clone()));
            on.extend(known.members.keys().cloned());
            on.extend(self.ingress.clone().filter(|_| !ports.is_empty()));
        }
        let before = known.networks.clone();
        for network in before.union(&on) {
            let row = present.filter(|_| on.contains(network)).map(|service| {
                Row::Service(ServiceRow {
                    network_id: network.clone(),
                    id: id.to_owned(),
                    name: service.name().to_owned(),
                    ports: ports.to_vec(),
                    vip: vips.iter().find(|vip| vip.network_id == *network).cloned(),
                })
            });
            let key = RowKey::Service { network: network.clone(), service: id.to_owned() };
            self.set_on_network(network, key, row.as_ref());
            self.sweep_network(network);
        }
        match self.services.get_mut(id) {
            Some(known) if present.is_some() || !known.members.is_empty() => known.networks = on,
            _ => drop(self.services.remove(id)),
        }
    }

    fn touch_task(&mut self, state: &State, id: &str) {
        let present = state.tasks.get(id);
        let before = self.tasks.get(id).cloned().unwrap_or_default();
        let now = present.map(of_task).unwrap_or_default();
        self.member_rows(present, id, &before, &now);
        self.members(state, &before, &now);
        self.joined(&before, &now);
        self.needed(state, &before, &now);
        if before.node != now.node
            && let Some(node) = &before.node
        {
            let version = self.version;
            self.node(node).own.set(version, RowKey::Task(id.to_owned()), None);
            self.concern_node(node);
        }
        match present {
            Some(_) => drop(self.tasks.insert(id.to_owned(), now)),
            None => drop(self.tasks.remove(id)),
        }
        self.own_row(state, id);
        before.node.iter().for_each(|node| self.sweep_node(node));
    }

    fn member_rows(&mut self, present: Option<&Task>, id: &str, before: &OfTask, now: &OfTask) {
        let networks: BTreeSet<&String> = before.heard.iter().chain(&now.heard).collect();
        for network in networks {
            let at = present
                .filter(|_| now.heard.contains(network))
                .and_then(|task| task.networks.iter().find(|at| at.network_id == *network));
            let row = present.zip(at).map(|(task, at)| {
                Row::Member(MemberRow {
                    service_id: task.service_id.clone(),
                    id: task.id.clone(),
                    name: task.name.clone(),
                    slot: task.slot,
                    node_id: task.node_id.clone().unwrap_or_default(),
                    serving: serving(task),
                    at: at.clone(),
                })
            });
            let key = RowKey::Member { network: network.clone(), task: id.to_owned() };
            self.set_on_network(network, key, row.as_ref());
            self.sweep_network(network);
        }
    }

    /// Counts where a service has tasks; its rows follow when that changes.
    fn members(&mut self, state: &State, before: &OfTask, now: &OfTask) {
        let mut changed: BTreeSet<&String> = BTreeSet::new();
        for network in &now.heard {
            let service = self.services.entry(now.service.clone()).or_default();
            let count = service.members.entry(network.clone()).or_default();
            *count += 1;
            if *count == 1 {
                changed.insert(&now.service);
            }
        }
        for network in &before.heard {
            let Some(service) = self.services.get_mut(&before.service) else { continue };
            if one_less(&mut service.members, network) {
                changed.insert(&before.service);
            }
        }
        for service in changed {
            self.service_rows(state.services.get(service), service);
        }
    }

    /// Counts where a node takes part.
    fn joined(&mut self, before: &OfTask, now: &OfTask) {
        if let Some(node) = &now.node {
            for network in &now.joined {
                *self.node(node).joined.entry(network.clone()).or_default() += 1;
                if self.network(network).nodes.insert(node.clone()) {
                    self.concern_node(node);
                }
            }
        }
        if let Some(node) = &before.node {
            for network in &before.joined {
                if one_less(&mut self.node(node).joined, network) {
                    self.network(network).nodes.remove(node);
                    self.concern_node(node);
                    self.sweep_network(network);
                }
            }
        }
    }

    /// The row a task's own node has of it.
    fn own_row(&mut self, state: &State, id: &str) {
        let Some(task) = state.tasks.get(id).filter(|task| task.is_assigned()) else { return };
        let Some(node) = &task.node_id else { return };
        let row = Own::Task { digest: digest(state, task), spec: Arc::clone(&task.spec) };
        let version = self.version;
        if self.node(node).own.set(version, RowKey::Task(id.to_owned()), Some(row)) {
            self.concern_node(node);
        }
    }

    fn node(&mut self, id: &str) -> &mut OfNode {
        let version = self.version;
        self.nodes.entry(id.to_owned()).or_insert_with(|| OfNode {
            shelf: Shelf::at(version),
            own: Shelf::at(version),
            needs: BTreeMap::new(),
            joined: BTreeMap::new(),
            down: true,
        })
    }

    fn network(&mut self, id: &str) -> &mut OfNetwork {
        let version = self.version;
        self.networks
            .entry(id.to_owned())
            .or_insert_with(|| OfNetwork { shelf: Shelf::at(version), nodes: BTreeSet::new() })
    }

    /// Forgets a node of which nothing is left.
    fn sweep_node(&mut self, id: &str) {
        let nothing = |n: &OfNode| n.shelf.is_empty() && n.own.is_empty() && n.joined.is_empty();
        if self.nodes.get(id).is_some_and(nothing) {
            self.nodes.remove(id);
        }
    }

    /// Forgets a network of which nothing is left.
    fn sweep_network(&mut self, id: &str) {
        if self.networks.get(id).is_some_and(|n| n.shelf.is_empty() && n.nodes.is_empty()) {
            self.networks.remove(id);
        }
    }
}

fn of_task(task: &Task) -> OfTask {
    let networks = |really| -> Vec<String> {
        let all: BTreeSet<&String> =
            task.networks.iter().filter(|_| really).map(|at| &at.network_id).collect();
        all.into_iter().cloned().collect()
    };
    OfTask {
        service: task.service_id.clone(),
        node: task.node_id.clone().filter(|_| task.is_assigned()),
        heard: networks(heard(task)),
        joined: networks(alive(task)),
        needs: needs(task).map(|(kind, id)| (kind, id.to_owned())).collect(),
    }
}

/// Takes one off a count; whether it was the last.
fn one_less<K, Q>(counts: &mut BTreeMap<K, usize>, key: &Q) -> bool
where
    K: Borrow<Q> + Ord,
    Q: Ord + ?Sized,
{
    let Some(count) = counts.get_mut(key) else { return false };
    *count = count.saturating_sub(1);
    let last = *count == 0;
    if last {
        counts.remove(key);
    }
    last
}

/// A row that only its node gets. `None` when what it is about is gone already, which is told next.
fn own_row(state: &State, key: &RowKey) -> Option<Written> {
    let row = match key {
        RowKey::Task(id) => Row::Task(Box::new(assigned(state, state.tasks.get(id)?))),
        RowKey::Dependency(kind, id) => Row::Dependency(Arc::new(payload(state, *kind, id)?)),
        _ => return None,
    };
    Some(write(&row))
}

/// A node is no peer of its own.
fn is_self(key: &RowKey, node: &str) -> bool {
    matches!(key, RowKey::Peer(peer) if peer == node)
}

#[cfg(test)]
mod tests;
