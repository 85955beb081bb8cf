//! The packet programs attached to real devices: where packets come out.
use shoal_maps::DropReason;
use shoal_packet_tests::{
    ACK, Family, Frame, Kind, Node, Port, SYN, host_mac, in_both_families, isolated, local_mac,
};

const APP: u64 = 1;
const DB: u64 = 2;
const INGRESS: u64 = 3;
const WEB: u64 = 100;
const TCP: u8 = 6;

/// Container A is `app(2)`, `ingress(2)`, task 2; B is `app(3)`, task 3; `app(4)` and `db(5)` are
/// elsewhere; port 8080 is task 2's port 80.
fn node(family: Family) -> Node {
    let mut node = Node::new();
    let (a, b) = (node.a, node.b);
    let tables = &mut node.tables;
    tables.endpoint(family.app(2), APP, 2, a);
    tables.endpoint(family.app(3), APP, 3, b);
    tables.endpoint(family.app(4), APP, 4, 0);
    tables.endpoint(family.db(5), DB, 5, 0);
    tables.endpoint(family.ingress(2), INGRESS, 2, a);
    tables.endpoint(family.ingress(6), INGRESS, 6, 0);
    tables.endpoint(Node::overlay(), INGRESS, 0, 0);
    tables.endpoint(Node::other_node(), INGRESS, 0, 0);
    tables.node_address(family.outside(1));
    tables.ingress_task(2, None, family.ingress(2), 2);
    tables.ingress_task(6, Some(Node::other_node()), family.ingress(6), 6);
    tables.port(8_080, TCP, 80, WEB, &[2]);
    node
}

/// A packet of the mesh from the other node to this one.
fn geneve(vni: u32, inner: &Frame) -> Frame {
    Frame::geneve(Node::other_node(), Node::overlay(), vni, inner)
}

