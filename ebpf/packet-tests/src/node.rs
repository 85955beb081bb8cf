//! A node with the packet programs attached, and eyes on every way out.
use std::{
    fs,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TcAttachType, tc::qdisc_add_clsact};
use shoal_maps::DropReason;

use crate::{Family, Frame, Namespace, Tables, host_mac, ip, local_mac, system};

/// How long a packet may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to look for packets that should not come.
const QUIET: Duration = Duration::from_millis(100);

/// A place packets come from and go to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// `eth0` of the first container.
    ContainerA,
    /// `eth0` of the second container.
    ContainerB,
    /// A host outside, on the uplink's wire.
    Outside,
    /// The engine's end of `shoal0`.
    Tunnel,
}

const PORTS: [Port; 4] = [Port::ContainerA, Port::ContainerB, Port::Outside, Port::Tunnel];

/// A node in the calling thread's namespace, two containers and a host outside in their own.
pub struct Node {
    /// The tables.
    pub tables: Tables,
    /// Host side of the first container's veth.
    pub a: u32,
    /// Host side of the second container's veth.
    pub b: u32,
    sockets: [OwnedFd; 4],
    namespaces: [Namespace; 3],
}

impl Node {
    /// The node's own address in the overlay.
    pub fn overlay() -> IpAddr {
        Family::V4.ingress(201)
    }

    /// Another node's.
    pub fn other_node() -> IpAddr {
        Family::V4.ingress(202)
    }

    /// Builds it; the node's address outside is host 1, the outside host is host 9.
    ///
    /// # Panics
    ///
    /// When a part cannot be made.
    pub fn new() -> Node {
        Node::over(Tables::new())
    }

    /// The same, with the tables of an object some of whose programs are attached elsewhere.
    ///
    /// # Panics
    ///
    /// When a part cannot be made.
    pub fn over(mut tables: Tables) -> Node {
        let namespaces = [Namespace::new(), Namespace::new(), Namespace::new()];
        let [a, b, outside] = &namespaces;
        let (a_index, a_socket) = link("task-a", a);
        let (b_index, b_socket) = link("task-b", b);
        let (uplink, outside_socket) = link("uplink", outside);
        let tunnel = system::tun("shoal0").expect("a TUN device");
        ip("link set shoal0 mtu 1420 up");
        for family in [Family::V4, Family::V6] {
            let (node, host, bits) = match family {
                Family::V4 => (family.outside(1), family.outside(9), 24),
                Family::V6 => (family.outside(1), family.outside(9), 64),
            };
            let nodad = if family == Family::V6 { " nodad" } else { "" };
            ip(&format!("address add {node}/{bits} dev uplink{nodad}"));
            system::wait_for_address(node);
            let mac = text(local_mac(uplink));
            ip(&format!("neighbour add {host} lladdr {mac} dev uplink nud permanent"));
        }
        tables.config(Node::overlay(), system::ifindex("shoal0"), uplink);
        for (program, interfaces) in [
            ("from_container", &["task-a", "task-b"][..]),
            ("from_overlay", &["shoal0"]),
            ("from_uplink", &["uplink"]),
        ] {
            let program: &mut SchedClassifier =
                tables.object.program_mut(program).expect("a program").try_into().expect("tcx");
            program.load().expect("accepted by the verifier");
            for interface in interfaces {
                if SchedClassifier::query_tcx(interface, TcAttachType::Ingress).is_err() {
                    // Before Linux 6.6 programs hang on a qdisc.
                    qdisc_add_clsact(interface).expect("a clsact qdisc");
                }
                program.attach(interface, TcAttachType::Ingress).expect("attached");
            }
        }
        let sockets = [a_socket, b_socket, outside_socket, tunnel];
        Node { tables, a: a_index, b: b_index, sockets, namespaces }
    }

