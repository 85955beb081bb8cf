//! One peer as a lane sees it: boringtun's `Tunn`, and where to send.

use crate::{
    batch::Batch,
    drops::{DropReason, Drops},
    echo::{self, Ends},
    liveness::{Liveness, Look},
    peer::PeerRecord,
};
use boringtun::noise::{Tunn, TunnResult, errors::WireGuardError};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes WireGuard adds to a packet.
pub(crate) const OVERHEAD: usize = 32;
/// The longest handshake message; `Tunn` panics if it gets less room.
pub(crate) const HANDSHAKE_LEN: usize = 148;
/// Packets `Tunn` keeps while a handshake is on; those beyond it are dropped (the newest).
const MAX_WAITING: u64 = 256;
/// Room for any packet that waited.
const MAX_DATAGRAM: usize = 65_535 + OVERHEAD;
/// First byte of a data message.
const DATA: u8 = 4;
/// A session of that age is used no more (WireGuard's REJECT_AFTER_TIME).
const SESSION_LIFE: Duration = Duration::from_secs(180);

/// What an authentic data message held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// An IP packet of that length at the start of the buffer, and its source.
    Packet(usize, IpAddr),
    /// Nothing for the kernel: a keepalive.
    Keepalive,
}

/// Not thread-safe and needs no lock: it belongs to one lane.
pub(crate) struct Session {
    tunn: Box<Tunn>,
    record: Arc<PeerRecord>,
    endpoint: Option<SocketAddr>,
    keepalive: Option<Duration>,
    /// When something was sent last, to the precision of a tick.
    last_sent: Option<Instant>,
    sent_since_tick: bool,
    /// Packets in `Tunn`'s queue.
    waiting: u64,
    /// We answered a handshake with this session index; it is complete once the peer uses it.
    unconfirmed: Option<u32>,
    liveness: Liveness,
    /// Where to ask for an echo. Without it the peer is never silent.
    ends: Option<Ends>,
}

impl Session {
    pub(crate) fn new(tunn: Box<Tunn>, record: Arc<PeerRecord>) -> Session {
        Session {
            tunn,
            record,
            endpoint: None,
            keepalive: None,
            last_sent: None,
            sent_since_tick: false,
            waiting: 0,
            unconfirmed: None,
            liveness: Liveness::default(),
            ends: None,
        }
    }

    pub(crate) fn set_ends(&mut self, ends: Option<Ends>) {
        self.ends = ends;
    }

    pub(crate) fn set_keepalive(&mut self, seconds: Option<u16>) {
        self.keepalive = seconds.filter(|&s| s > 0).map(|s| Duration::from_secs(s.into()));
    }

    /// Also the way roaming works: called with the source of every authentic message.
    pub(crate) fn set_endpoint(&mut self, endpoint: SocketAddr) {
        if self.endpoint != Some(endpoint) {
            self.endpoint = Some(endpoint);
            self.record.moved(endpoint);
        }
    }

    /// Encrypts a packet. Before the handshake is done it waits, and a handshake message leaves.
    pub(crate) fn seal(&mut self, packet: &[u8], out: &mut Batch, drops: &Drops) {
        self.liveness.sent();
        self.seal_unwatched(packet, out, drops);
    }

    /// The same for what is no reason to expect a sign of life.
    fn seal_unwatched(&mut self, packet: &[u8], out: &mut Batch, drops: &Drops) {
        let Some(to) = self.endpoint else {
            return drops.count(DropReason::NoEndpoint, 1);
        };
        let room = out.room(packet.len() + OVERHEAD + HANDSHAKE_LEN);
        let sent = match self.tunn.encapsulate(packet, room) {
            TunnResult::WriteToNetwork(datagram) => Some((datagram[0], datagram.len())),
            _ => None,
        };
        if sent.is_none_or(|(kind, _)| kind != DATA) {
            match self.waiting < MAX_WAITING {
                true => self.waiting += 1,
                false => drops.count(DropReason::QueueFull, 1),
            }
        }
        if let Some((_, len)) = sent {
            self.send(len, to, out);
        }
    }

    /// Decrypts a data message for session `index`. `plain` must be as long as `datagram`.
    pub(crate) fn open(
        &mut self,
        from: SocketAddr,
        index: u32,
        datagram: &[u8],
        plain: &mut [u8],
        out: &mut Batch,
        now: Instant,
    ) -> Result<Opened, DropReason> {
        let opened = match self.tunn.decapsulate(Some(from.ip()), datagram, plain) {
            TunnResult::WriteToTunnelV4(packet, source) => {
                Opened::Packet(packet.len(), source.into())
            }
            TunnResult::WriteToTunnelV6(packet, source) => {
                Opened::Packet(packet.len(), source.into())
            }
            TunnResult::Done => Opened::Keepalive,
            TunnResult::Err(e) => return Err(reason(&e)),
            TunnResult::WriteToNetwork(_) => unreachable!("data is not answered by Tunn"),
        };
        self.authentic(from, datagram.len());
        if self.unconfirmed == Some(index) {
            self.unconfirmed = None;
            self.record.shook_hands(now);
            self.send_waiting(from, out);
        }
        Ok(opened)
    }

    /// Answers the peer's question whether we are there. Whether the packet was one, or the peer's answer
    /// to ours: then it is not the kernel's.
    pub(crate) fn takes_echo(&mut self, packet: &[u8], out: &mut Batch, drops: &Drops) -> bool {
        let Some(ends) = self.ends.filter(|_| packet.len() == echo::LEN) else { return false };
        match ends.answer(packet) {
            Some(answer) => {
                self.seal_unwatched(&answer, out, drops);
                true
            }
            None => ends.is_answer(packet),
        }
    }

