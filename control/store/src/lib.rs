//! The cluster's replicated store: a Raft log (openraft) on disk (redb), and the state in memory that
//! the log's entries form ([`shoal_model::State`]).
//!
//! A proposal is a list of changes that is applied whole or not at all; it is acknowledged once it
//! is on the disk of a majority and applied here. Proposals that wait at the same time share one
//! log entry, and so one flush to the disk. Each applied proposal raises the state's version by one;
//! it is the version of every object it touched.
//!
//! Tasks: openraft's own, and one that gathers proposals. They end with [`Store::shutdown`], or when
//! the last clone of the [`Store`] is dropped. A proposal whose future is dropped may still be
//! applied.

mod disk;
mod error;
mod log;
mod machine;
mod network;
mod proposals;
mod types;

#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;

pub use error::{DiskError, StoreError};
pub use proposals::MAX_PROPOSAL_BYTES;

use crate::{
    disk::Disk,
    log::Log,
    machine::{Machine, Replica},
    network::NoPeers,
    proposals::Proposals,
    types::{ManagerId, Raft},
};
use openraft::{Config, EmptyNode, ServerState, SnapshotPolicy};
use shoal_model::{Change, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// How long opening may wait until the log is applied, and closing until the files are let go.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the store is and whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreConfig {
    /// Folder of its own.
    pub dir: PathBuf,
    /// This manager's node id.
    pub node_id: String,
    /// Log entries between two snapshots.
    pub snapshot_interval: u64,
    /// Log entries kept behind a snapshot.
    pub snapshot_keep: u64,
}

impl StoreConfig {
    /// With Docker's intervals: a snapshot every 10 000 entries, 500 kept behind it.
    pub fn new(dir: impl Into<PathBuf>, node_id: impl Into<String>) -> StoreConfig {
        StoreConfig {
            dir: dir.into(),
            node_id: node_id.into(),
            snapshot_interval: 10_000,
            snapshot_keep: 500,
        }
    }
}

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    node_id: ManagerId,
    raft: Raft,
    proposals: Proposals,
    replica: Arc<Replica>,
    /// Closed once the files are let go.
    disk_closed: watch::Receiver<()>,
}

impl Store {
    /// Makes the store of a new cluster whose only manager is this node.
    pub async fn bootstrap(config: StoreConfig) -> Result<Store, StoreError> {
        let dir = config.dir.clone();
        let store = Store::start(config, true).await?;
        if store.raft().is_initialized().await? {
            store.shutdown().await;
            return Err(StoreError::Exists { dir });
        }
        let members = BTreeMap::from([(store.0.node_id, EmptyNode {})]);
        store.raft().initialize(members).await.map_err(StoreError::raft)?;
        store.lead().await?;
        Ok(store)
    }

    /// Opens the store of this node and replays its log.
    pub async fn open(config: StoreConfig) -> Result<Store, StoreError> {
        let dir = config.dir.clone();
        let store = Store::start(config, false).await?;
        let checked = store.check_membership(dir).await;
        match checked {
            Ok(()) => Ok(store),
            Err(error) => {
                store.shutdown().await;
                Err(error)
            }
        }
    }

    /// Looks at the state in memory. Nothing is applied meanwhile, so `f` must be quick; it must not
    /// call the store again.
    pub fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        self.0.replica.read(f)
    }

    /// Proposes changes, applied whole or not at all, and returns the state's version with them.
    /// Waits while many others are under way. No changes: the present version, without an entry.
    pub async fn propose(&self, changes: Vec<Change>) -> Result<u64, StoreError> {
        if changes.is_empty() {
            return Ok(self.read(|state| state.version));
        }
        self.0.proposals.propose(changes).await
    }

    /// The state's version, after each change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.replica.versions()
    }

    /// Whether this node leads, so that proposals can be made here.
    pub fn is_leader(&self) -> bool {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow();
        metrics.running_state.is_ok() && metrics.state == ServerState::Leader
    }

    /// Ends the store's tasks and waits until the files are let go. Clones fail from now on, except
    /// for reading.
    pub async fn shutdown(self) {
        if let Err(error) = self.raft().shutdown().await {
            tracing::error!(%error, "the store's task ended badly");
        }
        let mut closed = self.0.disk_closed.clone();
        // Nothing is ever sent: it ends when the sender, kept beside the files, is gone.
        if tokio::time::timeout(PATIENCE, closed.changed()).await.is_err() {
            tracing::error!("the store's files are still in use");
        }
    }

    fn raft(&self) -> &Raft {
        &self.0.raft
    }

    async fn start(config: StoreConfig, create: bool) -> Result<Store, StoreError> {
        let node_id = match ManagerId::try_from(config.node_id) {
            Ok(id) if id != ManagerId::default() => id,
            Ok(_) => return Err(StoreError::NodeId(String::new())),
            Err(error) => return Err(StoreError::NodeId(error.0)),
        };
        let dir = config.dir;
        let disk = disk::blocking(move || Disk::open(&dir, create)).await??;
        let disk = Arc::new(disk);
        let disk_closed = disk.closed();
        let machine = Machine::load(disk.clone()).await?;
        let replica = machine.replica();
        let settings = Config {
            cluster_name: "shoal".into(),
            // One round trip between managers is far below; a slow disk must not cost the lead.
            heartbeat_interval: 500,
            election_timeout_min: 2500,
            election_timeout_max: 5000,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_interval),
            max_in_snapshot_log_to_keep: config.snapshot_keep,
            ..Config::default()
        };
        let settings = Arc::new(settings.validate().map_err(StoreError::raft)?);
        let raft = Raft::new(node_id, settings, NoPeers, Log::new(disk), machine).await?;
        let proposals = Proposals::start(raft.clone());
        Ok(Store(Arc::new(Inner { node_id, raft, proposals, replica, disk_closed })))
    }

    async fn check_membership(&self, dir: PathBuf) -> Result<(), StoreError> {
        let own = self.0.node_id;
        let voters = self.raft().with_raft_state(|state| {
            state.membership_state.effective().voter_ids().collect::<BTreeSet<ManagerId>>()
        });
        match voters.await? {
            voters if voters.is_empty() => Err(StoreError::Missing { dir }),
            voters if !voters.contains(&own) => {
                Err(StoreError::OtherNode { dir, node_id: own.into(), members: names(&voters) })
            }
            voters if voters.len() == 1 => self.lead().await,
            _ => Ok(()), // whoever is elected
        }
    }

    /// The only voter: takes the lead, and waits until all that is in the log is applied.
    async fn lead(&self) -> Result<(), StoreError> {
        if !self.is_leader() {
            self.raft().trigger().elect().await?;
        }
        self.raft()
            .wait(Some(PATIENCE))
            .metrics(
                |m| {
                    m.state == ServerState::Leader
                        && m.last_applied.as_ref().map(|id| id.index) == m.last_log_index
                },
                "the log is applied",
            )
            .await
            .map_err(StoreError::raft)?;
        Ok(())
    }
}

fn names(ids: &BTreeSet<ManagerId>) -> String {
    ids.iter().map(ManagerId::to_string).collect::<Vec<_>>().join(", ")
}
