//! A VIP answers ping, so that people can see it is there.
use shoal_maps::{DropReason, Endpoint};

use crate::{
    Refusal, deliver,
    packet::{ICMP, ICMP_V6, Packet},
    rewrite,
};

/// Type and code of an echo request and its reply: RFC 792, RFC 4443 sections 4.1, 4.2.
const ECHO_V4: ([u8; 2], [u8; 2]) = ([8, 0], [0, 0]);
const ECHO_V6: ([u8; 2], [u8; 2]) = ([128, 0], [129, 0]);
/// Offset of the checksum.
const CHECKSUM: u32 = 2;

/// Whether the packet is ICMP of its family.
#[inline(always)]
pub(crate) fn is_icmp(packet: &Packet<'_>) -> bool {
    packet.protocol == if packet.v6 { ICMP_V6 } else { ICMP }
}

/// Turns an echo request into its reply and sends it back to the container; other ICMP has no
/// meaning for a VIP.
#[inline(always)]
pub(crate) fn answer(packet: &mut Packet<'_>, sender: &Endpoint) -> Result<i32, Refusal> {
    let (request, reply) = if packet.v6 { ECHO_V6 } else { ECHO_V4 };
    let kind: [u8; 2] = packet.load(packet.transport)?;
    if kind != request {
        return Err(DropReason::NoEndpoint.into());
    }
    // Changing places leaves every checksum as it is; the type does not.
    rewrite::word(packet, packet.transport + CHECKSUM, request, reply, 0)?;
    packet.store(packet.transport, reply)?;
    swap_addresses(packet)?;
    deliver::back(packet, sender)
}

#[inline(always)]
fn swap_addresses(packet: &mut Packet<'_>) -> Result<(), Refusal> {
    if packet.v6 {
        let [source, destination]: [[u8; 16]; 2] = packet.load(packet.base + 8)?;
        packet.store(packet.base + 8, [destination, source])
    } else {
        let [source, destination]: [[u8; 4]; 2] = packet.load(packet.base + 12)?;
        packet.store(packet.base + 12, [destination, source])
    }
}
