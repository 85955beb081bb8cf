//! Which networks changed when, so that nobody has to look at all of them.
use std::collections::{BTreeSet, VecDeque};

/// Changes remembered. Who is further behind looks at every network it takes part in.
const MOST: usize = 4_096;

/// Networks in the order in which they changed.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    changed: VecDeque<(u64, String)>,
    /// Changes after this version are all remembered.
    after: u64,
}

impl Recent {
    /// None yet, from a version on.
    pub(crate) fn at(version: u64) -> Recent {
        Recent { changed: VecDeque::new(), after: version }
    }

    /// These changed at a version.
    pub(crate) fn add(&mut self, version: u64, networks: &BTreeSet<String>) {
        self.changed.extend(networks.iter().map(|id| (version, id.clone())));
        while self.changed.len() > MOST {
            self.after = self.changed.pop_front().map_or(self.after, |(version, _)| version);
        }
    }

    /// Those that changed after a version, in order. `None`: too long ago to know, or too many changes.
    pub(crate) fn since(&self, version: u64, most: usize) -> Option<BTreeSet<&String>> {
        if version < self.after {
            return None;
        }
        let first = self.changed.partition_point(|(changed, _)| *changed <= version);
        let few = self.changed.len() - first <= most;
        few.then(|| self.changed.range(first..).map(|(_, id)| id).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_known_as_long_as_it_is_remembered() {
        let mut recent = Recent::at(3);
        let networks = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        recent.add(4, &networks(&["a", "b"]));
        recent.add(6, &networks(&["b"]));
        let since = |recent: &Recent, version| {
            recent.since(version, MOST).map(|all| all.into_iter().cloned().collect::<Vec<_>>())
        };
        assert_eq!(since(&recent, 2), None);
        assert_eq!(since(&recent, 3), Some(vec!["a".into(), "b".into()]));
        assert_eq!(since(&recent, 4), Some(vec!["b".into()]));
        assert_eq!(since(&recent, 6), Some(vec![]));
        for version in 7..7 + MOST as u64 - 1 {
            recent.add(version, &networks(&["c"]));
        }
        assert_eq!(since(&recent, 3), None, "a was forgotten");
        assert_eq!(since(&recent, 4), Some(vec!["b".into(), "c".into()]));
        assert_eq!(recent.since(4, 9), None, "too many");
        assert_eq!(since(&recent, 6), Some(vec!["c".into()]));
    }
}
