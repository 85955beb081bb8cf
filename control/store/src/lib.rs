//! The cluster's replicated store: a Raft log (openraft) on disk (redb), and the state in memory that
//! the log's entries form ([`shoal_model::State`]).
//!
//! A proposal is a list of changes that is applied whole or not at all; it is acknowledged once it
//! is on the disk of a majority and applied here. Proposals that wait at the same time share one
//! log entry, and so one flush to the disk. Each applied proposal raises the state's version by one;
//! it is the version of every object it touched.
//!
//! A cluster has one such store per manager, 1 to 7 of them. They reach each other over a
//! [`Transport`] that is given; the store itself opens no socket.
//!
//! Tasks: openraft's own, one that gathers proposals, one that watches who leads and
//! one that calls elections. They end with [`Store::shutdown`], or when
//! the last clone of the [`Store`] is dropped. A proposal whose future is dropped may still be
//! applied.

#[cfg(not(feature = "seeded-bugs"))]
mod bugs;
#[cfg(feature = "seeded-bugs")]
pub mod bugs;
mod compaction;
mod disk;
mod elector;
mod error;
mod handover;
mod keys;
mod leadership;
mod log;
mod machine;
mod members;
mod network;
#[cfg(not(feature = "seeded-bugs"))]
mod outside;
#[cfg(feature = "seeded-bugs")]
#[path = "simulated.rs"]
pub mod outside;
mod proposals;
mod recent;
mod recovery;
mod seal;
mod server;
mod snapshots;
mod tail;
mod transport;
mod types;
mod vault;
mod wire;
mod writer;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod writer_tests;

pub use error::{DiskError, StoreError};
pub use keys::{KeyError, Keys, UnlockKey};
pub use leadership::Leadership;
pub use members::Member;
pub use proposals::MAX_PROPOSAL_BYTES;
pub use transport::{Alone, MAX_CALL_BYTES, RaftCall, Transport, TransportError};

use crate::{
    bugs::Bug,
    compaction::Pace,
    disk::Disk,
    elector::Elector,
    leadership::Watches,
    log::Log,
    machine::{Machine, Replica},
    network::{Contacts, Network},
    proposals::Proposals,
    types::{ManagerId, Peer, Raft},
    writer::Writer,
};
use openraft::{Config, ServerState, SnapshotPolicy};
use shoal_model::{Change, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::{Mutex, MutexGuard, watch};

/// How long openraft waits for an answer to log entries. Its timers for heartbeats and elections are
/// off (see [`elector`]); this bounds its lease too, which must be shorter than a follower's patience.
const ANSWER_MS: u64 = 400;

/// For a piece of a snapshot to be taken; the last one includes writing it to the disk.
const SNAPSHOT_CHUNK_TIMEOUT_MS: u64 = 30_000;

/// A piece of a snapshot; a quarter of what a call may carry.
const SNAPSHOT_CHUNK_BYTES: u64 = 1 << 20;

/// How long opening may wait until the log is applied, and closing until the files are let go.
const PATIENCE: Duration = Duration::from_secs(60);

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
        }
    }
}

