//! What every handler works with.
use crate::{
    events::Events,
    seam::{Swarm, read},
};
use shoal_containers::Runtime;
use shoal_images::ImageStore;
use shoal_model::{ControlError, GenericResource, Plugin, State};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// What the daemon says of itself and its host; gathered once at start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineInfo {
    /// Id of this engine, stable over restarts.
    pub id: String,
    /// Host name.
    pub hostname: String,
    /// `uname -r`.
    pub kernel_version: String,
    /// Name of the distribution.
    pub operating_system: String,
    /// Machine, in the words of uname (`x86_64`).
    pub architecture: String,
    /// Processors.
    pub cpus: i64,
    /// Memory, bytes.
    pub memory_bytes: i64,
    /// State folder.
    pub data_root: PathBuf,
    /// Labels of the daemon (`--label`).
    pub labels: BTreeMap<String, String>,
    /// Drivers it has.
    pub plugins: Vec<Plugin>,
    /// Generic resources of the daemon (`--node-generic-resource`).
    pub generic_resources: Vec<GenericResource>,
    /// Version of this program.
    pub version: String,
    /// Commit it was built from; empty when not known.
    pub git_commit: String,
    /// Whether the daemon logs at debug level.
    pub debug: bool,
}

/// What every handler works with; cheap to clone.
#[derive(Clone)]
pub struct ApiContext {
    /// The cluster.
    pub swarm: Arc<dyn Swarm>,
    /// Images of this node.
    pub images: Arc<ImageStore>,
    /// Containers of this node.
    pub runtime: Runtime,
    /// This host.
    pub engine: Arc<EngineInfo>,
    /// What happens in the cluster; [`crate::serve`] sees to it.
    pub events: Events,
}

impl ApiContext {
    pub(crate) fn read<R>(&self, look: impl FnOnce(&State) -> R) -> Result<R, ControlError> {
        read(&*self.swarm, look)
    }
}
