//! Parts of assignments, put together. Pure. Each session begins with a whole one, in which the manager
//! leaves out what the node has already.
use anyhow::{Context, Result, bail};
use shoal_model::{Difference, NodeAssignment, Row, Rows, WrongBase};
use shoal_rpc::{Assignment, Section};

/// Rows of one difference: more than the largest cluster has tasks.
const MOST_ROWS: usize = 4_000_000;

/// Parts of assignments, put together.
#[derive(Debug, Default)]
pub struct Inbox {
    rows: Rows,
    /// Parts so far of a difference that is not complete.
    parts: Option<Difference>,
    /// The whole was asked for; differences that are still under way count for nothing.
    asked: bool,
}

/// What came of a message.
#[derive(Debug, PartialEq)]
pub enum News {
    /// What is to be done from now on.
    Assignment(NodeAssignment),
    /// The whole must be asked for.
    WrongBase(WrongBase),
}

impl Inbox {
    /// A session begins: what was incomplete in the one before is forgotten. Says what there is, as
    /// far as it need not be told again if it is still so.
    pub fn begin(&mut self) -> Vec<Section> {
        (self.parts, self.asked) = (None, false);
        let sections = self.rows.sections().into_iter();
        sections.map(|(network, digest)| Section { network: network.to_owned(), digest }).collect()
    }

    /// Takes a message; `known` is the newest generation this node was ever told.
    ///
    /// # Errors
    /// When it is not understood: the session is of no use then.
    pub fn take(&mut self, part: Assignment, known: u64) -> Result<Option<News>> {
        let base = (!part.whole).then_some(part.base);
        let kept = part.kept;
        let generation = part.generation;
        let mut all = match self.parts.take() {
            Some(parts) if (parts.base, parts.generation) == (base, generation) => parts,
            _ => Difference { base, generation, ..Difference::default() },
        };
        all.kept.extend(kept);
        for key in &part.gone {
            all.gone.push(serde_json::from_slice(key).context("an assignment is not understood")?);
        }
        for row in &part.rows {
            for row in Row::read_all(row) {
                all.rows.push(row?);
            }
        }
        if all.gone.len() + all.rows.len() > MOST_ROWS {
            bail!("an assignment has more than {MOST_ROWS} rows");
        }
        if part.more {
            self.parts = Some(all);
            return Ok(None);
        }
        match self.rows.apply(all) {
            Ok(()) => {
                self.asked = false;
                // A cluster that was begun anew from an older state is not obeyed until it has passed
                // what this node was told; it is no reason to be without a manager.
                Ok((generation >= known).then(|| News::Assignment(self.rows.assignment())))
            }
            Err(_) if self.asked => Ok(None),
            Err(wrong) => {
                self.asked = true;
                Ok(Some(News::WrongBase(wrong)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{PeerRow, RowKey};

    fn peer(id: &str) -> prost::bytes::Bytes {
        let row = Row::Peer(PeerRow {
            network_id: "net".into(),
            node_id: id.into(),
            hostname: id.into(),
            public_key: "k".into(),
            endpoint: "192.0.2.1:1".parse().unwrap(),
            overlay: [10, 0, 0, 2].into(),
        });
        row.write().into()
    }

    fn whole(generation: u64, peers: &[&str], more: bool) -> Assignment {
        let rows = peers.iter().map(|p| peer(p)).collect();
        Assignment { generation, whole: true, rows, more, ..Assignment::default() }
    }

    fn peers(news: Option<News>) -> Vec<String> {
        let Some(News::Assignment(all)) = news else { panic!("no assignment: {news:?}") };
        all.table.peers.into_iter().map(|p| p.node_id).collect()
    }

    #[test]
    fn parts_count_together_and_a_difference_builds_on_them() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.take(whole(5, &["a", "b"], true), 0).unwrap(), None);
        assert_eq!(peers(inbox.take(whole(5, &["c"], false), 0).unwrap()), ["a", "b", "c"]);
        let difference = Assignment {
            generation: 6,
            base: 5,
            gone: vec![
                serde_json::to_vec(&RowKey::Peer { network: "net".into(), node: "b".into() })
                    .unwrap(),
            ],
            rows: vec![peer("d")],
            ..Assignment::default()
        };
        assert_eq!(peers(inbox.take(difference, 5).unwrap()), ["a", "c", "d"]);
    }

    #[test]
    fn a_difference_without_its_base_asks_for_the_whole_once() {
        let mut inbox = Inbox::default();
        let stray = Assignment { generation: 6, base: 5, ..Assignment::default() };
        let wrong = WrongBase { base: 5, present: 0 };
        assert_eq!(inbox.take(stray.clone(), 0).unwrap(), Some(News::WrongBase(wrong)));
        assert_eq!(inbox.take(stray.clone(), 0).unwrap(), None);
        assert_eq!(peers(inbox.take(whole(7, &["a"], false), 0).unwrap()), ["a"]);
        assert!(inbox.take(stray, 0).unwrap().is_some(), "asked for again");
    }

    #[test]
    fn a_manager_that_knows_less_is_obeyed_once_it_knows_as_much() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.take(whole(4, &["a"], false), 9).unwrap(), None);
        let next = |generation, base, row| Assignment {
            generation,
            base,
            rows: vec![row],
            ..Assignment::default()
        };
        assert_eq!(inbox.take(next(8, 4, peer("b")), 9).unwrap(), None);
        assert_eq!(peers(inbox.take(next(9, 8, peer("c")), 9).unwrap()), ["a", "b", "c"]);
    }

    #[test]
    fn what_a_new_session_need_not_tell_again_stays() {
        let mut inbox = Inbox::default();
        inbox.take(whole(5, &["a", "b"], false), 0).unwrap();
        inbox.take(whole(6, &["c"], true), 5).unwrap();
        let known = inbox.begin();
        assert_eq!(known.len(), 1);
        let kept = Assignment { kept: vec!["net".into()], ..whole(9, &[], false) };
        assert_eq!(peers(inbox.take(kept, 5).unwrap()), ["a", "b"]);
        assert_eq!(inbox.begin(), known);
        assert_eq!(peers(inbox.take(whole(10, &["d"], false), 9).unwrap()), ["d"]);
    }

    #[test]
    fn a_whole_that_begins_again_forgets_the_parts_before() {
        let mut inbox = Inbox::default();
        inbox.take(whole(5, &["a"], true), 0).unwrap();
        assert_eq!(peers(inbox.take(whole(6, &["b"], false), 0).unwrap()), ["b"]);
    }
}
