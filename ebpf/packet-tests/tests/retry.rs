//! A connection through a VIP that its backend refuses is tried at another one.
use std::net::SocketAddr;

use shoal_maps::DropReason;
use shoal_packet_tests::{ACK, Family, Frame, Kind, Node, Port, RST, SYN, in_both_families};

const APP: u64 = 1;
const WEB: u64 = 100;

/// The client in container A is `app(2)`, task 2. Backends of the VIP `app(100)`: `app(3)`, task 3, in
/// container B, and `app(4)`, task 4, elsewhere. `app(5)`, task 5, is elsewhere too.
fn node(family: Family) -> Node {
    let mut node = Node::new();
    let (a, b) = (node.a, node.b);
    let tables = &mut node.tables;
    tables.endpoint(family.app(2), APP, 2, a);
    tables.endpoint(family.app(3), APP, 3, b);
    tables.endpoint(family.app(4), APP, 4, 0);
    tables.endpoint(family.app(5), APP, 5, 0);
    tables.vip(family.app(100), WEB, APP, &[(family.app(3), 3), (family.app(4), 4)]);
    node
}

/// The client's SYN to a backend its socket was given for the VIP, seen.
fn attempt(node: &mut Node, family: Family, backend: u8) -> Frame {
    let mut syn = Frame::syn((family.app(2), 4_000), (family.app(backend), 80), 1_400);
    syn.numbers = [0xffff_ffff, 0];
    node.tables.attempt(&syn, family.app(100));
    syn
}

/// Where a refusal by a backend enters the node.
fn way(backend: u8) -> Port {
    if backend == 3 { Port::ContainerB } else { Port::Tunnel }
}

/// The backend refuses; checks what the client gets, and that nothing else was changed.
fn withheld(node: &mut Node, backend: u8, syn: &Frame) {
    let refusal = Frame::refusal(syn);
    let before = node.tables.dropped(DropReason::Retried);
    let (port, got) = node.forward(way(backend), &refusal);
    assert_eq!(port, Port::ContainerA);
    // It acknowledges what the client has not sent, which makes it ignore the reset.
    let numbers = [0, syn.numbers[0]];
    let expected = Frame { to: got.to, from: got.from, numbers, ..refusal };
    assert_eq!(got, expected);
    assert_eq!(node.tables.dropped(DropReason::Retried), before + 1);
}

/// The backend sends a reset that must reach the client as it is.
fn passed(node: &mut Node, backend: u8, reset: &Frame) {
    let (port, got) = node.forward(way(backend), reset);
    assert_eq!((port, got.ip()), (Port::ContainerA, reset.ip()));
    assert_eq!(node.tables.dropped(DropReason::Retried), 0);
}

/// The client sends its SYN again and it goes to another backend; returns the client's end there.
fn tried(node: &mut Node, syn: &Frame, backend: u8, family: Family) -> SocketAddr {
    let (port, got) = node.forward(Port::ContainerA, syn);
    assert_eq!(port, way(backend));
    assert_eq!(got.destination, (family.app(backend), 80).into());
    assert_eq!(
        (got.source.ip(), got.numbers, got.mss()),
        (syn.source.ip(), syn.numbers, syn.mss())
    );
    assert!(got.source.port() >= 61_000, "{got:?}");
    got.source
}

fn data(from: SocketAddr, to: SocketAddr, flags: u8) -> Frame {
    let kind = Kind::Tcp { flags, options: vec![] };
    Frame::new((from.ip(), from.port()), (to.ip(), to.port()), kind)
}

