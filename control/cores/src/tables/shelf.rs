//! Rows of one owner, written once for all nodes that get them, with what changed lately.
use shoal_model::{Row, RowKey};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Changes remembered of a shelf. A node that is further behind gets all of it.
const MOST_CHANGES: usize = 4_096;

/// A row, as JSON.
pub type Written = Arc<[u8]>;

/// Rows with the state's version at which each was last changed.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    rows: BTreeMap<RowKey, (u64, Written)>,
    changed: VecDeque<(u64, RowKey)>,
    /// Changes after this version are all remembered.
    after: u64,
}

impl Shelf {
    /// An empty one at a version.
    pub(crate) fn at(version: u64) -> Shelf {
        Shelf { after: version, ..Shelf::default() }
    }

    /// Puts a row, or takes it away. One that stays as it is was not changed.
    pub(crate) fn set(&mut self, version: u64, key: RowKey, row: Option<&Row>) {
        match row {
            None => {
                if self.rows.remove(&key).is_none() {
                    return;
                }
            }
            Some(row) => {
                let written = write(row);
                if self.rows.get(&key).is_some_and(|(_, present)| **present == *written) {
                    return;
                }
                self.rows.insert(key.clone(), (version, written));
            }
        }
        if self.changed.len() == MOST_CHANGES
            && let Some((oldest, _)) = self.changed.pop_front()
        {
            self.after = oldest;
        }
        self.changed.push_back((version, key));
    }

    /// Version at which a row was last changed.
    pub(crate) fn version_of(&self, key: &RowKey) -> Option<u64> {
        self.rows.get(key).map(|(version, _)| *version)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&RowKey, &Written)> {
        self.rows.iter().map(|(key, (_, written))| (key, written))
    }

    /// Rows put (with their content) and taken away after a version. `None`: too long ago to know.
    pub(crate) fn since(&self, version: u64) -> Option<BTreeMap<&RowKey, Option<&Written>>> {
        if version < self.after {
            return None;
        }
        let first = self.changed.partition_point(|(at, _)| *at <= version);
        let keys: BTreeSet<&RowKey> = self.changed.range(first..).map(|(_, key)| key).collect();
        let with_row = |key| (key, self.rows.get(key).map(|(_, written)| written));
        Some(keys.into_iter().map(with_row).collect())
    }
}

fn write(row: &Row) -> Written {
    let written = match row {
        // Specifications have maps without an order: written by way of a value they get one, so
        // that a task read again from the log is no change.
        Row::Task(_) => serde_json::to_value(row).and_then(|value| serde_json::to_vec(&value)),
        _ => serde_json::to_vec(row),
    };
    written.expect("a row has text keys and plain values only").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(port: u16) -> Row {
        Row::Node { overlay: None, data_path_port: port }
    }

    fn changed(shelf: &Shelf, version: u64) -> Option<Vec<bool>> {
        shelf.since(version).map(|all| all.values().map(Option::is_some).collect())
    }

    #[test]
    fn what_is_put_again_as_it_was_is_no_change() {
        let mut shelf = Shelf::at(3);
        shelf.set(4, RowKey::Node, Some(&row(1)));
        shelf.set(5, RowKey::Node, Some(&row(1)));
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
    fn one_that_changed_too_often_is_told_whole() {
        let mut shelf = Shelf::at(0);
        for version in 1..=MOST_CHANGES as u64 + 1 {
            let port = u16::try_from(version).unwrap();
            shelf.set(version, RowKey::Node, Some(&row(port)));
        }
        assert_eq!(changed(&shelf, 0), None);
        assert_eq!(changed(&shelf, 1), Some(vec![true]));
    }
}
