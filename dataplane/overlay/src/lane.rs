//! A lane: one thread with a TUN queue, a UDP socket and a peer table of its own.
//!
//! The thread is owned by the engine. It ends when the engine drops its end of the update channel,
//! and closes the queue and the socket as it ends. Nothing here waits for another thread, and a
//! flow's packets are never reordered.

use crate::{
    batch::Batch,
    coalesce,
    drops::{DropReason, Drops},
    liveness::WATCH,
    peers::{Peers, Update},
    segment,
    tun::Queue,
    udp::{Inbox, Port},
    vnet::Vnet,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
};
use std::{
    ops::Range,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError},
    },
    time::{Duration, Instant},
};

/// How often WireGuard's timers are looked at.
const TICK: Duration = Duration::from_millis(250);
/// A pass stops reading from the TUN when it has this many bytes: about one full send, which also
/// stays in the processor's cache.
const ENOUGH_BYTES: usize = 55_000;
/// The same for packets.
const ENOUGH_PACKETS: usize = 64;
/// An IP packet cannot be longer.
const MAX_PACKET: usize = 65_536;

pub(crate) struct Lane {
    tun: Queue,
    port: Port,
    peers: Peers,
    drops: Arc<Drops>,
    updates: Receiver<Update>,
    /// Readable when there may be an update, or when the engine is gone.
    wake: Arc<OwnedFd>,
    mtu: usize,
    next_tick: Instant,
    /// When peers that owe a sign of life are looked at; none while nothing was sent.
    next_watch: Option<Instant>,
    silence_changed: Option<Arc<dyn Fn() + Send + Sync>>,
    /// False once somebody deleted the device.
    device_alive: bool,
    out: Batch,
    raw: Vec<u8>,
    raw_packets: Vec<Range<usize>>,
    scratch: Vec<u8>,
    inbox: Inbox,
    plain: Vec<u8>,
    plain_packets: Vec<Range<usize>>,
}

impl Lane {
    pub(crate) fn new(
        tun: Queue,
        port: Port,
        peers: Peers,
        drops: Arc<Drops>,
        mtu: usize,
        updates: Receiver<Update>,
        wake: Arc<OwnedFd>,
    ) -> Lane {
        let raw = vec![0; ENOUGH_BYTES + MAX_PACKET + tun.vnet_len()];
        Lane {
            tun,
            port,
            peers,
            drops,
            updates,
            wake,
            mtu,
            next_tick: Instant::now(),
            next_watch: None,
            silence_changed: None,
            device_alive: true,
            out: Batch::new(),
            raw,
            raw_packets: Vec::with_capacity(ENOUGH_PACKETS),
            scratch: vec![0; MAX_PACKET],
            inbox: Inbox::new(),
            plain: vec![0; Inbox::CAPACITY],
            plain_packets: vec![],
        }
    }

    /// Whom to tell after a peer became silent, or is so no more.
    pub(crate) fn telling(self, silence_changed: Option<Arc<dyn Fn() + Send + Sync>>) -> Lane {
        Lane { silence_changed, ..self }
    }

    /// Until the engine is gone. Polls only when both directions were idle: under load that saves a
    /// system call per pass, and alternating keeps one direction from starving the other.
    pub(crate) fn run(mut self) {
        loop {
            match self.updates.try_recv() {
                Ok(update) => self.peers.apply(update),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return,
            }
            let now = Instant::now();
            self.tick(now);
            let received = self.receive(now);
            self.watch(now);
            let sent = self.transmit();
            if sent && self.next_watch.is_none() {
                self.next_watch = Some(now + WATCH);
            }
            if !received && !sent {
                self.wait(now);
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            let Lane { peers, out, port, drops, .. } = self;
            peers.tick(out, now, |out| port.send(out, drops));
            port.send(out, drops);
        }
    }

    /// After what came before it was received: who answered in time is not blamed for our being late.
    fn watch(&mut self, now: Instant) {
        let Some(due) = self.next_watch.filter(|due| now >= *due) else { return };
        let Lane { peers, out, port, drops, .. } = self;
        let late = now - due > WATCH;
        let (owed, changed) = peers.watch(out, now, late, |out| port.send(out, drops));
        port.send(out, drops);
        self.next_watch = owed.then(|| now + WATCH);
        if changed && let Some(tell) = &self.silence_changed {
            tell();
        }
    }

    /// TUN → network, one batch. False when the TUN's queue was empty.
    fn transmit(&mut self) -> bool {
        self.gather();
        let Lane { raw, raw_packets, scratch, out, peers, port, drops, .. } = self;
        let any = !raw_packets.is_empty();
        for at in raw_packets.drain(..) {
            let (header, packet) = raw[at].split_at_mut(self.tun.vnet_len());
            let result = match Vnet::parse(header) {
                None => Err(DropReason::Malformed),
                Some(vnet) => peers.route(packet).and_then(|session| {
                    let seal = |segment: &[u8]| session.seal(segment, out, drops);
                    segment::split(&vnet, packet, self.mtu, scratch, seal)
                        .map_err(|segment::Malformed| DropReason::Malformed)
                }),
            };
            if let Err(reason) = result {
                drops.count(reason, 1);
            }
            if out.is_full() {
                port.send(out, drops);
            }
        }
        port.send(out, drops);
        any
    }

    fn gather(&mut self) {
        let mut used = 0;
        while used < ENOUGH_BYTES && self.raw_packets.len() < ENOUGH_PACKETS {
            let Some(len) = self.tun.read(&mut self.raw[used..]) else { return };
            if len > self.tun.vnet_len() {
                self.raw_packets.push(used..used + len);
                used += len;
            }
        }
    }

    /// Network → TUN, one batch. False when there was nothing to receive.
    fn receive(&mut self, now: Instant) -> bool {
        if !self.port.receive(&mut self.inbox) {
            return false;
        }
        let Lane { inbox, plain, plain_packets, peers, out, port, drops, tun, .. } = self;
        let mut used = 0;
        for (from, datagram) in inbox.datagrams() {
            let room = &mut plain[used..used + datagram.len()];
            if let Some(len) = peers.open(from, datagram, room, out, now) {
                plain_packets.push(used..used + len);
                used += len;
            }
            if out.is_full() {
                port.send(out, drops);
            }
        }
        port.send(out, drops);
        coalesce::merge(plain, plain_packets, tun.vnet_len(), tun.udp_offload(), |pieces| {
            if let Err(error) = tun.write(pieces) {
                tracing::trace!(%error, "the device refused a packet");
                drops.count(DropReason::DeviceRefused, 1);
            }
        });
        plain_packets.clear();
        true
    }

    /// For a packet, an update, or the next tick.
    fn wait(&mut self, now: Instant) {
        let next = self.next_watch.map_or(self.next_tick, |watch| watch.min(self.next_tick));
        let wait = next.saturating_duration_since(now);
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.min(TICK).subsec_nanos().into() };
        let mut fds =
            vec![PollFd::new(&*self.wake, PollFlags::IN), PollFd::new(&self.port, PollFlags::IN)];
        if self.device_alive {
            fds.push(PollFd::new(&self.tun, PollFlags::IN));
        }
        // An error (a signal) is as good as a time-out.
        let _ = poll(&mut fds, Some(&timeout));
        let has = |i: usize, flags| fds.get(i).is_some_and(|fd| fd.revents().intersects(flags));
        let woken = has(0, PollFlags::IN);
        let device_gone = has(2, PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
        if woken {
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        }
        if device_gone {
            tracing::error!("the overlay device was deleted: no packets until a restart");
            self.device_alive = false;
        }
    }
}
