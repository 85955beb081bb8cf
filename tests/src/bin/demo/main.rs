//! Three nodes and an outside host on this machine, and a service that answers: seven steps.

mod kept;
mod load;
mod stage;
mod steps;

use anyhow::{Context as _, bail};
use clap::Parser;
use shoal_tests::{Cluster, Guardian};
use std::{
    process::{self, ExitCode},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// What a shell reports of a program that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// Show a three-node cluster that serves, on this machine.
#[derive(Parser)]
struct Options {
    /// Leave the cluster up and print how to use it
    #[arg(long, conflicts_with = "stop")]
    keep: bool,
    /// Remove a cluster that --keep left
    #[arg(long)]
    stop: bool,
}

/// Set once Ctrl-C was pressed: what fails from then on fails because of that.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// What a signal has to clean up, once there is something.
static GUARDIAN: Mutex<Option<Arc<Guardian>>> = Mutex::new(None);

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if STOPPING.load(Ordering::SeqCst) => loop {
            // The signal's thread ends the process when it has cleaned up.
            thread::park();
        },
        Err(error) => {
            eprintln!("\n✗ {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    if options.stop {
        return kept::remove();
    }
    if options.keep {
        kept::refuse_a_second()?;
    }
    clean_up_on_signals()?;
    let total = stage::Total::start();
    let cluster = Cluster::builder().nodes(3).clients(1).start()?;
    *GUARDIAN.lock().unwrap_or_else(PoisonError::into_inner) = Some(cluster.guardian());
    let result = steps::all(&cluster);
    if let Err(error) = result {
        return Err(error.context("the demo ends here; the cluster is removed"));
    }
    total.print();
    if options.keep {
        return kept::keep(cluster);
    }
    let left = cluster.remove();
    if left.0.is_empty() { Ok(()) } else { bail!("not removed: {}", left.0.join(", ")) }
}

/// Ctrl-C, SIGTERM and a closed terminal remove the cluster and end this process.
fn clean_up_on_signals() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ready, installed) = std::sync::mpsc::channel();
    thread::spawn(move || {
        runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [Ok(mut int), Ok(mut term), Ok(mut hup)] = kinds.map(signal) else { return };
            // The receiver waits for this; if it is gone, so is the process.
            ready.send(()).ok();
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {}, _ = hup.recv() => {} }
        });
        STOPPING.store(true, Ordering::SeqCst);
        // Without a guardian yet there is none to wait for; it cleans up when this ends.
        let guardian = GUARDIAN.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(guardian) = guardian {
            eprintln!("\nRemoving the cluster.");
            guardian.clean_up().0.iter().for_each(|left| eprintln!("not removed: {left}"));
        }
        process::exit(INTERRUPTED);
    });
    installed.recv().context("no handler for Ctrl-C could be installed")
}
