//! The maps: their names and shapes, reading them all, writing one change.
use crate::{Change, Contents, LbError};
use aya::{
    Ebpf,
    maps::{
        Array, HashMap, Map, MapData, MapError, MapInfo, PerCpuArray, PerCpuHashMap, PerCpuValues,
    },
};
use shoal_maps::{
    Address, Attempt, Backend, BackendKey, BackendStats, CallerKey, DROP_REASONS, EjectedKey,
    Endpoint, Flow, FlowKey, IngressTask, MAGLEV_SIZE, MAX_ATTEMPTS, MAX_BACKENDS, MAX_CALLERS,
    MAX_EJECTED, MAX_ENDPOINTS, MAX_FLOWS, MAX_NODE_ADDRESSES, MAX_PORTS, MAX_UDP_FLOWS, MAX_VIPS,
    NodeConfig, PortKey, PublishedPort, SocketVip, Traffic, UdpForward, UdpForwardKey, UdpReverse,
    UdpReverseKey, Vip,
};
use std::path::Path;

/// `BPF_NOEXIST`: what is counted already stays.
const NO_EXIST: u64 = 1;

/// What a map looks like.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// Size of a key, bytes.
    key: u32,
    /// Size of a value, bytes.
    value: u32,
    /// How many it holds.
    pub(crate) entries: u32,
}

const fn shape<K, V>(name: &'static str, entries: u32) -> Shape {
    Shape { name, key: size_of::<K>() as u32, value: size_of::<V>() as u32, entries }
}

/// Every map, in the contract's terms.
pub(crate) const SHAPES: [Shape; 18] = [
    shape::<u32, NodeConfig>("CONFIG", 1),
    shape::<Address, Endpoint>("ENDPOINTS", MAX_ENDPOINTS),
    shape::<CallerKey, u8>("CALLERS", MAX_CALLERS),
    shape::<Address, Vip>("VIPS", MAX_VIPS),
    shape::<BackendKey, Backend>("BACKENDS", MAX_BACKENDS),
    shape::<u64, BackendStats>("BACKEND_STATS", MAX_BACKENDS),
    shape::<u64, Traffic>("TRAFFIC", MAX_CALLERS),
    shape::<u32, u64>("DROPS", DROP_REASONS.len() as u32),
    shape::<PortKey, PublishedPort>("PORTS", MAX_PORTS),
    shape::<u32, u32>("MAGLEV", MAX_PORTS * MAGLEV_SIZE),
    shape::<u32, IngressTask>("INGRESS_TASKS", MAX_ENDPOINTS),
    shape::<Address, u8>("NODE_ADDRESSES", MAX_NODE_ADDRESSES),
    shape::<FlowKey, Flow>("FLOWS", MAX_FLOWS),
    shape::<FlowKey, Attempt>("ATTEMPTS", MAX_ATTEMPTS),
    shape::<EjectedKey, u64>("EJECTED", MAX_EJECTED),
    shape::<UdpForwardKey, UdpForward>("UDP_FORWARD", MAX_UDP_FLOWS),
    shape::<UdpReverseKey, UdpReverse>("UDP_REVERSE", MAX_UDP_FLOWS),
    shape::<u32, SocketVip>("SOCKETS", 0),
];

/// Refuses maps of another shape, as a build of other sources under the same layout version pins.
pub(crate) fn check_shapes(folder: &Path) -> Result<(), LbError> {
    for Shape { name, key, value, entries } in SHAPES {
        let info = MapInfo::from_pin(folder.join(name)).map_err(failed("look at", name))?;
        let found = (info.key_size(), info.value_size(), info.max_entries());
        if found != (key, value, entries) {
            let say = |(k, v, n)| format!("{n} entries of {k} and {v} bytes");
            return Err(LbError::Shape {
                name,
                found: say(found),
                expected: say((key, value, entries)),
                folder: folder.into(),
            });
        }
    }
    Ok(())
}

/// The maps user space reads or writes.
pub(crate) struct Maps {
    config: Array<MapData, NodeConfig>,
    endpoints: HashMap<MapData, Address, Endpoint>,
    callers: HashMap<MapData, CallerKey, u8>,
    vips: HashMap<MapData, Address, Vip>,
    backends: HashMap<MapData, BackendKey, Backend>,
    pub(crate) stats: HashMap<MapData, u64, BackendStats>,
    pub(crate) traffic: PerCpuHashMap<MapData, u64, Traffic>,
    pub(crate) drops: PerCpuArray<MapData, u64>,
    ports: HashMap<MapData, PortKey, PublishedPort>,
    maglev: Array<MapData, u32>,
    ingress_tasks: HashMap<MapData, u32, IngressTask>,
    node_addresses: HashMap<MapData, Address, u8>,
}

