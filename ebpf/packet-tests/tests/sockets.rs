//! The socket programs on real sockets, in a control group of their own.
use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use shoal_maps::BackendStats;
use shoal_packet_tests::{Cgroup, Family};

const APP: u64 = 1;
const WEB: u64 = 100;
/// `include/uapi/asm-generic/errno.h`.
const EHOSTUNREACH: i32 = 113;

/// Makes each function a test for either family, in a control group.
macro_rules! in_a_cgroup {
    ($(fn $name:ident($family:ident, $cgroup:ident) $body:block)*) => {
        mod v4 {
            use super::*;
            $(#[test] fn $name() {
                Cgroup::run(concat!("v4::", stringify!($name)), |$cgroup| {
                    let $family = Family::V4;
                    $body
                });
            })*
        }
        mod v6 {
            use super::*;
            $(#[test] fn $name() {
                Cgroup::run(concat!("v6::", stringify!($name)), |$cgroup| {
                    let $family = Family::V6;
                    $body
                });
            })*
        }
    };
}

/// A service at `app(100)` with backends `app(11)`…, tasks 11…, each answering with its own number.
fn service(cgroup: &mut Cgroup, family: Family, backends: u8, port: u16) -> SocketAddr {
    let tasks: Vec<(IpAddr, u64)> =
        (11..11 + backends).map(|host| (family.app(host), u64::from(host))).collect();
    for &(address, task) in &tasks {
        let tcp = TcpListener::bind((address, port)).expect("a listener");
        thread::spawn(move || {
            // Kept open until the client closes, so that the client's port is free at once.
            for mut stream in tcp.incoming().flatten() {
                thread::spawn(move || {
                    let _ = stream.write_all(&[task as u8]);
                    let _ = stream.read(&mut [0]);
                });
            }
        });
        let udp = UdpSocket::bind((address, port)).expect("a socket");
        thread::spawn(move || {
            let mut bytes = [0; 16];
            while let Ok((_, from)) = udp.recv_from(&mut bytes) {
                let _ = udp.send_to(&[task as u8], from);
            }
        });
        cgroup.tables.endpoint(address, APP, task, 0);
    }
    let vip = family.app(100);
    cgroup.tables.vip(vip, WEB, APP, &tasks);
    let cookie = cgroup.cookie;
    cgroup.tables.caller(cookie, APP);
    (vip, port).into()
}

fn stats(cgroup: &mut Cgroup, task: u64) -> BackendStats {
    cgroup.tables.stats(task).expect("statistics")
}

fn number(stream: &mut TcpStream) -> u64 {
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("an answer");
    byte[0].into()
}

/// A socket's end is told to the program when the kernel gets to it.
fn settles(cgroup: &mut Cgroup, task: u64, active: i64) {
    let end = Instant::now() + Duration::from_secs(2);
    while stats(cgroup, task).active != active {
        assert!(Instant::now() < end, "{:?}, expected {active} active", stats(cgroup, task));
        thread::sleep(Duration::from_millis(5));
    }
}

fn udp(family: Family) -> UdpSocket {
    let socket = UdpSocket::bind(family.any()).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    socket
}

