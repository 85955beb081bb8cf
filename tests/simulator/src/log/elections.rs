//! Who leads: silence, elections, votes.

use super::{Leading, Message, Op, Payload, Role, Then};
use crate::{
    event::Event,
    stats::Count,
    time::{MS, Ns},
    world::World,
};
use shoal_model::bugs::{self, Bug};
use std::collections::BTreeSet;

/// Election timeout, from and to: an election within a second of a leader's loss.
const TIMEOUT: (Ns, Ns) = (500 * MS, 1_000 * MS);
/// A leader that hears no majority for so long leads no more (`control/store/src/leadership.rs`).
const SILENCE: Ns = 1_500 * MS;

impl World {
    /// Arms the election timers of managers that hear of no leader, and rests the others'. To be
    /// called after whatever may change that.
    pub(crate) fn watch_leaders(&mut self) {
        for m in 0..self.peers.len() {
            if !self.hosts[m].up {
                continue;
            }
            self.watch_majority(m);
            let lonely = self.peers[m].lonely && !self.reaches_majority(m);
            let hears = self.peers[m].is_leader() || self.hears_leader(m) || lonely;
            let peer = &mut self.peers[m];
            if hears == peer.timer_armed {
                peer.timer += 1;
                peer.timer_armed = !hears;
                if !hears {
                    self.arm_timer(m);
                }
            }
        }
    }

    /// Heartbeats are not events: that the others are out of reach is when silence begins.
    fn watch_majority(&mut self, m: usize) {
        let cut_off = self.peers[m].is_leader() && !self.reaches_majority(m);
        let peer = &mut self.peers[m];
        if cut_off != peer.cut_off {
            peer.cut_off = cut_off;
            peer.silence += 1;
            let event = Event::Silence { m, silence: peer.silence };
            if cut_off {
                self.after(SILENCE, event);
            }
        }
    }

    /// A leader has heard no majority for too long: it cannot know whether it still is one.
    pub(crate) fn no_majority(&mut self, m: usize, silence: u64) {
        let peer = &mut self.peers[m];
        if peer.is_leader() && peer.cut_off && peer.silence == silence {
            peer.role = Role::Follower;
            peer.leader = None;
            self.end_lead(m);
            self.watch_leaders();
        }
    }

    fn arm_timer(&mut self, m: usize) {
        let timeout = self.dice.between(TIMEOUT.0, TIMEOUT.1);
        let timer = self.peers[m].timer;
        self.after(timeout, Event::Election { m, timer });
    }

    /// Whether the leader this manager follows still follows up.
    fn hears_leader(&self, m: usize) -> bool {
        self.peers[m].leader.is_some_and(|l| {
            l != m
                && self.hosts[l].up
                && self.hosts[l].paused_until <= self.now
                && self.peers[l].is_leader()
                && self.peers[l].term == self.peers[m].term
                && self.net.passes(l, m)
        })
    }

    /// Whether enough managers could hear it and answer for it to be elected.
    pub(crate) fn reaches_majority(&self, m: usize) -> bool {
        let reached = |other: &usize| {
            let host = &self.hosts[*other];
            self.net.clear(m, *other) && host.up && host.paused_until <= self.now
        };
        (0..self.peers.len()).filter(reached).count() >= self.majority()
    }

    /// What a read that asks a majority whether this one still leads comes to: it does, and has applied
    /// all there was.
    pub(crate) fn still_leads(&self, m: usize) -> bool {
        let peer = &self.peers[m];
        let deposed = self.peers.iter().any(|p| p.is_leader() && p.term > peer.term);
        self.serves(m)
            && peer.is_leader()
            && !deposed
            && peer.applied == peer.commit
            && self.reaches_majority(m)
    }

    pub(crate) fn election_timeout(&mut self, m: usize, timer: u64) {
        if self.peers[m].timer == timer && self.peers[m].timer_armed {
            // One that cannot win stands once and then rests until the ways change: standing every
            // second through hours of a partition would show nothing more.
            self.peers[m].lonely = true;
            self.campaign(m);
            if self.peers[m].timer_armed {
                self.peers[m].timer += 1;
                self.arm_timer(m);
            }
        }
    }

    /// Stands for election; also what a manager does whose heartbeats were lost.
    pub(crate) fn campaign(&mut self, m: usize) {
        let peer = &mut self.peers[m];
        peer.term += 1;
        peer.voted = Some(m);
        peer.leader = None;
        peer.role = Role::Candidate(BTreeSet::new());
        let term = peer.term;
        self.stats.add(Count::Elections);
        self.write(m, Op::Vote { term, voted: Some(m) }, Then::Campaign { term });
        self.watch_leaders();
    }

    pub(super) fn vote_asked(&mut self, m: usize, from: usize, term: u64, last: (u64, u64)) {
        let peer = &self.peers[m];
        let newer = last >= (peer.log.last_term(), peer.log.last());
        let free = peer.voted.is_none_or(|v| v == from);
        let stands = term == peer.term && !peer.is_leader();
        if stands && free && (newer || bugs::active(Bug::ElectStaleLog)) {
            self.peers[m].voted = Some(from);
            self.write(m, Op::Vote { term, voted: Some(from) }, Then::Grant { to: from, term });
        } else {
            let term = self.peers[m].term;
            self.send(m, from, Message::Voted { term, granted: false });
        }
    }

    pub(super) fn count_vote(&mut self, m: usize, from: usize) {
        let majority = self.majority();
        let peer = &mut self.peers[m];
        let Role::Candidate(votes) = &mut peer.role else { return };
        votes.insert(from);
        if votes.len() >= majority {
            self.take_lead(m);
        }
    }

    pub(super) fn majority(&self) -> usize {
        self.peers.len() / 2 + 1
    }

    fn take_lead(&mut self, m: usize) {
        let n = self.peers.len();
        let peer = &mut self.peers[m];
        peer.leader = Some(m);
        peer.role = Role::Leader(Box::new(Leading {
            next: vec![peer.log.last() + 1; n],
            matched: vec![0; n],
            told: vec![None; n],
            resending: vec![false; n],
        }));
        let term = peer.term;
        self.stats.add(Count::Leaders);
        self.note("leads", m as u64, term);
        self.checks.elected(m, term);
        self.append(m, Payload::Blank);
        self.watch_leaders();
    }

    /// Follows a term, and its leader if that is known.
    pub(super) fn follow(&mut self, m: usize, term: u64, leader: Option<usize>) {
        let led = self.peers[m].is_leader();
        let peer = &mut self.peers[m];
        if term > peer.term {
            peer.term = term;
            peer.voted = None;
            peer.leader = None;
            self.write(m, Op::Vote { term, voted: None }, Then::Nothing);
        }
        let peer = &mut self.peers[m];
        peer.role = Role::Follower;
        peer.leader = leader.or(peer.leader);
        peer.first &= leader.is_none();
        if led {
            self.end_lead(m);
        }
    }
}
