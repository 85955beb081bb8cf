//! The proof that the seeds can find something: each of these bugs is found within its budget.

use shoal_raft_tests::{Bug, run_until_found, simulate_here};

/// A bug, and within how many seeds, from 1 on, it must be found: a few times what it takes today.
const BUDGETS: &[(Bug, u64)] = &[
    (Bug::SkipQuorum, 10),
    (Bug::AckBeforeFsync, 10),
    (Bug::ApplyBeforeFsync, 30),
    (Bug::TellBeforeFsync, 30),
    (Bug::ForgetVote, 10),
    (Bug::LeadOn, 30),
    (Bug::LoseLast, 20),
    (Bug::AcceptTornTail, 80),
    (Bug::ForgetSnapshot, 10),
    (Bug::ReadStale, 60),
    (Bug::Reorder, 10),
];

#[test]
fn each_seeded_bug_is_found_within_its_budget() {
    assert_eq!(BUDGETS.len(), Bug::ALL.len(), "each has a budget");
    let mut missed = Vec::new();
    for (bug, budget) in BUDGETS {
        match run_until_found(*budget, *bug) {
            Some(found) => {
                println!("{bug:?}: seed {}: {}", found.seed, found.violation.unwrap_or_default());
            }
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
#[ignore = "one simulation, for which the others start this program once more"]
fn one_simulation() {
    simulate_here();
}
