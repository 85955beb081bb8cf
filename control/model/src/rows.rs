//! An assignment in rows, so that what changed can be told alone.
//!
//! Each row belongs to a node (its own settings and tasks) or to a section that many nodes are told
//! alike: a network (services and tasks there, and the nodes that have them), or all nodes. The manager
//! keeps the rows of a section once, for all that are told it; a node puts its [`NodeAssignment`]
//! together from the rows it was told.
mod wire;

use crate::{
    assignment::{
        AssignedTask, NodeAssignment, NodeTable, TableNetwork, TablePeer, TableService, TableTask,
    },
    dependency::{DependencyKind, Payload},
    objects::NetAddresses,
    task::PublishedPort,
};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hasher as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};
pub use wire::UnreadableRow;

/// What a row is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum RowKey {
    /// The node itself.
    Node,
    /// A node as a peer of the others.
    Peer {
        /// Network it has tasks on, by id; [`ALL_NODES`] for the section of that name.
        network: String,
        /// Node id.
        node: String,
    },
    /// A network, by id. Gone with everything on it. [`ALL_NODES`]: that section.
    Network(String),
    /// A service on a network.
    Service {
        /// Network id.
        network: String,
        /// Service id.
        service: String,
    },
    /// A task on a network.
    Member {
        /// Network id.
        network: String,
        /// Task id.
        task: String,
    },
    /// A task of the node, by id.
    Task(String),
    /// A secret or a config that tasks of the node use, by id.
    Dependency(DependencyKind, String),
}

/// A row.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Row {
    /// The node itself.
    Node {
        /// Its own overlay address. `None` until allocated.
        overlay: Option<Ipv4Addr>,
        /// UDP port of the overlay on this node.
        data_path_port: u16,
    },
    /// A node as a peer of the others.
    Peer(PeerRow),
    /// A network.
    Network(TableNetwork),
    /// A service on a network.
    Service(ServiceRow),
    /// A task on a network.
    Member(MemberRow),
    /// A task of the node.
    Task(Box<AssignedTask>),
    /// A secret or a config that tasks of the node use.
    Dependency(Arc<Payload>),
}

/// The section of all nodes. Told to those that any node may send to: they have tasks on the routing
/// mesh's network.
pub const ALL_NODES: &str = "";

/// A node that has tasks on a network, or any. The addresses of its tasks are rows of their own. A node
/// is told its own row, too, so that all are told the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerRow {
    /// Network id, or [`ALL_NODES`].
    pub network_id: String,
    /// Id.
    pub node_id: String,
    /// Host name.
    pub hostname: String,
    /// WireGuard public key, base64.
    pub public_key: String,
    /// Where its WireGuard listens.
    pub endpoint: SocketAddr,
    /// Its overlay address.
    pub overlay: Ipv4Addr,
}

/// A service on a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Network id.
    pub network_id: String,
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Published ports, the same on every network.
    pub ports: Vec<PublishedPort>,
    /// Its virtual address on this network, if it has one.
    pub vip: Option<NetAddresses>,
}

/// A task on a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberRow {
    /// Service it belongs to, which may be gone.
    pub service_id: String,
    /// Id.
    pub id: String,
    /// Container name.
    pub name: String,
    /// Slot.
    pub slot: u64,
    /// Node it runs on.
    pub node_id: String,
    /// Whether it is a backend.
    pub serving: bool,
    /// Its addresses on this network.
    pub at: NetAddresses,
}

impl RowKey {
    /// The section it belongs to: a network's id, or [`ALL_NODES`]. `None`: it is of the node alone.
    pub fn section(&self) -> Option<&str> {
        match self {
            RowKey::Node | RowKey::Task(_) | RowKey::Dependency(..) => None,
            RowKey::Network(network)
            | RowKey::Peer { network, .. }
            | RowKey::Service { network, .. }
            | RowKey::Member { network, .. } => Some(network),
        }
    }
}

impl Row {
    /// What it is about.
    pub fn key(&self) -> RowKey {
        match self {
            Row::Node { .. } => RowKey::Node,
            Row::Peer(peer) => {
                RowKey::Peer { network: peer.network_id.clone(), node: peer.node_id.clone() }
            }
            Row::Network(network) => RowKey::Network(network.id.clone()),
            Row::Service(row) => {
                RowKey::Service { network: row.network_id.clone(), service: row.id.clone() }
            }
            Row::Member(row) => {
                RowKey::Member { network: row.at.network_id.clone(), task: row.id.clone() }
            }
            Row::Task(assigned) => RowKey::Task(assigned.task.id.clone()),
            Row::Dependency(payload) => RowKey::Dependency(payload.kind, payload.id.clone()),
        }
    }
}

/// A digest of a row as it is sent. That of many rows is the sum of theirs, so that it can follow
/// changes. It tells whether two sides have the same, and does not guard against either.
pub fn row_digest(written: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(written);
    hasher.finish()
}

