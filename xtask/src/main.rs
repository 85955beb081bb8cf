//! `cargo xtask`: set-up, build, demo, tests and benchmarks.

mod demo;
mod docker;
mod object;
mod packages;
mod process;
mod setup;
mod simulate;
mod test;
mod toolchain;
mod vm;
mod workspace;

use clap::Parser;
use std::process::ExitCode;

/// What a person, or CI, does with a clone of Shoal.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Install what building and testing need; quick when all of it is there
    Setup,
    /// Build the eBPF object and every program
    Build {
        /// With optimisation
        #[arg(long)]
        release: bool,
    },
    /// Show a three-node cluster that serves, on this machine
    Demo {
        /// Leave the cluster up and print how to use it
        #[arg(long, conflicts_with = "stop")]
        keep: bool,
        /// Remove a cluster that --keep left
        #[arg(long)]
        stop: bool,
    },
    /// Run every check: format, lints, dependencies, unit tests, multi-node tests
    Test {
        /// Run only the tests whose name contains this, and no other check
        #[arg(long, value_name = "NAME")]
        filter: Option<String>,
    },
    /// Run the tests that depend on the kernel, or the demo, on another one in a virtual machine
    Vm {
        /// Version of one of Debian's cloud kernels
        #[arg(long, value_name = "VERSION", default_value = "6.1")]
        kernel: String,
        /// Run the demo instead of tests
        #[arg(long, conflicts_with = "filter")]
        demo: bool,
        /// Run only the tests whose name contains this
        #[arg(long, value_name = "NAME")]
        filter: Option<String>,
    },
    /// Simulate whole clusters: `--seed N [--events]` one seed, `--hours N` or `--seeds N` many,
    /// `--saved` those that once found something
    Simulate {
        /// For the simulator; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure Shoal against the same machine without it
    Bench {
        /// Which benchmark; `vip` is throughput and connections through a VIP, `control` the
        /// control plane on real clusters, `scale` what many simulated nodes cost real managers,
        /// `placement` the scheduler in memory
        name: String,
        /// Only this part of `control`: `services`, `loss` or `writes`
        part: Option<String>,
        /// Write the results to this file, too
        #[arg(long, value_name = "FILE")]
        json: Option<String>,
        /// Fail if an aim is missed
        #[arg(long)]
        check: bool,
        /// Shorter runs, to see whether it works at all
        #[arg(long)]
        quick: bool,
        /// As large as it gets: of `scale` alone
        #[arg(long, conflicts_with = "quick")]
        full: bool,
    },
}

fn main() -> ExitCode {
    match run(Task::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What failed and the fix, without a backtrace: this is for users.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Setup => {
            setup::run(setup::For::Tests)?;
            println!("All that building and testing need is here.");
            Ok(())
        }
        Task::Build { release } => setup::build(setup::For::Build, release),
        Task::Demo { keep, stop } => demo::demo(keep, stop),
        Task::Test { filter } => test::run(filter.as_deref()),
        Task::Vm { kernel, demo, filter } => vm::run(&kernel, demo, filter.as_deref()),
        Task::Simulate { arguments } => simulate::run(&arguments),
        Task::Bench { name, part, json, check, quick, full } => {
            let flags = [(check, "--check"), (quick, "--quick"), (full, "--full")];
            demo::bench(&name, part, json, &flags)
        }
    }
}
