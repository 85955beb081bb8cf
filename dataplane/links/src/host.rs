//! Addresses of the host: which there are, by which link, which to advertise.
use crate::{
    Links, LinksError,
    links::{errno, name, netlink},
};
use futures_util::TryStreamExt;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::{
    link::{LinkAttribute, LinkFlags, LinkInfo},
    route::{RouteAttribute, RouteHeader},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// MTU of a link that does not say, bytes (RFC 894).
const ETHERNET_MTU: u32 = 1500;

/// An address of the host that others may reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostAddress {
    /// The address.
    pub address: IpAddr,
    /// The link's name.
    pub ifname: String,
    /// The link's index.
    pub ifindex: u32,
    /// Whether the link is a device, not made by software as bridges, veths and tunnels are.
    pub device: bool,
    /// Whether the link is up and has a carrier.
    pub up: bool,
}

/// A link by which traffic leaves the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplink {
    /// Name.
    pub ifname: String,
    /// Index.
    pub ifindex: u32,
    /// MTU, bytes.
    pub mtu: u32,
}

/// Why there is no single address to advertise, in Docker's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdvertiseError {
    /// The host has no address but local ones.
    #[error("could not find the system's IP address - specify one with --advertise-addr")]
    None,
    /// Two on one link.
    #[error(
        "could not choose an IP address to advertise since this system has multiple addresses on \
         interface {0} ({1} and {2}) - specify one with --advertise-addr"
    )]
    SameInterface(String, IpAddr, IpAddr),
    /// Two on different links.
    #[error(
        "could not choose an IP address to advertise since this system has multiple addresses on \
         different interfaces ({1} on {0} and {3} on {2}) - specify one with --advertise-addr"
    )]
    DifferentInterfaces(String, IpAddr, String, IpAddr),
}

impl Links {
    /// All global unicast addresses of the host, sorted by link and address. Links whose name is in
    /// `except` are left out: the overlay device and what else is not the host's own.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn node_addresses(&self, except: &[&str]) -> Result<Vec<HostAddress>, LinksError> {
        let links = self.all().await?;
        let mut found = Vec::new();
        for (index, (address, _)) in self.addresses(None).await? {
            let Some(link) = links.iter().find(|l| l.header.index == index) else { continue };
            let Some(ifname) = name(link) else { continue };
            if except.contains(&ifname.as_str()) || !is_global_unicast(address) {
                continue;
            }
            let has_kind = link.attributes.iter().any(|a| match a {
                LinkAttribute::LinkInfo(info) => {
                    info.iter().any(|i| matches!(i, LinkInfo::Kind(_)))
                }
                _ => false,
            });
            found.push(HostAddress {
                address,
                ifindex: index,
                device: !has_kind && !link.header.flags.contains(LinkFlags::Loopback),
                // The carrier itself: the operational state lags behind it by up to a second.
                up: link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
                ifname,
            });
        }
        found.sort_by_key(|a| (a.ifindex, a.address));
        Ok(found)
    }

    /// The link that has an address of this host. When that is no link to the outside (an address
    /// on `lo`, as with routed hosts), the link of the default route.
    ///
    /// # Errors
    /// [`LinksError::NoSuchAddress`] when no link has it, or none leads outside.
    pub async fn uplink_for(&self, address: IpAddr) -> Result<Uplink, LinksError> {
        let links = self.all().await?;
        let holder = self
            .addresses(None)
            .await?
            .into_iter()
            .find(|(_, (a, _))| *a == address)
            .map(|(index, _)| index)
            .ok_or(LinksError::NoSuchAddress(address))?;
        let named = |index: u32| {
            let link = links.iter().find(|l| l.header.index == index)?;
            let outside = !link.header.flags.contains(LinkFlags::Loopback);
            let mtu = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::Mtu(mtu) => Some(*mtu),
                _ => None,
            });
            outside.then(|| Uplink {
                ifname: name(link).unwrap_or_default(),
                ifindex: index,
                mtu: mtu.unwrap_or(ETHERNET_MTU),
            })
        };
        if let Some(uplink) = named(holder) {
            return Ok(uplink);
        }
        let route = self.default_route_link(address.is_ipv4()).await?;
        route.and_then(named).ok_or(LinksError::NoSuchAddress(address))
    }

    /// The address to advertise when none is given, as Docker finds it. `except` as in
    /// [`Links::node_addresses`].
    ///
    /// # Errors
    /// [`AdvertiseError`] when there is not exactly one.
    pub async fn advertise_address(&self, except: &[&str]) -> Result<HostAddress, LinksError> {
        let addresses = self.node_addresses(except).await?;
        Ok(choose_advertise_address(&addresses)?.clone())
    }

    /// Index of the link of the default route in the main table.
    async fn default_route_link(&self, v4: bool) -> Result<Option<u32>, LinksError> {
        let filter = match v4 {
            true => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            false => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        let mut routes = self.handle.route().get(filter).execute();
        loop {
            let route = match routes.try_next().await {
                Ok(Some(route)) => route,
                Ok(None) => return Ok(None),
                Err(e) if errno(&e) == Some(libc::EAFNOSUPPORT) => return Ok(None),
                Err(e) => return Err(netlink("list", "routes")(e)),
            };
            if route.header.destination_prefix_length == 0
                && route.header.table == RouteHeader::RT_TABLE_MAIN
            {
                let link = route.attributes.iter().find_map(|a| match a {
                    RouteAttribute::Oif(index) => Some(*index),
                    _ => None,
                });
                if link.is_some() {
                    return Ok(link);
                }
            }
        }
    }
}

