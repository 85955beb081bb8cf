//! Saved seeds, and new ones in every run.
use shoal_simulator::{Campaign, report, saved_seeds, simulate_many};
use std::collections::BTreeSet;

/// Seeds beyond the saved ones.
const NEW: u64 = 200;
/// The first of them, unless `SHOAL_SEED` says another, as `cargo xtask test` does for each commit.
const FIRST: u64 = 1_795_751_500_000;
/// Simulations at a time.
const THREADS: usize = 2;

fn nothing_found(campaign: &Campaign) {
    let reports: Vec<String> = campaign.failures.iter().map(report).collect();
    assert!(reports.is_empty(), "{}", reports.join("\n"));
}

fn absent(campaign: &Campaign) -> BTreeSet<&'static str> {
    campaign.stats.rows().filter(|(_, count)| *count == 0).map(|(word, _)| word).collect()
}

/// One test for both: some things happen in one seed of hundreds, and have a saved one.
#[test]
fn saved_and_other_seeds_find_nothing_and_everything_happens_in_them() {
    let seeds = saved_seeds();
    assert!(!seeds.is_empty());
    let count = seeds.len() as u64;
    let saved = simulate_many(seeds.into_iter(), THREADS, usize::MAX, |_| true);
    assert_eq!(saved.stats.seeds, count);
    nothing_found(&saved);

    let given = std::env::var("SHOAL_SEED").ok().and_then(|s| s.parse().ok());
    let first: u64 = given.unwrap_or(FIRST);
    println!("seeds from {first}; SHOAL_SEED takes others");
    let other = simulate_many(first..first + NEW, THREADS, 3, |_| true);
    nothing_found(&other);
    println!("{:.0} cluster-hours", saved.stats.hours() + other.stats.hours());
    let (absent, of_saved) = (absent(&other), absent(&saved));
    let never: Vec<_> = absent.intersection(&of_saved).collect();
    assert!(never.is_empty(), "never happened in {} seeds: {never:?}", NEW + count);
}
