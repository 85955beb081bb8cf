//! What a node is told of the rows: all of them, or what changed since it was told last.
use super::{OfNode, Tables, Written, shelf::write};
use crate::assignment::{assigned, payload};
use shoal_model::{
    ALL_NODES, Row, RowKey, State,
    bugs::{self, Bug},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A node and what it was told last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscriber {
    node: String,
    base: Option<u64>,
    /// Since then, up to this version, there was nothing to tell.
    seen: u64,
    joined: BTreeSet<String>,
    /// Sections it has of an earlier session, with their digests.
    known: BTreeMap<String, u64>,
}

impl Subscriber {
    /// A node that knows nothing yet.
    pub fn new(node: impl Into<String>) -> Subscriber {
        let (joined, known) = (BTreeSet::new(), BTreeMap::new());
        Subscriber { node: node.into(), base: None, seen: 0, joined, known }
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
    /// Rows to put: one after another, each of them one or several.
    pub rows: Vec<Written>,
}

impl Tables {
    /// What a node is to be told now; `None` when it knows all, is not in the cluster, or the tables are not complete. It counts
    /// as told. `state` is where the node's own tasks are read: the one followed last, or a later one
    /// (which says of them what the node is told anyway, a moment later).
    pub fn difference(&self, state: &State, to: &mut Subscriber) -> Option<Delta> {
        if !self.is_complete() || to.base.map(|base| base.max(to.seen)) == Some(self.version) {
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
            Some(part) if part.gone.is_empty() && part.rows.is_empty() => {
                to.seen = self.version;
                return None;
            }
            Some(part) => part,
            None => self.whole(state, to, own),
        };
        let known = to.base.is_some_and(|base| base >= own.moved);
        if !known && !to.joined.iter().eq(self.joined_by(own)) {
            to.joined = self.joined_by(own).cloned().collect();
        }
        (to.base, to.seen) = (Some(self.version), self.version);
        to.known.clear();
        Some(delta)
    }

    /// Networks a node takes part in, in order: those of its tasks, and the routing mesh's. Before them
    /// [`ALL_NODES`], if any node may send to it.
    fn joined_by<'a>(&'a self, own: &'a OfNode) -> impl Iterator<Item = &'a String> {
        let ingress = self.ingress.as_ref().filter(|id| !own.joined.contains_key(*id));
        let before = move |id: &&String| ingress.is_none_or(|ingress| *id < ingress);
        let (first, rest) = (own.joined.keys(), own.joined.keys());
        let others = bugs::active(Bug::TellAllNetworks).then(|| self.networks.keys());
        let all_nodes = self.networks.get_key_value(ALL_NODES).map(|(key, _)| key);
        let all_nodes = all_nodes.filter(|_| self.is_meshed(own));
        let first = all_nodes.into_iter().chain(first);
        first
            .take_while(before)
            .chain(ingress)
            .chain(rest.skip_while(before))
            .chain(others.into_iter().flatten())
    }

    fn joins(&self, own: &OfNode, network: &String) -> bool {
        own.joined.contains_key(network)
            || network == ALL_NODES && self.is_meshed(own)
            || self.ingress.as_ref() == Some(network)
            || bugs::active(Bug::TellAllNetworks)
    }

    /// Whether a node has a living task on the routing mesh's network.
    fn is_meshed(&self, own: &OfNode) -> bool {
        self.ingress.as_ref().is_some_and(|id| own.joined.contains_key(id))
            || bugs::active(Bug::TellAllPeers)
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
        for id in self.joined_by(own) {
            let Some(network) = self.networks.get(id) else { continue };
            if to.known.get(id) == Some(&network.shelf.digest()) {
                delta.kept.push(id.clone());
            } else {
                delta.rows.extend_from_slice(network.shelf.packs());
            }
        }
        delta
    }

    /// `None` when one of the node's own shelves does not remember enough.
    fn changed(&self, state: &State, to: &Subscriber, own: &OfNode, base: u64) -> Option<Delta> {
        let mut delta = Delta { base: Some(base), generation: self.version, ..Delta::default() };
        let base = base.max(to.seen);
        let moved = own.moved > base;
        if moved {
            let left = to.joined.iter().filter(|id| !self.joins(own, id));
            delta.gone.extend(left.cloned().map(RowKey::Network));
        }
        let put = |changed: Vec<(&RowKey, Option<&Written>)>, delta: &mut Delta| {
            for (key, row) in changed {
                match row {
                    Some(row) => delta.rows.push(row.clone()),
                    None => delta.gone.push(key.clone()),
                }
            }
        };
        put(own.shelf.since(base)?, &mut delta);
        for (key, row) in own.own.since(base)? {
            match row {
                Some(_) => delta.rows.extend(own_row(state, key)),
                None => delta.gone.push(key.clone()),
            }
        }
        // A node may take part in hundreds of networks.
        let recent = self.recent.since(base, own.joined.len() + 1);
        let changed: Vec<&String> = match recent {
            Some(recent) => {
                let others = moved.then(|| self.joined_by(own)).into_iter().flatten();
                let others = others.filter(|id| !to.joined.contains(*id));
                let others: Vec<&String> = others.collect();
                let known = recent.into_iter().filter(|id| self.joins(own, id));
                known.filter(|id| !others.contains(id)).chain(others.iter().copied()).collect()
            }
            None => self.joined_by(own).collect(),
        };
        for id in changed {
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
                    delta.rows.extend_from_slice(network.shelf.packs());
                }
            }
        }
        Some(delta)
    }
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
