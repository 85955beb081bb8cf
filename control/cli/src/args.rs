//! Commands and flags, with Docker's names and defaults.

mod container;
mod dependency;
mod image;
mod network;
mod node;
mod service;
mod swarm;

use clap::{Args, Subcommand};

pub(crate) use container::*;
pub(crate) use dependency::*;
pub(crate) use image::*;
pub(crate) use network::*;
pub(crate) use node::*;
pub(crate) use service::*;
pub(crate) use swarm::*;

/// Which daemon to talk to.
#[derive(Args, Clone, Debug, Default)]
pub struct Connection {
    /// Daemon socket to connect to [default: $SHOAL_HOST, $DOCKER_HOST, unix:///run/shoal/shoal.sock]
    #[arg(short = 'H', long, value_name = "HOST")]
    pub host: Option<String>,
}

/// A client command.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Show version information
    Version,
    /// Display system-wide information
    Info,
    /// Manage Swarm
    #[command(subcommand)]
    Swarm(SwarmCommand),
    /// Manage Swarm nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Manage Swarm services
    #[command(subcommand)]
    Service(Box<ServiceCommand>),
    /// Manage networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Manage Swarm secrets
    #[command(subcommand)]
    Secret(DependencyCommand),
    /// Manage Swarm configs
    #[command(subcommand)]
    Config(DependencyCommand),
    /// Manage images
    #[command(subcommand)]
    Image(ImageCommand),
    /// List images
    Images(ImageList),
    /// Load an image from a tar archive or STDIN
    Load(Load),
    /// List containers
    Ps(ContainerList),
    /// Fetch the logs of a container
    Logs(Logs),
    /// Execute a command in a running container
    Exec(Exec),
    /// Return low-level information on objects
    Inspect(Inspect),
}

/// `inspect`.
#[derive(Args, Clone, Debug)]
pub struct Inspect {
    /// NAME|ID
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Only inspect objects of the given type
    #[arg(long = "type")]
    pub kind: Option<String>,
}

/// What lists have in common.
#[derive(Args, Clone, Debug)]
pub struct Listing {
    /// Filter output based on conditions provided (key=value)
    #[arg(short, long)]
    pub filter: Vec<String>,
    /// Only display IDs
    #[arg(short, long)]
    pub quiet: bool,
}

/// What lists of tasks have in common.
#[derive(Args, Clone, Debug)]
pub struct TaskListing {
    /// Filter output based on conditions provided (key=value)
    #[arg(short, long)]
    pub filter: Vec<String>,
    /// Do not map IDs to Names
    #[arg(long)]
    pub no_resolve: bool,
    /// Do not truncate output
    #[arg(long)]
    pub no_trunc: bool,
    /// Only display task IDs
    #[arg(short, long)]
    pub quiet: bool,
}

/// Which lines of a log.
#[derive(Args, Clone, Debug)]
pub struct LogLines {
    /// Show extra details provided to logs
    #[arg(long)]
    pub details: bool,
    /// Follow log output
    #[arg(short, long)]
    pub follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")
    #[arg(long)]
    pub since: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, default_value = "all")]
    pub tail: String,
    /// Show timestamps
    #[arg(short, long)]
    pub timestamps: bool,
}
