//! Socket addresses as the kernel wants them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// No address: to be filled by the kernel.
pub(crate) const fn nowhere() -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: 0,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
        sin6_scope_id: 0,
    }
}

/// The address and its length: one of IPv4 uses the first 16 of the 28 bytes.
pub(crate) fn encode(address: SocketAddr) -> (libc::sockaddr_in6, libc::socklen_t) {
    let mut c = nowhere();
    c.sin6_port = address.port().to_be();
    let len = match address {
        SocketAddr::V6(v6) => {
            c.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            c.sin6_addr.s6_addr = v6.ip().octets();
            c.sin6_scope_id = v6.scope_id();
            size_of::<libc::sockaddr_in6>()
        }
        SocketAddr::V4(v4) => {
            c.sin6_family = libc::AF_INET as libc::sa_family_t;
            // sin_addr of sockaddr_in is where sin6_flowinfo is.
            c.sin6_flowinfo = u32::from_ne_bytes(v4.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
    };
    (c, len as libc::socklen_t)
}

/// Mapped IPv4 addresses become IPv4 addresses again. None for any other family.
pub(crate) fn decode(c: &libc::sockaddr_in6) -> Option<SocketAddr> {
    let port = u16::from_be(c.sin6_port);
    match i32::from(c.sin6_family) {
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(c.sin6_addr.s6_addr);
            Some(match ip.to_ipv4_mapped() {
                Some(v4) => SocketAddrV4::new(v4, port).into(),
                None => SocketAddrV6::new(ip, port, 0, c.sin6_scope_id).into(),
            })
        }
        libc::AF_INET => {
            let ip = Ipv4Addr::from(c.sin6_flowinfo.to_ne_bytes());
            Some(SocketAddrV4::new(ip, port).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_c_structure() {
        for text in ["192.0.2.1:51820", "[2001:db8::1]:51820", "[fe80::1%3]:7"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(decode(&encode(address).0), Some(address));
        }
    }

    #[test]
    fn a_mapped_address_is_seen_as_ipv4() {
        let mapped = encode("[::ffff:192.0.2.1]:5".parse().unwrap()).0;
        assert_eq!(decode(&mapped), Some("192.0.2.1:5".parse().unwrap()));
        assert_eq!(decode(&nowhere()), None);
    }
}
