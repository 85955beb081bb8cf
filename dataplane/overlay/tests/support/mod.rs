//! Nodes for tests: network namespaces joined by a bridge, an engine in each, real packets.

#![allow(dead_code, reason = "each test binary uses its part")]

use ipnetwork::IpNetwork;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use shoal_overlay::{
    Ends, Engine, EngineConfig, OverlayError, Peer, PeerStatus, PrivateKey, UserspaceEngine,
};
use std::{
    fs::File,
    hash::{DefaultHasher, Hasher},
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Name of the overlay device in every node.
pub(crate) const DEVICE: &str = "shoal0";
/// The usual MTU of an overlay over Ethernet.
pub(crate) const MTU: u32 = 1420;
const PORT: u16 = 51820;

static NETS: AtomicU32 = AtomicU32::new(0);

/// Runs a command line, which must succeed; gives what it printed.
pub(crate) fn run(line: &str) -> String {
    let Output { status, stdout, stderr } = try_run(line);
    assert!(status.success(), "{line}: {status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// Runs a command line.
pub(crate) fn try_run(line: &str) -> Output {
    let words: Vec<&str> = line.split_whitespace().collect();
    Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|e| panic!("{line}: {e}"))
}

/// A thread in a network namespace.
pub(crate) fn spawn_in<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let path = format!("/var/run/netns/{namespace}");
    thread::spawn(move || {
        let file = File::open(path).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    })
}

/// Namespaces, removed when dropped, also while panicking.
pub(crate) struct Net {
    names: Vec<String>,
}

impl Net {
    /// `nodes` namespaces with 192.168.77.(i+1) and fd77::(i+1) on `eth0`, on one bridge.
    pub(crate) fn new(nodes: usize) -> Net {
        let id = format!("ov{}-{}", std::process::id(), NETS.fetch_add(1, Ordering::Relaxed));
        let mut net = Net { names: vec![] };
        let hub = format!("{id}-hub");
        net.add(&hub);
        run(&format!("ip -n {hub} link add br0 type bridge"));
        run(&format!("ip -n {hub} link set br0 up"));
        for i in 0..nodes {
            let name = format!("{id}-{i}");
            net.add(&name);
            run(&format!("ip -n {hub} link add p{i} type veth peer name eth0 netns {name}"));
            run(&format!("ip -n {hub} link set p{i} master br0 up"));
            run(&format!("ip -n {name} addr add {}/24 dev eth0", Net::underlay4(i)));
            run(&format!("ip -n {name} addr add {}/64 dev eth0 nodad", Net::underlay6(i)));
            run(&format!("ip -n {name} link set eth0 up"));
            run(&format!("ip -n {name} link set lo up"));
        }
        net
    }

    fn add(&mut self, name: &str) {
        run(&format!("ip netns add {name}"));
        self.names.push(name.into());
    }

    /// Name of the namespace of node `i`.
    pub(crate) fn node(&self, i: usize) -> &str {
        &self.names[i + 1]
    }

    pub(crate) fn underlay4(i: usize) -> IpAddr {
        Ipv4Addr::new(192, 168, 77, i as u8 + 1).into()
    }

    pub(crate) fn underlay6(i: usize) -> IpAddr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, i as u16 + 1).into()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = try_run(&format!("ip netns del {name}"));
        }
    }
}

/// A node with its engine.
pub(crate) struct Node {
    pub(crate) engine: UserspaceEngine,
    pub(crate) namespace: String,
    pub(crate) key: PrivateKey,
    pub(crate) number: usize,
}

impl Node {
    /// The device gets 10.77.0.(i+1)/24 and fd00:77::(i+1)/64.
    pub(crate) fn start(net: &Net, number: usize) -> Node {
        Node::start_with(net, number, PrivateKey::generate())
    }

