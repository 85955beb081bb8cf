//! What joins the hosts: a namespace with a bridge for the nodes, and routes to the clients.

use crate::{Delay, Guardian, Host, Segment, address, address::ROUTER};
use anyhow::Context as _;
use std::time::Duration;

/// The bridge of the nodes' segment.
const BRIDGE: &str = "br0";

/// The namespace between the hosts. It routes between the two segments.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) host: Host,
}

impl Wire {
    pub(crate) fn start(guardian: &Guardian) -> anyhow::Result<Self> {
        let (v4, v6) = (Segment::Nodes.v4(ROUTER), Segment::Nodes.v6(ROUTER));
        let script = format!(
            "echo 1 >/proc/sys/net/ipv4/ip_forward\n\
             echo 1 >/proc/sys/net/ipv6/conf/all/forwarding\n\
             ip link add {BRIDGE} type bridge\n\
             off=/proc/sys/net/bridge; for call in iptables ip6tables arptables; do\n\
             [ ! -e $off/bridge-nf-call-$call ] || echo 0 >$off/bridge-nf-call-$call; done\n\
             ip link set {BRIDGE} up\n\
             ip address add {v4}/24 dev {BRIDGE}\n\
             ip address add {v6}/64 dev {BRIDGE} nodad"
        );
        Ok(Self { host: Host::start("wire", guardian, &script)? })
    }

    /// Joins a host: its end of the veth is `eth0`, the other has the host's name.
    pub(crate) fn join(&self, host: &Host, segment: Segment, index: usize) -> anyhow::Result<()> {
        let port = host.name();
        let here = match segment {
            Segment::Nodes => format!("ip link set {port} master {BRIDGE} up"),
            // Clients have a wire of their own each, but share the segment's router address.
            Segment::Clients => {
                let (v4, v6) = address(segment, index);
                format!(
                    "ip link set {port} up\n\
                     ip address add {}/32 dev {port}\n\
                     ip address add {}/128 dev {port} nodad\n\
                     ip route add {v4}/32 dev {port}\n\
                     ip route add {v6}/128 dev {port}",
                    segment.v4(ROUTER),
                    segment.v6(ROUTER)
                )
            }
        };
        let holder = host.holder();
        self.host.script(&format!(
            "ip link add {port} type veth peer name eth0 netns {holder}\n{here}"
        ))?;
        let (v4, v6) = address(segment, index);
        let (gateway4, gateway6) = (segment.v4(ROUTER), segment.v6(ROUTER));
        host.script(&format!(
            "ip address add {v4}/24 dev eth0\n\
             ip address add {v6}/64 dev eth0 nodad\n\
             ip link set eth0 up\n\
             ip route add default via {gateway4}\n\
             ip -6 route add default via {gateway6}"
        ))
    }

    /// Takes a host off the wire, or puts it back.
    pub(crate) fn set(&self, host: &Host, up: bool) -> anyhow::Result<()> {
        let state = if up { "up" } else { "down" };
        self.host
            .script(&format!("ip link set {} {state}", host.name()))
            .with_context(|| format!("the wire of {} cannot be put {state}", host.name()))
    }

    /// Makes a node's wire slow, each way, until what this gives is dropped.
    pub(crate) fn delay(&self, host: &Host, delay: Duration) -> anyhow::Result<Delay<'_>> {
        Delay::start(&self.host, BRIDGE, host.name(), delay)
            .with_context(|| format!("the wire of {} cannot be made slow", host.name()))
    }
}
