//! What the engine is told about its peers, and what it tells about them.

use crate::{drops::add, echo::Ends};
use ipnetwork::IpNetwork;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Another node of the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its Curve25519 public key, which is its identity.
    pub public_key: [u8; 32],
    /// Where to send to. If there is none, or the peer has moved, the address is learned from
    /// authentic packets; giving the same one again does not undo that.
    pub endpoint: Option<SocketAddr>,
    /// Inner addresses that belong to it. Host bits are ignored.
    pub allowed_ips: Vec<IpNetwork>,
    /// Send something at least every so many seconds, and keep a session up, also without
    /// traffic. Zero is the same as none.
    pub keepalive: Option<u16>,
    /// Overlay addresses of both ends, for asking it whether it is there when it is sent something
    /// and nothing comes. Without them it never counts as silent.
    pub ends: Option<Ends>,
}

/// The state of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its Curve25519 public key.
    pub public_key: [u8; 32],
    /// Where packets for it are sent to at present.
    pub endpoint: Option<SocketAddr>,
    /// Time since the last completed handshake; none if there was none.
    pub last_handshake: Option<Duration>,
    /// Completed handshakes.
    pub handshakes: u64,
    /// Authentic UDP payload bytes from it, handshakes and keepalives included.
    pub rx_bytes: u64,
    /// UDP payload bytes sent to it, handshakes and keepalives included.
    pub tx_bytes: u64,
    /// Authentic datagrams from it.
    pub rx_packets: u64,
    /// Datagrams sent to it.
    pub tx_packets: u64,
    /// Whether it was sent something and gave no sign of life for half a second.
    pub silent: bool,
}

/// The state of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// In the order of their keys.
    pub peers: Vec<PeerStatus>,
    /// Dropped packets by [reason](crate::DropReason); all reasons are listed.
    pub drops: BTreeMap<&'static str, u64>,
}

/// What one lane writes down about one peer, and the engine reads.
#[derive(Default)]
pub(crate) struct PeerRecord {
    rx_bytes: AtomicU64,
    tx_bytes: AtomicU64,
    rx_packets: AtomicU64,
    tx_packets: AtomicU64,
    handshakes: AtomicU64,
    silent: AtomicBool,
    /// Written rarely: when a handshake is done, and when the peer moves.
    latest: Mutex<Latest>,
}

#[derive(Clone, Copy, Default)]
struct Latest {
    handshake: Option<Instant>,
    endpoint: Option<SocketAddr>,
}

impl PeerRecord {
    pub(crate) fn received(&self, bytes: usize) {
        add(&self.rx_bytes, bytes as u64);
        add(&self.rx_packets, 1);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        add(&self.tx_bytes, bytes as u64);
        add(&self.tx_packets, 1);
    }

    pub(crate) fn shook_hands(&self, now: Instant) {
        add(&self.handshakes, 1);
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).handshake = Some(now);
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    pub(crate) fn moved(&self, endpoint: SocketAddr) {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).endpoint = Some(endpoint);
    }

    pub(crate) fn status(&self, public_key: [u8; 32], now: Instant) -> PeerStatus {
        let latest = *self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerStatus {
            public_key,
            endpoint: latest.endpoint,
            last_handshake: latest.handshake.map(|then| now.saturating_duration_since(then)),
            handshakes: read(&self.handshakes),
            rx_bytes: read(&self.rx_bytes),
            tx_bytes: read(&self.tx_bytes),
            rx_packets: read(&self.rx_packets),
            tx_packets: read(&self.tx_packets),
            silent: self.is_silent(),
        }
    }
}
