//! From the desired state to map contents. Pure.
use crate::{
    LbTable, TableError,
    maglev::maglev,
    table::{EndpointEntry, PortEntry, VipEntry},
};
use shoal_maps::{
    Address, Backend, BackendKey, CallerKey, Endpoint, IngressTask, MAGLEV_SIZE, MAX_BACKENDS,
    MAX_CALLERS, MAX_ENDPOINTS, MAX_NODE_ADDRESSES, MAX_PORTS, MAX_VIPS, NodeConfig, PortKey,
    PublishedPort, Vip, id,
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
};

/// Largest key of an ingress task: it is a Geneve VNI, 24 bits.
const MAX_INGRESS_KEY: u32 = (1 << 24) - 1;

/// What the maps hold, or should.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    /// `CONFIG`.
    pub config: NodeConfig,
    /// `ENDPOINTS`.
    pub endpoints: BTreeMap<Address, Endpoint>,
    /// `CALLERS`.
    pub callers: BTreeSet<CallerKey>,
    /// `VIPS`.
    pub vips: BTreeMap<Address, Vip>,
    /// `BACKENDS`.
    pub backends: BTreeMap<BackendKey, Backend>,
    /// Keys of `BACKEND_STATS`: all tasks known, serving or not, so that what is counted of a task
    /// stays while it is being drained.
    pub stats: BTreeSet<u64>,
    /// Keys of `TRAFFIC`: local tasks.
    pub traffic: BTreeSet<u64>,
    /// `PORTS`.
    pub ports: BTreeMap<PortKey, PublishedPort>,
    /// Tables of `MAGLEV` in use, by their first entry.
    pub maglev: BTreeMap<u32, Vec<u32>>,
    /// `INGRESS_TASKS`.
    pub ingress_tasks: BTreeMap<u32, IngressTask>,
    /// `NODE_ADDRESSES`.
    pub node_addresses: BTreeSet<Address>,
}

/// Makes map contents of a desired state. `previous` is what the maps hold: a port keeps the Maglev
/// table it has there.
///
/// # Errors
/// When the state contradicts itself or does not fit.
pub fn contents(table: &LbTable, previous: &Contents) -> Result<Contents, TableError> {
    let mut ids = Ids::default();
    let mut c = Contents {
        config: NodeConfig {
            overlay: table.node.overlay.map_or(Address::NONE, |a| IpAddr::from(a).into()),
            overlay_ifindex: table.node.overlay_ifindex,
            uplink_ifindex: table.node.uplink_ifindex,
            overlay_mtu: table.node.overlay_mtu,
            pad: 0,
        },
        node_addresses: table.node.addresses.iter().map(|a| Address::from(*a)).collect(),
        ..Contents::default()
    };
    for entry in &table.endpoints {
        add_endpoint(&mut c, &mut ids, entry)?;
    }
    for caller in &table.callers {
        let network = ids.network(&caller.network)?;
        c.callers.insert(CallerKey { netns_cookie: caller.netns_cookie, network });
    }
    for vip in &table.vips {
        add_vip(&mut c, &mut ids, vip)?;
    }
    for task in &table.ingress_tasks {
        let refused = TableError::IngressKey { task: task.task.clone(), key: task.key };
        if task.key == 0 || task.key > MAX_INGRESS_KEY {
            return Err(refused);
        }
        let value = IngressTask {
            node: task.node.map_or(Address::NONE, |a| IpAddr::from(a).into()),
            v4: IpAddr::from(task.v4).into(),
            v6: task.v6.map_or(Address::NONE, |a| IpAddr::from(a).into()),
            task: ids.task(&task.task)?,
        };
        if c.ingress_tasks.insert(task.key, value).is_some() {
            return Err(refused);
        }
        c.stats.insert(value.task);
    }
    add_ports(&mut c, &mut ids, &table.ports, previous)?;
    check_bounds(&c)?;
    Ok(c)
}