in_both_families! {
    fn a_syn_refused_here_is_tried_elsewhere_and_the_answers_come_from_the_first_backend(f) {
        let mut node = node(f);
        let syn = attempt(&mut node, f, 3);
        withheld(&mut node, 3, &syn);
        assert!(node.tables.ejected(3, 80).is_some() && node.tables.ejected(4, 80).is_none());
        assert_eq!(node.tables.stats(4).unwrap().connections, 1);
        // Sent again, and once more.
        let there = tried(&mut node, &syn, 4, f);
        assert_eq!(tried(&mut node, &syn, 4, f), there);
        let backend = SocketAddr::from((f.app(4), 80));
        for flags in [SYN | ACK, ACK, RST, ACK] {
            let (port, got) = node.forward(Port::Tunnel, &data(backend, there, flags));
            assert_eq!((port, got.source, got.destination), (Port::ContainerA, syn.destination, syn.source));
        }
        let (port, got) = node.forward(Port::ContainerA, &data(syn.source, syn.destination, ACK));
        assert_eq!((port, got.source, got.destination), (Port::Tunnel, there, backend));
    }
    fn a_syn_refused_elsewhere_is_tried_here(f) {
        let mut node = node(f);
        let syn = attempt(&mut node, f, 4);
        withheld(&mut node, 4, &syn);
        let there = tried(&mut node, &syn, 3, f);
        let answer = data((f.app(3), 80).into(), there, SYN | ACK);
        let (port, got) = node.forward(Port::ContainerB, &answer);
        assert_eq!((port, got.source, got.destination), (Port::ContainerA, syn.destination, syn.source));
    }
    fn a_second_refusal_reaches_the_client_as_from_the_first_backend(f) {
        let mut node = node(f);
        let syn = attempt(&mut node, f, 3);
        withheld(&mut node, 3, &syn);
        let there = tried(&mut node, &syn, 4, f);
        let backend = SocketAddr::from((f.app(4), 80));
        assert!(node.tables.flow(backend, there).is_some());
        let refusal = Frame::refusal(&Frame { source: there, destination: backend, ..syn.clone() });
        let (port, got) = node.forward(Port::Tunnel, &refusal);
        assert_eq!((port, got.ip()), (Port::ContainerA, Frame::refusal(&syn).ip()));
        assert!(node.tables.flow(backend, there).is_none(), "its port is free");
        assert_eq!(node.tables.dropped(DropReason::Retried), 1);
    }
    fn a_refused_connection_to_a_task_itself_is_refused(f) {
        let mut node = node(f);
        let syn = Frame::syn((f.app(2), 4_000), (f.app(3), 80), 1_400);
        passed(&mut node, 3, &Frame::refusal(&syn));
        assert!(node.tables.ejected(3, 80).is_none());
    }
    fn a_reset_amid_a_connection_passes(f) {
        let mut node = node(f);
        let syn = attempt(&mut node, f, 3);
        let refusal = Frame::refusal(&syn);
        passed(&mut node, 3, &Frame { numbers: [7, refusal.numbers[1]], ..refusal.clone() });
        let kind = Kind::Tcp { flags: RST, options: vec![] };
        passed(&mut node, 3, &Frame { kind, ..refusal });
    }
    fn a_refusal_of_another_syn_passes(f) {
        let mut node = node(f);
        let syn = attempt(&mut node, f, 3);
        passed(&mut node, 3, &Frame::refusal(&Frame { numbers: [5_000_000, 0], ..syn.clone() }));
        passed(&mut node, 3, &Frame::refusal(&Frame { numbers: [syn.numbers[0] - 1, 0], ..syn }));
    }
    fn the_only_backends_refusal_passes(f) {
        let mut node = node(f);
        node.tables.vip(f.app(100), WEB, APP, &[(f.app(3), 3)]);
        let syn = attempt(&mut node, f, 3);
        passed(&mut node, 3, &Frame::refusal(&syn));
    }
    fn what_is_no_longer_a_backend_leaves_its_connection_to_the_only_one(f) {
        let mut node = node(f);
        node.tables.vip(f.app(100), WEB, APP, &[(f.app(4), 4)]);
        let syn = attempt(&mut node, f, 3);
        withheld(&mut node, 3, &syn);
        tried(&mut node, &syn, 4, f);
    }
    fn a_backend_that_refused_of_late_is_not_the_one_tried(f) {
        let mut node = node(f);
        node.tables.vip(f.app(100), WEB, APP, &[(f.app(3), 3), (f.app(4), 4), (f.app(5), 5)]);
        node.tables.eject(4, 80, u64::MAX);
        let syn = attempt(&mut node, f, 3);
        withheld(&mut node, 3, &syn);
        tried(&mut node, &syn, 5, f);
    }
    fn a_new_connection_from_the_same_port_goes_where_it_is_sent(f) {
        let mut node = node(f);
        let syn = attempt(&mut node, f, 3);
        withheld(&mut node, 3, &syn);
        tried(&mut node, &syn, 4, f);
        let new = Frame { numbers: [9, 0], ..syn };
        for sent in [&new, &data(new.source, new.destination, ACK)] {
            let (port, got) = node.forward(Port::ContainerA, sent);
            assert_eq!((port, got.ip()), (Port::ContainerB, sent.ip()));
        }
    }
    fn nothing_is_moved_before_the_syn_is_sent_again(f) {
        let mut node = node(f);
        let syn = attempt(&mut node, f, 3);
        withheld(&mut node, 3, &syn);
        let sent = data(syn.source, syn.destination, ACK);
        let (port, got) = node.forward(Port::ContainerA, &sent);
        assert_eq!((port, got.ip()), (Port::ContainerB, sent.ip()));
    }
    fn a_refused_backend_that_vanishes_does_not_hinder_the_other(f) {
        let mut node = node(f);
        let syn = attempt(&mut node, f, 3);
        withheld(&mut node, 3, &syn);
        node.tables.remove("ENDPOINTS", f.app(3));
        tried(&mut node, &syn, 4, f);
    }
    fn a_second_backend_that_vanishes_leaves_the_first(f) {
        let mut node = node(f);
        let syn = attempt(&mut node, f, 3);
        withheld(&mut node, 3, &syn);
        node.tables.remove("ENDPOINTS", f.app(4));
        let (port, got) = node.forward(Port::ContainerA, &syn);
        assert_eq!((port, got.ip()), (Port::ContainerB, syn.ip()));
    }
    fn a_client_that_is_the_other_backend_is_called_from_the_first_ones_address(f) {
        let mut node = node(f);
        node.tables.vip(f.app(100), WEB, APP, &[(f.app(3), 3), (f.app(2), 2)]);
        let syn = attempt(&mut node, f, 3);
        withheld(&mut node, 3, &syn);
        let (first, itself) = (SocketAddr::from((f.app(3), 4_000)), SocketAddr::from((f.app(2), 80)));
        let (port, got) = node.forward(Port::ContainerA, &syn);
        assert_eq!((port, got.source, got.destination), (Port::ContainerA, first, itself));
        let answer = data(itself, first, SYN | ACK);
        let (port, got) = node.forward(Port::ContainerA, &answer);
        assert_eq!((port, got.source, got.destination), (Port::ContainerA, syn.destination, syn.source));
        let refusal = Frame::refusal(&Frame { source: first, destination: itself, ..syn.clone() });
        let (port, got) = node.forward(Port::ContainerA, &refusal);
        assert_eq!((port, got.ip()), (Port::ContainerA, Frame::refusal(&syn).ip()));
    }
}
