//! Subnets of networks; none overlap in a cluster.
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use shoal_model::{State, docker};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest prefix of a network's IPv4 subnet: below it there is no room for a VIP and a task beside
/// network, gateway and broadcast address.
const LONGEST_V4: u8 = 29;

/// Prefix length of IPv6 subnets that the cluster chooses.
const V6_SIZE: u8 = 64;

/// Longest prefix of an IPv6 subnet: the host number of the IPv4 address must fit behind it.
const LONGEST_V6: u8 = 96;

/// Why a network gets no subnet.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SubnetError {
    /// All pools are in use. Docker's text, with the pools.
    #[error(
        "could not find an available, non-overlapping IPv{version} address pool among the defaults to assign to the network: no /{size} of {pools} is free; remove a network, name a --subnet outside of the pool, or begin the swarm with a larger --default-addr-pool"
    )]
    Exhausted {
        /// IP version, 4 or 6.
        version: u8,
        /// Prefix length of the subnets taken from the pools.
        size: u8,
        /// The pools.
        pools: String,
    },
    /// Not a subnet.
    #[error("invalid subnet {subnet}: {reason}")]
    Invalid {
        /// As given.
        subnet: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another network has a part of it. Docker's text with the other's name.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space: {subnet} overlaps network {name} ({other})"
    )]
    Overlap {
        /// As given.
        subnet: String,
        /// Name of the other network.
        name: String,
        /// Its subnet.
        other: String,
    },
    /// There is no cluster to take a pool from.
    #[error("the cluster is not initialised")]
    NoCluster,
}

/// Subnets for a network to be made: as asked for, else the lowest free ones of the cluster's pools.
pub fn allocate_subnet(
    state: &State,
    spec: &docker::NetworkCreateRequest,
) -> Result<(Ipv4Network, Option<Ipv6Network>), SubnetError> {
    let cluster = state.cluster.as_ref().ok_or(SubnetError::NoCluster)?;
    let (mut v4, mut v6) = (None, None);
    let configs = spec.ipam.as_ref().and_then(|i| i.config.as_deref()).unwrap_or_default();
    for text in configs.iter().filter_map(|c| c.subnet.as_deref()).filter(|s| !s.is_empty()) {
        let invalid = |reason: &str| SubnetError::Invalid {
            subnet: text.to_owned(),
            reason: reason.to_owned(),
        };
        let net: IpNetwork =
            text.parse().map_err(|_| invalid("write it as address/prefix, like 10.9.0.0/24"))?;
        match net {
            IpNetwork::V4(net) if v4.is_none() => v4 = Some(asked_v4(state, spec, text, net)?),
            IpNetwork::V6(net) if v6.is_none() => v6 = Some(asked_v6(state, text, net)?),
            _ => return Err(invalid("a network has one subnet of each IP version")),
        }
    }
    let wants_v6 = spec.enable_ipv6 == Some(true);
    if let (Some(v6), false) = (v6, wants_v6) {
        let reason = "IPv6 is not enabled on the network; create it with --ipv6".to_owned();
        return Err(SubnetError::Invalid { subnet: v6.to_string(), reason });
    }
    let v4 = match v4 {
        Some(net) => net,
        None => free_v4(state, spec, &cluster.address_pools, cluster.subnet_size)?,
    };
    // Its own, the gateway's and the broadcast address are nobody's.
    let room = u64::from(v4.size()).saturating_sub(3);
    let nodes = state.nodes.len() as u64;
    if spec.ingress == Some(true) && nodes > room {
        return Err(SubnetError::Invalid {
            subnet: v4.to_string(),
            reason: format!(
                "the ingress network needs an address for each of the swarm's {nodes} nodes and has {room}; name a larger --subnet"
            ),
        });
    }
    if wants_v6 && v6.is_none() {
        v6 = Some(free_v6(state, cluster.ipv6_pool)?);
    }
    Ok((v4, v6))
}

fn asked_v4(
    state: &State,
    spec: &docker::NetworkCreateRequest,
    text: &str,
    net: Ipv4Network,
) -> Result<Ipv4Network, SubnetError> {
    let unusable = net.network().is_loopback()
        || net.network().is_multicast()
        || net.network().is_unspecified()
        || net.prefix() < 8
        || net.prefix() > LONGEST_V4;
    if unusable {
        let reason = format!("it must be a unicast range with a prefix of 8 to {LONGEST_V4}");
        return Err(SubnetError::Invalid { subnet: text.to_owned(), reason });
    }
    let net = Ipv4Network::new(net.network(), net.prefix()).unwrap_or(net);
    // The network of such a task could be removed as soon as it was told to stop.
    if let Some(address) = in_the_way(state, spec).find(|a| net.contains(*a)) {
        return Err(SubnetError::Overlap {
            subnet: text.to_owned(),
            name: "that was removed and whose addresses are still in use".to_owned(),
            other: address.to_string(),
        });
    }
    match state.networks.values().find(|n| n.subnet.overlaps(net)) {
        Some(other) => Err(SubnetError::Overlap {
            subnet: text.to_owned(),
            name: other.name().to_owned(),
            other: other.subnet.to_string(),
        }),
        None => Ok(net),
    }
}

