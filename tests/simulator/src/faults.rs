//! What goes wrong, and how it is made right again.
use crate::{
    dice::Dice,
    event::Event,
    time::{MINUTE, MS, Ns, SEC},
    world::World,
};
use shoal_model::TaskState;
use std::collections::BTreeMap;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $word:literal,)*) => {
        /// Kinds of faults.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            pub(crate) const ALL: &[Kind] = &[$(Kind::$name,)*];

            pub(crate) fn word(self) -> &'static str {
                match self { $(Kind::$name => $word,)* }
            }
        }
    };
}

kinds! {
    /// A host is cut off from all others.
    Isolate "fault: host isolated",
    /// One way between two hosts is shut, the other stays open.
    OneWay "fault: one way shut",
    /// Two groups of hosts cannot reach each other.
    Split "fault: network split",
    /// A manager is cut off from the other managers alone: a leader goes on, and does not know.
    ManagerApart "fault: manager cut off from managers",
    /// Every link loses, delays and doubles a lot.
    BadNetwork "fault: bad network",
    /// The daemon dies; the host and its containers go on.
    DaemonCrash "fault: daemon crashed",
    /// The host loses its power, with what was not flushed.
    PowerLoss "fault: power lost",
    /// All hosts lose their power at once.
    Blackout "fault: all power lost",
    /// Power lost, and the files of images, containers and assignment with it.
    FilesLost "fault: files lost",
    /// A worker's disk is lost: it joins anew, as another node.
    DiskLost "fault: disk lost",
    /// Nothing happens on a host for a while.
    Pause "fault: host paused",
    /// A clock is set.
    ClockSet "fault: clock set",
    SlowDisk "fault: slow disk",
    SlowApply "fault: slow apply",
    SlowPlane "fault: slow data plane",
    /// A manager's heartbeats are lost until it stands for election.
    LostHeartbeats "fault: heartbeats lost",
    /// A container is out of memory.
    OutOfMemory "fault: out of memory",
    /// A node reports a task that is another's, and is sent an assignment that was overtaken.
    Stray "fault: stray report, old assignment",
}

/// How a fault is made right; the number finds it in [`Faults`].
#[derive(Clone, Copy)]
pub(crate) struct Undo(u64);

impl Undo {
    pub(crate) fn digest(self) -> u64 {
        self.0
    }
}

pub(crate) struct Faults {
    dice: Dice,
    present: BTreeMap<u64, Remedy>,
    last: u64,
}

enum Remedy {
    Mend(Vec<(usize, usize)>),
    GoodNetwork,
    Start { host: usize, boot: u32, anew: bool },
    Resume(usize),
    FastDisk(usize),
    FastApply(usize),
    FastPlane(usize),
}

impl Faults {
    pub(crate) fn new(dice: Dice) -> Faults {
        Faults { dice, present: BTreeMap::new(), last: 0 }
    }
}

impl World {
    /// The next fault, until it is calm.
    pub(crate) fn fault(&mut self) {
        if self.calm.is_some() {
            return;
        }
        let gap = self.config.fault_gap;
        let next = self.faults.dice.between(gap / 10, gap * 19 / 10);
        self.after(next, Event::Fault);
        let kind = Kind::ALL[self.faults.dice.weighted(&self.config.fault_weights)];
        let host = self.faults.dice.index(self.config.hosts);
        let m = self.faults.dice.index(self.config.managers);
        let longest = (gap * 4).clamp(20 * SEC, 10 * MINUTE);
        let lasts = self.faults.dice.spread(200 * MS, longest);
        self.stats.fault(kind);
        self.note("fault", kind as u64, host as u64);
        self.trace.say(self.now, || format!("{} (host {host}, manager {m})", kind.word()));
        let remedy = match kind {
            Kind::Isolate => self.isolate(host),
            Kind::OneWay => self.shut_one_way(host),
            Kind::Split => self.split(),
            Kind::ManagerApart => {
                let others = (0..self.config.managers).filter(|other| *other != m);
                let ways = others.flat_map(|other| [(m, other), (other, m)]).collect();
                self.shut(ways)
            }
            Kind::BadNetwork => {
                self.net.bad += 1;
                Some(Remedy::GoodNetwork)
            }
            Kind::DaemonCrash => self.crash(host, false),
            Kind::PowerLoss if host < self.config.managers && self.faults.dice.chance(500) => {
                // In the middle of its next write.
                self.hosts[host].trapped = Some(lasts);
                return;
            }
            Kind::PowerLoss => self.crash(host, true),
            Kind::Blackout => return self.blackout(),
            Kind::FilesLost => {
                let remedy = self.crash(host, true);
                if remedy.is_some() {
                    self.agents[host].lose_files();
                }
                remedy
            }
            Kind::DiskLost => self.lose_disk(host),
            Kind::Pause => self.pause(host, lasts),
            Kind::ClockSet => return self.set_clock(host),
            Kind::SlowDisk => {
                self.peers[m].disk.slow += 1;
                Some(Remedy::FastDisk(m))
            }
            Kind::SlowApply => {
                self.peers[m].slow += 1;
                Some(Remedy::FastApply(m))
            }
            Kind::SlowPlane => {
                self.agents[host].slow += 1;
                Some(Remedy::FastPlane(host))
            }
            Kind::LostHeartbeats => {
                if self.hosts[m].up && !self.peers[m].is_leader() {
                    self.campaign(m);
                }
                return;
            }
            Kind::OutOfMemory => return self.out_of_memory(host),
            Kind::Stray => {
                self.report_stray(host);
                return self.repeat_overtaken(host);
            }
        };
        if let Some(remedy) = remedy {
            self.undo_after(lasts, remedy);
        }
    }

