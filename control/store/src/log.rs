//! openraft's view of the log on disk.

use crate::{
    bugs::{self, Bug},
    disk::Disk,
    error::{DiskError, any},
    outside::blocking,
    recent::Recent,
    types::{Entry, LogId, ManagerId, StorageError, Types, Vote},
    writer::Writer,
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

type Context = fn(AnyError) -> StorageIOError<ManagerId>;

/// The log. openraft serializes its writes; readers are clones.
#[derive(Clone)]
pub(crate) struct Log {
    own: ManagerId,
    disk: Arc<Disk>,
    writer: Arc<Writer>,
    recent: Arc<Mutex<Recent>>,
    vote: Option<Vote>,
}

impl Log {
    pub(crate) fn new(own: ManagerId, disk: Arc<Disk>, writer: Arc<Writer>) -> Log {
        Log { own, disk, writer, recent: Arc::default(), vote: None }
    }

    /// Whether this manager leads, and the entries are its own: nobody else leads in its term.
    fn leads(&self, entries: &[Entry]) -> bool {
        let vote = self.vote.filter(|vote| vote.committed && vote.leader_id.node_id == self.own);
        vote.is_some_and(|vote| {
            entries.iter().all(|entry| entry.log_id.leader_id == vote.leader_id)
        })
    }

    /// What was said to be in the log is.
    async fn settled(&self, context: Context) -> Result<(), StorageError> {
        let idle = self.writer.written().idle().await;
        idle.map_err(|e| StorageError::IO { source: context(any(&e)) })
    }

    async fn run<R: Send + 'static>(
        &self,
        context: Context,
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
        if let Some(entries) = recent {
            return Ok(entries);
        }
        self.settled(StorageIOError::read_logs).await?;
        self.run(StorageIOError::read_logs, move |disk| disk.entries(range, max)).await
    }

    async fn put(&self, entries: Vec<Entry>) -> Result<(), StorageError> {
        let failed = |error: Arc<DiskError>| StorageError::IO {
            source: StorageIOError::write_logs(any(&error)),
        };
        let Some(last) = entries.last().map(|entry| entry.log_id.index) else { return Ok(()) };
        if self.leads(&entries) || bugs::active(Bug::AckBeforeFsync) {
            self.recent().push(entries.clone());
            return self.writer.later(entries).map_err(failed);
        }
        self.writer.later(entries.clone()).map_err(failed)?;
        self.writer.written().until(last).await.map_err(failed)?;
        self.recent().push(entries);
        Ok(())
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
        if !bugs::active(Bug::ForgetVote) {
            self.run(StorageIOError::write_vote, move |disk| disk.save_vote(&vote)).await?;
        }
        self.vote = Some(vote);
        Ok(())
    }

    /// Once, when openraft starts. A leader does not lead on in its term, as openraft would have it: it
    /// may have sent entries that are no longer in its own log, and would give their places to others.
    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.run(StorageIOError::read_vote, Disk::vote).await?;
        let own = |vote: &Vote| vote.leader_id.node_id == self.own;
        Ok(vote.map(|vote| match own(&vote) && !bugs::active(Bug::LeadOn) {
            true => Vote { committed: false, ..vote },
            false => vote,
        }))
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
        let result = self.put(entries).await;
        callback.log_io_completed(match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::other(error.to_string())),
        });
        result
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        self.settled(StorageIOError::write_logs).await?;
        self.recent().truncate(from.index);
        self.run(StorageIOError::write_logs, move |disk| disk.truncate(from.index)).await
    }

    async fn purge(&mut self, last: LogId) -> Result<(), StorageError> {
        self.settled(StorageIOError::write_logs).await?;
        self.recent().purge(last.index);
        self.run(StorageIOError::write_logs, move |disk| disk.purge(&last)).await
    }
}
