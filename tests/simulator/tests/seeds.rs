//! Saved seeds, and new ones in every run.
use shoal_simulator::{Campaign, report, saved_seeds, simulate_many};

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

#[test]
fn saved_seeds_find_nothing_any_more() {
    let seeds = saved_seeds();
    assert!(!seeds.is_empty());
    let count = seeds.len() as u64;
    let campaign = simulate_many(seeds.into_iter(), THREADS, usize::MAX, |_| true);
    assert_eq!(campaign.stats.seeds, count);
    nothing_found(&campaign);
}

#[test]
fn other_seeds_find_nothing_and_every_kind_of_fault_happens() {
    let given = std::env::var("SHOAL_SEED").ok().and_then(|s| s.parse().ok());
    let first: u64 = given.unwrap_or(FIRST);
    println!("seeds from {first}; SHOAL_SEED takes others");
    let campaign = simulate_many(first..first + NEW, THREADS, 3, |_| true);
    nothing_found(&campaign);
    let absent: Vec<&str> =
        campaign.stats.rows().filter(|(_, count)| *count == 0).map(|(word, _)| word).collect();
    assert!(absent.is_empty(), "never happened in {NEW} seeds: {absent:?}");

    println!("{:.0} cluster-hours", campaign.stats.hours());
}
