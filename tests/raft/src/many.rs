//! Many seeds, a few at a time. Each has a process of its own: some of tokio's choices depend on how many
//! runtimes the process has had before.

use crate::{
    history::Figures,
    run::{Outcome, run},
};
use shoal_store::bugs::Bug;
use std::{
    env, io,
    ops::Range,
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// Simulations at a time.
const THREADS: usize = 2;

/// Tells a process what to simulate: a seed, perhaps a bug, perhaps `aloud`.
const WHAT: &str = "SHOAL_RAFT_RUN";

/// Before the outcome, in what such a process prints.
const MARK: &str = "OUTCOME ";

/// Lines of what a process has said that ended without an outcome.
const LAST_WORDS: usize = 30;

/// What the test program does that [`alone`] has started: one simulation.
pub fn simulate_here() {
    let what = env::var(WHAT).unwrap_or_default();
    let mut words = what.split(' ');
    let seed = words.next().and_then(|seed| seed.parse().ok());
    let seed = seed.expect("the process is started by another, with a seed");
    let words: Vec<&str> = words.collect();
    let bug = Bug::ALL.iter().copied().find(|bug| words.contains(&format!("{bug:?}").as_str()));
    let outcome = run(seed, bug, words.contains(&"aloud"));
    println!(
        "\n{MARK}{}",
        serde_json::to_string(&outcome).expect("an outcome is text and numbers")
    );
}

/// Runs one seed in a process of its own: the test program once more, of which the test
/// `one_simulation` calls [`simulate_here`].
pub fn alone(seed: u64, bug: Option<Bug>, aloud: bool) -> Outcome {
    match child(seed, bug, aloud) {
        Ok(outcome) => outcome,
        Err(error) => Outcome {
            seed,
            violation: Some(format!("the simulation has ended without an outcome: {error}")),
            story: Vec::new(),
            fingerprint: 0,
            figures: Figures::default(),
        },
    }
}

fn child(seed: u64, bug: Option<Bug>, aloud: bool) -> io::Result<Outcome> {
    let bug = bug.map_or(String::new(), |bug| format!(" {bug:?}"));
    let what = format!("{seed}{bug}{}", if aloud { " aloud" } else { "" });
    let output = Command::new(env::current_exe()?)
        .args(["--exact", "one_simulation", "--ignored", "--nocapture"])
        .env(WHAT, what)
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if aloud {
        println!("{text}");
    }
    let outcome = text.lines().find_map(|line| line.strip_prefix(MARK));
    match outcome {
        Some(outcome) => serde_json::from_str(outcome).map_err(io::Error::other),
        None => {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
            Err(io::Error::other(format!("{}\n{}", output.status, last.join("\n"))))
        }
    }
}

/// Runs all seeds, and returns what they came to in their order.
pub fn run_many(seeds: Range<u64>) -> Vec<Outcome> {
    many(seeds, None, |_| false)
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
                    let outcome = alone(seed, bug, false);
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
