//! Packets that reach the node from outside: published ports. Everything else is the host's own and
//! passes untouched, whatever it is.
use aya_ebpf::programs::TcContext;
use shoal_maps::{Address, DropReason, Flow, FlowAction, IngressTask, PortKey, PublishedPort};

use crate::{
    Refusal, balance, counters, deliver,
    flows::{self, Entry},
    geneve,
    maps::found,
    mss, overlay,
    packet::{Packet, Syn, TCP},
};

/// Handles one packet.
#[inline(always)]
pub(crate) fn handle(ctx: &TcContext) -> Result<i32, Refusal> {
    // What cannot be parsed here is for the host to judge, fragments too.
    let mut packet = Packet::unread(ctx);
    if packet.read_ethernet().is_err() || !packet.has_ports() {
        return Err(Refusal::Pass);
    }
    let key = PortKey { port: packet.destination_port, protocol: packet.protocol, pad: 0 };
    let Some(port) = found!(PORTS, &key) else { return Err(Refusal::Pass) };
    if found!(NODE_ADDRESSES, &packet.destination).is_none() {
        return Err(Refusal::Pass);
    }
    let syn = packet.syn()?;
    let (vni, task) = assign(&packet, port, syn)?;
    let address = if packet.v6 { task.v6 } else { task.v4 };
    if address == Address::NONE {
        // The ingress network has no address of this family.
        return Err(DropReason::NoBackend.into());
    }
    if task.node == Address::NONE {
        let receiver = overlay::local(&address)?;
        overlay::publish(&mut packet, &Address::NONE, task.task, &address, port.target_port)?;
        return deliver::into_container(&mut packet, receiver);
    }
    to_node(&mut packet, task, vni, syn)
}

/// The task of the packet's flow: the one it has, else Maglev's. A SYN always asks Maglev, so that
/// a new connection never lands on a task that is leaving.
#[inline(always)]
fn assign(
    packet: &Packet<'_>,
    port: &PublishedPort,
    syn: Option<Syn>,
) -> Result<(u32, &'static IngressTask), Refusal> {
    let entry = Entry::of(packet)?;
    let opening = syn == Some(Syn::Request);
    // Key 0 names no task.
    let (known, established) = match entry.find() {
        Some(flow) if flows::is(flow, FlowAction::MeshForward) => {
            (flow.ingress_task, flow.established)
        }
        _ => (0, 0),
    };
    if known != 0
        && !opening
        && let Some(task) = found!(INGRESS_TASKS, &known)
    {
        if established == 0 {
            entry.establish();
        }
        return Ok((known, task));
    }
    let Some((chosen, task)) = balance::maglev(port, packet) else {
        return Err(DropReason::NoBackend.into());
    };
    // A SYN sent again is no new connection, and TCP without one is an old connection that only
    // this node did not know.
    let repeated = known == chosen && established == 0;
    if !repeated {
        entry.flow = Flow {
            node: task.node,
            task: task.task,
            action: FlowAction::MeshForward as u32,
            ingress_task: chosen,
            established: u8::from(!opening),
            ..Flow::default()
        };
        entry.put();
        if opening || packet.protocol != TCP {
            counters::connection(task.task);
        }
    }
    Ok((chosen, task))
}

/// Sends the packet to the task's node, with the client's addresses inside.
#[inline(always)]
fn to_node(
    packet: &mut Packet<'_>,
    task: &IngressTask,
    vni: u32,
    syn: Option<Syn>,
) -> Result<i32, Refusal> {
    let config = deliver::config()?;
    let answer = Entry::answering(packet)?;
    if answer.find().is_none_or(|flow| !flows::is(flow, FlowAction::MeshReturn)) {
        answer.flow = Flow {
            node: task.node,
            task: task.task,
            action: FlowAction::MeshReturn as u32,
            ingress_task: vni,
            ..Flow::default()
        };
        answer.put();
    }
    if syn.is_some() {
        mss::clamp(packet, config)?;
    }
    geneve::encapsulate(packet, &config.overlay, &task.node, vni)?;
    deliver::into_tunnel(config)
}
