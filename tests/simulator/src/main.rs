//! `shoal-simulate`: runs seeds and says what came of them. `cargo xtask simulate` calls it.
use clap::Parser;
use shoal_model::bugs::{Bug, with};
use shoal_simulator::{Stats, report, saved_seeds, simulate, simulate_many};
use std::{process::ExitCode, thread, time::Instant};

/// Simulate whole clusters: real cores, everything else modelled
#[derive(Parser)]
struct Arguments {
    /// The first seed; with --hours or --seeds those behind it follow
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run seeds until so many cluster-hours are simulated
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    hours: Option<f64>,
    /// Run so many seeds
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Run the saved seeds
    #[arg(long, conflicts_with_all = ["seed", "hours", "seeds"])]
    saved: bool,
    /// Write every event of the one seed
    #[arg(long, requires = "seed", conflicts_with_all = ["hours", "seeds"])]
    events: bool,
    /// The one seed with this bug switched on
    #[arg(long, value_name = "NAME", requires = "seed", conflicts_with_all = ["hours", "seeds"])]
    bug: Option<String>,
    /// Simulations at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// Stop when so many seeds have found something
    #[arg(long, value_name = "N", default_value_t = 1)]
    failures: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let (Some(seed), None, None) = (arguments.seed, arguments.hours, arguments.seeds) {
        if let Some(name) = &arguments.bug {
            let Some(bug) = Bug::ALL.iter().find(|bug| bug.name() == name) else {
                eprintln!("there is no bug {name}; see shoal_model::bugs::Bug");
                return ExitCode::FAILURE;
            };
            return with(*bug, || one(seed, arguments.events));
        }
        return one(seed, arguments.events);
    }
    let threads = arguments.threads.min(thread::available_parallelism().map_or(1, Into::into));
    let first = arguments.seed.unwrap_or(1);
    let start = Instant::now();
    let campaign = match (arguments.saved, arguments.hours, arguments.seeds) {
        (true, ..) => {
            simulate_many(saved_seeds().into_iter(), threads, arguments.failures, |_| true)
        }
        (_, Some(hours), _) => {
            simulate_many(first.., threads, arguments.failures, |s: &Stats| s.hours() < hours)
        }
        (.., seeds) => {
            let last = first.saturating_add(seeds.unwrap_or(200));
            simulate_many(first..last, threads, arguments.failures, |_| true)
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    print(&campaign.stats);
    println!(
        "{} seeds, {:.0} cluster-hours in {seconds:.0} s on {threads} threads: {:.1} cluster-hours, {:.1} seeds a second",
        campaign.stats.seeds,
        campaign.stats.hours(),
        campaign.stats.hours() / seconds,
        campaign.stats.seeds as f64 / seconds
    );
    for outcome in &campaign.failures {
        println!("{}", report(outcome));
    }
    exit(campaign.failures.is_empty())
}

fn one(seed: u64, events: bool) -> ExitCode {
    let outcome = simulate(seed, events);
    print(&outcome.stats);
    println!("{:.2} cluster-hours", outcome.stats.hours());
    println!("{}", report(&outcome));
    exit(outcome.violation.is_none())
}

fn print(stats: &Stats) {
    for (word, count) in stats.rows() {
        println!("{count:12} {word}");
    }
}

fn exit(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
