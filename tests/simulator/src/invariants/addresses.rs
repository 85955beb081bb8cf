//! No address is held by two living things; each is inside its network; no two subnets overlap.
use super::{Invariant, Step, Verdict};
use ipnetwork::IpNetwork;
use shoal_model::{Change, NetAddresses, Object, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Who holds which address.
#[derive(Default)]
pub(super) struct Addresses {
    holders: BTreeMap<IpAddr, BTreeSet<String>>,
}

impl Invariant for Addresses {
    fn name(&self) -> &'static str {
        "addresses"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        for (change, old) in step.txn.changes.iter().zip(step.old) {
            if let Some(old) = old {
                for (address, holder) in held(old) {
                    if let Some(holders) = self.holders.get_mut(&address) {
                        holders.remove(&holder);
                    }
                }
            }
            if let Change::Put(new) = change {
                for (address, holder) in held(new) {
                    let holders = self.holders.entry(address).or_default();
                    holders.insert(holder);
                }
            }
        }
        for change in &step.txn.changes {
            let Change::Put(new) = change else { continue };
            for (address, _) in held(new) {
                if let Some(holders) = self.holders.get(&address).filter(|h| h.len() > 1) {
                    return Err(format!("{address} is held by {holders:?}"));
                }
            }
            inside(step.state, new)?;
            if let Object::Network(network) = new {
                apart(step.state, &network.id)?;
            }
        }
        Ok(())
    }
}

/// What an object holds as long as it lives.
fn held(object: &Object) -> Vec<(IpAddr, String)> {
    let both = |a: &NetAddresses| [Some(IpAddr::V4(a.v4)), a.v6.map(IpAddr::V6)];
    let (addresses, holder): (Vec<IpAddr>, String) = match object {
        Object::Node(node) => {
            let own = node.overlay.address.map(IpAddr::V4);
            (own.into_iter().collect(), format!("node {}", node.id))
        }
        Object::Service(service) => {
            let vips = service.endpoint.iter().flat_map(|e| &e.vips);
            (vips.flat_map(both).flatten().collect(), format!("service {}", service.id))
        }
        Object::Task(task) if !task.status.state.is_terminal() => {
            (task.networks.iter().flat_map(both).flatten().collect(), format!("task {}", task.id))
        }
        _ => return Vec::new(),
    };
    addresses.into_iter().map(|a| (a, holder.clone())).collect()
}

fn inside(state: &State, object: &Object) -> Verdict {
    let given: Vec<&NetAddresses> = match object {
        Object::Task(task) if !task.status.state.is_terminal() => task.networks.iter().collect(),
        Object::Service(service) => service.endpoint.iter().flat_map(|e| &e.vips).collect(),
        _ => return Ok(()),
    };
    for address in given {
        // The network of a task that is stopping may be gone.
        let Some(network) = state.networks.get(&address.network_id) else { continue };
        let host = address.v4.to_bits().wrapping_sub(network.subnet.network().to_bits());
        let usable = network.subnet.contains(address.v4)
            && host > 1
            && address.v4 != network.subnet.broadcast();
        if !usable {
            return Err(format!("{} is no host address of {}", address.v4, network.subnet));
        }
    }
    Ok(())
}

fn apart(state: &State, id: &str) -> Verdict {
    let Some(own) = state.networks.get(id) else { return Ok(()) };
    let subnets = |n: &shoal_model::Network| {
        let v6 = n.subnet6.map(IpNetwork::V6);
        [Some(IpNetwork::V4(n.subnet)), v6].into_iter().flatten().collect::<Vec<_>>()
    };
    for other in state.networks.values().filter(|n| n.id != id) {
        for a in subnets(own) {
            if subnets(other).iter().any(|b| a.contains(b.network()) || b.contains(a.network())) {
                return Err(format!("networks {} and {} overlap", own.name(), other.name()));
            }
        }
    }
    Ok(())
}
