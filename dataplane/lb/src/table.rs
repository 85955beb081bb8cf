//! The desired state, in the cluster's own terms.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Everything a node's load balancer works from. A whole set: what is missing is forgotten.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LbTable {
    /// The node itself.
    pub node: NodeSettings,
    /// All addresses this node may send to or receive from, nodes' overlay addresses included.
    pub endpoints: Vec<EndpointEntry>,
    /// Which local containers are attached to which networks.
    pub callers: Vec<Caller>,
    /// Services' virtual addresses on the node's networks.
    pub vips: Vec<VipEntry>,
    /// Ports published through the routing mesh.
    pub ports: Vec<PortEntry>,
    /// Tasks of services with published ports, wherever they run.
    pub ingress_tasks: Vec<IngressTaskEntry>,
}

/// What the programs know of the node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeSettings {
    /// Its address in the overlay, `None` until it has one.
    pub overlay: Option<Ipv4Addr>,
    /// Index of the overlay device.
    pub overlay_ifindex: u32,
    /// Index of the uplink.
    pub uplink_ifindex: u32,
    /// MTU of the overlay device, bytes.
    pub overlay_mtu: u32,
    /// Addresses on which published ports answer.
    pub addresses: Vec<IpAddr>,
}

/// One address in the overlay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointEntry {
    /// The address.
    pub address: IpAddr,
    /// Id of its network.
    pub network: String,
    /// Id of the task; `None` for a node's own overlay address.
    pub task: Option<String>,
    /// Its cable when the task runs here.
    pub local: Option<Local>,
}

/// The cable of a local container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Local {
    /// Index of the host's end.
    pub ifindex: u32,
    /// MAC address of the container's end.
    pub mac: [u8; 6],
    /// MAC address of the host's end.
    pub host_mac: [u8; 6],
}

/// A local container is attached to a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Cookie of its network namespace.
    pub netns_cookie: u64,
    /// Id of the network.
    pub network: String,
}

/// A service's address on a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VipEntry {
    /// Id of the service.
    pub service: String,
    /// Id of the network.
    pub network: String,
    /// The address.
    pub address: IpAddr,
    /// Tasks that serve; of the VIP's address family.
    pub backends: Vec<BackendEntry>,
}

/// A task that serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendEntry {
    /// Id of the task.
    pub task: String,
    /// Its address on the VIP's network.
    pub address: IpAddr,
}

/// Transport protocol of a published port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// A published port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortEntry {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port on every node.
    pub published: u16,
    /// Port in the container.
    pub target: u16,
    /// Id of the service.
    pub service: String,
    /// Keys of the ingress tasks that serve.
    pub tasks: Vec<u32>,
}

/// A task that can be reached through the routing mesh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IngressTaskEntry {
    /// Host part of its IPv4 address in the ingress network: 1 to 2^24 - 1.
    pub key: u32,
    /// Id of the task.
    pub task: String,
    /// Overlay address of its node, `None` when it runs here.
    pub node: Option<Ipv4Addr>,
    /// Its address in the ingress network.
    pub v4: Ipv4Addr,
    /// Its IPv6 address there, if any.
    pub v6: Option<Ipv6Addr>,
}