/// What makes one assignment of a node out of another.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Difference {
    /// Generation it is to be applied to; `None`: to nothing, it is the whole.
    pub base: Option<u64>,
    /// Generation it makes.
    pub generation: u64,
    /// Sections that stay, of a whole. All else that was there is forgotten.
    pub kept: Vec<String>,
    /// Rows to remove, before the others are put.
    pub gone: Vec<RowKey>,
    /// Rows to put.
    pub rows: Vec<Row>,
}

/// A difference is for another generation than the one at hand: the whole must be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the difference is to generation {base}, but generation {present} is in force")]
pub struct WrongBase {
    /// Generation the difference is for.
    pub base: u64,
    /// Generation at hand.
    pub present: u64,
}

/// The rows a node was told.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rows {
    generation: u64,
    rows: BTreeMap<RowKey, Row>,
}

impl Rows {
    /// Takes a difference in, whole or not at all.
    ///
    /// # Errors
    /// When it is for another generation.
    pub fn apply(&mut self, difference: Difference) -> Result<(), WrongBase> {
        let kept: BTreeSet<&str> = difference.kept.iter().map(String::as_str).collect();
        match difference.base {
            None => self.rows.retain(|key, _| key.section().is_some_and(|s| kept.contains(s))),
            Some(base) if base == self.generation => {}
            Some(base) => return Err(WrongBase { base, present: self.generation }),
        }
        self.generation = difference.generation;
        for key in difference.gone {
            self.remove(&key);
        }
        for row in difference.rows {
            self.rows.insert(row.key(), row);
        }
        Ok(())
    }

    fn remove(&mut self, key: &RowKey) {
        self.rows.remove(key);
        if let RowKey::Network(gone) = key {
            self.rows.retain(|key, _| key.section() != Some(gone));
        }
    }

