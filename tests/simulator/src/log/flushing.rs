//! A manager's disk: writes, what waits for them, and what the end of the process leaves of them.

use super::{Message, Op, Peer, Role, Then};
use crate::{event::Event, stats::Count, time::SEC, world::World};
use shoal_model::bugs::{self, Bug};

impl World {
    pub(super) fn write(&mut self, m: usize, op: Op, then: Then) {
        let vote = matches!(op, Op::Vote { .. });
        if vote && bugs::active(Bug::ForgetVote) {
            return self.carry_on(m, then);
        }
        if matches!(op, Op::Barrier) && self.peers[m].disk.is_idle() {
            return self.carry_on(m, then);
        }
        let early = !vote && bugs::active(Bug::AckBeforeFsync);
        let begin = self.peers[m].disk.write(op, if early { Then::Nothing } else { then });
        if begin {
            self.flush(m);
        }
        if early {
            self.carry_on(m, then);
        }
    }

    fn flush(&mut self, m: usize) {
        let (low, high) = self.config.disk.flush;
        let slow = if self.peers[m].disk.slow > 0 { 500 } else { self.config.disk.slow };
        let long = self.dice.chance(slow);
        let takes = self.dice.between(low, high) + if long { self.dice.below(SEC) } else { 0 };
        let boot = self.hosts[m].boot;
        self.after(takes, Event::Flushed { m, boot });
        if self.hosts[m].trapped.is_some() {
            self.after(takes / 2, Event::Trap { host: m });
        }
    }

    pub(crate) fn flushed(&mut self, m: usize) {
        self.stats.add(Count::Flushes);
        let (thens, again) = self.peers[m].disk.flushed();
        if again {
            self.flush(m);
        }
        for then in thens {
            self.carry_on(m, then);
        }
    }

    fn carry_on(&mut self, m: usize, then: Then) {
        let present = self.peers[m].term;
        match then {
            Then::Nothing => {}
            Then::Grant { to, term } if term == present => {
                self.send(m, to, Message::Voted { term, granted: true });
            }
            Then::Campaign { term } if term == present => {
                let last = (self.peers[m].log.last_term(), self.peers[m].log.last());
                for to in (0..self.peers.len()).filter(|to| *to != m) {
                    self.send(m, to, Message::Vote { term, last });
                }
                self.count_vote(m, m);
            }
            Then::Acknowledge { to, term, last } => {
                let commit = self.peers[m].commit;
                self.send(m, to, Message::Appended { term, good: true, last, commit });
            }
            Then::Own { term, last } if term == present => {
                if let Role::Leader(leading) = &mut self.peers[m].role {
                    leading.matched[m] = leading.matched[m].max(last);
                    self.commit(m);
                }
            }
            Then::Compact { index } => self.peers[m].log.compact(index),
            Then::Grant { .. } | Then::Campaign { .. } | Then::Own { .. } => {}
        }
    }

    /// The manager's process is gone; with `power` what was not flushed, too. (A process that dies
    /// leaves its writes to the kernel, which flushes them.)
    pub(crate) fn stop_peer(&mut self, m: usize, power: bool) {
        let mut dice = self.dice.fork();
        let peer = &mut self.peers[m];
        peer.timer += 1;
        peer.timer_armed = false;
        peer.cut_off = false;
        let led = peer.is_leader();
        peer.role = Role::Follower;
        if power {
            let torn = peer.disk.crash(&mut dice);
            self.stats.add_many(Count::TornWrites, torn);
        } else {
            while peer.disk.flushed().1 {}
        }
        if led {
            self.end_lead(m);
        }
    }

    pub(crate) fn start_peer(&mut self, m: usize) {
        let disk = std::mem::take(&mut self.peers[m].disk);
        let (timer, silence) = (self.peers[m].timer, self.peers[m].silence);
        self.peers[m] = Peer::start(disk);
        (self.peers[m].timer, self.peers[m].silence) = (timer, silence);
    }
}
