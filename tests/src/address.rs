//! Who has which address: ranges reserved for documentation, so that nothing real is ever meant.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One of the two networks around a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Where the nodes are: 192.0.2.0/24 and 2001:db8:0:1::/64.
    Nodes,
    /// Where the outside clients are: 198.51.100.0/24 and 2001:db8:0:2::/64.
    Clients,
}

/// The last byte of the router's address on each segment.
pub(crate) const ROUTER: u8 = 254;
/// The last byte of the first host's address on each segment; the next host has the next one.
const FIRST_HOST: u8 = 11;
/// More hosts than this on one segment would meet the router's address.
pub(crate) const MAX_HOSTS: usize = 200;

impl Segment {
    /// The IPv4 address that ends in `last`; its prefix is a /24.
    pub(crate) fn v4(self, last: u8) -> Ipv4Addr {
        match self {
            Self::Nodes => Ipv4Addr::new(192, 0, 2, last),
            Self::Clients => Ipv4Addr::new(198, 51, 100, last),
        }
    }

    /// The IPv6 address that ends in `last`; its prefix is a /64.
    pub(crate) fn v6(self, last: u8) -> Ipv6Addr {
        let subnet = match self {
            Self::Nodes => 1,
            Self::Clients => 2,
        };
        Ipv6Addr::new(0x2001, 0xdb8, 0, subnet, 0, 0, 0, last.into())
    }
}

/// The addresses of the host with this index on a segment.
pub fn address(segment: Segment, index: usize) -> (IpAddr, IpAddr) {
    assert!(index < MAX_HOSTS, "a segment has room for {MAX_HOSTS} hosts");
    let last = FIRST_HOST + u8::try_from(index).expect("MAX_HOSTS is below 256");
    (segment.v4(last).into(), segment.v6(last).into())
}
