//! Packets from outside, under `BPF_PROG_TEST_RUN`.
use std::{collections::BTreeSet, net::IpAddr};

use shoal_maps::DropReason;
use shoal_packet_tests::{
    Bench, Family, Frame, Kind, SHOT, host_mac, in_both_families, isolated, local_mac,
};

const INGRESS: u64 = 3;
const WEB: u64 = 100;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Overhead of IPv4, UDP and Geneve; MTU of the tunnel in these tests.
const OVERHEAD: usize = 36;
const MTU: u16 = 1_420;

fn node(host: u8) -> IpAddr {
    Family::V4.ingress(host)
}

/// The node is `outside(1)`; it publishes 8080/tcp and 8053/udp for the tasks of the given keys.
/// Key 7 is task 7 here, 8 and 9 are tasks on nodes 202 and 203.
fn bench(family: Family, tasks: &[u32]) -> Bench {
    let mut bench = Bench::new("from_uplink");
    let other = bench.other;
    let tables = &mut bench.tables;
    tables.config(node(201), other, bench.ifindex);
    tables.node_address(family.outside(1));
    tables.endpoint(family.ingress(7), INGRESS, 7, other);
    tables.endpoint(family.ingress(8), INGRESS, 8, 0);
    tables.endpoint(family.ingress(9), INGRESS, 9, 0);
    tables.ingress_task(7, None, family.ingress(7), 7);
    tables.ingress_task(8, Some(node(202)), family.ingress(8), 8);
    tables.ingress_task(9, Some(node(203)), family.ingress(9), 9);
    tables.port(8_080, TCP, 80, WEB, tasks);
    tables.port(8_053, UDP, 53, WEB, tasks);
    bench
}

fn total(bench: &mut Bench) -> u64 {
    [7, 8, 9].map(|task| bench.tables.stats(task).expect("statistics").connections).iter().sum()
}

