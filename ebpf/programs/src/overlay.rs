//! Packets that come out of the tunnel: into containers, and the routing mesh's own.
//!
//! The tunnel has proven that the source address belongs to the node that sent the packet; here it
//! is asked whether it may reach the destination.
use aya_ebpf::programs::TcContext;
use shoal_maps::{Address, DropReason, Endpoint, Flow, FlowAction, PortKey};

use crate::{
    Refusal, deliver,
    flows::{self, Entry},
    geneve::{self, Inside},
    maps::found,
    packet::Packet,
    retry,
    rewrite::{self, End},
};

/// Handles one packet.
#[inline(always)]
pub(crate) fn handle(ctx: &TcContext) -> Result<i32, Refusal> {
    let mut packet = Packet::unread(ctx);
    packet.read_ip(0)?;
    let sender = match found!(ENDPOINTS, &packet.source) {
        // What lives here does not come from elsewhere.
        Some(endpoint) if endpoint.ifindex == 0 => endpoint,
        _ => return Err(DropReason::SpoofedSource.into()),
    };
    if packet.destination == deliver::config()?.overlay {
        return from_node(&mut packet, sender);
    }
    let receiver = local(&packet.destination)?;
    if receiver.network != sender.network {
        return Err(DropReason::OtherNetwork.into());
    }
    if packet.has_ports() {
        if let Some(flow) = Entry::of(&packet)?.find() {
            if flows::is(flow, FlowAction::VipReply) {
                retry::reply(&mut packet, flow)?;
            }
        }
        retry::withhold(&packet, sender)?;
    }
    deliver::into_container(&mut packet, receiver)
}

/// A packet for this node itself: only the mesh's are.
#[inline(always)]
fn from_node(packet: &mut Packet<'_>, sender: &Endpoint) -> Result<i32, Refusal> {
    if packet.fragment {
        return Err(DropReason::Fragment.into());
    }
    if !geneve::is_geneve(packet) {
        return Err(DropReason::NoEndpoint.into());
    }
    if sender.task != 0 {
        return Err(DropReason::BadEncapsulation.into());
    }
    let node = packet.source;
    let Inside { vni, base } = geneve::inside(packet)?;
    packet.read_ip(base)?;
    if packet.fragment {
        return Err(DropReason::Fragment.into());
    }
    if !packet.has_ports() {
        return Err(DropReason::BadEncapsulation.into());
    }
    match vni {
        0 => to_client(packet),
        _ => to_task(packet, &node, vni),
    }
}

/// A client's packet for a task of this node.
#[inline(always)]
fn to_task(packet: &mut Packet<'_>, node: &Address, vni: u32) -> Result<i32, Refusal> {
    let task = match found!(INGRESS_TASKS, &vni) {
        Some(task) if task.node == Address::NONE => task,
        _ => return Err(DropReason::BadEncapsulation.into()),
    };
    let key = PortKey { port: packet.destination_port, protocol: packet.protocol, pad: 0 };
    let Some(port) = found!(PORTS, &key) else {
        return Err(DropReason::BadEncapsulation.into());
    };
    let address = if packet.v6 { task.v6 } else { task.v4 };
    let receiver = local(&address)?;
    geneve::decapsulate(packet)?;
    publish(packet, node, task.task, &address, port.target_port)?;
    deliver::into_container(packet, receiver)
}

/// Translates a client's packet for the task, and remembers how its answer gets back: through
/// `node`, or out of this node's own uplink when that is none.
#[inline(always)]
pub(crate) fn publish(
    packet: &mut Packet<'_>,
    node: &Address,
    task: u64,
    address: &Address,
    port: [u8; 2],
) -> Result<(), Refusal> {
    let answer = Entry::answering(packet)?;
    answer.key.source = *address;
    answer.key.source_port = port;
    let known = answer.find().is_some_and(|flow| {
        flows::is(flow, FlowAction::MeshReply)
            && flow.node == *node
            && flow.address == packet.destination
            && flow.port == packet.destination_port
    });
    if !known {
        answer.flow = Flow {
            address: packet.destination,
            node: *node,
            task,
            action: FlowAction::MeshReply as u32,
            port: packet.destination_port,
            ..Flow::default()
        };
        answer.put();
    }
    rewrite::address(packet, End::Destination, address)?;
    rewrite::port(packet, End::Destination, port)
}

/// A task's answer to a client that came in by this node.
#[inline(always)]
fn to_client(packet: &mut Packet<'_>) -> Result<i32, Refusal> {
    match Entry::of(packet)?.find() {
        Some(flow) if flows::is(flow, FlowAction::MeshReturn) => {}
        _ => return Err(DropReason::NoFlow.into()),
    }
    geneve::decapsulate(packet)?;
    deliver::out_of_uplink(packet, deliver::config()?)
}

/// The endpoint of a task that runs here.
#[inline(always)]
pub(crate) fn local(address: &Address) -> Result<&'static Endpoint, Refusal> {
    match found!(ENDPOINTS, address) {
        Some(endpoint) if endpoint.ifindex != 0 => Ok(endpoint),
        _ => Err(DropReason::NoEndpoint.into()),
    }
}
