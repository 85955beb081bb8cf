//! Many seeds, on as many threads as are asked for: each simulation has one to itself.
use crate::{Outcome, Stats, simulate};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Campaign {
    /// Sums over all of them.
    pub stats: Stats,
    /// Those that found something, in the order of the seeds.
    pub failures: Vec<Outcome>,
}

/// Simulates seeds until `more` says that there are enough (it is asked with the sums so far), or
/// `stop_at` of them have found something.
pub fn simulate_many(
    seeds: impl Iterator<Item = u64> + Send,
    threads: usize,
    stop_at: usize,
    more: impl Fn(&Stats) -> bool + Sync,
) -> Campaign {
    let seeds = Mutex::new(seeds);
    let campaign = Mutex::new(Campaign::default());
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let next = seeds.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(seed) = next else { return };
                    let outcome = simulate(seed, false);
                    let mut all = campaign.lock().unwrap_or_else(PoisonError::into_inner);
                    all.stats.merge(&outcome.stats);
                    if outcome.violation.is_some() {
                        all.failures.push(outcome);
                    }
                    let done = all.failures.len() >= stop_at || !more(&all.stats);
                    enough.fetch_or(done, Ordering::Relaxed);
                }
            });
        }
    });
    let mut campaign = campaign.into_inner().unwrap_or_else(PoisonError::into_inner);
    campaign.failures.sort_by_key(|outcome| outcome.seed);
    campaign
}
