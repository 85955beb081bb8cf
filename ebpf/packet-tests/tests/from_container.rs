//! Packets a container sends, under `BPF_PROG_TEST_RUN`.
use std::net::IpAddr;

use shoal_maps::DropReason;
use shoal_packet_tests::{
    ACK, Bench, Family, Frame, Kind, SYN, host_mac, in_both_families, isolated, local_mac,
};

const APP: u64 = 1;
const DB: u64 = 2;
const INGRESS: u64 = 3;
const WEB: u64 = 100;
const OVERLAY_NODE: u8 = 202;

/// The sender is `app(2)`, task 2; a neighbour here `app(3)`; one elsewhere `app(4)`; a VIP `app(100)`.
fn bench(family: Family) -> Bench {
    let mut bench = Bench::new("from_container");
    let (here, other) = (bench.ifindex, bench.other);
    let tables = &mut bench.tables;
    tables.config(Family::V4.ingress(201), other, other);
    tables.endpoint(family.app(2), APP, 2, here);
    tables.endpoint(family.app(3), APP, 3, other);
    tables.endpoint(family.app(4), APP, 4, 0);
    tables.endpoint(family.db(5), DB, 5, other);
    tables.endpoint(family.ingress(2), INGRESS, 2, here);
    tables.endpoint(Family::V4.ingress(OVERLAY_NODE), INGRESS, 0, 0);
    bench
}

fn vip(bench: &mut Bench, family: Family, backends: &[(IpAddr, u64)]) {
    bench.tables.vip(family.app(100), WEB, APP, backends);
}

