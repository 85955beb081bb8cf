//! What the manager tells a node: its tasks and the table its data plane works from.
use crate::{
    dependency::Payload,
    objects::{NetAddresses, Network},
    task::{PublishedPort, Task},
};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// Everything a node must do and know. A whole set: what is missing is to be ended or forgotten.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct NodeAssignment {
    /// Version of the state it was made from. An older one is refused.
    pub generation: u64,
    /// Tasks of this node: wanted, not yet ended, or kept as history.
    pub tasks: Vec<AssignedTask>,
    /// Secrets and configs its tasks use. Never written out: secrets are kept in memory alone.
    #[serde(skip)]
    pub dependencies: Vec<Arc<Payload>>,
    /// For the data plane and DNS.
    pub table: NodeTable,
}

/// A task and what its node must know to run it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AssignedTask {
    /// The task.
    pub task: Task,
    /// Name of its service.
    pub service_name: String,
    /// Labels of its service.
    pub service_labels: BTreeMap<String, String>,
    /// Networks it is attached to, as its addresses name them.
    pub networks: Vec<Network>,
}

/// Services, names and peers of the networks a node takes part in.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeTable {
    /// The node's own overlay address. `None` until allocated.
    pub overlay: Option<Ipv4Addr>,
    /// UDP port of the overlay on this node.
    pub data_path_port: u16,
    /// Networks with a task on this node, and the ingress network.
    pub networks: Vec<TableNetwork>,
    /// The other nodes.
    pub peers: Vec<TablePeer>,
    /// Services with a VIP or a task on one of these networks, and all with published ports.
    pub services: Vec<TableService>,
}

/// A network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableNetwork {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Whether it is the routing mesh's.
    pub ingress: bool,
    /// Whether containers on it must not reach the outside.
    pub internal: bool,
    /// IPv4 subnet; the first host address is the gateway's.
    pub subnet: Ipv4Network,
    /// IPv6 subnet, if any.
    pub subnet6: Option<Ipv6Network>,
}

/// Another node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TablePeer {
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
    /// Source addresses it may use: its overlay address and those of its tasks.
    pub allowed_ips: Vec<IpNetwork>,
}

/// A service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableService {
    /// Id.
    pub id: String,
    /// Name, which DNS answers.
    pub name: String,
    /// Virtual addresses on the node's networks (with aliases); empty with `dnsrr`.
    pub vips: Vec<NetAddresses>,
    /// Published ports.
    pub ports: Vec<PublishedPort>,
    /// Its tasks that have a node; those that ended while history keeps them.
    pub tasks: Vec<TableTask>,
}

/// A task of a service, anywhere.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableTask {
    /// Id.
    pub id: String,
    /// Container name, `service.slot.id`.
    pub name: String,
    /// Slot.
    pub slot: u64,
    /// Node it runs on.
    pub node_id: String,
    /// Whether it is a backend: running, healthy and not told to stop.
    pub serving: bool,
    /// Its addresses on the node's networks (all when published).
    pub networks: Vec<NetAddresses>,
}
