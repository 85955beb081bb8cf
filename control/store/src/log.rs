//! openraft's view of the log on disk.

use crate::{
    disk::{Disk, blocking},
    error::{DiskError, any},
    recent::Recent,
    types::{Entry, LogId, ManagerId, StorageError, Types, Vote},
};
use openraft::{
    AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};
use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Entries sent to another manager at once; no more are added at this size, so one request never
/// exceeds it by more than one entry.
const MAX_APPEND_BYTES: usize = 1 << 20;

/// The log. openraft serializes its writes; readers are clones.
#[derive(Clone)]
pub(crate) struct Log {
    disk: Arc<Disk>,
    recent: Arc<Mutex<Recent>>,
}

impl Log {
    pub(crate) fn new(disk: Arc<Disk>) -> Log {
        Log { disk, recent: Arc::default() }
    }

    async fn run<R: Send + 'static>(
        &self,
        context: fn(AnyError) -> StorageIOError<ManagerId>,
        work: impl FnOnce(&Disk) -> Result<R, DiskError> + Send + 'static,
    ) -> Result<R, StorageError> {
        let disk = self.disk.clone();
        blocking(move || work(&disk))
            .await
            .and_then(|result| result)
            .map_err(|e| StorageError::IO { source: context(any(&e)) })
    }

    async fn entries(
        &self,
        range: (Bound<u64>, Bound<u64>),
        max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let recent = self.recent().get(range, max);
        match recent {
            Some(entries) => Ok(entries),
            None => self.run(StorageIOError::read_logs, move |disk| disk.entries(range, max)).await,
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.entries(range, usize::MAX).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let range = (Bound::Included(start), Bound::Excluded(end));
        self.entries(range, MAX_APPEND_BYTES).await
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let [last_purged_log_id, last_log_id] =
            self.run(StorageIOError::read_logs, Disk::log_ends).await?;
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        self.run(StorageIOError::write_vote, move |disk| disk.save_vote(&vote)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.run(StorageIOError::read_vote, Disk::vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.disk.set_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.disk.committed())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let written = self.run(StorageIOError::write_logs, move |disk| {
            disk.append(&entries)?;
            Ok(entries)
        });
        let result = match written.await {
            Ok(entries) => {
                self.recent().push(entries);
                Ok(())
            }
            Err(error) => Err(error),
        };
        callback.log_io_completed(match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::other(error.to_string())),
        });
        result
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        self.recent().truncate(from.index);
        self.run(StorageIOError::write_logs, move |disk| disk.truncate(from.index)).await
    }

    async fn purge(&mut self, last: LogId) -> Result<(), StorageError> {
        self.recent().purge(last.index);
        self.run(StorageIOError::write_logs, move |disk| disk.purge(&last)).await
    }
}
