//! The state machine: the state in memory, and its snapshots on disk.

use crate::{
    bugs::{self, Bug},
    compaction::AskedPace,
    disk::Disk,
    error::{DiskError, any},
    outside::{self, background, blocking, waiting},
    types::{Entry, LogId, ManagerId, SnapshotMeta, StorageError, StoredMembership, Types},
    writer::Written,
};
use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError,
    storage::RaftStateMachine,
};
use shoal_model::{ApplyError, Frozen, State};
use std::{
    io::{self, BufReader, Cursor},
    sync::{Arc, Mutex, PoisonError, RwLock},
};
use tokio::sync::watch;

/// zstd's fastest ordinary level.
const LEVEL: i32 = 1;

/// The state others read while the machine changes it.
pub(crate) struct Replica {
    state: RwLock<State>,
    version: watch::Sender<u64>,
    /// What the state says of it; apart, so that who minds it need not wait for somebody who reads the state.
    asked: Mutex<AskedPace>,
}

impl Replica {
    fn new(state: State) -> Replica {
        let version = watch::Sender::new(state.version);
        let asked = Mutex::new(AskedPace::of(&state));
        Replica { state: RwLock::new(state), version, asked }
    }

    /// When snapshots are made, as the cluster's specification says.
    pub(crate) fn asked_pace(&self) -> AskedPace {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        // A panic while applying has stopped the store; what is there can still be read.
        f(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn write<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = match self.state.try_write() {
            Ok(state) => state,
            // Somebody reads. What managers say to each other must not wait for that, too.
            Err(_) => waiting(|| self.state.write().unwrap_or_else(PoisonError::into_inner)),
        };
        let result = f(&mut state);
        let (version, asked) = (state.version, AskedPace::of(&state));
        drop(state);
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        self.version.send_if_modified(|v| std::mem::replace(v, version) != version);
        result
    }
}

/// The state and how far it has come.
pub(crate) struct Machine {
    own: ManagerId,
    disk: Arc<Disk>,
    written: Written,
    replica: Arc<Replica>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// The state of the last snapshot; openraft applies what the log has beyond it.
    pub(crate) async fn load(
        own: ManagerId,
        disk: Arc<Disk>,
        written: Written,
    ) -> Result<Machine, DiskError> {
        let from = disk.clone();
        let (meta, state) = blocking(move || match from.snapshot()? {
            Some((meta, data)) => Ok((meta, decode(&data)?)),
            None => Ok::<_, DiskError>((SnapshotMeta::default(), State::default())),
        })
        .await??;
        outside::installed(&disk, meta.last_log_id);
        let replica = Arc::new(Replica::new(state));
        let (applied, membership) = (meta.last_log_id, meta.last_membership);
        Ok(Machine { own, disk, written, replica, applied, membership })
    }

    pub(crate) fn replica(&self) -> Arc<Replica> {
        self.replica.clone()
    }