    pub(crate) fn start_with(net: &Net, number: usize, key: PrivateKey) -> Node {
        let namespace = net.node(number).to_string();
        let config = EngineConfig {
            device: DEVICE.into(),
            listen_port: PORT,
            private_key: key.clone(),
            mtu: MTU,
            silence_changed: None,
        };
        // Another test may just be starting a program: until its exec, the fork holds copies of
        // this process's descriptors, so that a device dropped a moment ago is still there.
        let end = Instant::now() + Duration::from_secs(5);
        let engine = loop {
            let config = config.clone();
            match spawn_in(&namespace, || UserspaceEngine::start(config)).join().unwrap() {
                Ok(engine) => break engine,
                Err(OverlayError::DeviceBusy(..) | OverlayError::PortInUse(..))
                    if Instant::now() < end =>
                {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(e) => panic!("{e}: {:?}", std::error::Error::source(&e)),
            }
        };
        let node = Node { engine, namespace, key, number };
        node.ip(&format!("addr add {}/24 dev {DEVICE}", node.overlay4()));
        node.ip(&format!("addr add {}/64 dev {DEVICE} nodad", node.overlay6()));
        node.ip(&format!("link set {DEVICE} mtu {MTU} up"));
        node
    }

    /// Runs `ip` in the node.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.namespace))
    }

    pub(crate) fn overlay4(&self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, self.number as u8 + 1).into()
    }

    pub(crate) fn overlay6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, self.number as u16 + 1).into()
    }

    /// What others must know of it.
    pub(crate) fn as_peer(&self, underlay: IpAddr) -> Peer {
        Peer {
            public_key: self.engine.public_key(),
            endpoint: Some(SocketAddr::new(underlay, PORT)),
            allowed_ips: vec![IpNetwork::from(self.overlay4()), IpNetwork::from(self.overlay6())],
            keepalive: None,
            ends: None,
        }
    }

    /// The addresses at which a node and another ask whether they are there.
    fn ends(&self, other: &Node) -> Option<Ends> {
        match (self.overlay4(), other.overlay4()) {
            (IpAddr::V4(own), IpAddr::V4(theirs)) => Some(Ends { own, theirs }),
            _ => None,
        }
    }

    /// Everybody knows everybody, by IPv4.
    pub(crate) fn introduce(nodes: &[Node]) {
        for node in nodes {
            let others = nodes.iter().filter(|n| n.number != node.number);
            let peers = others
                .map(|n| Peer { ends: node.ends(n), ..n.as_peer(Net::underlay4(n.number)) })
                .collect();
            node.engine.set_peers(peers).unwrap();
        }
    }

    pub(crate) fn pings(&self, to: IpAddr) -> bool {
        let line = format!("ip netns exec {} busybox ping -c 2 -W 2 {to}", self.namespace);
        try_run(&line).status.success()
    }

    pub(crate) fn status_of(&self, peer: &Node) -> PeerStatus {
        let key = peer.engine.public_key();
        self.engine.status().peers.into_iter().find(|p| p.public_key == key).unwrap()
    }

    pub(crate) fn drops(&self, reason: &str) -> u64 {
        self.engine.status().drops[reason]
    }

    /// Packets the kernel gave to the overlay device; a super-packet is one.
    pub(crate) fn device_packets(&self) -> u64 {
        let path = format!("/sys/class/net/{DEVICE}/statistics/tx_packets");
        run(&format!("ip netns exec {} cat {path}", self.namespace)).trim().parse().unwrap()
    }
}

/// Sends `bytes` over TCP from one node to an address of another, and checks that they arrive.
pub(crate) fn transfer(from: &Node, to: &Node, address: IpAddr, bytes: usize) {
    let listener = spawn_in(&to.namespace, move || TcpListener::bind((address, 0)).unwrap());
    let listener = listener.join().unwrap();
    let target = listener.local_addr().unwrap();
    let receiver = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (mut hash, mut total, mut buf) = (DefaultHasher::new(), 0, vec![0; 1 << 16]);
        loop {
            match stream.read(&mut buf).unwrap() {
                0 => return (total, hash.finish()),
                n => {
                    hash.write(&buf[..n]);
                    total += n;
                }
            }
        }
    });
    let sender = spawn_in(&from.namespace, move || {
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        let (mut hash, mut rest, mut state) = (DefaultHasher::new(), bytes, 1u64);
        while rest > 0 {
            let chunk: Vec<u8> = (0..rest.min(60_000))
                .map(|_| {
                    state =
                        state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (state >> 56) as u8
                })
                .collect();
            hash.write(&chunk);
            stream.write_all(&chunk).unwrap();
            rest -= chunk.len();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        (bytes, hash.finish())
    });
    let sent = sender.join().unwrap();
    assert_eq!(receiver.join().unwrap(), sent, "bytes and hash");
}

/// Waits up to five seconds for `condition`.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < end, "not within 5 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
