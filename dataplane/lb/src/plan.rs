//! From what the maps hold to what they should: an ordered list of changes. Pure.
//!
//! Programs read while the changes are made, so the order sees to it that whatever they follow is
//! there: what is pointed at is written before what points at it, and removed after it. A VIP never
//! counts slots that are not written: when it grows, slots come first; when it shrinks, the count.
use crate::Contents;
use shoal_maps::{
    Address, Backend, BackendKey, CallerKey, Endpoint, IngressTask, MAGLEV_SIZE, MAX_BACKENDS,
    MAX_CALLERS, MAX_ENDPOINTS, MAX_NODE_ADDRESSES, MAX_PORTS, MAX_VIPS, NodeConfig, PortKey,
    PublishedPort, Vip,
};
use std::collections::{BTreeMap, BTreeSet};

/// One write to a map. `None` as value: the entry is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// `CONFIG`.
    Config(NodeConfig),
    /// `BACKEND_STATS`: made as zero, or removed.
    Stats(u64, bool),
    /// `TRAFFIC`: made as zero, or removed.
    Traffic(u64, bool),
    /// `ENDPOINTS`.
    Endpoint(Address, Option<Endpoint>),
    /// `CALLERS`.
    Caller(CallerKey, bool),
    /// `INGRESS_TASKS`.
    IngressTask(u32, Option<IngressTask>),
    /// `BACKENDS`.
    Backend(BackendKey, Option<Backend>),
    /// `VIPS`.
    Vip(Address, Option<Vip>),
    /// `MAGLEV`: one entry.
    Maglev(u32, u32),
    /// `PORTS`.
    Port(PortKey, Option<PublishedPort>),
    /// `NODE_ADDRESSES`.
    NodeAddress(Address, bool),
}

/// The changes that make `new` of `old`, in the order in which they must be made.
///
/// Normally all additions go before all removals, so that nothing is missing in between. When a map
/// could not hold both for that time, removals go first.
pub fn plan(old: &Contents, new: &Contents) -> Vec<Change> {
    let mut changes = Vec::new();
    if fits_both(old, new) {
        write(old, new, &mut changes);
        remove(old, new, &mut changes);
    } else {
        let kept = common(old, new);
        write(old, &kept, &mut changes);
        remove(old, &kept, &mut changes);
        write(&kept, new, &mut changes);
        remove(&kept, new, &mut changes);
    }
    changes
}

/// Additions and replacements, what is pointed at first.
fn write(old: &Contents, new: &Contents, out: &mut Vec<Change>) {
    if old.config != new.config {
        out.push(Change::Config(new.config));
    }
    out.extend(new.stats.difference(&old.stats).map(|k| Change::Stats(*k, true)));
    out.extend(new.traffic.difference(&old.traffic).map(|k| Change::Traffic(*k, true)));
    out.extend(changed(&old.endpoints, &new.endpoints).map(|(k, v)| Change::Endpoint(k, Some(v))));
    out.extend(new.callers.difference(&old.callers).map(|k| Change::Caller(*k, true)));
    out.extend(
        changed(&old.ingress_tasks, &new.ingress_tasks)
            .map(|(k, v)| Change::IngressTask(k, Some(v))),
    );
    out.extend(changed(&old.backends, &new.backends).map(|(k, v)| Change::Backend(k, Some(v))));
    out.extend(changed(&old.vips, &new.vips).map(|(k, v)| Change::Vip(k, Some(v))));
    // A port that leaves goes before its table may be filled for another.
    out.extend(gone(&old.ports, &new.ports).map(|k| Change::Port(k, None)));
    // One without tasks is told so before its table is emptied, the others after theirs is filled.
    let (filled, empty): (Vec<_>, Vec<_>) =
        changed(&old.ports, &new.ports).partition(|(_, port)| port.backends > 0);
    out.extend(empty.into_iter().map(|(k, v)| Change::Port(k, Some(v))));
    for (first, table) in &new.maglev {
        let before = old.maglev.get(first);
        for (entry, task) in (*first..).zip(table) {
            let same = before.is_some_and(|b| b.get((entry - first) as usize) == Some(task));
            if !same {
                out.push(Change::Maglev(entry, *task));
            }
        }
    }
    out.extend(filled.into_iter().map(|(k, v)| Change::Port(k, Some(v))));
    out.extend(
        new.node_addresses.difference(&old.node_addresses).map(|k| Change::NodeAddress(*k, true)),
    );
}

