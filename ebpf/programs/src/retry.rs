//! A second try for connections through a VIP that the chosen backend refuses.
//!
//! When a task's process ends, nodes still choose it until their tables say otherwise, and its
//! kernel answers each SYN by a reset. That reset need not reach the client:
//!
//! ```text
//! SYN of a socket connected through a VIP ─> remembered
//! reset in answer to it ─> the backend is spared for a while, another one chosen, flows made for
//!                          both directions; the client gets a reset it must ignore
//! the SYN again ─> to the other backend, from another port
//! its answers ─> as if from the first backend
//! a reset in answer to the SYN again ─> passed on: the connection is refused
//! ```
//!
//! RFC 9293 (3.10.7.3) has a client ignore a reset that acknowledges what it never sent. Linux takes
//! it for a sign that something was lost and sends its SYN again two timer ticks later; others do
//! after their initial timeout, one second (RFC 6298, 2.1).
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use shoal_maps::{Address, Attempt, DropReason, EjectedKey, Endpoint, Flow, FlowAction, SocketVip};

use crate::{
    Refusal,
    balance::{self, Wanted},
    counters,
    flows::{self, Entry},
    maps::{ATTEMPTS, EJECTED, SOCKETS, found},
    packet::{Packet, Syn, TCP, TCP_SEQUENCE},
    rewrite::{self, End},
};

/// How long a backend that refused a connection is spared, ns: tables are up to date long before.
const EJECTION: u64 = 2_000_000_000;
/// Most bytes a SYN can carry, which its answer acknowledges too.
const MAX_SYN_DATA: u32 = 65_535;
/// First of the source ports of retried connections: above those Linux gives out by itself
/// (`net.ipv4.ip_local_port_range`), so that none is taken by a connection of the client's own.
const FIRST_PORT: u16 = 61_000;
const PORTS: u32 = 65_536 - FIRST_PORT as u32;
/// Ports tried before the refusal is passed on.
const PORT_TRIES: u32 = 4;

/// Remembers the SYN of a socket that is connected through a VIP.
#[inline(always)]
pub(crate) fn remember(packet: &Packet<'_>) -> Result<(), Refusal> {
    // SAFETY: a field of the context, read whole. The sender's socket, as long as the packet has not
    // left the host; the kernel checks the pointer.
    let socket = unsafe { (&raw const (*packet.skb()).__bindgen_anon_2.sk).read_volatile() };
    if socket.is_null() {
        return Ok(());
    }
    // SAFETY: the map and a socket that is not null; without flags it only looks.
    let record = unsafe {
        bpf_sk_storage_get(
            (&raw const SOCKETS).cast_mut().cast(),
            socket.cast(),
            core::ptr::null_mut(),
            0,
        )
    };
    if record.is_null() {
        return Ok(());
    }
    // SAFETY: not null, of the map's value type: plain integers.
    let record = unsafe { &*record.cast::<SocketVip>() };
    if record.task == 0
        || record.backend != packet.destination
        || record.port != packet.destination_port
    {
        return Ok(());
    }
    let attempt = Attempt { vip: record.vip, sequence: sequence(packet)?, pad: 0 };
    // Fails only for want of memory: then there is no second try.
    let _ = ATTEMPTS.insert(&Entry::of(packet)?.key, &attempt, 0);
    Ok(())
}

