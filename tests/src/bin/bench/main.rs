//! Benchmarks: ours and a peer in the same run, interleaved, medians, ratios; or ours against an aim.

mod control;
mod placement;
mod report;
mod scale;
mod traffic;
mod vip;

use anyhow::bail;
use clap::{Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

/// Measure Shoal on this machine.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    bench: Bench,
    /// Write the rows to this file as JSON, too
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail if an aim is missed
    #[arg(long, global = true)]
    check: bool,
    /// Shorter and fewer runs, to see whether it works at all
    #[arg(long, global = true)]
    quick: bool,
    /// As large as it gets: of `scale` alone
    #[arg(long, global = true, conflicts_with = "quick")]
    full: bool,
}

#[derive(Subcommand)]
enum Bench {
    /// TCP throughput and connections per second through a VIP, against the task's own address
    Vip,
    /// The control plane on real clusters, against Docker Swarm and etcd (SHOAL_PEERS: where they are)
    Control {
        /// Only this part
        part: Option<control::Part>,
    },
    /// What many nodes and tasks cost real managers; the nodes are simulated
    Scale {
        /// Nodes
        #[arg(long)]
        nodes: Option<usize>,
        /// Tasks
        #[arg(long)]
        tasks: Option<usize>,
        /// Managers, 1 or 3; without it first one, then three
        #[arg(long)]
        managers: Option<usize>,
    },
    /// The scheduler's placement in memory
    Placement,
    /// Place tasks once and print what it took; a process of its own, for its memory
    #[command(hide = true)]
    Place { nodes: usize, services: usize, tasks: usize },
    /// Accept connections and close them; this is what runs in the container
    #[command(hide = true)]
    Accept { port: u16 },
    /// Connect again and again and print connections per second
    #[command(hide = true)]
    Connect { to: SocketAddr, seconds: u64 },
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    if options.full && !matches!(options.bench, Bench::Scale { .. }) {
        bail!("--full is of `scale` alone");
    }
    let rows = match options.bench {
        Bench::Vip => vip::run(options.quick)?,
        Bench::Control { part } => control::run(part, options.quick)?,
        Bench::Scale { nodes, tasks, managers } => {
            let size = match (options.quick, options.full) {
                (true, _) => scale::QUICK,
                (_, true) => scale::FULL,
                _ => scale::DEFAULT,
            };
            let given = |given: Option<usize>, default| given.unwrap_or(default);
            let size =
                scale::Size { nodes: given(nodes, size.nodes), tasks: given(tasks, size.tasks) };
            scale::run(size, managers)?
        }
        Bench::Placement => placement::rows(options.quick)?,
        Bench::Place { nodes, services, tasks } => return placement::place(nodes, services, tasks),
        Bench::Accept { port } => return traffic::accept(port),
        Bench::Connect { to, seconds } => return traffic::connect(to, seconds),
    };
    report::print(&rows)?;
    if let Some(path) = options.json {
        std::fs::write(path, report::json(&rows)?)?;
    }
    match rows.iter().filter(|row| !row.holds()).count() {
        missed if options.check && missed > 0 => bail!("{missed} of {} aims missed", rows.len()),
        _ => Ok(()),
    }
}
