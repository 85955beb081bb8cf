//! When a snapshot is made, and how much of the log stays behind it: as the cluster's specification says at
//! the time, so that a change of it needs no restart.

use crate::{machine::Replica, types::Raft};
use openraft::LogIdOptionExt as _;
use shoal_model::State;
use std::sync::Arc;
use tokio::sync::watch;

/// Log entries between two snapshots, and kept behind one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pace {
    pub(crate) interval: u64,
    pub(crate) keep: u64,
}

impl Pace {
    /// What the cluster's specification says, and `otherwise` where it says nothing.
    fn of(state: &State, otherwise: Pace) -> Pace {
        let raft = state.cluster.as_ref().and_then(|cluster| cluster.spec.raft.as_ref());
        let interval = raft.and_then(|raft| raft.snapshot_interval).filter(|n| *n > 0);
        let keep = raft.and_then(|raft| raft.log_entries_for_slow_followers);
        Pace {
            interval: interval.unwrap_or(otherwise.interval),
            keep: keep.unwrap_or(otherwise.keep),
        }
    }

    /// Whether so much was applied since the last snapshot that it is time for one. Indices are those of
    /// the entry after the last one.
    fn wants_snapshot(self, applied: u64, snapshot: u64) -> bool {
        applied.saturating_sub(snapshot) >= self.interval
    }

    /// Up to which index, with it, the log may go.
    fn purgeable(self, snapshot: u64) -> Option<u64> {
        snapshot.checked_sub(self.keep)?.checked_sub(1)
    }
}

/// Asks for snapshots, and for the log behind them to go, until the store ends or is dropped.
pub(crate) async fn run(
    raft: Raft,
    replica: Arc<Replica>,
    otherwise: Pace,
    mut dropped: watch::Receiver<()>,
) {
    let mut metrics = raft.metrics();
    // What was asked for and has not happened yet: asking again would only queue it again.
    let (mut asked_at, mut asked_upto) = (None, None);
    loop {
        let (applied, snapshot, purged) = {
            let seen = metrics.borrow_and_update();
            let next = |id: Option<crate::types::LogId>| id.next_index();
            (next(seen.last_applied), next(seen.snapshot), next(seen.purged))
        };
        let pace = replica.read(|state| Pace::of(state, otherwise));
        if pace.wants_snapshot(applied, snapshot) && asked_at != Some(snapshot) {
            asked_at = Some(snapshot);
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
        if let Some(upto) = pace.purgeable(snapshot).filter(|upto| *upto >= purged)
            && asked_upto != Some(upto)
        {
            asked_upto = Some(upto);
            if raft.trigger().purge_log(upto).await.is_err() {
                return;
            }
        }
        tokio::select! {
            _ = dropped.changed() => return,
            changed = metrics.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { interval: 10, keep: 3 };

    #[test]
    fn a_snapshot_is_wanted_when_the_interval_is_full() {
        assert!(!PACE.wants_snapshot(9, 0));
        assert!(PACE.wants_snapshot(10, 0));
        assert!(!PACE.wants_snapshot(19, 10));
        assert!(PACE.wants_snapshot(20, 10));
        // A snapshot that was received may be ahead.
        assert!(!PACE.wants_snapshot(5, 20));
    }

    #[test]
    fn so_many_entries_stay_behind_a_snapshot() {
        // Entries 0 to 9 are in it; 7, 8 and 9 stay.
        assert_eq!(PACE.purgeable(10), Some(6));
        assert_eq!(PACE.purgeable(3), None);
        assert_eq!(PACE.purgeable(0), None);
    }

    #[test]
    fn without_a_cluster_the_store_s_own_pace_counts() {
        assert_eq!(Pace::of(&State::default(), PACE), PACE);
    }
}