    /// Whether the peer is there. To be called every [`crate::liveness::WATCH`] while it owes a sign.
    pub(crate) fn watch(
        &mut self,
        out: &mut Batch,
        drops: &Drops,
        now: Instant,
        late: bool,
    ) -> Look {
        let (Some(ends), Some(to)) = (self.ends, self.endpoint) else { return Look::default() };
        let look = self.liveness.look(now, late);
        if look.changed {
            self.record.set_silent(self.liveness.is_silent());
        }
        match self.tunn.time_since_last_handshake() {
            _ if !look.ask => {}
            Some(age) if age < SESSION_LIFE => {
                self.seal_unwatched(&ends.request(), out, drops);
            }
            // Nothing waits for it: a handshake is as good a question.
            _ => self.send_keepalive(to, out, now),
        }
        look
    }

    /// Handles a handshake message or a cookie; answers leave through `out`.
    pub(crate) fn handshake(
        &mut self,
        from: SocketAddr,
        message: &[u8],
        out: &mut Batch,
        now: Instant,
    ) -> Result<(), DropReason> {
        const INITIATION: u8 = 1;
        const RESPONSE: u8 = 2;
        let room = out.room(HANDSHAKE_LEN + OVERHEAD);
        let answer = match self.tunn.decapsulate(Some(from.ip()), message, room) {
            TunnResult::WriteToNetwork(answer) => Some((session_index(answer), answer.len())),
            TunnResult::Err(e) => return Err(reason(&e)),
            _ => None,
        };
        match (message[0], answer) {
            (INITIATION, Some((index, len))) => {
                self.authentic(from, message.len());
                self.unconfirmed = Some(index);
                self.send(len, from, out);
            }
            (RESPONSE, Some((_, len))) => {
                self.authentic(from, message.len());
                self.record.shook_hands(now);
                self.send(len, from, out); // a keepalive, which confirms the session
                self.send_waiting(from, out);
            }
            _ => {} // a cookie: kept by Tunn for its next try
        }
        Ok(())
    }

    /// Retries, new keys, keepalives. To be called every 250 ms.
    pub(crate) fn tick(&mut self, out: &mut Batch, drops: &Drops, now: Instant) {
        if std::mem::take(&mut self.sent_since_tick) {
            self.last_sent = Some(now);
        }
        let due = match self.tunn.update_timers(out.room(HANDSHAKE_LEN + OVERHEAD)) {
            TunnResult::WriteToNetwork(datagram) => datagram.len(),
            TunnResult::Err(WireGuardError::ConnectionExpired) => {
                // Tunn gave up and emptied its queue. The next packet starts it again.
                drops.count(DropReason::NoAnswer, std::mem::take(&mut self.waiting));
                0
            }
            _ => 0,
        };
        // Nothing is sent without an endpoint, but Tunn's clock must go on.
        let Some(to) = self.endpoint else { return };
        if due > 0 {
            self.send(due, to, out);
        } else if self.keepalive_is_due(now) {
            self.send_keepalive(to, out, now);
        }
    }

    /// Our own timer, not Tunn's: that one stops for good when a handshake was not answered for 90
    /// seconds, and cannot be changed while a session is up.
    fn keepalive_is_due(&self, now: Instant) -> bool {
        self.keepalive.is_some_and(|interval| {
            self.last_sent.is_none_or(|then| now.saturating_duration_since(then) >= interval)
        })
    }

    fn send_keepalive(&mut self, to: SocketAddr, out: &mut Batch, now: Instant) {
        self.last_sent = Some(now);
        let room = out.room(HANDSHAKE_LEN + OVERHEAD);
        let result = match self.tunn.time_since_last_handshake() {
            Some(_) => self.tunn.encapsulate(&[], room),
            None => self.tunn.format_handshake_initiation(room, false),
        };
        if let TunnResult::WriteToNetwork(datagram) = result {
            let len = datagram.len();
            self.send(len, to, out);
        }
    }

    fn send_waiting(&mut self, to: SocketAddr, out: &mut Batch) {
        // At most as many as there were: a packet that must wait again is not looked at twice.
        for _ in 0..std::mem::take(&mut self.waiting) {
            match self.tunn.decapsulate(None, &[], out.room(MAX_DATAGRAM + HANDSHAKE_LEN)) {
                TunnResult::WriteToNetwork(datagram) => {
                    let len = datagram.len();
                    self.send(len, to, out);
                }
                _ => break,
            }
        }
    }

    fn authentic(&mut self, from: SocketAddr, bytes: usize) {
        self.liveness.heard();
        self.record.received(bytes);
        self.set_endpoint(from);
    }

    fn send(&mut self, len: usize, to: SocketAddr, out: &mut Batch) {
        out.commit(len, to);
        self.record.sent(len);
        self.sent_since_tick = true;
    }
}

/// The sender's session index in a handshake message.
fn session_index(message: &[u8]) -> u32 {
    u32::from_le_bytes([message[4], message[5], message[6], message[7]])
}

fn reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::InvalidCounter
        | WireGuardError::DuplicateCounter
        | WireGuardError::WrongTai64nTimestamp => DropReason::Replayed,
        WireGuardError::NoCurrentSession
        | WireGuardError::WrongIndex
        | WireGuardError::UnexpectedPacket => DropReason::UnknownSession,
        WireGuardError::InvalidPacket => DropReason::Malformed,
        WireGuardError::UnderLoad => DropReason::UnderLoad,
        _ => DropReason::NotAuthentic,
    }
}
