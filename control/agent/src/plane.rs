//! The node's data plane: cables of containers, the load balancer's maps, the `shoal net` process.
//!
//! What is wanted is kept in one place; one task ([`Plane::run`]) carries it out whole, whenever it
//! changes, and once a second looks after the process. Cancelling that task stops changes, not
//! traffic.
use crate::{
    supervisor::NetSupervisor,
    tables::{
        Endpoints, LocalEndpoint, NodeLinks, attachments, lb_table, net_table, without_silent,
    },
};
use anyhow::{Context, Result, bail};
use shoal_lb::{Counters, Lb, LbError};
use shoal_links::{Links, NetNs, PlugSpec, has_ipv6, host_ifname};
use shoal_model::{AssignedTask, NodeTable};
use shoal_net::NetStatus;
use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Name of the overlay device.
pub(crate) const OVERLAY: &str = "shoal0";
/// How often the `shoal net` process is looked after; also the pause after a failure.
const TICK: Duration = Duration::from_secs(1);
/// How long a container may wait for the data plane to take it in; then its task is rejected.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct PlanePaths {
    /// Network namespaces of containers.
    pub(crate) netns: PathBuf,
    /// Records of what is plugged in.
    pub(crate) endpoints: PathBuf,
}

pub(crate) struct Plane {
    paths: PlanePaths,
    links: Links,
    /// `None` once the node has left.
    lb: Mutex<Option<Lb>>,
    net: NetSupervisor,
    wanted: Mutex<Wanted>,
    /// Round wanted, and the last one carried out.
    round: watch::Sender<u64>,
    done: watch::Sender<u64>,
    /// Why the last round failed.
    failure: Mutex<Option<String>>,
    status: Mutex<NetStatus>,
    /// Generation the data plane works from, for the manager.
    applied: watch::Sender<u64>,
}

struct Wanted {
    generation: u64,
    table: NodeTable,
    local: Endpoints,
    node: NodeLinks,
    advertise: IpAddr,
    uplink: Option<String>,
    /// Public keys of nodes that do not answer.
    silent: BTreeSet<String>,
}