fn asked_v6(state: &State, text: &str, net: Ipv6Network) -> Result<Ipv6Network, SubnetError> {
    let unusable = net.network().is_multicast()
        || net.network().is_unspecified()
        || net.prefix() < 8
        || net.prefix() > LONGEST_V6;
    if unusable {
        let reason = format!("it must be a unicast range with a prefix of 8 to {LONGEST_V6}");
        return Err(SubnetError::Invalid { subnet: text.to_owned(), reason });
    }
    let net = Ipv6Network::new(net.network(), net.prefix()).unwrap_or(net);
    match state.networks.values().find(|n| n.subnet6.is_some_and(|o| overlap6(o, net))) {
        Some(other) => Err(SubnetError::Overlap {
            subnet: text.to_owned(),
            name: other.name().to_owned(),
            other: other.subnet6.map(|n| n.to_string()).unwrap_or_default(),
        }),
        None => Ok(net),
    }
}

fn free_v4(
    state: &State,
    spec: &docker::NetworkCreateRequest,
    pools: &[Ipv4Network],
    size: u8,
) -> Result<Ipv4Network, SubnetError> {
    let exhausted = || SubnetError::Exhausted { version: 4, size, pools: list(pools) };
    let step = 1_u64 << (32 - u32::from(size.clamp(8, LONGEST_V4)));
    let of_networks = state
        .networks
        .values()
        .map(|n| (n.subnet.network().to_bits().into(), n.subnet.broadcast().to_bits().into()));
    let of_tasks =
        in_the_way(state, spec).map(|a| (u64::from(a.to_bits()), u64::from(a.to_bits())));
    let mut taken: Vec<(u64, u64)> = of_networks.chain(of_tasks).collect();
    taken.sort();
    for pool in pools {
        let (first, last): (u64, u64) =
            (pool.network().to_bits().into(), pool.broadcast().to_bits().into());
        // What is taken is in order, so one pass moves the candidate behind all that are in its way.
        let candidate = taken.iter().fold(first, |at, (start, end)| {
            if *start < at + step && *end >= at { (end / step + 1) * step } else { at }
        });
        if candidate + step - 1 <= last {
            let base = Ipv4Addr::from_bits(u32::try_from(candidate).unwrap_or(u32::MAX));
            return Ipv4Network::new(base, size).map_err(|_| exhausted());
        }
    }
    Err(exhausted())
}

/// Addresses in use that are on no network. Those of nodes may be on the routing mesh's next one.
fn in_the_way(
    state: &State,
    spec: &docker::NetworkCreateRequest,
) -> impl Iterator<Item = Ipv4Addr> {
    let ingress = spec.ingress == Some(true);
    let of_node = move |a: &Ipv4Addr| state.node_addresses().contains_key(a);
    state.addresses_without_network().filter(move |a| !(ingress && of_node(a)))
}

fn list(pools: &[Ipv4Network]) -> String {
    let texts: Vec<String> = pools.iter().map(|p| p.to_string()).collect();
    texts.join(", ")
}

fn free_v6(state: &State, pool: Ipv6Network) -> Result<Ipv6Network, SubnetError> {
    let used: Vec<Ipv6Network> = state.networks.values().filter_map(|n| n.subnet6).collect();
    // One more candidate than there are networks: one of them is free, or the pool is too small.
    let room = 1_u128.checked_shl(u32::from(V6_SIZE.saturating_sub(pool.prefix()))).unwrap_or(0);
    (0..=used.len() as u128)
        .filter(|index| *index < room)
        .filter_map(|index| {
            let base = Ipv6Addr::from_bits(pool.network().to_bits() | (index << V6_SIZE));
            Ipv6Network::new(base, V6_SIZE).ok()
        })
        .find(|net| !used.iter().any(|o| overlap6(*o, *net)))
        .ok_or_else(|| SubnetError::Exhausted {
            version: 6,
            size: V6_SIZE,
            pools: pool.to_string(),
        })
}

fn overlap6(a: Ipv6Network, b: Ipv6Network) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}