    /// The power fails while a manager writes.
    pub(crate) fn spring_trap(&mut self, host: usize) {
        let Some(lasts) = self.hosts[host].trapped.take().filter(|_| self.calm.is_none()) else {
            return;
        };
        if let Some(remedy) = self.crash(host, true) {
            self.undo_after(lasts, remedy);
        }
    }

    fn report_stray(&mut self, host: usize) {
        let own = self.agents[host].node_id.clone();
        let tasks = self.checks.state().tasks.values();
        let of_others = tasks.filter(|t| t.is_assigned() && t.node_id.as_ref() != Some(&own));
        let ids: Vec<String> = of_others.map(|t| t.id.clone()).collect();
        if let Some(id) = self.faults.dice.pick(&ids) {
            self.report_anything(host, id, TaskState::Failed);
        }
    }

    fn undo_after(&mut self, lasts: Ns, remedy: Remedy) {
        self.faults.last += 1;
        let id = self.faults.last;
        self.faults.present.insert(id, remedy);
        self.after(lasts, Event::Undo(Undo(id)));
    }

    pub(crate) fn undo(&mut self, undo: Undo) {
        if let Some(remedy) = self.faults.present.remove(&undo.0) {
            self.remedy(remedy);
        }
    }

    fn remedy(&mut self, remedy: Remedy) {
        match remedy {
            Remedy::Mend(ways) => {
                ways.into_iter().for_each(|(from, to)| self.net.mend(from, to));
                self.ways_changed();
            }
            Remedy::GoodNetwork => self.net.bad -= 1,
            Remedy::Start { host, boot, anew } => {
                if !self.hosts[host].up && self.hosts[host].boot == boot {
                    self.start(host, anew);
                }
            }
            Remedy::Resume(host) => {
                self.excuse(host);
                self.ways_changed();
            }
            Remedy::FastDisk(m) => {
                let slow = &mut self.peers[m].disk.slow;
                *slow = slow.saturating_sub(1);
            }
            Remedy::FastApply(m) => self.peers[m].slow = self.peers[m].slow.saturating_sub(1),
            Remedy::FastPlane(host) => {
                self.agents[host].slow = self.agents[host].slow.saturating_sub(1);
            }
        }
    }

    /// All that is wrong is made right.
    pub(crate) fn end_faults(&mut self) {
        for remedy in std::mem::take(&mut self.faults.present).into_values() {
            if let Remedy::Resume(host) = remedy {
                self.resume(host);
            }
            self.remedy(remedy);
        }
        self.ways_changed();
    }

    /// A pause ends early. What waited for its end comes before what comes from now on.
    fn resume(&mut self, host: usize) {
        let until = self.hosts[host].paused_until;
        if until <= self.now {
            return;
        }
        self.hosts[host].paused_until = self.now;
        let mut heap = std::mem::take(&mut self.heap);
        heap.bring_forward(until, self.now, |event| self.place(event) == Some(host));
        self.heap = heap;
    }

    fn places(&self) -> usize {
        self.config.hosts + self.config.clients
    }

    fn shut(&mut self, ways: Vec<(usize, usize)>) -> Option<Remedy> {
        ways.iter().for_each(|(from, to)| self.net.cut(*from, *to));
        self.ways_changed();
        Some(Remedy::Mend(ways))
    }

    fn isolate(&mut self, host: usize) -> Option<Remedy> {
        let others = (0..self.places()).filter(|other| *other != host);
        let ways = others.flat_map(|other| [(host, other), (other, host)]).collect();
        self.shut(ways)
    }