    /// Sends a packet and expects it to come out at exactly one place, once.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn forward(&mut self, from: Port, frame: &Frame) -> (Port, Frame) {
        self.send(from, frame);
        let mut seen = self.watch(PATIENCE, 1);
        seen.extend(self.watch(QUIET, usize::MAX));
        assert_eq!(seen.len(), 1, "sent {frame:?} at {from:?}, seen {seen:?}");
        seen.remove(0)
    }

    /// Sends a packet and expects it to be dropped and counted.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn expect_drop(&mut self, from: Port, frame: &Frame, reason: DropReason) {
        let before = self.tables.dropped(reason);
        self.send(from, frame);
        let seen = self.watch(QUIET, usize::MAX);
        assert!(seen.is_empty(), "sent {frame:?} at {from:?}, seen {seen:?}");
        assert_eq!(self.tables.dropped(reason), before + 1, "not counted as {reason:?}");
    }

    /// Gives a container or the outside host an address of its own and the way to everything else,
    /// so that its kernel's stack takes part.
    pub fn configure(&self, port: Port, address: IpAddr, gateway: IpAddr) {
        let mac = text(match port {
            Port::ContainerA => host_mac(self.a),
            Port::ContainerB => host_mac(self.b),
            _ => host_mac(system::ifindex("uplink")),
        });
        self.run(port, move || {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            for scope in ["all", "default", "eth0"] {
                // Absent where the kernel has no IPv6.
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "0");
            }
            add_address(address);
            ip(&format!("route add {gateway}/{bits} dev eth0"));
            ip(&format!("route add default via {gateway} dev eth0"));
            ip(&format!("neighbour add {gateway} lladdr {mac} dev eth0 nud permanent"));
        });
    }

    /// Gives it a further address.
    pub fn address(&self, port: Port, address: IpAddr) {
        self.run(port, move || add_address(address));
    }

    /// Cookie of a container's network namespace.
    pub fn cookie(&self, port: Port) -> u64 {
        self.run(port, system::netns_cookie)
    }

    /// Runs a function in a container or on the outside host.
    ///
    /// # Panics
    ///
    /// When the function does, and for the tunnel, which is no host.
    pub fn run<T: Send + 'static>(
        &self,
        port: Port,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.namespaces[port as usize].run(job)
    }

    fn send(&self, from: Port, frame: &Frame) {
        let mut frame = frame.clone();
        // What the neighbour entry says: every container's gateway is its own veth.
        frame.to = match from {
            Port::ContainerA => host_mac(self.a),
            Port::ContainerB => host_mac(self.b),
            Port::Outside => host_mac(system::ifindex("uplink")),
            Port::Tunnel => frame.to,
        };
        let bytes = if from == Port::Tunnel { frame.ip() } else { frame.ethernet() };
        system::write(&self.sockets[from as usize], &bytes);
    }

    fn watch(&self, time: Duration, enough: usize) -> Vec<(Port, Frame)> {
        let end = Instant::now() + time;
        let fds: Vec<_> = self.sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let mut seen = vec![];
        while seen.len() < enough && Instant::now() < end {
            for at in system::readable(&fds, end.saturating_duration_since(Instant::now())) {
                let Some(bytes) = system::read(&self.sockets[at]) else { continue };
                let frame = match PORTS[at] {
                    Port::Tunnel if is_ours(&bytes) => Frame::from_ip(&bytes),
                    Port::Tunnel => continue,
                    _ if is_ours(&bytes[14..]) => Frame::from_ethernet(&bytes),
                    _ => continue,
                };
                seen.push((PORTS[at], frame));
            }
        }
        seen
    }
}

impl Default for Node {
    fn default() -> Node {
        Node::new()
    }
}

fn add_address(address: IpAddr) {
    let (bits, nodad) = if address.is_ipv4() { (32, "") } else { (128, " nodad") };
    ip(&format!("address add {address}/{bits} dev eth0{nodad}"));
    system::wait_for_address(address);
}

/// Whether an IP packet is a test's and not the kernel's (listener reports, neighbour discovery).
fn is_ours(ip: &[u8]) -> bool {
    match ip[0] >> 4 {
        4 => matches!(ip[9], 1 | 6 | 17),
        6 => matches!(ip[6], 6 | 17) || ip[6] == 58 && matches!(ip[40], 128 | 129),
        _ => false,
    }
}

/// A veth into a namespace, whose end there is `eth0`, and a packet socket on that.
fn link(name: &str, namespace: &Namespace) -> (u32, OwnedFd) {
    ip(&format!("link add {name} type veth peer name eth0 netns {}", namespace.id));
    let index = system::ifindex(name);
    let (host, local) = (text(host_mac(index)), text(local_mac(index)));
    let socket = namespace.run(move || {
        for scope in ["all", "default"] {
            // Absent where the kernel has no IPv6: then there is nothing to silence.
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
        }
        ip(&format!("link set eth0 address {local} up"));
        system::packet_socket("eth0").expect("a packet socket")
    });
    ip(&format!("link set {name} address {host} up"));
    (index, socket)
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
