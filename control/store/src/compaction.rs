//! When a snapshot is made, and how much of the log stays behind it: as the cluster's specification says at
//! the time, so that a change of it needs no restart.
//!
//! A snapshot of a large cluster is work, and all managers apply the same entries at nearly the same time. So each
//! has a turn of its own in the interval: while one makes a snapshot, the others are as quick as ever, and they are
//! enough.

use crate::{leadership::Metrics, machine::Replica, types::Raft};
use openraft::LogIdOptionExt as _;
use shoal_model::State;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Entries that go from the log at once: openraft does nothing else meanwhile.
const PURGE_STEP: u64 = 500;

/// Pause after each look: there is something new with each entry.
const PAUSE: Duration = Duration::from_millis(20);

/// Log entries between two snapshots, and kept behind one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pace {
    pub(crate) interval: u64,
    pub(crate) keep: u64,
}

/// What the cluster's specification says of a [`Pace`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AskedPace {
    interval: Option<u64>,
    keep: Option<u64>,
}

impl AskedPace {
    pub(crate) fn of(state: &State) -> AskedPace {
        let raft = state.cluster.as_ref().and_then(|cluster| cluster.spec.raft.as_ref());
        let interval = raft.and_then(|raft| raft.snapshot_interval).filter(|n| *n > 0);
        let keep = raft.and_then(|raft| raft.log_entries_for_slow_followers);
        AskedPace { interval, keep }
    }

    /// The pace, with `otherwise` where nothing is said.
    fn or(self, otherwise: Pace) -> Pace {
        Pace {
            interval: self.interval.unwrap_or(otherwise.interval),
            keep: self.keep.unwrap_or(otherwise.keep),
        }
    }
}

impl Pace {
    /// Whether the turn of this manager has come since the last snapshot: every `interval` entries, so many
    /// before others'. Indices are those of the entry after the last one.
    fn wants_snapshot(self, applied: u64, snapshot: u64, before: u64) -> bool {
        let turn = |index: u64| index.saturating_add(before) / self.interval.max(1);
        turn(applied) > turn(snapshot)
    }

    /// How many entries before the first of `managers` the one of this rank has its turn.
    fn turn(self, rank: usize, managers: usize) -> u64 {
        self.interval / managers.max(1) as u64 * rank as u64
    }

    /// Up to which index, with it, the log may go now.
    fn purgeable(self, snapshot: u64, purged: u64) -> Option<u64> {
        let upto = snapshot.checked_sub(self.keep)?.checked_sub(1)?;
        Some(upto.min(purged.saturating_add(PURGE_STEP - 1)))
    }
}

/// Where this manager stands among all, and how many there are.
fn rank(metrics: &Metrics) -> (usize, usize) {
    let membership = metrics.membership_config.membership();
    let before = membership.nodes().filter(|(id, _)| **id < metrics.id).count();
    (before, membership.nodes().count())
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
        let (applied, snapshot, purged, (rank, managers)) = {
            let seen = metrics.borrow_and_update();
            let next = |id: Option<crate::types::LogId>| id.next_index();
            (next(seen.last_applied), next(seen.snapshot), next(seen.purged), rank(&seen))
        };
        let pace = replica.asked_pace().or(otherwise);
        let before = pace.turn(rank, managers);
        if pace.wants_snapshot(applied, snapshot, before) && asked_at != Some(snapshot) {
            asked_at = Some(snapshot);
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
        if let Some(upto) = pace.purgeable(snapshot, purged).filter(|upto| *upto >= purged)
            && asked_upto != Some(upto)
        {
            asked_upto = Some(upto);
            if raft.trigger().purge_log(upto).await.is_err() {
                return;
            }
        }
        tokio::select! {
            _ = dropped.changed() => return,
            () = tokio::time::sleep(PAUSE) => {}
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
        assert!(!PACE.wants_snapshot(9, 0, 0));
        assert!(PACE.wants_snapshot(10, 0, 0));
        assert!(!PACE.wants_snapshot(19, 10, 0));
        assert!(PACE.wants_snapshot(20, 10, 0));
        // A snapshot that was received may be ahead.
        assert!(!PACE.wants_snapshot(5, 20, 0));
        assert!(!Pace { interval: u64::MAX, keep: 0 }.wants_snapshot(1 << 40, 0, u64::MAX / 3));
    }

    #[test]
    fn three_managers_have_their_turns_one_after_another() {
        let turns = |rank| {
            let (before, mut snapshot) = (PACE.turn(rank, 3), 0);
            let mut turns = Vec::new();
            for applied in 0..25 {
                if PACE.wants_snapshot(applied, snapshot, before) {
                    turns.push(applied);
                    snapshot = applied;
                }
            }
            turns
        };
        assert_eq!([turns(0), turns(1), turns(2)], [vec![10, 20], vec![7, 17], vec![4, 14, 24]]);
    }

    #[test]
    fn so_many_entries_stay_behind_a_snapshot() {
        // Entries 0 to 9 are in it; 7, 8 and 9 stay.
        assert_eq!(PACE.purgeable(10, 0), Some(6));
        assert_eq!(PACE.purgeable(3, 0), None);
        assert_eq!(PACE.purgeable(0, 0), None);
    }

    #[test]
    fn a_long_log_goes_in_steps() {
        assert_eq!(PACE.purgeable(10_000, 0), Some(499));
        assert_eq!(PACE.purgeable(10_000, 500), Some(999));
        assert_eq!(PACE.purgeable(10_000, 9_900), Some(9_996));
    }

    #[test]
    fn without_a_cluster_the_store_s_own_pace_counts() {
        assert_eq!(AskedPace::of(&State::default()).or(PACE), PACE);
    }
}