/// The one address to advertise. As Docker does: links that are up only; devices go before links
/// made by software; IPv4 before IPv6; more than one is the operator's choice to make.
///
/// # Errors
/// When there is none, or more than one.
pub fn choose_advertise_address(addresses: &[HostAddress]) -> Result<&HostAddress, AdvertiseError> {
    let up = || addresses.iter().filter(|a| a.up);
    for device in [true, false] {
        for v4 in [true, false] {
            let mut those = up().filter(|a| a.device == device && a.address.is_ipv4() == v4);
            match (those.next(), those.next()) {
                (None, _) => {}
                (Some(one), None) => return Ok(one),
                (Some(a), Some(b)) if a.ifindex == b.ifindex => {
                    return Err(AdvertiseError::SameInterface(
                        a.ifname.clone(),
                        a.address,
                        b.address,
                    ));
                }
                (Some(a), Some(b)) => {
                    return Err(AdvertiseError::DifferentInterfaces(
                        a.ifname.clone(),
                        a.address,
                        b.ifname.clone(),
                        b.address,
                    ));
                }
            }
        }
    }
    Err(AdvertiseError::None)
}

/// Whether others may reach the address: not local to a host or link, and no group.
fn is_global_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            !(a.is_loopback()
                || a.is_link_local()
                || a.is_multicast()
                || a.is_unspecified()
                || a.is_broadcast())
        }
        IpAddr::V6(a) => {
            !(a.is_loopback()
                || a.is_unicast_link_local()
                || a.is_multicast()
                || a.is_unspecified())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(ifindex: u32, address: &str, device: bool, up: bool) -> HostAddress {
        HostAddress {
            address: address.parse().unwrap(),
            ifname: format!("eth{ifindex}"),
            ifindex,
            device,
            up,
        }
    }

    #[test]
    fn a_single_address_is_chosen_before_those_of_bridges_and_of_links_that_are_down() {
        let all = [
            on(0, "172.17.0.1", false, true),
            on(1, "10.0.0.1", true, true),
            on(1, "2001:db8::1", true, true),
            on(2, "10.9.0.1", true, false),
        ];
        assert_eq!(choose_advertise_address(&all), Ok(&all[1]));
    }

    #[test]
    fn without_devices_links_made_by_software_count() {
        let all = [on(3, "192.168.7.1", false, true)];
        assert_eq!(choose_advertise_address(&all), Ok(&all[0]));
    }

    #[test]
    fn ipv6_alone_is_enough() {
        let all = [on(3, "2001:db8::1", true, true)];
        assert_eq!(choose_advertise_address(&all), Ok(&all[0]));
    }

    #[test]
    fn several_addresses_are_refused_in_dockers_words() {
        let all = [on(0, "10.0.0.1", true, true), on(1, "192.168.0.1", true, true)];
        assert_eq!(
            choose_advertise_address(&all).unwrap_err().to_string(),
            "could not choose an IP address to advertise since this system has multiple addresses \
             on different interfaces (10.0.0.1 on eth0 and 192.168.0.1 on eth1) - specify one with \
             --advertise-addr"
        );
        let all = [on(0, "10.0.0.1", true, true), on(0, "10.0.0.2", true, true)];
        assert_eq!(
            choose_advertise_address(&all).unwrap_err().to_string(),
            "could not choose an IP address to advertise since this system has multiple addresses \
             on interface eth0 (10.0.0.1 and 10.0.0.2) - specify one with --advertise-addr"
        );
        assert_eq!(
            choose_advertise_address(&[]).unwrap_err().to_string(),
            "could not find the system's IP address - specify one with --advertise-addr"
        );
    }

    #[test]
    fn addresses_local_to_a_host_or_link_are_not_global() {
        for local in ["127.0.0.1", "169.254.1.1", "::1", "fe80::1", "224.0.0.1", "ff02::1"] {
            assert!(!is_global_unicast(local.parse().unwrap()), "{local}");
        }
        for global in ["10.0.0.1", "198.51.100.1", "2001:db8::1", "fd00::1"] {
            assert!(is_global_unicast(global.parse().unwrap()), "{global}");
        }
    }
}