in_both_families! {
    fn a_packet_for_a_local_container_is_handed_over_unchanged_but_for_its_macs(f) {
        let mut bench = bench(f);
        let sent = Frame::tcp((f.app(2), 4_000), (f.app(3), 80));
        let got = bench.run(&sent).redirected();
        assert_eq!(got, Frame { to: local_mac(bench.other), from: host_mac(bench.other), ..sent });
    }
    fn a_packet_for_a_container_elsewhere_goes_out_unchanged(f) {
        let mut bench = bench(f);
        let sent = Frame::tcp((f.app(2), 4_000), (f.app(4), 80));
        assert_eq!(bench.run(&sent).redirected(), sent);
    }
    fn another_containers_address_is_spoofed(f) {
        let sent = Frame::udp((f.app(3), 4_000), (f.app(4), 80));
        bench(f).expect_drop(&sent, DropReason::SpoofedSource);
    }
    fn an_address_of_nobody_is_spoofed(f) {
        let sent = Frame::udp((f.app(77), 4_000), (f.app(3), 80));
        bench(f).expect_drop(&sent, DropReason::SpoofedSource);
    }
    fn an_address_of_a_container_elsewhere_is_spoofed(f) {
        let sent = Frame::udp((f.app(4), 4_000), (f.app(3), 80));
        bench(f).expect_drop(&sent, DropReason::SpoofedSource);
    }
    fn a_container_of_another_network_is_out_of_reach(f) {
        let sent = Frame::tcp((f.app(2), 4_000), (f.db(5), 80));
        bench(f).expect_drop(&sent, DropReason::OtherNetwork);
    }
    fn an_unknown_destination_is_dropped(f) {
        let sent = Frame::tcp((f.app(2), 4_000), (f.app(99), 80));
        bench(f).expect_drop(&sent, DropReason::NoEndpoint);
    }
    fn ping_between_containers_is_forwarded(f) {
        let sent = Frame::ping(f.app(2), f.app(3));
        let got = bench(f).run(&sent).redirected();
        assert_eq!((got.source, got.kind), (sent.source, sent.kind));
    }
    fn a_vip_answers_ping(f) {
        let mut bench = bench(f);
        vip(&mut bench, f, &[]);
        let sent = Frame::ping(f.app(2), f.app(100));
        let kind = if f == Family::V4 { [0, 0] } else { [129, 0] };
        let expected = Frame {
            source: (f.app(100), 77).into(),
            destination: (f.app(2), 0).into(),
            to: local_mac(bench.ifindex),
            from: host_mac(bench.ifindex),
            kind: Kind::Icmp { kind },
            ..sent.clone()
        };
        assert_eq!(bench.run(&sent).redirected(), expected);
    }
    fn a_vip_of_another_network_does_not_answer_ping(f) {
        let mut bench = bench(f);
        bench.tables.vip(f.db(100), WEB, DB, &[]);
        bench.expect_drop(&Frame::ping(f.app(2), f.db(100)), DropReason::OtherNetwork);
    }
    fn a_vip_of_another_network_is_out_of_reach(f) {
        let mut bench = bench(f);
        bench.tables.vip(f.db(100), WEB, DB, &[(f.db(5), 5)]);
        let sent = Frame::tcp((f.app(2), 4_000), (f.db(100), 80));
        bench.expect_drop(&sent, DropReason::OtherNetwork);
    }
    fn a_vip_without_backends_drops(f) {
        let mut bench = bench(f);
        vip(&mut bench, f, &[]);
        let sent = Frame::tcp((f.app(2), 4_000), (f.app(100), 80));
        bench.expect_drop(&sent, DropReason::NoBackend);
    }
    fn tcp_for_a_vip_gets_a_backend_and_keeps_its_ports(f) {
        let mut bench = bench(f);
        vip(&mut bench, f, &[(f.app(3), 3)]);
        let got = bench.run(&Frame::syn((f.app(2), 4_000), (f.app(100), 80), 1_400)).redirected();
        assert_eq!(got.source, (f.app(2), 4_000).into());
        assert_eq!(got.destination, (f.app(3), 80).into());
        assert_eq!(got.to, local_mac(bench.other));
    }
    fn udp_for_a_vip_gets_a_backend_elsewhere(f) {
        let mut bench = bench(f);
        vip(&mut bench, f, &[(f.app(4), 4)]);
        let got = bench.run(&Frame::udp((f.app(2), 4_000), (f.app(100), 53))).redirected();
        assert_eq!(got.destination, (f.app(4), 53).into());
        assert_eq!(got.payload, b"shoal of fish");
    }
    fn the_answer_of_a_local_backend_comes_from_the_vip(f) {
        let mut bench = bench(f);
        vip(&mut bench, f, &[(f.app(3), 3)]);
        bench.run(&Frame::udp((f.app(2), 4_000), (f.app(100), 53))).redirected();
        (bench.ifindex, bench.other) = (bench.other, bench.ifindex);
        let got = bench.run(&Frame::udp((f.app(3), 53), (f.app(2), 4_000))).redirected();
        assert_eq!(got.source, (f.app(100), 53).into());
        assert_eq!(got.destination, (f.app(2), 4_000).into());
    }
    fn a_flow_keeps_its_backend_and_counts_once(f) {
        let mut bench = bench(f);
        let backends = [(f.app(3), 3), (f.app(4), 4)];
        vip(&mut bench, f, &backends);
        let first = bench.run(&Frame::syn((f.app(2), 4_000), (f.app(100), 80), 1_400)).redirected();
        for _ in 0..20 {
            let next = bench.run(&Frame::tcp((f.app(2), 4_000), (f.app(100), 80))).redirected();
            assert_eq!(next.destination, first.destination);
        }
        let counted: Vec<_> =
            backends.iter().map(|b| bench.tables.stats(b.1).unwrap().connections).collect();
        assert_eq!(counted.iter().sum::<u64>(), 1);
    }
    fn a_repeated_syn_keeps_its_backend_and_a_new_connection_is_counted(f) {
        let mut bench = bench(f);
        vip(&mut bench, f, &[(f.app(3), 3)]);
        let syn = Frame::syn((f.app(2), 4_000), (f.app(100), 80), 1_400);
        bench.run(&syn).redirected();
        bench.run(&syn).redirected();
        assert_eq!(bench.tables.stats(3).unwrap().connections, 1);
        bench.run(&Frame::tcp((f.app(2), 4_000), (f.app(100), 80))).redirected();
        bench.run(&syn).redirected();
        assert_eq!(bench.tables.stats(3).unwrap().connections, 2);
    }
    fn a_flow_whose_backend_is_gone_gets_another(f) {
        let mut bench = bench(f);
        vip(&mut bench, f, &[(f.app(3), 3)]);
        bench.run(&Frame::udp((f.app(2), 4_000), (f.app(100), 53))).redirected();
        vip(&mut bench, f, &[(f.app(4), 4)]);
        bench.tables.remove("ENDPOINTS", f.app(3));
        let got = bench.run(&Frame::udp((f.app(2), 4_000), (f.app(100), 53))).redirected();
        assert_eq!(got.destination, (f.app(4), 53).into());
    }
    fn a_task_that_calls_its_own_service_reaches_itself(f) {
        let mut bench = bench(f);
        vip(&mut bench, f, &[(f.app(2), 2)]);
        let asked = bench.run(&Frame::syn((f.app(2), 4_000), (f.app(100), 80), 1_400)).redirected();
        assert_eq!((asked.source, asked.destination), ((f.app(100), 4_000).into(), (f.app(2), 80).into()));
        assert_eq!(asked.to, local_mac(bench.ifindex));
        let kind = Kind::Tcp { flags: SYN | ACK, options: vec![] };
        let answer = Frame::new((f.app(2), 80), (f.app(100), 4_000), kind);
        let answered = bench.run(&answer).redirected();
        assert_eq!((answered.source, answered.destination), ((f.app(100), 80).into(), (f.app(2), 4_000).into()));
        assert_eq!(bench.tables.stats(2).unwrap().connections, 1);
    }
    fn a_connection_to_the_backend_itself_is_not_taken_for_one_through_the_vip(f) {
        let mut bench = bench(f);
        vip(&mut bench, f, &[(f.app(3), 3)]);
        bench.run(&Frame::syn((f.app(2), 4_000), (f.app(100), 80), 1_400)).redirected();
        bench.run(&Frame::syn((f.app(2), 4_000), (f.app(3), 80), 1_400)).redirected();
        (bench.ifindex, bench.other) = (bench.other, bench.ifindex);
        let got = bench.run(&Frame::tcp((f.app(3), 80), (f.app(2), 4_000))).redirected();
        assert_eq!(got.source, (f.app(3), 80).into());
    }
    fn both_tasks_packets_are_counted_in_bytes_of_ip(f) {
        let mut bench = bench(f);
        let sent = Frame::udp((f.app(2), 4_000), (f.app(3), 80));
        bench.run(&sent).redirected();
        let length = sent.ip().len() as u64;
        let (sender, receiver) = (bench.tables.traffic(2), bench.tables.traffic(3));
        assert_eq!((sender.tx_packets, sender.tx_bytes, sender.rx_packets), (1, length, 0));
        assert_eq!((receiver.rx_packets, receiver.rx_bytes, receiver.tx_packets), (1, length, 0));
    }
    fn a_dropped_packet_is_not_counted_as_traffic(f) {
        let mut bench = bench(f);
        bench.expect_drop(&Frame::tcp((f.app(2), 4_000), (f.db(5), 80)), DropReason::OtherNetwork);
        assert_eq!(bench.tables.traffic(2).tx_packets, 0);
    }
    fn a_truncated_packet_is_malformed(f) {
        let mut bench = bench(f);
        let whole = Frame::tcp((f.app(2), 4_000), (f.app(3), 80)).ethernet();
        // The kernel itself refuses to run a program on less than an IP header.
        let ip = if f == Family::V4 { 14 + 20 } else { 14 + 40 };
        for length in [ip, ip + 3, ip + 19, whole.len() - 1] {
            bench.expect_drop_bytes(&whole[..length], DropReason::Malformed);
        }
    }
    fn ip_of_the_other_version_than_the_link_says_is_malformed(f) {
        let mut bytes = Frame::tcp((f.app(2), 4_000), (f.app(3), 80)).ethernet();
        let other: u16 = if f == Family::V4 { 0x86dd } else { 0x0800 };
        bytes[12..14].copy_from_slice(&other.to_be_bytes());
        bench(f).expect_drop_bytes(&bytes, DropReason::Malformed);
    }
    fn a_tagged_frame_is_not_ip(f) {
        let mut bytes = Frame::tcp((f.app(2), 4_000), (f.app(3), 80)).ethernet();
        bytes.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
        bench(f).expect_drop_bytes(&bytes, DropReason::NotIp);
    }
}

