//! Packets a container sends: proof of origin, isolation, forwarding, VIPs for what the socket hooks
//! missed, and answers of the routing mesh.
//!
//! ```text
//! source is not this container's ─> drop
//! known flow ─ MeshReply ─> source := published address, out by the uplink or to its node
//!            ─ VipForward, VipReply, Retried ─> translate, then as below
//! destination is a VIP ─ ping ─> answered here
//!                      ─ TCP, UDP ─> choose a backend, translate, then as below
//! destination is an endpoint of the same network ─ here ─> into the container
//!                                                ─ elsewhere ─> into the tunnel
//! anything else ─> drop
//! ```
use aya_ebpf::programs::TcContext;
use shoal_maps::{Address, DropReason, Endpoint, Flow, FlowAction, Vip};

use crate::{
    Refusal,
    balance::{self, Wanted},
    counters::{self, Way},
    deliver,
    flows::{self, Entry},
    geneve,
    maps::found,
    mss,
    packet::{Packet, Syn},
    ping, retry,
    rewrite::{self, End},
};

/// Handles one packet.
#[inline(always)]
pub(crate) fn handle(ctx: &TcContext) -> Result<i32, Refusal> {
    let mut packet = Packet::unread(ctx);
    packet.read_ethernet()?;
    // SAFETY: the context is valid for the run of the program.
    let ifindex = unsafe { (*packet.skb()).ifindex };
    let sender = match found!(ENDPOINTS, &packet.source) {
        Some(endpoint) if endpoint.ifindex == ifindex => endpoint,
        _ => return Err(DropReason::SpoofedSource.into()),
    };
    if geneve::is_geneve(&packet) && is_node(&packet.destination) {
        return Err(DropReason::BadEncapsulation.into());
    }
    let length = packet.length;
    let action = route(&mut packet, sender)?;
    counters::traffic(sender.task, length, Way::Sent);
    Ok(action)
}

#[inline(always)]
fn route(packet: &mut Packet<'_>, sender: &Endpoint) -> Result<i32, Refusal> {
    let known = if packet.has_ports() { Entry::of(packet)?.find() } else { None };
    match known {
        Some(flow) if flows::is(flow, FlowAction::MeshReply) => return mesh_reply(packet, flow),
        Some(flow) if flows::is(flow, FlowAction::VipReply) => retry::reply(packet, flow)?,
        Some(flow) if flows::is(flow, FlowAction::Retried) && retry::follows(packet, flow)? => {
            rewrite::port(packet, End::Source, flow.port)?;
            to_backend(packet, &flow.address)?;
        }
        _ => match found!(VIPS, &packet.destination) {
            Some(vip) if vip.network != sender.network => {
                return Err(DropReason::OtherNetwork.into());
            }
            Some(_) if packet.fragment => return Err(DropReason::Fragment.into()),
            Some(_) if ping::is_icmp(packet) => return ping::answer(packet, sender),
            Some(vip) => to_vip(packet, vip, known)?,
            None if packet.syn()? == Some(Syn::Request) => {
                forget_vip(packet)?;
                retry::remember(packet)?;
            }
            None => {}
        },
    }
    forward(packet, sender)
}

/// A connection made to a backend itself may have the ports of an earlier one through the VIP, whose
/// answers must then no longer be translated.
#[inline(always)]
fn forget_vip(packet: &Packet<'_>) -> Result<(), Refusal> {
    let answer = Entry::answering(packet)?;
    if answer.find().is_some_and(|flow| flows::is(flow, FlowAction::VipReply)) {
        answer.remove();
    }
    Ok(())
}

/// Sends on to an endpoint of the sender's network.
#[inline(always)]
fn forward(packet: &mut Packet<'_>, sender: &Endpoint) -> Result<i32, Refusal> {
    let Some(receiver) = found!(ENDPOINTS, &packet.destination) else {
        return Err(DropReason::NoEndpoint.into());
    };
    if receiver.network != sender.network {
        return Err(DropReason::OtherNetwork.into());
    }
    if receiver.task == 0 {
        // A node's own address takes nothing but what nodes send each other.
        return Err(DropReason::NoEndpoint.into());
    }
    match receiver.ifindex {
        0 => deliver::into_tunnel(deliver::config()?),
        _ => {
            retry::withhold(packet, sender)?;
            deliver::into_container(packet, receiver)
        }
    }
}