impl StoreConfig {
    fn manager_id(&self) -> Result<ManagerId, StoreError> {
        match ManagerId::try_from(self.node_id.clone()) {
            Ok(id) if id != ManagerId::default() => Ok(id),
            Ok(_) => Err(StoreError::NodeId(String::new())),
            Err(error) => Err(StoreError::NodeId(error.0)),
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
    network: Network,
    disk: Weak<Disk>,
    watches: Watches,
    /// Held while the membership is changed.
    membership: Mutex<()>,
    /// Closed once the files are let go.
    disk_closed: watch::Receiver<()>,
    /// Ends the elector when the last handle is dropped.
    _dropped: watch::Sender<()>,
}

impl Store {
    /// Makes the store of a new cluster whose only manager is this node, which others will reach at
    /// `own_addr` (host and port).
    pub async fn bootstrap(
        config: StoreConfig,
        own_addr: &str,
        transport: Arc<dyn Transport>,
    ) -> Result<Store, StoreError> {
        let dir = config.dir.clone();
        let store = Store::start(config, transport, true).await?;
        if store.raft().is_initialized().await? {
            store.shutdown().await;
            return Err(StoreError::Exists { dir });
        }
        let members = BTreeMap::from([(store.0.node_id, Peer { addr: own_addr.to_owned() })]);
        store.raft().initialize(members).await.map_err(StoreError::raft)?;
        store.lead().await?;
        Ok(store)
    }

    /// Makes an empty store that waits until the leader takes this node in
    /// ([`Store::add_member`], called there). [`Store::handle`] must be reachable meanwhile. One that
    /// waited before and has heard of a leader, but of no members yet, waits on.
    pub async fn join(
        config: StoreConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<Store, StoreError> {
        let dir = config.dir.clone();
        let store = Store::start(config, transport, true).await?;
        let (voters, _) = store.voters().await?;
        if !voters.is_empty() {
            store.shutdown().await;
            return Err(StoreError::Exists { dir });
        }
        Ok(store)
    }

    /// Opens the store of this node. A manager that is alone has replayed its log and leads when
    /// this returns; else the managers elect a leader among them.
    pub async fn open(
        config: StoreConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<Store, StoreError> {
        let dir = config.dir.clone();
        let store = Store::start(config, transport, false).await?;
        store.opened(dir).await
    }

    /// Looks at the state in memory. Nothing is applied meanwhile, so `f` must be quick; it must not
    /// call the store again. On a manager that does not lead it may be some time behind.
    pub fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        self.0.replica.read(f)
    }

    /// Proposes changes, applied whole or not at all, and returns the state's version with them.
    /// Only the leader takes proposals. Waits while many others are under way. No changes: the
    /// present version, without an entry.
    pub async fn propose(&self, changes: Vec<Change>) -> Result<u64, StoreError> {
        if changes.is_empty() {
            return Ok(self.read(|state| state.version));
        }
        self.0.proposals.propose(changes).await
    }

    /// Returns once all that was acknowledged before the call can be read here, on the leader only:
    /// it asks the others whether it still leads.
    pub async fn barrier(&self) -> Result<(), StoreError> {
        self.must_lead()?;
        if bugs::active(Bug::ReadStale) {
            return Ok(());
        }
        self.while_leading(self.raft().ensure_linearizable()).await?;
        Ok(())
    }

    /// The state's version, after each change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.replica.versions()
    }

    /// Who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.watches.leadership.clone()
    }

    /// Whether this node leads, so that proposals can be made here.
    pub fn is_leader(&self) -> bool {
        self.0.watches.leadership.borrow().ours
    }

    /// Why the store has failed, once it has: its disk could not be written, say. It then takes
    /// part in nothing any more, and must be opened anew once the reason is gone.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.0.watches.failed.clone()
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

    fn contacts(&self) -> &Contacts {
        &self.0.network.contacts
    }

    fn network(&self) -> &Network {
        &self.0.network
    }

    /// This manager's node id.
    pub fn node_id(&self) -> String {
        self.0.node_id.into()
    }

    /// Seals the files with a new data key. If it is interrupted, the next opening completes it.
    pub async fn rotate_data_key(&self) -> Result<(), StoreError> {
        let disk = self.disk()?;
        outside::blocking(move || disk.change_data_key()).await?
    }

    /// Locks the data key under `unlock`, or leaves it open on the disk. The files stay as they are;
    /// Docker changes the data key too ([`Store::rotate_data_key`]).
    pub async fn set_unlock_key(&self, unlock: Option<UnlockKey>) -> Result<(), StoreError> {
        let disk = self.disk()?;
        Ok(outside::blocking(move || disk.vault().set_unlock_key(unlock)).await??)
    }

    fn disk(&self) -> Result<Arc<Disk>, StoreError> {
        self.0.disk.upgrade().ok_or_else(|| StoreError::Stopped("its files are closed".into()))
    }

    async fn membership_lock(&self) -> MutexGuard<'_, ()> {
        self.0.membership.lock().await
    }

    fn not_leader(&self) -> StoreError {
        leadership::not_leader(&self.0.watches.leadership)
    }

    fn must_lead(&self) -> Result<(), StoreError> {
        if self.is_leader() { Ok(()) } else { Err(self.not_leader()) }
    }

