//! Entries on their way from the leader to its followers, and commitment.

use super::{Entry, Message, Op, Payload, Role, Then};
use crate::{
    event::Event,
    stats::Count,
    time::{MS, Ns},
    world::World,
};
use shoal_model::bugs::{self, Bug};
use std::rc::Rc;

/// An entry or heartbeat that is not acknowledged is sent again after this.
const RESEND: Ns = 150 * MS;
/// Entries of one message.
const MOST_ENTRIES: usize = 64;

impl World {
    /// Appends to a leader's log; returns the entry's index.
    pub(crate) fn append(&mut self, m: usize, payload: Payload) -> u64 {
        let peer = &mut self.peers[m];
        let entry = Rc::new(Entry { term: peer.term, index: peer.log.last() + 1, payload });
        let (term, last) = (entry.term, entry.index);
        peer.log.put(std::slice::from_ref(&entry));
        self.write(m, Op::Append(vec![entry]), Then::Own { term, last });
        self.replicate(m);
        last
    }

    /// Sends every follower what it lacks, or a heartbeat to one not heard of.
    pub(crate) fn replicate(&mut self, m: usize) {
        for to in 0..self.peers.len() {
            if to != m {
                self.send_entries(m, to);
                self.resend_later(m, to);
            }
        }
    }

    fn send_entries(&mut self, m: usize, to: usize) {
        let peer = &mut self.peers[m];
        let Role::Leader(leading) = &mut peer.role else { return };
        let term = peer.term;
        let next = leading.next[to].max(1);
        let message = match peer.log.term_at(next - 1) {
            Some(before) => {
                let mut entries = peer.log.from(next);
                entries.truncate(MOST_ENTRIES);
                leading.next[to] = next + entries.len() as u64;
                Message::Append { term, before: (next - 1, before), entries, commit: peer.commit }
            }
            None => match &peer.snapshot {
                Some(snapshot) => Message::Install { term, snapshot: snapshot.clone() },
                None => return,
            },
        };
        if matches!(message, Message::Install { .. }) {
            self.stats.add(Count::SnapshotsSent);
        }
        self.send(m, to, message);
    }

    fn lacks(&self, m: usize, to: usize) -> bool {
        let peer = &self.peers[m];
        let Role::Leader(leading) = &peer.role else { return false };
        leading.matched[to] < peer.log.last() || leading.told[to] != Some(peer.commit)
    }

    fn resend_later(&mut self, m: usize, to: usize) {
        // Where nothing can arrive nothing is sent; mending the way begins anew.
        let reachable = self.net.passes(m, to) && self.hosts[to].up;
        if !self.lacks(m, to) || !reachable {
            return;
        }
        let term = self.peers[m].term;
        let Role::Leader(leading) = &mut self.peers[m].role else { return };
        if !std::mem::replace(&mut leading.resending[to], true) {
            self.after(RESEND, Event::Resend { m, to, term });
        }
    }

    pub(crate) fn resend(&mut self, m: usize, to: usize, term: u64) {
        let peer = &mut self.peers[m];
        let Role::Leader(leading) = &mut peer.role else { return };
        if peer.term != term {
            return;
        }
        leading.resending[to] = false;
        leading.next[to] = leading.matched[to] + 1;
        if self.lacks(m, to) {
            self.send_entries(m, to);
            self.resend_later(m, to);
        }
    }

