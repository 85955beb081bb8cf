//! The store's files: log entries and vote in a database, the snapshot in a file of its own. Blocking;
//! what a function has written is on the disk when it returns. Entries and snapshots are sealed.

use crate::{
    error::{DiskError, StoreError},
    keys::Keys,
    seal::Label,
    snapshots::Snapshots,
    tail::{Record, Tail},
    types::{Entry, LogId, ManagerId, SnapshotMeta, Vote},
    vault::Vault,
};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    backends::FileBackend,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    any::Any,
    fs::{self, OpenOptions},
    io::{self, ErrorKind},
    ops::Bound,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::watch,
    task::block_in_place,
};

/// Entries by index: postcard, sealed.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Single values by name, JSON. Nothing in it is secret.
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");

/// Names in [`VALUES`].
const VOTE: &str = "vote";
/// Id of the last entry that was purged.
const PURGED: &str = "purged";
/// Id of an entry up to which all were known to be committed.
const COMMITTED: &str = "committed";
/// Which snapshot file counts.
const SNAPSHOT: &str = "snapshot";
/// Generation of the [`Tail`].
const TAIL: &str = "tail";
/// Whose store it is.
const NODE_ID: &str = "node-id";

/// Pages redb keeps in memory. The state itself is in memory anyway.
const CACHE_BYTES: usize = 16 << 20;

/// Log entries sealed anew in one transaction.
const RESEAL_BATCH: usize = 256;

pub(crate) struct Disk {
    path: PathBuf,
    database: Database,
    snapshots: Snapshots,
    vault: Vault,
    ends: Mutex<Ends>,
    /// Entries that are not in the database yet.
    tail: Mutex<Tail>,
    tail_path: PathBuf,
    /// Held while the snapshot is replaced.
    snapshot: Mutex<()>,
    // Behind the database: dropped after it.
    closed: watch::Sender<()>,
}

#[derive(Default)]
struct Ends {
    /// Written when entries move to the database: it is of use, but not worth a flush of its own.
    committed: Option<LogId>,
    /// The last entry written since the store was opened.
    last: Option<LogId>,
}

impl Disk {
    /// Opens the files in `dir`, which only its owner may look at.
    pub(crate) fn open(dir: &Path, keys: &Keys, create: bool) -> Result<Disk, StoreError> {
        Disk::open_with(dir, keys, create, |file| file)
    }

