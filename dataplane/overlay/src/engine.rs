//! The engine: owns the lane, and turns whole sets of peers into what has changed.

use crate::{
    DropReason, EngineStatus, OverlayError, Peer, PrivateKey,
    drops::Drops,
    lane::Lane,
    peer::PeerRecord,
    peers::{PeerUpdate, Peers, Update, new_session, no_limit},
    roster,
    routes::Routes,
    tun::{Queue, valid_name},
    udp::Port,
};
use boringtun::noise::rate_limiter::RateLimiter;
use rustix::{
    event::{EventfdFlags, eventfd},
    fd::OwnedFd,
};
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Instant,
};

/// Updates on their way to a lane. The lane takes one between two batches; at the bound
/// [`Engine::set_peers`] waits for it.
const MAX_UPDATES: usize = 4;
/// Session indexes have 24 bits for the peer.
const INDEXES: u32 = 1 << 24;

/// What serves the overlay device.
pub trait Engine: Send + Sync {
    /// Makes `peers` the whole set. Sessions, counters and learned endpoints of peers that stay are
    /// not touched; peers that are not listed are forgotten, with what waited for them. The change
    /// takes effect within one batch of packets after the return. On an error nothing is changed.
    fn set_peers(&self, peers: Vec<Peer>) -> Result<(), OverlayError>;
    /// Whether packets are still carried. Once this is false it stays so: start another engine.
    fn is_running(&self) -> bool;
    /// Counters and states at this moment.
    fn status(&self) -> EngineStatus;
    /// Public keys of the peers that are silent at this moment, in order.
    fn silent(&self) -> Vec<[u8; 32]>;
    /// The node's Curve25519 public key.
    fn public_key(&self) -> [u8; 32];
    /// Name of the network device.
    fn device(&self) -> &str;
}

/// How to start a [`UserspaceEngine`].
#[derive(Clone)]
pub struct EngineConfig {
    /// Name of the TUN device to make. It must not exist.
    pub device: String,
    /// UDP port, for IPv4 and IPv6 alike. Zero chooses a free one.
    pub listen_port: u16,
    /// The node's key.
    pub private_key: PrivateKey,
    /// The MTU the device will be given, in bytes. Longer TCP segments, which eBPF may redirect
    /// into the device, are cut to it; 1280 to 65000.
    pub mtu: u32,
    /// Called by the engine's thread after a peer became silent, or is so no more; it must not wait.
    pub silence_changed: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// WireGuard in this process, over a TUN. Dropping it ends the thread and deletes the device.
pub struct UserspaceEngine {
    device: String,
    listen_port: u16,
    key: PrivateKey,
    no_limit: Arc<RateLimiter>,
    drops: Arc<Drops>,
    roster: Mutex<Roster>,
    wake: Arc<OwnedFd>,
    /// None once the engine is being dropped.
    updates: Option<SyncSender<Update>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Roster {
    known: BTreeMap<[u8; 32], Known>,
    next_index: u32,
}

#[derive(Clone)]
struct Known {
    index: u32,
    /// As configured last, not as learned.
    endpoint: Option<SocketAddr>,
    record: Arc<PeerRecord>,
}

impl UserspaceEngine {
    /// Makes the device and binds the port, both in the calling thread's network namespace, and
    /// starts the lane's thread. The device is down and has no address.
    pub fn start(config: EngineConfig) -> Result<UserspaceEngine, OverlayError> {
        let EngineConfig { device, listen_port, private_key: key, mtu, silence_changed } = config;
        if !valid_name(&device) {
            return Err(OverlayError::DeviceName(device));
        }
        if !(1_280..=65_000).contains(&mtu) {
            return Err(OverlayError::Mtu(mtu));
        }
        let port = Port::bind(listen_port)?;
        let listen_port = port.number().map_err(|source| OverlayError::Socket {
            port: listen_port,
            step: "getsockname",
            source,
        })?;
        let tun = Queue::create(&device)?;
        let thread_failed = |e: io::Error| OverlayError::Thread(device.clone(), e);
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags).map_err(|e| thread_failed(e.into()))?);
        let drops = Arc::new(Drops::default());
        let (updates, receiver) = sync_channel(MAX_UPDATES);
        let peers = Peers::new(key.clone(), drops.clone());
        let mtu = mtu as usize;
        let lane = Lane::new(tun, port, peers, drops.clone(), mtu, receiver, wake.clone());
        let lane = lane.telling(silence_changed);
        let thread = std::thread::Builder::new()
            .name("overlay-0".into())
            .spawn(move || lane.run())
            .map_err(thread_failed)?;
        Ok(UserspaceEngine {
            no_limit: no_limit(&key),
            device,
            listen_port,
            key,
            drops,
            roster: Mutex::default(),
            wake,
            updates: Some(updates),
            thread: Some(thread),
        })
    }

