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
mod config;
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
mod opening;
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

pub use config::StoreConfig;
pub use error::{DiskError, StoreError};
pub use keys::{KeyError, Keys, UnlockKey};
pub use leadership::Leadership;
pub use members::Member;
pub use proposals::MAX_PROPOSAL_BYTES;
pub use transport::{Alone, MAX_CALL_BYTES, RaftCall, Transport, TransportError};

use crate::{
    bugs::Bug,
    disk::Disk,
    leadership::Watches,
    machine::Replica,
    network::{Contacts, Network},
    proposals::Proposals,
    types::{ManagerId, Raft},
};
use shoal_model::{Change, State};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::{Mutex, MutexGuard, watch};

/// How long opening may wait until the log is applied, and closing until the files are let go.
const PATIENCE: Duration = Duration::from_secs(60);

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
}
