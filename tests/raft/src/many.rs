//! Many seeds, a few at a time.

use crate::run::{Outcome, run};
use shoal_store::bugs::Bug;
use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// Simulations at a time.
const THREADS: usize = 2;

/// Runs all seeds, and returns what they came to in their order.
pub fn run_many(seeds: Range<u64>, bug: Option<Bug>) -> Vec<Outcome> {
    many(seeds, bug, |_| false)
}

/// The first of the seeds from 1 on that finds the bug.
pub fn run_until_found(budget: u64, bug: Bug) -> Option<Outcome> {
    let found = |outcome: &Outcome| outcome.violation.is_some();
    many(1..budget + 1, Some(bug), found).into_iter().find(found)
}

/// Until one is what is looked for; those before it are run in any case.
fn many(
    seeds: Range<u64>,
    bug: Option<Bug>,
    enough: impl Fn(&Outcome) -> bool + Sync,
) -> Vec<Outcome> {
    let (next, end) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = run(seed, bug, false);
                    if enough(&outcome) {
                        end.fetch_min(seed, Ordering::Relaxed);
                    }
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|outcome: &Outcome| outcome.seed);
    outcomes
}