fn fragment(mut bytes: Vec<u8>) -> Vec<u8> {
    // More fragments follow; the header's checksum drops by as much as the field grows.
    let field = u16::from_be_bytes([bytes[20], bytes[21]]);
    bytes[20..22].copy_from_slice(&0x2000_u16.to_be_bytes());
    let sum =
        u32::from(u16::from_be_bytes([bytes[24], bytes[25]])) + u32::from(field) + 0xffff - 0x2000;
    let sum = (sum & 0xffff) + (sum >> 16);
    bytes[24..26].copy_from_slice(&(sum as u16).to_be_bytes());
    bytes
}

#[test]
fn a_fragment_is_forwarded_between_containers_but_has_no_place_behind_a_vip() {
    isolated(|| {
        let f = Family::V4;
        let mut bench = bench(f);
        vip(&mut bench, f, &[(f.app(3), 3)]);
        let direct = fragment(Frame::udp((f.app(2), 4_000), (f.app(3), 80)).ethernet());
        assert_eq!(bench.run_bytes(&direct).action, shoal_packet_tests::REDIRECT);
        let balanced = fragment(Frame::udp((f.app(2), 4_000), (f.app(100), 80)).ethernet());
        bench.expect_drop_bytes(&balanced, DropReason::Fragment);
    });
}