/// Translates the destination to the flow's backend, or to one chosen now.
#[inline(always)]
fn to_vip(packet: &mut Packet<'_>, vip: &Vip, known: Option<&Flow>) -> Result<(), Refusal> {
    if !packet.has_ports() {
        // A VIP stands for every port of TCP and UDP, and for nothing else.
        return Err(DropReason::NoBackend.into());
    }
    let address = match usable(packet, known)? {
        Some(address) => address,
        None => choose(packet, vip)?,
    };
    to_backend(packet, &address)
}

/// Translates the destination.
#[inline(always)]
fn to_backend(packet: &mut Packet<'_>, address: &Address) -> Result<(), Refusal> {
    if *address == packet.source {
        // A task that calls itself: it would refuse a packet from its own address, so both
        // directions look as if they came from the address called.
        let called = packet.destination;
        rewrite::address(packet, End::Source, &called)?;
    }
    rewrite::address(packet, End::Destination, address)
}

/// The backend a known flow keeps: unless it is gone, or a SYN starts the flow anew. A SYN before
/// anything else was sent is the first one repeated.
#[inline(always)]
fn usable(packet: &Packet<'_>, known: Option<&Flow>) -> Result<Option<Address>, Refusal> {
    let Some(flow) = known else { return Ok(None) };
    if !flows::is(flow, FlowAction::VipForward) {
        return Ok(None);
    }
    match (packet.syn()?, flow.established) {
        (Some(Syn::Request), 0) => {}
        (Some(Syn::Request), _) => return Ok(None),
        (_, 0) => Entry::of(packet)?.establish(),
        _ => {}
    }
    Ok(found!(ENDPOINTS, &flow.address).map(|_| flow.address))
}

/// Chooses a backend and remembers it for both directions.
#[inline(always)]
fn choose(packet: &Packet<'_>, vip: &Vip) -> Result<Address, Refusal> {
    let (protocol, port) = (packet.protocol, packet.destination_port);
    let Some(backend) = balance::less_loaded(vip, &Wanted { protocol, port, excluded: 0 }) else {
        return Err(DropReason::NoBackend.into());
    };
    let entry = Entry::of(packet)?;
    entry.flow = Flow {
        address: backend.address,
        task: backend.task,
        action: FlowAction::VipForward as u32,
        ..Flow::default()
    };
    entry.put();
    entry.key.source_port = packet.destination_port;
    entry.key.destination_port = packet.source_port;
    // A task that calls itself answers to the VIP, and that is turned round by the same rule.
    if backend.address != packet.source {
        entry.key.source = backend.address;
        entry.key.destination = packet.source;
        entry.flow.address = packet.destination;
        entry.flow.action = FlowAction::VipReply as u32;
    }
    entry.put();
    counters::connection(backend.task);
    Ok(backend.address)
}

/// Sends a task's answer to a client outside, from the address the client knows.
#[inline(always)]
fn mesh_reply(packet: &mut Packet<'_>, flow: &Flow) -> Result<i32, Refusal> {
    let config = deliver::config()?;
    rewrite::address(packet, End::Source, &flow.address)?;
    rewrite::port(packet, End::Source, flow.port)?;
    if flow.node == Address::NONE {
        return deliver::out_of_uplink(packet, config);
    }
    if packet.syn()?.is_some() {
        mss::clamp(packet, config)?;
    }
    geneve::encapsulate(packet, &config.overlay, &flow.node, 0)?;
    deliver::into_tunnel(config)
}

/// Whether the address is a node's own in the overlay.
#[inline(always)]
fn is_node(address: &Address) -> bool {
    found!(ENDPOINTS, address).is_some_and(|endpoint| endpoint.task == 0)
}
