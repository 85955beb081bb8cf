//! Entries of the log, and what managers say to each other about them.
use shoal_cores::Report;
use shoal_model::{Change, State, Timestamp};
use std::{collections::VecDeque, rc::Rc};

/// Who wants a change: decides what it may do to a task.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Author {
    /// Whoever made the cluster.
    Founder,
    Orchestrator,
    Allocator,
    Scheduler,
    /// Nodes, by their reports.
    Nodes(Rc<Vec<Report>>),
    /// The manager, about nodes: registered, silent, forgotten at a new leader's begin.
    Manager,
    /// A user.
    Client(usize),
}

impl Author {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Author::Founder => "founder",
            Author::Orchestrator => "orchestrator",
            Author::Allocator => "allocator",
            Author::Scheduler => "scheduler",
            Author::Nodes(_) => "nodes",
            Author::Manager => "manager",
            Author::Client(_) => "client",
        }
    }
}

/// A transaction.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Txn {
    /// Told apart by this; no two are the same.
    pub(crate) id: u64,
    /// The proposer's clock.
    pub(crate) now: Timestamp,
    pub(crate) author: Author,
    /// Version of the state it was made from.
    pub(crate) read: u64,
    pub(crate) changes: Vec<Change>,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) payload: Payload,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Payload {
    /// A new leader's first.
    Blank,
    Batch(Vec<Txn>),
}

/// A state that stands for all entries up to an index.
pub(crate) struct Snapshot {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) state: State,
}

/// The entries behind a snapshot.
#[derive(Clone, Default)]
pub(crate) struct Log {
    base: u64,
    base_term: u64,
    entries: VecDeque<Rc<Entry>>,
}

impl Log {
    /// Index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    pub(crate) fn last_term(&self) -> u64 {
        self.entries.back().map_or(self.base_term, |e| e.term)
    }

    /// Index of the last entry that is no longer here.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.base + 1)?).ok()
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Rc<Entry>> {
        self.entries.get(self.position(index)?)
    }

    /// Term of the entry at an index, if that is known here.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base { Some(self.base_term) } else { self.get(index).map(|e| e.term) }
    }

    /// Entries from an index on.
    pub(crate) fn from(&self, index: u64) -> Vec<Rc<Entry>> {
        let skip = self.position(index).unwrap_or(0);
        self.entries.iter().skip(skip).cloned().collect()
    }

    /// Puts entries at their places; what was there and behind goes.
    pub(crate) fn put(&mut self, entries: &[Rc<Entry>]) {
        let Some(first) = entries.first() else { return };
        let Some(at) = self.position(first.index) else { return };
        self.entries.truncate(at);
        if at == self.entries.len() {
            self.entries.extend(entries.iter().cloned());
        }
    }

    /// Forgets entries up to `index`.
    pub(crate) fn compact(&mut self, index: u64) {
        while self.base < index {
            let Some(first) = self.entries.pop_front() else { return };
            (self.base, self.base_term) = (first.index, first.term);
        }
    }

    /// Begins anew behind a snapshot; entries that follow it are kept if they belong to it.
    pub(crate) fn rebase(&mut self, index: u64, term: u64) {
        if self.term_at(index) == Some(term) {
            self.compact(index);
        } else {
            *self = Log { base: index, base_term: term, entries: VecDeque::new() };
        }
    }
}

/// From one manager to another.
pub(crate) enum Message {
    Vote { term: u64, last: (u64, u64) },
    Voted { term: u64, granted: bool },
    Append { term: u64, before: (u64, u64), entries: Vec<Rc<Entry>>, commit: u64 },
    Appended { term: u64, good: bool, last: u64, commit: u64 },
    Install { term: u64, snapshot: Rc<Snapshot> },
}

impl Message {
    pub(crate) fn term(&self) -> u64 {
        match self {
            Message::Vote { term, .. }
            | Message::Voted { term, .. }
            | Message::Append { term, .. }
            | Message::Appended { term, .. }
            | Message::Install { term, .. } => *term,
        }
    }

    /// For the trace.
    pub(crate) fn digest(&self) -> (&'static str, u64, u64) {
        match self {
            Message::Vote { term, last } => ("vote", *term, last.1),
            Message::Voted { term, granted } => ("voted", *term, u64::from(*granted)),
            Message::Append { term, before, entries, .. } => {
                ("append", *term, before.0 + entries.len() as u64)
            }
            Message::Appended { term, last, .. } => ("appended", *term, *last),
            Message::Install { term, snapshot } => ("install", *term, snapshot.index),
        }
    }
}
