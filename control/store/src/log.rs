//! openraft's view of the log on disk.

use crate::{
    disk::{Disk, blocking},
    error::DiskError,
    types::{Entry, LogId, ManagerId, StorageError, Types, Vote},
};
use openraft::{
    AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};
use std::{fmt::Debug, io, ops::RangeBounds, sync::Arc};

/// The log. openraft serializes its writes; readers are clones.
#[derive(Clone)]
pub(crate) struct Log(Arc<Disk>);

impl Log {
    pub(crate) fn new(disk: Arc<Disk>) -> Log {
        Log(disk)
    }

    async fn run<R: Send + 'static>(
        &self,
        context: fn(AnyError) -> StorageIOError<ManagerId>,
        work: impl FnOnce(&Disk) -> Result<R, DiskError> + Send + 'static,
    ) -> Result<R, StorageError> {
        let disk = self.0.clone();
        blocking(move || work(&disk))
            .await
            .and_then(|result| result)
            .map_err(|e| StorageError::IO { source: context(AnyError::new(&e)) })
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.run(StorageIOError::read_logs, move |disk| disk.entries(range)).await
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
        let result = self.run(StorageIOError::write_logs, move |disk| disk.append(&entries)).await;
        callback.log_io_completed(match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::other(error.to_string())),
        });
        result
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        self.run(StorageIOError::write_logs, move |disk| disk.truncate(from.index)).await
    }

    async fn purge(&mut self, last: LogId) -> Result<(), StorageError> {
        self.run(StorageIOError::write_logs, move |disk| disk.purge(&last)).await
    }
}