    /// Digests of the sections there are: of rows that are told to many nodes alike.
    pub fn sections(&self) -> BTreeMap<&str, u64> {
        let mut sections: BTreeMap<&str, u64> = BTreeMap::new();
        for (key, row) in &self.rows {
            let Some(section) = key.section() else { continue };
            let sum = sections.entry(section).or_default();
            // The same bytes as those that were sent, if the other side's version is this one.
            *sum = sum.wrapping_add(row_digest(&row.write()));
        }
        sections
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The assignment they form: everything in order of ids.
    pub fn assignment(&self) -> NodeAssignment {
        let mut table = NodeTable::default();
        let (mut tasks, mut dependencies) = (Vec::new(), Vec::new());
        let mut services: BTreeMap<&str, TableService> = BTreeMap::new();
        let mut members: BTreeMap<&str, (&str, TableTask)> = BTreeMap::new();
        let mut peers: BTreeMap<&str, TablePeer> = BTreeMap::new();
        for row in self.rows.values() {
            match row {
                Row::Node { overlay, data_path_port } => {
                    table.overlay = *overlay;
                    table.data_path_port = *data_path_port;
                }
                Row::Peer(peer) => {
                    peers.entry(&peer.node_id).or_insert_with(|| of_peer(peer));
                }
                Row::Network(network) => table.networks.push(network.clone()),
                Row::Service(row) => {
                    let service = services.entry(&row.id).or_insert_with(|| TableService {
                        id: row.id.clone(),
                        name: row.name.clone(),
                        vips: Vec::new(),
                        ports: row.ports.clone(),
                        tasks: Vec::new(),
                    });
                    service.vips.extend(row.vip.clone());
                }
                Row::Member(row) => {
                    let member = members.entry(&row.id).or_insert_with(|| {
                        let task = TableTask {
                            id: row.id.clone(),
                            name: row.name.clone(),
                            slot: row.slot,
                            node_id: row.node_id.clone(),
                            serving: row.serving,
                            networks: Vec::new(),
                        };
                        (&row.service_id, task)
                    });
                    member.1.networks.push(row.at.clone());
                }
                Row::Task(task) => tasks.push((**task).clone()),
                Row::Dependency(payload) => dependencies.push(Arc::clone(payload)),
            }
        }
        peers.retain(|_, peer| Some(peer.overlay) != table.overlay); // itself
        for (service, task) in members.into_values() {
            if let Some(peer) = peers.get_mut(task.node_id.as_str()) {
                peer.allowed_ips.extend(task.networks.iter().flat_map(sources));
            }
            // Of a service that is gone, only the way back from its tasks is left.
            if let Some(service) = services.get_mut(service) {
                service.tasks.push(task);
            }
        }
        table.services = services.into_values().collect();
        table.peers = peers.into_values().collect();
        NodeAssignment { generation: self.generation, tasks, dependencies, table }
    }
}

fn of_peer(peer: &PeerRow) -> TablePeer {
    TablePeer {
        node_id: peer.node_id.clone(),
        hostname: peer.hostname.clone(),
        public_key: peer.public_key.clone(),
        endpoint: peer.endpoint,
        overlay: peer.overlay,
        allowed_ips: vec![IpNetwork::from(IpAddr::from(peer.overlay))],
    }
}

/// Addresses of a task, as sources its node may use.
fn sources(at: &NetAddresses) -> impl Iterator<Item = IpNetwork> + use<> {
    let v4 = IpNetwork::from(IpAddr::from(at.v4));
    std::iter::once(v4).chain(at.v6.map(|v6| IpNetwork::from(IpAddr::from(v6))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(network: &str, task: &str, node: &str) -> Row {
        Row::Member(MemberRow {
            service_id: "s".into(),
            id: task.into(),
            name: format!("web.1.{task}"),
            slot: 1,
            node_id: node.into(),
            serving: true,
            at: NetAddresses {
                network_id: network.into(),
                v4: [10, 0, 1, 7].into(),
                v6: None,
                aliases: vec![],
            },
        })
    }

    fn service(network: &str) -> Row {
        Row::Service(ServiceRow {
            network_id: network.into(),
            id: "s".into(),
            name: "web".into(),
            ports: vec![],
            vip: None,
        })
    }

    fn whole(generation: u64, rows: Vec<Row>) -> Difference {
        Difference { base: None, generation, gone: vec![], rows, kept: vec![] }
    }

    #[test]
    fn rows_of_a_task_on_two_networks_are_one_task_and_its_nodes_sources() {
        let peer = |network: &str, node: &str, host: u8| {
            Row::Peer(PeerRow {
                network_id: network.into(),
                node_id: node.into(),
                hostname: "h".into(),
                public_key: "k".into(),
                endpoint: "192.0.2.1:1".parse().unwrap(),
                overlay: [10, 0, 0, host].into(),
            })
        };
        let own = Row::Node { overlay: Some([10, 0, 0, 1].into()), data_path_port: 7 };
        let mut all = vec![own, peer("a", "n1", 1), peer("a", "n2", 2), peer("b", "n2", 2)];
        all.extend(["a", "b"].map(service));
        all.extend(["a", "b"].map(|network| member(network, "t", "n2")));
        let mut rows = Rows::default();
        rows.apply(whole(3, all)).unwrap();
        let table = rows.assignment().table;
        assert_eq!(table.services.len(), 1);
        assert_eq!(table.services[0].tasks[0].networks.len(), 2);
        let peers: Vec<&str> = table.peers.iter().map(|peer| peer.node_id.as_str()).collect();
        assert_eq!(peers, ["n2"], "once, and not the node itself");
        assert_eq!(table.peers[0].allowed_ips.len(), 3);
    }

    #[test]
    fn a_network_goes_with_everything_on_it() {
        let mut rows = Rows::default();
        rows.apply(whole(3, vec![service("a"), service("b"), member("a", "t", "n")])).unwrap();
        let gone = vec![RowKey::Network("a".into())];
        let gone = Difference { base: Some(3), generation: 4, gone, ..Difference::default() };
        rows.apply(gone).unwrap();
        assert_eq!(rows.len(), 1);
    }

    #[test]
    fn a_whole_keeps_the_sections_it_names_and_forgets_the_rest() {
        let mut rows = Rows::default();
        rows.apply(whole(3, vec![service("a"), service("b"), member("b", "t", "n")])).unwrap();
        let before: BTreeMap<String, u64> =
            rows.sections().into_iter().map(|(name, sum)| (name.to_owned(), sum)).collect();
        assert_eq!(before.keys().collect::<Vec<_>>(), ["a", "b"]);
        let kept = vec!["b".to_owned()];
        rows.apply(Difference { kept, ..whole(9, vec![service("c")]) }).unwrap();
        let after = rows.sections();
        assert_eq!(after.keys().collect::<Vec<_>>(), [&"b", &"c"]);
        assert_eq!(after["b"], before["b"]);
        assert_eq!(rows.generation, 9);
    }

    #[test]
    fn a_section_s_digest_is_that_of_its_rows_as_they_are_sent() {
        let mut rows = Rows::default();
        let all = vec![member("a", "t", "n"), service("a")];
        let written: Vec<Vec<u8>> = all.iter().map(Row::write).collect();
        rows.apply(whole(3, all)).unwrap();
        let sum = row_digest(&written[0]).wrapping_add(row_digest(&written[1]));
        assert_eq!(rows.sections(), BTreeMap::from([("a", sum)]));
    }

    #[test]
    fn a_difference_to_another_generation_changes_nothing() {
        let mut rows = Rows::default();
        rows.apply(whole(3, vec![service("a")])).unwrap();
        let late = Difference { base: Some(2), generation: 5, ..Difference::default() };
        assert_eq!(rows.apply(late), Err(WrongBase { base: 2, present: 3 }));
        assert_eq!((rows.generation, rows.len()), (3, 1));
    }
}
