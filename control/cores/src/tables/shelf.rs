//! Rows of one owner, written once for all nodes that get them, with what changed lately.
use bytes::Bytes;
use shoal_model::{Row, RowKey, row_digest};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, OnceLock},
};

/// Changes remembered of a shelf. A node that is further behind gets all of it.
const MOST_CHANGES: usize = 4_096;

/// Bytes of several rows that are put together. With what is written around them they are one frame of HTTP/2
/// and one record of TLS, 16 KiB both, and so one call to send them.
pub const PACK: usize = 15 << 10;

/// A row, as [`Row::write`] gives it; or several, one after another.
pub type Written = Bytes;

/// Rows with the state's version at which each was last changed. What is kept of a row (`V`) tells
/// whether it changed.
///
/// What changed is read far more often than it is written, once by every node that is told of it: the
/// changes hold the rows themselves, and know which of them were changed again.
#[derive(Debug)]
pub(crate) struct Shelf<V = Written> {
    rows: BTreeMap<Arc<RowKey>, Kept<V>>,
    changed: VecDeque<Change<V>>,
    /// Changes that are not remembered any more: the number of the oldest that is.
    forgotten: u64,
    /// Changes after this version are all remembered.
    after: u64,
    /// Sum of the rows' digests, where rows are kept as they are sent.
    digest: u64,
    /// All rows, put together for those that are told all, until one changes: many nodes come to a network
    /// together, and so many small pieces would be looked up for each of them.
    packs: OnceLock<Vec<Written>>,
}

#[derive(Debug)]
struct Kept<V> {
    version: u64,
    /// Its last change, counted from the shelf's first.
    change: u64,
    row: V,
}

#[derive(Debug)]
struct Change<V> {
    version: u64,
    key: Arc<RowKey>,
    what: What<V>,
}

#[derive(Debug)]
enum What<V> {
    Put(V),
    Gone,
    /// It was changed again, which follows.
    Overtaken,
}

impl<V> Default for Shelf<V> {
    fn default() -> Self {
        let (rows, changed) = (BTreeMap::new(), VecDeque::new());
        Shelf { rows, changed, forgotten: 0, after: 0, digest: 0, packs: OnceLock::new() }
    }
}

impl<V: PartialEq + Clone> Shelf<V> {
    /// An empty one at a version.
    pub(crate) fn at(version: u64) -> Self {
        Shelf { after: version, ..Shelf::default() }
    }

    /// Puts a row, or takes it away. `false`: it stays as it was, which is no change.
    pub(crate) fn set(&mut self, version: u64, key: RowKey, row: Option<V>) -> bool {
        let before = self.rows.get_key_value(&key);
        if before.map(|(_, kept)| &kept.row) == row.as_ref() {
            return false;
        }
        self.packs = OnceLock::new();
        let overtaken = before.map(|(_, kept)| kept.change);
        let key = before.map_or_else(|| Arc::new(key), |(key, _)| Arc::clone(key));
        if let Some(change) = overtaken.and_then(|change| self.remembered(change)) {
            change.what = What::Overtaken;
        }
        if self.changed.len() == MOST_CHANGES
            && let Some(oldest) = self.changed.pop_front()
        {
            (self.after, self.forgotten) = (oldest.version, self.forgotten + 1);
        }
        let change = self.forgotten + self.changed.len() as u64;
        let what = match row {
            Some(row) => {
                let kept = Kept { version, change, row: row.clone() };
                self.rows.insert(Arc::clone(&key), kept);
                What::Put(row)
            }
            None => {
                self.rows.remove(&key);
                What::Gone
            }
        };
        self.changed.push_back(Change { version, key, what });
        true
    }

    fn remembered(&mut self, change: u64) -> Option<&mut Change<V>> {
        let at = usize::try_from(change.checked_sub(self.forgotten)?).ok()?;
        self.changed.get_mut(at)
    }

