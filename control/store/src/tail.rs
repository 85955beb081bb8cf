//! The newest log entries on the disk, in front of the database.
//!
//! A commit of the database writes nine pages and takes longer than the flush itself; here a batch of
//! entries is one write into a file that never changes its size, so that flushing it writes nothing else.
//! When the file is full, or somebody wants to do more with the log than to append, its entries move
//! to the database ([`crate::disk`]). The transaction that takes them raises the generation there, and
//! batches of earlier generations do not count: no moment is between the two files.
//!
//! The file is a row of batches, each at the beginning of a sector:
//!
//! | bytes | |
//! |---|---|
//! | 8 | generation |
//! | 4 | length of the records |
//! | 4 | CRC-32 of all else |
//! | | records: index (8), length (4), the entry, sealed |
//!
//! Numbers are little-endian. A batch is written only after the one before it was flushed. So one that
//! is torn is the last, and was never acknowledged; one that is damaged has others behind it.

use crate::bugs::{self, Bug};
use redb::{StorageBackend, backends::FileBackend};
use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Bytes of the file: some hundred entries.
const SIZE: usize = 1 << 20;
const SECTOR: usize = 512;
const HEADER: usize = 16;
const RECORD_HEADER: usize = 12;

/// A sealed entry by its index.
pub(crate) type Record = (u64, Vec<u8>);

/// The file and what counts in it.
pub(crate) struct Tail {
    file: Box<dyn StorageBackend>,
    generation: u64,
    records: Vec<Record>,
    /// Where the next batch begins.
    end: usize,
    /// What the file has is not known any more.
    failed: bool,
}

impl Tail {
    /// Makes the file, all of it: zeros that are on the disk, so that only content changes later.
    pub(crate) fn create(path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        io::copy(&mut io::Read::take(io::repeat(0), SIZE as u64), &mut &file)?;
        file.sync_all()
    }

    /// Reads what was written in this generation.
    pub(crate) fn open<B: StorageBackend>(
        path: &Path,
        generation: u64,
        wrap: impl FnOnce(FileBackend) -> B,
    ) -> io::Result<Tail> {
        let file = File::options().read(true).write(true).open(path)?;
        let file = FileBackend::new(file).map_err(|e| io::Error::other(e.to_string()))?;
        let file = Box::new(wrap(file));
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(SIZE).min(SIZE)];
        file.read(0, &mut bytes)?;
        let (mut records, end) = read(&bytes, generation)?;
        if bugs::active(Bug::LoseLast) {
            records.pop();
        }
        Ok(Tail { file, generation, records, end, failed: false })
    }

    /// Entries that are not in the database, in order.
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn has_room(&self, records: &[Record]) -> bool {
        self.end + HEADER + length(records) <= SIZE
    }

    /// Writes and flushes entries, for which there must be room.
    pub(crate) fn append(&mut self, records: Vec<Record>) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier write failed"));
        }
        let batch = batch(self.generation, &records);
        let written = self.file.write(self.end as u64, &batch);
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            self.failed = true;
            return Err(error);
        }
        self.end += batch.len().next_multiple_of(SECTOR);
        self.records.extend(records);
        Ok(())
    }

    /// The database has all of it, and the new generation.
    pub(crate) fn begin(&mut self, generation: u64) {
        (self.generation, self.end) = (generation, 0);
        self.records.clear();
    }
}

fn length(records: &[Record]) -> usize {
    records.iter().map(|(_, record)| RECORD_HEADER + record.len()).sum()
}

fn batch(generation: u64, records: &[Record]) -> Vec<u8> {
    let mut batch = Vec::with_capacity(HEADER + length(records));
    batch.extend_from_slice(&generation.to_le_bytes());
    batch.extend_from_slice(&(length(records) as u32).to_le_bytes());
    batch.extend_from_slice(&[0; 4]);
    for (index, record) in records {
        batch.extend_from_slice(&index.to_le_bytes());
        batch.extend_from_slice(&(record.len() as u32).to_le_bytes());
        batch.extend_from_slice(record);
    }
    let sum = checksum(&batch);
    batch[12..HEADER].copy_from_slice(&sum.to_le_bytes());
    batch
}

/// Of a whole batch, except for the place of the checksum itself.
fn checksum(batch: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&batch[..12]);
    sum.update(&batch[HEADER..]);
    sum.finalize()
}

/// All records of the generation, and where they end.
fn read(bytes: &[u8], generation: u64) -> io::Result<(Vec<Record>, usize)> {
    let (mut records, mut end) = (Vec::new(), 0);
    while let Some(batch) = read_batch(bytes.get(end..).unwrap_or_default(), generation) {
        end += (HEADER + batch.len()).next_multiple_of(SECTOR);
        records.extend(split(batch)?);
    }
    let behind = (end..bytes.len()).step_by(SECTOR).skip(1);
    match behind.into_iter().any(|at| read_batch(&bytes[at..], generation).is_some()) {
        true => Err(damaged()),
        false => Ok((records, end)),
    }
}

