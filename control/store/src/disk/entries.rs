//! The log's entries on the disk: the newest in the tail, the others in the database.

use super::{COMMITTED, Disk, LOG, PURGED, TAIL, VALUES, encode};
use crate::{
    error::DiskError,
    seal::Label,
    tail::{Record, Tail},
    types::{Entry, LogId},
};
use redb::{ReadableDatabase, ReadableTable};
use std::{
    ops::Bound,
    sync::{MutexGuard, PoisonError},
};

/// Log entries sealed anew in one transaction.
const RESEAL_BATCH: usize = 256;

#[derive(Default)]
pub(super) struct Ends {
    /// Written when entries move to the database: it is of use, but not worth a flush of its own.
    pub(super) committed: Option<LogId>,
    /// The last entry written since the store was opened.
    last: Option<LogId>,
}

impl Disk {
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
    pub(super) fn all_in_database(&self) -> Result<MutexGuard<'_, Tail>, DiskError> {
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

    pub(crate) fn committed(&self) -> Option<LogId> {
        self.lock_committed().committed
    }

    pub(crate) fn set_committed(&self, committed: Option<LogId>) {
        self.lock_committed().committed = committed;
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

    pub(super) fn lock_committed(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode_entry(entry: &Entry) -> Result<Vec<u8>, DiskError> {
    postcard::to_stdvec(entry)
        .map_err(|source| DiskError::Format { what: "log entry", source: source.into() })
}