    /// Version at which a row was last changed.
    pub(crate) fn version_of(&self, key: &RowKey) -> Option<u64> {
        self.rows.get(key).map(|kept| kept.version)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&RowKey, &V)> {
        self.rows.iter().map(|(key, kept)| (&**key, &kept.row))
    }

    /// Rows put (with their content) and taken away after a version, each as it is now. `None`: too
    /// long ago to know.
    pub(crate) fn since(&self, version: u64) -> Option<Vec<(&RowKey, Option<&V>)>> {
        if version < self.after {
            return None;
        }
        let first = self.changed.partition_point(|change| change.version <= version);
        let mut rows = Vec::with_capacity(self.changed.len() - first);
        // One that was put again after it was taken away is not gone.
        let back = |key: &RowKey| self.rows.contains_key(key);
        let mut gone = BTreeSet::new();
        for Change { key, what, .. } in self.changed.range(first..) {
            match what {
                What::Put(row) => rows.push((&**key, Some(row))),
                What::Gone if !back(key) && gone.insert(&**key) => rows.push((&**key, None)),
                What::Gone | What::Overtaken => {}
            }
        }
        Some(rows)
    }
}

impl Shelf {
    /// [`Shelf::set`] of a row as it is sent.
    pub(crate) fn put(&mut self, version: u64, key: RowKey, row: Option<Written>) -> bool {
        let digest = |row: Option<&Written>| row.map_or(0, |row| row_digest(row));
        let before = digest(self.rows.get(&key).map(|kept| &kept.row));
        let now = digest(row.as_ref());
        self.digest = self.digest.wrapping_sub(before).wrapping_add(now);
        self.set(version, key, row)
    }

    /// All rows, in order, in few large pieces.
    pub(crate) fn packs(&self) -> &[Written] {
        self.packs.get_or_init(|| {
            let (mut packs, mut pack) = (Vec::new(), Vec::with_capacity(PACK));
            for (_, row) in self.all() {
                if !pack.is_empty() && pack.len() + row.len() > PACK {
                    packs.push(Bytes::copy_from_slice(&pack));
                    pack.clear();
                }
                pack.extend_from_slice(row);
            }
            packs.extend((!pack.is_empty()).then(|| Bytes::copy_from_slice(&pack)));
            packs
        })
    }

    /// Sum of the digests of all rows.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }
}

