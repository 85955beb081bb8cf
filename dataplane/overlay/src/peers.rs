//! The peer table of one lane: bytes and the time in, bytes out. No sockets, no threads.

use crate::{
    batch::Batch,
    drops::{DropReason, Drops},
    echo::Ends,
    key::PrivateKey,
    peer::PeerRecord,
    routes::{Routes, destination},
    session::{HANDSHAKE_LEN, Opened, Session},
};
use boringtun::noise::{
    Packet, Tunn, TunnResult, handshake::parse_handshake_anon, rate_limiter::RateLimiter,
};
use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};
use x25519_dalek::PublicKey;

/// Handshake messages per second and lane that are handled without asking the sender to prove its
/// address by a cookie: some 20 ms of computing.
const HANDSHAKES_PER_SECOND: u64 = 100;
/// WireGuard's bound on a session's counter, 2^64 - 2^13 - 1. A peer at it is wrong or malicious,
/// and boringtun, which does not look, would overflow.
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// The whole set of peers, with what it takes to get there from the set before.
pub(crate) struct Update {
    pub(crate) peers: Vec<PeerUpdate>,
    pub(crate) routes: Routes,
}

/// One peer of an [`Update`].
pub(crate) struct PeerUpdate {
    /// Names the peer for as long as it stays in the set; below 2^24 and never used twice in a row.
    pub(crate) index: u32,
    pub(crate) public_key: [u8; 32],
    /// The session of a peer that was not in the set before.
    pub(crate) fresh: Option<Session>,
    /// Given only if it was changed, so that a learned one is not undone.
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) keepalive: Option<u16>,
    pub(crate) ends: Option<Ends>,
}

/// Makes the session of a new peer. Costs some 50 µs, so the engine does it and not the lane.
pub(crate) fn new_session(
    key: &PrivateKey,
    public_key: [u8; 32],
    index: u32,
    record: Arc<PeerRecord>,
    limiter: &Arc<RateLimiter>,
) -> Session {
    let (secret, public) = (key.secret().clone(), PublicKey::from(public_key));
    let tunn = Tunn::new(secret, public, None, None, index, Some(limiter.clone()));
    Session::new(Box::new(tunn), record)
}

/// The lane limits handshakes before it knows the peer, so the sessions themselves need not.
pub(crate) fn no_limit(key: &PrivateKey) -> Arc<RateLimiter> {
    Arc::new(RateLimiter::new(&PublicKey::from(key.secret()), u64::MAX))
}

pub(crate) struct Peers {
    key: PrivateKey,
    public_key: PublicKey,
    gate: RateLimiter,
    /// By index.
    sessions: HashMap<u32, Session>,
    by_key: HashMap<[u8; 32], u32>,
    routes: Routes,
    drops: Arc<Drops>,
}

impl Peers {
    pub(crate) fn new(key: PrivateKey, drops: Arc<Drops>) -> Peers {
        let public_key = PublicKey::from(key.secret());
        Peers {
            gate: RateLimiter::new(&public_key, HANDSHAKES_PER_SECOND),
            key,
            public_key,
            sessions: HashMap::new(),
            by_key: HashMap::new(),
            routes: Routes::default(),
            drops,
        }
    }

    /// Sessions of peers that stay are not touched.
    pub(crate) fn apply(&mut self, update: Update) {
        let mut old = std::mem::take(&mut self.sessions);
        self.by_key.clear();
        for peer in update.peers {
            let Some(mut session) = peer.fresh.or_else(|| old.remove(&peer.index)) else {
                tracing::error!(index = peer.index, "a peer without a session was announced");
                continue;
            };
            session.set_keepalive(peer.keepalive);
            session.set_ends(peer.ends);
            if let Some(endpoint) = peer.endpoint {
                session.set_endpoint(endpoint);
            }
            self.by_key.insert(peer.public_key, peer.index);
            self.sessions.insert(peer.index, session);
        }
        self.routes = update.routes;
    }

    /// The session of the peer to which `packet`, from the kernel, must go.
    pub(crate) fn route(&mut self, packet: &[u8]) -> Result<&mut Session, DropReason> {
        let address = destination(packet).ok_or(DropReason::Malformed)?;
        let index = self.routes.peer_of(address);
        index.and_then(|i| self.sessions.get_mut(&i)).ok_or(DropReason::NoPeer)
    }

