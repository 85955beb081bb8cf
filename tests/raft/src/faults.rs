//! What goes wrong, and how it ends.

use crate::{plan::Kind, run::Run, shared::manager_name, wire::Order};
use rand::{
    Rng as _,
    seq::{IndexedRandom as _, SliceRandom as _},
};
use std::time::Duration;

/// A rate at which a message breaks its link, and one at which one mends it.
const BREAKS: f64 = 0.03;
const MENDS: f64 = 0.2;

/// Writes and flushes until the power goes in the middle of them.
const OPERATIONS: u32 = 40;

/// The slowest disk needs so long for a write. A leader's may hang for 5 s until it must fall silent.
const SLOWEST: Duration = Duration::from_secs(7);

/// A disk that stands still, and how long it does: shorter than the leader may bear, long enough for clients to be
/// answered what should not be.
const STANDSTILL: Duration = Duration::from_secs(60);
const WITNESSED: Duration = Duration::from_millis(800);

/// An election, and some writes after it.
const ELECTED: Duration = Duration::from_secs(3);

/// Two hosts, by their number.
type Pair = (usize, usize);

/// How a fault ends.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Repair(Vec<Pair>),
    RepairOneWay(Vec<Pair>),
    Release(Vec<Pair>),
    Lossless,
    Fast(Vec<Pair>),
    FastDisk(usize),
    /// The power goes, and the disk will be fast. Some come back last.
    Dark {
        slow: usize,
        last: Vec<usize>,
    },
    Start(usize),
}