    /// The UDP port it is bound to.
    pub fn listen_port(&self) -> u16 {
        self.listen_port
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It can only fail when the count is at its maximum: then the lane is being woken anyway.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

impl Engine for UserspaceEngine {
    fn set_peers(&self, peers: Vec<Peer>) -> Result<(), OverlayError> {
        roster::check(&peers, &self.public_key())?;
        let mut roster = self.roster();
        let mut update =
            Update { peers: Vec::with_capacity(peers.len()), routes: Routes::default() };
        let mut known = BTreeMap::new();
        let mut next_index = roster.next_index;
        for peer in peers {
            let before = roster.known.get(&peer.public_key);
            let (now_known, fresh) = match before {
                Some(before) => (Known { endpoint: peer.endpoint, ..before.clone() }, None),
                None => {
                    let index = roster.free_index(&mut next_index);
                    let record = Arc::new(PeerRecord::default());
                    if let Some(endpoint) = peer.endpoint {
                        record.moved(endpoint);
                    }
                    let session = new_session(
                        &self.key,
                        peer.public_key,
                        index,
                        record.clone(),
                        &self.no_limit,
                    );
                    (Known { index, endpoint: peer.endpoint, record }, Some(session))
                }
            };
            for net in peer.allowed_ips {
                update.routes.insert(net, now_known.index);
            }
            update.peers.push(PeerUpdate {
                index: now_known.index,
                public_key: peer.public_key,
                fresh,
                endpoint: peer
                    .endpoint
                    .filter(|_| before.is_none_or(|before| before.endpoint != peer.endpoint)),
                keepalive: peer.keepalive,
                ends: peer.ends,
            });
            known.insert(peer.public_key, now_known);
        }
        let sender = self.updates.as_ref().expect("taken only by drop");
        sender.send(update).map_err(|_| OverlayError::Stopped(self.device.clone()))?;
        self.wake();
        *roster = Roster { known, next_index };
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn status(&self) -> EngineStatus {
        let now = Instant::now();
        let roster = self.roster();
        let peers =
            roster.known.iter().map(|(key, known)| known.record.status(*key, now)).collect();
        let mut drops = BTreeMap::new();
        self.drops.add_to(&mut drops);
        debug_assert_eq!(drops.len(), DropReason::ALL.len(), "two reasons have the same name");
        EngineStatus { peers, drops }
    }

    fn silent(&self) -> Vec<[u8; 32]> {
        let roster = self.roster();
        let silent = roster.known.iter().filter(|(_, known)| known.record.is_silent());
        silent.map(|(key, _)| *key).collect()
    }

    fn public_key(&self) -> [u8; 32] {
        self.key.public_key()
    }

    fn device(&self) -> &str {
        &self.device
    }
}

impl Roster {
    /// The next index that no peer has. A peer that was removed and comes back gets another one,
    /// so that late datagrams of its old sessions are recognised as such.
    fn free_index(&self, next: &mut u32) -> u32 {
        loop {
            let index = *next;
            *next = (*next + 1) % INDEXES;
            // Ends: there are far fewer peers (MAX_PEERS) than indexes.
            if self.known.values().all(|known| known.index != index) {
                return index;
            }
        }
    }
}

impl Drop for UserspaceEngine {
    fn drop(&mut self) {
        self.updates = None;
        self.wake();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(device = self.device, "the overlay's thread had panicked");
        }
    }
}