    fn shut_one_way(&mut self, host: usize) -> Option<Remedy> {
        let outwards = self.faults.dice.chance(500);
        let way = |other: usize| if outwards { (host, other) } else { (other, host) };
        let others: Vec<usize> = (0..self.places()).filter(|other| *other != host).collect();
        let ways = match self.faults.dice.chance(500) {
            true => others.into_iter().map(way).collect(),
            false => self.faults.dice.pick(&others).map(|other| way(*other)).into_iter().collect(),
        };
        self.shut(ways)
    }

    fn split(&mut self) -> Option<Remedy> {
        let places = self.places();
        let left: Vec<bool> = (0..places).map(|_| self.faults.dice.chance(500)).collect();
        let pairs = (0..places).flat_map(|a| (0..places).map(move |b| (a, b)));
        let ways = pairs.filter(|(a, b)| left[*a] != left[*b]).collect();
        self.shut(ways)
    }

    /// The daemon is gone, with `power` the host's power, too.
    fn crash(&mut self, host: usize, power: bool) -> Option<Remedy> {
        let state = &mut self.hosts[host];
        if !state.up {
            return None;
        }
        (state.up, state.power) = (false, !power);
        state.boot += 1;
        state.down_since = self.now;
        let boot = state.boot;
        if host < self.config.managers {
            self.stop_peer(host, power);
        }
        if !power {
            // The kernel says good-bye for it.
            self.close_connections(host);
        }
        self.agents[host].stop(power);
        self.ways_changed();
        Some(Remedy::Start { host, boot, anew: false })
    }

    fn blackout(&mut self) {
        for host in 0..self.config.hosts {
            if let Some(remedy) = self.crash(host, true) {
                let lasts = self.faults.dice.spread(SEC, 30 * SEC);
                self.undo_after(lasts, remedy);
            }
        }
    }

    fn lose_disk(&mut self, host: usize) -> Option<Remedy> {
        if host < self.config.managers {
            return None;
        }
        match self.crash(host, true) {
            Some(Remedy::Start { host, boot, .. }) => {
                Some(Remedy::Start { host, boot, anew: true })
            }
            other => other,
        }
    }

    fn start(&mut self, host: usize, anew: bool) {
        let state = &mut self.hosts[host];
        (state.up, state.power) = (true, true);
        let since = state.down_since;
        self.check_noticed(host, since);
        if host < self.config.managers {
            self.start_peer(host);
        }
        if anew {
            self.join_anew(host);
        }
        self.start_agent(host);
        self.ways_changed();
    }

    /// The daemon leaves the cluster it was removed from, and joins it again.
    pub(crate) fn rejoin(&mut self, host: usize) {
        if let Some(Remedy::Start { host, .. }) = self.crash(host, true) {
            self.start(host, true);
        }
    }

    /// The host becomes another node.
    pub(crate) fn join_anew(&mut self, host: usize) {
        let serial = self.next_serial();
        self.agents[host].join_anew(format!("node-{host}-{serial}"));
        self.forget_identity(host);
        self.checks.another_node(host);
    }

    /// A node that was gone for long must have been noticed by who led all the while.
    fn check_noticed(&mut self, host: usize, since: Ns) {
        let leader = (0..self.config.managers).find(|m| {
            *m != host
                && self.hosts[*m].paused_until <= self.now
                && self.serves_since(*m).is_some_and(|s| s + 30 * SEC < self.now)
        });
        let Some(m) = leader.filter(|_| since + 30 * SEC < self.now) else { return };
        let peer = &self.peers[m];
        // One that cannot write knows, and cannot say so.
        let writes = peer.applied == peer.log.last() && peer.commit == peer.applied;
        if writes {
            let node = self.agents[host].node_id.clone();
            self.checks.must_be_down(&peer.state, &node);
        }
    }

    fn pause(&mut self, host: usize, lasts: Ns) -> Option<Remedy> {
        if self.hosts[host].paused_until > self.now {
            return None;
        }
        self.hosts[host].paused_until = self.now + lasts;
        self.ways_changed();
        Some(Remedy::Resume(host))
    }

    fn set_clock(&mut self, host: usize) {
        let skew = self.config.skew;
        self.hosts[host].skew = self.faults.dice.between(0, skew * 2) as i64 - skew as i64;
        self.reconciler_sees_clock(host);
        self.arm(host);
    }

    fn out_of_memory(&mut self, host: usize) {
        let containers: Vec<u64> = self.agents[host].containers.values().map(|c| c.id).collect();
        if let Some(id) = self.faults.dice.pick(&containers).copied() {
            self.container_exits(host, id, 137);
        }
    }
}
