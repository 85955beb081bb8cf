//! The simulator's proof: each of these bugs is found, by an invariant that is about its like, within
//! its budget; and without them the same seeds find nothing.
use shoal_model::bugs::{Bug, with};
use shoal_simulator::{Outcome, report, simulate, simulate_many};
use std::{
    sync::{Mutex, PoisonError},
    thread,
};

/// Simulations at a time.
const THREADS: usize = 2;

/// A bug, the invariants that may find it first, and within how many seeds, from 1 on.
struct Proof(Bug, &'static [&'static str], u64);

const PROOFS: &[Proof] = &[
    Proof(Bug::SkipQuorum, &["agreement", "acknowledged"], 60),
    Proof(Bug::AckBeforeFsync, &["agreement", "convergence"], 60),
    Proof(Bug::ForgetVote, &["agreement"], 60),
    Proof(Bug::ElectStaleLog, &["agreement"], 60),
    Proof(Bug::ObeyStaleLeader, &["agreement"], 250),
    Proof(Bug::ApplyOutOfOrder, &["agreement"], 60),
    Proof(Bug::AcceptTornTail, &["agreement"], 60),
    Proof(Bug::AckBeforeCommit, &["acknowledged"], 60),
    Proof(Bug::InstallOldSnapshot, &["agreement"], 60),
    Proof(Bug::IgnoreVersion, &["versions"], 60),
    Proof(Bug::RemoveUsed, &["versions", "secrets"], 60),
    Proof(Bug::ReuseAddress, &["addresses"], 60),
    Proof(Bug::SharePort, &["ports"], 60),
    Proof(Bug::KeepPort, &["ports"], 60),
    Proof(Bug::ForgetMaxReplicas, &["capacity"], 60),
    Proof(Bug::FreeReservationsEarly, &["capacity"], 60),
    Proof(Bug::SkipConstraints, &["capacity"], 60),
    Proof(Bug::LeaveUnsuited, &["enforced"], 60),
    Proof(Bug::IgnoreDrain, &["capacity"], 60),
    Proof(Bug::StartBeforeStop, &["replacement"], 60),
    Proof(Bug::ExceedParallelism, &["updates"], 60),
    Proof(Bug::StopFirstAlways, &["updates", "rebalance"], 60),
    Proof(Bug::RestartAtOnce, &["restarts"], 60),
    Proof(Bug::LoseTask, &["slots"], 60),
    Proof(Bug::DoubleSlot, &["slots"], 60),
    Proof(Bug::KeepOnDrained, &["global"], 60),
    Proof(Bug::SkipNode, &["global"], 60),
    Proof(Bug::ExceedConcurrent, &["jobs"], 60),
    Proof(Bug::RunAgain, &["jobs"], 60),
    Proof(Bug::IgnoreFailures, &["failures"], 60),
    Proof(Bug::RollBackTwice, &["failures"], 60),
    Proof(Bug::ShareHostPort, &["host_ports"], 60),
    Proof(Bug::OvercommitGeneric, &["generic"], 60),
    Proof(Bug::KeepHistory, &["history"], 60),
    Proof(Bug::KeepBackend, &["backends"], 60),
    Proof(Bug::StateGoesBack, &["transitions"], 60),
    Proof(Bug::ForeignReport, &["transitions"], 60),
    Proof(Bug::TellAllNetworks, &["needed"], 60),
    Proof(Bug::TellAllPeers, &["needed"], 60),
    Proof(Bug::TakeSharedPeer, &["tables"], 60),
    Proof(Bug::OverlookWhileReading, &["tables", "backends", "convergence"], 250),
    Proof(Bug::LookAtTheFirst, &["overlooked"], 60),
    Proof(Bug::TellAllSecrets, &["secrets"], 60),
    Proof(Bug::KeepSecret, &["secrets"], 60),
    Proof(Bug::TakeSharedSecret, &["secrets", "held"], 60),
    Proof(Bug::KeepBackSecrets, &["secrets"], 60),
    Proof(Bug::MoveForNothing, &["rebalance"], 60),
    Proof(Bug::EndRotationEarly, &["certificates"], 60),
    Proof(Bug::ForgetRefused, &["overlooked"], 250),
    Proof(Bug::OverlookNode, &["overlooked"], 60),
    Proof(Bug::DeafToSilence, &["liveness", "convergence"], 60),
    Proof(Bug::TrustRemovedNode, &["certificates"], 60),
    Proof(Bug::AcceptWorker, &["certificates"], 60),
    Proof(Bug::ObeyDemoted, &["certificates"], 60),
    Proof(Bug::KeepRole, &["certificates", "convergence"], 60),
    Proof(Bug::NeverRenew, &["certificates"], 60),
    Proof(Bug::TrustTooSoon, &["certificates"], 60),
    Proof(Bug::TakeOldTable, &["backends"], 60),
    Proof(Bug::DropReport, &["convergence"], 250),
    Proof(Bug::LeaveContainer, &["convergence"], 60),
    Proof(Bug::WriteSecrets, &["held"], 60),
    Proof(Bug::StartWithout, &["held"], 60),
];

/// The first seed that finds the bug.
fn find(proof: &Proof) -> Option<Outcome> {
    let Proof(bug, _, budget) = proof;
    let seeds = 1..=*budget;
    with(*bug, || {
        seeds.map(|seed| simulate(seed, false)).find(|outcome| outcome.violation.is_some())
    })
}

#[test]
fn every_seeded_bug_is_found_by_its_invariant_within_its_budget() {
    assert!(PROOFS.iter().map(|p| p.0).eq(Bug::ALL.iter().copied()), "every bug has its proof");
    let left = Mutex::new(PROOFS.iter());
    let missed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(proof) = next else { return };
                    let Proof(bug, invariants, budget) = proof;
                    let found = find(proof);
                    let wrong = match &found {
                        None => Some(format!("{bug:?} is not found within {budget} seeds")),
                        Some(outcome) => {
                            let violation = outcome.violation.as_ref().unwrap();
                            let (seed, by) = (outcome.seed, violation.invariant);
                            println!("{:24} seed {seed:3}  {by}: {}", bug.name(), violation.text);
                            let due = invariants.contains(&by);
                            (!due).then(|| format!("{bug:?} is found by {by}"))
                        }
                    };
                    missed.lock().unwrap_or_else(PoisonError::into_inner).extend(wrong);
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn without_a_bug_the_same_seeds_find_nothing() {
    let most = PROOFS.iter().map(|p| p.2).max().unwrap_or(0);
    let campaign = simulate_many(1..=most, THREADS, usize::MAX, |_| true);
    let reports: Vec<String> = campaign.failures.iter().map(report).collect();
    assert!(reports.is_empty(), "{}", reports.join("\n"));
}