/// A row as it is sent.
pub(crate) fn write(row: &Row) -> Written {
    row.write().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(port: u16) -> Written {
        write(&Row::Node { overlay: None, data_path_port: port })
    }

    fn changed(shelf: &Shelf, version: u64) -> Option<Vec<bool>> {
        shelf.since(version).map(|all| all.iter().map(|(_, row)| row.is_some()).collect())
    }

    #[test]
    fn what_is_put_again_as_it_was_is_no_change() {
        let mut shelf = Shelf::at(3);
        shelf.set(4, RowKey::Node, Some(row(1)));
        shelf.set(5, RowKey::Node, Some(row(1)));
        assert_eq!(shelf.version_of(&RowKey::Node), Some(4));
        assert_eq!(changed(&shelf, 4), Some(vec![]));
        assert_eq!(changed(&shelf, 3), Some(vec![true]));
        shelf.set(6, RowKey::Node, None);
        shelf.set(7, RowKey::Node, None);
        assert_eq!(changed(&shelf, 6), Some(vec![]));
        assert_eq!(changed(&shelf, 3), Some(vec![false]), "only how it ended is told");
        assert_eq!(changed(&shelf, 2), None);
    }

    #[test]
    fn the_digest_is_that_of_the_rows_whatever_way_they_came() {
        let peer = |n: &str| RowKey::Peer { network: "net".to_owned(), node: n.to_owned() };
        let mut shelf = Shelf::at(0);
        shelf.put(1, peer("a"), Some(row(1)));
        shelf.put(2, peer("b"), Some(row(2)));
        let before = shelf.digest();
        shelf.put(3, peer("a"), Some(row(3)));
        assert_ne!(shelf.digest(), before);
        shelf.put(4, peer("a"), Some(row(1)));
        shelf.put(5, peer("c"), Some(row(9)));
        assert_ne!(shelf.digest(), before);
        shelf.put(6, peer("c"), None);
        assert_eq!(shelf.digest(), before);
        assert_eq!(before, row_digest(&row(1)).wrapping_add(row_digest(&row(2))));
    }

    #[test]
    fn packs_are_all_rows_in_order_as_they_are_now() {
        let peer = |n: u64| RowKey::Peer { network: "net".to_owned(), node: format!("{n:05}") };
        let together = |shelf: &Shelf| shelf.packs().concat();
        let one_by_one =
            |shelf: &Shelf| -> Vec<u8> { shelf.all().flat_map(|(_, row)| row.to_vec()).collect() };
        let mut shelf = Shelf::at(0);
        assert!(shelf.packs().is_empty());
        let large: Written = vec![7; 2 * PACK].into();
        shelf.put(1, peer(500), Some(large));
        (0..1_000).filter(|n| *n != 500).for_each(|n| {
            shelf.put(2, peer(n), Some(row(u16::try_from(n).unwrap())));
        });
        assert_eq!(together(&shelf), one_by_one(&shelf));
        let longest: Vec<usize> = shelf.packs().iter().map(Bytes::len).collect();
        assert_eq!(
            longest.iter().filter(|len| **len > PACK).count(),
            1,
            "the large one: {longest:?}"
        );
        shelf.put(3, peer(1), None);
        assert_eq!(together(&shelf), one_by_one(&shelf), "also after a change");
        shelf.put(4, peer(2), Some(row(9)));
        assert_eq!(together(&shelf), one_by_one(&shelf));
    }

    #[test]
    fn one_that_is_back_is_not_gone_and_is_told_once() {
        let mut shelf = Shelf::at(0);
        for (version, port) in [(1, Some(1)), (2, None), (3, Some(1)), (4, None), (5, Some(2))] {
            shelf.set(version, RowKey::Node, port.map(row));
        }
        let (all, key) = (shelf.since(0).unwrap(), RowKey::Node);
        assert_eq!(all, [(&key, Some(&row(2)))]);
        shelf.set(6, RowKey::Node, None);
        shelf.set(7, RowKey::Node, Some(row(2)));
        shelf.set(8, RowKey::Node, None);
        assert_eq!(shelf.since(0), Some(vec![(&key, None)]), "said once, however often it went");
        assert_eq!(shelf.since(8), Some(vec![]));
    }

    #[test]
    fn what_changed_is_right_also_when_the_change_before_is_forgotten() {
        let mut shelf = Shelf::at(0);
        let peer = |n: u64| RowKey::Peer { network: "net".to_owned(), node: n.to_string() };
        shelf.set(1, RowKey::Node, Some(row(1)));
        for version in 2..=MOST_CHANGES as u64 + 5 {
            shelf.set(version, peer(version), Some(row(1)));
        }
        let last = MOST_CHANGES as u64 + 6;
        shelf.set(last, RowKey::Node, Some(row(2)));
        shelf.set(last + 1, peer(last - 1), None);
        let (node, other, now) = (RowKey::Node, peer(last - 1), row(2));
        let expected = vec![(&node, Some(&now)), (&other, None)];
        assert_eq!(shelf.since(last - 2).map(|rows| rows.len()), Some(2));
        assert_eq!(shelf.since(last - 1).unwrap(), expected);
        assert_eq!(shelf.since(5), None);
    }

    #[test]
    fn one_that_changed_too_often_is_told_whole() {
        let mut shelf = Shelf::at(0);
        for version in 1..=MOST_CHANGES as u64 + 1 {
            let port = u16::try_from(version).unwrap();
            shelf.set(version, RowKey::Node, Some(row(port)));
        }
        assert_eq!(changed(&shelf, 0), None);
        assert_eq!(changed(&shelf, 1), Some(vec![true]));
    }
}
