//! Translation of addresses and ports, with the checksums that cover them.
use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace},
};
use shoal_maps::{Address, DropReason};

use crate::{
    Refusal,
    packet::{Packet, TCP_ACKNOWLEDGEMENT, TCP_CHECKSUM, UDP},
};

/// Linux 6.16, `include/uapi/linux/bpf.h`: the pseudo header is IPv6's, which has no checksum of its
/// own to cancel the change in a sum over the whole packet. Older kernels refuse the flag.
const BPF_F_IPV6: u64 = 1 << 7;

/// Which end of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Writes a new address.
#[inline(always)]
pub(crate) fn address(packet: &mut Packet<'_>, end: End, new: &Address) -> Result<(), Refusal> {
    if new.is_v4() == packet.v6 {
        // A table that mixes the families: nothing sensible can be sent.
        return Err(DropReason::Helper.into());
    }
    let old = match end {
        End::Source => packet.source,
        End::Destination => packet.destination,
    };
    if packet.v6 {
        address_v6(packet, end, &old, new)?
    } else {
        address_v4(packet, end, &old, new)?
    }
    match end {
        End::Source => packet.source = *new,
        End::Destination => packet.destination = *new,
    }
    Ok(())
}

#[inline(always)]
fn address_v4(packet: &Packet<'_>, end: End, old: &Address, new: &Address) -> Result<(), Refusal> {
    let (old, new) = (last_word(old), last_word(new));
    if let Some(at) = packet.checksum() {
        let flags = u64::from(BPF_F_PSEUDO_HDR) | 4 | mangled(packet);
        // SAFETY: the helper checks the offset.
        check(unsafe {
            bpf_l4_csum_replace(packet.skb(), at, u64::from(old), u64::from(new), flags)
        })?;
    }
    // RFC 791, 3.1: the header's checksum is at 10, the addresses at 12 and 16.
    // SAFETY: the helper checks the offset.
    check(unsafe {
        bpf_l3_csum_replace(packet.skb(), packet.base + 10, u64::from(old), u64::from(new), 4)
    })?;
    let at = if end == End::Source { 12 } else { 16 };
    packet.store(packet.base + at, new)
}

#[inline(always)]
fn address_v6(packet: &Packet<'_>, end: End, old: &Address, new: &Address) -> Result<(), Refusal> {
    if let Some(at) = packet.checksum() {
        let (mut old, mut new) = (*old, *new);
        // SAFETY: both are 16 bytes and aligned.
        let difference =
            unsafe { bpf_csum_diff((&raw mut old).cast(), 16, (&raw mut new).cast(), 16, 0) };
        let flags = u64::from(BPF_F_PSEUDO_HDR) | mangled(packet);
        // SAFETY: the helper checks the offset.
        let refused = unsafe {
            bpf_l4_csum_replace(packet.skb(), at, 0, difference as u64, flags | BPF_F_IPV6)
        };
        if refused != 0 {
            // SAFETY: as above.
            check(unsafe { bpf_l4_csum_replace(packet.skb(), at, 0, difference as u64, flags) })?;
        }
    }
    // RFC 8200, 3.
    let at = if end == End::Source { 8 } else { 24 };
    packet.store(packet.base + at, *new)
}

/// Writes a new port. The packet must have ports.
#[inline(always)]
pub(crate) fn port(packet: &mut Packet<'_>, end: End, new: [u8; 2]) -> Result<(), Refusal> {
    let (old, at) = match end {
        End::Source => (packet.source_port, 0),
        End::Destination => (packet.destination_port, 2),
    };
    if old == new {
        return Ok(());
    }
    if let Some(checksum) = packet.checksum() {
        word(packet, checksum, old, new, mangled(packet))?;
    }
    packet.store(packet.transport + at, new)?;
    match end {
        End::Source => packet.source_port = new,
        End::Destination => packet.destination_port = new,
    }
    Ok(())
}

/// Writes a new acknowledgement number. The packet must be TCP.
#[inline(always)]
pub(crate) fn acknowledgement(packet: &Packet<'_>, old: u32, new: u32) -> Result<(), Refusal> {
    let (old, new) = (old.to_be(), new.to_be());
    let at = packet.transport + TCP_CHECKSUM;
    // SAFETY: the helper checks the offset.
    check(unsafe { bpf_l4_csum_replace(packet.skb(), at, u64::from(old), u64::from(new), 4) })?;
    packet.store(packet.transport + TCP_ACKNOWLEDGEMENT, new)
}

/// Tells the checksum at `at` that two bytes change.
#[inline(always)]
pub(crate) fn word(
    packet: &Packet<'_>,
    at: u32,
    old: [u8; 2],
    new: [u8; 2],
    flags: u64,
) -> Result<(), Refusal> {
    let (old, new) = (u16::from_ne_bytes(old), u16::from_ne_bytes(new));
    // SAFETY: the helper checks the offset.
    check(unsafe {
        bpf_l4_csum_replace(packet.skb(), at, u64::from(old), u64::from(new), 2 | flags)
    })
}

/// RFC 768: a UDP checksum of zero means "none" and must stay, and one that becomes zero is sent as
/// all ones.
#[inline(always)]
fn mangled(packet: &Packet<'_>) -> u64 {
    if packet.protocol == UDP { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 }
}

#[inline(always)]
fn last_word(address: &Address) -> u32 {
    let a = &address.0;
    u32::from_ne_bytes([a[12], a[13], a[14], a[15]])
}

#[inline(always)]
fn check(refused: i64) -> Result<(), Refusal> {
    if refused == 0 { Ok(()) } else { Err(DropReason::Helper.into()) }
}