/// Removals, what points first.
fn remove(old: &Contents, new: &Contents, out: &mut Vec<Change>) {
    out.extend(
        old.node_addresses.difference(&new.node_addresses).map(|k| Change::NodeAddress(*k, false)),
    );
    out.extend(gone(&old.vips, &new.vips).map(|k| Change::Vip(k, None)));
    out.extend(gone(&old.backends, &new.backends).map(|k| Change::Backend(k, None)));
    out.extend(gone(&old.ingress_tasks, &new.ingress_tasks).map(|k| Change::IngressTask(k, None)));
    out.extend(old.callers.difference(&new.callers).map(|k| Change::Caller(*k, false)));
    out.extend(gone(&old.endpoints, &new.endpoints).map(|k| Change::Endpoint(k, None)));
    // The programs make entries of tasks with an endpoint, so these go last.
    out.extend(old.traffic.difference(&new.traffic).map(|k| Change::Traffic(*k, false)));
    out.extend(old.stats.difference(&new.stats).map(|k| Change::Stats(*k, false)));
}

/// Entries of `new` that `old` has not, or with another value.
fn changed<'a, K: Ord + Copy, V: PartialEq + Copy>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (K, V)> + 'a {
    new.iter().filter(|(k, v)| old.get(k) != Some(v)).map(|(k, v)| (*k, *v))
}

/// Keys of `old` that `new` has not.
fn gone<'a, K: Ord + Copy, V>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = K> + 'a {
    old.keys().filter(|k| !new.contains_key(k)).copied()
}

/// Whether every map holds the old and the new entries at once.
fn fits_both(old: &Contents, new: &Contents) -> bool {
    fn map<K: Ord, V>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>, max: u32) -> bool {
        old.len() + new.keys().filter(|k| !old.contains_key(k)).count() <= max as usize
    }
    fn set<K: Ord>(old: &BTreeSet<K>, new: &BTreeSet<K>, max: u32) -> bool {
        old.len() + new.difference(old).count() <= max as usize
    }
    map(&old.endpoints, &new.endpoints, MAX_ENDPOINTS)
        && set(&old.callers, &new.callers, MAX_CALLERS)
        && map(&old.vips, &new.vips, MAX_VIPS)
        && map(&old.backends, &new.backends, MAX_BACKENDS)
        && set(&old.stats, &new.stats, MAX_BACKENDS)
        && set(&old.traffic, &new.traffic, MAX_CALLERS)
        && map(&old.ports, &new.ports, MAX_PORTS)
        && map(&old.ingress_tasks, &new.ingress_tasks, MAX_ENDPOINTS)
        && set(&old.node_addresses, &new.node_addresses, MAX_NODE_ADDRESSES)
}

/// What both have, with `old`'s values: the halfway house of a plan that removes first. VIPs count
/// only the slots that stay.
fn common(old: &Contents, new: &Contents) -> Contents {
    fn map<K: Ord + Copy, V: Copy>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> BTreeMap<K, V> {
        old.iter().filter(|(k, _)| new.contains_key(k)).map(|(k, v)| (*k, *v)).collect()
    }
    let backends = map(&old.backends, &new.backends);
    let mut vips = map(&old.vips, &new.vips);
    for vip in vips.values_mut() {
        let key = |slot| BackendKey { service: vip.service, network: vip.network, slot, pad: 0 };
        let stay = (0..vip.count).take_while(|slot| backends.contains_key(&key(*slot))).count();
        vip.count = stay as u32;
    }
    let ports = map(&old.ports, &new.ports);
    let used: BTreeSet<u32> = ports.values().map(|p| p.maglev).collect();
    Contents {
        config: old.config,
        endpoints: map(&old.endpoints, &new.endpoints),
        callers: old.callers.intersection(&new.callers).copied().collect(),
        vips,
        backends,
        stats: old.stats.intersection(&new.stats).copied().collect(),
        traffic: old.traffic.intersection(&new.traffic).copied().collect(),
        maglev: (old.maglev.iter())
            .filter(|(first, table)| used.contains(first) && table.len() == MAGLEV_SIZE as usize)
            .map(|(first, table)| (*first, table.clone()))
            .collect(),
        ports,
        ingress_tasks: map(&old.ingress_tasks, &new.ingress_tasks),
        node_addresses: old.node_addresses.intersection(&new.node_addresses).copied().collect(),
    }
}
