//! Which objects the last transactions touched, so that who follows the state need not look at all
//! of it after each.
use crate::{key::IdKey, state::ObjectKind};
use std::collections::VecDeque;

/// Objects remembered. Who is further behind looks at the whole state again.
const MOST_TOUCHED: usize = 65_536;

/// The last objects touched, oldest first.
///
/// It is no part of what a state is: two states are equal whatever way they came about, and a copy
/// begins without memory.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Version after which nothing is missing. `None` before the first transaction.
    after: Option<u64>,
    touched: VecDeque<(u64, ObjectKind, IdKey)>,
}

impl Journal {
    /// A transaction that made `version` out of `before` begins.
    pub(crate) fn begin(&mut self, before: u64) {
        self.after.get_or_insert(before);
    }

    /// The transaction that makes `version` touches an object.
    pub(crate) fn touch(&mut self, version: u64, kind: ObjectKind, id: &str) {
        if self.touched.len() == MOST_TOUCHED
            && let Some((version, ..)) = self.touched.pop_front()
        {
            self.after = Some(version);
        }
        self.touched.push_back((version, kind, id.into()));
    }

    /// What was touched after `version`, an object as often as it was touched. `None` when that is
    /// not known any more.
    pub(crate) fn since(&self, version: u64) -> Option<impl Iterator<Item = (ObjectKind, &str)>> {
        if self.after.is_none_or(|after| version < after) {
            return None;
        }
        let first = self.touched.partition_point(|(at, ..)| *at <= version);
        Some(self.touched.range(first..).map(|(_, kind, id)| (*kind, id.as_str())))
    }
}

impl Clone for Journal {
    fn clone(&self) -> Journal {
        Journal::default()
    }
}

impl PartialEq for Journal {
    fn eq(&self, _: &Journal) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(journal: &Journal, version: u64) -> Option<Vec<&str>> {
        journal.since(version).map(|all| all.map(|(_, id)| id).collect())
    }

    #[test]
    fn it_knows_what_was_touched_since_it_began_and_nothing_before() {
        let mut journal = Journal::default();
        assert_eq!(since(&journal, 0), None);
        journal.begin(7);
        journal.touch(8, ObjectKind::Task, "a");
        journal.begin(8);
        journal.touch(9, ObjectKind::Task, "b");
        journal.touch(9, ObjectKind::Node, "c");
        assert_eq!(since(&journal, 6), None);
        assert_eq!(since(&journal, 7).unwrap(), ["a", "b", "c"]);
        assert_eq!(since(&journal, 8).unwrap(), ["b", "c"]);
        assert!(since(&journal, 9).unwrap().is_empty());
        assert_eq!(since(&journal.clone(), 8), None, "a copy has no memory");
    }

    #[test]
    fn a_full_one_forgets_the_oldest_and_says_so() {
        let mut journal = Journal::default();
        journal.begin(0);
        for version in 1..=MOST_TOUCHED as u64 + 2 {
            journal.touch(version, ObjectKind::Task, "t");
        }
        assert_eq!(since(&journal, 1), None, "what was touched at 2 is forgotten");
        assert_eq!(since(&journal, 2).unwrap().len(), MOST_TOUCHED);
    }
}
