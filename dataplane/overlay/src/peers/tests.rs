//! Two peer tables that exchange datagrams through memory.

use super::*;
use crate::{samples::packet, vnet::Kind};
use std::time::Duration;

struct Node {
    peers: Peers,
    key: PrivateKey,
    record: Arc<PeerRecord>,
    drops: Arc<Drops>,
    address: SocketAddr,
    out: Batch,
}

impl Node {
    fn new(address: &str) -> Node {
        let (key, drops) = (PrivateKey::generate(), Arc::new(Drops::default()));
        Node {
            peers: Peers::new(key.clone(), drops.clone()),
            key,
            record: Arc::default(),
            drops,
            address: address.parse().unwrap(),
            out: Batch::new(),
        }
    }

    /// `other` becomes the only peer, by the index.
    fn know(&mut self, other: &Node, index: u32, fresh: bool, endpoint: bool, nets: &[&str]) {
        let session = || {
            let limiter = no_limit(&self.key);
            new_session(&self.key, other.key.public_key(), index, self.record.clone(), &limiter)
        };
        let mut routes = Routes::default();
        nets.iter().for_each(|net| routes.insert(net.parse().unwrap(), index));
        let update = PeerUpdate {
            index,
            public_key: other.key.public_key(),
            fresh: fresh.then(session),
            endpoint: endpoint.then_some(other.address),
            keepalive: None,
            ends: None,
        };
        self.peers.apply(Update { peers: vec![update], routes });
    }

    fn send(&mut self, packet: &[u8]) {
        match self.peers.route(packet) {
            Ok(session) => session.seal(packet, &mut self.out, &self.drops),
            Err(reason) => self.drops.count(reason, 1),
        }
    }

    /// Takes all datagrams that wait to be sent.
    fn datagrams(&mut self) -> Vec<Vec<u8>> {
        let groups = self.out.groups().iter();
        let all =
            groups.flat_map(|g| self.out.bytes(g).chunks(g.size).map(<[u8]>::to_vec)).collect();
        self.out.clear();
        all
    }

    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        let mut plain = vec![0; datagram.len()];
        let len = self.peers.open(from, datagram, &mut plain, &mut self.out, Instant::now())?;
        plain.truncate(len);
        Some(plain)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        let mut all = std::collections::BTreeMap::new();
        self.drops.add_to(&mut all);
        all[reason.name()]
    }

    fn handshakes(&self) -> u64 {
        self.record.status([0; 32], Instant::now()).handshakes
    }
}

/// Until both are silent; the packets that got through to a and to b.
fn exchange(a: &mut Node, b: &mut Node) -> [Vec<Vec<u8>>; 2] {
    let mut got = [vec![], vec![]];
    loop {
        let (from_a, from_b) = (a.datagrams(), b.datagrams());
        if from_a.is_empty() && from_b.is_empty() {
            return got;
        }
        got[1].extend(from_a.iter().filter_map(|d| b.receive(a.address, d)));
        got[0].extend(from_b.iter().filter_map(|d| a.receive(b.address, d)));
    }
}

/// a has 10.0.0.1, b has 10.0.0.2, and the packets of [`ping`] go from a to b.
fn pair() -> (Node, Node) {
    let (mut a, mut b) = (Node::new("192.0.2.1:1000"), Node::new("[2001:db8::2]:2000"));
    a.know(&b, 7, true, true, &["10.0.0.2/32", "fd00::2/128"]);
    b.know(&a, 3, true, false, &["10.0.0.1/32", "fd00::1/128"]);
    (a, b)
}

fn ping(n: u32) -> Vec<u8> {
    packet(n.is_multiple_of(2), Kind::Udp, &n.to_be_bytes(), 0, 0)
}

#[test]
fn packets_that_waited_for_the_handshake_arrive_in_order() {
    let (mut a, mut b) = pair();
    let packets: Vec<_> = (0..20).map(ping).collect();
    packets.iter().for_each(|p| a.send(p));
    assert_eq!(exchange(&mut a, &mut b)[1], packets);
    assert_eq!((a.handshakes(), b.handshakes()), (1, 1));
    let status = b.record.status([0; 32], Instant::now());
    assert_eq!(status.endpoint, Some(a.address), "the endpoint was learned");
    // Initiation, keepalive and the packets, each with 32 bytes more.
    let bytes: usize = 148 + 32 + packets.iter().map(|p| p.len() + 32).sum::<usize>();
    assert_eq!((status.rx_packets, status.rx_bytes), (22, bytes as u64));
}

#[test]
fn a_source_that_is_not_the_peers_is_dropped_and_counted() {
    let (mut a, mut b) = pair();
    a.send(&ping(0));
    exchange(&mut a, &mut b);
    b.know(&a, 3, false, false, &["10.0.0.9/32"]);
    a.send(&ping(0));
    assert!(exchange(&mut a, &mut b)[1].is_empty());
    assert_eq!(b.dropped(DropReason::SourceNotAllowed), 1);
}

#[test]
fn a_replayed_or_altered_datagram_is_dropped_and_counted() {
    let (mut a, mut b) = pair();
    a.send(&ping(0));
    exchange(&mut a, &mut b);
    a.send(&ping(1));
    let datagram = a.datagrams().remove(0);
    let mut altered = datagram.clone();
    altered[40] ^= 1;
    let (address, elsewhere) = (a.address, "192.0.2.66:6".parse().unwrap());
    assert_eq!(b.receive(elsewhere, &altered), None);
    assert_eq!(b.receive(address, &datagram), Some(ping(1)));
    assert_eq!(b.receive(elsewhere, &datagram), None);
    assert_eq!(b.dropped(DropReason::NotAuthentic), 1);
    assert_eq!(b.dropped(DropReason::Replayed), 1);
    assert_eq!(b.record.status([0; 32], Instant::now()).endpoint, Some(address));
}

