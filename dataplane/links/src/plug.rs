//! A container's veth pair: one cable for all its networks.
use crate::{
    Links, LinksError, NetNs,
    links::{errno, netlink},
    sysctl,
};
use ipnetwork::IpNetwork;
use rtnetlink::packet_route::{
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage},
    neighbour::NeighbourState,
    route::{RouteAttribute, RouteMessage, RouteScope},
};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
};

/// How the names of all host-side ends begin.
pub const VETH_PREFIX: &str = "shv-";
/// Longest name of a link, bytes (`IFNAMSIZ` less the zero).
const MAX_IFNAME: usize = 15;
/// Networks one container may be attached to, counted per address family.
pub const MAX_NETWORKS: usize = 64;

/// One address of a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// The container's address; it gets it alone, as /32 or /128.
    pub address: IpAddr,
    /// The network.
    pub subnet: IpNetwork,
    /// The network's gateway: an address nobody has, answered by the host's end of the cable.
    pub gateway: IpAddr,
    /// Whether the default route of this family leads through this gateway. At most one each.
    pub default_route: bool,
}

/// What to plug in.
#[derive(Debug)]
pub struct PlugSpec<'a> {
    /// The container's namespace.
    pub netns: &'a NetNs,
    /// Name of the host's end, see [`host_ifname`].
    pub host_ifname: &'a str,
    /// Name of the container's end, normally `eth0`.
    pub container_ifname: &'a str,
    /// Its addresses.
    pub attachments: &'a [Attachment],
    /// MTU of both ends, bytes.
    pub mtu: u32,
}

/// A plugged cable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plugged {
    /// Index of the host's end.
    pub ifindex: u32,
    /// MAC address of the host's end.
    pub host_mac: [u8; 6],
    /// MAC address of the container's end.
    pub container_mac: [u8; 6],
}

impl Links {
    /// Makes a veth pair with one end in the container, with addresses, routes and permanent
    /// neighbours there, so that its packets reach the program on the host's end without ARP. On
    /// failure nothing is left but the namespace. `self` must be of the host's namespace.
    ///
    /// # Errors
    /// When the specification contradicts itself, a link of that name exists, or the kernel refuses.
    pub async fn plug(&self, spec: &PlugSpec<'_>) -> Result<Plugged, LinksError> {
        check(spec)?;
        let plugged = self.add_pair(spec).await?;
        let result = self.furnish(spec, plugged).await;
        if result.is_err() {
            // What was made is of no use without the rest; the first error is the one to tell.
            let _ = self.remove(spec.host_ifname).await;
        }
        result.map(|()| plugged)
    }

    /// A cable plugged earlier, as by a daemon that has been restarted since; `None` when there is
    /// none of this name.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn plugged(&self, host_ifname: &str) -> Result<Option<Plugged>, LinksError> {
        let (host_mac, container_mac) = macs(host_ifname);
        let link = self.find(host_ifname).await?;
        Ok(link.map(|l| Plugged { ifindex: l.header.index, host_mac, container_mac }))
    }

    /// Removes a cable. Nothing there is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn unplug(&self, host_ifname: &str) -> Result<(), LinksError> {
        self.remove(host_ifname).await
    }

    /// One request makes both ends where they belong, so that no end is ever left elsewhere.
    async fn add_pair(&self, spec: &PlugSpec<'_>) -> Result<Plugged, LinksError> {
        let name = spec.host_ifname;
        let (host_mac, container_mac) = macs(name);
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(spec.container_ifname.into()),
            LinkAttribute::Address(container_mac.to_vec()),
            LinkAttribute::Mtu(spec.mtu),
            LinkAttribute::NetNsFd(spec.netns.as_fd().as_raw_fd()),
        ];
        let mut pair = LinkMessage::default();
        pair.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Address(host_mac.to_vec()),
            LinkAttribute::Mtu(spec.mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        // Settings of a device are born from `default`, so they come first.
        spec.netns.run_in(sysctl::set_container)??;
        self.handle.link().add(pair).execute().await.map_err(|e| match errno(&e) {
            Some(libc::EEXIST) => LinksError::Spec {
                ifname: name.into(),
                reason: "a link of this name exists, here or in the container: unplug it first"
                    .into(),
            },
            _ => netlink("add veth", name)(e),
        })?;
        let ifindex = self.index(name).await?;
        Ok(Plugged { ifindex, host_mac, container_mac })
    }

    async fn furnish(&self, spec: &PlugSpec<'_>, plugged: Plugged) -> Result<(), LinksError> {
        sysctl::set_host_veth(spec.host_ifname)?;
        self.up(plugged.ifindex, spec.host_ifname).await?;
        let inside = spec.netns.links()?;
        inside.up(inside.index("lo").await?, "lo").await?;
        let index = inside.index(spec.container_ifname).await?;
        inside.up(index, spec.container_ifname).await?;
        for attachment in spec.attachments {
            inside.attach(index, attachment, plugged.host_mac).await?;
        }
        Ok(())
    }

    /// Address, neighbour, then the routes that need them.
    async fn attach(&self, index: u32, a: &Attachment, mac: [u8; 6]) -> Result<(), LinksError> {
        let alone = if a.address.is_ipv4() { 32 } else { 128 };
        self.add_address(index, (a.address, alone)).await?;
        self.handle
            .neighbours()
            .add(index, a.gateway)
            .link_layer_address(&mac)
            .state(NeighbourState::Permanent)
            .replace()
            .execute()
            .await
            .map_err(netlink("add neighbour", a.gateway))?;
        self.add_route(index, a, (a.gateway, alone), false).await?;
        self.add_route(index, a, (a.subnet.network(), a.subnet.prefix()), true).await?;
        if a.default_route {
            let any = match a.address {
                IpAddr::V4(_) => IpAddr::from([0_u8; 4]),
                IpAddr::V6(_) => IpAddr::from([0_u8; 16]),
            };
            self.add_route(index, a, (any, 0), true).await?;
        }
        Ok(())
    }

    /// A route from the attachment's address, by its gateway or straight out of the link.
    async fn add_route(
        &self,
        index: u32,
        a: &Attachment,
        (destination, length): (IpAddr, u8),
        by_gateway: bool,
    ) -> Result<(), LinksError> {
        let object = format!("{destination}/{length} via {}", a.gateway);
        let failed = |reason: String| LinksError::Spec { ifname: object.clone(), reason };
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination, length)
            .map_err(|e| failed(e.to_string()))?
            .output_interface(index);
        if by_gateway {
            builder = builder.gateway(a.gateway).map_err(|e| failed(e.to_string()))?;
        } else if destination.is_ipv4() {
            builder = builder.scope(RouteScope::Link);
        }
        let mut message: RouteMessage = builder.build();
        message.attributes.push(RouteAttribute::PrefSource(a.address.into()));
        match self.handle.route().add(message).replace().execute().await {
            Ok(()) => Ok(()),
            Err(e) => Err(netlink("add route", object)(e)),
        }
    }

    async fn up(&self, index: u32, ifname: &str) -> Result<(), LinksError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(message).execute().await.map_err(netlink("set up", ifname))
    }
}

