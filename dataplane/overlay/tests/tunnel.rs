//! Encapsulated super-packets: VXLAN over the overlay device stands for the routing mesh's Geneve,
//! to which the kernel hands over super-packets in the same way (a UDP tunnel).

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use support::{DEVICE, Net, Node, run, transfer};

/// Whether the running kernel is at least `major.minor`.
fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = run("uname -r");
    let mut numbers = release.split(['.', '-']).map(|word| word.trim().parse::<u32>().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (major, minor)
}

#[test]
fn tcp_within_a_udp_tunnel_arrives_intact_and_leaves_the_kernel_whole() {
    const BYTES: usize = 4 << 20;
    let net = Net::new(2);
    let nodes = [Node::start(&net, 0), Node::start(&net, 1)];
    Node::introduce(&nodes);
    let [a, b] = &nodes;
    for (from, to) in [(a, b), (b, a)] {
        for (id, local, remote, options) in [
            (4, from.overlay4(), to.overlay4(), "noudpcsum"),
            (6, from.overlay6(), to.overlay6(), "udp6zerocsumtx udp6zerocsumrx"),
        ] {
            from.ip(&format!(
                "link add x{id} type vxlan id {id} dev {DEVICE} local {local} remote {remote} \
                 dstport {} {options}",
                4780 + id
            ));
            from.ip(&format!("addr add 10.{id}.0.{}/24 dev x{id}", from.number + 1));
            from.ip(&format!("link set x{id} mtu 1350 up"));
        }
    }
    for id in [4u8, 6] {
        let before = a.device_packets();
        transfer(a, b, [10, id, 0, 2].into(), BYTES);
        let packets = a.device_packets() - before;
        let segments = BYTES as u64 / 1298;
        // Older kernels cut super-packets themselves before they give them to a TUN.
        if kernel_is_at_least(6, 17) {
            assert!(packets < segments / 3, "{packets} packets over IPv{id}");
        }
    }
}
