//! What goes over the control socket: one request, one reply, as JSON in length-delimited frames.
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use shoal_dns::NameTable;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};
use tokio_util::codec::LengthDelimitedCodec;

/// Bytes of one frame at most: a table of some ten thousand tasks.
const MAX_FRAME: usize = 64 << 20;

/// Everything the process works from.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct NetTable {
    /// Generation of the assignment it was made from; an older one is refused.
    pub generation: u64,
    /// The node's own overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// MTU of the overlay device, bytes.
    pub mtu: u32,
    /// The other nodes.
    pub peers: Vec<NetPeer>,
    /// Names by network.
    pub names: NameTable,
    /// Containers of this node to answer DNS in.
    pub endpoints: Vec<NetEndpoint>,
}

/// Another node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetPeer {
    /// Its host name, for metrics.
    pub hostname: String,
    /// WireGuard public key, base64.
    pub public_key: String,
    /// Where it listens.
    pub endpoint: SocketAddr,
    /// Addresses behind it.
    pub allowed_ips: Vec<IpNetwork>,
    /// Its own overlay address, at which it is asked whether it is there.
    #[serde(default)]
    pub overlay: Option<Ipv4Addr>,
}

/// A container's network namespace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetEndpoint {
    /// Task.
    pub task: String,
    /// File the namespace is mounted at.
    pub netns: PathBuf,
    /// Ids of the networks whose names it may ask, in order of preference.
    pub networks: Vec<String>,
}

/// State of the process.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct NetStatus {
    /// Its process id.
    pub pid: u32,
    /// The node's WireGuard public key, base64.
    pub public_key: String,
    /// Index of the overlay device.
    pub ifindex: u32,
    /// Generation it works from.
    pub generation: u64,
    /// The other nodes.
    pub peers: Vec<PeerReport>,
    /// Packets the engine dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// DNS questions answered.
    pub questions: u64,
    /// Of those, passed on to the host's resolvers.
    pub forwarded: u64,
    /// Containers that have no name server although they should, with the reason.
    pub failed_endpoints: BTreeMap<String, String>,
}

/// What the engine says of a peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerReport {
    /// WireGuard public key, base64.
    pub public_key: String,
    /// Host name, as the table says.
    pub hostname: String,
    /// Where packets for it go now.
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last completed handshake.
    pub last_handshake: Option<f64>,
    /// Completed handshakes.
    pub handshakes: u64,
    /// Bytes received, as UDP payload.
    pub rx_bytes: u64,
    /// Bytes sent, as UDP payload.
    pub tx_bytes: u64,
    /// Whether it was sent something and gave no sign of life for half a second.
    #[serde(default)]
    pub silent: bool,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    Apply(Box<NetTable>),
    Status,
    /// The silent peers (public keys), as soon as they are others than these, or after a while.
    Silent(BTreeSet<String>),
    Stop,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Status(Box<NetStatus>),
    Silent(BTreeSet<String>),
    Refused(String),
}

pub(crate) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_codec()
}
