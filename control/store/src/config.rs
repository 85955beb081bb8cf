//! Where a store is and whose it is.

use crate::{error::StoreError, keys::Keys, types::ManagerId};
use std::path::PathBuf;
use tokio::runtime::Handle;

/// Where the store is and whose it is.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Folder of its own.
    pub dir: PathBuf,
    /// This manager's node id.
    pub node_id: String,
    /// The data key, which seals the files.
    pub keys: Keys,
    /// Log entries between two snapshots, while the cluster's specification does not say.
    pub snapshot_interval: u64,
    /// Log entries kept behind a snapshot, while the cluster's specification does not say.
    pub snapshot_keep: u64,
    /// The runtime that runs the store's tasks, if it is not its caller's: what managers say to each other does not
    /// wait behind other work there.
    pub runtime: Option<Handle>,
}

impl StoreConfig {
    /// With Docker's intervals: a snapshot every 10 000 entries, 500 kept behind it. The data key is
    /// kept in the folder, in `data.key`.
    pub fn new(dir: impl Into<PathBuf>, node_id: impl Into<String>) -> StoreConfig {
        let dir = dir.into();
        let keys = Keys::new(dir.join("data.key"));
        StoreConfig {
            dir,
            keys,
            node_id: node_id.into(),
            snapshot_interval: 10_000,
            snapshot_keep: 500,
            runtime: None,
        }
    }

    pub(crate) fn manager_id(&self) -> Result<ManagerId, StoreError> {
        match ManagerId::try_from(self.node_id.clone()) {
            Ok(id) if id != ManagerId::default() => Ok(id),
            Ok(_) => Err(StoreError::NodeId(String::new())),
            Err(error) => Err(StoreError::NodeId(error.0)),
        }
    }
}