impl Run<'_> {
    /// One fault, of a kind that may happen and is possible now.
    pub(crate) fn fault(&mut self) {
        let Some(kind) = self.plan.kinds.choose(&mut self.random).copied() else { return };
        let lasts = Duration::from_millis(
            self.random.random_range(20..=self.plan.lasts.as_millis() as u64),
        );
        let victim = self.victim();
        match kind {
            Kind::Isolate => {
                let with_clients = self.random.random_bool(0.5);
                let others = if with_clients { self.names.len() } else { self.plan.hosts };
                let pairs = self.free((0..others).map(|other| (victim, other)).collect());
                self.each(&pairs, |sim, a, b| sim.partition(a, b));
                self.note(kind, format!("m{victim}, {} links", pairs.len()));
                self.ends(lasts, End::Repair(pairs));
            }
            Kind::OneWay => {
                let all = self.random.random_bool(0.4);
                let one = self.random.random_range(0..self.plan.hosts);
                let others = if all { 0..self.plan.hosts } else { one..one + 1 };
                let turn = self.random.random_bool(0.5);
                let pairs = self.free(others.map(|other| (victim, other)).collect());
                let turned = |(a, b)| if turn { (b, a) } else { (a, b) };
                let pairs: Vec<Pair> = pairs.into_iter().map(turned).collect();
                self.each(&pairs, |sim, a, b| sim.partition_oneway(a, b));
                self.note(kind, format!("{pairs:?}"));
                self.ends(lasts, End::RepairOneWay(pairs));
            }
            Kind::Split => {
                let mut hosts: Vec<usize> = (0..self.names.len()).collect();
                hosts.shuffle(&mut self.random);
                let (one, other) = hosts.split_at(self.random.random_range(1..hosts.len()));
                let pairs = one.iter().flat_map(|a| other.iter().map(|b| (*a, *b))).collect();
                let pairs = self.free(pairs);
                self.each(&pairs, |sim, a, b| sim.partition(a, b));
                self.note(kind, format!("{one:?} | {other:?}"));
                self.ends(lasts, End::Repair(pairs));
            }
            Kind::Hold => {
                let all = self.random.random_bool(0.5);
                let one = self.random.random_range(0..self.plan.hosts);
                let others = if all { 0..self.names.len() } else { one..one + 1 };
                let pairs = self.free(others.map(|other| (victim, other)).collect());
                self.each(&pairs, |sim, a, b| sim.hold(a, b));
                self.note(kind, format!("m{victim}, {} links", pairs.len()));
                self.ends(lasts, End::Release(pairs));
            }
            Kind::Loss => {
                let breaks = BREAKS * self.random.random::<f64>();
                self.sim.set_fail_rate(breaks);
                self.note(kind, format!("{breaks:.4}"));
                self.ends(lasts, End::Lossless);
            }
            Kind::Latency => {
                let most = Duration::from_millis(self.random.random_range(20..400));
                let others = (0..self.plan.hosts).filter(|other| *other != victim);
                let pairs: Vec<Pair> = others.map(|other| (victim, other)).collect();
                self.each(&pairs, |sim, a, b| sim.set_link_max_message_latency(a, b, most));
                self.note(kind, format!("m{victim}, {most:?}"));
                self.ends(lasts, End::Fast(pairs));
            }
            Kind::Crash => {
                self.note(kind, format!("m{victim}"));
                self.crash(victim);
                self.ends(lasts, End::Start(victim));
            }
            Kind::PowerCut => {
                let operations = self.random.random_range(0..OPERATIONS);
                self.note(kind, format!("m{victim} after {operations} operations"));
                // Its process is ended when the power is found to be gone.
                self.shared.disks[victim].fail_after(operations);
            }
            Kind::Blackout => {
                self.note(kind, String::new());
                self.blackout(&[]);
            }
            Kind::DarkLeader => {
                let leader = self.leader().unwrap_or(victim);
                self.note(kind, format!("m{leader}"));
                self.shared.disks[leader].set_speed(lasts / 4, lasts);
                let after = lasts.mul_f64(self.random.random());
                self.ends(after, End::Dark { slow: leader, last: Vec::new() });
            }
            Kind::LateWitness => {
                let leader = self.leader().unwrap_or(victim);
                let mut others: Vec<usize> =
                    self.members.iter().copied().filter(|other| *other != leader).collect();
                others.shuffle(&mut self.random);
                // With the leader they are more than half.
                let deaf = others.split_off(self.members.len() / 2);
                let pairs = self.free(deaf.into_iter().map(|other| (leader, other)).collect());
                self.each(&pairs, |sim, a, b| sim.partition(a, b));
                self.note(kind, format!("m{leader} and {others:?}"));
                self.shared.disks[leader].set_speed(STANDSTILL, STANDSTILL);
                self.ends(WITNESSED, End::Dark { slow: leader, last: others });
                self.ends(WITNESSED, End::Repair(pairs));
            }
            Kind::SlowDisk => {
                let most = SLOWEST.mul_f64(self.random.random::<f64>().powi(4));
                let least = most.mul_f64(self.random.random());
                self.note(kind, format!("m{victim} {least:?} to {most:?}"));
                self.shared.disks[victim].set_speed(least, most);
                self.ends(lasts, End::FastDisk(victim));
            }
            Kind::StepDown => self.order(Order::StepDown),
            Kind::RotateKey => self.order(Order::RotateKey),
            Kind::Members => {
                let host = self.random.random_range(0..self.plan.hosts);
                let member = self.members.contains(&host);
                if member && self.members.len() > 2 {
                    self.members.remove(&host);
                    self.order(Order::Remove(manager_name(host)));
                } else if !member && !self.gone.contains(&host) {
                    self.members.insert(host);
                    self.order(Order::Add(manager_name(host)));
                }
            }
        }
    }

    /// All managers' power goes. It comes back at once, or for each at its own time; for some after the others have
    /// had time to elect.
    fn blackout(&mut self, last: &[usize]) {
        let lasts = self.plan.lasts.mul_f64(self.random.random());
        let apart = self.random.random_bool(0.5);
        for victim in 0..self.plan.hosts {
            self.crash(victim);
            let part: f64 = if apart { self.random.random() } else { 1.0 };
            let late = if last.contains(&victim) { ELECTED } else { Duration::ZERO };
            let each = lasts.mul_f64(part) + late;
            self.ends(each, End::Start(victim));
        }
    }

    fn note(&mut self, kind: Kind, what: String) {
        self.shared.history.borrow_mut().figures.faults += 1;
        self.shared.note(format!("{kind:?} {what}"));
    }

    fn order(&mut self, order: Order) {
        self.shared.history.borrow_mut().figures.faults += 1;
        self.shared.note(format!("{order:?} is wanted"));
        self.shared.orders.borrow_mut().push_back(order);
    }

    /// Whoever leads, half of the time.
    fn victim(&mut self) -> usize {
        let leader = self.leader();
        let any = self.random.random_range(0..self.plan.hosts);
        leader.filter(|_| self.random.random_bool(0.5)).unwrap_or(any)
    }

    /// Those of the pairs that no other fault has; this one has them now. Held and broken links do not go
    /// together in turmoil.
    fn free(&mut self, pairs: Vec<Pair>) -> Vec<Pair> {
        let link = |(a, b): &Pair| ((*a).min(*b), (*a).max(*b));
        let mut free = Vec::new();
        for pair in pairs {
            if pair.0 != pair.1 && self.links.insert(link(&pair)) {
                free.push(pair);
            }
        }
        free
    }

    pub(crate) fn each(&mut self, pairs: &[Pair], what: impl Fn(&turmoil::Sim<'_>, &str, &str)) {
        for (a, b) in pairs {
            what(&self.sim, self.names[*a].as_str(), self.names[*b].as_str());
        }
    }

    /// Ends a fault.
    pub(crate) fn end(&mut self, end: End) {
        self.shared.note(format!("{end:?}"));
        match &end {
            End::Repair(pairs) => self.each(pairs, |sim, a, b| sim.repair(a, b)),
            End::RepairOneWay(pairs) => self.each(pairs, |sim, a, b| sim.repair_oneway(a, b)),
            End::Release(pairs) => self.each(pairs, |sim, a, b| sim.release(a, b)),
            End::Lossless => self.lossless(),
            End::Fast(pairs) => {
                let most = self.plan.latency.1;
                self.each(pairs, |sim, a, b| sim.set_link_max_message_latency(a, b, most));
            }
            End::FastDisk(host) => {
                self.shared.disks[*host].set_speed(self.plan.disk.0, self.plan.disk.1);
            }
            End::Dark { slow, last } => {
                self.shared.disks[*slow].set_speed(self.plan.disk.0, self.plan.disk.1);
                self.blackout(last);
            }
            End::Start(host) => self.start(*host),
        }
        if let End::Repair(pairs) | End::RepairOneWay(pairs) | End::Release(pairs) = end {
            for (a, b) in pairs {
                self.links.remove(&(a.min(b), a.max(b)));
            }
        }
    }

    /// No link loses anything any more; those that are broken by chance are mended.
    fn lossless(&mut self) {
        self.sim.set_fail_rate(0.0);
        for a in 0..self.names.len() {
            for b in a + 1..self.names.len() {
                if !self.links.contains(&(a, b)) {
                    self.sim.repair(self.names[a].as_str(), self.names[b].as_str());
                }
            }
        }
    }
}

/// How often a message mends a link that chance has broken.
pub(crate) const fn mends() -> f64 {
    MENDS
}