/// The content of a batch, if there is one.
fn read_batch(bytes: &[u8], generation: u64) -> Option<&[u8]> {
    let (head, length) = (bytes.first_chunk::<8>()?, bytes.get(8..12)?.first_chunk::<4>()?);
    if u64::from_le_bytes(*head) != generation {
        return None;
    }
    let batch = bytes.get(..HEADER + u32::from_le_bytes(*length) as usize)?;
    let sum = u32::from_le_bytes(*batch.get(12..HEADER)?.first_chunk()?);
    (checksum(batch) == sum || bugs::active(Bug::AcceptTornTail)).then(|| &batch[HEADER..])
}

fn split(mut batch: &[u8]) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    while !batch.is_empty() {
        let (index, rest) = batch.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (record, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
        records.push((u64::from_le_bytes(*index), record.to_vec()));
        batch = rest;
    }
    Ok(records)
}

fn damaged() -> io::Error {
    let text = "entries are damaged that were acknowledged; restore the store from a backup, or remove \
                its folder and join the swarm anew";
    io::Error::new(ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(from: u64, lengths: &[usize]) -> Vec<Record> {
        lengths.iter().zip(from..).map(|(length, i)| (i, vec![i as u8; *length])).collect()
    }

    /// A file with these batches.
    fn file(generation: u64, batches: &[Vec<Record>]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (vec![0; 64 * SECTOR], vec![0]);
        for records in batches {
            let (at, batch) = (ends[ends.len() - 1], batch(generation, records));
            bytes[at..at + batch.len()].copy_from_slice(&batch);
            ends.push(at + batch.len().next_multiple_of(SECTOR));
        }
        (bytes, ends)
    }

    fn three() -> Vec<Vec<Record>> {
        vec![records(7, &[10, 0, 600]), records(10, &[3]), records(11, &[1500, 20])]
    }

    #[test]
    fn batches_read_back_and_those_of_other_generations_do_not_count() {
        let (mut bytes, ends) = file(5, &three());
        assert_eq!(read(&bytes, 5).unwrap(), (three().concat(), ends[3]));
        assert_eq!(read(&bytes, 6).unwrap(), (Vec::new(), 0));
        // The next generation begins at the front; what is behind it is old.
        let newer = batch(6, &records(13, &[5]));
        bytes[..newer.len()].copy_from_slice(&newer);
        assert_eq!(read(&bytes, 6).unwrap(), (records(13, &[5]), SECTOR));
        assert_eq!(read(&vec![0; SIZE], 1).unwrap(), (Vec::new(), 0));
        assert_eq!(read(&[], 1).unwrap(), (Vec::new(), 0));
    }

    #[test]
    fn a_torn_last_batch_was_never_there_and_a_damaged_earlier_one_is_an_error() {
        let (whole, ends) = file(5, &three());
        let last = ends[2]..ends[3];
        for at in last.step_by(SECTOR) {
            let mut torn = whole.clone();
            torn[at..at + SECTOR].fill(0);
            assert_eq!(read(&torn, 5).unwrap(), (three()[..2].concat(), ends[2]));
        }
        for at in [0, 9, 13, 20, ends[1] - 1 - SECTOR, ends[1], ends[1] + 30] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            let error = read(&damaged, 5).map(drop).unwrap_err();
            assert!(error.to_string().contains("damaged"), "{at}: {error}");
        }
    }

    proptest! {
        /// Whatever is in the file: no panic, and nothing that was not written.
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..3 * SECTOR)) {
            let read = read(&bytes, 0x0101_0101_0101_0101);
            prop_assert!(read.is_err() || read.is_ok_and(|(records, _)| records.is_empty()));
        }
    }

    #[test]
    fn a_file_is_made_filled_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tail");
        Tail::create(&path).unwrap();
        let mut tail = Tail::open(&path, 1, |file| file).unwrap();
        let mut all = Vec::new();
        for from in (0..).step_by(2) {
            let more = records(from, &[40_000, 7]);
            if !tail.has_room(&more) {
                break;
            }
            tail.append(more.clone()).unwrap();
            all.extend(more);
        }
        assert!(all.len() > 40, "{}", all.len());
        drop(tail);
        let mut tail = Tail::open(&path, 1, |file| file).unwrap();
        assert_eq!(tail.records(), all);
        tail.begin(2);
        assert_eq!(tail.records(), []);
        tail.append(records(100, &[1])).unwrap();
        drop(tail);
        assert_eq!(Tail::open(&path, 2, |file| file).unwrap().records(), records(100, &[1]));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), SIZE as u64);
    }
}
