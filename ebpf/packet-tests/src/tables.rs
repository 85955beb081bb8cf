//! The tables as user space fills them.
use std::net::{IpAddr, SocketAddr};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuHashMap},
};
use shoal_maps::{
    Address, Attempt, Backend, BackendKey, BackendStats, CallerKey, DropReason, EjectedKey,
    Endpoint, Flow, FlowKey, IngressTask, MAGLEV_SIZE, NodeConfig, PortKey, PublishedPort, Traffic,
    Vip,
};

use crate::Frame;

/// MAC of a container's `eth0` in these tests, by its interface index.
pub fn local_mac(ifindex: u32) -> [u8; 6] {
    [2, 0, 0, 0, 0xcc, ifindex as u8]
}

/// MAC of the host side.
pub fn host_mac(ifindex: u32) -> [u8; 6] {
    [2, 0, 0, 0, 0xaa, ifindex as u8]
}

/// The maps of a loaded object.
pub struct Tables {
    /// The object.
    pub object: Ebpf,
}

impl Tables {
    /// Loads an object with empty tables.
    pub fn new() -> Tables {
        Tables { object: crate::load() }
    }

    /// A hash map by name.
    ///
    /// # Panics
    ///
    /// When the object has none such.
    pub fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        let map = self.object.map_mut(name).unwrap_or_else(|| panic!("no map {name}"));
        HashMap::try_from(map).unwrap_or_else(|error| panic!("map {name}: {error}"))
    }

    fn insert<K: Pod, V: Pod>(&mut self, name: &str, key: K, value: V) {
        self.hash(name).insert(key, value, 0).unwrap_or_else(|error| panic!("map {name}: {error}"));
    }

    /// Sets what the programs know of the node.
    ///
    /// # Panics
    ///
    /// When the map refuses, as all below.
    pub fn config(&mut self, overlay: IpAddr, overlay_ifindex: u32, uplink_ifindex: u32) {
        let map = self.object.map_mut("CONFIG").expect("a map");
        let value = NodeConfig {
            overlay: overlay.into(),
            overlay_ifindex,
            uplink_ifindex,
            overlay_mtu: 1_420,
            pad: 0,
        };
        Array::try_from(map).and_then(|mut map| map.set(0, value, 0)).expect("CONFIG");
    }

    /// A task's address; `ifindex` 0 is elsewhere.
    pub fn endpoint(&mut self, address: IpAddr, network: u64, task: u64, ifindex: u32) {
        let (mac, host) = match ifindex {
            0 => ([0; 6], [0; 6]),
            _ => (local_mac(ifindex), host_mac(ifindex)),
        };
        let value = Endpoint { network, task, ifindex, mac, host_mac: host };
        self.insert("ENDPOINTS", Address::from(address), value);
    }

    /// A service's address with its backends.
    pub fn vip(&mut self, vip: IpAddr, service: u64, network: u64, backends: &[(IpAddr, u64)]) {
        for (slot, &(address, task)) in (0..).zip(backends) {
            let key = BackendKey { service, network, slot, pad: 0 };
            self.insert("BACKENDS", key, Backend { address: address.into(), task });
            if self.stats(task).is_none() {
                self.insert("BACKEND_STATS", task, BackendStats::default());
            }
        }
        let count = backends.len() as u32;
        self.insert("VIPS", Address::from(vip), Vip { service, network, count, pad: 0 });
    }

    /// The SYN of a socket connected through a VIP was seen.
    pub fn attempt(&mut self, syn: &Frame, vip: IpAddr) {
        let key = flow_key(syn.source, syn.destination);
        self.insert("ATTEMPTS", key, Attempt { vip: vip.into(), sequence: syn.numbers[0], pad: 0 });
    }

    /// The flow of TCP packets between two ends.
    pub fn flow(&mut self, from: SocketAddr, to: SocketAddr) -> Option<Flow> {
        self.hash("FLOWS").get(&flow_key(from, to), 0).ok()
    }

    /// A backend refused connections to a port; `until` in monotonic time, ns.
    pub fn eject(&mut self, task: u64, port: u16, until: u64) {
        self.insert("EJECTED", ejected_key(task, port), until);
    }

    /// Until when a backend is spared, if it refused a connection.
    pub fn ejected(&mut self, task: u64, port: u16) -> Option<u64> {
        self.hash("EJECTED").get(&ejected_key(task, port), 0).ok()
    }

    /// Removes an entry of a table keyed by address.
    pub fn remove(&mut self, name: &str, address: IpAddr) {
        self.object
            .map_mut(name)
            .map(|map| match name {
                "ENDPOINTS" => HashMap::<_, Address, Endpoint>::try_from(map)
                    .and_then(|mut map| map.remove(&address.into())),
                "NODE_ADDRESSES" => HashMap::<_, Address, u8>::try_from(map)
                    .and_then(|mut map| map.remove(&address.into())),
                other => panic!("{other} is not keyed by address"),
            })
            .expect("a map")
            .expect("an entry");
    }

    /// Attaches a network namespace to a network.
    pub fn caller(&mut self, netns_cookie: u64, network: u64) {
        self.insert("CALLERS", CallerKey { netns_cookie, network }, 1_u8);
    }

    /// One of the node's own addresses.
    pub fn node_address(&mut self, address: IpAddr) {
        self.insert("NODE_ADDRESSES", Address::from(address), 1_u8);
    }

    /// A published port whose Maglev table holds the given keys in turn.
    pub fn port(&mut self, published: u16, protocol: u8, target: u16, service: u64, tasks: &[u32]) {
        let map = self.object.map_mut("MAGLEV").expect("a map");
        let mut maglev: Array<_, u32> = Array::try_from(map).expect("MAGLEV");
        for (slot, task) in (0..MAGLEV_SIZE).zip(tasks.iter().cycle()) {
            maglev.set(slot, task, 0).expect("MAGLEV");
        }
        let key = PortKey { port: published.to_be_bytes(), protocol, pad: 0 };
        let value = PublishedPort {
            service,
            maglev: 0,
            backends: tasks.len() as u32,
            target_port: target.to_be_bytes(),
            pad: [0; 6],
        };
        self.insert("PORTS", key, value);
    }

    /// A task behind published ports; no node is this one.
    pub fn ingress_task(&mut self, key: u32, node: Option<IpAddr>, address: IpAddr, task: u64) {
        let node = node.map_or(Address::NONE, Address::from);
        let (v4, v6) = match address {
            IpAddr::V4(_) => (address.into(), Address::NONE),
            IpAddr::V6(_) => (Address::NONE, address.into()),
        };
        self.insert("INGRESS_TASKS", key, IngressTask { node, v4, v6, task });
        self.insert("BACKEND_STATS", task, BackendStats::default());
    }

    /// What the balancer did with a task.
    pub fn stats(&mut self, task: u64) -> Option<BackendStats> {
        self.hash("BACKEND_STATS").get(&task, 0).ok()
    }

    /// A task's packets, over all CPUs.
    pub fn traffic(&mut self, task: u64) -> Traffic {
        let map = self.object.map("TRAFFIC").expect("a map");
        let map: PerCpuHashMap<_, u64, Traffic> = PerCpuHashMap::try_from(map).expect("TRAFFIC");
        let Ok(values) = map.get(&task, 0) else { return Traffic::default() };
        values.iter().fold(Traffic::default(), |sum, value| Traffic {
            rx_packets: sum.rx_packets + value.rx_packets,
            rx_bytes: sum.rx_bytes + value.rx_bytes,
            tx_packets: sum.tx_packets + value.tx_packets,
            tx_bytes: sum.tx_bytes + value.tx_bytes,
        })
    }

    /// Packets dropped for a reason, over all CPUs.
    pub fn dropped(&mut self, reason: DropReason) -> u64 {
        let map = self.object.map("DROPS").expect("a map");
        let map: PerCpuArray<_, u64> = PerCpuArray::try_from(map).expect("DROPS");
        map.get(&(reason as u32), 0).expect("DROPS").iter().sum()
    }
}

fn flow_key(from: SocketAddr, to: SocketAddr) -> FlowKey {
    FlowKey {
        source: from.ip().into(),
        destination: to.ip().into(),
        source_port: from.port().to_be_bytes(),
        destination_port: to.port().to_be_bytes(),
        protocol: 6,
        pad: [0; 3],
    }
}

fn ejected_key(task: u64, port: u16) -> EjectedKey {
    EjectedKey { task, port: port.to_be_bytes(), pad: [0; 6] }
}

impl Default for Tables {
    fn default() -> Tables {
        Tables::new()
    }
}
