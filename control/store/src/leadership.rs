//! Who leads, as this manager knows it, and whether the store still runs.
//!
//! One task, which ends with openraft's: it turns openraft's metrics and the time since managers
//! were last heard of into a [`Leadership`]. openraft alone goes on believing in a leader that is
//! silent, and lets a leader believe in itself that hears from nobody.

use crate::{
    error::StoreError,
    network::Contacts,
    types::{ManagerId, Peer},
};
use openraft::{RaftMetrics, ServerState, error::Fatal};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How long a leader may hear from less than half of the managers, and a follower nothing from its
/// leader, until it counts as lost. Longer than any election in a network that works.
pub(crate) const SILENCE: Duration = Duration::from_millis(1500);

/// How long an answer is still waited for once the lead is lost.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How often it is looked at when nothing happens.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) type Metrics = RaftMetrics<ManagerId, Peer>;

/// Who leads.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Leadership {
    /// Node id of the leader, if there is one and it has been heard of lately.
    pub leader: Option<String>,
    /// This manager leads, hears from more than half of the managers, and has applied all that
    /// was acknowledged before it led: proposals can be made here, and decisions from the state.
    pub ours: bool,
    /// Raft's term: greater with each new leader.
    pub term: u64,
}

pub(crate) struct Watches {
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) failed: watch::Receiver<Option<String>>,
}

pub(crate) fn start(metrics: watch::Receiver<Metrics>, contacts: Arc<Contacts>) -> Watches {
    let (leadership, leadership_seen) = watch::channel(Leadership::default());
    let (failed, failed_seen) = watch::channel(None);
    tokio::spawn(follow(metrics, contacts, leadership, failed));
    Watches { leadership: leadership_seen, failed: failed_seen }
}

async fn follow(
    mut metrics: watch::Receiver<Metrics>,
    contacts: Arc<Contacts>,
    leadership: watch::Sender<Leadership>,
    failed: watch::Sender<Option<String>>,
) {
    loop {
        let (now, running) = {
            let metrics = metrics.borrow_and_update();
            (judge(&metrics, |id| contacts.within(id, SILENCE)), metrics.running_state.clone())
        };
        let running = match tokio::time::timeout(LOOK, metrics.changed()).await {
            Ok(Err(_)) if running.is_ok() => Err("the log's task ended unexpectedly".to_owned()),
            Ok(Err(_)) => running.map_err(|error| error.to_string()),
            _ => match running {
                Ok(()) => Ok(()),
                Err(Fatal::Stopped) => Err(String::new()),
                Err(error) => Err(error.to_string()),
            },
        };
        let Err(reason) = running else {
            leadership.send_if_modified(|seen| std::mem::replace(seen, now.clone()) != now);
            continue;
        };
        leadership.send_replace(Leadership { term: now.term, ..Leadership::default() });
        if !reason.is_empty() {
            tracing::error!(reason, "the store has failed");
            failed.send_replace(Some(reason));
        }
        return;
    }
}

/// Why nothing can be proposed here.
pub(crate) fn not_leader(leadership: &watch::Receiver<Leadership>) -> StoreError {
    if leadership.has_changed().is_err() {
        return StoreError::Stopped("its log is closed".into());
    }
    let leadership = leadership.borrow();
    match &leadership.leader {
        // This manager itself may have been elected and not have applied everything yet.
        Some(leader) => StoreError::NotLeader { leader: leader.clone() },
        None => StoreError::NoLeader,
    }
}

/// Waits for openraft's answer as long as this manager leads; openraft itself might wait for ever.
pub(crate) async fn while_leading<R, E: Into<StoreError>>(
    mut leadership: watch::Receiver<Leadership>,
    answer: impl Future<Output = Result<R, E>>,
) -> Result<R, StoreError> {
    tokio::pin!(answer);
    let lost = async {
        let lost = leadership.wait_for(|leadership| !leadership.ours).await;
        let leader = lost.map(|leadership| leadership.leader.clone());
        // What was on its way may still be answered, for instance by a refusal.
        tokio::time::sleep(LAST_WORDS).await;
        leader
    };
    tokio::select! {
        biased;
        answer = &mut answer => answer.map_err(Into::into),
        leader = lost => Err(match leader {
            Ok(None) => StoreError::NoLeader,
            Ok(Some(_)) => StoreError::Interrupted,
            Err(_) => StoreError::Stopped("its log is closed".into()),
        }),
    }
}

/// Whether more than half of the voters, this manager among them, have been heard.
fn majority(metrics: &Metrics, heard: impl Fn(ManagerId) -> bool) -> bool {
    let configs = metrics.membership_config.membership().get_joint_config();
    configs.iter().all(|voters| {
        let there = voters.iter().filter(|id| **id == metrics.id || heard(**id)).count();
        2 * there > voters.len()
    })
}

fn judge(metrics: &Metrics, heard: impl Fn(ManagerId) -> bool) -> Leadership {
    let term = metrics.current_term;
    let leads = metrics.state == ServerState::Leader;
    let acknowledged =
        metrics.millis_since_quorum_ack.is_some_and(|age| u128::from(age) <= SILENCE.as_millis());
    // Those whose disks are slow acknowledge nothing meanwhile, and say that they are there. Had another been elected
    // they would not.
    let quorum = acknowledged || leads && majority(metrics, &heard);
    let leader = metrics.current_leader.filter(|leader| match *leader == metrics.id {
        true => leads && quorum,
        false => heard(*leader),
    });
    let caught_up = metrics.last_applied.is_some_and(|id| id.leader_id.term == term);
    Leadership { leader: leader.map(String::from), ours: leads && quorum && caught_up, term }
}
