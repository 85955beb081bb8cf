//! Cryptokey routing: which peer an inner address belongs to.

use ip_network_table::IpNetworkTable;
use ipnetwork::IpNetwork;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest-prefix match from an address to a peer's index.
#[derive(Default)]
pub(crate) struct Routes(IpNetworkTable<u32>);

impl Routes {
    pub(crate) fn insert(&mut self, net: IpNetwork, peer: u32) {
        let net = ip_network::IpNetwork::new_truncate(net.ip(), net.prefix())
            .expect("a prefix of an IpNetwork is within its family's range");
        self.0.insert(net, peer);
    }

    pub(crate) fn peer_of(&self, address: IpAddr) -> Option<u32> {
        self.0.longest_match(address).map(|(_, &peer)| peer)
    }
}

/// The destination of an IP packet; none if it is not one.
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(16..20)?.try_into().ok().map(|a: [u8; 4]| Ipv4Addr::from(a).into()),
        6 => packet.get(24..40)?.try_into().ok().map(|a: [u8; 16]| Ipv6Addr::from(a).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins_and_host_bits_do_not_matter() {
        let mut routes = Routes::default();
        routes.insert("10.1.2.3/8".parse().unwrap(), 1);
        routes.insert("10.0.1.5/32".parse().unwrap(), 2);
        routes.insert("fd00::/64".parse().unwrap(), 3);
        let peer_of = |a: &str| routes.peer_of(a.parse().unwrap());
        assert_eq!(peer_of("10.9.9.9"), Some(1));
        assert_eq!(peer_of("10.0.1.5"), Some(2));
        assert_eq!(peer_of("fd00::77"), Some(3));
        assert_eq!(peer_of("fd01::77"), None);
        assert_eq!(peer_of("11.0.0.1"), None);
    }

    #[test]
    fn what_is_not_an_ip_packet_has_no_destination() {
        for bytes in [&[][..], &[0x45; 19], &[0x60; 39], &[0x10; 60]] {
            assert_eq!(destination(bytes), None);
        }
    }
}
