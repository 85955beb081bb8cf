//! The maps. Layouts and what they mean: crate `shoal-maps`.
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap},
};
use shoal_maps::{
    Address, Attempt, Backend, BackendKey, BackendStats, CallerKey, DROP_REASONS, EjectedKey,
    Endpoint, Flow, FlowKey, IngressTask, MAGLEV_SIZE, MAX_ATTEMPTS, MAX_BACKENDS, MAX_CALLERS,
    MAX_EJECTED, MAX_ENDPOINTS, MAX_FLOWS, MAX_NODE_ADDRESSES, MAX_PORTS, MAX_UDP_FLOWS, MAX_VIPS,
    NodeConfig, PortKey, PublishedPort, SocketVip, Traffic, UdpForward, UdpForwardKey, UdpReverse,
    UdpReverseKey, Vip,
};

/// Tables of a cluster are mostly far below their bound: memory is taken per entry.
const SPARSE: u32 = BPF_F_NO_PREALLOC;

#[map]
pub(crate) static CONFIG: Array<NodeConfig> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static ENDPOINTS: HashMap<Address, Endpoint> =
    HashMap::with_max_entries(MAX_ENDPOINTS, SPARSE);
#[map]
pub(crate) static CALLERS: HashMap<CallerKey, u8> = HashMap::with_max_entries(MAX_CALLERS, SPARSE);
#[map]
pub(crate) static VIPS: HashMap<Address, Vip> = HashMap::with_max_entries(MAX_VIPS, SPARSE);
#[map]
pub(crate) static BACKENDS: HashMap<BackendKey, Backend> =
    HashMap::with_max_entries(MAX_BACKENDS, SPARSE);
#[map]
pub(crate) static BACKEND_STATS: HashMap<u64, BackendStats> =
    HashMap::with_max_entries(MAX_BACKENDS, SPARSE);
/// At most one task for each pair of a local container and a network.
#[map]
pub(crate) static TRAFFIC: PerCpuHashMap<u64, Traffic> =
    PerCpuHashMap::with_max_entries(MAX_CALLERS, SPARSE);
#[map]
pub(crate) static DROPS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(DROP_REASONS.len() as u32, 0);
#[map]
pub(crate) static PORTS: HashMap<PortKey, PublishedPort> =
    HashMap::with_max_entries(MAX_PORTS, SPARSE);
#[map]
pub(crate) static MAGLEV: Array<u32> = Array::with_max_entries(MAX_PORTS * MAGLEV_SIZE, 0);
#[map]
pub(crate) static INGRESS_TASKS: HashMap<u32, IngressTask> =
    HashMap::with_max_entries(MAX_ENDPOINTS, SPARSE);
#[map]
pub(crate) static NODE_ADDRESSES: HashMap<Address, u8> =
    HashMap::with_max_entries(MAX_NODE_ADDRESSES, SPARSE);
#[map]
pub(crate) static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(MAX_FLOWS, 0);
#[map]
pub(crate) static ATTEMPTS: LruHashMap<FlowKey, Attempt> =
    LruHashMap::with_max_entries(MAX_ATTEMPTS, 0);
#[map]
pub(crate) static EJECTED: LruHashMap<EjectedKey, u64> =
    LruHashMap::with_max_entries(MAX_EJECTED, 0);
#[map]
pub(crate) static UDP_FORWARD: LruHashMap<UdpForwardKey, UdpForward> =
    LruHashMap::with_max_entries(MAX_UDP_FLOWS, 0);
#[map]
pub(crate) static UDP_REVERSE: LruHashMap<UdpReverseKey, UdpReverse> =
    LruHashMap::with_max_entries(MAX_UDP_FLOWS, 0);
/// Lives and dies with the socket: no bound, no eviction.
#[btf_map]
pub(crate) static SOCKETS: SkStorage<SocketVip> = SkStorage::new();

/// Looks a value up in a hash map. The kernel keeps its memory for the run of the program; as in
/// every such program, an entry replaced at this very moment may be seen changing.
macro_rules! found {
    ($map:ident, $key:expr) => {
        // SAFETY: plain integers: any bytes are a valid value.
        unsafe { $crate::maps::$map.get($key) }
    };
}
pub(crate) use found;
