//! `node`.

use super::{Listing, TaskListing};
use clap::Subcommand;

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
