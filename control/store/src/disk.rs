//! The store's files: log entries and vote in a database, the snapshot in a file of its own. Blocking;
//! what a function has written is on the disk when it returns. Entries and snapshots are sealed.

mod entries;

use self::entries::Ends;
use crate::{
    bugs::{self, Bug},
    error::{DiskError, StoreError},
    keys::Keys,
    outside,
    snapshots::Snapshots,
    tail::Tail,
    types::{ManagerId, SnapshotMeta, Vote},
    vault::Vault,
};
use redb::{
    Database, DatabaseError, ReadableDatabase, StorageBackend, TableDefinition,
    backends::FileBackend,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

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

impl Disk {
    /// Opens the files in `dir`, which only its owner may look at.
    pub(crate) fn open(dir: &Path, keys: &Keys, create: bool) -> Result<Disk, StoreError> {
        Disk::open_with(dir, keys, create, |file| outside::file(dir, file))
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

    /// The database's.
    #[cfg(feature = "seeded-bugs")]
    pub(crate) fn path(&self) -> &Path {
        &self.path
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

    pub(crate) fn vote(&self) -> Result<Option<Vote>, DiskError> {
        self.value(VOTE)
    }

    pub(crate) fn save_vote(&self, vote: &Vote) -> Result<(), DiskError> {
        self.save_value(VOTE, vote)
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
        if !bugs::active(Bug::ForgetSnapshot) {
            self.save_value(SNAPSHOT, &name)?;
        }
        self.snapshots.remove_others(Some(&name));
        Ok(())
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