fn add_endpoint(c: &mut Contents, ids: &mut Ids, entry: &EndpointEntry) -> Result<(), TableError> {
    let mut value = Endpoint { network: ids.network(&entry.network)?, ..Endpoint::default() };
    if let Some(task) = &entry.task {
        value.task = ids.task(task)?;
        c.stats.insert(value.task);
    }
    if let Some(local) = entry.local {
        if local.ifindex == 0 {
            return Err(TableError::NoLink { address: entry.address });
        }
        (value.ifindex, value.mac, value.host_mac) = (local.ifindex, local.mac, local.host_mac);
        if value.task != 0 {
            c.traffic.insert(value.task);
        }
    }
    let claimant = || entry.task.as_ref().map_or("a node".into(), |t| format!("task {t}"));
    ids.claim(entry.address, claimant())?;
    c.endpoints.insert(entry.address.into(), value);
    Ok(())
}

/// Backends lie in slots in the order of their tasks' ids, so that equal states give equal slots.
fn add_vip(c: &mut Contents, ids: &mut Ids, vip: &VipEntry) -> Result<(), TableError> {
    let network = ids.network(&vip.network)?;
    // One service may have a VIP of each family on a network; their slots must not mix. To the
    // programs the service of a VIP is only a part of the slots' keys.
    let service = match vip.address {
        IpAddr::V4(_) => ids.service(&vip.service)?,
        IpAddr::V6(_) => ids.service(&format!("{}/6", vip.service))?,
    };
    ids.claim(vip.address, format!("service {}", vip.service))?;
    if !ids.vips.insert((service, network)) {
        return Err(TableError::VipTwice {
            service: vip.service.clone(),
            network: vip.network.clone(),
        });
    }
    let mut backends: Vec<_> = vip.backends.iter().collect();
    backends.sort_by(|a, b| (&a.task, a.address).cmp(&(&b.task, b.address)));
    backends.dedup();
    for (slot, backend) in (0..).zip(&backends) {
        if backend.address.is_ipv4() != vip.address.is_ipv4() {
            return Err(TableError::OtherFamily { vip: vip.address, backend: backend.address });
        }
        let value = Backend { address: backend.address.into(), task: ids.task(&backend.task)? };
        let endpoint = c.endpoints.get(&value.address);
        if endpoint.is_none_or(|e| e.network != network || e.task != value.task) {
            return Err(TableError::NoEndpoint {
                address: backend.address,
                task: backend.task.clone(),
                service: vip.service.clone(),
                network: vip.network.clone(),
            });
        }
        c.backends.insert(BackendKey { service, network, slot, pad: 0 }, value);
    }
    let value = Vip { service, network, count: backends.len() as u32, pad: 0 };
    c.vips.insert(vip.address.into(), value);
    Ok(())
}

fn add_ports(
    c: &mut Contents,
    ids: &mut Ids,
    ports: &[PortEntry],
    previous: &Contents,
) -> Result<(), TableError> {
    let mut owners: BTreeMap<PortKey, &PortEntry> = BTreeMap::new();
    for port in ports {
        if port.published == 0 || port.target == 0 {
            return Err(TableError::PortZero {
                service: port.service.clone(),
                published: port.published,
                target: port.target,
            });
        }
        let protocol = port.protocol.number();
        let key = PortKey { port: port.published.to_be_bytes(), protocol, pad: 0 };
        if let Some(first) = owners.insert(key, port) {
            return Err(TableError::PortTwice {
                port: port.published,
                protocol: port.protocol,
                first: first.service.clone(),
                second: port.service.clone(),
            });
        }
    }
    check(
        "published ports",
        owners.len(),
        MAX_PORTS,
        "publish fewer ports in the cluster, or in mode host",
    )?;
    let keys: Vec<PortKey> = owners.keys().copied().collect();
    let places = places(&keys, previous);
    for (key, port) in owners {
        let mut tasks = BTreeMap::new();
        for number in &port.tasks {
            let Some(task) = c.ingress_tasks.get(number) else {
                return Err(TableError::NoIngressTask {
                    port: port.published,
                    protocol: port.protocol,
                    service: port.service.clone(),
                    key: *number,
                });
            };
            tasks.insert(task.task, *number);
        }
        let tasks: Vec<(u64, u32)> = tasks.into_iter().collect();
        let value = PublishedPort {
            service: ids.service(&port.service)?,
            maglev: places[&key],
            backends: tasks.len() as u32,
            target_port: port.target.to_be_bytes(),
            pad: [0; 6],
        };
        c.maglev.insert(value.maglev, maglev(&tasks));
        c.ports.insert(key, value);
    }
    Ok(())
}

