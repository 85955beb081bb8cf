//! Commands and flags, with Docker's names and defaults.
mod dependency;
mod service;

use clap::{Args, Subcommand};
use std::path::PathBuf;

pub(crate) use dependency::*;
pub(crate) use service::*;

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

/// Commands on the cluster.
#[derive(Subcommand, Clone, Debug)]
pub enum SwarmCommand {
    /// Display and rotate the root CA
    Ca(SwarmCa),
    /// Initialize a swarm
    Init(SwarmInit),
    /// Join a swarm as a node and/or manager
    Join(SwarmJoin),
    /// Manage join tokens
    JoinToken {
        /// worker or manager
        #[arg(value_parser = ["worker", "manager"])]
        role: String,
        /// Only display token
        #[arg(short, long)]
        quiet: bool,
        /// Rotate join token
        #[arg(long)]
        rotate: bool,
    },
    /// Leave the swarm
    Leave {
        /// Force this node to leave the swarm, ignoring warnings
        #[arg(short, long)]
        force: bool,
    },
    /// Unlock swarm
    Unlock,
    /// Manage the unlock key
    UnlockKey {
        /// Only display token
        #[arg(short, long)]
        quiet: bool,
        /// Rotate unlock key
        #[arg(long)]
        rotate: bool,
    },
    /// Update the swarm
    Update(SwarmUpdate),
}

/// `swarm ca`.
#[derive(Args, Clone, Debug)]
pub struct SwarmCa {
    /// Rotate the swarm CA - if no certificate or key are provided, new ones will be generated
    #[arg(long)]
    pub rotate: bool,
    /// Path to the PEM-formatted root CA certificate to use for the new cluster
    #[arg(long)]
    pub ca_cert: Option<PathBuf>,
    /// Path to the PEM-formatted root CA key to use for the new cluster
    #[arg(long)]
    pub ca_key: Option<PathBuf>,
    /// Specifications of one or more certificate signing endpoints
    #[arg(long)]
    pub external_ca: Vec<String>,
    /// Validity period for node certificates (ns|us|ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse)]
    pub cert_expiry: Option<i64>,
    /// Exit immediately instead of waiting for the root rotation to converge
    #[arg(short, long)]
    pub detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    pub quiet: bool,
}

/// `swarm update`.
#[derive(Args, Clone, Debug)]
pub struct SwarmUpdate {
    /// Change manager autolocking setting (true|false)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub autolock: Option<bool>,
    /// Validity period for node certificates (ns|us|ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse)]
    pub cert_expiry: Option<i64>,
    /// Specifications of one or more certificate signing endpoints
    #[arg(long)]
    pub external_ca: Vec<String>,
    /// Dispatcher heartbeat period (ns|us|ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse)]
    pub dispatcher_heartbeat: Option<i64>,
    /// Task history retention limit
    #[arg(long)]
    pub task_history_limit: Option<i64>,
}

/// Addresses of a member.
#[derive(Args, Clone, Debug)]
pub struct MemberAddresses {
    /// Advertised address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "", hide_default_value = true)]
    pub advertise_addr: String,
    /// Listen address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "0.0.0.0:2377")]
    pub listen_addr: String,
    /// Address or interface to use for data path traffic (format: "<ip|interface>")
    #[arg(long, default_value = "", hide_default_value = true)]
    pub data_path_addr: String,
    /// Availability of the node
    #[arg(long, default_value = "active", value_parser = ["active", "pause", "drain"])]
    pub availability: String,
}

/// `swarm init`.
#[derive(Args, Clone, Debug)]
pub struct SwarmInit {
    /// Addresses.
    #[command(flatten)]
    pub addresses: MemberAddresses,
    /// Enable manager autolocking (requiring an unlock key to start a stopped manager)
    #[arg(long)]
    pub autolock: bool,
    /// Force create a new cluster from current state
    #[arg(long)]
    pub force_new_cluster: bool,
    /// Validity period for node certificates (ns|us|ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse)]
    pub cert_expiry: Option<i64>,
    /// UDP port of the overlay (1024 - 49151)
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub data_path_port: u32,
    /// Default address pool in CIDR format
    #[arg(long)]
    pub default_addr_pool: Vec<String>,
    /// Default address pool subnet mask length
    #[arg(long, default_value_t = 24)]
    pub default_addr_pool_mask_length: u32,
    /// Specifications of one or more certificate signing endpoints
    #[arg(long)]
    pub external_ca: Vec<String>,
    /// Dispatcher heartbeat period (ns|us|ms|s|m|h)
    #[arg(long, value_parser = crate::durations::parse)]
    pub dispatcher_heartbeat: Option<i64>,
    /// Task history retention limit
    #[arg(long)]
    pub task_history_limit: Option<i64>,
}

