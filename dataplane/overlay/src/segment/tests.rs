use super::*;
use crate::{
    coalesce::merge,
    samples::{SEQUENCE, is_right, packet, transport},
    vnet::{PLAIN_LEN, TUNNEL_LEN},
};
use proptest::prelude::*;

const PSH_ACK: u8 = 0x18;

fn vnet_for(p: &[u8], kind: Kind, size: usize) -> Vnet {
    let csum_offset = if kind == Kind::Tcp { 16 } else { 6 };
    let gso = Some(Gso { kind, size, tunnel: None });
    Vnet { needs_checksum: true, csum_start: transport(p), csum_offset, gso }
}

fn split_all(vnet: &Vnet, p: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, Malformed> {
    let (mut out, mut scratch) = (vec![], vec![0; 65_536]);
    split(vnet, &mut p.to_vec(), mtu, &mut scratch, |s| out.push(s.to_vec()))?;
    Ok(out)
}

/// Merges, and gives each written header and packet.
fn merge_all(packets: &[Vec<u8>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut buf, mut places, mut out) = (vec![], vec![], vec![]);
    for p in packets {
        places.push(buf.len()..buf.len() + p.len());
        buf.extend_from_slice(p);
    }
    merge(&mut buf, &places, PLAIN_LEN, true, |pieces| {
        let packet = pieces[1..].iter().flat_map(|piece| piece.to_vec()).collect();
        out.push((pieces[0].to_vec(), packet));
    });
    out
}

/// What merging may change: the identification of IPv4, which the first packet's replaces.
fn without_id(p: &[u8]) -> Vec<u8> {
    let mut p = p.to_vec();
    if p.first().is_some_and(|b| b >> 4 == 4) && p.len() >= 20 {
        p[4..6].fill(0);
        p[10..12].fill(0);
    }
    p
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Tcp), Just(Kind::Udp)]
}

#[test]
fn a_lone_packet_gets_its_checksum_completed() {
    let right = packet(true, Kind::Tcp, b"hello", PSH_ACK, 0);
    let mut partial = right.clone();
    let pseudo = crate::checksum::fold(pseudo_header(&right, TCP, right.len() - 20));
    partial[36..38].copy_from_slice(&pseudo.to_ne_bytes());
    let vnet = Vnet { needs_checksum: true, csum_start: 20, csum_offset: 16, gso: None };
    assert_eq!(split_all(&vnet, &partial, 1420).unwrap(), [right]);
}

#[test]
fn push_and_fin_stay_with_the_last_segment_and_cwr_with_the_first() {
    let p = packet(false, Kind::Tcp, &[7; 250], 0x99, 0);
    let flags: Vec<u8> = split_all(&vnet_for(&p, Kind::Tcp, 100), &p, 1420)
        .unwrap()
        .iter()
        .map(|s| s[40 + 13])
        .collect();
    assert_eq!(flags, [0x90, 0x10, 0x19]);
}

#[test]
fn tcp_segments_are_cut_to_the_mtu() {
    let p = packet(true, Kind::Tcp, &[7; 6000], PSH_ACK, 0);
    let segments = split_all(&vnet_for(&p, Kind::Tcp, 1448), &p, 1420).unwrap();
    assert_eq!(segments.iter().map(Vec::len).max(), Some(1420));
    assert!(segments.iter().all(|s| is_right(s)));
}

/// Outer IP and UDP, 8 bytes of Geneve, and a whole inner super-packet.
fn geneve(outer_v4: bool, inner: &[u8]) -> Vec<u8> {
    let mut content = vec![0, 0, 0x08, 0, 0, 0, 1, 0];
    content.extend_from_slice(inner);
    let mut p = packet(outer_v4, Kind::Udp, &content, 0, 0);
    let l4 = transport(&p);
    p[l4 + 2..l4 + 4].copy_from_slice(&6081u16.to_be_bytes());
    p[l4 + 6..l4 + 8].fill(0); // as eBPF leaves it
    p
}

#[test]
fn segments_of_a_tunnel_are_right_outside_and_inside() {
    for (outer_v4, inner_v4) in [(true, true), (true, false), (false, true), (false, false)] {
        let payload: Vec<u8> = (0..3000).map(|i| i as u8).collect();
        let inner = packet(inner_v4, Kind::Tcp, &payload, PSH_ACK, 0);
        let p = geneve(outer_v4, &inner);
        let outer_transport = transport(&p);
        let inner_network = outer_transport + 16;
        let tunnel = Some(Tunnel { outer_transport, inner_network });
        let vnet = Vnet {
            needs_checksum: true,
            csum_start: inner_network + transport(&inner),
            csum_offset: 16,
            gso: Some(Gso { kind: Kind::Tcp, size: 1000, tunnel }),
        };
        let segments = split_all(&vnet, &p, 1420).unwrap();
        assert_eq!(segments.len(), 3);
        let mut got = vec![];
        for (i, s) in segments.iter().enumerate() {
            assert!(is_right(&s[inner_network..]), "inner {i} of {outer_v4} {inner_v4}");
            let checksum = &s[outer_transport + 6..outer_transport + 8];
            match outer_v4 {
                true => {
                    assert_eq!(checksum, [0, 0]);
                    let mut with_checksum = s.clone();
                    crate::samples::fix(&mut with_checksum);
                    with_checksum[26..28].fill(0);
                    assert_eq!(*s, with_checksum, "outer lengths and IP checksum");
                }
                false => assert!(is_right(s), "outer {i}"),
            }
            let l4 = inner_network + transport(&inner);
            let sequence = u32::from_be_bytes(s[l4 + 4..l4 + 8].try_into().unwrap());
            assert_eq!(sequence, SEQUENCE.wrapping_add(got.len() as u32));
            got.extend_from_slice(&s[l4 + 32..]);
        }
        assert_eq!(got, payload);
    }
}

