//! IP packets for tests.

use crate::{
    checksum::{TCP, UDP, finish, fold, pseudo_header, set_ip_length, sum},
    vnet::Kind,
};

/// Sequence number of the first byte.
pub(crate) const SEQUENCE: u32 = 0xffff_ff00; // wraps soon

/// From 10.0.0.1 to 10.0.0.2, or fd00::1 to fd00::2, all checksums right. `flags` are TCP's.
pub(crate) fn packet(v4: bool, kind: Kind, payload: &[u8], flags: u8, offset: u32) -> Vec<u8> {
    let (protocol, l4) = match kind {
        Kind::Tcp => (TCP, 32),
        Kind::Udp => (UDP, 8),
    };
    let ip_len = if v4 { 20 } else { 40 };
    let mut p = vec![0; ip_len + l4];
    if v4 {
        p[0] = 0x45;
        p[6] = 0x40;
        p[8] = 64;
        p[9] = protocol;
        p[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    } else {
        p[0] = 0x60;
        p[6] = protocol;
        p[7] = 64;
        (p[8], p[23], p[24], p[39]) = (0xfd, 1, 0xfd, 2);
    }
    p[ip_len..ip_len + 4].copy_from_slice(&[0x12, 0x34, 0x00, 0x50]);
    if kind == Kind::Tcp {
        let sequence = SEQUENCE.wrapping_add(offset);
        p[ip_len + 4..ip_len + 8].copy_from_slice(&sequence.to_be_bytes());
        p[ip_len + 12] = 0x80;
        p[ip_len + 13] = flags;
        p[ip_len + 20..ip_len + 22].copy_from_slice(&[1, 1]);
    }
    p.extend_from_slice(payload);
    fix(&mut p);
    p
}

/// Where the transport header of one of our packets is.
pub(crate) fn transport(p: &[u8]) -> usize {
    if p[0] >> 4 == 4 { 20 } else { 40 }
}

fn protocol(p: &[u8]) -> (u8, usize) {
    let protocol = if p[0] >> 4 == 4 { p[9] } else { p[6] };
    (protocol, if protocol == TCP { 16 } else { 6 })
}

/// Sets lengths and checksums.
pub(crate) fn fix(p: &mut [u8]) {
    let (l4, total) = (transport(p), p.len());
    let (protocol, at) = protocol(p);
    set_ip_length(p, l4, total);
    if protocol == UDP {
        p[l4 + 4..l4 + 6].copy_from_slice(&((total - l4) as u16).to_be_bytes());
    }
    p[l4 + at..l4 + at + 2].fill(0);
    let checksum = finish(sum(&p[l4..]) + pseudo_header(p, protocol, total - l4));
    p[l4 + at..l4 + at + 2].copy_from_slice(&checksum);
}

/// Whether lengths and checksums are right.
pub(crate) fn is_right(p: &[u8]) -> bool {
    let l4 = transport(p);
    let (protocol, _) = protocol(p);
    let be = |at: usize| usize::from(u16::from_be_bytes([p[at], p[at + 1]]));
    let v4 = p[0] >> 4 == 4;
    let total = if v4 { be(2) } else { 40 + be(4) };
    total == p.len()
        && (!v4 || fold(sum(&p[..20])) == 0xffff)
        && (protocol != UDP || be(l4 + 4) == total - l4)
        && fold(sum(&p[l4..]) + pseudo_header(p, protocol, total - l4)) == 0xffff
}
