//! Engines in network namespaces of their own. Needs root.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use shoal_overlay::{Engine, EngineConfig, OverlayError, Peer, PrivateKey, UserspaceEngine};
use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};
use support::{DEVICE, Net, Node, eventually, run, spawn_in, transfer, try_run};

fn pair(net: &Net) -> [Node; 2] {
    let nodes = [Node::start(net, 0), Node::start(net, 1)];
    Node::introduce(&nodes);
    nodes
}

#[test]
fn ping_works_for_both_families_inside_and_outside() {
    let net = Net::new(2);
    let [a, b] = pair(&net);
    for outside in [Net::underlay4, Net::underlay6] {
        a.engine.set_peers(vec![b.as_peer(outside(1))]).unwrap();
        eventually("endpoint set", || {
            a.status_of(&b).endpoint.is_some_and(|e| e.ip() == outside(1))
        });
        assert!(a.pings(b.overlay4()), "{:?}", a.engine.status());
        assert!(a.pings(b.overlay6()), "{:?}", a.engine.status());
        let endpoint = b.status_of(&a).endpoint.unwrap();
        assert_eq!(endpoint.ip(), outside(0), "the other side follows");
    }
    let status = a.status_of(&b);
    assert_eq!(status.handshakes, 1);
    assert!(status.last_handshake.unwrap() < Duration::from_secs(20));
    assert!(status.rx_bytes > 8 * 84 && status.tx_bytes > 8 * 84, "{status:?}");
}

#[test]
fn megabytes_of_tcp_arrive_intact_both_ways_and_in_super_packets() {
    let net = Net::new(2);
    let [a, b] = pair(&net);
    const BYTES: usize = 8 << 20;
    transfer(&a, &b, b.overlay4(), BYTES);
    transfer(&b, &a, a.overlay6(), BYTES);
    let segments = BYTES as u64 / 1368;
    assert!(a.device_packets() < segments / 3, "{} packets", a.device_packets());
    for (x, y) in [(&a, &b), (&b, &a)] {
        let status = x.status_of(y);
        assert!(status.tx_bytes > BYTES as u64 && status.rx_bytes > BYTES as u64, "{status:?}");
    }
}

#[test]
fn a_path_too_narrow_for_the_overlay_carries_it_in_fragments() {
    let net = Net::new(2);
    let [a, b] = pair(&net);
    for node in [&a, &b] {
        node.ip("link set eth0 mtu 1300");
    }
    transfer(&a, &b, b.overlay4(), 1 << 20);
    assert_eq!(a.drops("send_failed"), 0);
}

#[test]
fn an_engine_that_is_dropped_leaves_no_device() {
    let net = Net::new(1);
    let a = Node::start(&net, 0);
    let show = format!("ip -n {} link show {DEVICE}", a.namespace);
    assert!(try_run(&show).status.success());
    drop(a);
    eventually("the device is gone", || !try_run(&show).status.success());
}

#[test]
fn a_spoofed_inner_source_is_dropped_and_counted() {
    let net = Net::new(2);
    let [a, b] = pair(&net);
    assert!(a.pings(b.overlay4()));
    a.ip(&format!("addr add 10.77.0.99/32 dev {DEVICE}"));
    let target = b.overlay4();
    let listener = spawn_in(&b.namespace, move || UdpSocket::bind((target, 7777)).unwrap());
    let listener = listener.join().unwrap();
    listener.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let send = |source: &'static str| {
        let work = move || UdpSocket::bind((source, 0)).unwrap().send_to(b"x", (target, 7777));
        spawn_in(&a.namespace, work).join().unwrap().unwrap();
    };
    send("10.77.0.99");
    eventually("counted", || b.drops("source_not_allowed") == 1);
    assert!(listener.recv(&mut [0; 9]).is_err(), "the packet got in");
    send("10.77.0.1");
    assert_eq!(listener.recv(&mut [0; 9]).unwrap(), 1, "the honest one did not");
}

