//! `image`, `images` and `load`.

use super::Listing;
use clap::{Args, Subcommand};
use std::path::PathBuf;

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
