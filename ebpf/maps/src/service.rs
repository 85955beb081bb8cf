//! Services: virtual addresses, backends, published ports, counters.
use crate::Address;

/// Map `VIPS` (hash, key [`Address`]): a service's address on one network.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Vip {
    /// Service.
    pub service: u64,
    /// Network; callers must be attached to it.
    pub network: u64,
    /// Backends in `BACKENDS`, in slots `0..count`. When growing, slots are written before the
    /// count; when shrinking, after it. A missing slot is to be treated as "choose again".
    pub count: u32,
    /// Zero.
    pub pad: u32,
}

/// Key of map `BACKENDS` (hash).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct BackendKey {
    /// Service.
    pub service: u64,
    /// Network.
    pub network: u64,
    /// Position, below [`Vip::count`].
    pub slot: u32,
    /// Zero.
    pub pad: u32,
}

/// Value of map `BACKENDS`: one task of a service on one network.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Backend {
    /// The task's address.
    pub address: Address,
    /// The task.
    pub task: u64,
}

/// Map `BACKEND_STATS` (hash, key task id `u64`; shared by all CPUs, changed atomically): what this
/// node's load balancer did with a backend. User space inserts and removes entries; programs only
/// update those that exist.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BackendStats {
    /// Connections (TCP, connected UDP, and flows of unconnected UDP and of published ports) sent
    /// to it by this node since the entry was made.
    pub connections: u64,
    /// Connections through socket hooks open now. Signed: a socket may outlive its entry.
    pub active: i64,
}

/// Map `TRAFFIC` (per-CPU hash, key task id `u64`): packets of a local task, seen from the task.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Traffic {
    /// Packets delivered to the task.
    pub rx_packets: u64,
    /// Bytes delivered to the task, from the IP header on.
    pub rx_bytes: u64,
    /// Packets accepted from the task.
    pub tx_packets: u64,
    /// Bytes accepted from the task, from the IP header on.
    pub tx_bytes: u64,
}

/// Key of map `PORTS` (hash): a port published by the routing mesh.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct PortKey {
    /// Published port, network order bytes.
    pub port: [u8; 2],
    /// IP protocol: 6 TCP, 17 UDP.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// Value of map `PORTS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PublishedPort {
    /// Service.
    pub service: u64,
    /// First entry of its Maglev table in map `MAGLEV` (array of `u32`, [`crate::MAGLEV_SIZE`]
    /// entries each, holding keys of `INGRESS_TASKS`).
    pub maglev: u32,
    /// Backends that serve; with 0 packets are dropped.
    pub backends: u32,
    /// Port in the container, network order bytes.
    pub target_port: [u8; 2],
    /// Zero.
    pub pad: [u8; 6],
}

/// Value of map `INGRESS_TASKS` (hash, key `u32`: host part of the task's IPv4 address in the
/// ingress network, which is also the Geneve VNI that names the task to its node; 24 bits).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct IngressTask {
    /// Overlay address of the node it runs on; [`Address::NONE`] when it runs here.
    pub node: Address,
    /// Its IPv4 address in the ingress network, mapped.
    pub v4: Address,
    /// Its IPv6 address in the ingress network, or [`Address::NONE`].
    pub v6: Address,
    /// The task.
    pub task: u64,
}

/// Socket-local storage `SOCKETS`: which VIP a connected socket was connected to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SocketVip {
    /// The VIP the application asked for.
    pub vip: Address,
    /// The backend it was given.
    pub backend: Address,
    /// The task behind it; 0 when the socket is not connected through a VIP.
    pub task: u64,
    /// Destination port (the same for both), network order bytes.
    pub port: [u8; 2],
    /// Zero.
    pub pad: [u8; 6],
}
