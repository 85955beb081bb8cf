//! Real stacks behind the programs: aggregated packets and checksums left to the hardware, which no
//! packet made by hand has.
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use shoal_packet_tests::{Node, Port, in_both_families};

const APP: u64 = 1;
const INGRESS: u64 = 3;
const WEB: u64 = 100;
const TCP: u8 = 6;
/// Enough for packets of 64 kB both ways.
const BYTES: usize = 2_000_000;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(5));

/// Echoes one connection at a port of a container and reports who called.
fn echo(node: &Node, at: Port, address: SocketAddr) -> thread::JoinHandle<SocketAddr> {
    // A thread inherits the namespace of the one that makes it.
    node.run(at, move || {
        let listener = TcpListener::bind(address).expect("a listener");
        thread::spawn(move || {
            let (mut stream, caller) = listener.accept().expect("a caller");
            stream.set_read_timeout(PATIENCE).expect("a timeout");
            let mut bytes = vec![0; BYTES];
            stream.read_exact(&mut bytes).expect("the question");
            stream.write_all(&bytes).expect("the answer");
            caller
        })
    })
}

/// Sends, and gets back what was sent; returns the caller's own address.
fn call(node: &Node, from: Port, address: SocketAddr) -> SocketAddr {
    node.run(from, move || {
        let mut stream =
            TcpStream::connect_timeout(&address, Duration::from_secs(5)).expect("connected");
        stream.set_read_timeout(PATIENCE).expect("a timeout");
        let question: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
        let mut writer = stream.try_clone().expect("a second handle");
        let sent = question.clone();
        let writing = thread::spawn(move || writer.write_all(&sent).expect("sent"));
        let mut answer = vec![0; BYTES];
        stream.read_exact(&mut answer).expect("the answer");
        writing.join().expect("written");
        assert!(answer == question, "the answer differs");
        stream.local_addr().expect("its address")
    })
}

fn attach(node: &mut Node, at: Port, address: IpAddr, gateway: IpAddr, network: u64, task: u64) {
    let ifindex = if at == Port::ContainerA { node.a } else { node.b };
    node.tables.endpoint(address, network, task, ifindex);
    node.configure(at, address, gateway);
}

in_both_families! {
    fn bulk_tcp_between_containers(f) {
        let mut node = Node::new();
        attach(&mut node, Port::ContainerA, f.app(2), f.app(1), APP, 2);
        attach(&mut node, Port::ContainerB, f.app(3), f.app(1), APP, 3);
        let server = echo(&node, Port::ContainerB, (f.app(3), 80).into());
        let client = call(&node, Port::ContainerA, (f.app(3), 80).into());
        assert_eq!(server.join().expect("served"), client);
        let traffic = node.tables.traffic(3);
        assert!(traffic.rx_bytes > BYTES as u64 && traffic.tx_bytes > BYTES as u64, "{traffic:?}");
    }
    fn bulk_tcp_through_a_vip_without_the_socket_programs(f) {
        let mut node = Node::new();
        attach(&mut node, Port::ContainerA, f.app(2), f.app(1), APP, 2);
        attach(&mut node, Port::ContainerB, f.app(3), f.app(1), APP, 3);
        node.tables.vip(f.app(100), WEB, APP, &[(f.app(3), 3)]);
        let server = echo(&node, Port::ContainerB, (f.app(3), 80).into());
        let client = call(&node, Port::ContainerA, (f.app(100), 80).into());
        assert_eq!(server.join().expect("served"), client);
    }
    fn bulk_tcp_of_a_task_to_itself_through_its_vip(f) {
        let mut node = Node::new();
        attach(&mut node, Port::ContainerA, f.app(2), f.app(1), APP, 2);
        node.tables.vip(f.app(100), WEB, APP, &[(f.app(2), 2)]);
        let server = echo(&node, Port::ContainerA, (f.app(2), 80).into());
        let client = call(&node, Port::ContainerA, (f.app(100), 80).into());
        assert_eq!(server.join().expect("served"), (f.app(100), client.port()).into());
    }
    fn bulk_tcp_from_outside_to_a_published_port_sees_the_real_client(f) {
        let mut node = Node::new();
        attach(&mut node, Port::ContainerA, f.ingress(2), f.ingress(1), INGRESS, 2);
        node.configure(Port::Outside, f.outside(9), f.outside(1));
        node.tables.node_address(f.outside(1));
        node.tables.ingress_task(2, None, f.ingress(2), 2);
        node.tables.port(8_080, TCP, 80, WEB, &[2]);
        let server = echo(&node, Port::ContainerA, (f.ingress(2), 80).into());
        let client = call(&node, Port::Outside, (f.outside(1), 8_080).into());
        assert_eq!((server.join().expect("served"), client.ip()), (client, f.outside(9)));
        assert_eq!(node.tables.stats(2).expect("statistics").connections, 1);
    }
}
