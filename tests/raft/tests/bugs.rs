//! The proof that the seeds can find something: each of these bugs is found within its budget.

use shoal_raft_tests::{Bug, run_until_found, simulate_here};

/// A bug, and within how many seeds, from 1 on, it must be found.
const BUDGETS: &[(Bug, u64)] = &[
    (Bug::SkipQuorum, 20),
    (Bug::AckBeforeFsync, 20),
    (Bug::ApplyBeforeFsync, 20),
    (Bug::TellBeforeFsync, 20),
    (Bug::ForgetVote, 20),
    (Bug::LeadOn, 20),
    (Bug::LoseLast, 20),
    (Bug::AcceptTornTail, 20),
    (Bug::ForgetSnapshot, 20),
    (Bug::ReadStale, 20),
    (Bug::Reorder, 20),
];

#[test]
fn each_seeded_bug_is_found_within_its_budget() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let budget = BUDGETS.iter().find(|(other, _)| other == bug).map_or(0, |(_, n)| *n);
        match run_until_found(budget, *bug) {
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
