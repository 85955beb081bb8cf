//! The command line as a program of its own, for the tests of this crate. The `shoal` binary has the
//! same commands beside its own.

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    connection: shoal_cli::Connection,
    #[command(subcommand)]
    command: shoal_cli::Command,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    shoal_cli::run(cli.connection, cli.command).await
}
