//! Making a store, joining with one, opening one again: from its files to its tasks.

use crate::{
    Inner, PATIENCE, Store, StoreConfig,
    compaction::{self, Pace},
    disk::Disk,
    elector::{self, Elector},
    error::{DiskError, StoreError},
    leadership,
    log::Log,
    machine::Machine,
    network::{Contacts, Network},
    outside,
    proposals::Proposals,
    transport::Transport,
    types::{ManagerId, Peer, Raft},
    writer::Writer,
};
use openraft::{Config, ServerState, SnapshotPolicy};
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::resume_unwind,
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::{Mutex, watch};

/// How long openraft waits for an answer to log entries. Its timers for heartbeats and elections are
/// off (see [`crate::elector`]); this bounds its lease too, which must be shorter than a follower's patience.
const ANSWER_MS: u64 = 400;

/// For a piece of a snapshot to be taken; the last one includes writing it to the disk.
const SNAPSHOT_CHUNK_TIMEOUT_MS: u64 = 30_000;

/// A piece of a snapshot; a quarter of what a call may carry.
const SNAPSHOT_CHUNK_BYTES: u64 = 1 << 20;

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

    pub(crate) async fn run(
        config: StoreConfig,
        transport: Arc<dyn Transport>,
        disk: Disk,
    ) -> Result<Store, StoreError> {
        let runtime = config.runtime.clone();
        let run = Store::run_here(config, transport, disk);
        match runtime {
            Some(runtime) => match runtime.spawn(run).await {
                Ok(store) => store,
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                Err(_) => Err(DiskError::Ending.into()),
            },
            None => run.await,
        }
    }

    async fn run_here(
        config: StoreConfig,
        transport: Arc<dyn Transport>,
        disk: Disk,
    ) -> Result<Store, StoreError> {
        let node_id = config.manager_id()?;
        disk.check_owner(&config.dir, node_id)?;
        let disk = Arc::new(disk);
        let disk_closed = disk.closed();
        let writer = Writer::new(disk.clone())?;
        let machine = Machine::load(node_id, disk.clone(), writer.written()).await?;
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
    pub(crate) async fn opened(self, dir: PathBuf) -> Result<Store, StoreError> {
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