in_both_families! {
    fn container_to_container_on_one_node(f) {
        let mut node = node(f);
        let sent = Frame::tcp((f.app(2), 4_000), (f.app(3), 80));
        let (port, got) = node.forward(Port::ContainerA, &sent);
        assert_eq!((port, got.to, got.from), (Port::ContainerB, local_mac(node.b), host_mac(node.b)));
        assert_eq!(got.ip(), sent.ip());
    }
    fn container_to_container_elsewhere_goes_through_the_tunnel_as_it_is(f) {
        let sent = Frame::tcp((f.app(2), 4_000), (f.app(4), 80));
        let (port, got) = node(f).forward(Port::ContainerA, &sent);
        assert_eq!((port, got.ip()), (Port::Tunnel, sent.ip()));
    }
    fn a_packet_from_the_tunnel_reaches_its_container(f) {
        let mut node = node(f);
        let sent = Frame::tcp((f.app(4), 4_000), (f.app(2), 80));
        let (port, got) = node.forward(Port::Tunnel, &sent);
        assert_eq!((port, got.to, got.from), (Port::ContainerA, local_mac(node.a), host_mac(node.a)));
        assert_eq!(got.ip(), sent.ip());
        let traffic = node.tables.traffic(2);
        assert_eq!((traffic.rx_packets, traffic.rx_bytes), (1, sent.ip().len() as u64));
    }
    fn the_tunnel_does_not_cross_networks(f) {
        let sent = Frame::tcp((f.db(5), 4_000), (f.app(2), 80));
        node(f).expect_drop(Port::Tunnel, &sent, DropReason::OtherNetwork);
    }
    fn an_unknown_source_from_the_tunnel_is_spoofed(f) {
        let sent = Frame::tcp((f.app(99), 4_000), (f.app(2), 80));
        node(f).expect_drop(Port::Tunnel, &sent, DropReason::SpoofedSource);
    }
    fn a_local_containers_address_from_the_tunnel_is_spoofed(f) {
        let sent = Frame::tcp((f.app(3), 4_000), (f.app(2), 80));
        node(f).expect_drop(Port::Tunnel, &sent, DropReason::SpoofedSource);
    }
    fn what_is_not_for_a_local_container_does_not_come_back_out_of_the_tunnel(f) {
        let mut node = node(f);
        node.tables.endpoint(f.app(8), APP, 8, 0);
        let sent = Frame::tcp((f.app(4), 4_000), (f.app(8), 80));
        node.expect_drop(Port::Tunnel, &sent, DropReason::NoEndpoint);
    }
    fn a_vip_answers_ping_to_the_container_that_asked(f) {
        let mut node = node(f);
        node.tables.vip(f.app(100), WEB, APP, &[]);
        let (port, got) = node.forward(Port::ContainerA, &Frame::ping(f.app(2), f.app(100)));
        assert_eq!((port, got.source.ip(), got.to), (Port::ContainerA, f.app(100), local_mac(node.a)));
    }
    fn a_vip_with_a_backend_elsewhere_there_and_back(f) {
        let mut node = node(f);
        node.tables.vip(f.app(100), WEB, APP, &[(f.app(4), 4)]);
        let sent = Frame::syn((f.app(2), 4_000), (f.app(100), 80), 1_380);
        let (port, got) = node.forward(Port::ContainerA, &sent);
        assert_eq!((port, got.destination), (Port::Tunnel, (f.app(4), 80).into()));
        let (port, got) = node.forward(Port::Tunnel, &Frame::tcp((f.app(4), 80), (f.app(2), 4_000)));
        assert_eq!((port, got.source), (Port::ContainerA, (f.app(100), 80).into()));
    }
    fn a_task_that_calls_its_own_service_gets_the_packet_itself(f) {
        let mut node = node(f);
        node.tables.vip(f.app(100), WEB, APP, &[(f.app(2), 2)]);
        let sent = Frame::udp((f.app(2), 4_000), (f.app(100), 53));
        let (port, got) = node.forward(Port::ContainerA, &sent);
        assert_eq!((port, got.source), (Port::ContainerA, (f.app(100), 4_000).into()));
    }
    fn a_published_port_of_a_local_task_there_and_back(f) {
        let mut node = node(f);
        let (client, published) = ((f.outside(9), 40_000), (f.outside(1), 8_080));
        let (port, got) = node.forward(Port::Outside, &Frame::syn(client, published, 1_460));
        assert_eq!((port, got.source), (Port::ContainerA, client.into()));
        assert_eq!(got.destination, (f.ingress(2), 80).into());
        let kind = Kind::Tcp { flags: SYN | ACK, options: vec![2, 4, 0x05, 0xb4] };
        let answer = Frame::new((f.ingress(2), 80), client, kind);
        let (port, got) = node.forward(Port::ContainerA, &answer);
        assert_eq!((port, got.source, got.destination), (Port::Outside, published.into(), client.into()));
        assert_eq!(got.mss(), Some(1_460), "no tunnel, no clamp");
    }
    fn a_published_port_of_a_task_elsewhere_there_and_back(f) {
        let mut node = node(f);
        node.tables.port(8_080, TCP, 80, WEB, &[6]);
        let (client, published) = ((f.outside(9), 40_000), (f.outside(1), 8_080));
        let sent = Frame::syn(client, published, 1_300);
        let (port, outer) = node.forward(Port::Outside, &sent);
        assert_eq!((port, outer.destination.ip()), (Port::Tunnel, Node::other_node()));
        let (vni, inner) = outer.inner();
        assert_eq!((vni, inner.ip()), (6, sent.ip()));
        let answer = Frame::tcp(published, client);
        let (port, got) = node.forward(Port::Tunnel, &geneve(0, &answer));
        assert_eq!((port, got.ip()), (Port::Outside, answer.ip()));
    }
    fn a_clients_packet_from_another_node_there_and_back(f) {
        let mut node = node(f);
        // Port 8080 of the other node, which is not this node's address.
        let (client, published) = ((f.outside(9), 40_000), (f.outside(2), 8_080));
        let (port, got) = node.forward(Port::Tunnel, &geneve(2, &Frame::syn(client, published, 1_300)));
        assert_eq!((port, got.source), (Port::ContainerA, client.into()));
        assert_eq!(got.destination, (f.ingress(2), 80).into());
        let kind = Kind::Tcp { flags: SYN | ACK, options: vec![2, 4, 0x05, 0xb4] };
        let answer = Frame::new((f.ingress(2), 80), client, kind);
        let (port, outer) = node.forward(Port::ContainerA, &answer);
        assert_eq!(port, Port::Tunnel);
        assert_eq!((outer.source.ip(), outer.destination.ip()), (Node::overlay(), Node::other_node()));
        let (vni, inner) = outer.inner();
        assert_eq!((vni, inner.source, inner.destination), (0, published.into(), client.into()));
        let headers = if f == Family::V4 { 40 } else { 60 };
        assert_eq!(inner.mss(), Some(1_420 - 36 - headers), "clamped");
    }
    fn an_answer_to_nobody_is_dropped(f) {
        let answer = Frame::tcp((f.outside(1), 8_080), (f.outside(9), 40_000));
        node(f).expect_drop(Port::Tunnel, &geneve(0, &answer), DropReason::NoFlow);
    }
    fn a_task_that_is_not_here_takes_no_packets_of_the_mesh(f) {
        let mut node = node(f);
        let inner = Frame::tcp((f.outside(9), 40_000), (f.outside(2), 8_080));
        for vni in [6, 99] {
            node.expect_drop(Port::Tunnel, &geneve(vni, &inner), DropReason::BadEncapsulation);
        }
    }
    fn a_port_that_is_not_published_is_not_reached_through_the_mesh(f) {
        let inner = Frame::tcp((f.outside(9), 40_000), (f.outside(2), 22));
        node(f).expect_drop(Port::Tunnel, &geneve(2, &inner), DropReason::BadEncapsulation);
    }
    fn the_mesh_takes_nothing_from_a_container_elsewhere(f) {
        let mut node = node(f);
        node.tables.endpoint(Family::V4.ingress(60), INGRESS, 60, 0);
        let inner = Frame::tcp((f.outside(9), 40_000), (f.outside(2), 8_080));
        let sent = Frame::geneve(Family::V4.ingress(60), Node::overlay(), 2, &inner);
        node.expect_drop(Port::Tunnel, &sent, DropReason::BadEncapsulation);
    }
    fn an_inner_packet_cut_short_is_malformed(f) {
        let mut node = node(f);
        let inner = Frame::tcp((f.outside(9), 40_000), (f.outside(2), 8_080));
        let mut sent = geneve(2, &inner);
        sent.payload.truncate(8 + 19);
        node.expect_drop(Port::Tunnel, &sent, DropReason::Malformed);
    }
}

#[test]
fn geneve_of_another_version_or_with_options_is_refused() {
    isolated(|| {
        let f = Family::V4;
        let mut node = node(f);
        let inner = Frame::tcp((f.outside(9), 40_000), (f.outside(2), 8_080));
        for (at, value) in [(0, 0x40), (0, 0x01), (2, 0x65)] {
            let mut sent = geneve(2, &inner);
            sent.payload[at] = value;
            node.expect_drop(Port::Tunnel, &sent, DropReason::BadEncapsulation);
        }
    });
}

#[test]
fn other_packets_for_the_nodes_overlay_address_are_dropped() {
    isolated(|| {
        let mut node = node(Family::V4);
        let sent = Frame::tcp((Node::other_node(), 4_000), (Node::overlay(), 22));
        node.expect_drop(Port::Tunnel, &sent, DropReason::NoEndpoint);
    });
}
