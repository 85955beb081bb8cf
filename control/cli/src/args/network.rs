//! `network`.

use super::Listing;
use clap::{Args, Subcommand};

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
    /// Create swarm routing-mesh network
    #[arg(long)]
    pub ingress: bool,
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