    /// The same, with something between the database, the tail and their files, in this order.
    pub(crate) fn open_with<B: StorageBackend>(
        dir: &Path,
        keys: &Keys,
        create: bool,
        wrap: impl Fn(FileBackend) -> B,
    ) -> Result<Disk, StoreError> {
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
        }
        // Before the database: a store without its key is of no use.
        let vault = Vault::open(keys.clone(), !there)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(at("open", &path))?;
        let opened = FileBackend::new(file).and_then(|file| {
            Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(wrap(file))
        });
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                StoreError::InUse { dir: dir.to_owned() }
            }
            DatabaseError::Storage(redb::StorageError::Io(source))
                if source.kind() != ErrorKind::InvalidData =>
            {
                StoreError::File { action: "open", path: path.clone(), source }
            }
            source => StoreError::Damaged { path: path.clone(), source },
        })?;
        make_tables(&database).map_err(StoreError::Disk)?;
        let tail_path = dir.join("raft.tail");
        let generation = value(&database, TAIL)?;
        if generation.is_none() {
            Tail::create(&tail_path).map_err(at("make", &tail_path))?;
        }
        let tail = Tail::open(&tail_path, generation.unwrap_or(1), wrap);
        let disk = Disk {
            path,
            database,
            snapshots: Snapshots::new(dir),
            vault,
            ends: Mutex::default(),
            tail: Mutex::new(tail.map_err(at("read", &tail_path))?),
            tail_path,
            snapshot: Mutex::default(),
            closed: watch::Sender::new(()),
        };
        fs::File::open(dir).and_then(|d| d.sync_all()).map_err(at("write", dir))?;
        if generation.is_none() {
            disk.save_value(TAIL, &disk.lock_tail().generation())?;
        }
        drop(disk.all_in_database()?);
        disk.lock_committed().committed = disk.value(COMMITTED)?;
        let current: Option<String> = disk.value(SNAPSHOT)?;
        disk.snapshots.remove_others(current.as_deref());
        if disk.vault.changing() {
            disk.complete_key_change()?;
        }
        Ok(disk)
    }

    /// A receiver whose sender goes when the files have been let go.
    pub(crate) fn closed(&self) -> watch::Receiver<()> {
        self.closed.subscribe()
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Refuses another node's store; one that is nobody's becomes this node's.
    pub(crate) fn check_owner(&self, dir: &Path, node_id: ManagerId) -> Result<(), StoreError> {
        match self.value::<ManagerId>(NODE_ID)? {
            Some(owner) if owner == node_id => Ok(()),
            None => Ok(self.save_value(NODE_ID, &node_id)?),
            Some(owner) => Err(StoreError::OtherNode {
                dir: dir.to_owned(),
                node_id: node_id.into(),
                owner: owner.into(),
            }),
        }
    }

    /// Seals everything with a new data key, and forgets the old one once nothing is left that
    /// needs it. If it is interrupted, the next opening completes it.
    pub(crate) fn change_data_key(&self) -> Result<(), StoreError> {
        self.vault.begin_change()?;
        self.complete_key_change()
    }

    fn complete_key_change(&self) -> Result<(), StoreError> {
        let mut from = 0;
        while let Some(last) = self.reseal_entries(from)? {
            from = last + 1;
        }
        {
            let _one = self.lock_snapshot();
            if let Some((meta, data)) = self.snapshot()? {
                self.write_snapshot(&meta, &data)?;
            }
        }
        Ok(self.vault.end_change()?)
    }

    /// Seals some entries anew, from an index on, and returns the last one's index.
    pub(crate) fn reseal_entries(&self, from: u64) -> Result<Option<u64>, DiskError> {
        let _tail = self.all_in_database()?;
        let transaction = self.database.begin_write()?;
        let last = {
            let mut table = transaction.open_table(LOG)?;
            let mut sealed = Vec::new();
            for row in table.range(from..)?.take(RESEAL_BATCH) {
                let (index, record) = row?;
                let content = self.unseal_entry(index.value(), record.value())?;
                sealed
                    .push((index.value(), self.vault.seal(Label::Entry(index.value()), &content)));
            }
            for (index, record) in &sealed {
                table.insert(index, record.as_slice())?;
            }
            sealed.last().map(|(index, _)| *index)
        };
        transaction.commit()?;
        Ok(last)
    }

    pub(crate) fn vote(&self) -> Result<Option<Vote>, DiskError> {
        self.value(VOTE)
    }

    pub(crate) fn save_vote(&self, vote: &Vote) -> Result<(), DiskError> {
        self.save_value(VOTE, vote)
    }

    pub(crate) fn committed(&self) -> Option<LogId> {
        self.lock_committed().committed
    }

    pub(crate) fn set_committed(&self, committed: Option<LogId>) {
        self.lock_committed().committed = committed;
    }

    /// Ids of the last purged entry and of the last entry there is or was.
    pub(crate) fn log_ends(&self) -> Result<[Option<LogId>; 2], DiskError> {
        drop(self.all_in_database()?);
        let purged: Option<LogId> = self.value(PURGED)?;
        let table = self.database.begin_read()?.open_table(LOG)?;
        let last =
            table.last()?.map(|(index, record)| self.open_entry(index.value(), record.value()));
        let last = last.transpose()?.map(|entry| entry.log_id);
        Ok([purged, last.or(purged)])
    }

    /// Entries in order, until they are `max` bytes or more.
    pub(crate) fn entries(
        &self,
        range: (Bound<u64>, Bound<u64>),
        max: usize,
    ) -> Result<Vec<Entry>, DiskError> {
        drop(self.all_in_database()?);
        let table = self.database.begin_read()?.open_table(LOG)?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for row in table.range::<u64>(range)? {
            let (index, record) = row?;
            bytes += record.value().len();
            entries.push(self.open_entry(index.value(), record.value())?);
            if bytes >= max {
                break;
            }
        }
        Ok(entries)
    }

    pub(crate) fn append(&self, entries: &[Entry]) -> Result<(), DiskError> {
        let mut tail = self.lock_tail();
        let seal = |entry: &Entry| {
            let (index, content) = (entry.log_id.index, encode_entry(entry)?);
            Ok((index, self.vault.seal(Label::Entry(index), &content)))
        };
        let records = entries.iter().map(seal).collect::<Result<Vec<Record>, DiskError>>()?;
        self.last(entries.last().map(|entry| entry.log_id));
        match tail.has_room(&records) {
            true => tail.append(records).map_err(|source| DiskError::File {
                action: "write",
                path: self.tail_path.clone(),
                source,
            }),
            false => self.move_tail(&mut tail, &records),
        }
    }

    /// The last entry that is about to be here. No later one is noted as committed: a leader may know
    /// of more before it is here.
    fn last(&self, last: Option<LogId>) {
        let mut ends = self.lock_committed();
        ends.last = last.or(ends.last);
    }

    /// Moves what is in the tail to the database, and more behind it.
    fn move_tail(&self, tail: &mut Tail, more: &[Record]) -> Result<(), DiskError> {
        if tail.records().is_empty() && more.is_empty() {
            return Ok(());
        }
        let committed = {
            let ends = self.lock_committed();
            ends.committed.min(ends.last)
        };
        let committed = committed.map(|id| encode(COMMITTED, &id)).transpose()?;
        let generation = tail.generation() + 1;
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(LOG)?;
            for (index, record) in tail.records().iter().chain(more) {
                table.insert(index, record.as_slice())?;
            }
            let mut values = transaction.open_table(VALUES)?;
            values.insert(TAIL, encode(TAIL, &generation)?.as_slice())?;
            if let Some(committed) = committed {
                values.insert(COMMITTED, committed.as_slice())?;
            }
        }
        transaction.commit()?;
        tail.begin(generation);
        Ok(())
    }

    /// Nothing is in the tail as long as the guard lives: the database has all.
    fn all_in_database(&self) -> Result<MutexGuard<'_, Tail>, DiskError> {
        let mut tail = self.lock_tail();
        self.move_tail(&mut tail, &[])?;
        Ok(tail)
    }

    /// Removes the entries from `index` on.
    pub(crate) fn truncate(&self, index: u64) -> Result<(), DiskError> {
        let _tail = self.all_in_database()?;
        let transaction = self.database.begin_write()?;
        transaction.open_table(LOG)?.retain_in(index.., |_, _| false)?;
        Ok(transaction.commit()?)
    }

    /// Removes the entries up to and with `last`.
    pub(crate) fn purge(&self, last: &LogId) -> Result<(), DiskError> {
        let _tail = self.all_in_database()?;
        let bytes = encode(PURGED, last)?;
        let transaction = self.database.begin_write()?;
        transaction.open_table(LOG)?.retain_in(..=last.index, |_, _| false)?;
        transaction.open_table(VALUES)?.insert(PURGED, bytes.as_slice())?;
        Ok(transaction.commit()?)
    }

    pub(crate) fn snapshot(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, DiskError> {
        let Some(name) = self.value::<String>(SNAPSHOT)? else { return Ok(None) };
        self.snapshots.read(&name, &self.vault).map(Some)
    }

    /// The file first, then the note that it counts, then the older ones go.
    pub(crate) fn save_snapshot(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), DiskError> {
        let _one = self.lock_snapshot();
        self.write_snapshot(meta, data)
    }

    fn write_snapshot(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), DiskError> {
        let name = self.snapshots.write(meta, data, &self.vault)?;
        self.save_value(SNAPSHOT, &name)?;
        self.snapshots.remove_others(Some(&name));
        Ok(())
    }

    fn unseal_entry(&self, index: u64, record: &[u8]) -> Result<Vec<u8>, DiskError> {
        self.vault.unseal(Label::Entry(index), record).map_err(|source| {
            let what = format!("log entry {index}");
            DiskError::Sealed { what, path: self.path.clone(), source: source.into() }
        })
    }

    fn open_entry(&self, index: u64, record: &[u8]) -> Result<Entry, DiskError> {
        let content = self.unseal_entry(index, record)?;
        postcard::from_bytes(&content)
            .map_err(|source| DiskError::Format { what: "log entry", source: source.into() })
    }

    fn value<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, DiskError> {
        value(&self.database, name)
    }

    fn save_value(&self, name: &'static str, value: &impl Serialize) -> Result<(), DiskError> {
        let bytes = encode(name, value)?;
        let transaction = self.database.begin_write()?;
        transaction.open_table(VALUES)?.insert(name, bytes.as_slice())?;
        Ok(transaction.commit()?)
    }

    fn lock_snapshot(&self) -> MutexGuard<'_, ()> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_committed(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_tables(database: &Database) -> Result<(), DiskError> {
    let transaction = database.begin_write()?;
    transaction.open_table(LOG)?;
    transaction.open_table(VALUES)?;
    Ok(transaction.commit()?)
}