fn ask(socket: &UdpSocket, vip: SocketAddr) -> (u64, SocketAddr) {
    socket.send_to(b"?", vip).expect("sent");
    let mut byte = [0];
    let (_, from) = socket.recv_from(&mut byte).expect("an answer");
    (byte[0].into(), from)
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

in_a_cgroup! {
    fn tcp_to_a_vip_reaches_a_backend_and_its_peer_is_the_vip(f, cgroup) {
        let vip = service(cgroup, f, 1, 80);
        let mut stream = TcpStream::connect(vip).expect("connected");
        assert_eq!(number(&mut stream), 11);
        assert_eq!(stream.peer_addr().unwrap(), vip);
    }
    fn another_address_is_left_alone_and_not_counted(f, cgroup) {
        service(cgroup, f, 1, 80);
        let direct = SocketAddr::from((f.app(11), 80));
        let mut stream = TcpStream::connect(direct).expect("connected");
        assert_eq!(number(&mut stream), 11);
        assert_eq!(stream.peer_addr().unwrap(), direct);
        assert_eq!(stats(cgroup, 11), BackendStats::default());
    }
    fn a_caller_not_attached_to_the_network_finds_the_host_unreachable(f, cgroup) {
        let vip = service(cgroup, f, 1, 80);
        cgroup.tables.vip(f.app(100), WEB, 2, &[(f.app(11), 11)]);
        let error = TcpStream::connect(vip).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EHOSTUNREACH), "{error}");
        let error = udp(f).send_to(b"?", vip).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EHOSTUNREACH), "{error}");
        let error = udp(f).connect(vip).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EHOSTUNREACH), "{error}");
    }
    fn a_vip_without_backends_refuses_the_connection(f, cgroup) {
        let vip = service(cgroup, f, 0, 80);
        assert_eq!(TcpStream::connect(vip).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(udp(f).send_to(b"?", vip).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    fn three_hundred_connections_one_after_another_spread_within_a_tenth_of_even(f, cgroup) {
        let vip = service(cgroup, f, 3, 80);
        let mut answered = [0_u64; 3];
        for _ in 0..300 {
            let mut stream = TcpStream::connect(vip).expect("connected");
            answered[number(&mut stream) as usize - 11] += 1;
        }
        assert!(answered.iter().all(|n| (90..=110).contains(n)), "{answered:?}");
        let counted = [11, 12, 13].map(|task| stats(cgroup, task).connections);
        assert_eq!(counted, answered);
    }
    fn a_backend_with_open_connections_is_spared(f, cgroup) {
        let vip = service(cgroup, f, 2, 80);
        let connect = || {
            let mut stream = TcpStream::connect(vip).expect("connected");
            (number(&mut stream), stream)
        };
        let mut held: Vec<_> = (0..20).map(|_| connect()).collect();
        assert_eq!([11, 12].map(|task| stats(cgroup, task).active), [10, 10]);
        held.retain(|(task, _)| *task == 11);
        settles(cgroup, 12, 0);
        for _ in 0..10 {
            held.push(connect());
            assert_eq!(held.last().map(|(task, _)| *task), Some(12));
        }
    }
    fn a_closed_socket_gives_its_connection_back(f, cgroup) {
        let vip = service(cgroup, f, 1, 80);
        let streams: Vec<_> = (0..5).map(|_| TcpStream::connect(vip).unwrap()).collect();
        assert_eq!(stats(cgroup, 11), BackendStats { connections: 5, active: 5 });
        drop(streams);
        settles(cgroup, 11, 0);
        assert_eq!(stats(cgroup, 11).connections, 5);
    }
    fn a_connection_the_backend_refuses_is_given_back_too(f, cgroup) {
        let vip = service(cgroup, f, 1, 80);
        let error = TcpStream::connect((vip.ip(), 81)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        settles(cgroup, 11, 0);
    }
    fn a_backend_that_refused_a_port_is_spared_there_and_nowhere_else(f, cgroup) {
        let (web, other) = (service(cgroup, f, 3, 80), service(cgroup, f, 3, 81));
        cgroup.tables.eject(11, 80, u64::MAX);
        cgroup.tables.eject(12, 80, u64::MAX);
        for _ in 0..30 {
            assert_eq!(number(&mut TcpStream::connect(web).expect("connected")), 13);
        }
        let mut answered: Vec<_> =
            (0..30).map(|_| number(&mut TcpStream::connect(other).expect("connected"))).collect();
        answered.sort();
        answered.dedup();
        assert_eq!(answered, [11, 12]);
    }
    fn backends_that_all_refused_are_chosen_all_the_same(f, cgroup) {
        let vip = service(cgroup, f, 3, 80);
        for task in 11..=13 {
            cgroup.tables.eject(task, 80, u64::MAX);
        }
        let mut answered: Vec<_> =
            (0..30).map(|_| number(&mut TcpStream::connect(vip).expect("connected"))).collect();
        answered.sort();
        answered.dedup();
        assert_eq!(answered, [11, 12, 13]);
    }
    fn a_refusal_is_forgotten_when_its_time_is_over(f, cgroup) {
        let vip = service(cgroup, f, 2, 80);
        cgroup.tables.eject(11, 80, 1);
        for _ in 0..10 {
            number(&mut TcpStream::connect(vip).expect("connected"));
        }
        assert_eq!([11, 12].map(|task| stats(cgroup, task).connections), [5, 5]);
    }
    fn udp_does_not_mind_what_tcp_was_refused(f, cgroup) {
        let vip = service(cgroup, f, 2, 53);
        cgroup.tables.eject(11, 53, u64::MAX);
        for _ in 0..10 {
            ask(&udp(f), vip);
            udp(f).connect(vip).expect("connected");
        }
        assert_eq!([11, 12].map(|task| stats(cgroup, task).connections), [10, 10]);
    }
    fn connected_udp_talks_to_one_backend_and_sees_the_vip(f, cgroup) {
        let vip = service(cgroup, f, 3, 53);
        let socket = udp(f);
        socket.connect(vip).expect("connected");
        assert_eq!(socket.peer_addr().unwrap(), vip);
        let mut byte = [0];
        let mut seen = vec![];
        for _ in 0..5 {
            socket.send(b"?").expect("sent");
            let (_, from) = socket.recv_from(&mut byte).expect("an answer");
            assert_eq!(from, vip);
            seen.push(byte[0]);
        }
        assert!(seen.iter().all(|n| *n == seen[0]), "{seen:?}");
        assert_eq!(stats(cgroup, seen[0].into()), BackendStats { connections: 1, active: 1 });
    }
    fn a_socket_connected_anew_gives_the_old_connection_back(f, cgroup) {
        let vip = service(cgroup, f, 1, 53);
        let socket = udp(f);
        for connections in 1..=3 {
            socket.connect(vip).expect("connected");
            assert_eq!(stats(cgroup, 11), BackendStats { connections, active: 1 });
        }
        socket.connect((f.app(12), 53)).expect("connected");
        assert_eq!(stats(cgroup, 11).active, 0);
        assert_eq!(socket.peer_addr().unwrap(), (f.app(12), 53).into());
    }
    fn unconnected_udp_keeps_its_backend_and_the_answer_comes_from_the_vip(f, cgroup) {
        let vip = service(cgroup, f, 3, 53);
        let socket = udp(f);
        let (first, from) = ask(&socket, vip);
        assert_eq!(from, vip);
        for _ in 0..10 {
            assert_eq!(ask(&socket, vip), (first, vip));
        }
        assert_eq!(stats(cgroup, first), BackendStats { connections: 1, active: 0 });
    }
    fn unconnected_udp_sockets_spread_over_the_backends(f, cgroup) {
        let vip = service(cgroup, f, 3, 53);
        for _ in 0..30 {
            ask(&udp(f), vip);
        }
        let counted = [11, 12, 13].map(|task| stats(cgroup, task).connections);
        assert!(counted.iter().all(|n| (6..=14).contains(n)), "{counted:?}");
    }
    fn unconnected_udp_leaves_a_backend_that_is_gone(f, cgroup) {
        let vip = service(cgroup, f, 2, 53);
        let socket = udp(f);
        let (gone, _) = ask(&socket, vip);
        let left = if gone == 11 { 12 } else { 11 };
        cgroup.tables.vip(f.app(100), WEB, APP, &[(f.app(left), left.into())]);
        cgroup.tables.remove("ENDPOINTS", f.app(gone as u8));
        assert_eq!(ask(&socket, vip), (left.into(), vip));
    }
    fn unconnected_udp_to_a_backend_itself_is_left_alone(f, cgroup) {
        service(cgroup, f, 1, 53);
        let direct = SocketAddr::from((f.app(11), 53));
        assert_eq!(ask(&udp(f), direct), (11, direct));
    }
    fn an_ipv6_socket_reaches_the_vip(f, cgroup) {
        // For IPv4 by its mapped address, as dual-stack programs do.
        let vip = mapped(service(cgroup, f, 1, 80));
        let mut stream = TcpStream::connect(vip).expect("connected");
        assert_eq!((number(&mut stream), stream.peer_addr().unwrap()), (11, vip));
        let socket = udp(Family::V6);
        assert_eq!(ask(&socket, vip), (11, vip));
        socket.connect(vip).expect("connected");
        assert_eq!(socket.peer_addr().unwrap(), vip);
        assert!(socket.local_addr().unwrap().ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    }
}
