//! In the place of `outside.rs` where a simulation runs the store (`tests/raft`): everything happens on one
//! thread, and time, chance and disks are the simulation's. No part of the product.

use crate::{
    disk::Disk,
    error::DiskError,
    types::{Entry, LogId},
};
use openraft::EntryPayload;
use redb::{StorageBackend, backends::FileBackend};
use std::{cell::RefCell, io, path::Path, rc::Rc, time::Duration};

/// Who an entry is from, and what is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// Term of the leader that made it.
    pub term: u64,
    /// Node id of that leader.
    pub leader: String,
    /// CRC-32 of what it holds.
    pub digest: u32,
}

/// A simulation, as the stores in it see it.
pub trait World {
    /// Since 1970.
    fn now(&self) -> Duration;
    /// From 0 to 1.
    fn random(&self) -> f64;
    /// How long the disk of the host that runs at present needs for what it is asked now.
    fn disk_takes(&self) -> Duration;
    /// Comes between the store in `dir` and its files: the database, then the tail.
    fn file(&self, dir: &Path, file: FileBackend) -> Box<dyn StorageBackend>;
    /// The store whose database is `path` applies an entry.
    fn applying(&self, path: &Path, index: u64, content: Content);
    /// It has taken a snapshot up to the entry at `index`.
    fn installed(&self, path: &Path, index: u64);
    /// Whether the store shall make this mistake.
    fn has(&self, bug: crate::bugs::Bug) -> bool;
}

thread_local! {
    static WORLD: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
}

/// Sets the simulation of this thread, or ends it.
pub fn enter(world: Option<Rc<dyn World>>) {
    WORLD.set(world);
}

fn world() -> Rc<dyn World> {
    WORLD.with_borrow(Clone::clone).expect("a simulation runs in this thread")
}

pub(crate) fn has(bug: crate::bugs::Bug) -> bool {
    world().has(bug)
}

pub(crate) fn now() -> Duration {
    world().now()
}

pub(crate) fn random() -> f64 {
    world().random()
}

pub(crate) fn applying(disk: &Disk, entry: &Entry) {
    let digest = match &entry.payload {
        EntryPayload::Normal(batch) => batch.digest(),
        EntryPayload::Membership(membership) => crc32fast::hash(membership.to_string().as_bytes()),
        EntryPayload::Blank => 0,
    };
    let by = entry.log_id.leader_id;
    let content = Content { term: by.term, leader: by.node_id.into(), digest };
    world().applying(disk.path(), entry.log_id.index, content);
}

pub(crate) fn installed(disk: &Disk, last: Option<LogId>) {
    if let Some(last) = last {
        world().installed(disk.path(), last.index);
    }
}

/// Does the work when the disk's time has passed. It is done even if nobody waits for it any more, as
/// that of a thread would be.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, DiskError> {
    let takes = world().disk_takes();
    let done = tokio::spawn(async move {
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        work()
    });
    match done.await {
        Ok(result) => Ok(result),
        Err(error) if error.is_panic() => Err(DiskError::Panic("in the simulated disk".into())),
        Err(_) => Err(DiskError::Ending),
    }
}

pub(crate) async fn background<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, DiskError> {
    blocking(work).await
}

/// In the place of the thread: the simulated disk takes its time.
pub(crate) struct DiskThread;

impl DiskThread {
    pub(crate) fn start() -> Result<DiskThread, DiskError> {
        Ok(DiskThread)
    }

    pub(crate) fn run(
        &self,
        work: impl FnOnce() -> Result<(), DiskError> + Send + 'static,
        failed: impl FnOnce(DiskError) + Send + 'static,
    ) {
        tokio::spawn(async move {
            if let Err(error) = blocking(work).await.and_then(|done| done) {
                failed(error);
            }
        });
    }
}

pub(crate) fn waiting<R>(wait: impl FnOnce() -> R) -> R {
    wait()
}

pub(crate) fn file(dir: &Path, file: FileBackend) -> Medium {
    Medium(world().file(dir, file))
}

/// What the simulation puts in the place of a file.
#[derive(Debug)]
pub(crate) struct Medium(Box<dyn StorageBackend>);

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}