fn value<T: DeserializeOwned>(
    database: &Database,
    name: &'static str,
) -> Result<Option<T>, DiskError> {
    let table = database.begin_read()?.open_table(VALUES)?;
    table.get(name)?.map(|bytes| decode(name, bytes.value())).transpose()
}

/// Runs blocking work beside the runtime's threads.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, DiskError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result),
        Err(error) if error.is_panic() => Err(panicked(&*error.into_panic())),
        Err(_) => Err(DiskError::Ending),
    }
}

/// Runs blocking work that somebody waits for on this thread, and lets another of the runtime's take
/// over what else there is to do: one thread less to wake on the way.
pub(crate) async fn blocking_here<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, DiskError> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => {
            let work = AssertUnwindSafe(|| block_in_place(work));
            catch_unwind(work).map_err(|panic| panicked(&*panic))
        }
        _ => blocking(work).await,
    }
}

/// redb panics on pages that make no sense; the log must end with a reason then.
fn panicked(panic: &(dyn Any + Send)) -> DiskError {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
    DiskError::Panic(text.to_owned())
}

fn encode_entry(entry: &Entry) -> Result<Vec<u8>, DiskError> {
    postcard::to_stdvec(entry)
        .map_err(|source| DiskError::Format { what: "log entry", source: source.into() })
}

fn encode(what: &'static str, value: &impl Serialize) -> Result<Vec<u8>, DiskError> {
    serde_json::to_vec(value).map_err(|e| DiskError::Format { what, source: e.into() })
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DiskError> {
    serde_json::from_slice(bytes).map_err(|e| DiskError::Format { what, source: e.into() })
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path: PathBuf = path.to_owned();
    move |source| StoreError::File { action, path, source }
}
