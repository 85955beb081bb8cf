//! What every node is told, kept in rows that follow the state's changes.
//!
//! [`Tables::update`] looks only at the objects that changed; a row that many nodes get is written
//! once. What is read for the first time, all of a cluster, is read a little at a time: [`Tables::follow`].
//! [`Tables::difference`] gives a node what changed in the rows that are its: those of the
//! networks it takes part in, and its own. The work is that of the change, not of the cluster's size.
mod backlog;
mod dependencies;
mod follow;
mod recent;
mod rows;
mod shelf;
mod tell;

use backlog::Backlog;
pub use follow::Touched;

use recent::Recent;
pub use shelf::{PACK, Written};
use shelf::{Shelf, write};
use shoal_model::{ALL_NODES, DependencyKind, PeerRow, Row, RowKey, docker::TaskSpec};
use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
pub use tell::{Delta, Subscriber};

/// The rows of a cluster at a version of its state.
///
/// `update` first; then `difference` for each node.
#[derive(Debug, Default)]
pub struct Tables {
    version: u64,
    /// Version at which all had been read anew. Who is further behind gets the whole.
    origin: u64,
    /// What is still to be looked at before there is anything to tell.
    backlog: Option<Backlog>,
    ingress: Option<String>,
    data_path_port: Option<u16>,
    nodes: BTreeMap<String, OfNode>,
    /// By id; [`ALL_NODES`] is the section of that name.
    networks: BTreeMap<String, OfNetwork>,
    services: BTreeMap<String, OfService>,
    tasks: BTreeMap<String, OfTask>,
    /// Networks that changed of late.
    recent: Recent,
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
    /// Version at which it last took part in another network, or in one less.
    moved: u64,
    /// Networks where others hear of a task here, and how many: it is their peer.
    heard_on: BTreeMap<String, usize>,
    /// What its peers know of it.
    peer: Option<PeerRow>,
    down: bool,
}

/// What is kept of a row that is written when it is told: enough to see whether it changed.
#[derive(Clone, Debug)]
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
    /// Nodes with a living task on it. None of [`ALL_NODES`].
    nodes: BTreeSet<String>,
}

impl OfNetwork {
    fn at(version: u64) -> OfNetwork {
        OfNetwork { shelf: Shelf::at(version), nodes: BTreeSet::new() }
    }
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

    /// Who balances to a task that is to stop, and since when nobody is told to.
    pub fn leaving(&self, task: &str) -> Leaving {
        // Before that a node may have had tables of another leader, with the task in them.
        let mut leaving = Leaving { generation: self.origin, nodes: BTreeSet::new() };
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

    fn node(&mut self, id: &str) -> &mut OfNode {
        let version = self.version;
        self.nodes.entry(id.to_owned()).or_insert_with(|| OfNode {
            shelf: Shelf::at(version),
            own: Shelf::at(version),
            needs: BTreeMap::new(),
            joined: BTreeMap::new(),
            moved: version,
            heard_on: BTreeMap::new(),
            peer: None,
            down: true,
        })
    }

    fn network(&mut self, id: &str) -> &mut OfNetwork {
        let version = self.version;
        self.networks.entry(id.to_owned()).or_insert_with(|| OfNetwork::at(version))
    }

    /// Forgets a node of which nothing is left.
    fn sweep_node(&mut self, id: &str) {
        let nothing = |n: &OfNode| {
            n.shelf.is_empty() && n.own.is_empty() && n.joined.is_empty() && n.heard_on.is_empty()
        };
        if self.nodes.get(id).is_some_and(nothing) {
            self.nodes.remove(id);
        }
    }

    /// Forgets a network of which nothing is left.
    fn sweep_network(&mut self, id: &str) {
        let nothing = |n: &OfNetwork| n.shelf.is_empty() && n.nodes.is_empty();
        if id != ALL_NODES && self.networks.get(id).is_some_and(nothing) {
            self.networks.remove(id);
        }
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

#[cfg(test)]
mod tests;
