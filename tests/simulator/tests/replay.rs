//! A seed is the same to the bit, whenever and wherever it is run.
use shoal_simulator::simulate;
use std::process::Command;

const SEEDS: [u64; 3] = [3, 17, 40];

#[test]
fn a_seed_twice_is_the_same_to_the_bit() {
    for seed in SEEDS {
        assert_eq!(simulate(seed, false), simulate(seed, false), "seed {seed}");
    }
    assert_ne!(simulate(1, false).trace, simulate(2, false).trace);
}

#[test]
fn a_seed_is_the_same_in_another_process() {
    for seed in SEEDS {
        let here = format!("seed {seed} (trace {:016x})", simulate(seed, false).trace);
        let output = Command::new(env!("CARGO_BIN_EXE_shoal-simulate"))
            .args(["--seed", &seed.to_string()])
            .output()
            .unwrap();
        let there = String::from_utf8(output.stdout).unwrap();
        assert!(there.contains(&here), "not {here}: {there}");
    }
}