/// Turns a refusal that is about to be delivered into one the client ignores, when there is another
/// backend to try. `refuser` is its source.
#[inline(always)]
pub(crate) fn withhold(packet: &Packet<'_>, refuser: &Endpoint) -> Result<(), Refusal> {
    let Some(acknowledged) = packet.refusal()? else { return Ok(()) };
    let entry = Entry::answering(packet)?;
    let Some(attempt) = found!(ATTEMPTS, &entry.key) else { return Ok(()) };
    let sequence = attempt.sequence;
    if acknowledged.wrapping_sub(sequence).wrapping_sub(1) > MAX_SYN_DATA {
        return Ok(());
    }
    let vip = found!(VIPS, &attempt.vip);
    // One try: what the next backend says is passed on.
    let _ = ATTEMPTS.remove(&entry.key);
    eject(refuser.task, packet.source_port);
    let wanted = Wanted { protocol: TCP, port: packet.source_port, excluded: refuser.task };
    let other = vip.and_then(|vip| balance::less_loaded(vip, &wanted));
    let Some(other) = other else { return Ok(()) };
    let Some(port) = translate_answers(packet, &other.address, other.task)? else { return Ok(()) };
    let entry = Entry::answering(packet)?;
    entry.flow = Flow {
        address: other.address,
        task: other.task,
        action: FlowAction::Retried as u32,
        port,
        sequence,
        ..Flow::default()
    };
    entry.put();
    counters::connection(other.task);
    counters::dropped(DropReason::Retried);
    rewrite::acknowledgement(packet, acknowledged, sequence)
}

/// Makes the flow from the other backend to the client; gives the source port the connection has
/// there, none when all that were tried are taken.
#[inline(always)]
fn translate_answers(
    packet: &Packet<'_>,
    other: &Address,
    task: u64,
) -> Result<Option<[u8; 2]>, Refusal> {
    let entry = Entry::of(packet)?;
    entry.key.source = *other;
    entry.flow = Flow { task, established: 1, ..Flow::default() };
    if *other == packet.destination {
        // The client itself is the other backend: it answers to the address it is called from, the
        // refuser's, and that is turned round by the rule of the first direction.
        entry.key.destination = packet.source;
        entry.flow.address = *other;
        entry.flow.action = FlowAction::Retried as u32;
        entry.flow.port = packet.source_port;
        entry.put();
        return Ok(Some(packet.destination_port));
    }
    entry.flow.address = packet.source;
    entry.flow.action = FlowAction::VipReply as u32;
    entry.flow.port = packet.destination_port;
    for _ in 0..PORT_TRIES {
        let port = (FIRST_PORT + balance::below(PORTS) as u16).to_be_bytes();
        entry.key.destination_port = port;
        if entry.put_new() {
            return Ok(Some(port));
        }
    }
    Ok(None)
}

/// Whether a packet to a backend that refused belongs to the connection tried elsewhere. A SYN of
/// another number is a new connection to that very address.
#[inline(always)]
pub(crate) fn follows(packet: &Packet<'_>, flow: &Flow) -> Result<bool, Refusal> {
    if packet.syn()? != Some(Syn::Request) {
        return Ok(flow.established != 0);
    }
    let entry = Entry::of(packet)?;
    if sequence(packet)? != flow.sequence || found!(ENDPOINTS, &flow.address).is_none() {
        entry.remove();
        return Ok(false);
    }
    entry.establish();
    Ok(true)
}

/// Translates an answer that comes by way of a VIP.
#[inline(always)]
pub(crate) fn reply(packet: &mut Packet<'_>, flow: &Flow) -> Result<(), Refusal> {
    let (address, port) = (flow.address, flow.port);
    if port != [0; 2] {
        if packet.refusal()?.is_some() {
            // The end of it: the port is free for another.
            Entry::of(packet)?.remove();
        }
        rewrite::port(packet, End::Destination, port)?;
    }
    rewrite::address(packet, End::Source, &address)
}

/// Whether a backend refused a connection to the port a short while ago.
#[inline(always)]
pub(crate) fn is_ejected(task: u64, port: [u8; 2]) -> bool {
    let key = EjectedKey { task, port, pad: [0; 6] };
    found!(EJECTED, &key).is_some_and(|until| flows::now() < *until)
}

#[inline(always)]
fn eject(task: u64, port: [u8; 2]) {
    let key = EjectedKey { task, port, pad: [0; 6] };
    // Fails only for want of memory: then others may be refused once, too.
    let _ = EJECTED.insert(&key, &(flows::now() + EJECTION), 0);
}

#[inline(always)]
fn sequence(packet: &Packet<'_>) -> Result<u32, Refusal> {
    packet.load(packet.transport + TCP_SEQUENCE).map(u32::from_be_bytes)
}
