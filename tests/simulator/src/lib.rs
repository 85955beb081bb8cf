//! Simulated clusters: the managers' real cores and the real state, with everything around them modelled
//! (log, disks, network, clocks, hosts, agents, containers, users), in one thread and simulated time.
//!
//! One number, the seed, decides all: the cluster's size, what its users ask for, what goes wrong and
//! when. The same seed does the same to the bit, which [`Outcome::trace`] tells. Each simulation has
//! three phases: faults, then calm, then judgement, in which the cluster must come to rest as it was
//! asked to be. The invariants of [`Violation`] are checked at every step on the way.
mod campaign;
mod client;
mod config;
mod dice;
mod event;
mod faults;
mod identity;
mod invariants;
mod log;
mod manager;
mod net;
mod node;
mod phases;
mod stats;
mod time;
mod trace;
mod workload;
mod world;

pub use campaign::{Campaign, simulate_many};
pub use invariants::Violation;
pub use stats::Stats;

use world::World;

/// What came of a seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Fingerprint of all that happened.
    pub trace: u64,
    /// What was wrong, if anything was.
    pub violation: Option<Violation>,
    /// What happened, in numbers.
    pub stats: Stats,
}

/// Simulates one seed; with `print` every event is written to the output.
pub fn simulate(seed: u64, print: bool) -> Outcome {
    let mut world = World::new(seed, print);
    let violation = world.run();
    Outcome { seed, trace: world.trace.hash(), violation, stats: world.stats.clone() }
}

/// A line about a seed that found something, and how to see it again.
pub fn report(outcome: &Outcome) -> String {
    let Outcome { seed, trace, violation, .. } = outcome;
    let (invariant, text) = match violation {
        Some(violation) => (violation.invariant, violation.text.as_str()),
        None => ("nothing", "all invariants hold"),
    };
    format!(
        "seed {seed} (trace {trace:016x}): {invariant}: {text}\n  see it again: cargo xtask simulate --seed {seed} --events"
    )
}

/// This bit makes a plain seed of a seed: its users ask for replicated services alone, and the rest of
/// the number decides as it did before there was anything else. So old findings keep their seeds.
pub const PLAIN: u64 = 1 << 63;

/// This bit makes an earlier seed of a seed: there are no certificates in it and no rebalancing, and the
/// rest of the number decides as it did before there were.
pub const EARLIER: u64 = 1 << 62;

/// This bit makes a former seed of a seed: there are no secrets and configs in it, services publish the same
/// for ever, roles do not change, and the rest of the number decides as it did before.
pub const FORMER: u64 = 1 << 61;

/// What of a seed is its number.
pub(crate) fn number_of(seed: u64) -> u64 {
    seed & !(PLAIN | EARLIER | FORMER)
}

/// Seeds that once found something, and are run ever since; `plain:` stands for [`PLAIN`], `earlier:`
/// for [`EARLIER`], `former:` for [`FORMER`].
pub fn saved_seeds() -> Vec<u64> {
    let lines = include_str!("../seeds.txt").lines();
    let numbers = lines.filter_map(|line| {
        let word = line.split_whitespace().next()?;
        let (mark, number) = match word.split_once(':') {
            Some(("plain", number)) => (PLAIN, number),
            Some(("earlier", number)) => (EARLIER, number),
            Some(("former", number)) => (FORMER, number),
            Some(_) => return None,
            None => (0, word),
        };
        number.parse().ok().map(|n: u64| n | mark)
    });
    numbers.collect()
}