#[test]
fn a_peer_that_moves_is_followed() {
    let (mut a, mut b) = pair();
    a.send(&ping(0));
    exchange(&mut a, &mut b);
    a.address = "198.51.100.7:77".parse().unwrap();
    a.send(&ping(1));
    exchange(&mut a, &mut b);
    assert_eq!(b.record.status([0; 32], Instant::now()).endpoint, Some(a.address));
}

#[test]
fn an_update_leaves_the_session_of_a_peer_that_stays_alone() {
    let (mut a, mut b) = pair();
    a.send(&ping(0));
    exchange(&mut a, &mut b);
    a.know(&b, 7, false, false, &["10.0.0.2/32", "10.0.0.3/32"]);
    a.send(&ping(2));
    let datagrams = a.datagrams();
    assert_eq!(datagrams[0][0], 4, "data, not a handshake");
    assert_eq!(b.receive(a.address, &datagrams[0]), Some(ping(2)));
}

#[test]
fn a_stranger_gets_no_answer() {
    let (mut a, mut b) = pair();
    let mut stranger = Node::new("192.0.2.99:9");
    stranger.know(&b, 1, true, true, &["0.0.0.0/0"]);
    stranger.send(&ping(0));
    exchange(&mut stranger, &mut b);
    assert_eq!(b.dropped(DropReason::UnknownPeer), 1);
    assert_eq!(stranger.handshakes(), 0);
    // And noise is noise.
    for datagram in [&[][..], &[4, 0, 0, 0], &[4; 200], &[1, 0, 0, 0], &[9; 40]] {
        assert_eq!(a.receive(b.address, datagram), None);
    }
    assert_eq!(a.dropped(DropReason::Malformed), 5);
}

#[test]
fn a_counter_at_the_end_of_its_range_is_refused() {
    let (mut a, mut b) = pair();
    a.send(&ping(0));
    exchange(&mut a, &mut b);
    a.send(&ping(1));
    let mut datagram = a.datagrams().remove(0);
    datagram[8..16].fill(0xff);
    assert_eq!(b.receive(a.address, &datagram), None);
    assert_eq!(b.dropped(DropReason::Malformed), 1);
}

#[test]
fn what_cannot_be_sent_is_counted_by_reason() {
    let (mut a, mut b) = pair();
    b.send(&packet(true, Kind::Udp, b"x", 0, 0)); // to 10.0.0.2, itself
    assert_eq!(b.dropped(DropReason::NoPeer), 1);
    b.know(&a, 3, false, false, &["10.0.0.0/24"]);
    b.send(&ping(0));
    assert_eq!(b.dropped(DropReason::NoEndpoint), 1);
    (0..300).for_each(|n| a.send(&ping(n)));
    assert_eq!(a.dropped(DropReason::QueueFull), 300 - 256);
    b.know(&a, 3, false, false, &["10.0.0.1/32", "fd00::1/128"]);
    assert_eq!(exchange(&mut a, &mut b)[1].len(), 256);
}

#[test]
fn a_flood_of_handshakes_is_answered_by_cookies_and_honest_peers_get_through() {
    let (mut a, mut b) = pair();
    for i in 0..HANDSHAKES_PER_SECOND + 5 {
        let mut stranger = Node::new("192.0.2.99:9");
        stranger.know(&b, i as u32, true, true, &["0.0.0.0/0"]);
        stranger.send(&ping(0));
        let flood = stranger.datagrams();
        flood.iter().for_each(|d| assert_eq!(b.receive(stranger.address, d), None));
    }
    assert!(b.dropped(DropReason::UnderLoad) >= 5);
    b.out.clear();
    a.send(&ping(0));
    exchange(&mut a, &mut b); // b answers with a cookie
    assert_eq!(a.handshakes(), 0);
    // boringtun tries again after five seconds, by its own clock.
    let end = Instant::now() + Duration::from_secs(8);
    while a.handshakes() == 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(250));
        // Only a's timers: b's would reset its limit.
        let Node { peers, out, .. } = &mut a;
        peers.tick(out, Instant::now(), |_| {});
        exchange(&mut a, &mut b);
    }
    assert_eq!(a.handshakes(), 1);
}

#[test]
fn keepalives_are_sent_in_time_and_bring_up_a_session_by_themselves() {
    let (mut a, mut b) = pair();
    let mut update = Update { peers: vec![], routes: Routes::default() };
    let (public_key, endpoint) = (b.key.public_key(), Some(b.address));
    update.peers.push(PeerUpdate {
        index: 7,
        public_key,
        fresh: None,
        endpoint,
        keepalive: Some(5),
        ends: None,
    });
    a.peers.apply(update);
    let start = Instant::now();
    let tick = |a: &mut Node, seconds| {
        let Node { peers, out, .. } = a;
        peers.tick(out, start + Duration::from_secs(seconds), |_| {});
    };
    tick(&mut a, 0);
    exchange(&mut a, &mut b);
    assert_eq!((a.handshakes(), b.handshakes()), (1, 1));
    tick(&mut a, 1);
    tick(&mut a, 5);
    assert!(a.datagrams().is_empty(), "something was sent at second 1");
    tick(&mut a, 6);
    let datagrams = a.datagrams();
    assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [32]);
}
