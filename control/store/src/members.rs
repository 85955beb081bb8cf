//! Managers of the cluster: who they are, taking one in, letting one go.
//!
//! Changes are made by the leader, one at a time. A manager is taken in as a learner first, and
//! becomes a voter once it has the log, so that a slow one never holds up the others' writes.

use crate::{
    Store,
    error::StoreError,
    leadership::{Metrics, SILENCE},
    types::{Batch, ManagerId, Peer},
};
use openraft::ChangeMembers;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long a new manager may take to receive what the others have.
const CATCH_UP: Duration = Duration::from_secs(120);

/// Log entries a new manager may lack when it becomes a voter; openraft's replication keeps up from
/// there.
const NEARLY: u64 = 100;

/// A manager.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its node id.
    pub node_id: String,
    /// Where its store is reached, host and port.
    pub addr: String,
    /// It counts for the quorum; a manager that is still being taken in does not.
    pub voter: bool,
    /// It leads.
    pub leader: bool,
    /// The leader has heard from it lately. On others: whether it is this manager or the leader.
    pub reachable: bool,
}

impl Store {
    /// The managers, in order of node id.
    pub fn members(&self) -> Vec<Member> {
        let metrics = self.raft().metrics().borrow().clone();
        let leadership = self.leadership().borrow().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<ManagerId> = membership.voter_ids().collect();
        let members = membership.nodes().map(|(id, peer)| {
            let node_id = String::from(*id);
            let leader = leadership.leader.as_ref() == Some(&node_id);
            Member {
                addr: peer.addr.clone(),
                voter: voters.contains(id),
                leader,
                reachable: leader || *id == metrics.id || self.contacts().within(*id, SILENCE),
                node_id,
            }
        });
        members.collect()
    }

    /// The leader, if there is one.
    pub fn leader(&self) -> Option<Member> {
        self.members().into_iter().find(|member| member.leader)
    }

    /// Takes a manager in: as a learner, until it has what the others have, then as a voter. Its
    /// store must run by then ([`Store::join`]). One that is a voter already gets the new address.
    pub async fn add_member(&self, node_id: &str, addr: &str) -> Result<(), StoreError> {
        let id = manager_id(node_id)?;
        let _one = self.membership_lock().await;
        self.must_lead()?;
        self.set_addr(id, addr).await?;
        if self.metrics().membership_config.membership().voter_ids().any(|voter| voter == id) {
            return self.membership_holds().await;
        }
        let caught_up = |metrics: &Metrics| {
            let has = metrics.replication.as_ref().and_then(|r| r.get(&id).copied().flatten());
            has.is_some_and(|has| has.index + NEARLY >= metrics.last_log_index.unwrap_or(0))
        };
        let wait = self.raft().wait(Some(CATCH_UP));
        let waited = wait.metrics(
            |metrics| caught_up(metrics) || metrics.replication.is_none(),
            "the new manager has the log",
        );
        let metrics = waited.await.map_err(|_| StoreError::NotCaughtUp {
            node_id: node_id.to_owned(),
            addr: addr.to_owned(),
            patience: CATCH_UP,
        })?;
        if !caught_up(&metrics) {
            return Err(self.not_leader());
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    /// Lets a manager go. Refused when it is the last one, and when the managers that stay and can
    /// be reached would be too few to decide anything.
    pub async fn remove_member(&self, node_id: &str) -> Result<(), StoreError> {
        let id = manager_id(node_id)?;
        let _one = self.membership_lock().await;
        self.must_lead()?;
        let members = self.members();
        let Some(leaving) = members.iter().find(|member| member.node_id == node_id) else {
            // Its store may be thrown away now: that must not be undone.
            return self.membership_holds().await;
        };
        if leaving.voter {
            check_removal(&members, node_id)?;
            self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await?;
        } else {
            self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await?;
        }
        self.contacts().forget(id);
        Ok(())
    }

    /// Whether [`Store::remove_member`] would refuse now, and why.
    pub fn check_removal(&self, node_id: &str) -> Result<(), StoreError> {
        let members = self.members();
        match members.iter().any(|member| member.node_id == node_id && member.voter) {
            true => check_removal(&members, node_id),
            false => Ok(()),
        }
    }

    /// A manager is reached elsewhere now.
    pub async fn update_addr(&self, node_id: &str, addr: &str) -> Result<(), StoreError> {
        let id = manager_id(node_id)?;
        let _one = self.membership_lock().await;
        self.must_lead()?;
        if !self.members().iter().any(|member| member.node_id == node_id) {
            return Err(StoreError::NoMember { node_id: node_id.to_owned() });
        }
        self.set_addr(id, addr).await
    }

    async fn set_addr(&self, id: ManagerId, addr: &str) -> Result<(), StoreError> {
        let present = self.metrics().membership_config.membership().get_node(&id).cloned();
        let peer = Peer { addr: addr.to_owned() };
        let nodes = BTreeMap::from([(id, peer.clone())]);
        match present {
            Some(present) if present == peer => Ok(()),
            Some(_) => self.change(ChangeMembers::SetNodes(nodes)).await,
            None => self.change(ChangeMembers::AddNodes(nodes)).await,
        }
    }

    /// Completes a change that an earlier leader left half done.
    pub(crate) async fn settle_membership(&self) -> Result<(), StoreError> {
        if self.metrics().membership_config.membership().get_joint_config().len() < 2 {
            return Ok(());
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new())).await
    }

    /// Returns once the managers as this leader has them are committed. Somebody who asked for a change
    /// before may not have waited for it, and it counts on the leader from the moment it is in its log.
    async fn membership_holds(&self) -> Result<(), StoreError> {
        self.settle_membership().await?;
        let committed = self.raft().with_raft_state(|state| {
            let membership = &state.membership_state;
            membership.committed().log_id() == membership.effective().log_id()
        });
        if !committed.await? {
            // Whatever is behind it in the log will do.
            self.while_leading(self.raft().client_write(Batch::new(&[] as &[&[u8]]))).await?;
        }
        Ok(())
    }

    async fn change(&self, change: ChangeMembers<ManagerId, Peer>) -> Result<(), StoreError> {
        // A removed voter stays nothing; a node whose address changes stays what it was.
        let retain = !matches!(change, ChangeMembers::RemoveVoters(_));
        self.while_leading(self.raft().change_membership(change, retain)).await?;
        Ok(())
    }

    fn metrics(&self) -> Metrics {
        self.raft().metrics().borrow().clone()
    }
}

fn manager_id(node_id: &str) -> Result<ManagerId, StoreError> {
    match ManagerId::try_from(node_id.to_owned()) {
        Ok(id) if id != ManagerId::default() => Ok(id),
        _ => Err(StoreError::NodeId(node_id.to_owned())),
    }
}

/// More than half of the voters that stay must be reachable, or nothing could be decided after it.
fn check_removal(members: &[Member], leaving: &str) -> Result<(), StoreError> {
    let staying: Vec<&Member> =
        members.iter().filter(|member| member.voter && member.node_id != leaving).collect();
    if staying.is_empty() {
        return Err(StoreError::LastManager);
    }
    let reachable = staying.iter().filter(|member| member.reachable).count();
    match 2 * reachable > staying.len() {
        true => Ok(()),
        false => Err(StoreError::QuorumLoss { reachable, voters: staying.len() }),
    }
}
