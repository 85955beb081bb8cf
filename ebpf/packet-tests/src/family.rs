//! The addresses tests use, in both families.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Address family of a test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    fn address(self, v4: [u8; 3], v6: u16, host: u8) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::new(v4[0], v4[1], v4[2], host).into(),
            Family::V6 => Ipv6Addr::new(v6, 0, 0, v4[2].into(), 0, 0, 0, host.into()).into(),
        }
    }

    /// In the overlay network `app`.
    pub fn app(self, host: u8) -> IpAddr {
        self.address([10, 0, 1], 0xfd00, host)
    }

    /// In the overlay network `db`.
    pub fn db(self, host: u8) -> IpAddr {
        self.address([10, 0, 2], 0xfd00, host)
    }

    /// In the ingress network.
    pub fn ingress(self, host: u8) -> IpAddr {
        self.address([10, 0, 0], 0xfd00, host)
    }

    /// Outside: nodes and clients.
    pub fn outside(self, host: u8) -> IpAddr {
        self.address([192, 0, 2], 0x2001, host)
    }

    /// Where a process listens on every address.
    pub fn any(self) -> SocketAddr {
        match self {
            Family::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
            Family::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
        }
    }
}

/// Makes each function a test for either family: `v4::NAME` and `v6::NAME`.
#[macro_export]
macro_rules! in_both_families {
    ($(fn $name:ident($family:ident) $body:block)*) => {
        mod v4 {
            use super::*;
            $(#[test] fn $name() { $crate::isolated(|| { let $family = $crate::Family::V4; $body }) })*
        }
        mod v6 {
            use super::*;
            $(#[test] fn $name() { $crate::isolated(|| { let $family = $crate::Family::V6; $body }) })*
        }
    };
}
