//! The database file: log entries, vote and snapshot. Blocking; every write is on the disk when its
//! function returns.

use crate::{
    error::{DiskError, StoreError},
    types::{Entry, LogId, SnapshotMeta, Vote},
};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind},
    ops::Bound,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use tokio::sync::watch;

/// Entries by index, JSON.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Single values by name, JSON.
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");

/// Names in [`VALUES`].
const VOTE: &str = "vote";
/// Id of the last entry that was purged.
const PURGED: &str = "purged";
const SNAPSHOT_META: &str = "snapshot-meta";
const SNAPSHOT: &str = "snapshot";

/// Pages redb keeps in memory. The state itself is in memory anyway.
const CACHE_BYTES: usize = 16 << 20;

pub(crate) struct Disk {
    database: Database,
    // Behind the database: dropped after it.
    closed: watch::Sender<()>,
}

impl Disk {
    /// Opens the database in `dir`, which only its owner may look at.
    pub(crate) fn open(dir: &Path, create: bool) -> Result<Disk, StoreError> {
        let path = dir.join("raft.redb");
        let there = path.try_exists().map_err(at("look for", &path))?;
        if !there && !create {
            return Err(StoreError::Missing { dir: dir.to_owned() });
        }
        if !there {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(at("make the folder", dir))?;
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(at("make", &path))?;
        }
        let database =
            Database::builder().set_cache_size(CACHE_BYTES).create(&path).map_err(|e| match e {
                DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                    StoreError::InUse { dir: dir.to_owned() }
                }
                DatabaseError::Storage(redb::StorageError::Io(source))
                    if source.kind() != ErrorKind::InvalidData =>
                {
                    StoreError::File { action: "open", path, source }
                }
                source => StoreError::Damaged { path, source },
            })?;
        let disk = Disk { database, closed: watch::Sender::new(()) };
        disk.make_tables()?;
        fs::File::open(dir).and_then(|d| d.sync_all()).map_err(at("write", dir))?;
        Ok(disk)
    }

    /// A receiver whose sender goes when the file has been let go.
    pub(crate) fn closed(&self) -> watch::Receiver<()> {
        self.closed.subscribe()
    }

    fn make_tables(&self) -> Result<(), DiskError> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(LOG)?;
        transaction.open_table(VALUES)?;
        Ok(transaction.commit()?)
    }

    pub(crate) fn vote(&self) -> Result<Option<Vote>, DiskError> {
        self.value(VOTE)
    }

    pub(crate) fn save_vote(&self, vote: &Vote) -> Result<(), DiskError> {
        let bytes = encode(VOTE, vote)?;
        let transaction = self.database.begin_write()?;
        transaction.open_table(VALUES)?.insert(VOTE, bytes.as_slice())?;
        Ok(transaction.commit()?)
    }

    /// Ids of the last purged entry and of the last entry there is or was.
    pub(crate) fn log_ends(&self) -> Result<[Option<LogId>; 2], DiskError> {
        let purged: Option<LogId> = self.value(PURGED)?;
        let table = self.database.begin_read()?.open_table(LOG)?;
        let last = table.last()?.map(|(_, bytes)| decode::<Entry>("log entry", bytes.value()));
        let last = last.transpose()?.map(|entry| entry.log_id);
        Ok([purged, last.or(purged)])
    }

    pub(crate) fn entries(&self, range: (Bound<u64>, Bound<u64>)) -> Result<Vec<Entry>, DiskError> {
        let table = self.database.begin_read()?.open_table(LOG)?;
        table.range::<u64>(range)?.map(|row| decode("log entry", row?.1.value())).collect()
    }

    pub(crate) fn append(&self, entries: &[Entry]) -> Result<(), DiskError> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(LOG)?;
            for entry in entries {
                table.insert(entry.log_id.index, encode("log entry", entry)?.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Removes the entries from `index` on.
    pub(crate) fn truncate(&self, index: u64) -> Result<(), DiskError> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(LOG)?.retain_in(index.., |_, _| false)?;
        Ok(transaction.commit()?)
    }

    /// Removes the entries up to and with `last`.
    pub(crate) fn purge(&self, last: &LogId) -> Result<(), DiskError> {
        let bytes = encode("log id", last)?;
        let transaction = self.database.begin_write()?;
        transaction.open_table(LOG)?.retain_in(..=last.index, |_, _| false)?;
        transaction.open_table(VALUES)?.insert(PURGED, bytes.as_slice())?;
        Ok(transaction.commit()?)
    }

    pub(crate) fn snapshot(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, DiskError> {
        let table = self.database.begin_read()?.open_table(VALUES)?;
        let (Some(meta), Some(data)) = (table.get(SNAPSHOT_META)?, table.get(SNAPSHOT)?) else {
            return Ok(None);
        };
        Ok(Some((decode(SNAPSHOT_META, meta.value())?, data.value().to_vec())))
    }

    pub(crate) fn save_snapshot(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), DiskError> {
        let meta = encode(SNAPSHOT_META, meta)?;
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(VALUES)?;
            table.insert(SNAPSHOT_META, meta.as_slice())?;
            table.insert(SNAPSHOT, data)?;
        }
        Ok(transaction.commit()?)
    }

    fn value<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, DiskError> {
        let table = self.database.begin_read()?.open_table(VALUES)?;
        table.get(name)?.map(|bytes| decode(name, bytes.value())).transpose()
    }
}

/// Runs blocking work beside the runtime's threads.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, DiskError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(DiskError::Ending),
    }
}

pub(crate) fn encode(what: &'static str, value: &impl Serialize) -> Result<Vec<u8>, DiskError> {
    serde_json::to_vec(value).map_err(|source| DiskError::Format { what, source })
}

pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, DiskError> {
    serde_json::from_slice(bytes).map_err(|source| DiskError::Format { what, source })
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path: PathBuf = path.to_owned();
    move |source| StoreError::File { action, path, source }
}
