//! Tracked flows of the per-packet path and of unconnected UDP sockets.
use crate::Address;

/// Key of map `FLOWS` (LRU hash): one direction of a flow, as its packets look at the hook that
/// looks it up.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct FlowKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port (ICMP echo: identifier), network order bytes.
    pub source_port: [u8; 2],
    /// Destination port (ICMP echo: zero), network order bytes.
    pub destination_port: [u8; 2],
    /// IP protocol.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// What is done with a packet of a tracked flow. Stored as `u32` in [`Flow::action`].
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowAction {
    /// Container to VIP: rewrite the destination to `address`, forward as if sent there.
    VipForward = 1,
    /// Backend to a container that used a VIP: rewrite the source to `address` on delivery, and the
    /// destination's port to `port` unless that is zero.
    VipReply = 2,
    /// Client to a published port at the ingress node: the chosen task is `ingress_task`.
    MeshForward = 3,
    /// Task to a client outside: rewrite the source to `address` and `port`; leave by the uplink
    /// when `node` is none, else encapsulated to `node`.
    MeshReply = 4,
    /// Decapsulated reply at the ingress node, allowed out by the uplink.
    MeshReturn = 5,
    /// Container to a backend that refused it: rewrite the destination to `address`, another backend,
    /// and the source's port to `port`. From the SYN on whose number is `sequence`.
    Retried = 6,
}

/// Value of map `FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flow {
    /// Address to rewrite to.
    pub address: Address,
    /// Overlay address of the other node of a mesh flow, or none.
    pub node: Address,
    /// Task behind the flow.
    pub task: u64,
    /// Monotonic time of the last packet, ns.
    pub seen: u64,
    /// A [`FlowAction`].
    pub action: u32,
    /// Key of `INGRESS_TASKS`.
    pub ingress_task: u32,
    /// Port to rewrite to, network order bytes.
    pub port: [u8; 2],
    /// 0 until a TCP client has sent more than SYN, then 1: tells a repeated SYN from a new
    /// connection on the same port. Of a retried flow: 1 once the SYN was sent again.
    pub established: u8,
    /// Zero.
    pub pad: u8,
    /// Of a retried flow: sequence number of the SYN.
    pub sequence: u32,
}

/// Key of map `UDP_FORWARD` (LRU hash): an unconnected UDP socket talks to a VIP.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct UdpForwardKey {
    /// Socket cookie.
    pub socket: u64,
    /// The VIP.
    pub vip: Address,
    /// Destination port, network order bytes.
    pub port: [u8; 2],
    /// Zero.
    pub pad: [u8; 6],
}

/// Value of map `UDP_FORWARD`: the backend this socket keeps using.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct UdpForward {
    /// The backend.
    pub backend: Address,
    /// The task.
    pub task: u64,
}

/// Key of map `UDP_REVERSE` (LRU hash): answers to an unconnected UDP socket.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct UdpReverseKey {
    /// Socket cookie.
    pub socket: u64,
    /// The backend that answers.
    pub backend: Address,
    /// Its port, network order bytes.
    pub port: [u8; 2],
    /// Zero.
    pub pad: [u8; 6],
}

/// Value of map `UDP_REVERSE`: the VIP the application sent to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct UdpReverse {
    /// The VIP.
    pub vip: Address,
}