    /// After a way was mended or a manager is back: leaders make themselves heard.
    pub(crate) fn greet_followers(&mut self) {
        for m in 0..self.peers.len() {
            let Role::Leader(leading) = &mut self.peers[m].role else { continue };
            if self.hosts[m].up {
                leading.told.fill(None);
                self.replicate(m);
            }
        }
    }

    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        let message = Rc::new(message);
        let arrivals = self.net.datagram(from, to);
        match arrivals.len() {
            0 => self.stats.add(Count::MessagesLost),
            1 => {}
            _ => self.stats.add(Count::MessagesDoubled),
        }
        for delay in arrivals {
            self.after(delay, Event::Peer { from, to, message: message.clone() });
        }
    }

    pub(crate) fn hear_peer(&mut self, m: usize, from: usize, message: &Message) {
        if !self.hosts[m].up {
            return;
        }
        let term = message.term();
        if term > self.peers[m].term {
            self.follow(m, term, None);
        }
        match message {
            Message::Vote { last, .. } if term == self.peers[m].term => {
                self.vote_asked(m, from, term, *last);
            }
            Message::Voted { granted: true, .. } if term == self.peers[m].term => {
                self.count_vote(m, from);
            }
            Message::Vote { .. } => {
                let term = self.peers[m].term;
                self.send(m, from, Message::Voted { term, granted: false });
            }
            Message::Voted { .. } => {}
            Message::Append { before, entries, commit, .. } => {
                self.take_entries(m, from, term, *before, entries, *commit);
            }
            Message::Appended { good, last, commit, .. } if term == self.peers[m].term => {
                self.acknowledged(m, from, *good, *last, *commit);
            }
            Message::Appended { .. } => {}
            Message::Install { snapshot, .. } => self.install(m, from, term, snapshot),
        }
        self.watch_leaders();
    }

    fn take_entries(
        &mut self,
        m: usize,
        from: usize,
        term: u64,
        before: (u64, u64),
        entries: &[Rc<Entry>],
        commit: u64,
    ) {
        let own = self.peers[m].term;
        let stale = term < own;
        if stale && !bugs::active(Bug::ObeyStaleLeader) {
            let last = self.peers[m].log.last();
            return self.send(
                m,
                from,
                Message::Appended { term: own, good: false, last, commit: 0 },
            );
        }
        if !stale {
            self.follow(m, term, Some(from));
        }
        let peer = &mut self.peers[m];
        let fits = before.0 < peer.log.base() || peer.log.term_at(before.0) == Some(before.1);
        if !fits {
            let last = peer.log.last().min(before.0.saturating_sub(1));
            let commit = peer.commit;
            return self.send(m, from, Message::Appended { term, good: false, last, commit });
        }
        let known = |e: &&Rc<Entry>| {
            e.index <= peer.log.base() || peer.log.term_at(e.index) == Some(e.term)
        };
        let fresh: Vec<_> = entries.iter().skip_while(known).cloned().collect();
        let last = before.0 + entries.len() as u64;
        if let Some(first) = fresh.first() {
            let (index, applied) = (first.index, peer.applied);
            peer.log.put(&fresh);
            self.checks.truncated(m, index, applied);
            self.write(m, Op::Append(fresh), Then::Acknowledge { to: from, term, last });
        } else {
            self.write(m, Op::Barrier, Then::Acknowledge { to: from, term, last });
        }
        let peer = &mut self.peers[m];
        peer.commit = peer.commit.max(commit.min(last));
        self.apply_soon(m);
    }

    fn acknowledged(&mut self, m: usize, from: usize, good: bool, last: u64, commit: u64) {
        let peer = &mut self.peers[m];
        let Role::Leader(leading) = &mut peer.role else { return };
        leading.told[from] = Some(commit);
        if good {
            leading.matched[from] = leading.matched[from].max(last);
            leading.next[from] = leading.next[from].max(last + 1);
            self.commit(m);
        } else {
            // An answer that was overtaken says less than is known; then the next retransmission will do.
            let overtaken = last < leading.matched[from];
            leading.next[from] = (last + 1).max(leading.matched[from] + 1);
            if !overtaken {
                self.send_entries(m, from);
            }
        }
        self.resend_later(m, from);
    }

    pub(super) fn commit(&mut self, m: usize) {
        let majority = self.majority();
        let peer = &mut self.peers[m];
        let Role::Leader(leading) = &peer.role else { return };
        let mut matched = leading.matched.clone();
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let safe = match bugs::active(Bug::SkipQuorum) {
            true => leading.matched[m],
            false => matched[majority - 1],
        };
        // Only entries of its own term are committed by counting (Raft, 5.4.2).
        if safe > peer.commit && peer.log.term_at(safe) == Some(peer.term) {
            peer.commit = safe;
            self.apply_soon(m);
            self.replicate(m);
        }
    }
}
