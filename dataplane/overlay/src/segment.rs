//! Super-packets from the TUN → packets of the wire's size with all their checksums: what a
//! network card does for TCP and UDP segmentation offload, also within one UDP tunnel (Geneve).

use crate::{
    checksum::{TCP, UDP, finish, pseudo_header, set_ip_length, sum},
    vnet::{Gso, Kind, Tunnel, Vnet},
};

const TCP_FIN_PSH: u8 = 0x09;
const TCP_CWR: u8 = 0x80;

/// The packet and its virtio header contradict each other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Calls `emit` with each packet that `packet` stands for. `scratch` takes one packet of any size;
/// being reused at once it stays in the processor's nearest cache, so that the copy costs little.
///
/// TCP segments longer than `mtu` are cut smaller: a redirect by eBPF into the device does not check
/// the MTU. UDP datagrams cannot be, and are left to the outer packet's fragmentation.
pub(crate) fn split(
    vnet: &Vnet,
    packet: &mut [u8],
    mtu: usize,
    scratch: &mut [u8],
    mut emit: impl FnMut(&[u8]),
) -> Result<(), Malformed> {
    let Some(gso) = &vnet.gso else {
        if vnet.needs_checksum {
            complete_checksum(vnet, packet)?;
        }
        emit(packet);
        return Ok(());
    };
    let cutter = Cutter::new(vnet, gso, packet).ok_or(Malformed)?;
    let size = match gso.kind {
        Kind::Tcp => gso.size.min(mtu.saturating_sub(cutter.headers).max(1)),
        Kind::Udp => gso.size,
    };
    let payload = packet.len() - cutter.headers;
    for (index, from) in (0..payload).step_by(size).enumerate() {
        let to = payload.min(from + size);
        let len = cutter.cut(index as u16, from, to, scratch);
        emit(&scratch[..len]);
    }
    Ok(())
}

/// The field already holds the sum of the pseudo header.
fn complete_checksum(vnet: &Vnet, packet: &mut [u8]) -> Result<(), Malformed> {
    let at = vnet.csum_start + vnet.csum_offset;
    if at + 2 > packet.len() {
        return Err(Malformed);
    }
    let checksum = finish(sum(&packet[vnet.csum_start..]));
    packet[at..at + 2].copy_from_slice(&checksum);
    Ok(())
}

/// Cuts segments out of one super-packet.
struct Cutter<'a> {
    packet: &'a [u8],
    kind: Kind,
    tunnel: Option<Tunnel>,
    /// Start of the IP header next to the transport header.
    network: usize,
    transport: usize,
    /// Length of all headers, where the payload starts.
    headers: usize,
}

impl<'a> Cutter<'a> {
    /// None if the headers do not fit the packet or each other.
    fn new(vnet: &Vnet, gso: &Gso, packet: &'a [u8]) -> Option<Cutter<'a>> {
        let network = match gso.tunnel {
            None => 0,
            Some(tunnel) => {
                let outer = ip_header_min(packet, 0)?;
                let fits = tunnel.outer_transport >= outer
                    && tunnel.outer_transport + 8 <= tunnel.inner_network;
                fits.then_some(tunnel.inner_network)?
            }
        };
        let transport = vnet.csum_start;
        if transport < network + ip_header_min(packet, network)? {
            return None;
        }
        let (length, csum_offset) = match gso.kind {
            Kind::Tcp => (usize::from(*packet.get(transport + 12)? >> 4) * 4, 16),
            Kind::Udp => (8, 6),
        };
        let headers = transport + length;
        let fits = vnet.csum_offset == csum_offset
            && length > csum_offset + 1
            && headers < packet.len()
            && packet.len() < 1 << 16
            && gso.size > 0;
        let tunnel = gso.tunnel;
        fits.then_some(Cutter { packet, kind: gso.kind, tunnel, network, transport, headers })
    }

    /// Writes the segment with the payload bytes `from..to` to `out`; returns its length.
    fn cut(&self, index: u16, from: usize, to: usize, out: &mut [u8]) -> usize {
        let len = self.headers + to - from;
        let segment = &mut out[..len];
        segment[..self.headers].copy_from_slice(&self.packet[..self.headers]);
        segment[self.headers..]
            .copy_from_slice(&self.packet[self.headers + from..self.headers + to]);
        self.fix_inner(index, from, to, &mut segment[self.network..]);
        if let Some(tunnel) = self.tunnel {
            fix_outer(index, tunnel.outer_transport, segment);
        }
        len
    }

    fn fix_inner(&self, index: u16, from: usize, to: usize, ip: &mut [u8]) {
        let (len, transport) = (ip.len(), self.transport - self.network);
        fix_ip(index, transport, ip);
        let l4 = &mut ip[transport..];
        let (protocol, csum_at) = match self.kind {
            Kind::Tcp => {
                let last = self.headers + to == self.packet.len();
                fix_tcp(l4, from as u32, index == 0, last);
                (TCP, 16)
            }
            Kind::Udp => {
                l4[4..6].copy_from_slice(&((len - transport) as u16).to_be_bytes());
                (UDP, 6)
            }
        };
        l4[csum_at..csum_at + 2].fill(0);
        let checksum = finish(sum(l4) + pseudo_header(ip, protocol, len - transport));
        ip[transport + csum_at..transport + csum_at + 2].copy_from_slice(&checksum);
    }
}

/// Least length of the IP header at `at`; none if there cannot be one.
fn ip_header_min(packet: &[u8], at: usize) -> Option<usize> {
    let len = match packet.get(at)? >> 4 {
        4 => 20,
        6 => 40,
        _ => return None,
    };
    (packet.len() >= at + len).then_some(len)
}

/// Length, checksum and, for IPv4, the identification, which grows as if each segment had been
/// sent by itself.
fn fix_ip(index: u16, header_len: usize, ip: &mut [u8]) {
    if ip[0] >> 4 == 4 {
        let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(index);
        ip[4..6].copy_from_slice(&id.to_be_bytes());
    }
    set_ip_length(ip, header_len, ip.len());
}

fn fix_tcp(tcp: &mut [u8], offset: u32, first: bool, last: bool) {
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(offset);
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    if !last {
        tcp[13] &= !TCP_FIN_PSH;
    }
    if !first {
        tcp[13] &= !TCP_CWR; // RFC 3168, section 6.1.2: once
    }
}

/// The tunnel's own headers. Its UDP checksum may be absent (zero) over IPv4, as Geneve recommends;
/// over IPv6 it may not (RFC 8200, section 8.1).
fn fix_outer(index: u16, transport: usize, packet: &mut [u8]) {
    fix_ip(index, transport, packet);
    let length = packet.len() - transport;
    let wanted = packet[0] >> 4 == 6 || packet[transport + 6..transport + 8] != [0, 0];
    let udp = &mut packet[transport..];
    udp[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    udp[6..8].fill(0);
    if wanted {
        let checksum = finish(sum(udp) + pseudo_header(packet, UDP, length));
        packet[transport + 6..transport + 8].copy_from_slice(&checksum);
    }
}

#[cfg(test)]
mod tests;