    fn apply_one(&mut self, entry: Entry) -> serde_json::Result<Vec<Result<u64, ApplyError>>> {
        let transactions = match &entry.payload {
            EntryPayload::Normal(batch) => batch.transactions()?,
            _ => Vec::new(),
        };
        self.applied = Some(entry.log_id);
        Ok(match entry.payload {
            EntryPayload::Blank => Vec::new(),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Vec::new()
            }
            EntryPayload::Normal(_) => self.replica.write(|state| {
                transactions
                    .into_iter()
                    .map(|transaction| {
                        let version = state.version + 1;
                        state.apply(version, transaction.now, transaction.changes)?;
                        Ok(version)
                    })
                    .collect()
            }),
        })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(
        &mut self,
        entries: I,
    ) -> Result<Vec<Vec<Result<u64, ApplyError>>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut results = Vec::new();
        let mut first = true;
        for entry in entries {
            let id = entry.log_id;
            // The leader's call that says so is answered first: it waits for the answer.
            if std::mem::take(&mut first) && id.leader_id.node_id != self.own {
                tokio::task::yield_now().await;
            }
            if !bugs::active(Bug::ApplyBeforeFsync) {
                let written = self.written.until(id.index).await;
                written
                    .map_err(|e| StorageError::IO { source: StorageIOError::apply(id, any(&e)) })?;
            }
            outside::applying(&self.disk, &entry);
            results.push(self.apply_one(entry).map_err(|e| StorageError::IO {
                source: StorageIOError::apply(id, AnyError::new(&e)),
            })?);
        }
        Ok(results)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let applied = self.applied;
        // Nothing is applied meanwhile, and nobody else waits for it.
        let replica = self.replica.clone();
        let state = blocking(move || replica.read(State::freeze)).await;
        let id = applied.as_ref().map_or_else(|| "0".to_owned(), |id| id.index.to_string());
        Builder {
            disk: self.disk.clone(),
            meta: SnapshotMeta {
                last_log_id: applied,
                last_membership: self.membership.clone(),
                snapshot_id: id,
            },
            state: Some(state),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let (disk, saved) = (self.disk.clone(), meta.clone());
        let state = blocking(move || {
            let data = snapshot.into_inner();
            let state = decode(&data)?;
            disk.save_snapshot(&saved, &data)?;
            Ok::<_, DiskError>(state)
        })
        .await
        .and_then(|result| result)
        .map_err(|e| write_error(meta, &e))?;
        outside::installed(&self.disk, meta.last_log_id);
        let former = self.replica.write(|present| std::mem::replace(present, state));
        // It may be large, and goes where nobody waits for it.
        drop(blocking(move || drop(former)).await);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let disk = self.disk.clone();
        let found = blocking(move || disk.snapshot()).await.and_then(|result| result);
        let found = found.map_err(|e| StorageError::IO {
            source: StorageIOError::read_snapshot(None, any(&e)),
        })?;
        Ok(found.map(|(meta, data)| Snapshot { meta, snapshot: Box::new(Cursor::new(data)) }))
    }
}

/// Writes a snapshot of the state it was made with.
pub(crate) struct Builder {
    disk: Arc<Disk>,
    meta: SnapshotMeta,
    /// Until it is written: it may be large, and goes where it was written.
    state: Option<Result<Frozen, DiskError>>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let (disk, meta, state) = (self.disk.clone(), self.meta.clone(), self.state.take());
        let data = background(move || {
            // openraft asks a builder for one snapshot.
            let data = encode(&state.unwrap_or(Err(DiskError::Ending))?)?;
            disk.save_snapshot(&meta, &data)?;
            Ok::<_, DiskError>(data)
        })
        .await
        .and_then(|result| result)
        .map_err(|e| write_error(&self.meta, &e))?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(Cursor::new(data)) })
    }
}

fn write_error(meta: &SnapshotMeta, e: &DiskError) -> StorageError {
    let source = StorageIOError::write_snapshot(Some(meta.signature()), any(e));
    StorageError::IO { source }
}

/// A snapshot: the state as JSON, compressed. JSON because managers of different versions must both be
/// able to read it, and compressed because JSON shrinks to a tenth.
fn encode(state: &Frozen) -> Result<Vec<u8>, DiskError> {
    let compressed = || -> io::Result<Vec<u8>> {
        let mut out = zstd::Encoder::new(Vec::new(), LEVEL)?;
        out.include_checksum(true)?;
        serde_json::to_writer(&mut out, state)?;
        out.finish()
    };
    compressed().map_err(format)
}

fn decode(data: &[u8]) -> Result<State, DiskError> {
    let input = zstd::Decoder::new(data).map_err(format)?;
    serde_json::from_reader(BufReader::new(input)).map_err(|e| format(e.into()))
}

fn format(error: io::Error) -> DiskError {
    DiskError::Format { what: "snapshot", source: error.into() }
}