#[test]
fn an_ipv6_fragment_has_no_place_behind_a_vip() {
    isolated(|| {
        let f = Family::V6;
        let mut bench = bench(f);
        vip(&mut bench, f, &[(f.app(3), 3)]);
        let mut bytes = Frame::udp((f.app(2), 4_000), (f.app(100), 80)).ethernet();
        bytes[14 + 6] = 44;
        bench.expect_drop_bytes(&bytes, DropReason::Fragment);
    });
}

#[test]
fn udp_without_a_checksum_stays_without_one_through_a_vip() {
    isolated(|| {
        let f = Family::V4;
        let mut bench = bench(f);
        vip(&mut bench, f, &[(f.app(3), 3)]);
        let sent = Frame::new((f.app(2), 4_000), (f.app(100), 53), Kind::UdpUnchecked);
        let got = bench.run(&sent).redirected();
        assert_eq!((got.destination, got.kind), ((f.app(3), 53).into(), Kind::UdpUnchecked));
    });
}

#[test]
fn a_container_cannot_make_packets_of_the_mesh() {
    isolated(|| {
        let f = Family::V4;
        let inner = Frame::tcp((f.outside(9), 4_000), (f.outside(1), 80));
        let sent = Frame::geneve(f.ingress(2), f.ingress(OVERLAY_NODE), 7, &inner);
        bench(f).expect_drop(&sent, DropReason::BadEncapsulation);
    });
}

#[test]
fn a_nodes_own_address_is_no_destination_for_containers() {
    isolated(|| {
        let f = Family::V4;
        let sent = Frame::tcp((f.ingress(2), 4_000), (f.ingress(OVERLAY_NODE), 22));
        bench(f).expect_drop(&sent, DropReason::NoEndpoint);
    });
}

#[test]
fn arp_is_not_ip() {
    isolated(|| {
        let mut bytes = vec![0; 42];
        bytes[12..14].copy_from_slice(&[0x08, 0x06]);
        bench(Family::V4).expect_drop_bytes(&bytes, DropReason::NotIp);
    });
}

#[test]
fn an_ipv4_header_that_claims_less_than_its_minimum_is_malformed() {
    isolated(|| {
        let f = Family::V4;
        let mut bytes = Frame::tcp((f.app(2), 4_000), (f.app(3), 80)).ethernet();
        bytes[14] = 0x44;
        bench(f).expect_drop_bytes(&bytes, DropReason::Malformed);
    });
}
