//! What a seed decides before anything happens.

use rand::{Rng as _, rngs::SmallRng, seq::IndexedRandom as _};
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A manager reaches no other manager, and no client either half of the time.
    Isolate,
    /// What a manager says is not heard by another, or by all.
    OneWay,
    /// The managers are in two groups.
    Split,
    /// What is said between a manager and others is held, and arrives at once afterwards.
    Hold,
    /// Links lose messages, and with them connections.
    Loss,
    /// A manager's links are slow.
    Latency,
    /// A manager's process ends, and begins again.
    Crash,
    /// A manager's power goes while it writes.
    PowerCut,
    /// All managers' power goes.
    Blackout,
    /// The leader's disk is slow, and then all managers' power goes.
    DarkLeader,
    /// The leader's disk stands still and no more than half of the managers know what it says; then all managers'
    /// power goes, and those come back last.
    LateWitness,
    /// A manager's disk is slow, up to hanging for seconds.
    SlowDisk,
    /// The leader gives the lead away.
    StepDown,
    /// A manager is taken in or let go.
    Members,
    /// Everything is sealed with a new key.
    RotateKey,
}

const KINDS: [Kind; 15] = [
    Kind::Isolate,
    Kind::OneWay,
    Kind::Split,
    Kind::Hold,
    Kind::Loss,
    Kind::Latency,
    Kind::Crash,
    Kind::PowerCut,
    Kind::Blackout,
    Kind::DarkLeader,
    Kind::LateWitness,
    Kind::SlowDisk,
    Kind::StepDown,
    Kind::Members,
    Kind::RotateKey,
];

pub(crate) struct Plan {
    /// Managers of the cluster to begin with.
    pub(crate) managers: usize,
    /// Hosts that could be managers.
    pub(crate) hosts: usize,
    pub(crate) clients: usize,
    /// Log entries between two snapshots, and kept behind one.
    pub(crate) snapshots: (u64, u64),
    /// Of a message.
    pub(crate) latency: (Duration, Duration),
    /// Of a write to the disk while nothing is wrong with it.
    pub(crate) disk: (Duration, Duration),
    /// What may happen.
    pub(crate) kinds: Vec<Kind>,
    pub(crate) faults: u64,
    /// Longest pause between two faults.
    pub(crate) pause: Duration,
    /// Longest time a fault lasts.
    pub(crate) lasts: Duration,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Plan {
    pub(crate) fn new(random: &mut SmallRng) -> Plan {
        let managers = *[3, 3, 5].choose(random).unwrap_or(&3);
        let mut kinds: Vec<Kind> = KINDS.into_iter().filter(|_| random.random_bool(0.5)).collect();
        if kinds.is_empty() {
            kinds.push(Kind::Crash);
        }
        Plan {
            managers,
            hosts: managers + random.random_range(0..=2),
            clients: random.random_range(2..=4),
            snapshots: (random.random_range(10..80), random.random_range(0..12)),
            latency: (ms(random.random_range(0..2)), ms(random.random_range(2..12))),
            disk: (ms(0), ms(random.random_range(0..6))),
            kinds,
            faults: random.random_range(8..24),
            pause: ms(random.random_range(100..1500)),
            lasts: ms(random.random_range(100..3500)),
        }
    }
}
