//! Layout of the BPF maps: the one contract between the kernel-side programs and user space.
//!
//! Byte order: addresses and every field called `*port` hold **network order** bytes, as on the wire
//! and in `bpf_sock_addr`. Everything else (ids, counts, interface indexes, times) is in the order of
//! the machine.
//!
//! Addresses are 16 bytes; IPv4 is mapped (`::ffff:a.b.c.d`), so both families share maps and code.
//!
//! Ids of services, networks, nodes and tasks are 64-bit hashes of the cluster's object ids
//! ([`id`]), so that a restarted daemon finds the pinned maps in terms it can compute again. Zero
//! means "none".
//!
//! Every type is `repr(C)` with explicit padding that must be zero: map keys are compared bytewise.
#![cfg_attr(not(feature = "user"), no_std)]

mod drop;
mod flow;
mod retry;
mod service;

pub use drop::{DROP_REASONS, DropReason};
pub use flow::{Flow, FlowAction, FlowKey, UdpForward, UdpForwardKey, UdpReverse, UdpReverseKey};
pub use retry::{Attempt, EjectedKey};
pub use service::{
    Backend, BackendKey, BackendStats, IngressTask, PortKey, PublishedPort, SocketVip, Traffic, Vip,
};

/// Layout version of everything in this crate; part of the pin folder's name, so that maps of
/// another layout are never picked up.
pub const LAYOUT_VERSION: u32 = 2;

/// Entries of [`Endpoint`]s a node can know: local containers and the remote ones of its networks.
pub const MAX_ENDPOINTS: u32 = 65_536;
/// Virtual addresses: one per service and network.
pub const MAX_VIPS: u32 = 16_384;
/// Backends over all services and networks.
pub const MAX_BACKENDS: u32 = 65_536;
/// Pairs of a container and a network it is attached to, on this node.
pub const MAX_CALLERS: u32 = 16_384;
/// Published ports of the cluster; also the number of Maglev tables.
pub const MAX_PORTS: u32 = 256;
/// Tracked flows of the per-packet path; the least recently used is evicted at the bound.
pub const MAX_FLOWS: u32 = 262_144;
/// Tracked destinations of unconnected UDP sockets; the least recently used is evicted.
pub const MAX_UDP_FLOWS: u32 = 65_536;
/// Connections through VIPs that may still be refused; the least recently used is evicted. Each
/// matters for a round trip only.
pub const MAX_ATTEMPTS: u32 = 16_384;
/// Backends that refused a connection of late; the least recently used is evicted.
pub const MAX_EJECTED: u32 = 1_024;
/// The node's own addresses on which published ports answer.
pub const MAX_NODE_ADDRESSES: u32 = 64;
/// Entries of one Maglev table. A prime, as the permutation needs, and ten times the backends for
/// which the spread stays within 10 % (Eisenbud et al., "Maglev", 2016, section 5.3).
pub const MAGLEV_SIZE: u32 = 1_021;

/// UDP port of Geneve (RFC 8926), the encapsulation of the routing mesh inside the tunnel.
pub const GENEVE_PORT: u16 = 6_081;

/// An IPv6 address, or an IPv4 one mapped into IPv6; network order. Aligned so that the programs copy
/// and compare it in two words; every type that holds one is laid out for that without padding.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// No address.
    pub const NONE: Address = Address([0; 16]);

    /// Maps an IPv4 address in network order.
    #[inline(always)]
    pub const fn v4(a: [u8; 4]) -> Address {
        Address([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3]])
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        let a = &self.0;
        a[0] | a[1] | a[2] | a[3] | a[4] | a[5] | a[6] | a[7] | a[8] | a[9] == 0
            && a[10] & a[11] == 0xff
    }
}

#[cfg(feature = "user")]
impl From<std::net::IpAddr> for Address {
    fn from(ip: std::net::IpAddr) -> Address {
        match ip {
            std::net::IpAddr::V4(a) => Address::v4(a.octets()),
            std::net::IpAddr::V6(a) => Address(a.octets()),
        }
    }
}

#[cfg(feature = "user")]
impl From<Address> for std::net::IpAddr {
    fn from(a: Address) -> std::net::IpAddr {
        std::net::Ipv6Addr::from(a.0).to_canonical()
    }
}

/// The 64-bit id of a cluster object: FNV-1a of its id. Never zero.
pub const fn id(object: &str) -> u64 {
    let bytes = object.as_bytes();
    let (mut hash, mut i) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    if hash == 0 { 1 } else { hash }
}

/// Map `CONFIG` (array of one): what a node's programs must know of the node itself.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NodeConfig {
    /// The node's own address in the overlay (in the ingress network), IPv4-mapped.
    pub overlay: Address,
    /// Interface index of `shoal0`.
    pub overlay_ifindex: u32,
    /// Interface index of the uplink replies of the routing mesh leave by.
    pub uplink_ifindex: u32,
    /// MTU of `shoal0`, bytes; TCP's MSS is clamped to what fits through it encapsulated.
    pub overlay_mtu: u32,
    /// Zero.
    pub pad: u32,
}

/// Map `ENDPOINTS` (hash, key [`Address`]): every task address this node may send to or receive
/// from.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Endpoint {
    /// Network the address belongs to; packets cross only between equal ones.
    pub network: u64,
    /// Id of the task (0 for a node's own overlay address).
    pub task: u64,
    /// Host-side veth when the task runs here, else 0: then it is reached through the overlay.
    pub ifindex: u32,
    /// MAC address of the container's `eth0`; zero when remote.
    pub mac: [u8; 6],
    /// MAC address of the host-side veth; zero when remote.
    pub host_mac: [u8; 6],
}

/// Map `CALLERS` (hash, value `u8` 1): a network namespace is attached to a network.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct CallerKey {
    /// Cookie of the network namespace (`SO_NETNS_COOKIE`, `bpf_get_netns_cookie`).
    pub netns_cookie: u64,
    /// Network.
    pub network: u64,
}

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya's marker for plain old data is an unsafe trait")]
    use super::*;
    macro_rules! pod {
        ($($t:ty),* $(,)?) => {
            $(
                // SAFETY: repr(C), integers and byte arrays only, padding is explicit.
                unsafe impl aya::Pod for $t {}
            )*
        };
    }
    pod!(
        Address,
        NodeConfig,
        Endpoint,
        CallerKey,
        Vip,
        BackendKey,
        Backend,
        BackendStats,
        Traffic,
        PortKey,
        PublishedPort,
        IngressTask,
        FlowKey,
        Flow,
        UdpForwardKey,
        UdpForward,
        UdpReverseKey,
        UdpReverse,
        SocketVip,
        Attempt,
        EjectedKey,
    );
}
