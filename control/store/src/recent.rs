//! The newest log entries, kept in memory: they are about to be applied and sent to the other
//! managers, which should neither read nor open them again.

use crate::types::Entry;
use openraft::EntryPayload;
use std::{collections::VecDeque, ops::Bound};

/// Bytes of entries kept. Older ones are read from the disk.
const MAX_BYTES: usize = 16 << 20;

/// Entries of consecutive indexes, each on the disk.
#[derive(Default)]
pub(crate) struct Recent {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Recent {
    pub(crate) fn push(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let follows =
                self.entries.back().is_none_or(|last| last.log_id.index + 1 == entry.log_id.index);
            if !follows {
                self.clear();
            }
            self.bytes += size(&entry);
            self.entries.push_back(entry);
        }
        while self.bytes > MAX_BYTES && self.entries.len() > 1 {
            self.pop();
        }
    }

    /// Entries in order, until they are `max` bytes or more; none if not all of the range are here.
    pub(crate) fn get(&self, range: (Bound<u64>, Bound<u64>), max: usize) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.log_id.index;
        let start = match range.0 {
            Bound::Included(start) => start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => return None,
        };
        let end = match range.1 {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => end,
            Bound::Unbounded => u64::MAX,
        };
        let here = usize::try_from(start.checked_sub(first)?).ok()?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for entry in self.entries.range(here.min(self.entries.len())..) {
            if entry.log_id.index >= end || bytes >= max {
                break;
            }
            bytes += size(entry);
            found.push(entry.clone());
        }
        Some(found)
    }

    /// Forgets the entries from `index` on.
    pub(crate) fn truncate(&mut self, index: u64) {
        while self.entries.back().is_some_and(|last| last.log_id.index >= index) {
            let last = self.entries.pop_back();
            self.bytes -= last.as_ref().map_or(0, size);
        }
    }

    /// Forgets the entries up to and with `index`.
    pub(crate) fn purge(&mut self, index: u64) {
        while self.entries.front().is_some_and(|first| first.log_id.index <= index) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let first = self.entries.pop_front();
        self.bytes -= first.as_ref().map_or(0, size);
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

/// About what an entry takes.
fn size(entry: &Entry) -> usize {
    size_of::<Entry>()
        + match &entry.payload {
            EntryPayload::Normal(batch) => batch.len(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Batch;
    use openraft::{CommittedLeaderId, LogId};

    fn entry(index: u64, bytes: usize) -> Entry {
        Entry {
            log_id: LogId::new(CommittedLeaderId::new(1, 1.into()), index),
            payload: EntryPayload::Normal(Batch::new(&[vec![b' '; bytes]])),
        }
    }

    fn get(recent: &Recent, from: u64, to: u64) -> Option<Vec<u64>> {
        let range = (Bound::Included(from), Bound::Excluded(to));
        let found = recent.get(range, usize::MAX)?;
        Some(found.iter().map(|entry| entry.log_id.index).collect())
    }

    #[test]
    fn only_whole_ranges_are_answered() {
        let mut recent = Recent::default();
        assert_eq!(get(&recent, 0, 5), None);
        recent.push((10..15).map(|index| entry(index, 1)).collect());
        assert_eq!(get(&recent, 9, 12), None, "the disk has the beginning");
        assert_eq!(get(&recent, 10, 12), Some(vec![10, 11]));
        assert_eq!(get(&recent, 14, 20), Some(vec![14]), "there are no more");
        recent.truncate(13);
        assert_eq!(get(&recent, 10, 20), Some(vec![10, 11, 12]));
        recent.purge(10);
        assert_eq!(get(&recent, 10, 20), None);
        assert_eq!(get(&recent, 11, 20), Some(vec![11, 12]));
        recent.push(vec![entry(20, 1)]);
        assert_eq!(get(&recent, 20, 21), Some(vec![20]));
        assert_eq!(get(&recent, 12, 21), None, "a gap makes the older ones useless");
    }

    #[test]
    fn it_stays_below_its_bound_and_answers_in_pieces() {
        let mut recent = Recent::default();
        recent.push((0..20).map(|index| entry(index, 1 << 20)).collect());
        assert!(recent.bytes <= MAX_BYTES);
        assert_eq!(get(&recent, 4, 20), None);
        let piece = recent.get((Bound::Included(10), Bound::Excluded(20)), 2 << 20).unwrap();
        assert_eq!(piece.len(), 2);
        recent.purge(100);
        assert_eq!(recent.bytes, 0);
        recent.push(vec![entry(0, 1), entry(1, 1)]);
        recent.truncate(0);
        assert_eq!(recent.bytes, 0);
    }
}
