//! Managers, clients and faults, all from a seed.

use shoal_raft_tests::{Figures, Outcome, alone, run_many, simulate_here};
use std::{env, ops::Range, time::Duration};

/// Seeds of a CI run.
const SEEDS: Range<u64> = 1..41;

/// `SHOAL_RAFT_SEED=7` tells the whole story of one, `SHOAL_RAFT_SEEDS=1000..2000` takes a range.
fn seeds() -> Range<u64> {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a number");
    if let Ok(seed) = env::var("SHOAL_RAFT_SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    match env::var("SHOAL_RAFT_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("a range is FROM..TO");
            number(from)..number(to)
        }
        Err(_) => SEEDS,
    }
}

fn report(outcome: &Outcome) {
    println!("{}", outcome.story.join("\n"));
    let Outcome { seed, violation, .. } = outcome;
    println!("seed {seed}: {}", violation.as_deref().unwrap_or("nothing is wrong"));
    println!("again: SHOAL_RAFT_SEED={seed} cargo test -p shoal-raft-tests --test seeds\n");
}

#[test]
fn nothing_acknowledged_is_lost_and_all_managers_agree_whatever_fails() {
    let seeds = seeds();
    let (one, all) = (seeds.end - seeds.start == 1, seeds == SEEDS);
    let outcomes = match one {
        true => vec![alone(seeds.start, None, true)],
        false => run_many(seeds),
    };
    let mut sum = Figures::default();
    let mut wrong = Vec::new();
    for outcome in &outcomes {
        sum += outcome.figures;
        if outcome.violation.is_some() {
            report(outcome);
            wrong.push(outcome.seed);
        }
    }
    println!("{} seeds: {sum:?}", outcomes.len());
    assert!(wrong.is_empty(), "seeds {wrong:?} have found something, see above");
    if all {
        // They do try it.
        let n = outcomes.len() as u64;
        assert!(sum.faults > 8 * n && sum.leaders > 2 * n && sum.starts > 8 * n, "{sum:?}");
        assert!(sum.writes > 200 * n && sum.reads > 30 * n, "{sum:?}");
        assert!(sum.snapshots > 2 * n && sum.members > 2 * n, "{sum:?}");
        assert!(sum.time > Duration::from_secs(5) * n as u32, "{sum:?}");
    }
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in [1, 2, 3] {
        let [first, second] = [(); 2].map(|()| alone(seed, None, false));
        if first.fingerprint != second.fingerprint {
            let differ = first.story.iter().zip(&second.story).find(|(a, b)| a != b);
            panic!("seed {seed}: {differ:?}, {:?} and {:?}", first.figures, second.figures);
        }
    }
}

#[test]
#[ignore = "one simulation, for which the others start this program once more"]
fn one_simulation() {
    simulate_here();
}
