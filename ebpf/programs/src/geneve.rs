//! Geneve (RFC 8926) over IPv4 between nodes, inside the tunnel: a client's packet travels to the
//! task's node, and the answer back, with the addresses it had outside.
use aya_ebpf::{
    bindings::{
        BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{bpf_skb_adjust_room, bpf_skb_change_proto},
};
use shoal_maps::{Address, DropReason, GENEVE_PORT};

use crate::{
    Refusal, balance,
    packet::{ETHERNET, ETHERTYPE_V4, ETHERTYPE_V6, Ipv4, Packet, UDP},
};

/// Bytes of the outer headers: IPv4, UDP, Geneve without options.
pub(crate) const OVERHEAD: u32 = size_of::<Outer>() as u32;
/// The port as on the wire.
pub(crate) const PORT: [u8; 2] = GENEVE_PORT.to_be_bytes();

/// IPv4 header of 20 bytes, TTL 64, not to be fragmented (RFC 791).
const VERSION_LENGTH: u8 = 0x45;
const TTL: u8 = 64;
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
/// Bytes that an IPv6 header is longer than one of IPv4 (RFC 8200, 3; RFC 791, 3.1).
const V6_LONGER: u32 = 20;
/// The kernel's `-EINVAL`.
const UNKNOWN_FLAG: i64 = -22;

#[repr(C)]
#[derive(Clone, Copy)]
struct Udp {
    source: [u8; 2],
    destination: [u8; 2],
    length: [u8; 2],
    checksum: [u8; 2],
}

/// RFC 8926, 3.4: version and option length, flags, protocol of the payload, VNI.
#[repr(C)]
#[derive(Clone, Copy)]
struct Geneve {
    version_options: u8,
    flags: u8,
    protocol: [u8; 2],
    vni: [u8; 3],
    reserved: u8,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Outer {
    ip: Ipv4,
    udp: Udp,
    geneve: Geneve,
}

/// Puts the packet, which has an Ethernet header, into an outer one from node to node.
#[inline(always)]
pub(crate) fn encapsulate(
    packet: &mut Packet<'_>,
    from: &Address,
    to: &Address,
    vni: u32,
) -> Result<(), Refusal> {
    let mut flags = u64::from(BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP)
        | (size_of::<Geneve>() as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
    if packet.protocol == UDP {
        // A datagram's size is the application's; TCP's segments shrink by the overhead.
        flags |= u64::from(BPF_F_ADJ_ROOM_FIXED_GSO);
    }
    // SAFETY: the helper makes the room or fails.
    if unsafe { bpf_skb_adjust_room(packet.skb(), OVERHEAD as i32, BPF_ADJ_ROOM_MAC, flags) } != 0 {
        return Err(DropReason::Helper.into());
    }
    let outer = outer(packet, v4(from), v4(to), vni);
    packet.store(ETHERNET, outer)?;
    packet.store(ETHERNET - 2, ETHERTYPE_V4)
}

#[inline(always)]
fn outer(packet: &Packet<'_>, from: [u8; 4], to: [u8; 4], vni: u32) -> Outer {
    // An aggregated packet may be longer than the field can say: its segments get their own.
    let total = (packet.length + OVERHEAD).min(u32::from(u16::MAX)) as u16;
    let vni = vni.to_be_bytes();
    let mut ip = Ipv4 {
        version_length: VERSION_LENGTH,
        service: 0,
        total_length: total.to_be_bytes(),
        id: [0; 2],
        fragment: DONT_FRAGMENT,
        ttl: TTL,
        protocol: UDP,
        checksum: [0; 2],
        source: from,
        destination: to,
    };
    ip.checksum = header_checksum(&ip);
    Outer {
        ip,
        udp: Udp {
            source: entropy(packet),
            destination: PORT,
            length: (total - size_of::<Ipv4>() as u16).to_be_bytes(),
            // RFC 8926, 3.3: none over IPv4; the tunnel authenticates every byte.
            checksum: [0; 2],
        },
        geneve: Geneve {
            version_options: 0,
            flags: 0,
            protocol: packet.ethertype(),
            vni: [vni[1], vni[2], vni[3]],
            reserved: 0,
        },
    }
}

/// RFC 1071 over a header without options.
#[inline(always)]
fn header_checksum(ip: &Ipv4) -> [u8; 2] {
    let word = |bytes: [u8; 2]| u32::from(u16::from_be_bytes(bytes));
    let sum = word([ip.version_length, ip.service])
        + word(ip.total_length)
        + word(ip.id)
        + word(ip.fragment)
        + word([ip.ttl, ip.protocol])
        + word([ip.source[0], ip.source[1]])
        + word([ip.source[2], ip.source[3]])
        + word([ip.destination[0], ip.destination[1]])
        + word([ip.destination[2], ip.destination[3]]);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

/// RFC 8926, 3.3: a source port from the dynamic range that differs from flow to flow, so that
/// whoever spreads packets by ports keeps each flow together.
#[inline(always)]
fn entropy(packet: &Packet<'_>) -> [u8; 2] {
    let ports = u64::from(u16::from_be_bytes(packet.source_port)) << 16
        | u64::from(u16::from_be_bytes(packet.destination_port));
    (0xc000 | (balance::mix(ports) as u16 & 0x3fff)).to_be_bytes()
}

/// What an outer packet says of the one inside.
pub(crate) struct Inside {
    /// Which task, or zero.
    pub(crate) vni: u32,
    /// Offset of the inner IP header.
    pub(crate) base: u32,
}

/// Whether this is UDP to Geneve's port.
#[inline(always)]
pub(crate) fn is_geneve(packet: &Packet<'_>) -> bool {
    packet.protocol == UDP && !packet.fragment && packet.destination_port == PORT
}

/// Reads the outer headers of a packet that [`is_geneve`].
#[inline(always)]
pub(crate) fn inside(packet: &Packet<'_>) -> Result<Inside, Refusal> {
    if packet.v6 || packet.transport != packet.base + size_of::<Ipv4>() as u32 {
        return Err(DropReason::BadEncapsulation.into());
    }
    let geneve: Geneve = packet.load(packet.transport + size_of::<Udp>() as u32)?;
    let known = geneve.protocol == ETHERTYPE_V4 || geneve.protocol == ETHERTYPE_V6;
    if geneve.version_options != 0 || !known {
        return Err(DropReason::BadEncapsulation.into());
    }
    let vni = u32::from_be_bytes([0, geneve.vni[0], geneve.vni[1], geneve.vni[2]]);
    Ok(Inside { vni, base: packet.base + OVERHEAD })
}

/// Takes the outer headers off; `packet` is the inner one.
#[inline(always)]
pub(crate) fn decapsulate(packet: &mut Packet<'_>) -> Result<(), Refusal> {
    let family = if packet.v6 { BPF_F_ADJ_ROOM_DECAP_L3_IPV6 } else { BPF_F_ADJ_ROOM_DECAP_L3_IPV4 };
    let refused = match shrink(packet, OVERHEAD, family) {
        // Before Linux 6.3 the helper does not know these flags.
        UNKNOWN_FLAG => uncover(packet),
        result => result,
    };
    if refused != 0 {
        return Err(DropReason::Helper.into());
    }
    packet.base -= OVERHEAD;
    packet.transport -= OVERHEAD;
    Ok(())
}

/// Takes the outer headers off without the helper's changing the packet's family itself.
#[inline(always)]
fn uncover(packet: &Packet<'_>) -> i64 {
    if !packet.v6 {
        return shrink(packet, OVERHEAD, 0);
    }
    let v6 = u16::from_ne_bytes(ETHERTYPE_V6);
    // SAFETY: the helper changes the family and makes room for the longer header, or fails.
    match unsafe { bpf_skb_change_proto(packet.skb(), v6, 0) } {
        // The longer header has its room already: that goes, too.
        0 => shrink(packet, OVERHEAD + V6_LONGER, 0),
        refused => refused,
    }
}

/// Takes bytes off in front of the inner IP header.
#[inline(always)]
fn shrink(packet: &Packet<'_>, bytes: u32, family: u32) -> i64 {
    // Aggregated segments keep their size: growing it by the overhead would not fit the uplink.
    let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | family);
    // SAFETY: the helper takes the bytes off or fails.
    unsafe { bpf_skb_adjust_room(packet.skb(), -(bytes as i32), BPF_ADJ_ROOM_MAC, flags) }
}

#[inline(always)]
fn v4(address: &Address) -> [u8; 4] {
    let a = &address.0;
    [a[12], a[13], a[14], a[15]]
}