/// `swarm join`.
#[derive(Args, Clone, Debug)]
pub struct SwarmJoin {
    /// HOST:PORT of a manager
    pub remote: String,
    /// Token for entry into the swarm
    #[arg(long, default_value = "", hide_default_value = true)]
    pub token: String,
    /// Addresses.
    #[command(flatten)]
    pub addresses: MemberAddresses,
}

/// Commands on nodes.
#[derive(Subcommand, Clone, Debug)]
pub enum NodeCommand {
    /// List nodes in the swarm
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Display detailed information on one or more nodes
    Inspect {
        /// self|NODE
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Update a node
    Update {
        /// NODE
        node: String,
        /// Availability of the node
        #[arg(long, value_parser = ["active", "pause", "drain"])]
        availability: Option<String>,
        /// Role of the node
        #[arg(long, value_parser = ["worker", "manager"])]
        role: Option<String>,
        /// Add or update a node label (key=value)
        #[arg(long)]
        label_add: Vec<String>,
        /// Remove a node label if exists
        #[arg(long)]
        label_rm: Vec<String>,
    },
    /// Promote one or more nodes to manager in the swarm
    Promote {
        /// NODE
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Demote one or more nodes from manager in the swarm
    Demote {
        /// NODE
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Remove one or more nodes from the swarm
    #[command(visible_alias = "remove")]
    Rm {
        /// NODE
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Force remove a node from the swarm
        #[arg(short, long)]
        force: bool,
    },
    /// List tasks running on one or more nodes, defaults to current node
    Ps {
        /// NODE
        nodes: Vec<String>,
        /// How to list them.
        #[command(flatten)]
        listing: TaskListing,
    },
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

/// Commands on networks.
#[derive(Subcommand, Clone, Debug)]
pub enum NetworkCommand {
    /// Create a network
    Create(NetworkCreate),
    /// List networks
    #[command(visible_alias = "list")]
    Ls {
        /// What to list.
        #[command(flatten)]
        listing: Listing,
        /// Do not truncate the output
        #[arg(long)]
        no_trunc: bool,
    },
    /// Display detailed information on one or more networks
    Inspect {
        /// NETWORK
        #[arg(required = true)]
        networks: Vec<String>,
        /// Verbose output for diagnostics
        #[arg(short, long)]
        verbose: bool,
    },
    /// Remove one or more networks
    #[command(visible_alias = "remove")]
    Rm {
        /// NETWORK
        #[arg(required = true)]
        networks: Vec<String>,
    },
}

/// `network create`.
#[derive(Args, Clone, Debug)]
pub struct NetworkCreate {
    /// NETWORK
    pub name: String,
    /// Driver to manage the Network
    #[arg(short, long, default_value = "overlay")]
    pub driver: String,
    /// Enable manual container attachment
    #[arg(long)]
    pub attachable: bool,
    /// Restrict external access to the network
    #[arg(long)]
    pub internal: bool,
    /// Enable IPv6 address assignment
    #[arg(long)]
    pub ipv6: bool,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long)]
    pub subnet: Vec<String>,
    /// IPv4 or IPv6 Gateway for the subnet
    #[arg(long)]
    pub gateway: Vec<String>,
    /// Set metadata on a network
    #[arg(long)]
    pub label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long)]
    pub opt: Vec<String>,
}

/// Commands on images.
#[derive(Subcommand, Clone, Debug)]
pub enum ImageCommand {
    /// Load an image from a tar archive or STDIN
    Load(Load),
    /// List images
    #[command(visible_alias = "list")]
    Ls(ImageList),
    /// Display detailed information on one or more images
    Inspect {
        /// IMAGE
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Remove one or more images
    Rm {
        /// IMAGE
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag {
        /// SOURCE_IMAGE[:TAG]
        source: String,
        /// TARGET_IMAGE[:TAG]
        target: String,
    },
}

/// `load`.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long)]
    pub input: Option<PathBuf>,
    /// Suppress the load output
    #[arg(short, long)]
    pub quiet: bool,
}

/// `images`.
#[derive(Args, Clone, Debug)]
pub struct ImageList {
    /// REPOSITORY[:TAG]
    pub repository: Option<String>,
    /// What to list.
    #[command(flatten)]
    pub listing: Listing,
    /// Don't truncate output
    #[arg(long)]
    pub no_trunc: bool,
}

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
