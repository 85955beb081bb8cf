//! Free addresses of a network.
use shoal_model::{
    NetAddresses, Network, State, TaskState,
    bugs::{self, Bug},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

/// Free addresses of all networks, taken one after the other.
pub(crate) struct Pools {
    pools: BTreeMap<String, Pool>,
}

/// A network's addresses by host number (0 is the network, 1 the gateway, the last the broadcast).
struct Pool {
    base: Ipv4Addr,
    base6: Option<Ipv6Addr>,
    last: u32,
    /// Held by something that may run.
    held: BTreeSet<u32>,
    /// Held only by ended tasks: taken again when nothing else is left.
    resting: BTreeSet<u32>,
    /// Host number given last; the search goes on behind it, so that an address just given back
    /// rests as long as possible.
    cursor: u32,
}

impl Pools {
    /// Reads who holds what.
    pub(crate) fn of(state: &State) -> Pools {
        let pools = state.networks.values().map(|n| (n.id.clone(), Pool::of(n))).collect();
        let mut pools = Pools { pools };
        if let Some(ingress) = state.ingress() {
            for address in state.nodes.values().filter_map(|n| n.overlay.address) {
                pools.hold(&ingress.id, address, false);
            }
        }
        let vips =
            state.services.values().filter_map(|s| s.endpoint.as_ref()).flat_map(|e| &e.vips);
        for vip in vips {
            pools.hold(&vip.network_id, vip.v4, false);
        }
        for task in state.tasks.values() {
            for address in &task.networks {
                let ended = task.status.state.is_terminal();
                if bugs::active(Bug::ReuseAddress) && task.desired > TaskState::Running {
                    continue;
                }
                pools.hold(&address.network_id, address.v4, ended);
            }
        }
        pools
    }

    fn hold(&mut self, network: &str, address: Ipv4Addr, resting: bool) {
        let Some(pool) = self.pools.get_mut(network) else { return };
        let host = address.to_bits().wrapping_sub(pool.base.to_bits());
        if resting {
            pool.resting.insert(host)
        } else {
            pool.held.insert(host)
        };
        pool.cursor = pool.cursor.max(host);
    }

    /// The next free address of a network. `None` when there is none, or no such network.
    pub(crate) fn take(&mut self, network: &str, aliases: Vec<String>) -> Option<NetAddresses> {
        let pool = self.pools.get_mut(network)?;
        let host = pool.next()?;
        pool.held.insert(host);
        pool.cursor = host;
        let v6 = pool.base6.map(|b| Ipv6Addr::from_bits(b.to_bits() | u128::from(host)));
        let v4 = Ipv4Addr::from_bits(pool.base.to_bits().wrapping_add(host));
        Some(NetAddresses { network_id: network.to_owned(), v4, v6, aliases })
    }
}

impl Pool {
    fn of(network: &Network) -> Pool {
        let size = network.subnet.broadcast().to_bits() - network.subnet.network().to_bits();
        let last = size.saturating_sub(1);
        Pool {
            base: network.subnet.network(),
            base6: network.subnet6.map(|n| n.network()),
            last,
            held: BTreeSet::new(),
            resting: BTreeSet::new(),
            cursor: FIRST - 1,
        }
    }

    fn next(&self) -> Option<u32> {
        let unused = |h: &u32| !self.held.contains(h) && !self.resting.contains(h);
        // Each search looks at no more numbers than are taken, and one.
        let behind = (self.cursor.saturating_add(1)..=self.last).find(unused);
        let before = || (FIRST..=self.last).find(unused);
        let rested =
            || self.resting.iter().copied().find(|h| !self.held.contains(h) && *h <= self.last);
        behind.or_else(before).or_else(rested)
    }
}

/// First host number given: 0 is the network's, 1 the gateway's.
const FIRST: u32 = 2;