impl Plane {
    /// Takes up what an earlier daemon left: the records of what is plugged in.
    pub(crate) fn new(
        paths: PlanePaths,
        lb: Lb,
        net: NetSupervisor,
        node_id: String,
        advertise: IpAddr,
    ) -> Result<Plane> {
        for folder in [&paths.netns, &paths.endpoints] {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let local = load(&paths.endpoints)?;
        Ok(Plane {
            links: Links::new()?,
            lb: Mutex::new(Some(lb)),
            net,
            wanted: Mutex::new(Wanted {
                generation: 0,
                table: NodeTable::default(),
                local,
                node: NodeLinks { node_id, ..NodeLinks::default() },
                advertise,
                uplink: None,
                silent: BTreeSet::new(),
            }),
            paths,
            round: watch::channel(1).0,
            done: watch::channel(0).0,
            failure: Mutex::default(),
            status: Mutex::default(),
            applied: watch::channel(0).0,
        })
    }

    /// What the `shoal net` process said last.
    pub(crate) fn net_status(&self) -> NetStatus {
        lock(&self.status).clone()
    }

    /// The load balancer's counters.
    pub(crate) fn counters(&self) -> Result<Counters> {
        self.with_lb(|lb| lb.counters())
    }

    /// Generations as they come into force.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Replaces the manager's table. One that is in force already is a newer generation at once.
    pub(crate) fn set_table(&self, generation: u64, table: &NodeTable) {
        let mut wanted = lock(&self.wanted);
        wanted.generation = generation;
        let same = wanted.table == *table;
        if same && *self.done.borrow() == *self.round.borrow() {
            self.applied.send_replace(generation);
            return;
        }
        wanted.table.clone_from(table);
        drop(wanted);
        self.round.send_modify(|n| *n += 1);
    }

    /// Starts the process and makes sure of the overlay device; gives its status (public key).
    pub(crate) async fn start_net(&self) -> Result<NetStatus> {
        let status = self.net.status().await?;
        lock(&self.status).clone_from(&status);
        Ok(status)
    }

    /// Makes a container's namespace and cable; returns when its packets are let through.
    pub(crate) async fn plug(&self, assigned: &AssignedTask, mtu: u32) -> Result<PathBuf> {
        let task = &assigned.task;
        let path = self.paths.netns.join(&task.id);
        let result = self.plug_at(assigned, path.clone(), mtu).await;
        if result.is_err() {
            self.unplug(&task.id).await;
        }
        result.map(|()| path)
    }

    async fn plug_at(&self, assigned: &AssignedTask, path: PathBuf, mtu: u32) -> Result<()> {
        let task = &assigned.task;
        let netns = tokio::task::block_in_place(|| NetNs::create(&path))?;
        let netns_cookie = netns.cookie()?;
        let ifname = host_ifname(&task.id);
        let mut attachments = attachments(&assigned.networks, &task.networks);
        // A host without IPv6 still has its part in the routing mesh, over IPv4.
        attachments.retain(|a| a.address.is_ipv4() || has_ipv6());
        let spec = PlugSpec {
            netns: &netns,
            host_ifname: &ifname,
            container_ifname: "eth0",
            attachments: &attachments,
            mtu,
        };
        let plugged = self.links.plug(&spec).await?;
        self.with_lb(|lb| lb.attach_container(&ifname))?;
        let endpoint = LocalEndpoint {
            netns: path,
            netns_cookie,
            host_ifname: ifname,
            ifindex: plugged.ifindex,
            mac: plugged.container_mac,
            host_mac: plugged.host_mac,
            networks: task.networks.clone(),
            serving: true,
        };
        let record = self.paths.endpoints.join(format!("{}.json", task.id));
        fs::write(&record, serde_json::to_vec(&endpoint)?)
            .with_context(|| format!("write {}", record.display()))?;
        lock(&self.wanted).local.insert(task.id.clone(), endpoint);
        self.carried_out().await
    }

    /// Whether a task's container is plugged in, and its namespace.
    pub(crate) fn netns_of(&self, task: &str) -> Option<PathBuf> {
        lock(&self.wanted).local.get(task).map(|e| e.netns.clone())
    }

    /// A task's container has ended: nothing new is sent to it. Returns at once.
    pub(crate) fn retire(&self, task: &str) {
        if let Some(endpoint) = lock(&self.wanted).local.get_mut(task) {
            endpoint.serving = false;
        }
        self.round.send_modify(|n| *n += 1);
    }

    /// Removes cable and namespace of a task; what is not there is success.
    pub(crate) async fn unplug(&self, task: &str) {
        lock(&self.wanted).local.remove(task);
        self.round.send_modify(|n| *n += 1);
        let ifname = host_ifname(task);
        if let Err(error) = self.with_lb(|lb| lb.detach_container(&ifname)) {
            tracing::warn!(task, %error, "a program was not detached");
        }
        if let Err(error) = self.links.unplug(&ifname).await {
            tracing::warn!(task, %error, "a cable was not removed");
        }
        let path = self.paths.netns.join(task);
        if let Err(error) = tokio::task::block_in_place(|| NetNs::remove(&path)) {
            tracing::warn!(task, %error, "a network namespace was not removed");
        }
        let _ = fs::remove_file(self.paths.endpoints.join(format!("{task}.json")));
    }

    /// Tasks that have a cable.
    pub(crate) fn plugged(&self) -> Vec<String> {
        lock(&self.wanted).local.keys().cloned().collect()
    }

    /// Removes everything: the node leaves its cluster.
    pub(crate) async fn remove(&self) {
        for task in self.plugged() {
            self.unplug(&task).await;
        }
        self.net.stop().await;
        let lb = lock(&self.lb).take();
        if let Some(Err(error)) = lb.map(Lb::release_pins) {
            tracing::warn!(%error, "pinned programs and maps were not all released");
        }
    }

    fn with_lb<T>(&self, use_it: impl FnOnce(&mut Lb) -> Result<T, LbError>) -> Result<T> {
        let mut lb = lock(&self.lb);
        let lb = lb.as_mut().context("this node has left the cluster")?;
        Ok(use_it(lb)?)
    }

    /// Waits until everything wanted now is in force.
    async fn carried_out(&self) -> Result<()> {
        let mut target = 0;
        self.round.send_modify(|n| {
            *n += 1;
            target = *n;
        });
        let mut done = self.done.subscribe();
        match timeout(PATIENCE, done.wait_for(|done| *done >= target)).await {
            Ok(_) => Ok(()),
            Err(_) => bail!("{}", lock(&self.failure).as_deref().unwrap_or("it takes too long")),
        }
    }

    /// Carries out what is wanted, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut round = self.round.subscribe();
        let mut failed = false;
        loop {
            let tick = Instant::now() + TICK;
            let wanted = *round.borrow_and_update();
            if *self.done.borrow() < wanted {
                match self.carry_out().await {
                    Ok(generation) => {
                        // In this order: once it is done, a newer generation may follow at once.
                        self.applied.send_replace(generation);
                        self.done.send_replace(wanted);
                        *lock(&self.failure) = None;
                    }
                    Err(error) => {
                        tracing::error!("the data plane is not as it should be: {error:#}");
                        *lock(&self.failure) = Some(format!("{error:#}"));
                    }
                }
                failed = lock(&self.failure).is_some();
            }
            tokio::select! {
                changed = round.changed(), if !failed => if changed.is_err() { return },
                () = sleep_until(tick) => self.look_after_net().await,
            }
        }
    }