#[test]
fn changes_of_the_set_do_not_disturb_a_peer_that_stays() {
    let net = Net::new(2);
    let [a, b] = pair(&net);
    assert!(a.pings(b.overlay4()));
    thread::scope(|scope| {
        scope.spawn(|| transfer(&a, &b, b.overlay4(), 8 << 20));
        for round in 0..40u8 {
            let stranger = Peer {
                public_key: PrivateKey::generate().public_key(),
                endpoint: None,
                allowed_ips: vec![format!("10.99.{round}.0/24").parse().unwrap()],
                keepalive: None,
                ends: None,
            };
            let peers = vec![stranger, b.as_peer(Net::underlay4(1))];
            a.engine.set_peers(peers).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(a.engine.status().peers.len(), 2);
    let status = a.status_of(&b);
    assert_eq!(status.handshakes, 1, "the session was made anew");
    assert!(status.tx_bytes > 8 << 20, "the counters began anew: {status:?}");
}

#[test]
fn three_nodes_talk_until_one_is_removed() {
    let net = Net::new(3);
    let nodes: Vec<_> = (0..3).map(|i| Node::start(&net, i)).collect();
    Node::introduce(&nodes);
    let [a, b, c] = &nodes[..] else { unreachable!() };
    for (from, to) in [(a, b), (b, c), (c, a)] {
        assert!(from.pings(to.overlay4()), "{} to {}", from.number, to.number);
    }
    a.engine.set_peers(vec![b.as_peer(Net::underlay4(1))]).unwrap();
    assert!(!a.pings(c.overlay4()), "a still reaches c");
    assert!(!c.pings(a.overlay4()), "c still reaches a");
    assert!(a.pings(b.overlay4()) && c.pings(b.overlay4()), "the others suffered");
    assert!(a.drops("no_peer") >= 2);
    assert!(a.drops("unknown_session") >= 2);
}

#[test]
fn a_restarted_node_is_reached_again_when_it_speaks() {
    let net = Net::new(2);
    let [a, b] = pair(&net);
    assert!(a.pings(b.overlay4()));
    let key = b.key.clone();
    drop(b);
    let b = Node::start_with(&net, 1, key);
    b.engine.set_peers(vec![a.as_peer(Net::underlay4(0))]).unwrap();
    assert!(b.pings(a.overlay4()));
    assert!(a.pings(b.overlay4()));
    assert_eq!(a.status_of(&b).handshakes, 2);
}

#[test]
fn what_cannot_be_started_says_why() {
    let net = Net::new(1);
    let a = Node::start(&net, 0);
    let start = |device: &str, port, mtu| -> OverlayError {
        let config = EngineConfig {
            device: device.into(),
            listen_port: port,
            private_key: PrivateKey::generate(),
            mtu,
            silence_changed: None,
        };
        spawn_in(&a.namespace, || UserspaceEngine::start(config)).join().unwrap().err().unwrap()
    };
    let busy = start(DEVICE, 0, 1420).to_string();
    assert!(busy.contains(DEVICE) && busy.contains("in use"), "{busy}");
    let port = start("other0", a.engine.listen_port(), 1420).to_string();
    assert!(port.contains("51820") && port.contains("in use"), "{port}");
    for name in ["", "a/b", "sixteen-letters-", "with space", ".."] {
        let message = start(name, 0, 1420).to_string();
        assert!(message.contains(&format!("{name:?}")), "{message}");
    }
    assert!(start("other0", 0, 500).to_string().contains("500"));
}

#[test]
fn a_bad_set_of_peers_changes_nothing() {
    let net = Net::new(2);
    let [a, b] = pair(&net);
    assert!(a.pings(b.overlay4()));
    let peer = b.as_peer(Net::underlay4(1));
    let message = a.engine.set_peers(vec![peer.clone(), peer]).unwrap_err().to_string();
    assert!(message.contains("listed twice"), "{message}");
    assert!(a.pings(b.overlay4()));
    assert_eq!(a.status_of(&b).handshakes, 1);
}

#[test]
fn a_peer_that_is_gone_is_silent_as_soon_as_it_is_sent_something_until_it_is_back() {
    let net = Net::new(2);
    let [a, b] = pair(&net);
    assert!(a.pings(b.overlay4()));
    let gone = b.engine.public_key();
    let (key, address) = (b.key.clone(), b.overlay4());
    drop(b);
    thread::sleep(Duration::from_secs(1));
    assert!(a.engine.silent().is_empty(), "nothing was sent to it");
    let sender = spawn_in(&a.namespace, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let sender = sender.join().unwrap();
    sender.send_to(b"there?", (address, 9)).unwrap();
    eventually("silent", || a.engine.silent() == [gone]);
    assert!(a.engine.status().peers[0].silent);

    // It is asked on, and so heard when it is back, though nobody sends anything.
    let nodes = [a, Node::start_with(&net, 1, key)];
    let known = nodes[0].as_peer(Net::underlay4(0));
    nodes[1].engine.set_peers(vec![known]).unwrap();
    let end = Instant::now() + Duration::from_secs(15);
    while !nodes[0].engine.silent().is_empty() {
        assert!(Instant::now() < end, "{:?}", nodes[0].engine.status());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_peer_that_only_listens_is_not_silent() {
    let net = Net::new(2);
    let [a, b] = pair(&net);
    // Its kernel answers no echo; its engine does.
    run(&format!("ip netns exec {} sysctl -qw net.ipv4.icmp_echo_ignore_all=1", b.namespace));
    let listener = spawn_in(&b.namespace, || UdpSocket::bind("0.0.0.0:7777").unwrap());
    let _listener = listener.join().unwrap();
    let sender = spawn_in(&a.namespace, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let sender = sender.join().unwrap();
    for _ in 0..30 {
        sender.send_to(b"word", (b.overlay4(), 7777)).unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(a.engine.silent().is_empty());
    }
    let answered = a.status_of(&b).rx_packets;
    assert!(answered >= 3, "it was asked and answered: {answered}");
}
