//! Clamping of TCP's maximum segment size: a redirect into the tunnel checks no MTU, so both ends
//! must be told what fits through it encapsulated.
use shoal_maps::NodeConfig;

use crate::{
    Refusal, geneve,
    packet::{Packet, TCP_CHECKSUM},
    rewrite,
};

/// Options of TCP (RFC 9293, 3.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
const MAXIMUM_SEGMENT_SIZE_LENGTH: u8 = 4;
/// Options looked through; systems in use send at most seven with a SYN, and this one first.
const MAX_OPTIONS: u32 = 16;
/// TCP's header without options, bytes.
const TCP_HEADER: u32 = 20;
/// Where its length is (RFC 9293, 3.1: data offset).
const DATA_OFFSET: u32 = 12;
/// Below this nothing may be clamped: RFC 9293, 3.7.1, the smallest that must be understood.
const SMALLEST: u32 = 536;

/// Lowers the segment size a SYN or SYN-ACK offers to what the tunnel carries.
#[inline(always)]
pub(crate) fn clamp(packet: &Packet<'_>, config: &NodeConfig) -> Result<(), Refusal> {
    let ip = if packet.v6 { 40 } else { 20 };
    let limit = config.overlay_mtu.saturating_sub(geneve::OVERHEAD + ip + TCP_HEADER);
    let limit = limit.clamp(SMALLEST, u32::from(u16::MAX)) as u16;
    let offset: u8 = packet.load(packet.transport + DATA_OFFSET)?;
    let end = packet.transport + u32::from(offset >> 4) * 4;
    let mut at = packet.transport + TCP_HEADER;
    for _ in 0..MAX_OPTIONS {
        if at + u32::from(MAXIMUM_SEGMENT_SIZE_LENGTH) > end {
            return Ok(());
        }
        let [kind, length]: [u8; 2] = packet.load(at)?;
        match kind {
            END => return Ok(()),
            NO_OPERATION => at += 1,
            MAXIMUM_SEGMENT_SIZE if length == MAXIMUM_SEGMENT_SIZE_LENGTH => {
                return lower(packet, at, limit);
            }
            _ if length < 2 => return Ok(()),
            _ => at += u32::from(length),
        }
    }
    Ok(())
}

#[inline(always)]
fn lower(packet: &Packet<'_>, option: u32, limit: u16) -> Result<(), Refusal> {
    let offered: [u8; 2] = packet.load(option + 2)?;
    if u16::from_be_bytes(offered) <= limit {
        return Ok(());
    }
    let checksum = packet.transport + TCP_CHECKSUM;
    // An option may start at an odd offset; sums of shifted words swap their bytes (RFC 1071, 2).
    let new = limit.to_be_bytes();
    let odd = (option - packet.transport) % 2 == 1;
    let (from, to) = if odd { (swapped(offered), swapped(new)) } else { (offered, new) };
    rewrite::word(packet, checksum, from, to, 0)?;
    packet.store(option + 2, new)
}

#[inline(always)]
fn swapped([a, b]: [u8; 2]) -> [u8; 2] {
    [b, a]
}