in_both_families! {
    fn a_published_port_reaches_a_local_task_with_the_clients_address(f) {
        let mut bench = bench(f, &[7]);
        let sent = Frame::syn((f.outside(9), 40_000), (f.outside(1), 8_080), 1_460);
        let expected = Frame {
            destination: (f.ingress(7), 80).into(),
            to: local_mac(bench.other),
            from: host_mac(bench.other),
            ..sent.clone()
        };
        assert_eq!(bench.run(&sent).redirected(), expected);
    }
    fn a_published_udp_port_reaches_a_local_task(f) {
        let mut bench = bench(f, &[7]);
        let sent = Frame::udp((f.outside(9), 40_000), (f.outside(1), 8_053));
        let got = bench.run(&sent).redirected();
        assert_eq!((got.source, got.destination), (sent.source, (f.ingress(7), 53).into()));
        bench.run(&sent).redirected();
        assert_eq!(bench.tables.stats(7).unwrap().connections, 1, "one flow");
    }
    fn a_published_port_goes_to_another_nodes_task_unchanged_inside_geneve(f) {
        let mut bench = bench(f, &[8]);
        let sent = Frame::tcp((f.outside(9), 40_000), (f.outside(1), 8_080));
        let outer = bench.run(&sent).redirected();
        assert_eq!((outer.source.ip(), outer.destination.ip()), (node(201), node(202)));
        assert_eq!(outer.kind, Kind::UdpUnchecked);
        let (vni, inner) = outer.inner();
        assert_eq!((vni, inner.source, inner.destination), (8, sent.source, sent.destination));
        assert_eq!((inner.kind, inner.payload), (sent.kind, sent.payload));
    }
    fn udp_goes_to_another_nodes_task_too(f) {
        let mut bench = bench(f, &[8]);
        let sent = Frame::udp((f.outside(9), 40_000), (f.outside(1), 8_053));
        let (vni, inner) = bench.run(&sent).redirected().inner();
        assert_eq!((vni, inner.ip()), (8, sent.ip()));
    }
    fn a_syn_offers_no_more_than_fits_through_the_tunnel(f) {
        let mut bench = bench(f, &[8]);
        let headers = if f == Family::V4 { 40 } else { 60 };
        let fits = MTU - OVERHEAD as u16 - headers;
        for (offered, expected) in [(1_460, fits), (fits + 1, fits), (fits, fits), (536, 536)] {
            let sent = Frame::syn((f.outside(9), offered), (f.outside(1), 8_080), offered);
            let (_, inner) = bench.run(&sent).redirected().inner();
            assert_eq!(inner.mss(), Some(expected), "offered {offered}");
        }
    }
    fn the_segment_size_is_found_behind_other_options_and_at_odd_places(f) {
        let mut bench = bench(f, &[8]);
        for (port, before) in (1..).zip([&[1][..], &[1, 1], &[3, 3, 7], &[8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1]]) {
            let mut options = before.to_vec();
            options.extend([2, 4, 0xff, 0xf0]);
            options.resize(options.len().next_multiple_of(4), 0);
            let kind = Kind::Tcp { flags: shoal_packet_tests::SYN, options };
            let sent = Frame::new((f.outside(9), port), (f.outside(1), 8_080), kind);
            // Taking the packet apart checks the checksum.
            let (_, inner) = bench.run(&sent).redirected().inner();
            assert!(inner.mss().unwrap() < MTU, "{before:?}");
        }
    }
    fn a_packet_for_a_local_task_keeps_its_segment_size(f) {
        let sent = Frame::syn((f.outside(9), 40_000), (f.outside(1), 8_080), 1_460);
        assert_eq!(bench(f, &[7]).run(&sent).redirected().mss(), Some(1_460));
    }
    fn one_flow_stays_with_its_task_when_the_table_changes(f) {
        let mut bench = bench(f, &[8]);
        let (client, port) = ((f.outside(9), 40_000), (f.outside(1), 8_080));
        bench.run(&Frame::syn(client, port, 1_460)).redirected();
        bench.run(&Frame::tcp(client, port)).redirected();
        bench.tables.port(8_080, TCP, 80, WEB, &[9]);
        assert_eq!(bench.run(&Frame::tcp(client, port)).redirected().inner().0, 8);
        assert_eq!(bench.run(&Frame::syn(client, port, 1_460)).redirected().inner().0, 9);
    }
    fn the_same_flow_reaches_the_same_task_through_any_node(f) {
        let mut bench = bench(f, &[7, 8, 9]);
        bench.tables.node_address(f.outside(2));
        let mut chosen = BTreeSet::new();
        for client in 1..60 {
            let reached = [1, 2].map(|node| {
                let sent = Frame::syn((f.outside(9), client), (f.outside(node), 8_080), 1_460);
                let got = bench.run(&sent).redirected();
                if got.destination == (f.ingress(7), 80).into() { 7 } else { got.inner().0 }
            });
            assert_eq!(reached[0], reached[1]);
            chosen.insert(reached[0]);
        }
        assert_eq!(chosen.len(), 3, "all tasks get flows");
    }
    fn each_connection_is_counted_once(f) {
        let mut bench = bench(f, &[7, 8, 9]);
        for client in 1..=30 {
            let (client, port) = ((f.outside(9), client), (f.outside(1), 8_080));
            bench.run(&Frame::syn(client, port, 1_460)).redirected();
            bench.run(&Frame::syn(client, port, 1_460)).redirected();
            bench.run(&Frame::tcp(client, port)).redirected();
            bench.run(&Frame::tcp(client, port)).redirected();
        }
        assert_eq!(total(&mut bench), 30);
        let (client, port) = ((f.outside(9), 30), (f.outside(1), 8_080));
        bench.run(&Frame::syn(client, port, 1_460)).redirected();
        assert_eq!(total(&mut bench), 31, "the same port used again is a new connection");
    }
    fn tcp_of_a_connection_this_node_never_saw_is_forwarded_but_not_counted(f) {
        let mut bench = bench(f, &[8]);
        bench.run(&Frame::tcp((f.outside(9), 40_000), (f.outside(1), 8_080))).redirected();
        assert_eq!(total(&mut bench), 0);
    }
    fn a_published_port_without_tasks_drops(f) {
        let sent = Frame::syn((f.outside(9), 40_000), (f.outside(1), 8_080), 1_460);
        bench(f, &[]).expect_drop(&sent, DropReason::NoBackend);
    }
    fn a_port_that_is_not_published_passes_untouched(f) {
        let mut bench = bench(f, &[7]);
        bench.expect_pass(&Frame::tcp((f.outside(9), 40_000), (f.outside(1), 22)).ethernet());
        bench.expect_pass(&Frame::udp((f.outside(9), 40_000), (f.outside(1), 51_820)).ethernet());
    }
    fn a_port_published_for_tcp_is_none_for_udp(f) {
        let sent = Frame::udp((f.outside(9), 40_000), (f.outside(1), 8_080));
        bench(f, &[7]).expect_pass(&sent.ethernet());
    }
    fn another_hosts_address_passes_untouched(f) {
        let sent = Frame::tcp((f.outside(9), 40_000), (f.outside(5), 8_080));
        bench(f, &[7]).expect_pass(&sent.ethernet());
    }
    fn ping_of_the_node_passes_untouched(f) {
        bench(f, &[7]).expect_pass(&Frame::ping(f.outside(9), f.outside(1)).ethernet());
    }
    fn a_tagged_frame_passes_untouched(f) {
        let mut bytes = Frame::tcp((f.outside(9), 40_000), (f.outside(1), 8_080)).ethernet();
        bytes.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
        bench(f, &[7]).expect_pass(&bytes);
    }
    fn a_truncated_packet_passes_untouched(f) {
        let mut bench = bench(f, &[7]);
        let whole = Frame::tcp((f.outside(9), 40_000), (f.outside(1), 8_080)).ethernet();
        let ip = if f == Family::V4 { 14 + 20 } else { 14 + 40 };
        for length in [ip, ip + 3, ip + 19, whole.len() - 1] {
            bench.expect_pass(&whole[..length]);
        }
    }
}

#[test]
fn arp_passes_untouched() {
    isolated(|| {
        let mut bytes = vec![0; 42];
        bytes[12..14].copy_from_slice(&[0x08, 0x06]);
        bench(Family::V4, &[7]).expect_pass(&bytes);
    });
}

#[test]
fn an_ipv4_fragment_passes_untouched() {
    isolated(|| {
        let f = Family::V4;
        let mut bytes = Frame::udp((f.outside(9), 40_000), (f.outside(1), 8_053)).ethernet();
        bytes[20..22].copy_from_slice(&0x2000_u16.to_be_bytes());
        bench(f, &[7]).expect_pass(&bytes);
    });
}

#[test]
fn a_task_without_an_address_of_the_clients_family_is_no_backend() {
    isolated(|| {
        let mut bench = bench(Family::V4, &[7]);
        bench.tables.node_address(Family::V6.outside(1));
        let sent =
            Frame::syn((Family::V6.outside(9), 40_000), (Family::V6.outside(1), 8_080), 1_460);
        assert_eq!(bench.run(&sent).action, SHOT);
        assert_eq!(bench.tables.dropped(DropReason::NoBackend), 1);
    });
}
