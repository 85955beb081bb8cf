//! `secret` and `config`.
use super::Listing;
use clap::{Args, Subcommand};

/// Commands on secrets, and on configs.
#[derive(Subcommand, Clone, Debug)]
pub enum DependencyCommand {
    /// Create one from a file or STDIN as content
    Create(DependencyCreate),
    /// Display detailed information on one or more of them
    Inspect {
        /// NAME or ID
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// List them
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Remove one or more of them
    #[command(visible_alias = "remove")]
    Rm {
        /// NAME or ID
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// `secret create`, `config create`.
#[derive(Args, Clone, Debug)]
pub struct DependencyCreate {
    /// NAME
    pub name: String,
    /// file|-
    pub file: String,
    /// Labels
    #[arg(short, long)]
    pub label: Vec<String>,
    /// Template driver
    #[arg(long)]
    pub template_driver: Option<String>,
}
