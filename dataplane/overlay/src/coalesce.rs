//! Decrypted packets → super-packets for the TUN, as GRO does it: consecutive packets of one flow
//! enter the kernel in one write, so that its IP and TCP layers run once per run and not per packet.
//!
//! The peer that sent the packets is authenticated, not trusted: whatever is in them must neither
//! crash us nor come out different from what went in.

use crate::{
    checksum::{TCP, UDP, fold, pseudo_header, set_ip_length, sum},
    vnet::{Gso, Kind, TUNNEL_LEN, Vnet},
};
use shoal_maps::GENEVE_PORT;
use std::{io::IoSlice, ops::Range};

const TCP_PSH: u8 = 0x08;
const TCP_ACK: u8 = 0x10;
/// `UDP_MAX_SEGMENTS` of the kernel before 6.9.
const MAX_UDP_SEGMENTS: usize = 64;
/// Keeps a write well below `IOV_MAX` (1,024 pieces), which tiny segments could reach.
const MAX_TCP_SEGMENTS: usize = 512;
/// An IP packet's length has 16 bits.
const MAX_PACKET: usize = 65_535;

/// Calls `write` for every run of `packets` (places in `buf`), in order, with the pieces of one
/// packet: virtio header (of `vnet_len` bytes), then the IP packet. `merge_udp` tells whether the
/// kernel takes UDP super-packets.
pub(crate) fn merge(
    buf: &mut [u8],
    packets: &[Range<usize>],
    vnet_len: usize,
    merge_udp: bool,
    mut write: impl FnMut(&[IoSlice<'_>]),
) {
    let mut rest = packets;
    while let Some((head, followers)) = rest.split_first() {
        let layout = Layout::of(&buf[head.clone()]).filter(|l| merge_udp || l.kind == Kind::Tcp);
        let Some(layout) = layout else {
            write(&[IoSlice::new(&[0; TUNNEL_LEN][..vnet_len]), IoSlice::new(&buf[head.clone()])]);
            rest = followers;
            continue;
        };
        let mut run = Run::start(layout, &buf[head.clone()]);
        let taken = followers.iter().take_while(|at| run.take(&buf[(*at).clone()])).count();
        let (tail, others) = followers.split_at(taken);
        let vnet = run.finish(&mut buf[head.clone()]);
        let mut pieces = Vec::with_capacity(2 + taken);
        pieces.extend([IoSlice::new(&vnet[..vnet_len]), IoSlice::new(&buf[head.clone()])]);
        pieces.extend(tail.iter().map(|at| IoSlice::new(&buf[at.start + layout.headers..at.end])));
        write(&pieces);
        rest = others;
    }
}

/// Where things are in a packet that may be merged.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Layout {
    v4: bool,
    kind: Kind,
    /// Start of the TCP or UDP header.
    transport: usize,
    /// Start of the payload.
    headers: usize,
}

impl Layout {
    /// None for all that must be passed on alone: fragments, IP options, SYN, FIN, RST, pure ACKs,
    /// no or wrong checksums, Geneve (several packets of a tunnel are not one) and nonsense.
    fn of(packet: &[u8]) -> Option<Layout> {
        let be = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
        let (v4, transport, protocol, total) = match packet.first()? >> 4 {
            4 if packet.len() > 20 => (true, 20, packet[9], be(2)),
            6 if packet.len() > 40 => (false, 40, packet[6], 40 + be(4)),
            _ => return None,
        };
        let fragment_or_options = v4 && (packet[0] != 0x45 || be(6) & 0x3fff != 0);
        if total != packet.len() || fragment_or_options {
            return None;
        }
        let (kind, length) = match protocol {
            TCP if packet.len() > transport + 20 => {
                let plain = packet[transport + 13] & !TCP_PSH == TCP_ACK;
                let length = usize::from(packet[transport + 12] >> 4) * 4;
                (plain && length >= 20).then_some((Kind::Tcp, length))?
            }
            UDP if packet.len() > transport + 8 => {
                let whole = be(transport + 4) == packet.len() - transport;
                let mergeable = whole
                    && be(transport + 6) != 0
                    && be(transport + 2) != usize::from(GENEVE_PORT);
                mergeable.then_some((Kind::Udp, 8))?
            }
            _ => return None,
        };
        let headers = transport + length;
        // A merged packet gets a fresh checksum from the kernel, which would hide that the
        // sender's own was wrong. So it is verified before (some 40 ns for 1,420 bytes).
        let l4 = packet.len() - transport;
        let intact = headers < packet.len()
            && fold(sum(&packet[transport..]) + pseudo_header(packet, protocol, l4)) == 0xffff
            && (!v4 || fold(sum(&packet[..20])) == 0xffff);
        intact.then_some(Layout { v4, kind, transport, headers })
    }
}

/// Packets that will be one write.
struct Run {
    layout: Layout,
    /// The first packet's headers, to compare with. 60 bytes of TCP after 40 of IPv6 at most.
    head: [u8; 100],
    /// Payload bytes of all packets but the last.
    size: usize,
    count: usize,
    /// Payload bytes of all packets.
    payload: usize,
    next_sequence: u32,
    pushed: bool,
    /// Nothing may follow.
    closed: bool,
}

impl Run {
    fn start(layout: Layout, packet: &[u8]) -> Run {
        let payload = packet.len() - layout.headers;
        let mut head = [0; 100];
        head[..layout.headers].copy_from_slice(&packet[..layout.headers]);
        let pushed = is_pushed(&layout, packet);
        let next_sequence = sequence(&layout, packet).wrapping_add(payload as u32);
        Run {
            layout,
            head,
            size: payload,
            count: 1,
            payload,
            next_sequence,
            pushed,
            closed: pushed,
        }
    }

    /// Adds the packet if it may follow.
    fn take(&mut self, packet: &[u8]) -> bool {
        if self.closed || Layout::of(packet) != Some(self.layout) || !self.continues(packet) {
            return false;
        }
        let size = packet.len() - self.layout.headers;
        self.count += 1;
        self.payload += size;
        self.next_sequence = self.next_sequence.wrapping_add(size as u32);
        self.pushed = is_pushed(&self.layout, packet);
        self.closed = self.pushed || size < self.size;
        true
    }

    /// Whether all but lengths, checksums, IP id, sequence number and PSH is as in the first packet.
    fn continues(&self, packet: &[u8]) -> bool {
        let Layout { v4, kind, transport, headers } = self.layout;
        let same = |range: Range<usize>| packet[range.clone()] == self.head[range];
        let same_ip = match v4 {
            true => same(1..2) && same(6..9) && same(12..20),
            false => same(0..4) && same(7..40),
        };
        let same_flow = match kind {
            Kind::Tcp => {
                sequence(&self.layout, packet) == self.next_sequence
                    && same(transport + 8..transport + 13)
                    && same(transport + 14..transport + 16)
                    && same(transport + 18..headers)
            }
            Kind::Udp => true,
        };
        let bound = if kind == Kind::Tcp { MAX_TCP_SEGMENTS } else { MAX_UDP_SEGMENTS };
        let size = packet.len() - headers;
        let fits =
            size <= self.size && headers + self.payload + size <= MAX_PACKET && self.count < bound;
        fits && same_ip && same(transport..transport + 4) && same_flow
    }

    /// Turns the first packet's headers into those of the whole run; returns the virtio header.
    fn finish(&self, head: &mut [u8]) -> [u8; TUNNEL_LEN] {
        if self.count == 1 {
            return [0; TUNNEL_LEN];
        }
        let Layout { v4, kind, transport, headers } = self.layout;
        let total = headers + self.payload;
        set_ip_length(head, transport, total);
        let (protocol, csum_offset) = match kind {
            Kind::Tcp => {
                head[transport + 13] |= if self.pushed { TCP_PSH } else { 0 };
                (TCP, 16)
            }
            Kind::Udp => {
                let length = (total - transport) as u16;
                head[transport + 4..transport + 6].copy_from_slice(&length.to_be_bytes());
                (UDP, 6)
            }
        };
        // The kernel completes it, from the sum of the pseudo header.
        let partial = fold(pseudo_header(head, protocol, total - transport));
        let at = transport + csum_offset;
        head[at..at + 2].copy_from_slice(&partial.to_ne_bytes());
        let gso = Gso { kind, size: self.size, tunnel: None };
        Vnet { needs_checksum: true, csum_start: transport, csum_offset, gso: Some(gso) }
            .encode(v4, headers)
    }
}

fn sequence(layout: &Layout, packet: &[u8]) -> u32 {
    let at = layout.transport + 4;
    match layout.kind {
        Kind::Tcp => {
            u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
        }
        Kind::Udp => 0,
    }
}

fn is_pushed(layout: &Layout, packet: &[u8]) -> bool {
    layout.kind == Kind::Tcp && packet[layout.transport + 13] & TCP_PSH != 0
}
