//! Applying what is committed, and snapshots of it.

use super::{Entry, Op, Payload, Snapshot, Then};
use crate::{event::Event, stats::Count, time::MS, world::World};
use shoal_model::bugs::{self, Bug};
use std::rc::Rc;

impl World {
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

    pub(super) fn install(&mut self, m: usize, from: usize, term: u64, snapshot: &Rc<Snapshot>) {
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
}
