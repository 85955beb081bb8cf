//! Real sockets connect through a VIP while a backend refuses: socket programs and packet programs
//! together.
use std::{
    io::{ErrorKind, Read, Write},
    mem,
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use shoal_maps::DropReason;
use shoal_packet_tests::{Cgroup, Family, Node, Port, shut};

const APP: u64 = 1;
const WEB: u64 = 100;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(5));
/// Enough for aggregated packets both ways.
const BYTES: usize = 500_000;
/// A client that sends its SYN again at once; the initial timeout alone is a second.
const SOON: Duration = Duration::from_millis(500);

macro_rules! in_a_cgroup {
    ($(fn $name:ident($family:ident, $node:ident) $body:block)*) => {
        mod v4 {
            use super::*;
            $(#[test] fn $name() {
                Cgroup::run(concat!("v4::", stringify!($name)), |cgroup| {
                    let $family = Family::V4;
                    let mut $node = node(cgroup, $family);
                    $body
                });
            })*
        }
        mod v6 {
            use super::*;
            $(#[test] fn $name() {
                Cgroup::run(concat!("v6::", stringify!($name)), |cgroup| {
                    let $family = Family::V6;
                    let mut $node = node(cgroup, $family);
                    $body
                });
            })*
        }
    };
}

/// The client is container A; container B has the addresses of two tasks, 3 and 13, backends of the
/// VIP `app(100)`. Nothing listens yet.
fn node(cgroup: &mut Cgroup, f: Family) -> Node {
    let mut node = Node::over(mem::take(&mut cgroup.tables));
    let (a, b) = (node.a, node.b);
    node.tables.endpoint(f.app(2), APP, 2, a);
    node.configure(Port::ContainerA, f.app(2), f.app(1));
    for host in [3, 13] {
        node.tables.endpoint(f.app(host), APP, host.into(), b);
    }
    node.configure(Port::ContainerB, f.app(3), f.app(1));
    node.address(Port::ContainerB, f.app(13));
    node.tables.vip(f.app(100), WEB, APP, &[(f.app(3), 3), (f.app(13), 13)]);
    let cookie = node.cookie(Port::ContainerA);
    node.tables.caller(cookie, APP);
    node
}

/// Echoes every connection, until the listener that is returned is shut.
fn echo(node: &Node, address: SocketAddr) -> TcpListener {
    // A thread inherits the namespace of the one that makes it.
    node.run(Port::ContainerB, move || {
        let listener = TcpListener::bind(address).expect("a listener");
        let accepting = listener.try_clone().expect("a second handle");
        thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                thread::spawn(move || {
                    let mut bytes = vec![0; 65_536];
                    while let Ok(n @ 1..) = stream.read(&mut bytes) {
                        if stream.write_all(&bytes[..n]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        listener
    })
}

/// Connects, sends and gets back; returns how long connecting took.
fn call(address: SocketAddr, bytes: usize) -> Duration {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).expect("connected");
    let took = start.elapsed();
    assert_eq!(stream.peer_addr().expect("its peer"), address);
    stream.set_read_timeout(PATIENCE).expect("a timeout");
    let question: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
    let mut writer = stream.try_clone().expect("a second handle");
    let sent = question.clone();
    let writing = thread::spawn(move || writer.write_all(&sent).expect("sent"));
    let mut answer = vec![0; bytes];
    stream.read_exact(&mut answer).expect("the answer");
    writing.join().expect("written");
    assert!(answer == question, "the answer differs");
    took
}

in_a_cgroup! {
    fn a_backend_that_refuses_costs_no_connection(f, node) {
        let _alive = echo(&node, (f.app(3), 80).into());
        let vip = SocketAddr::from((f.app(100), 80));
        let took = node.run(Port::ContainerA, move || [(); 20].map(|()| call(vip, BYTES)));
        assert!(took.iter().all(|took| *took < SOON), "{took:?}");
        assert_eq!(node.tables.dropped(DropReason::Retried), 1, "spared after the first time");
        for _ in 0..5 {
            node.tables.eject(13, 80, 0);
            node.run(Port::ContainerA, move || [(); 2].map(|()| call(vip, BYTES)));
        }
        assert!(node.tables.dropped(DropReason::Retried) > 1, "tried again");
    }
    fn no_connection_fails_while_a_backend_stops(f, node) {
        let _alive = echo(&node, (f.app(3), 80).into());
        let stops = echo(&node, (f.app(13), 80).into());
        let vip = SocketAddr::from((f.app(100), 80));
        let stopping = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            shut(&stops);
        });
        let (took, resets) = node.run(Port::ContainerA, move || {
            let end = Instant::now() + Duration::from_millis(300);
            let (mut took, mut resets) = (vec![], 0);
            while Instant::now() < end {
                let start = Instant::now();
                let stream = TcpStream::connect(vip);
                took.push(start.elapsed());
                match stream {
                    // Its turn, so that no queue runs over; a reset when it was with the one that
                    // stops.
                    Ok(mut stream) => {
                        let _ = stream.write_all(b"?").and_then(|()| stream.read_exact(&mut [0]));
                    }
                    // Established with the one that stops, and reset before the caller of connect()
                    // woke up: a refusal has another number.
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => resets += 1,
                    Err(error) => panic!("a connection failed: {error}"),
                }
            }
            (took, resets)
        });
        stopping.join().expect("stopped");
        assert!(took.iter().all(|took| *took < SOON), "{:?}", took.iter().max());
        assert!(resets <= 1, "{resets} resets, of one client that was with the one that stops once");
        assert!(node.tables.dropped(DropReason::Retried) >= 1, "{} connections", took.len());
    }
    fn a_port_nobody_listens_on_is_refused(f, node) {
        let (vip, direct) = (SocketAddr::from((f.app(100), 80)), SocketAddr::from((f.app(3), 80)));
        for address in [vip, direct] {
            let (error, took) = node.run(Port::ContainerA, move || {
                let start = Instant::now();
                (TcpStream::connect(address).unwrap_err(), start.elapsed())
            });
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
            assert!(took < SOON, "{address}: {took:?}");
        }
        assert_eq!(node.tables.dropped(DropReason::Retried), 1, "only through the VIP");
    }
}