    /// A datagram from the network. Gives the length of the packet for the kernel, if it held one,
    /// at the start of `plain`, which must be as long as `datagram`. Answers go to `out`.
    pub(crate) fn open(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        plain: &mut [u8],
        out: &mut Batch,
        now: Instant,
    ) -> Option<usize> {
        let result = match Tunn::parse_incoming_packet(datagram) {
            Ok(Packet::PacketData(data)) => {
                self.data(from, data.receiver_idx, datagram, plain, out, now)
            }
            Ok(_) => self.handshake(from, datagram, out, now).map(|()| None),
            Err(_) => Err(DropReason::Malformed),
        };
        result.unwrap_or_else(|reason| {
            self.drops.count(reason, 1);
            None
        })
    }

    fn data(
        &mut self,
        from: SocketAddr,
        receiver: u32,
        datagram: &[u8],
        plain: &mut [u8],
        out: &mut Batch,
        now: Instant,
    ) -> Result<Option<usize>, DropReason> {
        let index = receiver >> 8;
        let session = self.sessions.get_mut(&index).ok_or(DropReason::UnknownSession)?;
        let counter = datagram.get(8..16).and_then(|bytes| bytes.try_into().ok());
        if counter.map(u64::from_le_bytes).is_none_or(|c| c >= REJECT_AFTER_MESSAGES) {
            return Err(DropReason::Malformed);
        }
        match session.open(from, receiver, datagram, plain, out, now)? {
            Opened::Keepalive => Ok(None),
            Opened::Packet(len, source) if self.routes.peer_of(source) == Some(index) => {
                let echo = session.takes_echo(&plain[..len], out, &self.drops);
                Ok((!echo).then_some(len))
            }
            Opened::Packet(..) => Err(DropReason::SourceNotAllowed),
        }
    }

    fn handshake(
        &mut self,
        from: SocketAddr,
        message: &[u8],
        out: &mut Batch,
        now: Instant,
    ) -> Result<(), DropReason> {
        let room = out.room(HANDSHAKE_LEN);
        let packet = match self.gate.verify_packet(Some(from.ip()), message, room) {
            Ok(packet) => packet,
            Err(TunnResult::WriteToNetwork(cookie)) => {
                let len = cookie.len();
                out.commit(len, from);
                return Err(DropReason::UnderLoad);
            }
            Err(_) => return Err(DropReason::NotAuthentic),
        };
        let index = match packet {
            Packet::HandshakeInit(init) => {
                let half = parse_handshake_anon(self.key.secret(), &self.public_key, &init)
                    .map_err(|_| DropReason::NotAuthentic)?;
                *self.by_key.get(&half.peer_static_public).ok_or(DropReason::UnknownPeer)?
            }
            Packet::HandshakeResponse(response) => response.receiver_idx >> 8,
            Packet::PacketCookieReply(cookie) => cookie.receiver_idx >> 8,
            Packet::PacketData(data) => data.receiver_idx >> 8,
        };
        let session = self.sessions.get_mut(&index).ok_or(DropReason::UnknownSession)?;
        session.handshake(from, message, out, now)
    }

    /// Timers of all sessions. To be called every 250 ms; `flush` is called when `out` is full.
    pub(crate) fn tick(
        &mut self,
        out: &mut Batch,
        now: Instant,
        mut flush: impl FnMut(&mut Batch),
    ) {
        self.gate.reset_count();
        for session in self.sessions.values_mut() {
            session.tick(out, &self.drops, now);
            if out.is_full() {
                flush(out);
            }
        }
    }

    /// Looks for peers that owe a sign of life; `late`: nobody looked for longer than agreed. Says whether
    /// some do, and whether one became silent or is so no more.
    pub(crate) fn watch(
        &mut self,
        out: &mut Batch,
        now: Instant,
        late: bool,
        mut flush: impl FnMut(&mut Batch),
    ) -> (bool, bool) {
        let (mut owed, mut changed) = (false, false);
        for session in self.sessions.values_mut() {
            let look = session.watch(out, &self.drops, now, late);
            owed |= look.owes;
            changed |= look.changed;
            if out.is_full() {
                flush(out);
            }
        }
        (owed, changed)
    }
}

#[cfg(test)]
mod tests;