#[test]
fn geneve_packets_are_never_merged() {
    let mut p = geneve(true, &packet(true, Kind::Tcp, &[1; 100], PSH_ACK, 0));
    crate::samples::fix(&mut p);
    assert_eq!(merge_all(&[p.clone(), p]).len(), 2);
}

#[test]
fn udp_is_not_merged_for_a_kernel_that_cannot_take_it() {
    let p = packet(true, Kind::Udp, &[1; 100], 0, 0);
    let (mut buf, places) = ([p.clone(), p.clone()].concat(), [0..p.len(), p.len()..2 * p.len()]);
    let mut writes = 0;
    merge(&mut buf, &places, TUNNEL_LEN, false, |pieces| {
        writes += 1;
        assert_eq!((pieces[0].len(), pieces[0][1]), (TUNNEL_LEN, 0));
    });
    assert_eq!(writes, 2);
}

#[test]
fn a_wrong_checksum_is_passed_on_as_it_is() {
    let good = packet(true, Kind::Tcp, &[1; 100], 0x10, 0);
    let mut bad = packet(true, Kind::Tcp, &[1; 100], 0x10, 100);
    bad[60] ^= 1;
    let out = merge_all(&[good.clone(), bad.clone()]);
    assert_eq!(out.iter().map(|(_, p)| p.clone()).collect::<Vec<_>>(), [good, bad]);
}

proptest! {
    #[test]
    fn split_then_merge_gives_the_same_stream(
        v4: bool,
        kind in kinds(),
        payload in prop::collection::vec(any::<u8>(), 1..20_000),
        size in 600usize..1_400,
    ) {
        let p = packet(v4, kind, &payload, PSH_ACK, 0);
        let vnet = vnet_for(&p, kind, size);
        let segments = split_all(&vnet, &p, 9_000).unwrap();
        prop_assert!(segments.iter().all(|s| is_right(s)));
        let out = merge_all(&segments);
        prop_assert_eq!(out.len(), 1);
        let headers = p.len() - payload.len();
        let (header, merged) = &out[0];
        prop_assert_eq!(&merged[headers..], &payload[..]);
        if segments.len() > 1 {
            prop_assert_eq!(Vnet::parse(header), Some(vnet));
            // All but the checksum, which the kernel completes.
            let mut whole = merged.clone();
            crate::samples::fix(&mut whole);
            prop_assert_eq!(whole, p);
        } else {
            prop_assert_eq!(merged, &p);
        }
    }

    /// A peer may send anything: what comes out is what went in.
    #[test]
    fn merged_packets_are_the_ones_that_came_whatever_they_are(
        v4: bool,
        kind in kinds(),
        sizes in prop::collection::vec(1usize..300, 1..12),
        changes in prop::collection::vec((0usize..12, 0usize..100, any::<u8>(), any::<bool>()), 0..6),
    ) {
        let mut offset = 0;
        let mut packets = vec![];
        for size in sizes {
            packets.push(packet(v4, kind, &vec![size as u8; size], 0x10, offset));
            offset += size as u32;
        }
        for (which, at, value, honest) in changes {
            let count = packets.len();
            let p = &mut packets[which % count];
            let at = at % p.len();
            p[at] = value;
            // With a right checksum, it gets further.
            let known = (v4 && p[0] == 0x45 || !v4 && p[0] >> 4 == 6)
                && [TCP, UDP].contains(&p[if v4 { 9 } else { 6 }])
                && p.len() >= transport(p) + 20;
            if honest && known {
                crate::samples::fix(p);
            }
        }
        let mut out = vec![];
        for (header, merged) in merge_all(&packets) {
            let vnet = Vnet::parse(&header).unwrap();
            out.extend(split_all(&vnet, &merged, 65_000).unwrap());
        }
        let normal = |list: &[Vec<u8>]| list.iter().map(|p| without_id(p)).collect::<Vec<_>>();
        prop_assert_eq!(normal(&out), normal(&packets));
    }

    #[test]
    fn noise_is_merged_into_itself(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..10),
    ) {
        let out: Vec<_> = merge_all(&packets).into_iter().map(|(_, p)| p).collect();
        prop_assert_eq!(out, packets);
    }

    #[test]
    fn a_header_that_contradicts_its_packet_is_refused_and_never_panics(
        header in prop::collection::vec(any::<u8>(), TUNNEL_LEN),
        small in prop::collection::vec(0u16..100, 6),
        gso_type in prop_oneof![Just(0u8), Just(1), Just(4), Just(5), Just(0x21), Just(0x45)],
        mut p in prop::collection::vec(any::<u8>(), 0..200),
        version in prop_oneof![Just(0x45u8), Just(0x60)],
    ) {
        let mut header = header;
        header[1] = gso_type;
        for (at, value) in [4, 6, 8, 20, 22, 2].into_iter().zip(&small) {
            header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        if let Some(first) = p.first_mut() {
            *first = version;
        }
        if let Some(vnet) = Vnet::parse(&header) {
            let _ = split_all(&vnet, &p, 1420);
        }
        if let Some(vnet) = Vnet::parse(&header[..PLAIN_LEN]) {
            let _ = split_all(&vnet, &p, 1420);
        }
    }
}
