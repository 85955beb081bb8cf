//! The header in front of each packet on the TUN: `struct virtio_net_hdr` (linux/virtio_net.h),
//! in the machine's byte order, alone or within the longer one that describes tunnels.

/// Bytes of the plain header.
pub(crate) const PLAIN_LEN: usize = 10;
/// Bytes of `struct virtio_net_hdr_v1_hash_tunnel`.
pub(crate) const TUNNEL_LEN: usize = 24;

const NEEDS_CSUM: u8 = 1;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP_L4: u8 = 5;
/// The packet carries TCP with CWR set: nothing else follows from it here.
const ECN: u8 = 0x80;
const UDP_TUNNEL: u8 = 0x20 | 0x40;

/// What kind of super-packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
}

/// Where the headers of an encapsulated super-packet are, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tunnel {
    pub(crate) outer_transport: usize,
    pub(crate) inner_network: usize,
}

/// How a super-packet is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gso {
    pub(crate) kind: Kind,
    /// Payload bytes of each segment.
    pub(crate) size: usize,
    pub(crate) tunnel: Option<Tunnel>,
}

/// The header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vnet {
    /// The transport checksum still has to be computed, from `csum_start`.
    pub(crate) needs_checksum: bool,
    /// Start of the (innermost) transport header.
    pub(crate) csum_start: usize,
    /// From there to the checksum field.
    pub(crate) csum_offset: usize,
    pub(crate) gso: Option<Gso>,
}

impl Vnet {
    /// None for what we did not ask the kernel for. `header` has one of the two lengths above.
    pub(crate) fn parse(header: &[u8]) -> Option<Vnet> {
        let field = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
        let tunnelled = header[1] & UDP_TUNNEL != 0;
        let kind = match header[1] & !(ECN | UDP_TUNNEL) {
            0 if !tunnelled => None,
            TCP_V4 | TCP_V6 => Some(Kind::Tcp),
            UDP_L4 => Some(Kind::Udp),
            _ => return None,
        };
        let tunnel = match tunnelled {
            true if header.len() < TUNNEL_LEN => return None,
            true => Some(Tunnel { outer_transport: field(20), inner_network: field(22) }),
            false => None,
        };
        Some(Vnet {
            needs_checksum: header[0] & NEEDS_CSUM != 0,
            csum_start: field(6),
            csum_offset: field(8),
            gso: kind.map(|kind| Gso { kind, size: field(4), tunnel }),
        })
    }

    /// The header for a packet that goes into the kernel; only its first bytes, as many as the
    /// device's header has, are used. `headers` is the length of all headers of a super-packet.
    pub(crate) fn encode(&self, v4: bool, headers: usize) -> [u8; TUNNEL_LEN] {
        let mut bytes = [0; TUNNEL_LEN];
        let Some(gso) = self.gso else { return bytes };
        bytes[0] = NEEDS_CSUM;
        bytes[1] = match gso.kind {
            Kind::Tcp if v4 => TCP_V4,
            Kind::Tcp => TCP_V6,
            Kind::Udp => UDP_L4,
        };
        let fields = [(2, headers), (4, gso.size), (6, self.csum_start), (8, self.csum_offset)];
        for (at, value) in fields {
            bytes[at..at + 2].copy_from_slice(&(value as u16).to_ne_bytes());
        }
        bytes
    }
}