/// Name of the host's end for a task or container: the prefix and 44 bits of a hash of its id.
pub fn host_ifname(id: &str) -> String {
    format!("{VETH_PREFIX}{:011x}", hash(id) >> 20)
}

/// MAC addresses of both ends, from the name of the host's: locally administered, the same again
/// after a restart.
fn macs(host_ifname: &str) -> ([u8; 6], [u8; 6]) {
    let h = hash(host_ifname).to_be_bytes();
    ([0x02, h[0], h[1], h[2], h[3], h[4]], [0x06, h[0], h[1], h[2], h[3], h[4]])
}

/// FNV-1a, 64 bits, with a last mixing so that the upper bits of short ids differ, too.
fn hash(id: &str) -> u64 {
    let h = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (h ^ (h >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn check(spec: &PlugSpec<'_>) -> Result<(), LinksError> {
    let refuse = |reason: String| Err(LinksError::Spec { ifname: spec.host_ifname.into(), reason });
    for name in [spec.host_ifname, spec.container_ifname] {
        if name.is_empty() || name.len() > MAX_IFNAME || name.contains(['/', ' ', ':']) {
            return refuse(format!("{name:?} is no name of a link (1 to {MAX_IFNAME} bytes)"));
        }
    }
    let mut defaults = [0_usize; 2];
    let mut count = [0_usize; 2];
    let mut addresses = BTreeSet::new();
    for a in spec.attachments {
        let v6 = usize::from(a.address.is_ipv6());
        count[v6] += 1;
        defaults[v6] += usize::from(a.default_route);
        if !a.subnet.contains(a.address) || !a.subnet.contains(a.gateway) {
            return refuse(format!(
                "address {} and gateway {} must be in the subnet {}",
                a.address, a.gateway, a.subnet
            ));
        }
        if a.address == a.gateway {
            return refuse(format!("{} is the gateway's address", a.address));
        }
        if !addresses.insert(a.address) {
            return refuse(format!("address {} is given twice", a.address));
        }
    }
    if count.iter().any(|c| *c > MAX_NETWORKS) {
        return refuse(format!("more than {MAX_NETWORKS} networks"));
    }
    if defaults.iter().any(|d| *d > 1) {
        return refuse("more than one default route".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_a_link_and_differ_between_ids_that_differ_in_one_character() {
        let names: BTreeSet<String> = (0..10_000).map(|i| host_ifname(&format!("t{i}"))).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|n| n.len() == MAX_IFNAME && n.starts_with(VETH_PREFIX)));
    }

    #[test]
    fn both_macs_are_local_unicast_and_differ() {
        let (host, container) = macs("shv-00000000001");
        assert_ne!(host, container);
        for mac in [host, container] {
            assert_eq!(mac[0] & 0b11, 0b10, "locally administered, not a group");
        }
    }
}
