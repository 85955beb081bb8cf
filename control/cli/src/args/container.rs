//! Containers of this node: `ps`, `logs` and `exec`.

use super::{Listing, LogLines};
use clap::Args;

/// `ps`.
#[derive(Args, Clone, Debug)]
pub struct ContainerList {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    pub all: bool,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long)]
    pub last: Option<u64>,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    pub latest: bool,
    /// What to list.
    #[command(flatten)]
    pub listing: Listing,
    /// Don't truncate output
    #[arg(long)]
    pub no_trunc: bool,
}

/// `logs`.
#[derive(Args, Clone, Debug)]
pub struct Logs {
    /// CONTAINER
    pub container: String,
    /// Which lines.
    #[command(flatten)]
    pub lines: LogLines,
    /// Show logs before a timestamp or relative time
    #[arg(long)]
    pub until: Option<String>,
}

/// `exec`.
#[derive(Args, Clone, Debug)]
pub struct Exec {
    /// CONTAINER
    pub container: String,
    /// COMMAND and ARG...
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// Detached mode: run command in the background
    #[arg(short, long)]
    pub detach: bool,
    /// Set environment variables
    #[arg(short, long)]
    pub env: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub interactive: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long)]
    pub user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long)]
    pub workdir: Option<String>,
}