/// First entry of each port's Maglev table. Known ports keep theirs; new ones take one that no port
/// uses now, as long as there is such a one, so that no table is rewritten under a port that leaves.
fn places(ports: &[PortKey], previous: &Contents) -> BTreeMap<PortKey, u32> {
    let mut places = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for port in ports {
        // A pinned map could hold anything: two ports in one place are not carried on.
        if let Some(old) = previous.ports.get(port)
            && old.maglev % MAGLEV_SIZE == 0
            && old.maglev / MAGLEV_SIZE < MAX_PORTS
            && taken.insert(old.maglev)
        {
            places.insert(*port, old.maglev);
        }
    }
    let leaving: BTreeSet<u32> = previous.ports.values().map(|p| p.maglev).collect();
    let all = (0..MAX_PORTS).map(|n| n * MAGLEV_SIZE).filter(|n| !taken.contains(n));
    let (used, unused): (Vec<u32>, Vec<u32>) = all.partition(|n| leaving.contains(n));
    let mut free = unused.into_iter().chain(used);
    for port in ports {
        if let Entry::Vacant(vacant) = places.entry(*port) {
            vacant.insert(free.next().expect("there are as many tables as ports"));
        }
    }
    places
}

fn check_bounds(c: &Contents) -> Result<(), TableError> {
    let fewer = "run fewer tasks on networks this node takes part in";
    check("endpoints", c.endpoints.len(), MAX_ENDPOINTS, fewer)?;
    check("backends", c.backends.len(), MAX_BACKENDS, fewer)?;
    check("tasks", c.stats.len(), MAX_BACKENDS, fewer)?;
    check("ingress tasks", c.ingress_tasks.len(), MAX_ENDPOINTS, fewer)?;
    check("virtual addresses", c.vips.len(), MAX_VIPS, "attach services to fewer networks")?;
    let local = "run fewer containers on this node";
    check("attachments of local containers", c.callers.len(), MAX_CALLERS, local)?;
    check("local tasks", c.traffic.len(), MAX_CALLERS, local)?;
    check(
        "addresses of this node",
        c.node_addresses.len(),
        MAX_NODE_ADDRESSES,
        "remove addresses from its links",
    )
}

fn check(
    what: &'static str,
    found: usize,
    max: u32,
    remedy: &'static str,
) -> Result<(), TableError> {
    let max = max as usize;
    if found > max { Err(TableError::TooMany { what, found, max, remedy }) } else { Ok(()) }
}

/// Who has which hash and address, to find two that have the same.
#[derive(Default)]
struct Ids {
    names: BTreeMap<(&'static str, u64), String>,
    addresses: BTreeMap<IpAddr, String>,
    vips: BTreeSet<(u64, u64)>,
}

impl Ids {
    fn network(&mut self, object: &str) -> Result<u64, TableError> {
        self.of("network", object)
    }

    fn task(&mut self, object: &str) -> Result<u64, TableError> {
        self.of("task", object)
    }

    fn service(&mut self, object: &str) -> Result<u64, TableError> {
        self.of("service", object)
    }

    fn of(&mut self, kind: &'static str, object: &str) -> Result<u64, TableError> {
        let hash = id(object);
        match self.names.entry((kind, hash)) {
            Entry::Vacant(vacant) => {
                vacant.insert(object.into());
                Ok(hash)
            }
            Entry::Occupied(known) if known.get() == object => Ok(hash),
            Entry::Occupied(known) => Err(TableError::SameHash {
                first: format!("{kind} {}", known.get()),
                second: format!("{kind} {object}"),
            }),
        }
    }

    fn claim(&mut self, address: IpAddr, claimant: String) -> Result<(), TableError> {
        match self.addresses.insert(address, claimant.clone()) {
            None => Ok(()),
            Some(first) => Err(TableError::AddressTwice { address, first, second: claimant }),
        }
    }
}
