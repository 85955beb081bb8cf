//! `swarm`: the cluster.

use clap::{Args, Subcommand};
use std::path::PathBuf;

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
