//! The ways out: into a container, into the tunnel, out of the uplink.
use aya_ebpf::helpers::generated::{
    bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_head,
};
use shoal_maps::{DropReason, Endpoint, NodeConfig};

use crate::{
    Refusal,
    counters::{self, Way},
    maps::CONFIG,
    packet::{ETHERNET, Packet},
};

/// An Ethernet header (IEEE 802.3).
#[repr(C)]
#[derive(Clone, Copy)]
struct Ethernet {
    destination: [u8; 6],
    source: [u8; 6],
    ethertype: [u8; 2],
}

/// What the programs know of the node.
#[inline(always)]
pub(crate) fn config() -> Result<&'static NodeConfig, Refusal> {
    // An array's slot always exists; the verifier wants it asked all the same.
    CONFIG.get(0).ok_or(Refusal::Drop(DropReason::Helper))
}

/// Hands the packet to the container behind a local endpoint.
#[inline(always)]
pub(crate) fn into_container(packet: &mut Packet<'_>, to: &Endpoint) -> Result<i32, Refusal> {
    let header =
        Ethernet { destination: to.mac, source: to.host_mac, ethertype: packet.ethertype() };
    put_ethernet(packet, header)?;
    counters::traffic(to.task, packet.length, Way::Received);
    // SAFETY: the kernel checks the interface.
    Ok(unsafe { bpf_redirect_peer(to.ifindex, 0) } as i32)
}

/// Sends the packet into the tunnel, whose engine finds the node by the destination address. The
/// kernel takes the Ethernet header off.
#[inline(always)]
pub(crate) fn into_tunnel(config: &NodeConfig) -> Result<i32, Refusal> {
    // SAFETY: the kernel checks the interface.
    Ok(unsafe { bpf_redirect(config.overlay_ifindex, 0) } as i32)
}

/// Sends the packet out of the uplink; route and neighbour are the host's.
#[inline(always)]
pub(crate) fn out_of_uplink(packet: &mut Packet<'_>, config: &NodeConfig) -> Result<i32, Refusal> {
    let header = Ethernet { destination: [0; 6], source: [0; 6], ethertype: packet.ethertype() };
    put_ethernet(packet, header)?;
    // SAFETY: without parameters the helper asks the routing table; the kernel checks the interface.
    Ok(unsafe { bpf_redirect_neigh(config.uplink_ifindex, core::ptr::null_mut(), 0, 0) } as i32)
}

/// Answers over the interface the packet came by.
#[inline(always)]
pub(crate) fn back(packet: &mut Packet<'_>, to: &Endpoint) -> Result<i32, Refusal> {
    let header =
        Ethernet { destination: to.mac, source: to.host_mac, ethertype: packet.ethertype() };
    put_ethernet(packet, header)?;
    // SAFETY: the kernel checks the interface.
    Ok(unsafe { bpf_redirect(to.ifindex, 0) } as i32)
}

/// Writes the Ethernet header, making room for it on a packet that has none: a redirect to a device
/// with link headers drops it otherwise, without a word.
#[inline(always)]
fn put_ethernet(packet: &mut Packet<'_>, header: Ethernet) -> Result<(), Refusal> {
    if packet.base == 0 {
        // SAFETY: the helper makes the room or fails.
        if unsafe { bpf_skb_change_head(packet.skb(), ETHERNET, 0) } != 0 {
            return Err(DropReason::Helper.into());
        }
        packet.base += ETHERNET;
        packet.transport += ETHERNET;
    }
    packet.store(0, header)
}