impl Maps {
    /// Takes them out of the loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Maps, LbError> {
        Ok(Maps {
            config: take(ebpf, "CONFIG")?,
            endpoints: take(ebpf, "ENDPOINTS")?,
            callers: take(ebpf, "CALLERS")?,
            vips: take(ebpf, "VIPS")?,
            backends: take(ebpf, "BACKENDS")?,
            stats: take(ebpf, "BACKEND_STATS")?,
            traffic: take(ebpf, "TRAFFIC")?,
            drops: take(ebpf, "DROPS")?,
            ports: take(ebpf, "PORTS")?,
            maglev: take(ebpf, "MAGLEV")?,
            ingress_tasks: take(ebpf, "INGRESS_TASKS")?,
            node_addresses: take(ebpf, "NODE_ADDRESSES")?,
        })
    }

    /// Reads everything. Of `MAGLEV` the tables of the ports there are; what the others hold does
    /// not matter, since a table is written wholly before a port uses it.
    pub(crate) fn read(&self) -> Result<Contents, LbError> {
        let r = "read";
        let mut c = Contents {
            config: self.config.get(&0, 0).map_err(failed(r, "CONFIG"))?,
            endpoints: all(self.endpoints.iter()).map_err(failed(r, "ENDPOINTS"))?,
            callers: all(self.callers.keys()).map_err(failed(r, "CALLERS"))?,
            vips: all(self.vips.iter()).map_err(failed(r, "VIPS"))?,
            backends: all(self.backends.iter()).map_err(failed(r, "BACKENDS"))?,
            stats: all(self.stats.keys()).map_err(failed(r, "BACKEND_STATS"))?,
            traffic: all(self.traffic.keys()).map_err(failed(r, "TRAFFIC"))?,
            ports: all(self.ports.iter()).map_err(failed(r, "PORTS"))?,
            ingress_tasks: all(self.ingress_tasks.iter()).map_err(failed(r, "INGRESS_TASKS"))?,
            node_addresses: all(self.node_addresses.keys()).map_err(failed(r, "NODE_ADDRESSES"))?,
            ..Contents::default()
        };
        for port in c.ports.values() {
            let entries = port.maglev..port.maglev.saturating_add(MAGLEV_SIZE);
            let table = entries.map(|e| self.maglev.get(&e, 0)).collect::<Result<Vec<_>, _>>();
            c.maglev.insert(port.maglev, table.map_err(failed(r, "MAGLEV"))?);
        }
        Ok(c)
    }

    /// Makes one change. What is to be removed may be gone.
    pub(crate) fn write(&mut self, change: &Change) -> Result<(), LbError> {
        match *change {
            Change::Config(value) => {
                self.config.set(0, value, 0).map_err(failed("write", "CONFIG"))
            }
            Change::Maglev(entry, task) => {
                self.maglev.set(entry, task, 0).map_err(failed("write", "MAGLEV"))
            }
            Change::Endpoint(key, value) => put(&mut self.endpoints, "ENDPOINTS", key, value),
            Change::Caller(key, there) => {
                put(&mut self.callers, "CALLERS", key, there.then_some(1))
            }
            Change::IngressTask(key, value) => {
                put(&mut self.ingress_tasks, "INGRESS_TASKS", key, value)
            }
            Change::Backend(key, value) => put(&mut self.backends, "BACKENDS", key, value),
            Change::Vip(key, value) => put(&mut self.vips, "VIPS", key, value),
            Change::Port(key, value) => put(&mut self.ports, "PORTS", key, value),
            Change::NodeAddress(key, there) => {
                put(&mut self.node_addresses, "NODE_ADDRESSES", key, there.then_some(1))
            }
            Change::Stats(key, true) => {
                let made = self.stats.insert(key, BackendStats::default(), NO_EXIST);
                existing_is_fine(made).map_err(failed("write", "BACKEND_STATS"))
            }
            Change::Stats(key, false) => {
                missing_is_fine(self.stats.remove(&key)).map_err(failed("write", "BACKEND_STATS"))
            }
            Change::Traffic(key, true) => {
                // The programs make it, too, with a task's first packet.
                let made = zeros().and_then(|zeros| self.traffic.insert(key, zeros, NO_EXIST));
                existing_is_fine(made).map_err(failed("write", "TRAFFIC"))
            }
            Change::Traffic(key, false) => {
                missing_is_fine(self.traffic.remove(&key)).map_err(failed("write", "TRAFFIC"))
            }
        }
    }
}

fn put<K: aya::Pod, V: aya::Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    key: K,
    value: Option<V>,
) -> Result<(), LbError> {
    match value {
        Some(value) => map.insert(key, value, 0),
        None => missing_is_fine(map.remove(&key)),
    }
    .map_err(failed("write", name))
}

/// A value of zero for each CPU.
fn zeros() -> Result<PerCpuValues<Traffic>, MapError> {
    let cpus = aya::util::nr_cpus().map_err(|(_, e)| MapError::IoError(e))?;
    Ok(PerCpuValues::try_from(vec![Traffic::default(); cpus])?)
}

fn missing_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn existing_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

fn all<T, C: FromIterator<T>>(
    entries: impl Iterator<Item = Result<T, MapError>>,
) -> Result<C, MapError> {
    entries.collect()
}

fn take<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, LbError> {
    let map = ebpf.take_map(name).ok_or(LbError::Missing { kind: "map", name })?;
    T::try_from(map).map_err(failed("use", name))
}

/// Names action and map of a failure.
pub(crate) fn failed(action: &'static str, name: &'static str) -> impl FnOnce(MapError) -> LbError {
    move |source| LbError::Map { action, name, source }
}
