//! Giving the lead to another manager, so that a planned end costs less time than an election.
//!
//! openraft 0.9 cannot transfer the lead. So the leader takes no more proposals, waits until another
//! has its whole log, keeps silent for a lease, and asks that one to call an election at once.

use crate::{
    Store,
    elector::LEASE,
    error::StoreError,
    leadership::SILENCE,
    transport::RaftCall,
    types::{ManagerId, Vote},
    wire,
};
use serde::{Deserialize, Serialize};
use std::{sync::atomic::Ordering, time::Duration};

/// How long the other may take to receive the end of the log.
const LAST_ENTRIES: Duration = Duration::from_secs(1);

/// How long the others may take to elect.
const ELECTION: Duration = Duration::from_secs(2);

/// More than the lease, because clocks and tasks are not exact.
const MARGIN: Duration = Duration::from_millis(20);

/// The present leader asks to be followed.
#[derive(Serialize, Deserialize)]
pub(crate) struct TakeOver {
    pub(crate) vote: Vote,
}

impl Store {
    /// Gives the lead to the manager that can be reached and has most of the log, and returns its
    /// node id. Proposals made meanwhile wait, and then fail because another leads. A leader that
    /// is to be removed does this first, and lets the new leader remove it.
    pub async fn step_down(&self) -> Result<String, StoreError> {
        let _one = self.membership_lock().await;
        self.must_lead()?;
        let _paused = Paused::new(self);
        let (id, addr) = self.successor().await?;
        tokio::time::sleep(LEASE + MARGIN).await;
        let vote = self.raft().metrics().borrow().vote;
        let request = wire::encode(&TakeOver { vote }).map_err(StoreError::raft)?;
        let call = self.network().call(id, &addr, RaftCall::TakeOver, request);
        match tokio::time::timeout(LAST_ENTRIES, call).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(StoreError::raft(error)),
            Err(_) => return Err(StoreError::NoSuccessor),
        }
        let mut leadership = self.leadership();
        let own = self.node_id();
        let other =
            leadership.wait_for(|now| !now.ours && now.leader.as_ref().is_some_and(|l| *l != own));
        match tokio::time::timeout(ELECTION, other).await {
            Ok(Ok(now)) => Ok(now.leader.clone().unwrap_or_default()),
            _ => Err(StoreError::NoSuccessor),
        }
    }

    /// The voter with the longest log, once it has all of it.
    async fn successor(&self) -> Result<(ManagerId, String), StoreError> {
        let metrics = self.raft().metrics();
        let own = metrics.borrow().id;
        let best = {
            let metrics = metrics.borrow();
            let membership = metrics.membership_config.membership();
            let matched = |id: &ManagerId| {
                metrics.replication.as_ref().and_then(|r| r.get(id).copied().flatten())
            };
            let voters = membership.voter_ids().filter(|id| *id != own);
            let reachable = voters.filter(|id| self.contacts().within(*id, SILENCE));
            let best = reachable.max_by_key(matched);
            best.and_then(|id| Some((id, membership.get_node(&id)?.addr.clone())))
        };
        let (id, addr) = best.ok_or(StoreError::NoSuccessor)?;
        let wait = self.raft().wait(Some(LAST_ENTRIES));
        let complete = wait.metrics(
            |metrics| {
                let matched =
                    metrics.replication.as_ref().and_then(|r| r.get(&id).copied().flatten());
                matched.map(|id| id.index) == metrics.last_log_index
            },
            "the successor has the log",
        );
        complete.await.map_err(|_| StoreError::NoSuccessor)?;
        Ok((id, addr))
    }
}

/// No proposals and no signs of life, until it is dropped.
struct Paused<'a>(&'a Store);

impl Paused<'_> {
    fn new(store: &Store) -> Paused<'_> {
        store.contacts().silent.store(true, Ordering::Relaxed);
        Paused(store)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.contacts().silent.store(false, Ordering::Relaxed);
    }
}