    async fn while_leading<R, E: Into<StoreError>>(
        &self,
        answer: impl Future<Output = Result<R, E>>,
    ) -> Result<R, StoreError> {
        leadership::while_leading(self.leadership(), answer).await
    }

    async fn start(
        config: StoreConfig,
        transport: Arc<dyn Transport>,
        create: bool,
    ) -> Result<Store, StoreError> {
        config.manager_id()?;
        let (dir, keys) = (config.dir.clone(), config.keys.clone());
        let disk = outside::blocking(move || Disk::open(&dir, &keys, create)).await??;
        Store::run(config, transport, disk).await
    }

    async fn run(
        config: StoreConfig,
        transport: Arc<dyn Transport>,
        disk: Disk,
    ) -> Result<Store, StoreError> {
        let node_id = config.manager_id()?;
        disk.check_owner(&config.dir, node_id)?;
        let disk = Arc::new(disk);
        let disk_closed = disk.closed();
        let writer = Writer::new(disk.clone());
        let machine = Machine::load(disk.clone(), writer.written()).await?;
        let replica = machine.replica();
        let settings = Config {
            cluster_name: "shoal".into(),
            heartbeat_interval: ANSWER_MS,
            election_timeout_min: ANSWER_MS + 1,
            election_timeout_max: elector::LEASE.as_millis() as u64,
            enable_heartbeat: false,
            enable_elect: false,
            install_snapshot_timeout: SNAPSHOT_CHUNK_TIMEOUT_MS,
            snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
            // See `compaction`: nothing by itself.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            ..Config::default()
        };
        let settings = Arc::new(settings.validate().map_err(StoreError::raft)?);
        let contacts = Arc::new(Contacts::default());
        let network = Network { transport, contacts: contacts.clone(), written: writer.written() };
        let (kept, log) = (Arc::downgrade(&disk), Log::new(node_id, disk, writer));
        let raft = Raft::new(node_id, settings, network.clone(), log, machine).await?;
        let (dropped, seen) = watch::channel(());
        let pace = Pace { interval: config.snapshot_interval, keep: config.snapshot_keep };
        tokio::spawn(compaction::run(raft.clone(), replica.clone(), pace, seen.clone()));
        tokio::spawn(Elector { raft: raft.clone(), network: network.clone() }.run(seen));
        let watches = leadership::start(raft.metrics(), contacts.clone());
        let proposals = Proposals::start(raft.clone(), watches.leadership.clone(), contacts);
        let membership = Mutex::new(());
        Ok(Store(Arc::new(Inner {
            node_id,
            raft,
            proposals,
            replica,
            network,
            disk: kept,
            watches,
            membership,
            disk_closed,
            _dropped: dropped,
        })))
    }

    /// What is left to do for a store that was there already.
    async fn opened(self, dir: PathBuf) -> Result<Store, StoreError> {
        let checked = self.check_membership(dir).await;
        match checked {
            Ok(()) => Ok(self),
            Err(error) => {
                self.shutdown().await;
                Err(error)
            }
        }
    }

    async fn check_membership(&self, dir: PathBuf) -> Result<(), StoreError> {
        let own = self.0.node_id;
        match self.voters().await? {
            (voters, _) if voters.is_empty() => Err(StoreError::Missing { dir }),
            (_, false) => Err(StoreError::Removed { dir, node_id: own.into() }),
            (voters, true) if voters.len() == 1 && voters.contains(&own) => self.lead().await,
            _ => Ok(()), // whoever is elected
        }
    }

    /// The voters, as the log on the disk has them, and whether this manager is one of the members.
    async fn voters(&self) -> Result<(BTreeSet<ManagerId>, bool), StoreError> {
        let own = self.0.node_id;
        let members = self.raft().with_raft_state(move |state| {
            let membership = state.membership_state.effective().membership();
            (membership.voter_ids().collect(), membership.get_node(&own).is_some())
        });
        Ok(members.await?)
    }

    /// The only voter: takes the lead, and waits until all that is in the log is applied.
    async fn lead(&self) -> Result<(), StoreError> {
        self.raft().trigger().elect().await?;
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
        let mut leadership = self.leadership();
        let ours = leadership.wait_for(|leadership| leadership.ours);
        match tokio::time::timeout(PATIENCE, ours).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.not_leader()),
        }
    }
}
