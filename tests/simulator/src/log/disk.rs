//! A manager's disk: what is written is there only once it is flushed.
use super::{Entry, Log, Payload, Snapshot};
use crate::dice::Dice;
use shoal_model::bugs::{self, Bug};
use std::{collections::VecDeque, rc::Rc};

/// What is found after a crash.
#[derive(Clone, Default)]
pub(crate) struct Image {
    pub(crate) term: u64,
    pub(crate) voted: Option<usize>,
    pub(crate) log: Log,
    pub(crate) snapshot: Option<Rc<Snapshot>>,
}

/// A write.
pub(crate) enum Op {
    Vote {
        term: u64,
        voted: Option<usize>,
    },
    Append(Vec<Rc<Entry>>),
    /// A snapshot, and how far the log goes with it.
    Snapshot {
        snapshot: Rc<Snapshot>,
        compact: u64,
    },
    /// Nothing: only to know that what was written before is on disk.
    Barrier,
}

/// What follows once a write is on disk.
#[derive(Clone, Copy)]
pub(crate) enum Then {
    Nothing,
    /// The vote may be told.
    Grant {
        to: usize,
        term: u64,
    },
    /// Votes may be asked for.
    Campaign {
        term: u64,
    },
    /// A follower has the leader's entries up to here.
    Acknowledge {
        to: usize,
        term: u64,
        last: u64,
    },
    /// A leader has its own entries up to here.
    Own {
        term: u64,
        last: u64,
    },
    /// The log in memory may be shortened, too.
    Compact {
        index: u64,
    },
}

#[derive(Default)]
pub(crate) struct Disk {
    image: Image,
    queue: VecDeque<(Op, Then)>,
    /// Writes of the flush under way.
    flushing: usize,
    /// Faults that slow it down.
    pub(crate) slow: u32,
}

impl Disk {
    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// Writes; `true` when a flush is to be begun.
    pub(crate) fn write(&mut self, op: Op, then: Then) -> bool {
        self.queue.push_back((op, then));
        self.begin()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    fn begin(&mut self) -> bool {
        let idle = self.flushing == 0 && !self.queue.is_empty();
        if idle {
            // All that waits goes with one flush.
            self.flushing = self.queue.len();
        }
        idle
    }

    /// The flush is done. Returns what follows, and whether the next flush is to be begun.
    pub(crate) fn flushed(&mut self) -> (Vec<Then>, bool) {
        let mut thens = Vec::new();
        for _ in 0..std::mem::take(&mut self.flushing) {
            let Some((op, then)) = self.queue.pop_front() else { break };
            self.image.take(op);
            thens.push(then);
        }
        (thens, self.begin())
    }

    /// The host fails: of what was not flushed the first part may be there, and the write after it
    /// in pieces. Returns how many entries were torn.
    pub(crate) fn crash(&mut self, dice: &mut Dice) -> u64 {
        let whole = dice.index(self.queue.len() + 1);
        let mut torn = 0;
        for (at, (op, _)) in std::mem::take(&mut self.queue).into_iter().enumerate() {
            if at < whole {
                self.image.take(op);
                continue;
            }
            if let Op::Append(mut entries) = op
                && dice.chance(700)
            {
                // Records before the torn one are whole; that one fails its checksum and is not taken.
                entries.truncate(dice.index(entries.len()) + 1);
                let broken = entries.pop();
                torn = 1;
                if bugs::active(Bug::AcceptTornTail) {
                    entries.extend(broken.as_deref().map(first_half));
                }
                self.image.take(Op::Append(entries));
            }
            break;
        }
        self.flushing = 0;
        torn
    }
}

/// What a reader without checksums would make of a torn record.
fn first_half(entry: &Entry) -> Rc<Entry> {
    let mut entry = entry.clone();
    if let Payload::Batch(batch) = &mut entry.payload
        && let Some(last) = batch.last_mut()
    {
        last.changes.truncate(last.changes.len() / 2);
    }
    Rc::new(entry)
}

impl Image {
    fn take(&mut self, op: Op) {
        match op {
            Op::Vote { term, voted } => (self.term, self.voted) = (term, voted),
            Op::Append(entries) => self.log.put(&entries),
            Op::Snapshot { snapshot, compact } => {
                if compact > self.log.last() || compact == snapshot.index {
                    self.log.rebase(snapshot.index, snapshot.term);
                } else {
                    self.log.compact(compact);
                }
                self.snapshot = Some(snapshot);
            }
            Op::Barrier => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> Rc<Entry> {
        Rc::new(Entry { term: 1, index, payload: Payload::Blank })
    }

    #[test]
    fn what_is_flushed_survives_a_crash_and_what_is_not_may_be_lost() {
        let mut lost = false;
        for seed in 0..50 {
            let mut disk = Disk::default();
            assert!(disk.write(Op::Append(vec![entry(1)]), Then::Nothing));
            assert!(!disk.write(Op::Append(vec![entry(2)]), Then::Nothing));
            assert!(disk.flushed().1);
            disk.crash(&mut Dice::new(seed));
            let last = disk.image().log.last();
            assert!((1..=2).contains(&last), "the first flush had the first entry alone");
            lost |= last == 1;
        }
        assert!(lost);
    }

    #[test]
    fn a_torn_write_leaves_the_whole_records_before_it() {
        let partial = (0..200).any(|seed| {
            let mut disk = Disk::default();
            disk.write(Op::Append((1..=4).map(entry).collect()), Then::Nothing);
            disk.crash(&mut Dice::new(seed));
            (1..4).contains(&disk.image().log.last())
        });
        assert!(partial);
    }
}