    /// Learns which nodes do not answer, for ever. They are no backends here until they do, sooner than the
    /// manager can say that they are down.
    pub(crate) async fn listen_for_silence(self: Arc<Self>) {
        loop {
            if let Ok(mut client) = self.net.another_client().await {
                let mut known = lock(&self.wanted).silent.clone();
                while let Ok(silent) = client.silent(&known).await {
                    if silent != known {
                        self.tell_silent(&known, &silent);
                        lock(&self.wanted).silent.clone_from(&silent);
                        self.round.send_modify(|n| *n += 1);
                        known = silent;
                    }
                }
            }
            // The process is not there, or was started again.
            sleep(TICK).await;
        }
    }

    fn tell_silent(&self, before: &BTreeSet<String>, now: &BTreeSet<String>) {
        let wanted = lock(&self.wanted);
        let name = |key: &String| {
            let peer = wanted.table.peers.iter().find(|peer| peer.public_key == *key);
            peer.map_or_else(|| key.clone(), |peer| peer.hostname.clone())
        };
        for key in now.difference(before) {
            tracing::warn!(node = name(key), "a node does not answer; its tasks are avoided");
        }
        for key in before.difference(now) {
            tracing::info!(node = name(key), "a node answers again");
        }
    }

    async fn carry_out(&self) -> Result<u64> {
        self.find_links().await?;
        let (generation, lb, net) = {
            let wanted = lock(&self.wanted);
            let Wanted { generation, table, node, local, silent, .. } = &*wanted;
            let table = match silent.is_empty() {
                true => Cow::Borrowed(table),
                false => Cow::Owned(without_silent(table.clone(), silent, node, local)),
            };
            let net = net_table(*generation, &table, node.overlay_mtu, local);
            (*generation, lb_table(&table, node, local), net)
        };
        // Peers first: an endpoint in the maps must be one the tunnel can reach.
        self.net.apply(net).await.context("shoal net")?;
        tokio::task::block_in_place(|| self.with_lb(|all| all.apply(&lb)))
            .context("load balancer")?;
        Ok(generation)
    }

    /// Finds overlay device and uplink, and attaches the programs where they are not yet.
    async fn find_links(&self) -> Result<()> {
        let overlay = lock(&self.status).ifindex;
        let (advertise, known) = {
            let wanted = lock(&self.wanted);
            (wanted.advertise, wanted.node.clone())
        };
        let all = self.links.node_addresses(&[OVERLAY]).await?;
        let uplink = self.links.uplink_for(advertise).await?;
        if known.overlay_ifindex != overlay {
            self.with_lb(|lb| lb.attach_overlay(OVERLAY))?;
        }
        let before = lock(&self.wanted).uplink.clone();
        if before.as_deref() != Some(&uplink.ifname) || known.uplink_ifindex != uplink.ifindex {
            self.with_lb(|lb| lb.attach_uplink(&uplink.ifname))?;
        }
        let mut wanted = lock(&self.wanted);
        wanted.uplink = Some(uplink.ifname.clone());
        wanted.node.overlay_ifindex = overlay;
        wanted.node.uplink_ifindex = uplink.ifindex;
        wanted.node.overlay_mtu = overlay_mtu(uplink.mtu);
        wanted.node.addresses = all.into_iter().map(|a| a.address).collect();
        Ok(())
    }

    /// MTU for containers, bytes: the overlay's.
    pub(crate) async fn mtu(&self) -> u32 {
        let mut done = self.done.subscribe();
        let _ = done.wait_for(|n| *n > 0).await;
        lock(&self.wanted).node.overlay_mtu
    }

    async fn look_after_net(&self) {
        match self.net.status().await {
            Ok(status) => {
                let mut last = lock(&self.status);
                let restarted = last.pid != status.pid || last.ifindex != status.ifindex;
                *last = status;
                drop(last);
                if restarted {
                    tracing::warn!("the shoal net process was started again");
                    self.round.send_modify(|n| *n += 1);
                }
            }
            Err(error) => tracing::error!(%error, "no shoal net process"),
        }
    }
}

/// WireGuard's overhead is 60 bytes over IPv4 and 80 over IPv6; 80 serves both.
pub(crate) fn overlay_mtu(uplink: u32) -> u32 {
    const OVERHEAD: u32 = 80;
    // IPv6 needs 1280 (RFC 8200, section 5).
    const LEAST: u32 = 1280;
    uplink.saturating_sub(OVERHEAD).max(LEAST)
}

fn load(folder: &std::path::Path) -> Result<Endpoints> {
    let mut local = Endpoints::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(task) = path.file_stem().and_then(|s| s.to_str()) else { continue };
        // A record half written belongs to a task that never ran: its remains are swept.
        match serde_json::from_slice(&fs::read(&path)?) {
            Ok(endpoint) => drop(local.insert(task.to_owned(), endpoint)),
            Err(_) => fs::remove_file(&path)?,
        }
    }
    Ok(local)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
