//! What the programs counted.
use crate::{
    Contents, LbError,
    maps::{Maps, SHAPES, Shape, failed},
};
use shoal_maps::{BackendStats, DROP_REASONS, Traffic};
use std::collections::BTreeMap;

/// A reading of all counters. Tasks are keyed by their hash ([`crate::id`]).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// What this node's load balancer sent to each task.
    pub backends: BTreeMap<u64, BackendStats>,
    /// Packets and bytes of each local task.
    pub traffic: BTreeMap<u64, Traffic>,
    /// Dropped packets by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Entries used of each table filled from user space, and how many it holds.
    pub tables: BTreeMap<&'static str, (u64, u64)>,
}

impl Counters {
    /// Reads them; `contents` is what the maps hold.
    pub(crate) fn read(maps: &Maps, contents: &Contents) -> Result<Counters, LbError> {
        let mut counters = Counters::default();
        for entry in maps.stats.iter() {
            let (task, stats) = entry.map_err(failed("read", "BACKEND_STATS"))?;
            counters.backends.insert(task, stats);
        }
        for entry in maps.traffic.iter() {
            let (task, of_cpus) = entry.map_err(failed("read", "TRAFFIC"))?;
            counters.traffic.insert(task, sum(of_cpus.iter()));
        }
        for (reason, label) in DROP_REASONS {
            let of_cpus = maps.drops.get(&(reason as u32), 0).map_err(failed("read", "DROPS"))?;
            counters.drops.insert(label, of_cpus.iter().sum());
        }
        for Shape { name, entries: max, .. } in SHAPES {
            let used = match name {
                "ENDPOINTS" => contents.endpoints.len(),
                "CALLERS" => contents.callers.len(),
                "VIPS" => contents.vips.len(),
                "BACKENDS" => contents.backends.len(),
                "BACKEND_STATS" => contents.stats.len(),
                "PORTS" => contents.ports.len(),
                "INGRESS_TASKS" => contents.ingress_tasks.len(),
                "NODE_ADDRESSES" => contents.node_addresses.len(),
                // Arrays are always full; the flow tables evict, and counting them takes long.
                _ => continue,
            };
            counters.tables.insert(name, (used as u64, u64::from(max)));
        }
        Ok(counters)
    }
}

fn sum<'a>(of_cpus: impl Iterator<Item = &'a Traffic>) -> Traffic {
    of_cpus.fold(Traffic::default(), |a, b| Traffic {
        rx_packets: a.rx_packets.wrapping_add(b.rx_packets),
        rx_bytes: a.rx_bytes.wrapping_add(b.rx_bytes),
        tx_packets: a.tx_packets.wrapping_add(b.tx_packets),
        tx_bytes: a.tx_bytes.wrapping_add(b.tx_bytes),
    })
}
