//! Free addresses of a network.
use shoal_model::{Holders, NetAddresses, Network, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

/// Free addresses of all networks, taken one after the other.
pub(crate) struct Pools<'a> {
    state: &'a State,
    /// Of the networks that were taken from.
    pools: BTreeMap<&'a str, Pool<'a>>,
}

/// A network's addresses by host number (0 is the network, 1 the gateway, the last the broadcast).
struct Pool<'a> {
    base: Ipv4Addr,
    base6: Option<Ipv6Addr>,
    last: u32,
    /// Held by services and tasks.
    held: Option<&'a BTreeMap<Ipv4Addr, Holders>>,
    /// Held by nodes, on the routing mesh's network.
    nodes: Option<&'a BTreeMap<Ipv4Addr, u32>>,
    /// Host numbers taken since.
    taken: BTreeSet<u32>,
    /// Host number given last; the search goes on behind it, so that an address just given back
    /// rests as long as possible.
    cursor: u32,
}

impl<'a> Pools<'a> {
    pub(crate) fn of(state: &'a State) -> Pools<'a> {
        Pools { state, pools: BTreeMap::new() }
    }

    /// The next free address of a network. `None` when there is none, or no such network.
    pub(crate) fn take(&mut self, network: &str, aliases: Vec<String>) -> Option<NetAddresses> {
        let state = self.state;
        let network = state.networks.get(network)?;
        let pool = self.pools.entry(&network.id).or_insert_with(|| Pool::of(state, network));
        let host = pool.next()?;
        pool.taken.insert(host);
        pool.cursor = host;
        let v6 = pool.base6.map(|b| Ipv6Addr::from_bits(b.to_bits() | u128::from(host)));
        Some(NetAddresses { network_id: network.id.clone(), v4: pool.address(host), v6, aliases })
    }
}

impl<'a> Pool<'a> {
    fn of(state: &'a State, network: &Network) -> Pool<'a> {
        let base = network.subnet.network();
        let size = network.subnet.broadcast().to_bits() - base.to_bits();
        let held = state.addresses_held(&network.id);
        let nodes = network.ingress.then(|| state.node_addresses());
        let highest = held.and_then(|held| held.keys().next_back());
        let of_nodes = nodes.and_then(|nodes| nodes.keys().next_back());
        let highest = highest.max(of_nodes).map(|a| a.to_bits().saturating_sub(base.to_bits()));
        Pool {
            base,
            base6: network.subnet6.map(|n| n.network()),
            last: size.saturating_sub(1),
            held,
            nodes,
            taken: BTreeSet::new(),
            cursor: highest.unwrap_or(0).max(FIRST - 1),
        }
    }

    fn address(&self, host: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits().wrapping_add(host))
    }

    fn next(&self) -> Option<u32> {
        // Each search looks at no more numbers than are taken, and one.
        let behind = (self.cursor.saturating_add(1)..=self.last).find(|h| self.is_unused(*h));
        let before = || (FIRST..=self.last).find(|h| self.is_unused(*h));
        behind.or_else(before).or_else(|| self.rested())
    }

    fn is_unused(&self, host: u32) -> bool {
        let address = self.address(host);
        !self.taken.contains(&host)
            && self.held.is_none_or(|held| !held.contains_key(&address))
            && self.nodes.is_none_or(|nodes| !nodes.contains_key(&address))
    }

    /// One that only ended tasks hold: taken again when nothing else is left.
    fn rested(&self) -> Option<u32> {
        let rests = self.held?.iter().filter(|(_, holders)| holders.living == 0);
        let hosts = rests.map(|(address, _)| (address, address.to_bits() - self.base.to_bits()));
        let free = |(address, host): &(&Ipv4Addr, u32)| {
            *host <= self.last
                && !self.taken.contains(host)
                && self.nodes.is_none_or(|nodes| !nodes.contains_key(*address))
        };
        hosts.filter(|(address, _)| **address >= self.base).find(free).map(|(_, host)| host)
    }
}

/// First host number given: 0 is the network's, 1 the gateway's.
const FIRST: u32 = 2;
