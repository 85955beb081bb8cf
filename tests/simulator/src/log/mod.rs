//! A model of the replicated log: Raft as the paper has it, without what openraft adds to it.
//!
//! Terms, votes, appends acknowledged from disk, commitment by a majority, snapshots. Heartbeats are
//! not sent one by one: as long as a leader's way to a follower is open the follower's election timer
//! rests, so that idle time costs nothing (see [`crate::world::World::watch_leaders`]).
mod applying;
mod disk;
mod elections;
mod entry;
mod flushing;
mod replication;

pub(crate) use disk::{Disk, Image, Op, Then};
pub(crate) use entry::{Author, Entry, Log, Message, Payload, Snapshot, Txn};

use shoal_model::State;
use std::{collections::BTreeSet, rc::Rc};

/// A manager's part of the log, as its process has it in memory, and its disk.
pub(crate) struct Peer {
    pub(crate) term: u64,
    pub(crate) voted: Option<usize>,
    pub(crate) log: Log,
    pub(crate) commit: u64,
    pub(crate) applied: u64,
    pub(crate) state: State,
    pub(crate) snapshot: Option<Rc<Snapshot>>,
    pub(crate) role: Role,
    /// Leader of the present term, once it was heard of.
    pub(crate) leader: Option<usize>,
    /// Number of the armed election timer; an event of another one is stale.
    pub(crate) timer: u64,
    pub(crate) timer_armed: bool,
    /// Whether it has stood for election since the ways between hosts last changed.
    pub(crate) lonely: bool,
    /// Whether it leads and cannot reach a majority, and how often that has changed.
    pub(crate) cut_off: bool,
    pub(crate) silence: u64,
    /// Whether nobody else has led since the process began, as far as it has heard.
    pub(crate) first: bool,
    /// Whether an entry is being applied.
    pub(crate) applying: bool,
    /// Faults that slow down applying.
    pub(crate) slow: u32,
    pub(crate) disk: Disk,
}

pub(crate) enum Role {
    Follower,
    Candidate(BTreeSet<usize>),
    Leader(Box<Leading>),
}

/// What a leader knows of the others.
pub(crate) struct Leading {
    /// Next entry to send.
    pub(crate) next: Vec<u64>,
    /// Last entry known to be on the other's disk.
    pub(crate) matched: Vec<u64>,
    /// Commit index the other has acknowledged. `None`: not heard of yet.
    pub(crate) told: Vec<Option<u64>>,
    /// Whether a retransmission is scheduled.
    pub(crate) resending: Vec<bool>,
}

impl Peer {
    /// As the process is when it has read what is on disk.
    pub(crate) fn start(disk: Disk) -> Peer {
        let Image { term, voted, log, snapshot } = disk.image().clone();
        let (state, applied) = match &snapshot {
            Some(snapshot) => (snapshot.state.clone(), snapshot.index),
            None => (State::default(), 0),
        };
        Peer {
            term,
            voted,
            log,
            commit: applied,
            applied,
            state,
            snapshot,
            role: Role::Follower,
            leader: None,
            timer: 0,
            timer_armed: false,
            lonely: false,
            cut_off: false,
            silence: 0,
            first: true,
            applying: false,
            slow: 0,
            disk,
        }
    }

    pub(crate) fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }
}
