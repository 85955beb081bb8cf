//! The `shoal` binary: the daemon, the processes it starts, and the command line.
use clap::{Parser, Subcommand};
use std::{ffi::OsStr, process::ExitCode};

mod addresses;
mod arguments;
mod daemon;
mod engine;
mod generic;
mod limits;
mod membership;
mod metrics;
mod record;
mod role;

use arguments::{DaemonArguments, NetCommand};

/// Containers on a cluster of hosts: Swarm mode with eBPF load balancing and a WireGuard overlay.
#[derive(Parser)]
#[command(name = "shoal", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    connection: shoal_cli::Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run this host's daemon
    Daemon(Box<DaemonArguments>),
    /// The process that carries the overlay and answers DNS; started by the daemon
    #[command(hide = true)]
    Net(NetCommand),
    #[command(flatten)]
    Client(shoal_cli::Command),
}

fn main() -> ExitCode {
    // The shim and its helper must not have threads, and take no part in what follows.
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(OsStr::to_str) {
        Some("shim") => return shoal_containers::shim_main(args),
        Some("shim-exec") => return shoal_containers::exec_main(args),
        _ => {}
    }
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Daemon(arguments) => {
                log_to_stderr(arguments.debug);
                daemon::run(*arguments).await
            }
            Command::Net(command) => {
                log_to_stderr(false);
                Ok(shoal_net::run(command.into()).await?)
            }
            Command::Client(command) => return Ok(shoal_cli::run(cli.connection, command).await),
        }
        .map(|()| ExitCode::SUCCESS)
    });
    // A blocking read of standard input (exec -i) must not hold up the end.
    runtime.shutdown_background();
    result.unwrap_or_else(|error| fail(&error))
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("shoal: {error:#}");
    ExitCode::FAILURE
}

/// `SHOAL_LOG` chooses what is logged, in the words of tracing's filter. boringtun warns of every
/// unanswered handshake, which the overlay's own counters say better.
fn log_to_stderr(debug: bool) {
    let level = if debug { "debug" } else { "info" };
    let default = format!("{level},boringtun=off,openraft=warn,h2=info,hyper_util=info,tower=info");
    let filter = tracing_subscriber::EnvFilter::try_from_env("SHOAL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
