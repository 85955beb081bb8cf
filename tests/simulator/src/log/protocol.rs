//! Elections, replication, commitment, applying, snapshots.
use super::{Entry, Leading, Message, Op, Payload, Peer, Role, Snapshot, Then};
use crate::{
    event::Event,
    stats::Count,
    time::{MS, Ns, SEC},
    world::World,
};
use shoal_model::bugs::{self, Bug};
use std::{collections::BTreeSet, rc::Rc};

/// Election timeout, from and to: an election within a second of a leader's loss.
const TIMEOUT: (Ns, Ns) = (500 * MS, 1_000 * MS);
/// A leader that hears no majority for so long leads no more (`control/store/src/leadership.rs`).
const SILENCE: Ns = 1_500 * MS;
/// An entry or heartbeat that is not acknowledged is sent again after this.
const RESEND: Ns = 150 * MS;
/// Entries of one message.
const MOST_ENTRIES: usize = 64;

impl World {
    // ── elections ────────────────────────────────────────────────────────────────────────────────

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

    fn vote_asked(&mut self, m: usize, from: usize, term: u64, last: (u64, u64)) {
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

    fn count_vote(&mut self, m: usize, from: usize) {
        let majority = self.majority();
        let peer = &mut self.peers[m];
        let Role::Candidate(votes) = &mut peer.role else { return };
        votes.insert(from);
        if votes.len() >= majority {
            self.take_lead(m);
        }
    }

    fn majority(&self) -> usize {
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

    // ── replication ──────────────────────────────────────────────────────────────────────────────

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

    fn send(&mut self, from: usize, to: usize, message: Message) {
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

    /// Follows a term, and its leader if that is known.
    fn follow(&mut self, m: usize, term: u64, leader: Option<usize>) {
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

    fn commit(&mut self, m: usize) {
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

    // ── disk ─────────────────────────────────────────────────────────────────────────────────────

    fn write(&mut self, m: usize, op: Op, then: Then) {
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

    // ── applying ─────────────────────────────────────────────────────────────────────────────────

    pub(crate) fn apply_soon(&mut self, m: usize) {
        let peer = &self.peers[m];
        if peer.commit > peer.applied && !peer.applying {
            let takes = if peer.slow > 0 {
                self.dice.between(MS, 200 * MS)
            } else {
                self.dice.between(20_000, 400_000)
            };
            self.peers[m].applying = true;
            let boot = self.hosts[m].boot;
            self.after(takes, Event::Apply { m, boot });
        }
    }

    pub(crate) fn apply_next(&mut self, m: usize) {
        self.peers[m].applying = false;
        let peer = &self.peers[m];
        if peer.commit <= peer.applied {
            return;
        }
        let mut order = vec![peer.applied + 1];
        let swapped = peer.applied + 2;
        if bugs::active(Bug::ApplyOutOfOrder) && !peer.is_leader() && peer.commit >= swapped {
            order.insert(0, swapped);
        }
        for index in order {
            let Some(entry) = self.peers[m].log.get(index).cloned() else { break };
            self.apply_entry(m, &entry);
        }
        self.snapshot_if_due(m);
        self.apply_soon(m);
    }

    fn apply_entry(&mut self, m: usize, entry: &Rc<Entry>) {
        let peer = &mut self.peers[m];
        let mut results = Vec::new();
        if let Payload::Batch(batch) = &entry.payload {
            for txn in batch {
                let version = peer.state.version + 1;
                let applied = peer.state.apply(version, txn.now, txn.changes.clone());
                results.push(applied.map(|()| version));
            }
        }
        peer.applied = peer.applied.max(entry.index);
        self.stats.add(Count::Applied);
        self.checks.applied(m, entry, &self.peers[m].state, &results, self.now);
        self.entry_applied(m, entry, results);
    }

    fn snapshot_if_due(&mut self, m: usize) {
        let peer = &mut self.peers[m];
        let since = peer.snapshot.as_ref().map_or(0, |s| s.index);
        if peer.applied < since + self.config.snapshot_every {
            return;
        }
        let Some(term) = peer.log.term_at(peer.applied) else { return };
        let snapshot = Rc::new(Snapshot { index: peer.applied, term, state: peer.state.clone() });
        peer.snapshot = Some(snapshot.clone());
        let compact = peer.applied.saturating_sub(self.config.snapshot_keep);
        self.stats.add(Count::SnapshotsMade);
        let op = Op::Snapshot { snapshot, compact };
        self.write(m, op, Then::Compact { index: compact });
    }

    fn install(&mut self, m: usize, from: usize, term: u64, snapshot: &Rc<Snapshot>) {
        if term < self.peers[m].term {
            return;
        }
        self.follow(m, term, Some(from));
        let peer = &mut self.peers[m];
        let last = snapshot.index;
        if last <= peer.commit {
            if bugs::active(Bug::InstallOldSnapshot) {
                peer.state = snapshot.state.clone();
            }
            return self.write(m, Op::Barrier, Then::Acknowledge { to: from, term, last });
        }
        peer.log.rebase(last, snapshot.term);
        peer.state = snapshot.state.clone();
        (peer.commit, peer.applied) = (last, last);
        peer.snapshot = Some(snapshot.clone());
        self.stats.add(Count::SnapshotsInstalled);
        self.checks.installed(m, &self.peers[m].state, last);
        let op = Op::Snapshot { snapshot: snapshot.clone(), compact: last };
        self.write(m, op, Then::Acknowledge { to: from, term, last });
    }

    // ── the host ─────────────────────────────────────────────────────────────────────────────────

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
